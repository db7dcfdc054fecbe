"""Clients that mean harm, and do it cheaply: bytes made beforehand, on bare sockets, and what is said in the end."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from hpack import Decoder

from relay import feeds

from . import events
from .closing import Closing
from .h2_wire import (
    CONTINUATION,
    DATA,
    GOAWAY,
    HEADER,
    HEADERS,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WAIT,
    WINDOW_UPDATE,
)

END_STREAM, END_HEADERS, PADDED = 1, 4, 8
LARGEST_WINDOW = 2**31 - 1


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """A frame of HTTP/2."""
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header that goes into no table (RFC 7541, 6.2.2); lengths below 127."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def block(path: str, content_type: str = "application/grpc", *extra: tuple[str, str]) -> bytes:
    """The header block of a request, the same on every connection and stream."""
    headers = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "relay")]
    headers += [("content-type", content_type), ("te", "trailers"), *extra]
    return b"".join(literal(name.encode(), value.encode()) for name, value in headers)


WATCH = block(feeds.METHODS[events.LOGS])
CHECK = block(feeds.HEALTH_CHECK)


def headers(stream: int, of: bytes, *, end: bool = False) -> bytes:
    """Request headers."""
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, of)


def call(stream: int, of: bytes, message: bytes = b"") -> bytes:
    """A whole request with one message."""
    return headers(stream, of) + frame(DATA, END_STREAM, stream, events.frame(message))


def long_block(stream: int, of: bytes, *, size: int = 16384) -> bytes:
    """A header block in as many frames as it takes."""
    parts = list(events.chunks(of, size))
    return b"".join(
        frame(CONTINUATION if at else HEADERS, END_HEADERS if at == len(parts) - 1 else 0, stream, part)
        for at, part in enumerate(parts)
    )


@dataclass
class Said:
    """What a relay has said to a client."""

    goaway: tuple[int, str] | None = None  # error code and text
    resets: Counter[int] = field(default_factory=Counter)  # by error code
    statuses: Counter[str] = field(default_factory=Counter)  # grpc-status, or ":status" where there is none
    settings: int = 0  # how often it has said or acknowledged some
    closed: bool = False


class Attacker(Closing):
    """A connection to a relay, beyond its preface.

    Args:
        port: the relay's.
        source: a loopback address of its own.
        settings: the payload of its SETTINGS.
        bare: without a preface.
        receive_buffer: of its socket in the kernel; 0 leaves the kernel's choice.
    """

    def __init__(
        self,
        port: int,
        source: str = "127.0.0.1",
        *,
        settings: bytes = b"",
        bare: bool = False,
        receive_buffer: int = 0,
    ) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(WAIT)
        try:
            self.socket.bind((source, 0))
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.socket.close()
            raise
        self.said = Said()
        self._received = b""
        self._decoder = Decoder()
        self._decoder.max_allowed_table_size = 1 << 20
        if not bare:
            self.say(PREFACE + frame(SETTINGS, payload=settings))

    def say(self, data: bytes) -> bool:
        """Send it all, reading meanwhile whatever comes; False when the relay has hung up."""
        rest = memoryview(data)
        end = time.monotonic() + WAIT
        try:
            while rest and not self.said.closed:
                assert time.monotonic() < end, "the relay takes nothing"
                readable, writable, _ = select.select([self.socket], [self.socket], [], WAIT)
                if readable:
                    self._read()
                if writable:
                    rest = rest[self.socket.send(rest[: 1 << 16], socket.MSG_DONTWAIT) :]
        except BlockingIOError:
            pass
        except OSError:
            self._drain()
        return not self.said.closed

    def say_blindly(self, data: bytes) -> bool:
        """Send as much as goes in at once, reading nothing; False when the relay has hung up."""
        with contextlib.suppress(BlockingIOError):
            try:
                self.socket.send(data, socket.MSG_DONTWAIT)
            except (ConnectionResetError, BrokenPipeError):
                return False
        return True

    def listen(self) -> Said:
        """Read what has come."""
        while not self.said.closed and select.select([self.socket], [], [], 0)[0]:
            self._read()
        return self.said

    def until(self, holds: Callable[[Said], object]) -> Said:
        """Read until the relay has said that."""
        end = time.monotonic() + WAIT
        while not holds(self.said):
            assert not self.said.closed, f"the relay has hung up: {self.said}"
            readable, _, _ = select.select([self.socket], [], [], max(0, end - time.monotonic()))
            assert readable, f"the relay says no more than {self.said}"
            self._read()
        return self.said

    def last_words(self) -> Said:
        """Wait until the relay has hung up: what it had said."""
        return self.until(lambda said: said.closed)

    def close(self) -> None:
        self.socket.close()

    def _drain(self) -> None:
        while not self.said.closed:
            self._read()

    def _read(self) -> None:
        try:
            data = self.socket.recv(1 << 20)
        except OSError:
            data = b""
        if not data:
            self.said.closed = True
        self._received += data
        at = 0
        while len(self._received) - at >= HEADER:
            length = int.from_bytes(self._received[at : at + 3])
            if len(self._received) - at < HEADER + length:
                break
            self._see(self._received[at + 3], self._received[at + HEADER : at + HEADER + length])
            at += HEADER + length
        self._received = self._received[at:]

    def _see(self, kind: int, payload: bytes) -> None:
        if kind == GOAWAY:
            self.said.goaway = (int.from_bytes(payload[4:8]), payload[8:].decode())
        elif kind == RST_STREAM:
            self.said.resets[int.from_bytes(payload)] += 1
        elif kind == SETTINGS:
            self.said.settings += 1
        elif kind == HEADERS:
            found = dict(self._decoder.decode(payload))
            if "grpc-status" in found:
                self.said.statuses[found["grpc-status"]] += 1
            elif found.get(":status", "200") != "200":
                self.said.statuses[found[":status"]] += 1


def open_windows() -> bytes:
    """SETTINGS for streams as wide as HTTP/2 allows; `widen` does the same for the connection."""
    return b"\0\4" + LARGEST_WINDOW.to_bytes(4)


def widen() -> bytes:
    """As much credit as a connection can have."""
    return frame(WINDOW_UPDATE, payload=(LARGEST_WINDOW - 65535).to_bytes(4))
