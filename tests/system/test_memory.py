"""Memory under slowness: many peers that begin something large and do not go on (invariant 4 of the design)."""

import contextlib
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import events, h2_node
from peers.command import Relay
from peers.crowd import Crowd
from peers.go_peers import GoClient, GoNode
from peers.node import Node

LOGS = events.LOGS
MIB = 1 << 20
JOURNAL = 32 * MIB
LARGEST = 4 * MIB
ASSEMBLY = 16 * MIB  # for events in pieces, all nodes together: the engine's default
PATIENCE = 60.0  # s after which what has not come will not; backoff alone can take some


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """A thousand sockets in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def memory(relay: Relay, field: str = "RssAnon") -> int:
    """Resident bytes of the process; RssAnon leaves out what it shares with files."""
    for line in Path(f"/proc/{relay.pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise AssertionError(field)


def wait_streaming(relay: Relay, count: int) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if sum(node["state"] == "streaming" for node in relay.counters()["nodes"]) == count:
            return
    raise AssertionError(f"{count} nodes did not stream")


def wait_received(relay: Relay, count: int, feed: str = "logs") -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if relay.counters()["feeds"][feed]["received"] >= count:
            return
    raise AssertionError(f"{count} events did not come")


@pytest.mark.parametrize("window", [65_535, 1 << 30], ids=["default windows", "huge windows"])
def test_a_thousand_subscribers_that_stall_inside_the_largest_event(window: int) -> None:
    """In groups, so that they stall in different events, all of which the journal then forgets."""
    many = (
        "-max-connections=1000",
        "-max-connections-per-address=1000",
        "-max-subscribers=1000",
        "-client-bytes=64MiB",
    )
    with Node() as node, Relay(f"-journal-bytes={JOURNAL}", *many, nodes=(node.port,)) as relay:
        node.wait_open(LOGS)
        wait_streaming(relay, 1)
        before = memory(relay)
        crowds = []
        for group in range(10):
            crowd = Crowd(relay.port, 100, LOGS, window=window)
            crowds.append(crowd)
            node.send(LOGS, events.event(LOGS, group, LARGEST))
            crowd.wait_stalled()
            wait_received(relay, group + 1)
        # Three times the journal: all that they stalled in is gone from it.
        node.send(LOGS, *(events.event(LOGS, number, LARGEST) for number in range(10, 34)))
        wait_received(relay, 34)
        counters = relay.counters()
        assert counters["process"]["accepted"] == 1000
        grown = memory(relay) - before
        # The journal, the rests of messages, and 64 KiB for each connection with its session.
        rests = counters["process"]["remainder_bytes"]
        assert rests <= 16 * MIB
        assert grown < JOURNAL + rests + 1000 * 64 * 1024, f"{grown} bytes; {counters['process']}"
        for subscriber in counters["subscribers"]:
            accounted = sum(subscriber[name] for name in ("delivered", "filtered", "lost", "in_flight"))
            assert accounted == subscriber["passed"]
        for crowd in crowds:
            crowd.close()


def test_five_hundred_nodes_that_announce_the_largest_event() -> None:
    """What is announced takes nothing; what then comes of it is bounded for all nodes together, and given back."""
    with contextlib.ExitStack() as peers:
        nodes = [peers.enter_context(h2_node.Node()) for _ in range(500)]
        relay = peers.enter_context(Relay(f"-journal-bytes={JOURNAL}", nodes=tuple(node.port for node in nodes)))
        wires = [node.accept() for node in nodes]
        for wire in wires:
            wire.stream(LOGS)
        wait_streaming(relay, 500)
        before = memory(relay)
        beginning = b"\0" + LARGEST.to_bytes(4)
        for wire in wires:
            wire.say(LOGS, beginning + b"x")
        # An event of another feed behind it on each connection: when it is there, the beginning is.
        for wire in wires:
            wire.say(events.ALERTS, events.frame(b""))
        wait_received(relay, 500, "alerts")
        assert memory(relay) - before < 500 * 16 * 1024
        for wire in wires:
            wire.say(LOGS, b"x" * 256 * 1024)
            wire.say(events.ALERTS, events.frame(b""))
        wait_received(relay, 1000, "alerts")
        counters = relay.counters()
        assert memory(relay) - before < ASSEMBLY + 500 * 16 * 1024, counters["process"]
        assert 0 < counters["process"]["assembly_bytes"] <= ASSEMBLY
        assert sum(node["skipped"]["budget"] for node in counters["nodes"]) > 0
        # None of them lost more than that event.
        rest = LARGEST - 1 - 256 * 1024
        sent = events.event(LOGS, 1)
        wires[-1].say(LOGS, b"x" * rest + events.frame(sent))
        wait_received(relay, 1, "logs")
        for wire in wires:
            wire.close()
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if relay.counters()["process"]["assembly_bytes"] == 0:
                break
        assert relay.counters()["process"]["assembly_bytes"] == 0


def test_a_hundred_nodes_and_ten_subscribers_one_of_which_never_reads(go_node: GoNode, go_client: GoClient) -> None:
    """The pod's limit of 128 MiB, journals full, all sizes as they are by default."""
    nodes = go_node("-nodes", "100", "-send", "messages,alerts,logs", "-rate", "150", "-size", "1200")
    with Relay(nodes=tuple(nodes.ports)) as relay:
        wait_streaming(relay, 100)
        with Crowd(relay.port, 1, LOGS, window=1 << 30):
            readers = go_client("-server", f"127.0.0.1:{relay.port}", "-connections", "9")
            readers.wait_subscribed()
            end = time.monotonic() + PATIENCE
            while time.monotonic() < end:
                counters = relay.counters()
                if all(feed["held_bytes"] > 0.9 * feed["share_bytes"] for feed in counters["feeds"].values()):
                    break
            else:
                raise AssertionError(f"journals do not fill: {counters['feeds']}")
            assert len(counters["subscribers"]) == 10
            assert memory(relay, "VmHWM") < 128 * MIB, counters["process"]
            readers.kill()
