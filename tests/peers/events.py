"""Events and frames for the tests: built with the generated classes, compared as bytes."""

import struct
from collections.abc import Iterable, Iterator

from relay import kubearmor_pb2 as pb

MESSAGES, ALERTS, LOGS = range(3)
FEEDS = (MESSAGES, ALERTS, LOGS)
CLASSES = (pb.Message, pb.Alert, pb.Log)
PREFIX = 5

# The field that `event` pads, by feed: a string that real events fill, too.
_FILLER = ("Message", "Resource", "Resource")


def event(feed: int, number: int = 0, size: int = 0, **fields: object) -> bytes:
    """An event of a feed, told from others by UpdatedTime; padded to exactly `size` bytes when that is given."""
    made = CLASSES[feed](Timestamp=1_700_000_000 + number, UpdatedTime=f"{number:020d}", HostName="node", **fields)
    encoded: bytes = made.SerializeToString()
    if size:
        # The padding's own tag and length take 3 to 6 bytes: find the length that makes the whole fit.
        for rest in range(size - len(encoded), -1, -1):
            setattr(made, _FILLER[feed], "x" * rest)
            encoded = made.SerializeToString()
            if len(encoded) == size:
                break
        else:
            raise ValueError(f"no event has exactly {size} bytes")
    return encoded


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
