"""The small pieces of gRPC, as plain Python: the standard library's functions where they do the same."""

from __future__ import annotations

import re
from urllib.parse import quote_from_bytes, unquote_to_bytes

PRINTABLE = bytes(range(0x20, 0x7F)).decode().replace("%", "")
UNITS = {
    b"H": 3_600_000_000_000,
    b"M": 60_000_000_000,
    b"S": 1_000_000_000,
    b"m": 1_000_000,
    b"u": 1_000,
    b"n": 1,
}
MOST_GROUPS = 99  # nested in one another, as in an event
MOST_GROUPS_UPB = 100

# "HTTP to gRPC Status Code Mapping"; all others are UNKNOWN.
STATUS_OF_HTTP = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}

# "Errors" of the gRPC over HTTP/2 specification, by number.
# It leaves STREAM_CLOSED (5) and HTTP_1_1_REQUIRED (13) open; they are as in grpc-go.
STATUS_OF_HTTP2 = {
    0: 13, 1: 13, 2: 13, 3: 13, 4: 13, 5: 13, 6: 13, 7: 14, 8: 1, 9: 13, 10: 13, 11: 8, 12: 7, 13: 13,
}  # fmt: skip


def timeout(text: bytes) -> int | None:
    """Nanoseconds, at most 2**64 - 1."""
    found = re.fullmatch(rb"([0-9]{1,8})([HMSmun])", text)
    return found and min(int(found[1]) * UNITS[found[2]], 2**64 - 1)


def status(text: bytes) -> int:
    """A gRPC status; UNKNOWN (2) when it is none."""
    digits = text.lstrip(b"0") or b"0"
    found = text and re.fullmatch(rb"[0-9]{1,2}", digits)
    return int(digits) if found and int(digits) <= 16 else 2


def message_encode(text: bytes, room: int) -> bytes:
    """Percent-encoded, cut before the first character that does not fit."""
    encoded = b""
    for character in re.findall(rb"(?:^[\x80-\xbf]|[^\x80-\xbf])[\x80-\xbf]*", text, re.DOTALL):
        more = quote_from_bytes(character, safe=PRINTABLE).encode()
        if len(encoded) + len(more) > room:
            break
        encoded += more
    return encoded


def message_decode(text: bytes, room: int) -> bytes:
    return unquote_to_bytes(text)[:room]


def content_type(text: bytes) -> bool:
    return bool(re.fullmatch(rb"application/grpc(\+proto)?([ \t]*;.*)?", text, re.IGNORECASE | re.DOTALL))


class Malformed(Exception):
    """No protobuf parser takes this."""


class Decoder:
    """Protobuf fields of a message.

    `upb`: as protobuf's own parser in C, which drops bits of a varint above 64 and goes one group deeper.
    """

    def __init__(self, message: bytes, *, upb: bool = False) -> None:
        self.rest = message
        self.upb = upb

    def take(self, size: int) -> bytes:
        if size > len(self.rest):
            raise Malformed
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken

    def varint(self, most: int) -> int:
        value = 0
        for i in range(most):
            (byte,) = self.take(1)
            value |= (byte & 0x7F) << (7 * i)
            if byte < 0x80:
                if value >= 2**64 and not self.upb:
                    raise Malformed
                return value % 2**64
        raise Malformed

    def tag(self) -> tuple[int, int]:
        tag = self.varint(5)
        if not 8 <= tag < 2**32:
            raise Malformed
        return tag >> 3, tag & 7

    def value(self, number: int, wire: int, depth: int = 0) -> bytes | int | None:
        match wire:
            case 0:
                return self.varint(10)
            case 1:
                return self.take(8)
            case 2:
                return self.take(self.varint(5))
            case 3:
                return self.group(number, depth + 1)
            case 5:
                return self.take(4)
        raise Malformed

    def group(self, number: int, depth: int) -> None:
        if depth > (MOST_GROUPS_UPB if self.upb else MOST_GROUPS):
            raise Malformed
        while True:
            inner, wire = self.tag()
            if wire == 4:
                if inner != number:
                    raise Malformed
                return
            self.value(inner, wire, depth)

    def last(self, number: int, wire: int) -> bytes | int | None:
        """The last value of a field with this number and wire type; for bytes, each must be UTF-8."""
        found = None
        while self.rest:
            tag = self.tag()
            value = self.value(*tag)
            if tag == (number, wire):
                found = value
                if isinstance(found, bytes):
                    try:
                        found.decode()
                    except UnicodeDecodeError:
                        raise Malformed from None
        return found


def request_filter(message: bytes, *, upb: bool = False) -> bytes | None:
    """RequestMessage.Filter; None when malformed."""
    try:
        found = Decoder(message, upb=upb).last(1, 2)
    except Malformed:
        return None
    assert not isinstance(found, int)
    return found or b""


def int32(message: bytes, *, upb: bool = False) -> int | None:
    """A message's int32 field 1; None when malformed."""
    try:
        found = Decoder(message, upb=upb).last(1, 0)
    except Malformed:
        return None
    assert not isinstance(found, bytes)
    return ((found or 0) + 2**31) % 2**32 - 2**31
