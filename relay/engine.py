"""The engine as the control plane sees it: typed reports, awaitable publish and stop.

One `Engine` belongs to one asyncio loop. The native reactor reports through an eventfd; the
reports come out as the dataclasses below, each to the one handler set for its kind. A handler
that raises is a defect and reaches the loop's exception handler.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from relay import _fastpath


class NodeState(IntEnum):
    """The engine's states of a node; see relay/_fastpath.pyi."""

    IDLE = _fastpath.NODE_IDLE
    CONNECTING = _fastpath.NODE_CONNECTING
    CHECKING = _fastpath.NODE_CHECKING
    STREAMING = _fastpath.NODE_STREAMING


class CallEvent(IntEnum):
    """What happened to a call that Python answers."""

    MESSAGE = _fastpath.CALL_MESSAGE
    HALF_CLOSED = _fastpath.CALL_HALF_CLOSED
    CANCELLED = _fastpath.CALL_CANCELLED


class SubscriberEvent(IntEnum):
    """What happened to a subscriber."""

    STARTED = _fastpath.SUBSCRIBER_STARTED
    LOSING = _fastpath.SUBSCRIBER_LOSING
    RECOVERED = _fastpath.SUBSCRIBER_RECOVERED
    ENDED = _fastpath.SUBSCRIBER_ENDED


@dataclass(frozen=True, slots=True)
class NodeReport:
    """The newest state of a node; for IDLE, `text` says why."""

    node: int
    state: NodeState
    code: int
    text: str


@dataclass(frozen=True, slots=True)
class StreamReport:
    """A feed of a connected node ended, with a gRPC status."""

    node: int
    feed: int
    code: int
    text: str


@dataclass(frozen=True, slots=True)
class CallReport:
    """A step of a call that Python answers; `path` comes with the first message only."""

    call: int
    event: CallEvent
    path: str
    message: bytes


@dataclass(frozen=True, slots=True)
class SubscriberReport:
    """A subscriber started, ended, or began or ceased to lose events; counts are totals."""

    subscriber: int
    event: SubscriberEvent
    feed: int
    peer: str
    delivered: int
    lost: int
    code: int


@dataclass(frozen=True, slots=True)
class RefusalReport:
    """A client whose TLS handshake failed, and why. At most one a second is told of; a counter has all."""

    peer: str
    text: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The reactor has ended: 0 after a shutdown that was asked for, else an engine status."""

    code: int
    text: str


def _ignore(_report: object) -> None:
    """The handler of reports that nobody asked for."""


class Engine:
    """A native engine bound to the running asyncio loop. Times are seconds."""

    def __init__(self, native: _fastpath.Engine) -> None:
        self.native = native
        self.on_node: Callable[[NodeReport], None] = _ignore
        self.on_stream: Callable[[StreamReport], None] = _ignore
        self.on_call: Callable[[CallReport], None] = _ignore
        self.on_subscriber: Callable[[SubscriberReport], None] = _ignore
        self.on_refusal: Callable[[RefusalReport], None] = _ignore
        self._loop = asyncio.get_running_loop()
        self._tickets = 0
        self._drains: dict[int, asyncio.Future[None]] = {}
        self.stopped: asyncio.Future[Stopped] = self._loop.create_future()
        self._descriptor: int | None = None
        self._dispatch: dict[int, Callable[..., None]] = {
            _fastpath.REPORT_NODE: self._node,
            _fastpath.REPORT_STREAM: self._stream,
            _fastpath.REPORT_CALL: self._call,
            _fastpath.REPORT_SUBSCRIBER: self._subscriber,
            _fastpath.REPORT_DRAINED: self._drained,
            _fastpath.REPORT_TLS: self._refusal,
            _fastpath.REPORT_STOPPED: self._stopped,
        }

    def start(self) -> None:
        """Start the reactor and take its reports from now on. Once only."""
        self._descriptor = self.native.fileno()
        self._loop.add_reader(self._descriptor, self._take_reports)
        self.native.start()

    async def publish(self, feed: int, frames: bytes) -> None:
        """Append whole frames to a feed, waiting while the command queue is full."""
        while not self.stopped.done():
            try:
                self.native.publish(feed, frames)
                return
            except BlockingIOError:
                # The reactor empties the queue in its next turn, whatever subscribers do.
                await asyncio.sleep(0.001)

    async def drain(self, feed: int) -> None:
        """Wait until every reader has taken what the feed holds now, or the engine has stopped."""
        if self.stopped.done():
            return
        self._tickets += 1
        ticket = self._tickets
        drained = self._drains[ticket] = self._loop.create_future()
        try:
            self.native.drain(ticket, feed)
            await drained
        finally:
            self._drains.pop(ticket, None)

    def shutdown(self, seconds: float) -> None:
        """Begin the graceful end; a further call with 0 ends at once. `stopped` tells the end."""
        self.native.shutdown(seconds)

    def close(self) -> None:
        """End the reactor at once and take no more reports. Idempotent."""
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            self._descriptor = None
        self.native.close()
        self._settle(Stopped(0, "closed"))

    def counters(self) -> dict[str, Any]:
        """One consistent snapshot of the engine's counters."""
        return self.native.counters()

    def _take_reports(self) -> None:
        for kind, *values in self.native.reports():
            try:
                self._dispatch[kind](*values)
            except Exception as error:
                # The reports behind it still count: the end of the engine may be among them.
                self._loop.call_exception_handler({"message": "a report's handler failed", "exception": error})

    def _node(self, node: int, state: int, code: int, text: str) -> None:
        self.on_node(NodeReport(node, NodeState(state), code, text))

    def _stream(self, node: int, feed: int, code: int, text: str) -> None:
        self.on_stream(StreamReport(node, feed, code, text))

    def _call(self, call: int, event: int, path: str, message: bytes | None) -> None:
        self.on_call(CallReport(call, CallEvent(event), path, message or b""))

    def _subscriber(
        self, subscriber: int, event: int, feed: int, peer: str, delivered: int, lost: int, code: int
    ) -> None:
        self.on_subscriber(SubscriberReport(subscriber, SubscriberEvent(event), feed, peer, delivered, lost, code))

    def _refusal(self, peer: str, text: str) -> None:
        self.on_refusal(RefusalReport(peer, text))

    def _drained(self, ticket: int) -> None:
        drained = self._drains.get(ticket)
        if drained is not None and not drained.done():
            drained.set_result(None)

    def _stopped(self, code: int, text: str) -> None:
        self._settle(Stopped(code, text))

    def _settle(self, stopped: Stopped) -> None:
        """Record the end once, and let everyone who waits for a drain go."""
        if not self.stopped.done():
            self.stopped.set_result(stopped)
        for drained in self._drains.values():
            if not drained.done():
                drained.set_result(None)
