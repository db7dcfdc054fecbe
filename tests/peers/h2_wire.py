"""What the byte-level peers share: one HTTP/2 connection on a raw socket, read by a thread.

The `h2` library keeps the connection's state; what it will not do is done beside it: frames are cut from the stream
before it sees them (so that a test can look at their boundaries, and so that GOAWAY does not end what may go on), and
everything it wants to say passes through `send`, which can split it into segments of any size or drop it.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, PingFrame, RstStreamFrame

from . import events

WAIT = 120.0  # a bound for what hangs: nothing that works takes so long, under a sanitizer on a busy machine neither
HEADER = 9
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# Frame types (RFC 9113, section 6).
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

# Settings by the name that tests use.
SETTING = {
    "header_table_size": h2.settings.SettingCodes.HEADER_TABLE_SIZE,
    "enable_push": h2.settings.SettingCodes.ENABLE_PUSH,
    "max_concurrent_streams": h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS,
    "initial_window_size": h2.settings.SettingCodes.INITIAL_WINDOW_SIZE,
    "max_frame_size": h2.settings.SettingCodes.MAX_FRAME_SIZE,
    "max_header_list_size": h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE,
}


@dataclass
class Stream:
    """What arrived on one stream."""

    headers: dict[str, str] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    pieces: list[int] = field(default_factory=list)  # payload bytes of each DATA frame, padding left out
    ended: bool = False
    reset: int | None = None  # error code of RST_STREAM

    @property
    def over(self) -> bool:
        """Nothing will follow."""
        return self.ended or self.reset is not None

    @property
    def messages(self) -> list[bytes]:
        """The whole gRPC messages so far."""
        return events.unframe(bytes(self.data))[0]

    @property
    def status(self) -> tuple[int, str]:
        """grpc-status and grpc-message: from the trailers, or from the headers of a trailers-only answer."""
        source = self.trailers if "grpc-status" in self.trailers else self.headers
        return int(source.get("grpc-status", -1)), source.get("grpc-message", "")


class Wire:
    """One end of an HTTP/2 connection.

    Args:
        sock: a connected socket; owned from now on.
        client: whether this end is the client.
        settings: of our own SETTINGS frame, by the names of `SETTING`.
        segment: bytes of each write to the socket; 0 writes everything at once.
        reopen: whether windows are reopened by what arrives, as soon as it does.
        answer: whether SETTINGS and PING are acknowledged.
        read: whether the socket is read at all; without it `resume` begins to.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        client: bool,
        settings: Mapping[str, int] | None = None,
        segment: int = 0,
        reopen: bool = True,
        answer: bool = True,
        read: bool = True,
    ) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.segment = segment
        self.reopen = reopen
        self.answer = answer
        self.streams: dict[int, Stream] = {}
        self.frames: list[tuple[int, int, int, int]] = []  # type, flags, stream, payload length of what arrived
        self.goaway: tuple[int, int, bytes] | None = None  # error code, last stream, debug data
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
        self.settings_acknowledged = 0
        self.closed = False  # end of file, or reset
        self.error: Exception | None = None  # what the h2 library had against the other side
        self._left = False
        self._trips = 0
        self._received = bytearray()
        self._client = client
        self._preface = not client
        self._changed = threading.Condition(threading.RLock())
        self._sending = threading.RLock()
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=client,
                header_encoding="utf-8",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        values = {SETTING[name]: value for name, value in (settings or {}).items()}
        self.h2.local_settings = h2.settings.Settings(client=client, initial_values=values)
        # The library enforces what it is told here on what it receives.
        self.h2.max_inbound_frame_size = self.h2.local_settings.max_frame_size
        with self._changed:
            self.h2.initiate_connection()
            try:
                self.flush()
            except OSError:
                sock.close()
                raise
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reading = read
        if read:
            self._reader.start()

    # What a test waits for ----------------------------------------------------------------

    def wait(self, predicate: Callable[[Self], object], what: str = "") -> None:
        """Wait until the predicate holds; it is looked at after everything that arrives."""
        with self._changed:
            came = self._changed.wait_for(lambda: predicate(self) or self.error or self.closed, WAIT)
            assert predicate(self), (
                f"{what or 'the state waited for'} did not come: "
                f"{'closed ' if self.closed else ''}{'' if came else 'timeout '}{self.error or ''} {self.goaway or ''}"
            )

    def wait_over(self, stream: int) -> Stream:
        """Wait until a stream is over."""
        self.wait(lambda wire: wire.streams[stream].over, f"end of stream {stream}")
        return self.streams[stream]

    def wait_messages(self, stream: int, count: int) -> list[bytes]:
        """Wait for so many whole messages on a stream."""
        self.wait(lambda wire: len(wire.streams[stream].messages) >= count, f"{count} messages on stream {stream}")
        return self.streams[stream].messages

    def wait_closed(self) -> None:
        """Wait until the other side has closed the connection."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.closed, WAIT), "the connection stayed open"

    def resume(self) -> None:
        """Begin to read."""
        self._reading = True
        self._reader.start()

    # What a test sends ------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Bytes as they are, in segments."""
        with self._sending:
            for piece in events.chunks(data, self.segment or max(1, len(data))):
                self.sock.sendall(piece)

    def flush(self) -> None:
        """What the h2 library wants to say."""
        with self._sending:
            self.send(self.h2.data_to_send())

    def send_frame(self, frame: Frame) -> None:
        """A frame that the h2 library does not know of."""
        self.send(frame.serialize())

    def send_raw_frame(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
        """A frame of any type, known or not."""
        self.send(len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload)

    def headers(self, stream: int, headers: list[tuple[str, str]], *, end: bool = False) -> None:
        """A HEADERS frame: a request, a response, or trailers."""
        with self._changed:
            self.h2.send_headers(stream, headers, end_stream=end)
            self.flush()

    def data(self, stream: int, data: bytes, *, size: int = 0, pad: int | None = None, end: bool = False) -> None:
        """DATA frames of at most `size` payload bytes, as windows allow; nothing once the stream is over."""
        at = 0
        while at < len(data) or (end and not data):
            with self._changed:
                if self.streams[stream].over and self._client:
                    return
                room = self._room(stream, 0 if pad is None else pad + 1)
                limit = min(size or room, room, len(data) - at)
                last = at + limit == len(data)
                self.h2.send_data(stream, data[at : at + limit], end_stream=end and last, pad_length=pad)
                at += limit
                self.flush()
            if not data:
                return

    def window(self, increment: int, stream: int = 0) -> None:
        """WINDOW_UPDATE."""
        with self._changed:
            self.h2.increment_flow_control_window(increment, stream or None)
            self.flush()

    def change(self, **settings: int) -> None:
        """SETTINGS in the middle of the connection."""
        with self._changed:
            self.h2.update_settings({SETTING[name]: value for name, value in settings.items()})
            self.flush()

    def ping(self, opaque: bytes = b"12345678") -> None:
        """PING, beside the h2 library."""
        self.send_frame(PingFrame(opaque_data=opaque))

    def round_trip(self) -> None:
        """PING and its answer: what the other side had to say before, it has said."""
        self._trips += 1
        opaque = self._trips.to_bytes(8)
        self.ping(opaque)
        self.wait(lambda wire: opaque in wire.pongs, "answer to PING")

    def reset(self, stream: int, code: int = 8) -> None:
        """RST_STREAM; CANCEL when not told otherwise."""
        with self._changed:
            self.h2.reset_stream(stream, code)
            self.flush()

    def reset_quietly(self, stream: int, code: int = 8) -> None:
        """RST_STREAM that our own h2 library does not know of, so that what still arrives is seen."""
        self.send_frame(RstStreamFrame(stream, error_code=code))

    def go_away(self, code: int = 0, last: int = 2**31 - 1, text: bytes = b"") -> None:
        """GOAWAY, beside the h2 library."""
        self.send_frame(GoAwayFrame(last_stream_id=last, error_code=code, additional_data=text))

    def data_frame(self, stream: int, data: bytes, *flags: str) -> None:
        """One DATA frame that the h2 library does not know of: no window, no limits."""
        self.send_frame(DataFrame(stream, data=data, flags=list(flags)))

    # The end ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the socket: the other side sees an end of file, or a reset when it still has something to say."""
        self._left = True
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        if self._reading:
            self._reader.join(WAIT)
        self.sock.close()

    def vanish(self) -> None:
        """Close with a RST segment, whatever is still under way."""
        self._left = True
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        with contextlib.suppress(OSError):
            # Wakes the reader, which a plain close would leave in its call; the descriptor's close then resets.
            self.sock.shutdown(socket.SHUT_RD)
        if self._reading:
            self._reader.join(WAIT)
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if kind is None and self.error is not None:
            raise self.error

    # Inside -----------------------------------------------------------------------------------------

    def _room(self, stream: int, overhead: int) -> int:
        """Wait until at least one byte of payload fits; how many do."""
        assert self._changed.wait_for(
            lambda: self.closed or self.error or self.h2.local_flow_control_window(stream) > overhead, WAIT
        ), f"no window on stream {stream}"
        assert not self.closed, "connection closed"
        assert self.error is None, self.error
        return min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size) - overhead

    def _read(self) -> None:
        while True:
            try:
                received = self.sock.recv(65536)
            except OSError:
                received = b""
            with self._changed:
                try:
                    self._take(received)
                except h2.exceptions.ProtocolError as error:
                    self.error = None if self._left else error
                    received = b""
                except OSError:
                    received = b""
                if not received:
                    self.closed = True
                self._changed.notify_all()
            if not received:
                return

    def _take(self, received: bytes) -> None:
        self._received += received
        if self._preface and len(self._received) >= len(PREFACE):
            self._hand(bytes(self._received[: len(PREFACE)]))
            del self._received[: len(PREFACE)]
            self._preface = False
        if self._preface:
            return
        at = 0
        while len(self._received) - at >= HEADER:
            length = int.from_bytes(self._received[at : at + 3])
            if len(self._received) - at < HEADER + length:
                break
            frame = bytes(self._received[at : at + HEADER + length])
            at += HEADER + length
            self._see(frame, length)
        del self._received[:at]

    def _see(self, frame: bytes, length: int) -> None:
        kind, flags, stream = frame[3], frame[4], int.from_bytes(frame[5:9]) & 0x7FFFFFFF
        self.frames.append((kind, flags, stream, length))
        if kind == GOAWAY:
            self.goaway = (int.from_bytes(frame[13:17]), int.from_bytes(frame[9:13]), frame[17:])
            return
        if kind == PING:
            (self.pongs if flags & 1 else self.pings).append(frame[9:])
            if flags & 1:
                return  # the library would not know of the PING
        self._hand(frame)

    def _hand(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            self._note(event)
        if self.answer:
            self.flush()
        else:
            self.h2.data_to_send()

    def _note(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived() | h2.events.ResponseReceived():
                stream = self.streams.setdefault(event.stream_id, Stream())
                stream.headers = dict(event.headers)
                self.on_headers(event.stream_id, stream)
            case h2.events.TrailersReceived():
                self.streams[event.stream_id].trailers = dict(event.headers)
            case h2.events.DataReceived():
                stream = self.streams[event.stream_id]
                stream.data += event.data
                stream.pieces.append(len(event.data))
                if self.reopen and event.flow_controlled_length:
                    self.h2.increment_flow_control_window(event.flow_controlled_length)
                    with contextlib.suppress(h2.exceptions.ProtocolError):  # ended by this very frame
                        self.h2.increment_flow_control_window(event.flow_controlled_length, event.stream_id)
                self.on_data(event.stream_id, stream)
            case h2.events.StreamEnded():
                self.streams[event.stream_id].ended = True
                self.on_end(event.stream_id, self.streams[event.stream_id])
            case h2.events.StreamReset():
                self.streams.setdefault(event.stream_id, Stream()).reset = int(event.error_code)
            case h2.events.SettingsAcknowledged():
                self.settings_acknowledged += 1

    def on_headers(self, number: int, stream: Stream) -> None:
        """For subclasses; called with the lock held."""

    def on_data(self, number: int, stream: Stream) -> None:
        """For subclasses; called with the lock held."""

    def on_end(self, number: int, stream: Stream) -> None:
        """For subclasses; called with the lock held."""
