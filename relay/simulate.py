"""`relay simulate`: KubeArmor-like nodes, each an engine that publishes made-up events.

Nothing is published while nobody listens: the first event that a subscriber of a feed gets is the
first one made, so a run with a seed is the same whenever its subscriber comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relay import _fastpath, feeds
from relay.engine import Engine, SubscriberEvent, SubscriberReport
from relay.events import Node, frame, read_events
from relay.flags import parse_bool
from relay.listen import open_sockets, raise_file_limit
from relay.settings import (
    DEFAULT_PORT,
    MIB,
    SettingsError,
    file_setting,
    parse_bind,
    parse_integer,
    parse_number,
    parse_port,
    setting,
)
from relay.tls_flags import load_flag_files

# Made once and sent round and round: making an event costs 20 us, sending one less than 1.
POOL_EVENTS = 20_000  # of all nodes together
POOL_LEAST = 200  # of one node
JOURNAL_BYTES = 16 * MIB
MAX_EVENT_BYTES = MIB  # allows 16 MiB of journal, and events files with large events
# Flat out, a node publishes this much and waits until its subscribers have taken it.
BATCH_EVENTS = 1024
# Paced, a node wakes this often at most, and all nodes together 5,000 times a second.
SHORTEST_PAUSE = 0.001
WAKE_UPS = 5_000
SHUTDOWN_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class SimulateSettings:
    """What the simulated nodes are told."""

    port: int = setting(parse_port, flag="port", value="PORT", default=DEFAULT_PORT, doc="Port of the first node.")
    nodes: int = setting(
        parse_integer(1, 10_000), flag="nodes", value="NUMBER", default=1, doc="Nodes, on ports that follow each other."
    )
    rate: float = setting(
        parse_number(0, 10_000_000),
        flag="rate",
        value="EVENTS",
        default=100.0,
        default_text="100",
        doc="Events a second of each node; 0 is as fast as subscribers take them.",
    )
    events: str = file_setting("events", "Events to send, one JSON object a line, instead of made-up ones.")
    seed: int = setting(
        parse_integer(0, 2**63 - 1), flag="seed", value="NUMBER", default=0, doc="Another seed, other events."
    )
    count: int = setting(
        parse_integer(0, 2**63 - 1),
        flag="count",
        value="NUMBER",
        default=0,
        default_text="0, for ever",
        doc="Events of each node; when all are sent and taken, the nodes end.",
    )
    wait: bool = setting(
        parse_bool,
        flag="wait",
        default=False,
        doc="Send nothing until a line comes on standard input.",
    )
    bind: str = setting(
        parse_bind, flag="bind", value="ADDRESS", default="127.0.0.1", doc="Address to listen on; empty for all."
    )
    tls_ca: str = file_setting("tls-ca", "CA that signed the certificates of subscribers, PEM; with it each needs one.")
    tls_cert: str = file_setting("tls-cert", "Certificate of the nodes, PEM; with it TLS is spoken.")
    tls_key: str = file_setting("tls-key", "Key of -tls-cert, PEM.")


Batch = dict[int, bytes]


class Playlist:
    """Events of a node in their order, round and round, as frames by feed."""

    def __init__(self, events: Sequence[tuple[int, bytes]]) -> None:
        self._events = itertools.cycle(events)

    def take(self, count: int) -> tuple[Batch, list[int]]:
        """The next `count` events: frames by feed, and how many of each feed."""
        parts: dict[int, list[bytes]] = {feed: [] for feed in feeds.FEEDS}
        for feed, framed in itertools.islice(self._events, count):
            parts[feed].append(framed)
        counts = [len(parts[feed]) for feed in feeds.FEEDS]
        return {feed: b"".join(framed) for feed, framed in parts.items() if framed}, counts


@dataclass(slots=True)
class SimulatedNode:
    """One node: an engine that listens, and its events."""

    name: str
    engine: Engine
    playlist: Playlist
    listening: asyncio.Event = field(default_factory=asyncio.Event)
    subscribers: dict[int, int] = field(default_factory=dict)
    published: list[int] = field(default_factory=lambda: [0] * len(feeds.FEEDS))

    def on_subscriber(self, report: SubscriberReport) -> None:
        """Keep count of who listens to what."""
        if report.event is SubscriberEvent.STARTED:
            self.subscribers[report.subscriber] = report.feed
            self.listening.set()
        elif report.event is SubscriberEvent.ENDED:
            self.subscribers.pop(report.subscriber, None)
            if not self.subscribers:
                self.listening.clear()

    async def publish(self, count: int) -> None:
        """Publish the next events, of the feeds that somebody listens to."""
        batch, counts = self.playlist.take(count)
        heard = set(self.subscribers.values())
        for feed, frames in batch.items():
            if feed in heard:
                await self.engine.publish(feed, frames)
                self.published[feed] += counts[feed]

    def lost(self) -> int:
        """Events that were overwritten before a subscriber read them."""
        counters = self.engine.counters()
        lost = sum(count["ended_lost"] for count in counters["feeds"].values())
        return int(lost + sum(count["lost"] for count in counters["subscribers"]))

    async def drain(self) -> None:
        """Wait until the subscribers have taken everything."""
        for feed in set(self.subscribers.values()):
            await self.engine.drain(feed)


def simulate(settings: SimulateSettings) -> int:
    """Serve as nodes until a signal, or until all events are sent; returns the exit code.

    Raises:
        SettingsError: a port in use, or an events file, certificate or key that cannot be used.
    """
    if settings.port + settings.nodes - 1 > 65535:
        raise SettingsError(f"flag -nodes: {settings.nodes} nodes from port {settings.port} on need ports above 65535")
    raise_file_limit()
    files = load_flag_files(server=True, root=settings.tls_ca, certificate=settings.tls_cert, key=settings.tls_key)
    return asyncio.run(_serve(settings, _from_file(settings.events), files and files.tls))


async def _serve(settings: SimulateSettings, given: list[tuple[int, bytes]], tls: _fastpath.Tls | None) -> int:
    nodes: list[SimulatedNode] = []
    try:
        nodes += (_open(settings, number, given, tls) for number in range(settings.nodes))
        return await _run(settings, nodes)
    finally:
        for node in nodes:
            node.engine.close()


async def _run(settings: SimulateSettings, nodes: Sequence[SimulatedNode]) -> int:
    ends = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ends.set)
    for node in nodes:
        node.engine.start()
    _say({"msg": "simulating", "nodes": len(nodes), "ports": [settings.port, settings.port + len(nodes) - 1]})

    signalled = asyncio.ensure_future(ends.wait())
    if settings.wait:
        await _first_of(asyncio.ensure_future(_line()), signalled)
    if not signalled.done():
        players = asyncio.gather(*(_play(settings, node, len(nodes)) for node in nodes))
        await _first_of(players, signalled)
    await _end(nodes)
    totals = [sum(node.published[feed] for node in nodes) for feed in feeds.FEEDS]
    _say(
        {
            "msg": "simulated",
            "published": dict(zip(feeds.NAMES, totals, strict=True)),
            "lost": sum(node.lost() for node in nodes),
        }
    )
    return 0


async def _first_of(work: asyncio.Future[Any], signalled: asyncio.Future[Any]) -> None:
    """Wait for the end of the work, or for a signal, which cancels it.

    Raises what the work raised.
    """
    await asyncio.wait([work, signalled], return_when=asyncio.FIRST_COMPLETED)
    if not work.done():
        work.cancel()
        # Awaited, so that a gathering does not complain that nobody looked at its end.
        with contextlib.suppress(asyncio.CancelledError):
            await work
    elif not work.cancelled():
        work.result()


async def _line() -> None:
    """Wait for a line on standard input, or its end."""
    loop = asyncio.get_running_loop()
    came = asyncio.Event()
    try:
        loop.add_reader(sys.stdin.fileno(), came.set)
    except PermissionError:
        return  # a file, or /dev/null: it has its line, or its end, already
    try:
        await came.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())


async def _end(nodes: Sequence[SimulatedNode]) -> None:
    """Let subscribers take what there is, then go."""
    for node in nodes:
        node.engine.shutdown(SHUTDOWN_SECONDS)
    await asyncio.wait([node.engine.stopped for node in nodes], timeout=SHUTDOWN_SECONDS + 1)


async def _play(settings: SimulateSettings, node: SimulatedNode, nodes: int) -> None:
    """Publish at the rate asked for, `count` events or for ever."""
    left = settings.count or None
    play = _play_flat_out if settings.rate == 0 else _play_paced
    while left is None or left > 0:
        await node.listening.wait()
        sent = await play(settings, node, nodes, left)
        left = None if left is None else left - sent
    await node.drain()


async def _play_flat_out(_settings: SimulateSettings, node: SimulatedNode, _nodes: int, left: int | None) -> int:
    """One batch, as soon as the one before was taken."""
    size = min(BATCH_EVENTS, left or BATCH_EVENTS)
    await node.publish(size)
    await node.drain()
    return size


async def _play_paced(settings: SimulateSettings, node: SimulatedNode, nodes: int, left: int | None) -> int:
    """Publish what is due at each tick, while anybody listens; returns the number of events."""
    loop = asyncio.get_running_loop()
    pause = max(1 / settings.rate, SHORTEST_PAUSE, nodes / WAKE_UPS)
    began = loop.time()
    sent = 0
    while node.subscribers and (left is None or sent < left):
        due = int((loop.time() - began) * settings.rate) - sent
        if left is not None:
            due = min(due, left - sent)
        if due > 0:
            await node.publish(due)
            sent += due
        await asyncio.sleep(pause)
    return sent


def _open(
    settings: SimulateSettings, number: int, given: list[tuple[int, bytes]], tls: _fastpath.Tls | None
) -> SimulatedNode:
    """A node that is about to listen on its port."""
    native = _fastpath.Engine(journal_bytes=JOURNAL_BYTES, max_event_bytes=MAX_EVENT_BYTES, event_per_frame=True)
    native.set_tls(server=tls, client=None)
    for listener in open_sockets(settings.bind, settings.port + number):
        with listener:
            native.listen(listener.fileno())
    name = f"node-{number + 1}"
    events = given or _made_up(name, settings)
    node = SimulatedNode(name, Engine(native), Playlist(events))
    node.engine.on_subscriber = node.on_subscriber
    return node


def _made_up(name: str, settings: SimulateSettings) -> list[tuple[int, bytes]]:
    size = max(POOL_LEAST, POOL_EVENTS // settings.nodes)
    if settings.count:
        size = min(size, settings.count)
    return [(feed, frame(event)) for feed, event in itertools.islice(Node(name, settings.seed), size)]


def _from_file(name: str) -> list[tuple[int, bytes]]:
    """The events of a file; none without one."""
    if not name:
        return []
    try:
        return [(feed, frame(event)) for feed, event in read_events(Path(name))]
    except OSError as error:
        raise SettingsError(f"flag -events: cannot read {name}: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"flag -events: {error}") from None


def _say(values: dict[str, Any]) -> None:
    print(json.dumps(values), file=sys.stdout, flush=True)
