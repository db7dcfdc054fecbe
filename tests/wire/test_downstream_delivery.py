"""How events reach subscribers: whole, in order, packed as designed, and counted where they are lost."""

import socket
import time
from collections.abc import Callable, Iterator

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from peers import client, events, h2_client, h2_node, node
from peers.engine import At, Engine, Sink
from peers.go_peers import GoClient, GoNode

from relay import _fastpath, feeds

pytestmark = pytest.mark.both_transports

Start = Callable[..., Engine]
LOGS, ALERTS, MESSAGES = events.LOGS, events.ALERTS, events.MESSAGES
SUBSCRIBER = _fastpath.REPORT_SUBSCRIBER
STARTED, LOSING, RECOVERED, ENDED = (
    _fastpath.SUBSCRIBER_STARTED,
    _fastpath.SUBSCRIBER_LOSING,
    _fastpath.SUBSCRIBER_RECOVERED,
    _fastpath.SUBSCRIBER_ENDED,
)
FRAME = 16384

# A journal that a few hundred kilobytes overrun: logs have three quarters of it.
SMALL = {"max_event_bytes": 120_000, "journal_bytes": 1 << 20}


def overrun(relay: Engine, count: int = 40, start: int = 1000) -> list[bytes]:
    """Publish more than the logs' journal holds; the last events are still in it."""
    sent = events.events(LOGS, count, 50_000, start=start)
    for event in sent:
        relay.publish(LOGS, event)
    relay.wait_counters(lambda now: now["feeds"]["logs"]["first"] > 0, "the overrun")
    return sent


# Packing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [40, 780, 5000, FRAME - 14, FRAME - 5, FRAME])
def test_data_frames_end_at_message_boundaries(engine: Start, size: int) -> None:
    """They are packed with whole messages; only one larger than a frame, or than what the window has left, is split."""
    relay = engine()
    with h2_client.Client(relay.port, settings={"initial_window_size": 1 << 24}) as wire:
        wire.window(1 << 24)
        stream = wire.watch(LOGS)
        sent = events.events(LOGS, 60, size)
        relay.publish(LOGS, *sent)
        assert wire.wait_messages(stream, 60) == sent
        pieces = wire.streams[stream].pieces
        assert max(pieces) <= relay.largest_frame
        if size + events.PREFIX <= relay.largest_frame:
            assert all(piece % (size + events.PREFIX) == 0 for piece in pieces)


def test_one_message_a_frame_where_that_is_asked_for(engine: Start) -> None:
    """As grpc-go sends: for simulated nodes."""
    relay = engine(event_per_frame=True)
    with h2_client.Client(relay.port) as wire:
        stream = wire.watch(LOGS)
        sent = [events.event(LOGS, number, 100 + number) for number in range(60)]
        relay.publish(LOGS, *sent)
        assert wire.wait_messages(stream, 60) == sent
        assert wire.streams[stream].pieces == [len(event) + events.PREFIX for event in sent]


@pytest.mark.parametrize("limit", [FRAME, FRAME + 1, 1 << 20, (1 << 24) - 1])
def test_the_clients_frame_size_is_kept(engine: Start, limit: int) -> None:
    relay = engine()
    with h2_client.Client(relay.port, settings={"max_frame_size": limit}) as wire:
        stream = wire.watch(LOGS)
        sent = events.events(LOGS, 3, 1 << 20)
        relay.publish(LOGS, *sent)
        assert wire.wait_messages(stream, 3) == sent
        assert max(wire.streams[stream].pieces) <= limit


@pytest.mark.parametrize("feed", events.FEEDS)
def test_the_largest_event(engine: Start, feed: int) -> None:
    relay = engine()
    with client.channel(relay.port) as channel, client.Subscriber(channel, feed).ready() as subscriber:
        sent = [events.event(feed, 1, 4 << 20), b"", events.event(feed, 2)]
        relay.publish(feed, *sent)
        assert subscriber.take(3) == sent


# Windows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 2, 4, 5, 6, 99, 1000, 16384, 65535])
def test_windows_of_any_size(engine: Start, window: int) -> None:
    relay = engine()
    with h2_client.Client(relay.port, settings={"initial_window_size": window}) as wire:
        stream = wire.watch(LOGS)
        sent = events.events(LOGS, 3, 300) if window < 99 else [b"", *events.events(LOGS, 20, 300), b""]
        relay.publish(LOGS, *sent)
        assert wire.wait_messages(stream, len(sent)) == sent
        assert max(wire.streams[stream].pieces) <= window


@pytest.mark.parametrize("window", [305, 306, 609, 610, 611])
def test_a_window_is_filled_with_whole_messages_first(engine: Start, window: int) -> None:
    """A message of 305 bytes with its prefix: a frame ends behind the last one that fits, and the next is begun."""
    relay = engine()
    with h2_client.Client(relay.port, settings={"initial_window_size": window}) as wire:
        stream = wire.watch(LOGS)
        sent = events.events(LOGS, 20, 300)
        relay.publish(LOGS, *sent)
        assert wire.wait_messages(stream, 20) == sent
        assert wire.streams[stream].pieces[0] == window // 305 * 305


def test_a_closed_window_opens_late(engine: Start) -> None:
    relay = engine()
    with h2_client.Client(relay.port, settings={"initial_window_size": 0}) as wire:
        stream = wire.watch(LOGS)
        sent = events.events(LOGS, 30, 300)
        relay.publish(LOGS, *sent)
        wire.round_trip()
        assert wire.streams[stream].data == b""
        wire.change(initial_window_size=1000)
        assert wire.wait_messages(stream, 30) == sent


def test_a_window_that_shrinks_below_zero(engine: Start) -> None:
    """RFC 9113, 6.9.2: a change of SETTINGS_INITIAL_WINDOW_SIZE may leave a negative window."""
    relay = engine()
    with h2_client.Client(relay.port, settings={"initial_window_size": 1000}, reopen=False) as wire:
        stream = wire.watch(LOGS)
        sent = events.events(LOGS, 10, 300)
        relay.publish(LOGS, *sent)
        wire.wait_messages(stream, 3)
        acknowledged = wire.settings_acknowledged
        wire.change(initial_window_size=10)
        wire.wait(lambda wire: wire.settings_acknowledged > acknowledged, "acknowledged SETTINGS")
        had = len(wire.streams[stream].data)
        wire.window(800, stream)  # 10 - 915 + 800 is still below zero
        assert wire.check(1) == 1
        assert len(wire.streams[stream].data) == had
        wire.window(100_000, stream)
        assert wire.wait_messages(stream, 10) == sent


def test_the_connections_window_is_shared(engine: Start) -> None:
    """A connection window of 65,535 bytes that is never reopened, and two streams with windows of their own."""
    relay = engine()
    with h2_client.Client(relay.port, settings={"initial_window_size": 1 << 20}, reopen=False) as wire:
        streams = [wire.watch(LOGS) for _ in range(2)]
        sent = events.events(LOGS, 100, 1000)
        relay.publish(LOGS, *sent)
        wire.wait(lambda wire: sum(len(wire.streams[each].data) for each in streams) > 64_000, "data")
        wire.round_trip()
        assert sum(len(wire.streams[stream].data) for stream in streams) <= 65_535
        wire.window(1 << 20)
        for stream in streams:
            assert wire.wait_messages(stream, 100) == sent


@given(
    sizes=st.lists(st.sampled_from([0, 45, 46, 200, 1000, 16379, 16380, 40_000]), min_size=1, max_size=15),
    grants=st.lists(st.integers(1, 60_000), min_size=1, max_size=20),
)
def test_any_grants(served: tuple[Engine, h2_client.Client], sizes: list[int], grants: list[int]) -> None:
    """A client that opens its window by any steps gets the same events."""
    relay, wire = served
    stream = wire.watch(LOGS)
    sent = [events.event(LOGS, number, size) if size else b"" for number, size in enumerate(sizes)]
    relay.publish(LOGS, *sent)
    total = sum(map(len, sent)) + events.PREFIX * len(sent)
    granted, turn = 0, 0
    while granted < total:
        step = max(grants[turn % len(grants)], 1 if turn < 100 else 100_000)
        wire.window(step, stream)
        granted += step
        turn += 1
    assert wire.wait_messages(stream, len(sent)) == sent
    wire.reset(stream)


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Engine, h2_client.Client]]:
    """A relay, and a client whose streams begin with a closed window on a connection with an open one."""
    with (
        Engine(max_controls=100_000) as relay,
        h2_client.Client(relay.port, settings={"initial_window_size": 0}, reopen=False) as wire,
    ):
        wire.window((1 << 31) - 1 - 65_535 - 1)
        yield relay, wire


# Slow, and gone -----------------------------------------------------------------------------------


def stalled(relay: Engine) -> h2_client.Client:
    """A subscriber on a socket that is not read, with nothing but the kernel's buffers between."""
    wire = h2_client.Client(relay.port, read=False, receive_buffer=4096, settings={"initial_window_size": 1 << 30})
    wire.window(1 << 30)
    wire.call(feeds.METHODS[LOGS], events.request())
    relay.wait_report(SUBSCRIBER, what=STARTED)
    return wire


def test_a_subscriber_that_never_reads_delays_nobody(engine: Start) -> None:
    """Neither a node, nor another subscriber; and what it does not read is counted."""
    relay = engine(**SMALL)
    never = stalled(relay)
    with (
        h2_node.Node() as peer,
        client.channel(relay.port) as channel,
        client.Subscriber(channel, LOGS).ready() as other,
    ):
        relay.add(peer)
        wire = peer.accept()
        for start in range(0, 400, 20):
            sent = events.events(LOGS, 20, 20_000, start=start)
            wire.say(LOGS, events.frames(sent))
            assert other.take(20) == sent
        losing = relay.wait_report(SUBSCRIBER, what=LOSING)
        assert losing.lost > 0
        slow = next(each for each in relay.subscribers() if each["lost"])
        assert slow["delivered"] + slow["lost"] + slow["in_flight"] == slow["passed"]
        assert slow["passed"] + slow["behind"] == 400
    never.close()


def test_a_subscriber_that_overran_goes_on_with_whole_messages(engine: Start) -> None:
    """It reads on later: what it got and what the trailer says it lost are all there was."""
    relay = engine(**SMALL)
    wire = stalled(relay)
    sent = overrun(relay, 100)
    wire.resume()
    relay.drain(LOGS)
    last = events.event(LOGS, 10**9)
    relay.publish(LOGS, last)
    stream = 1
    wire.wait(lambda wire: wire.streams[stream].messages[-1:] == [last], "the last event")
    relay.native.shutdown(5)
    over = wire.wait_over(stream)
    relay.wait_report(_fastpath.REPORT_STOPPED)
    got = over.messages
    assert over.data == events.frames(got), "it ends with a whole message"
    assert over.status[0] == 14
    lost = int(over.trailers["relay-lost"])
    assert lost > 0
    assert len(got) + lost == 101
    numbers = [events.number_of(event) for event in got]
    assert numbers == sorted(numbers)
    assert set(got) <= {*sent, last}
    wire.close()


@pytest.mark.paced
def test_losses_are_told_when_they_begin_and_once_there_were_none_for_ten_seconds(engine: Start) -> None:
    """Each at most once in that time, with the total so far, however much is lost in between."""
    relay = engine(**SMALL)
    with h2_client.Client(relay.port, settings={"initial_window_size": 0}, reopen=False) as wire:
        wire.watch(LOGS)
        overrun(relay)
        begun = relay.wait_report(SUBSCRIBER, what=LOSING)
        assert begun.lost > 0
        before = time.monotonic()
        overrun(relay, start=2000)
        (reader,) = relay.subscribers()
        assert reader["lost"] > begun.lost
        ended = relay.wait_report(SUBSCRIBER, what=RECOVERED)
        assert time.monotonic() - before >= 10
        assert ended.lost == reader["lost"]
        assert len(relay.reports(SUBSCRIBER, what=LOSING)) == 1
        overrun(relay, start=3000)
        assert relay.wait_report(SUBSCRIBER, 2, what=LOSING).lost > ended.lost


@pytest.mark.parametrize("taken", [1, 5, 6, 100, 16384, 50_004])
def test_a_split_message_survives_its_segment(engine: Start, taken: int) -> None:
    """A client has taken so many bytes of a message when the journal forgets it; it still gets the rest."""
    relay = engine(**SMALL)
    with h2_client.Client(relay.port, settings={"initial_window_size": taken}, reopen=False) as wire:
        stream = wire.watch(LOGS)
        first = events.event(LOGS, 1, 50_000)
        relay.publish(LOGS, first)
        wire.wait(lambda wire: len(wire.streams[stream].data) == taken, "the first part")
        later = overrun(relay)
        wire.reopen = True
        wire.window(1 << 20, stream)
        wire.window(1 << 20)
        last = events.event(LOGS, 10**9)
        relay.publish(LOGS, last)
        wire.wait(lambda wire: wire.streams[stream].messages[-1:] == [last], "the last event")
        got = wire.streams[stream].messages
        assert got[0] == first
        assert got[1:-1] == later[-len(got[1:-1]) :]
        relay.drain(LOGS)
        subscriber = relay.subscribers()[0]
        assert subscriber["lost"] == 1 + 40 + 1 - len(got)
        assert relay.counters()["process"]["remainder_bytes"] == 0


def test_the_rests_of_one_message_are_kept_once(engine: Start) -> None:
    relay = engine(**SMALL)
    wires = [h2_client.Client(relay.port, settings={"initial_window_size": 100}, reopen=False) for _ in range(10)]
    streams = [wire.watch(LOGS) for wire in wires]
    first = events.event(LOGS, 1, 50_000)
    relay.publish(LOGS, first)
    for wire, stream in zip(wires, streams, strict=True):
        wire.wait(lambda wire, stream=stream: len(wire.streams[stream].data) == 100, "the first part")
    overrun(relay)
    assert 50_000 <= relay.counters()["process"]["remainder_bytes"] < 60_000
    for wire, stream in zip(wires, streams, strict=True):
        wire.reopen = True
        wire.window(1 << 20, stream)
        wire.window(1 << 20)
        assert wire.wait_messages(stream, 2)[0] == first
    relay.wait_counters(lambda now: now["process"]["remainder_bytes"] == 0, "the release of the rest")
    for wire in wires:
        wire.close()


def test_over_the_budget_for_rests_the_furthest_behind_ends(engine: Start) -> None:
    """Ten streams stop in ten different messages; the budget holds two."""
    relay = engine(**SMALL, remainder_bytes=250_000)
    wires = []
    for number in range(10):
        wire = h2_client.Client(relay.port, settings={"initial_window_size": 100}, reopen=False)
        stream = wire.watch(LOGS)
        relay.publish(LOGS, events.event(LOGS, number, 100_000))
        wire.wait(lambda wire, stream=stream: len(wire.streams[stream].data) == 100, "the first part")
        wires.append((wire, stream))
        assert relay.counters()["process"]["remainder_bytes"] <= 250_000
    overrun(relay)
    relay.wait_report(SUBSCRIBER, 8, what=ENDED, code=8)
    assert relay.counters()["process"]["remainder_bytes"] <= 250_000
    assert relay.counters()["process"]["limits"]["remainders"] == 8
    for number, (wire, stream) in enumerate(wires[:8]):
        # In the middle of a message no trailers can be read: the stream is reset.
        assert wire.wait_over(stream).reset == 11, number
    for number, (wire, stream) in enumerate(wires[8:], start=8):
        wire.reopen = True
        wire.window(1 << 20, stream)
        wire.window(1 << 20)
        assert wire.wait_messages(stream, 1)[0] == events.event(LOGS, number, 100_000)
    for wire, _ in wires:
        wire.close()


def test_one_byte_at_a_time(engine: Start) -> None:
    """A client that opens its window by one byte after the other, in the middle of messages for ever."""
    relay = engine(**SMALL)
    with h2_client.Client(relay.port, settings={"initial_window_size": 0}, reopen=False) as wire:
        stream = wire.watch(LOGS)
        sent = events.events(LOGS, 3, 60)
        relay.publish(LOGS, *sent)
        for taken in range(1, 3 * 65 + 1):
            wire.window(1, stream)
            wire.wait(lambda wire, taken=taken: len(wire.streams[stream].data) == taken, f"byte {taken}")
        assert wire.streams[stream].messages == sent


@pytest.mark.parametrize("where", ["idle", "between messages", "inside a message"])
@pytest.mark.parametrize("how", ["cancel", "reset", "close", "vanish"])
def test_a_subscriber_leaves(engine: Start, how: str, where: str) -> None:
    relay = engine()
    window = {"idle": 0, "between messages": 305, "inside a message": 100}[where]
    wire = h2_client.Client(relay.port, settings={"initial_window_size": window}, reopen=False)
    other = h2_client.Client(relay.port)
    staying = other.watch(LOGS)
    stream = wire.watch(LOGS)
    sent = events.events(LOGS, 10, 300)
    relay.publish(LOGS, *sent)
    wire.wait(lambda wire: len(wire.streams[stream].data) == window, "data")
    number = relay.wait_report(SUBSCRIBER, what=STARTED, peer=relay.peer(wire.sock)).subscriber
    match how:
        case "cancel":
            wire.reset(stream)
        case "reset":
            wire.reset_quietly(stream, 0)
        case "close":
            wire.close()
        case "vanish":
            wire.vanish()
    ended = relay.wait_report(SUBSCRIBER, what=ENDED, subscriber=number)
    assert ended.delivered == window // 305
    assert other.wait_messages(staying, 10) == sent
    if how in ("cancel", "reset"):
        wire.round_trip()
    relay.publish(LOGS, *sent)
    assert other.wait_messages(staying, 20) == sent + sent
    for each in (wire, other):
        each.close()


def test_a_subscriber_half_closes_its_socket(engine: Start) -> None:
    """shutdown(SHUT_WR): it will say nothing more, and is told what it asked for, or is closed; nothing is left."""
    relay = engine()
    wire = h2_client.Client(relay.port)
    wire.watch(LOGS)
    wire.sock.shutdown(socket.SHUT_WR)
    relay.publish(LOGS, *events.events(LOGS, 3))
    relay.wait_report(SUBSCRIBER, what=ENDED)
    relay.wait_counters(lambda now: now["process"]["clients"] == 0, "the end of the connection")
    wire.close()


# Many ---------------------------------------------------------------------------------------------


@pytest.mark.tcp_alone
@pytest.mark.parametrize(("connections", "streams"), [(1000, 1), (10, 100)])
def test_a_thousand_subscribers(
    engine: Start, go_node: GoNode, go_client: GoClient, connections: int, streams: int
) -> None:
    many = dict.fromkeys(("max_connections", "max_address_connections", "max_subscribers"), 2000)
    relay = engine(**many, client_bytes=1 << 27)
    peer = go_node("-gate", "-count", "200", "-rate", "2000")
    relay.connect(At(peer.ports[0]))
    readers = go_client(
        *("-server", f"127.0.0.1:{relay.port}", "-count", "200"),
        *("-connections", str(connections), "-streams", str(streams)),
    )
    readers.wait_subscribed()
    assert len(relay.subscribers()) == 1000
    peer.tell()
    said = readers.result()
    assert (said["events"], said["missing"], said["disordered"]) == (200_000, 0, 0)
    relay.wait_counters(lambda now: not now["subscribers"], "the end of all subscribers")


def test_from_a_grpcio_node_to_a_grpcio_client(engine: Start) -> None:
    relay = engine()
    with node.Node() as peer, client.channel(relay.port) as channel:
        relay.connect(peer)
        subscribers = {feed: client.Subscriber(channel, feed).ready() for feed in events.FEEDS}
        sent = {feed: events.events(feed, 100, 700) for feed in events.FEEDS}
        for feed in events.FEEDS:
            peer.send(feed, *sent[feed])
        for feed in events.FEEDS:
            assert subscribers[feed].take(100) == sent[feed]
        peer.end(LOGS, grpc.StatusCode.ABORTED)
        relay.wait_report(_fastpath.REPORT_STREAM, feed=LOGS)
        # A feed that ends at a node is no matter of the subscribers.
        with Sink(relay, MESSAGES, at_head=True) as sink:
            peer.send(MESSAGES, sent[MESSAGES][0])
            assert sink.take(1) == sent[MESSAGES][:1]
        for feed in events.FEEDS:
            subscribers[feed].cancel()
