"""Oracle of relay/native/json.pxd: protobuf's own parser, and Go's encoding/json written down once more.

Events are read by the generated classes and printed through their descriptors.
"""

from typing import Any

from unit import oracle_scan
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


def members(message: Any) -> list[str]:
    """The members of the object that a message is printed as."""
    result = []
    for field in message.DESCRIPTOR.fields:  # in the order of declaration
        value = getattr(message, field.name)
        if field.type == field.TYPE_MESSAGE and field.message_type.GetOptions().map_entry:
            pairs = sorted((key.encode(), of) for key, of in value.items())
            if not pairs:
                continue
            printed = "{" + ",".join(f"{text(key.decode())}:{text(of)}" for key, of in pairs) + "}"
        elif field.is_repeated:
            if not value:
                continue
            printed = "[" + ",".join(text(each) for each in value) + "]"
        elif field.type == field.TYPE_MESSAGE:
            if not message.HasField(field.name):
                continue
            printed = "{" + ",".join(members(value)) + "}"
        elif not value and not (field.name in ALWAYS and message.DESCRIPTOR.name in ("Alert", "Log")):
            continue
        else:
            printed = text(value) if field.type == field.TYPE_STRING else str(value)
        result.append(f'"{field.name}":{printed}')
    return result


def printed(message: Any) -> bytes:
    """A message of a generated class as one line, without its end."""
    return ("{" + ",".join(members(message)) + "}").encode()


def stripped(descriptor: Any, data: bytes) -> bytes:
    """A message without what Go's parser skips: upb drops a whole entry of a map that has an unknown field in it."""
    out = b""
    for field in oracle_scan.fields(data, 0):
        entry = descriptor.fields_by_number.get(field.number)
        if entry is None:
            continue
        of_bytes = entry.type in (entry.TYPE_STRING, entry.TYPE_MESSAGE)
        if field.wire != (oracle_scan.BYTES if of_bytes else oracle_scan.VARINT):
            continue
        value = field.value
        if entry.type == entry.TYPE_MESSAGE:
            body = stripped(entry.message_type, field.body)
            value = varint(len(body)) + body
        out += field.tag + value
    return out


def event(feed: int, data: bytes) -> bytes | str:
    """An event from its wire bytes, or the name of the status. Its strings have to be UTF-8."""
    verdict = oracle_scan.scan(feed, data)
    assert verdict != oracle_scan.REPAIR, "the parser takes no strings that are not UTF-8"
    if verdict == oracle_scan.MALFORMED:
        return "STATUS_MALFORMED"
    return printed(CLASSES[feed].FromString(stripped(CLASSES[feed].DESCRIPTOR, data)))
