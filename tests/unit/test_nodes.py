"""relay.nodes: every edge of a node's state machine, its feeds' reopening, and its log lines.

The engine, the resolver and the clock are replaced: time passes when a test says so.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from peers.virtual import Clock

from relay.engine import NodeReport, NodeState, StreamReport
from relay.nodes import NodeTable
from relay.resolve import Resolver
from relay.settings import Address

OK, UNIMPLEMENTED, UNAVAILABLE = 0, 12, 14
MESSAGES, ALERTS, LOGS = range(3)
WHERE = Address("node.example", 32767)


class EngineCalls:
    """Records what the table asks of the engine, and refuses what the engine would."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.known: set[int] = set()
        self.names: list[str] = []  # that certificates are checked for
        self.starved = False

    def add_node(self, node: int, feeds: int = 7) -> None:
        assert node not in self.known
        self.known.add(node)
        self.calls.append(("add", node, feeds))

    def connect_node(self, node: int, address: str, port: int, name: str = "") -> None:
        assert node in self.known
        self.take_memory()
        self.names.append(name)
        self.calls.append(("connect", node, address, port))

    def open_stream(self, node: int, feed: int) -> None:
        assert node in self.known
        self.take_memory()
        self.calls.append(("open", node, feed))

    def take_memory(self) -> None:
        if self.starved:
            raise MemoryError("no memory for a command")

    def remove_node(self, node: int) -> None:
        self.known.remove(node)
        self.calls.append(("remove", node))

    def take(self) -> list[tuple[Any, ...]]:
        calls, self.calls = self.calls, []
        return calls


class Names:
    """A resolver whose answers the test gives."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, Callable[[tuple[str, ...], str], None]]] = []

    def resolve(self, host: str, port: int, done: Callable[[tuple[str, ...], str], None]) -> None:
        self.asked.append((host, port, done))

    def answer(self, *addresses: str, error: str = "") -> None:
        _, _, done = self.asked.pop(0)
        done(addresses, error)


class World:
    """A table with everything around it."""

    def __init__(self, draw: Callable[[], float] = lambda: 1.0) -> None:
        self.engine, self.names, self.clock = EngineCalls(), Names(), Clock()
        self.table = NodeTable(self.engine, self.names, self.clock, draw)

    def report(self, node: int, state: NodeState, code: int = 0, text: str = "") -> None:
        self.table.on_node(NodeReport(node, state, code, text))

    def lose(self, node: int, text: str = "connection reset") -> None:
        self.report(node, NodeState.IDLE, UNAVAILABLE, text)

    def end_stream(self, node: int, feed: int, code: int = OK, text: str = "ended") -> None:
        self.table.on_stream(StreamReport(node, feed, code, text))

    def state(self, node: int = 0) -> str:
        return str(self.table.describe(node)["state"])

    def streaming_node(self) -> int:
        node = self.table.add(WHERE)
        self.names.answer("10.0.0.1")
        self.report(node, NodeState.CONNECTING)
        self.report(node, NodeState.CHECKING)
        self.report(node, NodeState.STREAMING)
        self.engine.take()
        return node


@pytest.fixture
def world() -> World:
    return World()


# --- edges of the state machine -----------------------------------------------------------


def test_a_new_node_is_resolved_then_connected(world: World) -> None:
    node = world.table.add(WHERE, feed_mask=5)
    assert (world.state(), world.names.asked[0][:2]) == ("resolving", ("node.example", 32767))
    world.names.answer("10.0.0.1")
    assert world.state() == "connecting"
    assert world.engine.take() == [("add", node, 5), ("connect", node, "10.0.0.1", 32767)]


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("node.example", "node.example"),
        ("node.example.", "node.example"),
        ("localhost", "localhost"),
        ("10.0.0.9", ""),
        ("fd00::9", ""),
    ],
)
def test_a_nodes_certificate_is_checked_for_its_name_where_one_was_given(world: World, host: str, name: str) -> None:
    world.table.add(Address(host, 1), others=("10.0.0.7",))
    world.names.answer("10.0.0.9", "10.0.0.8")
    for _ in range(2):
        world.lose(0)
    assert world.engine.names == [name] * 3


def test_a_name_that_does_not_resolve_is_asked_for_again_with_backoff(world: World) -> None:
    world.table.add(WHERE)
    for delay in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
        world.names.answer(error="cannot resolve node.example: no such name")
        assert (world.state(), world.clock.pending()) == ("waiting", [delay])
        world.clock.advance(delay)
        assert world.state() == "resolving"


def test_without_memory_a_node_is_connected_later(world: World) -> None:
    node = world.table.add(WHERE)
    world.engine.take()
    world.engine.starved = True
    world.names.answer("10.0.0.1", "10.0.0.2")
    assert (world.state(), world.clock.pending()) == ("waiting", [0.5])
    assert world.table.describe(node)["last_error"] == "no memory for a command"
    world.engine.starved = False
    world.clock.advance(0.5)
    world.names.answer("10.0.0.1")
    assert world.engine.take() == [("connect", node, "10.0.0.1", 32767)]


def test_without_memory_a_feed_is_opened_later(world: World) -> None:
    node = world.streaming_node()
    world.end_stream(node, LOGS)
    world.engine.starved = True
    world.clock.advance(0.5)
    assert (world.state(), world.clock.pending()) == ("streaming", [1.0])
    assert world.table.describe(node)["last_error"] == "logs: no memory for a command"
    world.engine.starved = False
    world.clock.advance(1.0)
    assert world.engine.take() == [("open", node, LOGS)]


def test_a_name_is_resolved_again_at_each_try(world: World) -> None:
    node = world.table.add(WHERE)
    world.names.answer("10.0.0.1")
    world.lose(node)
    world.clock.advance(0.5)
    world.names.answer("10.0.0.2")
    assert [call[2] for call in world.engine.take() if call[0] == "connect"] == ["10.0.0.1", "10.0.0.2"]


def test_every_address_of_a_name_is_tried_before_waiting(world: World) -> None:
    node = world.table.add(WHERE)
    world.names.answer("::1", "127.0.0.1")
    world.lose(node, "connection refused")
    assert (world.state(), world.clock.pending()) == ("connecting", [])
    world.lose(node, "connection refused")
    assert (world.state(), world.clock.pending()) == ("waiting", [0.5])
    assert [call[2] for call in world.engine.take() if call[0] == "connect"] == ["::1", "127.0.0.1"]


def test_a_name_of_an_address_that_is_connected_already_waits(world: World) -> None:
    """As of a pod that was found, and is named by -nodes, too: its events would come twice."""
    first = world.streaming_node()
    second = world.table.add(Address("other.example", 32767))
    world.names.answer("10.0.0.1")
    assert world.state(second) == "waiting"
    assert (
        world.table.describe(second)["last_error"] == "10.0.0.1:32767 is connected already, as node node.example:32767"
    )
    assert world.engine.take() == [("add", second, 7)]
    world.table.remove(first)
    world.clock.advance(1.0)
    world.names.answer("10.0.0.1")
    assert world.engine.take() == [("remove", first), ("connect", second, "10.0.0.1", 32767)]


def test_another_address_of_the_name_is_tried_instead_of_one_that_is_connected(world: World) -> None:
    world.streaming_node()
    second = world.table.add(Address("other.example", 32767))
    world.names.answer("10.0.0.1", "10.0.0.2")
    assert world.engine.take() == [("add", second, 7), ("connect", second, "10.0.0.2", 32767)]


def test_another_port_of_an_address_is_another_node(world: World) -> None:
    world.streaming_node()
    second = world.table.add(Address("other.example", 32768))
    world.names.answer("10.0.0.1")
    assert world.engine.take() == [("add", second, 7), ("connect", second, "10.0.0.1", 32768)]


def test_a_lost_connection_is_tried_again_from_the_name_on(world: World) -> None:
    node = world.streaming_node()
    world.lose(node)
    assert world.state() == "waiting"
    world.clock.advance(0.5)
    assert (world.state(), len(world.names.asked)) == ("resolving", 1)


@pytest.mark.parametrize(("health", "delay"), [(60.0, 0.5), (59.0, 4.0)])
def test_a_minute_of_streaming_starts_the_backoff_afresh(world: World, health: float, delay: float) -> None:
    node = world.streaming_node()
    for _ in range(3):
        world.lose(node)
        world.clock.advance(30)
        world.names.answer("10.0.0.1")
    world.report(node, NodeState.STREAMING)
    world.clock.advance(health)
    world.lose(node)
    assert world.clock.pending() == [delay]


def test_a_stream_seen_while_waiting_ends_the_waiting(world: World) -> None:
    """Reports are merged and late: a late IDLE may belong to an earlier connection."""
    node = world.table.add(WHERE)
    world.names.answer("10.0.0.1")
    world.lose(node)
    world.report(node, NodeState.STREAMING)
    assert (world.state(), world.clock.pending()) == ("streaming", [])


def test_an_answer_that_comes_after_the_node_streams_is_ignored(world: World) -> None:
    node = world.table.add(WHERE)
    world.report(node, NodeState.STREAMING)
    world.engine.take()
    world.names.answer("10.0.0.9")
    assert (world.state(), world.engine.take()) == ("streaming", [])


def test_a_removed_node_is_forgotten_with_its_timers(world: World) -> None:
    node = world.streaming_node()
    world.end_stream(node, LOGS)
    world.table.remove(node)
    assert (len(world.table), world.clock.pending(), world.engine.take()) == (0, [], [("remove", node)])
    world.lose(node)
    world.end_stream(node, LOGS)
    world.table.remove(node)
    assert (world.clock.pending(), world.engine.take(), world.table.describe(node)) == ([], [], {})


def test_a_node_removed_while_its_name_is_resolved_is_not_connected(world: World) -> None:
    node = world.table.add(WHERE)
    world.table.remove(node)
    world.names.answer("10.0.0.1")
    assert world.engine.take() == [("add", node, 7), ("remove", node)]


def test_a_removed_and_added_node_gets_another_number(world: World) -> None:
    first = world.table.add(WHERE)
    world.table.remove(first)
    assert world.table.add(WHERE) != first


def test_after_stop_nothing_is_tried(world: World) -> None:
    node = world.streaming_node()
    other = world.table.add(Address("other.example", 1))
    world.engine.take()
    world.table.stop()
    world.lose(node)
    world.end_stream(node, ALERTS)
    world.names.answer("10.0.0.2")
    world.clock.advance(120)
    assert (world.clock.pending(), world.engine.take(), world.names.asked) == ([], [], [])
    assert world.table.describe(other)["node"] == "other.example:1"


def test_jitter_is_drawn_for_each_try() -> None:
    draws = iter([0.25, 0.5, 0.0])
    world = World(lambda: next(draws))
    world.table.add(WHERE)
    for delay in (0.125, 0.5, 0.0):
        world.names.answer(error="no")
        assert world.clock.pending() == [delay]
        world.clock.advance(delay)


# --- one ended feed -----------------------------------------------------------------------


@pytest.mark.parametrize("code", [OK, UNAVAILABLE])
def test_an_ended_feed_is_opened_again_alone(world: World, code: int) -> None:
    node = world.streaming_node()
    for delay in (0.5, 1.0, 2.0):
        world.end_stream(node, ALERTS, code)
        assert (world.state(), world.clock.pending(), world.engine.take()) == ("streaming", [delay], [])
        world.clock.advance(delay)
        assert world.engine.take() == [("open", node, ALERTS)]


def test_each_feed_has_its_own_backoff(world: World) -> None:
    node = world.streaming_node()
    world.end_stream(node, ALERTS)
    world.clock.advance(0.5)
    world.end_stream(node, ALERTS)
    world.end_stream(node, LOGS)
    assert world.clock.pending() == [0.5, 1.0]


def test_a_feed_that_lived_for_a_minute_starts_its_backoff_afresh(world: World) -> None:
    node = world.streaming_node()
    for _ in range(4):
        world.end_stream(node, LOGS)
        world.clock.advance(30)
    world.clock.advance(60)
    world.end_stream(node, LOGS)
    assert world.clock.pending() == [0.5]


def test_a_feed_that_never_lived_for_a_minute_keeps_its_backoff(world: World) -> None:
    node = world.streaming_node()
    world.end_stream(node, LOGS)
    for delay, life in ((0.5, 40), (1.0, 40), (2.0, 40)):
        assert world.clock.pending() == [delay]
        world.clock.advance(delay + life)
        world.end_stream(node, LOGS)
    world.lose(node)
    world.clock.advance(100)
    world.names.answer("10.0.0.1")
    world.report(node, NodeState.STREAMING)
    world.clock.advance(1)
    world.end_stream(node, LOGS)
    assert world.clock.pending() == [8.0]


def test_a_feed_that_the_node_lacks_is_given_up_for_this_connection(world: World) -> None:
    node = world.streaming_node()
    world.end_stream(node, MESSAGES, UNIMPLEMENTED)
    world.clock.advance(3600)
    assert world.engine.take() == []
    world.lose(node)
    world.clock.advance(0.5)
    world.names.answer("10.0.0.1")
    assert world.engine.take() == [("connect", node, "10.0.0.1", 32767)]  # which asks for all feeds again


def test_a_lost_connection_ends_the_waiting_of_its_feeds(world: World) -> None:
    node = world.streaming_node()
    world.end_stream(node, ALERTS)
    world.lose(node)
    assert world.clock.pending() == [0.5]  # the node's own
    world.end_stream(node, LOGS)  # reported late
    assert world.clock.pending() == [0.5]
    world.clock.advance(30)
    assert world.engine.take() == []


# --- what is told -------------------------------------------------------------------------


def test_a_node_is_described_with_its_reconnects_and_last_error(world: World) -> None:
    node = world.streaming_node()
    world.lose(node, "connection reset by peer")
    world.clock.advance(0.5)
    world.names.answer("2001:db8::1")
    world.report(node, NodeState.STREAMING)
    assert world.table.describe(node) == {
        "node": "node.example:32767",
        "address": "[2001:db8::1]:32767",
        "state": "streaming",
        "reconnects": 1,
        "last_error": "connection reset by peer",
    }


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int | None]]:
    return [(r.getMessage(), r.relay_fields.get("times")) for r in caplog.records]  # type: ignore[attr-defined]


def test_the_same_failure_is_logged_once_a_minute_with_its_count(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world.table.add(WHERE)
    failures = []
    while len(lines(caplog)) < 4:
        world.names.answer(error="cannot resolve node.example: no such name")
        failures.append(world.clock.now)
        world.clock.advance(world.clock.pending()[0])
    told = lines(caplog)
    assert {line for line, _ in told} == {"node cannot be reached"}
    # At 0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 61.5 s, and every 30 s from then on.
    assert [times for _, times in told] == [1, 7, 2, 2]
    assert len(failures) == 12


def test_a_node_that_flaps_is_told_once_a_minute(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    node = world.streaming_node()
    for _ in range(20):
        world.lose(node)
        world.clock.advance(30)
        world.names.answer("10.0.0.1")
        world.report(node, NodeState.STREAMING)
        world.clock.advance(1)
    # Connected first; then every second loss (62 s apart) is told, with its count and its end.
    told = lines(caplog)
    assert told[:3] == [("node connected", None), ("node disconnected", 1), ("node connected", None)]
    assert told[3:5] == [("node disconnected", 2), ("node connected", None)]
    assert len(told) == 1 + 2 * 10


def test_another_failure_is_logged_at_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    node = world.table.add(WHERE)
    world.names.answer("10.0.0.1")
    world.lose(node, "connection refused")
    world.clock.advance(0.5)
    world.names.answer(error="cannot resolve")
    assert lines(caplog) == [("node cannot be reached", 1), ("node cannot be reached", 1)]


def test_a_lacking_feed_is_logged_by_name(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    node = world.streaming_node()
    caplog.clear()
    world.end_stream(node, MESSAGES, UNIMPLEMENTED)
    (record,) = caplog.records
    assert record.relay_fields == {"node": "node.example:32767", "feed": "messages"}  # type: ignore[attr-defined]


def test_a_lacking_feed_of_a_node_that_flaps_is_logged_once_a_minute(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    node = world.streaming_node()
    for _ in range(20):
        world.end_stream(node, ALERTS, UNIMPLEMENTED)
        world.lose(node)
        world.clock.advance(30)
        world.names.answer("10.0.0.1")
        world.report(node, NodeState.STREAMING)
        world.clock.advance(1)
    # Every second time, 62 s apart.
    assert [what for what, _ in lines(caplog)].count("node lacks a feed") == 10


# --- any order of events ------------------------------------------------------------------


class AnyOrder(RuleBasedStateMachine):
    """Whatever comes, in any order: a node is never forgotten, and never tried twice at once."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(lambda: 0.5)
        self.node = self.world.table.add(WHERE)

    @precondition(lambda self: self.world.names.asked)
    @rule(addresses=st.lists(st.sampled_from(["10.0.0.1", "::1"]), max_size=2))
    def resolved(self, addresses: list[str]) -> None:
        self.world.names.answer(*addresses, error="" if addresses else "no such name")

    @rule(state=st.sampled_from(NodeState))
    def reported(self, state: NodeState) -> None:
        self.world.report(self.node, state, text="a reason")

    @rule(feed=st.integers(0, 2), code=st.sampled_from([OK, UNIMPLEMENTED, UNAVAILABLE]))
    def stream_ended(self, feed: int, code: int) -> None:
        self.world.end_stream(self.node, feed, code)

    @rule(seconds=st.floats(0, 90))
    def time_passed(self, seconds: float) -> None:
        self.world.clock.advance(seconds)

    @rule()
    def replaced(self) -> None:
        self.world.table.remove(self.node)
        self.node = self.world.table.add(WHERE)

    @invariant()
    def something_will_happen(self) -> None:
        if self.world.state(self.node) == "waiting":
            assert len(self.world.clock.pending()) == 1
            assert self.world.clock.pending()[0] <= 30
        elif self.world.state(self.node) == "resolving":
            assert self.world.names.asked
        else:
            assert len(self.world.clock.pending()) <= 3


AnyOrder.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
TestAnyOrder = AnyOrder.TestCase


# --- the resolver -------------------------------------------------------------------------


def resolve(host: str, lookup: Callable[[str, int], Any]) -> tuple[tuple[str, ...], str]:
    async def run() -> tuple[tuple[str, ...], str]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[tuple[tuple[str, ...], str]] = loop.create_future()
        Resolver(loop, lookup).resolve(host, 5, lambda addresses, error: answer.set_result((addresses, error)))
        return await asyncio.wait_for(answer, 10)

    return asyncio.run(run())


def entry(address: str) -> tuple[Any, ...]:
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 5))


def never(host: str, port: int) -> Any:
    raise AssertionError("asked")


def test_an_unexpected_failure_is_told_like_any_other() -> None:
    assert resolve("a", never) == ((), "cannot resolve a: asked")


@pytest.mark.parametrize("address", ["10.0.0.1", "::1"])
def test_a_numeric_address_is_not_looked_up(address: str) -> None:
    assert resolve(address, never) == ((address,), "")


def test_a_name_gives_its_addresses_each_once_in_order() -> None:
    found = [entry("10.0.0.2"), entry("10.0.0.1"), entry("10.0.0.2")]
    assert resolve("a", lambda host, port: found) == (("10.0.0.2", "10.0.0.1"), "")


def test_a_failed_look_up_says_why() -> None:
    def fails(host: str, port: int) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    assert resolve("a", fails) == ((), "cannot resolve a: Name or service not known")


def test_no_addresses_is_a_failure() -> None:
    assert resolve("a", lambda host, port: []) == ((), "cannot resolve a: no addresses")
