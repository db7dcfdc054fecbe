"""Oracle of relay/native/repair.pxd."""

from typing import Any

from unit import oracle_utf8
from unit.oracle_scan import CLASSES, fields, known


def varint(value: int, size: int = 1) -> bytes:
    """A varint of at least `size` bytes; longer than needed is over-long."""
    encoded = bytearray()
    while value >= 0x80 or len(encoded) < size - 1:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def repaired(descriptor: Any, data: bytes, depth: int = 0) -> tuple[bytes, int]:
    """A message with each invalid byte of its strings replaced, and how many were."""
    out = []
    total = 0
    for field in fields(data, depth):
        value = field.value
        entry = known(descriptor, field)
        if entry is not None:
            if entry.type == entry.TYPE_STRING:
                body, count = oracle_utf8.repaired(field.body)
            else:
                body, count = repaired(entry.message_type, field.body, depth + 1)
            total += count
            if count:
                value = varint(len(body)) + body
        out.append(field.tag + value)
    return b"".join(out), total


def repair(feed: int, data: bytes) -> tuple[bytes, int]:
    """An event repaired, and how many bytes were replaced; Malformed when it is not an event."""
    return repaired(CLASSES[feed].DESCRIPTOR, data)
