"""The node table: keeps every known node connected, whoever told of it.

A state machine a node, driven by the engine's reports, the resolver's answers and timers:

    RESOLVING ──addresses──▶ CONNECTING ──streams open──▶ STREAMING
        ▲  │                   │ ▲  │ next address            │
        │  └──no such name──┐  │ └──┘                         │
        │                   ▼  ▼ no address left              │
        └──delay over──── WAITING ◀──────connection ended─────┘

A feed that ends while its node lives is opened again alone, with a backoff of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from relay import feeds, log
from relay.backoff import Backoff
from relay.clock import Clock, Timer
from relay.engine import NodeReport, NodeState, StreamReport
from relay.failures import FailureLog
from relay.settings import Address, is_ip

logger = log.logger(__name__)

GRPC_UNIMPLEMENTED = 12
ALL_FEEDS = 7


class Nodes(Protocol):
    """The part of the native engine that the table uses."""

    def add_node(self, node: int, feeds: int = ...) -> None: ...
    def connect_node(self, node: int, address: str, port: int, name: str = ...) -> None: ...
    def open_stream(self, node: int, feed: int) -> None: ...
    def remove_node(self, node: int) -> None: ...


class Names(Protocol):
    """The part of the resolver that the table uses."""

    def resolve(self, host: str, port: int, done: Callable[[tuple[str, ...], str], None]) -> None: ...


class State(Enum):
    """Where a node is on the way to its events."""

    RESOLVING = "resolving"  # waiting for the resolver
    CONNECTING = "connecting"  # with the engine: TCP, HTTP/2, HealthCheck
    STREAMING = "streaming"  # at least one feed is open
    WAITING = "waiting"  # for the backoff's delay


@dataclass(slots=True)
class _Feed:
    """One feed of a connected node."""

    backoff: Backoff
    since: float = 0.0
    timer: Timer | None = None


@dataclass(slots=True)
class _Node:
    """What the control plane knows of one node."""

    number: int
    name: str
    where: Address
    others: tuple[str, ...]
    asked: int
    backoff: Backoff
    feeds: tuple[_Feed, ...]
    state: State = State.RESOLVING
    addresses: tuple[str, ...] = ()
    address: str = ""
    since: float = 0.0
    connections: int = 0
    last_error: str = ""
    timer: Timer | None = None
    failures: FailureLog = field(default_factory=FailureLog)
    said_connected: bool = False


class NodeTable:
    """All known nodes. Every method is called on the loop's thread."""

    def __init__(
        self,
        engine: Nodes,
        names: Names,
        clock: Clock,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`draw` gives the jitter: numbers from 0 to 1."""
        self._engine = engine
        self._names = names
        self._clock = clock
        self._draw = draw
        self._nodes: dict[int, _Node] = {}
        self._next = 0
        self._stopped = False

    def __len__(self) -> int:
        return len(self._nodes)

    def add(self, where: Address, name: str = "", feed_mask: int = ALL_FEEDS, *, others: tuple[str, ...] = ()) -> int:
        """Make a node known and begin to connect.

        Args:
            where: its address; a name is resolved again at each try.
            name: how logs and counters call it; its address when empty.
            others: further hosts that lead to it, tried where the first does not answer.
            feed_mask: the feeds to ask for: 1 messages, 2 alerts, 4 logs.
        Returns:
            Its number, for `remove`; numbers are not used again.
        """
        number, self._next = self._next, self._next + 1
        node = _Node(
            number=number,
            name=name or str(where),
            where=where,
            others=others,
            asked=feed_mask,
            backoff=Backoff(draw=self._draw),
            feeds=tuple(_Feed(Backoff(draw=self._draw)) for _ in feeds.FEEDS),
        )
        self._nodes[number] = node
        self._engine.add_node(number, feed_mask)
        self._resolve(node)
        return number

    def remove(self, number: int) -> None:
        """Forget a node; what has arrived from it stays. Unknown numbers are ignored."""
        node = self._nodes.pop(number, None)
        if node is None:
            return
        self._cancel_timers(node)
        self._engine.remove_node(number)
        if node.said_connected:
            logger.info("node removed", extra=log.fields(node=node.name))

    def stop(self) -> None:
        """Try nothing any more; the table stays readable, connections are the engine's to end."""
        self._stopped = True
        for node in self._nodes.values():
            self._cancel_timers(node)

    def describe(self, number: int) -> dict[str, Any]:
        """What the table adds to the engine's counters of a node; nothing for an unknown one."""
        node = self._nodes.get(number)
        if node is None:
            return {}
        return {
            "node": node.name,
            "address": str(Address(node.address, node.where.port)) if node.address else "",
            "state": node.state.value,
            "reconnects": max(node.connections - 1, 0),
            "last_error": node.last_error,
        }

    # --- events -----------------------------------------------------------------------

    def on_node(self, report: NodeReport) -> None:
        """The engine tells a node's newest state."""
        node = self._nodes.get(report.node)
        if node is None or self._stopped:
            return
        if report.state is NodeState.STREAMING:
            self._connected(node)
        elif report.state is NodeState.IDLE and node.state in (State.CONNECTING, State.STREAMING):
            self._disconnected(node, report.text or f"connection ended (status {report.code})")

    def on_stream(self, report: StreamReport) -> None:
        """The engine tells that a feed ended while its node lives."""
        node = self._nodes.get(report.node)
        if node is None or self._stopped or node.state in (State.WAITING, State.RESOLVING):
            return  # nobody asks any more, or its connection has ended since
        stream = node.feeds[report.feed]
        name = feeds.NAMES[report.feed]
        _cancel(stream)
        if report.code == GRPC_UNIMPLEMENTED:
            if node.failures.count(f"lacks {name}", self._clock.time()):
                logger.info("node lacks a feed", extra=log.fields(node=node.name, feed=name))
            return
        stream.backoff.was_healthy(self._clock.time() - stream.since)
        self._open_later(node, report.feed, report.text or f"status {report.code}")

    def _resolve(self, node: _Node) -> None:
        node.state = State.RESOLVING
        node.timer = None

        def done(addresses: tuple[str, ...], error: str) -> None:
            if self._stopped or self._nodes.get(node.number) is not node:
                return
            if node.state is not State.RESOLVING:
                return
            if error:
                self._wait(node, "node cannot be reached", error)
            else:
                node.addresses = addresses + node.others
                self._connect(node)

        self._names.resolve(node.where.host, node.where.port, done)

    def _connect(self, node: _Node) -> None:
        """Try the next of the addresses that the name stands for."""
        node.address, *rest = node.addresses
        node.addresses = tuple(rest)
        node.state = State.CONNECTING
        self._cancel_timers(node)
        other = self._connected_at(node.address, node)
        if other is not None:
            # Its events would come twice. A name stands for an address only now: who claims what cannot tell.
            where = Address(node.address, node.where.port)
            self._disconnected(node, f"{where} is connected already, as node {other.name}")
            return
        # Under TLS a node that was given by its name is checked for that: whoever answers for it at any address. An
        # address is checked for itself, also where it is another of the same pod.
        host = node.where.host
        name = "" if is_ip(host) else host.rstrip(".")
        try:
            self._engine.connect_node(node.number, node.address, node.where.port, name)
        except MemoryError as error:
            self._wait(node, "node cannot be reached", str(error))

    def _connected_at(self, address: str, asking: _Node) -> _Node | None:
        """Another node that has a connection to this address, or is about to."""
        for node in self._nodes.values():
            if (
                node is not asking
                and node.state in (State.CONNECTING, State.STREAMING)
                and (node.address, node.where.port) == (address, asking.where.port)
            ):
                return node
        return None

    def _connected(self, node: _Node) -> None:
        if node.state is State.STREAMING:
            return
        _cancel(node)
        node.state = State.STREAMING
        node.since = self._clock.time()
        node.connections += 1
        for stream in node.feeds:
            stream.since = node.since
        if not node.said_connected:
            node.said_connected = True
            logger.info("node connected", extra=log.fields(node=node.name, address=node.address))

    def _disconnected(self, node: _Node, reason: str) -> None:
        if node.state is State.STREAMING:
            node.backoff.was_healthy(self._clock.time() - node.since)
            self._wait(node, "node disconnected", reason)
        elif node.addresses:
            node.last_error = reason
            self._connect(node)
        else:
            self._wait(node, "node cannot be reached", reason)

    def _wait(self, node: _Node, what: str, reason: str) -> None:
        self._cancel_timers(node)
        node.state = State.WAITING
        node.addresses = ()
        delay = node.backoff.delay()
        node.timer = self._clock.call_later(delay, self._resolve, node)
        if self._log_failure(node, what, reason, delay):
            node.said_connected = False

    def _open_stream(self, node: _Node, feed: int) -> None:
        stream = node.feeds[feed]
        stream.timer = None
        stream.since = self._clock.time()
        try:
            self._engine.open_stream(node.number, feed)
        except MemoryError as error:
            self._open_later(node, feed, str(error))

    def _open_later(self, node: _Node, feed: int, reason: str) -> None:
        """A feed has ended, or could not be opened."""
        stream = node.feeds[feed]
        delay = stream.backoff.delay()
        stream.timer = self._clock.call_later(delay, self._open_stream, node, feed)
        self._log_failure(node, "feed of a node ended", f"{feeds.NAMES[feed]}: {reason}", delay)

    # --- helpers ----------------------------------------------------------------------

    def _log_failure(self, node: _Node, what: str, reason: str, delay: float) -> bool:
        node.last_error = reason
        count = node.failures.count(reason, self._clock.time())
        if count:
            extra = log.fields(node=node.name, error=reason, times=count, retry_in=round(delay, 3))
            logger.warning(what, extra=extra)
        return bool(count)

    def _cancel_timers(self, node: _Node) -> None:
        _cancel(node)
        for stream in node.feeds:
            _cancel(stream)


def _cancel(holder: _Node | _Feed) -> None:
    """Cancel the timer of a node or of a feed, if one runs."""
    if holder.timer is not None:
        holder.timer.cancel()
        holder.timer = None
