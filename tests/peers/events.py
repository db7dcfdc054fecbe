"""Events and frames for the tests: built with the generated classes, compared as bytes."""

import struct
from collections.abc import Iterable, Iterator

from relay import kubearmor_pb2 as pb

MESSAGES, ALERTS, LOGS = range(3)
FEEDS = (MESSAGES, ALERTS, LOGS)
NAMES = ("messages", "alerts", "logs")
CLASSES = (pb.Message, pb.Alert, pb.Log)
PREFIX = 5

# The field that `event` pads, by feed: a string that real events fill, too.
_FILLER = ("Message", "Resource", "Resource")


def event(feed: int, number: int = 0, size: int = 0, **fields: object) -> bytes:
    """An event of a feed, told from others by UpdatedTime; padded to exactly `size` bytes when that is given."""
    made = CLASSES[feed](Timestamp=1_700_000_000 + number, UpdatedTime=f"{number:020d}", HostName="node", **fields)
    encoded: bytes = made.SerializeToString()
    if not size:
        return encoded
    # A string's length takes more bytes where it grows, so a few sizes cannot be reached with one string alone.
    for made.ClusterName in ("", "c"):
        for rest in range(size - made.ByteSize(), max(-1, size - made.ByteSize() - 8), -1):
            setattr(made, _FILLER[feed], "x" * rest)
            if made.ByteSize() == size:
                return bytes(made.SerializeToString())
            setattr(made, _FILLER[feed], "")
    raise ValueError(f"no event has exactly {size} bytes")


def varint(value: int) -> bytes:
    """A base-128 varint."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field with any bytes in it."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def events(feed: int, count: int, size: int = 0, start: int = 0) -> list[bytes]:
    """Events numbered from `start`."""
    return [event(feed, number, size) for number in range(start, start + count)]


def number_of(encoded: bytes) -> int:
    """The number that `event` gave."""
    # UpdatedTime is field 2 in every feed, so any of the classes reads it.
    return int(pb.Message.FromString(encoded).UpdatedTime)


def frame(message: bytes, flag: int = 0) -> bytes:
    """A message behind its gRPC prefix."""
    return struct.pack(">BI", flag, len(message)) + message


def frames(messages: Iterable[bytes]) -> bytes:
    """Messages as frames, back to back."""
    return b"".join(map(frame, messages))


def unframe(data: bytes) -> tuple[list[bytes], bytes]:
    """The whole messages at the start of a byte stream, and what is left of it."""
    messages = []
    at = 0
    while len(data) - at >= PREFIX:
        length = struct.unpack_from(">I", data, at + 1)[0]
        if len(data) - at - PREFIX < length:
            break
        messages.append(bytes(data[at + PREFIX : at + PREFIX + length]))
        at += PREFIX + length
    return messages, bytes(data[at:])


def nonce(value: int) -> bytes:
    """A HealthCheck request."""
    encoded: bytes = pb.NonceMessage(nonce=value).SerializeToString()
    return encoded


def request(filter_: str = "") -> bytes:
    """A Watch request."""
    encoded: bytes = pb.RequestMessage(Filter=filter_).SerializeToString()
    return encoded


def chunks(data: bytes, size: int) -> Iterator[bytes]:
    """Pieces of at most `size` bytes."""
    for at in range(0, len(data), size):
        yield data[at : at + size]
