"""Events of an exact size, as a KubeArmor node would send it, with the time it was made.

Encoded by hand, so that a load process needs no message classes. Timestamp comes first and holds
nanoseconds (as the Go peers' does), which take the same number of bytes at any time, so that a sender
can stamp an event in place and a receiver finds the stamp at a known offset.
"""

from __future__ import annotations

import contextlib
import random
import time

EVENT_BYTES = 768

MESSAGES, ALERTS, LOGS = 0, 1, 2  # the feeds' numbers
PATHS = tuple(f"/feeder.LogService/Watch{feed}" for feed in ("Messages", "Alerts", "Logs"))
LOGS_PATH = PATHS[LOGS]

_TIMESTAMP, _UPDATED_TIME = 1, 2
_OWNER = {ALERTS: 31, LOGS: 24}
_EXEC_EVENT = {ALERTS: 36, LOGS: 27}
_FILLED = {MESSAGES: 8, ALERTS: 20, LOGS: 16}  # Message, Resource: whose tail makes up the size
_COMMON: list[tuple[int, str | int]] = [(3, "production-eu-1"), (4, "gke-production-pool-2-7f9c41d2-x8kq")]
_FIELDS: dict[int, list[tuple[int, str | int]]] = {  # field number and value
    MESSAGES: [(5, "10.4.17.21"), (6, "Info"), (7, "INFO")],
    ALERTS: [
        (5, "payments"),
        (6, "checkout-api-6d8f7b9c5d-q4zr2"),
        (29, "app=checkout-api,tier=backend"),
        (7, "3f1c9a0be4d27765a8c1d0f2be96b8f7c43e19d2aa57f0c6118e42b9d7305fe1"),
        (8, "checkout-api"),
        (24, "registry.example/checkout-api:2.14.3"),
        (27, 41877),
        (9, 41903),
        (10, 211),
        (11, 237),
        (12, 1000),
        (25, "/usr/bin/bash"),
        (26, "/usr/bin/curl"),
        (13, "block-egress"),
        (14, "5"),
        (15, "NETWORK,MITRE"),
        (30, "NETWORK"),
        (17, "MatchedPolicy"),
        (18, "/usr/bin/curl -sS https://payments.internal/healthz"),
        (19, "Network"),
        (21, "kprobe=tcp_connect domain=AF_INET"),
        (28, "BPFLSM"),
        (22, "Block"),
        (23, "Permission denied"),
    ],
    LOGS: [
        (5, "payments"),
        (6, "checkout-api-6d8f7b9c5d-q4zr2"),
        (23, "app=checkout-api,tier=backend,pod-template-hash=6d8f7b9c5d"),
        (7, "3f1c9a0be4d27765a8c1d0f2be96b8f7c43e19d2aa57f0c6118e42b9d7305fe1"),
        (8, "checkout-api"),
        (19, "registry.example/checkout-api:2.14.3@sha256:9b1e7c5f2a3d4e6081f7"),
        (20, "/usr/bin/bash"),
        (21, "/usr/bin/curl"),
        (22, 41877),
        (9, 41903),
        (10, 211),
        (11, 237),
        (12, 1000),
        (13, "ContainerLog"),
        (14, "/usr/bin/curl -sS https://payments.internal/healthz"),
        (15, "Network"),
        (17, "kprobe=tcp_connect domain=AF_INET"),
        (18, "Passed"),
        (25, "/srv/checkout"),
        (26, "pts0"),
        (28, "c0a8e5f16b7d"),
    ],
}


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, value: str | int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


_VARIED = {  # fields whose length differs from event to event, and by how much at most
    MESSAGES: {4: 12, 5: 6},
    ALERTS: {4: 12, 6: 10, 29: 40, 24: 20, 25: 20, 26: 20, 18: 40},
    LOGS: {4: 12, 6: 10, 23: 40, 19: 20, 20: 20, 21: 20, 14: 40},
}
_NUMBERS = (9, 10, 11, 12, 22, 27)  # process and user ids, of one to three bytes


def event(feed: int = LOGS, size: int = EVENT_BYTES, now_ns: int | None = None, seed: int | None = None) -> bytes:
    """A feeder.Message, Alert or Log of exactly `size` bytes (768 to 16,000); one long field makes it up.

    With a seed, other fields differ in length, too.

    Raises:
        ValueError: the size is too small for the fields of this feed.
    """
    now_ns = time.time_ns() if now_ns is None else now_ns
    vary = random.Random(seed)
    text = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(now_ns // 1_000_000_000))
    start = _field(_TIMESTAMP, now_ns) + _field(_UPDATED_TIME, text)
    rest = b""
    for number, value in _COMMON + _FIELDS[feed]:
        if seed is not None and isinstance(value, str):
            most = _VARIED[feed].get(number, 0)
            value = value[: len(value) - vary.randint(0, min(most, len(value) - 1))]
        elif seed is not None and number in _NUMBERS:
            value = vary.choice((7, 311, 41_903))
        rest += _field(number, value)
    if feed in _OWNER:
        rest += _field(_OWNER[feed], _field(1, "Deployment") + _field(2, "checkout-api") + _field(3, "payments"))
        rest += _field(_EXEC_EVENT[feed], b"")  # always set, and mostly empty
    words = "remoteip=10.4.17.201 port=8443 protocol=TCP "
    left = size - len(start) - len(rest)
    for header in range(2, 6):  # of tag and length
        filled = _field(_FILLED[feed], words.ljust(max(left - header, 0), "a"))
        if len(filled) == left:
            return start + filled + rest
    raise ValueError(f"an event of feed {feed} cannot have {size} bytes; {EVENT_BYTES} it can")


def varied(feed: int, size: int, count: int) -> list[bytes]:
    """`count` events of the same size and different layouts, the same ones every time.

    Nodes do not repeat themselves to the byte, and a relay may be quicker with events like the last one.
    """
    made: list[bytes] = []
    seed = 0
    while len(made) < count:
        # A length prefix that grows by a byte can leave a size out of reach for one layout.
        with contextlib.suppress(ValueError):
            made.append(event(feed, size, seed=seed))
        seed += 1
    return made


def frame(event: bytes) -> bytes:
    """The event behind its 5-byte gRPC prefix."""
    return b"\0" + len(event).to_bytes(4, "big") + event


# The stamp: field 1, whose nanoseconds since 1970 take 9 bytes until the year 2262.
_STAMP_AT = 5 + 1
_STAMP_BYTES = 9


def stamp(buffer: bytearray, at: int, now_ns: int) -> None:
    """Write the time into the frame that begins at `at`."""
    buffer[at + _STAMP_AT : at + _STAMP_AT + _STAMP_BYTES] = varint(now_ns)


def stamped_ns(buffer: bytes | bytearray | memoryview, at: int) -> int:
    """The time in the frame that begins at `at`, in nanoseconds since 1970."""
    value = 0
    for i in range(_STAMP_BYTES):
        value |= (buffer[at + _STAMP_AT + i] & 0x7F) << (7 * i)
    return value
