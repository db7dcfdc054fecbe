"""A KubeArmor node on grpcio's server: what a well-behaved node can do, on demand of a test.

Messages are raw bytes, so that a node can also say what the message classes would refuse to.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent import futures
from types import TracebackType
from typing import Self

import grpc

from relay import feeds
from relay import kubearmor_pb2 as pb

# How KubeArmor's feeder is set up: it pings after a second of silence and wants the answer within five.
# The policy against the client's own pings is left at the library's default, as KubeArmor leaves it.
KUBEARMOR = (
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_timeout_ms", 5000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
WAIT = 30.0


class _End:
    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        self.code = code
        self.text = text


class Node:
    """A node on a loopback port; its feeds are scripts of events and ends that one stream after the other takes on.

    Args:
        unimplemented: feeds whose method is not there.
        nonce_offset: added to the nonce that HealthCheck echoes; anything but 0 is a wrong answer.
        answers: without, HealthCheck is never answered.
        port: where to listen; 0 lets the system choose.
        options: of the server, on top of KubeArmor's.
        threads: of the server: a stream takes one as long as it lives.
        credentials: with them TLS is spoken.
    """

    def __init__(
        self,
        *,
        unimplemented: tuple[int, ...] = (),
        nonce_offset: int = 0,
        answers: bool = True,
        port: int = 0,
        options: tuple[tuple[str, object], ...] = (),
        threads: int = 8,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self.filters: dict[int, list[str]] = {feed: [] for feed in feeds.FEEDS}
        self.checks: list[int] = []
        self.open: dict[int, int] = dict.fromkeys(feeds.FEEDS, 0)
        self._nonce_offset = nonce_offset
        self._answers = answers
        self._stopping = False
        self._changed = threading.Condition()
        self._scripts: dict[int, deque[bytes | _End]] = {feed: deque() for feed in feeds.FEEDS}
        self._server = grpc.server(
            futures.ThreadPoolExecutor(max_workers=threads),
            options=[("grpc.so_reuseport", 0), *KUBEARMOR, *options],
        )
        handlers = {"HealthCheck": grpc.unary_unary_rpc_method_handler(self._check)}
        for feed in feeds.FEEDS:
            if feed not in unimplemented:
                name = feeds.METHODS[feed].rpartition("/")[2]
                handlers[name] = grpc.unary_stream_rpc_method_handler(self._watcher(feed))
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(feeds.SERVICE, handlers)])
        where = f"127.0.0.1:{port}"
        if credentials is None:
            self.port = self._server.add_insecure_port(where)
        else:
            self.port = self._server.add_secure_port(where, credentials)
        self._server.start()

    def send(self, feed: int, *events: bytes) -> None:
        """Let the feed's stream send events: the one that is open, or the next one."""
        with self._changed:
            self._scripts[feed].extend(events)
            self._changed.notify_all()

    def end(self, feed: int, code: grpc.StatusCode = grpc.StatusCode.OK, text: str = "") -> None:
        """Let the feed's stream end after what was sent before."""
        with self._changed:
            self._scripts[feed].append(_End(code, text))
            self._changed.notify_all()

    def wait(self, predicate: Callable[[Self], bool], what: str = "the node's state") -> None:
        """Wait until the predicate holds; looked at after every change."""
        with self._changed:
            assert self._changed.wait_for(lambda: predicate(self), WAIT), f"{what} did not come"

    def wait_open(self, feed: int, times: int = 1) -> None:
        """Wait until the feed has been asked for so often."""
        self.wait(lambda node: len(node.filters[feed]) >= times, f"request {times} of feed {feed}")

    def stop(self) -> None:
        """End all streams and connections at once."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._server.stop(0).wait(WAIT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _check(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        nonce = pb.NonceMessage.FromString(request).nonce
        with self._changed:
            self.checks.append(nonce)
            self._changed.notify_all()
            if not self._answers:
                context.add_callback(self._wake)
                self._changed.wait_for(lambda: self._stopping or not context.is_active())
        answer = (nonce + self._nonce_offset + 2**31) % 2**32 - 2**31
        reply: bytes = pb.ReplyMessage(Retval=answer).SerializeToString()
        return reply

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _watcher(self, feed: int) -> Callable[[bytes, grpc.ServicerContext], Iterator[bytes]]:
        def watch(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            context.add_callback(self._wake)
            # The relay may ask for the response headers before the first event; grpc-go sends them only then.
            with self._changed:
                self.filters[feed].append(pb.RequestMessage.FromString(request).Filter)
                self.open[feed] += 1
                self._changed.notify_all()
            try:
                yield from self._play(feed, context)
            finally:
                with self._changed:
                    self.open[feed] -= 1
                    self._changed.notify_all()

        return watch

    def _play(self, feed: int, context: grpc.ServicerContext) -> Iterator[bytes]:
        script = self._scripts[feed]
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or not context.is_active() or bool(script))
                if self._stopping or not context.is_active():
                    return
                step = script.popleft()
            if isinstance(step, bytes):
                yield step
                continue
            context.set_code(step.code)
            context.set_details(step.text)
            return
