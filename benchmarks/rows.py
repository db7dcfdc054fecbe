"""The work of each row of the table: what is run, with whom, and what comes out.

Every row runs its contenders in turn, A B C A B C …, so that what else the machine does falls on all
of them alike; a ratio is taken within a round, and the row's figure is the median of the rounds.
CPU is the contender's run time between two counts of delivered events, after a warm-up that
fills the relay's journal.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from benchmarks import measure
from benchmarks.load import go_peers, sources, storms
from benchmarks.load.events import EVENT_BYTES, LOGS
from benchmarks.load.secure import Secured, secured
from benchmarks.load.sink import SLACK, Sink, Subscriber
from benchmarks.peers import aio_relay, haproxy, nginx, process, pump, relay
from benchmarks.peers.relay import counters

JOURNAL_EVENTS = 64 * 2**20 * 3 // 4 // (EVENT_BYTES + 5)  # what the logs' share of the default journal holds
AHEAD = JOURNAL_EVENTS // 2
# Limits on clients that a crowd from one address keeps to.
OPEN = ("--max-connections=2000", "--max-connections-per-address=2000", "--client-bytes=128MiB")


@dataclass(frozen=True)
class Effort:
    """How long and how often: `seconds` of measured work at the usual speed, `rounds` times each contender."""

    seconds: float = 2.0
    rounds: int = 5

    @classmethod
    def from_environment(cls) -> Effort:
        """BENCH_SECONDS and BENCH_ROUNDS."""
        return cls(float(os.environ.get("BENCH_SECONDS", cls.seconds)), int(os.environ.get("BENCH_ROUNDS", cls.rounds)))

    def events(self, rate: float) -> int:
        """Events in that time, in whole thousands."""
        return max(1000, int(self.seconds * rate / 1000) * 1000)


@dataclass(frozen=True)
class Sample:
    """One contender in one round. CPU in microseconds a delivered event; latencies in milliseconds."""

    cpu: float
    delivered: int
    lost: int
    seconds: float
    busy: float  # share of one processor
    p50: float | None = None
    p99: float | None = None


@dataclass
class Row:
    """A finished row: samples by contender, one a round, and what else was seen."""

    title: str
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    extra: dict[str, float] = field(default_factory=dict)

    def cpu(self, name: str) -> measure.Spread:
        return measure.spread([s.cpu for s in self.samples[name]])

    def ratio(self, name: str, other: str, figure: str = "cpu") -> measure.Spread:
        pairs = zip(self.samples[name], self.samples[other], strict=True)
        return measure.spread([getattr(a, figure) / getattr(b, figure) for a, b in pairs])

    def latency(self, name: str, figure: str = "p50") -> measure.Spread | None:
        values = [getattr(s, figure) for s in self.samples[name]]
        return None if None in values else measure.spread(values)

    def lost(self, name: str) -> int:
        return sum(s.lost for s in self.samples[name])

    def has(self, *names: str) -> bool:
        return all(name in self.samples for name in names)


def interleave(title: str, contenders: dict[str, Callable[[], Sample]], effort: Effort) -> Row:
    row = Row(title)
    for _ in range(effort.rounds):
        for name, run in contenders.items():
            if name in row.missing:
                continue
            try:
                sample = run()
            except process.Missing as error:
                row.missing[name] = str(error)
                continue
            row.samples.setdefault(name, []).append(sample)
    return row


class _Stall(Exception):
    """Events stopped coming."""


def _watch(sink: Sink, contender: process.Contender, warm: int, count: int, sent: int) -> Sample:
    """Read `sent` deliveries; the run time between the first `warm` and the `count` after them is the sample's."""
    stall = 3.0
    if not sink.until(warm, 120, stall):
        raise _Stall(
            f"{contender.name}: {sink.events()} of {warm} events to warm up: {contender.log.read_text()[-1500:]}"
        )
    pids = contender.pids
    first, begin, before = sink.events(), time.perf_counter(), measure.run_time_ns(pids)
    sink.until(warm + count, 300, stall)
    used, seconds = measure.run_time_ns(pids) - before, time.perf_counter() - begin
    counted = sink.events() - first
    sink.until(sent - SLACK * sum(s.discard for s in sink.subscribers), 120, stall)
    if not counted:
        raise _Stall(f"{contender.name}: nothing after {first} events: {contender.log.read_text()[-1500:]}")
    latencies = sorted(value for s in sink.subscribers for value in s.latencies)
    return Sample(
        cpu=used / counted / 1000,
        delivered=counted,
        lost=sent - sink.events() if sent else 0,
        seconds=seconds,
        busy=used / 1e9 / seconds,
        p50=measure.percentile(latencies, 0.5) / 1e6 if latencies else None,
        p99=measure.percentile(latencies, 0.99) / 1e6 if latencies else None,
    )


@contextlib.contextmanager
def _sink(subscribers: Sequence[Subscriber]) -> Iterator[Sink]:
    sink = Sink(list(subscribers))
    try:
        yield sink
    finally:
        sink.close()


Start = Callable[[list[int]], contextlib.AbstractContextManager[process.Contender]]


def flat_once(
    start: Start,
    count: int,
    *,
    subscribers: int = 1,
    plain: bool = False,
    ahead: int = AHEAD,
    discard: bool = False,
    layouts: int = 0,
    tls: Secured | None = None,
) -> Sample:
    """One node as fast as it can, nothing but counting at the other end.

    The node keeps within `ahead` events of the slowest subscriber, so that a sink that other work on the machine
    holds up is not taken for loss. TCP does the same to proxies that pass bytes on. 0: as fast as it is read.
    With `discard` the subscribers do not even look at what comes, so that the contender, not they, is what limits the
    flow; then the relay's counters alone say what was lost. `start` is to speak TLS where `tls` is given.
    """
    warm = min(JOURNAL_EVENTS + 50_000, count) if not plain else count // 5
    with sources.raw_nodes(plain=plain, layouts=layouts, tls=tls) as source, start(source.ports) as contender:
        port, folder = contender.ports[0], tls and tls.folder
        subscriber = partial(Subscriber, port, plain=plain, discard=discard, authorities=("node0",), tls=folder)
        with _sink([subscriber() for _ in range(subscribers)]) as sink:
            if not contender.holds_headers:
                sink.wait_answered()
            source.wait_streams(1)
            total = warm + count + 1000
            sink.tell = source.got if ahead else None
            source.flat(total, ahead)
            sample = _watch(sink, contender, warm * subscribers, count * subscribers, total * subscribers)
            if discard:
                sink.settle(0.2)
                sample = replace(sample, lost=0)
            if contender.name == "relay":
                sample = _check_relay(contender, sample, total * subscribers, exact=not discard)
            return sample


def _check_relay(contender: process.Contender, sample: Sample, sent: int, exact: bool = True) -> Sample:
    """What the relay says of its subscribers must be what they saw: nothing is lost in silence."""
    found = counters(contender)
    delivered = sum(s["delivered"] for s in found["subscribers"])
    lost = sum(s["lost"] for s in found["subscribers"])
    if delivered + lost != sent or (exact and lost != sample.lost):
        raise AssertionError(
            f"{sent} events were sent, and the subscribers miss {sample.lost}; the relay says {delivered} delivered, "
            f"{lost} lost"
        )
    for sink in found.get("sinks", []):
        if sink["lost"]:
            raise AssertionError(f"{sink['sink']} lost {sink['lost']} events")
    return replace(sample, lost=lost)


def flat_out(effort: Effort) -> Row:
    count = effort.events(1_000_000)
    return interleave(
        "flat out, 1 subscriber",
        {
            "relay": lambda: flat_once(relay.start, count, discard=True),
            "relay, events of one layout": lambda: flat_once(relay.start, count, discard=True, layouts=1),
            "relay, node unbounded": lambda: flat_once(relay.start, count, discard=True, ahead=0),
            "haproxy": lambda: flat_once(haproxy.start, count, discard=True),
            "nginx": lambda: flat_once(nginx.start, count, discard=True),
            "haproxy, large buffers": lambda: flat_once(haproxy.start_large, count, discard=True),
            "nginx, large buffers": lambda: flat_once(nginx.start_large, count, discard=True),
            "pump": lambda: flat_once(pump.start, count, plain=True, discard=True),
        },
        effort,
    )


def paced_once(start: Start, rate: float, count: int) -> Sample:
    """One grpc-go node at an even rate, one grpc-go subscriber, who measures the latency."""
    with go_peers.go_node(rate, count) as node, start(node.ports) as contender:
        time.sleep(0.3)  # the relay connects to its node by itself
        with go_peers.go_client(contender.ports[0], count) as client:
            # A proxy passes on the node's response headers, which grpc-go sends with the first event; so
            # only of the relay it can be known that the subscriber is subscribed.
            if contender.name == "relay":
                client.wait_subscribed()
            time.sleep(0.5)
            pids = contender.pids
            begin, before = time.perf_counter(), measure.run_time_ns(pids)
            node.open_gate()
            report = client.report(count / rate * 3 + 20)
            used, seconds = measure.run_time_ns(pids) - before, time.perf_counter() - begin
    return Sample(
        cpu=used / report["events"] / 1000,
        delivered=report["events"],
        lost=count - report["events"],
        seconds=seconds,
        busy=used / 1e9 / seconds,
        p50=report["p50_us"] / 1000,
        p99=report["p99_us"] / 1000,
    )


def paced(effort: Effort, rate: float) -> Row:
    count = int(max(1.0, effort.seconds) * rate)
    return interleave(
        f"{rate / 1000:g}k events/s, one grpc-go node, 1 grpc-go subscriber",
        {
            "relay": lambda: paced_once(relay.start, rate, count),
            "haproxy": lambda: paced_once(haproxy.start, rate, count),
            "nginx": lambda: paced_once(nginx.start, rate, count),
        },
        effort,
    )


def paced_raw_once(start: Start, rate: float, count: int) -> Sample:
    """One node that writes each event at its moment; a subscriber that sends nothing back."""
    warm = max(1000, count // 10)
    with (
        sources.raw_nodes() as source,
        start(source.ports) as contender,
        _sink([Subscriber(contender.ports[0], latency=True)]) as sink,
    ):
        sink.wait_answered()
        source.wait_streams(1)
        source.pace(rate, warm + count)
        return _watch(sink, contender, warm, count, warm + count)


def many_nodes_once(
    start: Start, nodes: int, rate: float, count: int, *, streams: int = 1, connections: int = 1
) -> Sample:
    """`nodes` nodes at `rate` each, begun at random places of their period; `streams` on each of `connections`."""
    with sources.raw_nodes(nodes) as source, start(source.ports) as contender:
        subscribers = []
        for number in range(connections):
            names = tuple(f"node{number * streams + i}" for i in range(streams))
            port = contender.ports[number % len(contender.ports)]
            subscribers.append(Subscriber(port, authorities=names, latency=True))
        with _sink(subscribers) as sink:
            sink.wait_answered()
            source.wait_streams(nodes)
            warm = nodes * 50
            each = (count + warm) // nodes
            source.pace(rate, each)
            total = each * nodes
            return _watch(sink, contender, warm, total - warm - nodes, total)


def many_nodes(effort: Effort, nodes: int = 100, rate: float = 200.0) -> Row:
    count = int(max(1.0, effort.seconds) * nodes * rate)
    return interleave(
        f"{nodes} nodes of {rate:g} events/s, 1 subscriber",
        {
            "relay": lambda: many_nodes_once(relay.start, nodes, rate, count),
            "nginx": lambda: many_nodes_once(nginx.start, nodes, rate, count, streams=nodes),
            "nginx, a connection each": lambda: many_nodes_once(nginx.start, nodes, rate, count, connections=nodes),
            "haproxy, a connection each": lambda: many_nodes_once(haproxy.start, nodes, rate, count, connections=nodes),
        },
        effort,
    )


def writev_once(subscribers: int, count: int) -> Sample:
    """The same bytes to as many subscribers, by a program that does nothing else."""
    with (
        pump.start_writer(subscribers) as contender,
        _sink([Subscriber(contender.ports[0], plain=True, discard=True) for _ in range(subscribers)]) as sink,
    ):
        time.sleep(0.2)
        assert contender.process.stdin
        contender.process.stdin.write("go\n")
        contender.process.stdin.flush()
        for subscriber in sink.subscribers:
            subscriber.frame = EVENT_BYTES + 5  # the DATA headers, 9 bytes in 16 KiB, are not told apart
        return _watch(sink, contender, count * subscribers // 5, count * subscribers, 0)


def flat_out_tls(effort: Effort) -> Row:
    """mTLS to the node and to the subscriber, one version and one cipher for all (benchmarks.load.secure)."""
    count = effort.events(600_000)
    with secured() as tls:
        flat = partial(flat_once, count=count, discard=True, tls=tls)
        return interleave(
            "flat out with mTLS on both sides, 1 subscriber",
            {
                "relay": lambda: flat(partial(relay.start, tls=tls)),
                "nginx": lambda: flat(partial(nginx.start, tls=tls)),
                "nginx, large buffers": lambda: flat(partial(nginx.start_large, tls=tls)),
            },
            effort,
        )


def _further(row: Row, subscribers: int) -> Row:
    """Add what each further subscriber cost: what many cost above one, per event delivered to those."""
    if row.has("1", f"{subscribers}"):
        pairs = zip(row.samples["1"], row.samples[f"{subscribers}"], strict=True)
        row.samples["further"] = [replace(b, cpu=(b.cpu * subscribers - a.cpu) / (subscribers - 1)) for a, b in pairs]
    return row


def further_subscribers_tls(effort: Effort, subscribers: int = 8) -> Row:
    """Each has records of its own to be encrypted."""
    count = effort.events(200_000)
    with secured() as tls:
        flat = partial(flat_once, partial(relay.start, tls=tls), count, discard=True, tls=tls)
        row = interleave(
            "each further subscriber, flat out with mTLS on both sides",
            {f"{number}": partial(flat, subscribers=number) for number in (1, subscribers)},
            effort,
        )
    return _further(row, subscribers)


def further_subscribers(effort: Effort, subscribers: int = 8) -> Row:
    """CPU of each further subscriber.

    What a write costs depends on who is behind: where subscribers are, their sockets are full, and the kernel sends
    most of the bytes on the time of those who make room. So the subscribers here drop their bytes unseen, which is
    cheaper than any write.
    """
    count = effort.events(300_000)
    row = interleave(
        "each further subscriber, flat out",
        {
            "1": lambda: flat_once(relay.start, count, discard=True),
            "4": lambda: flat_once(relay.start, count, subscribers=4, discard=True),
            f"{subscribers}": lambda: flat_once(relay.start, count, subscribers=subscribers, discard=True),
            "writev": lambda: writev_once(subscribers, count),
        },
        effort,
    )
    return _further(row, subscribers)


def many_subscribers_once(subscribers: int, rate: float, count: int, start: Start = relay.start) -> Sample:
    warm = int(rate / 5)
    with (
        sources.raw_nodes() as source,
        start(source.ports) as contender,
        _sink([Subscriber(contender.ports[0]) for _ in range(subscribers)]) as sink,
    ):
        sink.wait_answered()
        source.wait_streams(1)
        burst = 16  # about what a grpc-go node packs into a write at such a rate
        total = (warm + count) // burst * burst
        source.pace(rate, total, burst)
        sample = _watch(sink, contender, warm * subscribers, (total - warm) * subscribers, total * subscribers)
        return _check_relay(contender, sample, total * subscribers)


def many_subscribers(effort: Effort, rate: float = 50_000.0) -> Row:
    count = effort.events(rate)
    return interleave(
        f"{rate / 1000:g}k events/s to many subscribers",
        {
            "8": lambda: many_subscribers_once(8, rate, count),
            "32": lambda: many_subscribers_once(32, rate, count),
        },
        effort,
    )


def printing(effort: Effort, rate: float = 50_000.0) -> Row:
    """What standard output costs beside a subscriber, by event."""
    count = effort.events(rate)
    row = interleave(
        "50,000 events/s, 1 subscriber and standard output",
        {
            "relay": lambda: many_subscribers_once(1, rate, count, relay.start_printing),
            "relay, silent": lambda: many_subscribers_once(1, rate, count),
        },
        effort,
    )
    pairs = zip(row.samples["relay"], row.samples["relay, silent"], strict=True)
    row.samples["stdout"] = [replace(a, cpu=a.cpu - b.cpu) for a, b in pairs]
    return row


def storm_once(tls: Secured, rate: float, count: int, handshakes: int) -> Sample:
    """A subscriber's latency at an even rate, while others shake hands, all of them at once."""
    with (
        sources.raw_nodes(tls=tls) as source,
        relay.start(source.ports, *OPEN, tls=tls) as contender,
        _sink([Subscriber(contender.ports[0], latency=True, tls=tls.folder)]) as sink,
        storms.storm(contender.ports[0], handshakes, tls) as storm,
    ):
        sink.wait_answered()
        source.wait_streams(1)
        warm = count // 10
        source.pace(rate, warm + count)
        sink.until(warm, 120, 3.0)
        for subscriber in sink.subscribers:
            subscriber.latencies.clear()
        storm.let_go()
        sample = _watch(sink, contender, warm, count, warm + count)
        storm.wait_shaken(handshakes)
        return sample


def storm(effort: Effort, rate: float = 2_000.0, handshakes: int = 1_000) -> Row:
    """What a storm of handshakes adds to an established subscriber's latency."""
    count = int(max(1.0, effort.seconds) * rate)
    with secured() as tls:
        row = interleave(
            f"{rate / 1000:g}k events/s with mTLS, beside {handshakes} handshakes at once",
            {
                "quiet": lambda: storm_once(tls, rate, count, 0),
                "storm": lambda: storm_once(tls, rate, count, handshakes),
            },
            effort,
        )
    pairs = zip(row.samples["storm"], row.samples["quiet"], strict=True)
    row.samples["added"] = [replace(a, p50=a.p50 - b.p50, p99=a.p99 - b.p99) for a, b in pairs]
    return row


def grpc_aio(effort: Effort) -> Row:
    count = effort.events(1_000_000)
    few = effort.events(12_000)
    return interleave(
        "against a relay on grpc.aio, flat out",
        {
            "relay": lambda: flat_once(relay.start, count, discard=True),
            "grpc.aio": lambda: flat_once(aio_relay.start, few),
        },
        effort,
    )


def memory(_effort: Effort, nodes: int = 100, subscribers: int = 10) -> Row:
    """Full journals of all feeds, ten subscribers to logs of which one never reads."""
    row = Row(f"memory: {nodes} nodes, {subscribers} subscribers, one of them never reads, journals full")
    feeds = (0, 1, 2)
    with sources.raw_nodes(nodes, feeds=feeds) as source, relay.start(source.ports) as contender:
        never = Subscriber(contender.ports[0])
        with _sink([Subscriber(contender.ports[0]) for _ in range(subscribers - 1)]) as sink:
            sink.wait_answered()
            source.wait_streams(nodes * len(feeds))
            each = JOURNAL_EVENTS * 2 // nodes
            source.flat(each)
            sink.until(each * nodes * (subscribers - 1), 120, 3.0)
            sink.settle(0.5)
            used = measure.memory(contender.process.pid)
            found = counters(contender)
            row.extra = {
                "resident": used.resident,
                "peak": used.peak,
                "sockets": measure.socket_memory(contender.process.pid),
                "lost by readers": each * nodes * (subscribers - 1) - sink.events(),
                "logs held": found["feeds"]["logs"]["next"] - found["feeds"]["logs"]["first"],
            }
        never.close()
    return row


ROWS: dict[str, Callable[[Effort], Row]] = {
    "flat": flat_out,
    "20k": lambda effort: paced(effort, 20_000.0),
    "1k": lambda effort: paced(effort, 1_000.0),
    "nodes": many_nodes,
    "further": further_subscribers,
    "tls": flat_out_tls,
    "tls-further": further_subscribers_tls,
    "storm": storm,
    "subscribers": many_subscribers,
    "stdout": printing,
    "aio": grpc_aio,
    "memory": memory,
}
__all__ = ["LOGS", "ROWS", "Effort", "Row", "Sample"]
