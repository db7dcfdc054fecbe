"""What the micro benchmarks share: an engine in this process, and a client that speaks just enough HTTP/2."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Iterator
from typing import Any

from benchmarks.load import http2

HEALTH_CHECK = "/feeder.LogService/HealthCheck"
NONCE = b"\0\0\0\0\x02\x08\x2a"  # NonceMessage{nonce: 42} behind its prefix
_SECONDS = 10.0


@contextlib.contextmanager
def engine(**settings: Any) -> Iterator[tuple[Any, int]]:
    """A started engine and the port where it serves.

    Both threads share a processor: how long one takes to wake the other depends on that more than on anything
    they do, and the kernel would change its mind from run to run.
    """
    from relay import _fastpath

    native = _fastpath.Engine(**settings)
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        native.start()
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
            native.listen(listener.fileno())
            yield native, listener.getsockname()[1]
    finally:
        native.close()
        os.sched_setaffinity(0, allowed)


class Client:
    """One connection to an engine that makes HealthCheck calls."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), _SECONDS)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.frames = http2.Frames()
        self.stream = -1
        fields = [(":method", "POST"), (":scheme", "http"), (":path", HEALTH_CHECK), (":authority", "engine")]
        self.headers = http2.literal_headers([*fields, ("content-type", "application/grpc"), ("te", "trailers")])
        room = http2.window_update(0, http2.LARGEST_WINDOW - http2.FIRST_WINDOW)  # for more answers than anybody asks
        self.sock.sendall(http2.PREFACE + http2.settings({}) + http2.pack(http2.SETTINGS, http2.ACK, 0) + room)

    def check(self) -> None:
        """One HealthCheck, there and back."""
        self.stream += 2
        self.sock.sendall(
            http2.pack(http2.HEADERS, http2.END_HEADERS, self.stream, self.headers)
            + http2.pack(http2.DATA, http2.END_STREAM, self.stream, NONCE)
        )
        while True:
            data = self.sock.recv(65_536)
            assert data, "the engine closed the connection"
            for kind, flags, stream, payload in self.frames.feed(data):
                if kind == http2.PING and not flags & http2.ACK:
                    self.sock.sendall(http2.pack(http2.PING, http2.ACK, 0, payload))
                assert kind != http2.GOAWAY, payload
                if stream == self.stream and flags & http2.END_STREAM and kind in (http2.DATA, http2.HEADERS):
                    return

    def close(self) -> None:
        self.sock.close()


class Reports:
    """Waits for an engine's reports."""

    def __init__(self, native: Any) -> None:
        self.native = native
        self._poll = select.poll()
        self._poll.register(native.fileno(), select.POLLIN)

    def drained(self, ticket: int) -> None:
        """Return when the report about this ticket has come."""
        from relay import _fastpath

        while True:
            assert self._poll.poll(_SECONDS * 1000), f"ticket {ticket} was not drained within {_SECONDS:g} s"
            if (_fastpath.REPORT_DRAINED, ticket) in self.native.reports():
                return
