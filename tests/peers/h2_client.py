"""A subscriber that speaks HTTP/2 byte by byte: for what grpcio's client will not do."""

import socket
from collections import deque
from collections.abc import Mapping

from hyperframe.frame import ContinuationFrame, HeadersFrame

from relay import feeds

from . import events
from .h2_wire import HEADER, SETTING, WAIT, Stream, Wire

GRPC_HEADERS = (("te", "trailers"), ("content-type", "application/grpc"))


def connect(port: int, receive_buffer: int = 0, host: str = "127.0.0.1") -> socket.socket:
    """A TCP connection, with a small kernel buffer where the test wants the other side to feel what is not read."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(WAIT)
        sock.connect((host, port))
        sock.settimeout(None)
    except OSError:
        sock.close()
        raise
    return sock


class Client(Wire):
    """A client's connection: to a loopback port, or on a socket that is connected; see `Wire` for the arguments."""

    def __init__(
        self,
        port: int,
        *,
        settings: Mapping[str, int] | None = None,
        segment: int = 0,
        reopen: bool = True,
        answer: bool = True,
        read: bool = True,
        receive_buffer: int = 0,
        sock: socket.socket | None = None,
    ) -> None:
        sock = sock or connect(port, receive_buffer)
        super().__init__(sock, client=True, settings=settings, segment=segment, reopen=reopen, answer=answer, read=read)

    def open(
        self,
        path: str,
        extra: tuple[tuple[str, str], ...] = (),
        *,
        replace: tuple[tuple[str, str], ...] = (),
        without: tuple[str, ...] = (),
        end: bool = False,
    ) -> int:
        """Send request headers; the stream's number. `replace` changes the usual ones, `without` leaves some out."""
        usual = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "relay"), *GRPC_HEADERS]
        changed = dict(replace)
        headers = [(name, changed.get(name, value)) for name, value in usual if name not in without]
        with self._changed:
            stream: int = self.h2.get_next_available_stream_id()
            self.streams[stream] = Stream()
            self.headers(stream, [*headers, *extra], end=end)
        return stream

    def open_and_end(self, path: str) -> int:
        """A request of headers alone."""
        return self.open(path, end=True)

    def open_anyhow(self, path: str, pieces: int = 1) -> int:
        """Send request headers beyond the other side's limit of streams, their block in CONTINUATION frames."""
        with self._changed:
            limit = self.h2.remote_settings._settings.setdefault(SETTING["max_concurrent_streams"], deque([2**31]))
            allowed, limit[0] = limit[0], 2**31
            stream: int = self.h2.get_next_available_stream_id()
            self.streams[stream] = Stream()
            headers = [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", path),
                (":authority", "relay"),
                *GRPC_HEADERS,
            ]
            self.h2.send_headers(stream, headers)
            limit[0] = allowed
            block = self.h2.data_to_send()[HEADER:]
            parts = list(events.chunks(block, -(-len(block) // pieces)))
            for at, part in enumerate(parts):
                made = HeadersFrame(stream, part) if at == 0 else ContinuationFrame(stream, part)
                if at == len(parts) - 1:
                    made.flags.add("END_HEADERS")
                self.send_frame(made)
        return stream

    def call(self, path: str, *messages: bytes, extra: tuple[tuple[str, str], ...] = ()) -> int:
        """A complete request with any number of messages; the stream's number."""
        stream = self.open(path, extra, end=not messages)
        if messages:
            self.data(stream, events.frames(messages), end=True)
        return stream

    def watch(self, feed: int, filter_: str = "") -> int:
        """Subscribe, and wait for the response headers: from there on no event is missed."""
        stream = self.call(feeds.METHODS[feed], events.request(filter_))
        self.wait(lambda wire: wire.streams[stream].headers, f"response headers of stream {stream}")
        return stream

    def check(self, nonce: int) -> int:
        """HealthCheck, as a sign that the connection is alive and served."""
        from relay import kubearmor_pb2 as pb

        stream = self.call(feeds.HEALTH_CHECK, events.nonce(nonce))
        over = self.wait_over(stream)
        assert over.status == (0, ""), over
        return int(pb.ReplyMessage.FromString(over.messages[0]).Retval)
