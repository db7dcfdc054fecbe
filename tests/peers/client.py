"""Subscribers on grpcio's client: what karmor and its like do."""

import queue
import threading
import time
from types import TracebackType
from typing import Self

import grpc

from relay import feeds

from . import events

WAIT = 30.0


def channel(port: int, credentials: grpc.ChannelCredentials | None = None, **options: object) -> grpc.Channel:
    """A connection of its own to a loopback port: grpcio would share one between equal channels.

    Args:
        credentials: with them TLS is spoken.
        options: of grpcio, without "grpc." before their names.
    """
    given = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", -1),
        *((f"grpc.{name}", value) for name, value in options.items()),
    ]
    if credentials is None:
        return grpc.insecure_channel(f"127.0.0.1:{port}", options=given)
    return grpc.secure_channel(f"127.0.0.1:{port}", credentials, options=given)


class Subscriber:
    """One Watch stream: a thread reads it into a queue, so that the test can wait for what it expects.

    Args:
        over: the channel, shared between subscribers where the test wants one connection.
        feed: which one to watch.
        filter_: of the request.
        timeout: of the call, seconds, sent as grpc-timeout.
    """

    def __init__(self, over: grpc.Channel, feed: int, filter_: str = "", timeout: float | None = None) -> None:
        call = over.unary_stream(feeds.METHODS[feed])
        self._call = call(events.request(filter_), timeout=timeout)
        self._arrived: queue.Queue[bytes | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def ready(self) -> Self:
        """Wait for the response headers: the relay sends them at once, and from there on no event is missed."""
        self._call.initial_metadata()
        return self

    def take(self, count: int, timeout: float = WAIT) -> list[bytes]:
        """The next so many events, as bytes.

        Raises:
            AssertionError: the stream ended, or they did not come in time.
        """
        taken: list[bytes] = []
        deadline = time.monotonic() + timeout
        while len(taken) < count:
            try:
                event = self._arrived.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"{len(taken)} of {count} events in {timeout} s") from None
            if event is None:
                self._arrived.put(None)
                raise AssertionError(f"stream ended after {len(taken)} of {count} events: {self._call.code()}")
            taken.append(event)
        return taken

    def rest(self, timeout: float = WAIT) -> list[bytes]:
        """All events until the stream ends."""
        taken: list[bytes] = []
        while (event := self._arrived.get(timeout=timeout)) is not None:
            taken.append(event)
        self._arrived.put(None)
        return taken

    def code(self) -> grpc.StatusCode:
        """The status; waits for the end."""
        return self._call.code()

    def details(self) -> str:
        """The status's text; waits for the end."""
        return str(self._call.details())

    def trailers(self) -> dict[str, str]:
        """Trailer metadata; waits for the end."""
        return {pair.key: pair.value for pair in self._call.trailing_metadata()}

    def cancel(self) -> None:
        """Leave."""
        self._call.cancel()
        self._reader.join(WAIT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def _read(self) -> None:
        try:
            for event in self._call:
                self._arrived.put(event)
        except grpc.RpcError:
            pass  # code() and details() tell
        finally:
            self._arrived.put(None)


def check(over: grpc.Channel, nonce: int, timeout: float = WAIT) -> int:
    """HealthCheck: the value that comes back."""
    from relay import kubearmor_pb2 as pb

    reply = over.unary_unary(feeds.HEALTH_CHECK)(events.nonce(nonce), timeout=timeout)
    return int(pb.ReplyMessage.FromString(reply).Retval)
