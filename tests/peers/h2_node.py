"""A node that speaks HTTP/2 byte by byte: for what grpcio's server will not do."""

import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from relay import feeds

from . import events
from .h2_wire import WAIT, Stream, Wire

RESPONSE = [(":status", "200"), ("content-type", "application/grpc")]
OK_TRAILERS = [("grpc-status", "0")]


class NodeConnection(Wire):
    """The relay's connection to a node, from the node's end.

    Args:
        checks: whether HealthCheck is answered with the nonce.
        accepts: whether a Watch call gets its response headers at once.
        others: as for `Wire`.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        checks: bool = True,
        accepts: bool = True,
        settings: Mapping[str, int] | None = None,
        segment: int = 0,
        answer: bool = True,
    ) -> None:
        self.checks = checks
        self.accepts = accepts
        self.asked: dict[int, list[int]] = {feed: [] for feed in feeds.FEEDS}  # streams by feed, in order
        super().__init__(sock, client=False, settings=settings, segment=segment, answer=answer)

    def stream(self, feed: int, time: int = 1) -> int:
        """The stream of the relay's request number `time` for a feed, from 1; waits for it."""
        self.wait(lambda _: len(self.asked[feed]) >= time, f"request {time} for feed {feed}")
        return self.asked[feed][time - 1]

    def filter(self, feed: int) -> str:
        """The filter that the relay asked with."""
        from relay import kubearmor_pb2 as pb

        stream = self.stream(feed)
        self.wait(lambda wire: wire.streams[stream].ended, "the whole request")
        return str(pb.RequestMessage.FromString(self.streams[stream].messages[0]).Filter)

    def say(self, feed: int, data: bytes, *, size: int = 0, pad: int | None = None) -> None:
        """Bytes of frames on a feed, in DATA frames of at most `size` bytes."""
        self.data(self.stream(feed), data, size=size, pad=pad)

    def end(self, feed: int, trailers: list[tuple[str, str]] | None = None) -> None:
        """End a feed with trailers; OK when none are given."""
        self.headers(self.stream(feed), trailers or OK_TRAILERS, end=True)

    def on_headers(self, number: int, stream: Stream) -> None:
        path = stream.headers[":path"]
        if path in feeds.METHODS:
            self.asked[feeds.METHODS.index(path)].append(number)
            if self.accepts:
                self.headers(number, RESPONSE)

    def on_end(self, number: int, stream: Stream) -> None:
        if stream.headers[":path"] == feeds.HEALTH_CHECK and self.checks:
            self.answer_check(number)

    def answer_check(self, number: int) -> None:
        """Answer a HealthCheck with its nonce."""
        # Request and reply have the same encoding: an int32 in field 1.
        self.headers(number, RESPONSE)
        self.data(number, events.frames(self.streams[number].messages))
        self.headers(number, OK_TRAILERS, end=True)


class Node:
    """A listening socket; the test accepts and drives each connection itself."""

    def __init__(self, host: str = "127.0.0.1", listener: socket.socket | None = None) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = listener or socket.create_server((host, 0), family=family, backlog=512)
        self._listener.settimeout(WAIT)
        self.host = host
        self.port: int = self._listener.getsockname()[1]
        self._connections: list[NodeConnection] = []

    def accept_socket(self) -> socket.socket:
        """The next connection, as a bare socket."""
        sock, _ = self._listener.accept()
        sock.settimeout(None)
        return sock

    def accept(
        self,
        *,
        checks: bool = True,
        accepts: bool = True,
        settings: Mapping[str, int] | None = None,
        segment: int = 0,
        answer: bool = True,
    ) -> NodeConnection:
        """The next connection; see `NodeConnection` for the arguments."""
        connection = NodeConnection(
            self.accept_socket(), checks=checks, accepts=accepts, settings=settings, segment=segment, answer=answer
        )
        self._connections.append(connection)
        return connection

    def close(self) -> None:
        """Close the listener and all connections."""
        self._listener.close()
        for connection in self._connections:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        for connection in self._connections:
            if kind is None and connection.error is not None:
                raise connection.error
