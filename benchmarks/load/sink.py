"""Subscribers made for load: count events exactly, or read their stamps, or only let bytes go.

Where several subscribers are to be faster than a program that does nothing but write to them, they must not
even copy: with `discard` the kernel drops what has arrived (MSG_TRUNC, tcp(7)), and events are reckoned from
bytes, short of the truth by less than SLACK. Under TLS what is dropped is not even decrypted.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.load import events, http2, secure

READ = 256 * 1024
DROP = 4 * 2**20
FRAME_LIMIT = 16_384
SLACK = 64  # events of each subscriber that lets bytes go
UPDATE_AFTER = 2**28  # bytes received before the windows are opened again
REQUEST = b"\0" + (8).to_bytes(4, "big") + b"\x0a\x06system"  # RequestMessage{Filter: "system"}
TELL = 2048  # events between two words to the source
_PATTERN = 512  # frames compared in one go


class Stream:
    """One WatchLogs stream: bytes of messages so far, and the piece of a message not yet whole."""

    def __init__(self) -> None:
        self.bytes = 0
        self.held = bytearray()
        self.answered = False
        self.ended = ""


class Subscriber:
    """One connection with one or several streams. All events have the same size."""

    def __init__(
        self,
        port: int,
        *,
        authorities: tuple[str, ...] = ("localhost",),
        plain: bool = False,
        latency: bool = False,
        discard: bool = False,
        packed: bool = True,
        path: str = events.LOGS_PATH,
        event_bytes: int = events.EVENT_BYTES,
        window: int = http2.LARGEST_WINDOW,
        receive_buffer: int = 0,
        tls: Path | None = None,
    ) -> None:
        self.sock = socket.socket()
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.connect(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self.sock = secure.wrap(self.sock, tls, server=False)
        self.header = http2.HEADER + (secure.OVERHEAD if tls else 0)  # with a DATA frame that fills a record
        self.plain = plain
        self.latency = latency
        self.discard = discard
        self.full = (FRAME_LIMIT // (event_bytes + 5) if packed else 1) * (event_bytes + 5)  # of a DATA frame
        self.frame = event_bytes + 5
        self.bytes = 0  # of messages, prefixes included
        self.latencies: list[int] = []
        self.streams: dict[int, Stream] = {}
        self.wire = 0
        self.dropped_wire = 0
        self._since_update = 0
        self._stream_since: dict[int, int] = {}
        self._kind = self._flags = self._stream = 0
        self._left = 0  # bytes to come of the frame whose header was read
        self._control = bytearray()  # payload of a frame other than DATA, so far
        self._header = bytearray()
        self._one = b""
        self._pattern = b""
        self._size = self.frame
        if plain:
            self.frame = event_bytes + 5 + http2.HEADER
            return
        out = http2.PREFACE + http2.settings({http2.INITIAL_WINDOW_SIZE: window})
        if window > http2.FIRST_WINDOW:
            out += http2.window_update(0, window - http2.FIRST_WINDOW)
        for number, authority in enumerate(authorities):
            stream = 1 + 2 * number
            self.streams[stream] = Stream()
            self._stream_since[stream] = 0
            fields = [(":method", "POST"), (":scheme", "http"), (":path", path)]
            fields += [(":authority", authority), ("content-type", "application/grpc"), ("te", "trailers")]
            out += http2.pack(http2.HEADERS, http2.END_HEADERS, stream, http2.literal_headers(fields))
            out += http2.pack(http2.DATA, http2.END_STREAM, stream, REQUEST)
        self.sock.sendall(out)

    def events(self) -> int:
        """Events received."""
        return self.bytes // self.frame

    def letting_go(self) -> bool:
        """Whether what comes now is to be dropped unseen: all frames but DATA have come."""
        return self.discard and self.answered()

    def dropped(self, size: int) -> None:
        """`size` bytes have been dropped, of DATA frames as full of events as 16 KiB allow, or of one event each."""
        self.wire += size
        if self.plain:
            self.bytes += size
            return
        self.dropped_wire += size
        self.bytes = self.dropped_wire * self.full // (self.full + self.header)
        self._since_update += size
        if self._since_update >= UPDATE_AFTER:
            # A little less than came, so that the windows are never opened too far.
            for stream in (0, *self.streams):
                self.sock.sendall(http2.window_update(stream, self._since_update * 49 // 50))
            self._since_update = 0

    def answered(self) -> bool:
        """Have all streams got their response headers?"""
        return self.plain or all(stream.answered for stream in self.streams.values())

    def take(self, buffer: bytearray, size: int) -> None:
        """Account for `size` received bytes."""
        self.wire += size
        if self.plain:
            self.bytes += size
            return
        view = memoryview(buffer)[:size]
        at = 0
        now = time.time_ns() if self.latency else 0
        while at < size:
            if not self._left and not self._header and self._pattern and not self.latency:
                run = self._repeated(buffer, at, size)
                if run:
                    at += run
                    continue
            if self._left:
                part = min(self._left, size - at)
                self._payload(view[at : at + part], now)
                self._left -= part
                at += part
                if not self._left:
                    self._end()
                continue
            want = http2.HEADER - len(self._header)
            self._header += view[at : at + want]
            at = min(at + want, size)
            if len(self._header) < http2.HEADER:
                continue
            header = self._header
            self._left = int.from_bytes(header[:3], "big")
            self._kind, self._flags = header[3], header[4]
            self._stream = int.from_bytes(header[5:9], "big") & http2.LARGEST_WINDOW
            if self._kind == http2.DATA and self._left == self._size and bytes(header) != self._one:
                self._one = bytes(header)
                self._pattern = b""
            self._header = bytearray()
            if not self._left:
                self._end()

    def _repeated(self, buffer: bytearray, at: int, size: int) -> int:
        """Bytes of whole frames that are all like the last one-event frame; compared, not assumed."""
        period = len(self._pattern) // _PATTERN
        whole = min((size - at) // period, _PATTERN)
        if not whole or not buffer.startswith(memoryview(self._pattern)[: whole * period], at):
            return 0
        self._count(int.from_bytes(self._one[5:9], "big"), whole * (period - http2.HEADER))
        return whole * period

    def _payload(self, view: memoryview, now: int) -> None:
        if self._kind != http2.DATA:
            self._control += view
            return
        size = len(view)
        if self.latency:
            held = self.streams[self._stream].held
            held += view
            at = 0
            while len(held) - at >= self.frame:
                self.latencies.append(now - events.stamped_ns(held, at))
                at += self.frame
            del held[:at]
        elif not self._pattern and size == self._left == self._size and self._one:
            self._pattern = (self._one + bytes(view)) * _PATTERN
        self._count(self._stream, size)

    def _count(self, stream: int, size: int) -> None:
        self.bytes += size
        self.streams[stream].bytes += size
        self._stream_since[stream] += size
        self._since_update += size
        if self._since_update >= UPDATE_AFTER:
            self.sock.sendall(http2.window_update(0, self._since_update))
            self._since_update = 0
        if self._stream_since[stream] >= UPDATE_AFTER:
            self.sock.sendall(http2.window_update(stream, self._stream_since[stream]))
            self._stream_since[stream] = 0

    def _end(self) -> None:
        """A frame is complete."""
        kind, flags, payload = self._kind, self._flags, bytes(self._control)
        self._control.clear()
        if kind == http2.SETTINGS and not flags & http2.ACK:
            self.sock.sendall(http2.pack(http2.SETTINGS, http2.ACK, 0))
        elif kind == http2.PING and not flags & http2.ACK:
            self.sock.sendall(http2.pack(http2.PING, http2.ACK, 0, payload))
        elif kind == http2.GOAWAY:
            raise ConnectionError(f"GOAWAY {payload!r}")
        elif kind == http2.RST_STREAM:
            raise ConnectionError(f"stream {self._stream} was reset with {int.from_bytes(payload, 'big')}")
        elif kind == http2.HEADERS:
            stream = self.streams[self._stream]
            stream.answered = True
            if flags & http2.END_STREAM:
                raise ConnectionError(f"stream {self._stream} ended: {payload!r}")

    def close(self) -> None:
        self.sock.close()


class Sink:
    """Several subscribers, read by one thread."""

    def __init__(self, subscribers: list[Subscriber]) -> None:
        self.subscribers = subscribers
        self._buffer = bytearray(READ)
        self._unseen = bytearray(DROP if any(s.discard for s in subscribers) else 0)  # never written to
        self._poll = select.epoll()
        self.tell: Callable[[int], None] | None = None  # what the slowest subscriber has, every TELL events
        self._told = 0
        self._by_fd = {s.sock.fileno(): s for s in subscribers}
        for fd in self._by_fd:
            self._poll.register(fd, select.EPOLLIN)

    def events(self) -> int:
        return sum(s.events() for s in self.subscribers)

    def turn(self, timeout: float) -> bool:
        """Read once from each socket that has something. False when none had within the time."""
        ready = self._poll.poll(timeout)
        for fd, _ in ready:
            subscriber = self._by_fd[fd]
            try:
                if subscriber.letting_go():
                    size = subscriber.sock.recv_into(self._unseen, DROP, socket.MSG_DONTWAIT | socket.MSG_TRUNC)
                    subscriber.dropped(size)
                else:
                    size = subscriber.sock.recv_into(self._buffer, READ, socket.MSG_DONTWAIT)
                    subscriber.take(self._buffer, size)
            except BlockingIOError:
                continue  # a part of a record
            if not size:
                raise ConnectionError(f"closed after {subscriber.events()} events")
        return bool(ready)

    def until(self, count: int, timeout: float, stall: float) -> bool:
        """Read until `count` events in all. False when nothing came for `stall` s or time ran out."""
        end = time.monotonic() + timeout
        while self.events() < count:
            if not self.turn(stall) or time.monotonic() > end:
                return self.events() >= count
            if self.tell:
                slowest = min(s.events() for s in self.subscribers)
                if slowest - self._told >= TELL:
                    self._told = slowest
                    self.tell(slowest)
        return True

    def wait_answered(self, timeout: float = 15.0) -> None:
        end = time.monotonic() + timeout
        while not all(s.answered() for s in self.subscribers):
            self.turn(0.05)
            if time.monotonic() > end:
                raise TimeoutError("no response headers within 15 s")

    def settle(self, seconds: float, condition: Callable[[], bool] = lambda: False) -> None:
        """Read on for a while, or until the condition holds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not condition():
            self.turn(0.02)

    def close(self) -> None:
        self._poll.close()
        for subscriber in self.subscribers:
            subscriber.close()
