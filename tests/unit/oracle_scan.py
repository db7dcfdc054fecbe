"""Oracle of relay/native/scan.pxd: the same rules, read off the descriptors of the generated classes."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from unit import oracle_utf8
from unit.oracle_reader import Reader

from relay import kubearmor_pb2 as pb

CLASSES = (pb.Message, pb.Alert, pb.Log)
OK, REPAIR, MALFORMED = range(3)

DEPTH = 99
VARINT, FIXED64, BYTES, GROUP, GROUP_END, FIXED32 = range(6)


class Malformed(Exception):
    """What no parser, or not every parser, takes."""


class Field(NamedTuple):
    """A field of a message as it lies there."""

    number: int
    wire: int
    tag: bytes
    value: bytes  # all that follows the tag, lengths and ends of groups included
    body: bytes  # what a length is of; empty for other fields


def read_tag(reader: Reader) -> tuple[int, int]:
    ahead = Reader(reader.data)
    tag = reader.tag()
    if tag is None:
        value = ahead.varint()
        raise Malformed("tag" if value is None or value >= 8 else "number 0")
    return tag


def fields(data: bytes, depth: int) -> Iterator[Field]:
    """The fields of a message that is `depth` messages deep in an event."""
    reader = Reader(data)
    while reader.data:
        start = reader.data
        number, wire = read_tag(reader)
        value = reader.data
        body = b""
        if wire == BYTES:
            body_or_none = reader.bytes()
            if body_or_none is None:
                raise Malformed("length")
            body = body_or_none
        else:
            skip(reader, number, wire, depth)
        yield Field(number, wire, start[: len(start) - len(value)], value[: len(value) - len(reader.data)], body)


def skip(reader: Reader, number: int, wire: int, depth: int) -> None:
    """Pass the value of a field that is not looked into."""
    if wire == VARINT:
        ten = reader.data[:10]
        whole = reader.skip_varint()
        if not whole and len(ten) == 10 and ten[9] < 0x80 and all(byte >= 0x80 for byte in ten[:9]):
            raise Malformed("65th bit")
    elif wire == FIXED32:
        whole = reader.skip(4)
    elif wire == FIXED64:
        whole = reader.skip(8)
    elif wire == BYTES:
        whole = reader.bytes() is not None
    elif wire == GROUP:
        skip_group(reader, number, depth + 1)
        whole = True
    else:
        raise Malformed("wire type")
    if not whole:
        raise Malformed("value")


def skip_group(reader: Reader, number: int, depth: int) -> None:
    """Pass the fields of a group that is `depth` messages and groups deep in an event, and its end."""
    if depth > DEPTH:
        raise Malformed("depth")
    while True:
        tag = read_tag(reader)
        if tag == (number, GROUP_END):
            return
        skip(reader, *tag, depth)


def known(descriptor: Any, field: Field) -> Any:
    """The schema's entry for a field whose body has to be looked into: a string or a message. Or None."""
    entry = descriptor.fields_by_number.get(field.number)
    if entry is None or field.wire != BYTES or entry.type not in (entry.TYPE_STRING, entry.TYPE_MESSAGE):
        return None
    return entry


def all_utf8(descriptor: Any, data: bytes, depth: int = 0) -> bool:
    """Whether every string of a message is UTF-8; Malformed when it is not even a message."""
    if depth > DEPTH:
        raise Malformed("depth")
    result = True
    for field in fields(data, depth):
        entry = known(descriptor, field)
        if entry is None:
            continue
        if entry.type == entry.TYPE_STRING:
            result &= oracle_utf8.valid(field.body)
        else:
            result &= all_utf8(entry.message_type, field.body, depth + 1)
    return result


def scan(feed: int, data: bytes) -> int:
    """OK, REPAIR or MALFORMED."""
    try:
        return OK if all_utf8(CLASSES[feed].DESCRIPTOR, data) else REPAIR
    except Malformed:
        return MALFORMED


def why(feed: int, data: bytes) -> str:
    """Why an event is malformed; "" when it is not."""
    try:
        all_utf8(CLASSES[feed].DESCRIPTOR, data)
    except Malformed as reason:
        return str(reason)
    return ""
