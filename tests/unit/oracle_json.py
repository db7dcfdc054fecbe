"""Oracle of relay/native/json.pxd: protobuf's own parser, and Go's encoding/json written down once more.

Events are read by the generated classes, or by hand, and printed through their descriptors.
"""

from collections.abc import Iterator
from typing import Any

from unit import oracle_reader, oracle_scan
from unit.oracle_repair import varint
from unit.oracle_scan import CLASSES

# Printed even when they are 0.
ALWAYS = ("PPID", "UID")

SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
HTML = "<>&\u2028\u2029"


def text(value: str) -> str:
    """A string as encoding/json prints it; lone surrogates stand for bytes that are not UTF-8."""
    out = []
    for char in value:
        if char in SHORT:
            out.append(SHORT[char])
        elif char < " " or char in HTML:
            out.append(f"\\u{ord(char):04x}")
        elif "\udc80" <= char <= "\udcff":
            out.append("\\ufffd")
        else:
            out.append(char)
    return '"' + "".join(out) + '"'


def is_map(entry: Any) -> bool:
    return entry.type == entry.TYPE_MESSAGE and entry.message_type.GetOptions().map_entry


def members(descriptor: Any, held: dict[str, Any]) -> list[str]:
    """The members of the object that a message is printed as; `held` has what was set, by the fields' names."""
    result = []
    for field in descriptor.fields:  # in the order of declaration
        value = held.get(field.name)
        if is_map(field):
            pairs = sorted((key.encode(errors="surrogateescape"), key, of) for key, of in (value or {}).items())
            printed = "{" + ",".join(f"{text(key)}:{text(of)}" for _, key, of in pairs) + "}"
        elif field.is_repeated:
            printed = "[" + ",".join(text(each) for each in value or []) + "]"
        elif field.type == field.TYPE_MESSAGE:
            if value is None:
                continue
            result.append(f'"{field.name}":{{{",".join(members(field.message_type, value))}}}')
            continue
        else:
            printed = text(value or "") if field.type == field.TYPE_STRING else str(value or 0)
        if value or (field.name in ALWAYS and descriptor.name in ("Alert", "Log")):
            result.append(f'"{field.name}":{printed}')
    return result


def held(message: Any) -> dict[str, Any]:
    """What is set in a message of a generated class."""
    result: dict[str, Any] = {}
    for field, value in message.ListFields():
        nested = field.type == field.TYPE_MESSAGE and not is_map(field)
        result[field.name] = held(value) if nested else value
    return result


def printed(message: Any) -> bytes:
    """A message of a generated class as one line, without its end."""
    return ("{" + ",".join(members(message.DESCRIPTOR, held(message))) + "}").encode()


def stripped(descriptor: Any, data: bytes) -> bytes:
    """A message without what Go's parser skips: upb drops a whole entry of a map that has an unknown field in it."""
    out = b""
    for field, entry in known(descriptor, data):
        value = field.value
        if entry.type == entry.TYPE_MESSAGE:
            body = stripped(entry.message_type, field.body)
            value = varint(len(body)) + body
        out += field.tag + value
    return out


def known(descriptor: Any, data: bytes) -> Iterator[tuple[oracle_scan.Field, Any]]:
    """The fields of the schema that have its wire type, with their entries there."""
    for field in oracle_scan.fields(data, 0):
        entry = descriptor.fields_by_number.get(field.number)
        if entry is not None:
            of_bytes = entry.type in (entry.TYPE_STRING, entry.TYPE_MESSAGE)
            if field.wire == (oracle_scan.BYTES if of_bytes else oracle_scan.VARINT):
                yield field, entry


def read(descriptor: Any, data: bytes, into: dict[str, Any]) -> dict[str, Any]:
    """What a message holds, by no parser but this; bytes that are not UTF-8 become lone surrogates."""
    for field, entry in known(descriptor, data):
        if is_map(entry):
            pair = read(entry.message_type, field.body, {})
            into.setdefault(entry.name, {})[pair.get("key", "")] = pair.get("value", "")
        elif entry.type == entry.TYPE_MESSAGE:
            read(entry.message_type, field.body, into.setdefault(entry.name, {}))
        elif entry.type == entry.TYPE_STRING:
            value = field.body.decode(errors="surrogateescape")
            if entry.is_repeated:
                into.setdefault(entry.name, []).append(value)
            else:
                into[entry.name] = value
        else:
            size = 64 if entry.type == entry.TYPE_INT64 else 32
            number = (oracle_reader.varint(field.value) or (0, 0))[0] % 2**size
            into[entry.name] = number - 2**size if number >= 2 ** (size - 1) else number
    return into


def event(feed: int, data: bytes) -> bytes | str:
    """An event from its wire bytes, or the name of the status.

    Read twice: by the generated classes, which take no strings that are not UTF-8, and by no parser but this file.
    """
    verdict = oracle_scan.scan(feed, data)
    if verdict == oracle_scan.MALFORMED:
        return "STATUS_MALFORMED"
    descriptor = CLASSES[feed].DESCRIPTOR
    line = ("{" + ",".join(members(descriptor, read(descriptor, data, {}))) + "}").encode()
    assert verdict == oracle_scan.REPAIR or line == printed(CLASSES[feed].FromString(stripped(descriptor, data)))
    return line
