"""The boundary between Python and the engine: settings, publish, cursors, calls that Python answers."""

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from peers import client, events, h2_client
from peers.engine import Engine, Sink
from peers.resident import resident
from peers.trust import trust

from relay import _fastpath, feeds

Start = Callable[..., Engine]
LOGS, ALERTS, MESSAGES = events.LOGS, events.ALERTS, events.MESSAGES
CALL = _fastpath.REPORT_CALL
MESSAGE, HALF_CLOSED, CANCELLED = _fastpath.CALL_MESSAGE, _fastpath.CALL_HALF_CLOSED, _fastpath.CALL_CANCELLED
SMALL = {"max_event_bytes": 120_000, "journal_bytes": 1 << 20}
ECHO = "/test.Echo/Say"
OTHER = "/test.Echo/Sing"


# Settings -----------------------------------------------------------------------------------------

OUT_OF_RANGE = {
    "journal_bytes": [-1, 0, 1000],
    "max_event_bytes": [-1, 0, 1 << 40],
    "gather_us": [-1],
    "max_connections": [-1, 0],
    "max_address_connections": [-1, 0],
    "max_streams": [-1, 0],
    "max_subscribers": [-1, 0],
    "client_bytes": [-1, 0, 1000],
    "max_header_bytes": [-1, 0],
    "max_request_bytes": [-1, 0],
    "max_controls": [-1, 0],
    "handshake_timeout": [-1.0, 0.0, float("nan"), float("inf")],
    "idle_timeout": [-1.0, 0.0, float("nan")],
    "ping_after": [-1.0, float("nan")],
    "ping_timeout": [-1.0, float("nan")],
    "connect_timeout": [-1.0, float("nan")],
    "check_timeout": [-1.0, float("nan")],
    "node_silence": [-1.0, float("nan")],
    "send_buffer": [-1],
    "receive_buffer": [-1],
    "assembly_bytes": [-1],
    "remainder_bytes": [-1],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in OUT_OF_RANGE.items() for value in values]
)
def test_settings_out_of_range_are_named(name: str, value: Any) -> None:
    with pytest.raises((ValueError, OverflowError), match=name.split("_", maxsplit=1)[0]):
        _fastpath.Engine(**{name: value})


def test_a_journal_below_its_floor_is_refused_with_what_would_do() -> None:
    with pytest.raises(ValueError, match=r"journal_bytes.*\d{8}"):
        _fastpath.Engine(journal_bytes=1 << 20, max_event_bytes=4 << 20)


def test_start_is_for_once(engine: Start) -> None:
    relay = engine()
    with pytest.raises(RuntimeError):
        relay.native.start()


def test_handle_is_for_before_start(engine: Start) -> None:
    relay = engine()
    with pytest.raises(RuntimeError):
        relay.native.handle([ECHO])


@pytest.mark.parametrize(
    ("address", "port"),
    [("localhost", 80), ("", 80), ("1.2.3", 80), ("::g", 80), ("127.0.0.1", 0), ("127.0.0.1", 65536)],
)
def test_a_node_needs_a_numeric_address_and_a_port(engine: Start, address: str, port: int) -> None:
    relay = engine()
    relay.native.add_node(1)
    with pytest.raises((ValueError, OverflowError)):
        relay.native.connect_node(1, address, port)


@pytest.mark.parametrize("number", [-1, 2**31])
def test_node_numbers_out_of_range(engine: Start, number: int) -> None:
    with pytest.raises((ValueError, OverflowError)):
        engine().native.add_node(number)


@pytest.mark.parametrize("mask", [-1, 0, 8])
def test_feed_masks_out_of_range(engine: Start, mask: int) -> None:
    with pytest.raises((ValueError, OverflowError)):
        engine().native.add_node(1, mask)


def test_a_tls_that_was_not_made_is_refused(engine: Start) -> None:
    relay = engine()
    empty, broken = (_fastpath.Tls.__new__(_fastpath.Tls) for _ in range(2))
    with pytest.raises(ValueError, match="certificate: "):
        broken.__init__(server=True, certificate=b"none", root=b"none")  # type: ignore[misc]
    for tls in (empty, broken):
        for use in (lambda tls: tls.expires, lambda tls: relay.native.set_tls(server=tls, client=None)):
            with pytest.raises(RuntimeError, match="the Tls was not made"):
                use(tls)


@pytest.mark.parametrize(
    ("behind", "taken"),
    [
        (trust().ca.pem, True),
        (b"words, and " + trust().leaf.key_pem, True),
        (trust().ca.pem[:-40], False),
        (b"-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n", False),
    ],
)
def test_what_follows_a_certificate_can_be_read(behind: bytes, taken: bool) -> None:
    """A file that is only written in part is no shorter chain."""
    leaf, root = trust().leaf, trust().ca.pem
    with contextlib.nullcontext() if taken else pytest.raises(ValueError, match="certificate: what follows"):
        _fastpath.Tls(server=True, certificate=leaf.certificate_pem + behind, key=leaf.key_pem, root=root)


def test_a_closed_engine_refuses_politely(engine: Start) -> None:
    relay = engine()
    relay.close()
    for call in (
        lambda: relay.native.publish(LOGS, events.frame(b"")),
        lambda: relay.native.drain(1, LOGS),
        lambda: relay.native.add_node(1),
        relay.native.counters,
        lambda: relay.native.shutdown(1),
        relay.native.reports,
    ):
        # An error or nothing at all; never a crash, and never a wait.
        with contextlib.suppress(RuntimeError, ValueError, BlockingIOError):
            call()


# Publish and drain --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frames",
    [b"\0", b"\0\0\0\0", b"\0\0\0\0\x02a", events.frame(b"") + b"\0", b"\0\xff\xff\xff\xff"],
    ids=["flag", "prefix", "part", "rest", "long"],
)
def test_publish_takes_whole_frames_only(engine: Start, frames: bytes) -> None:
    relay = engine()
    with pytest.raises(ValueError, match="frame"):
        relay.native.publish(LOGS, frames)
    assert relay.feed(LOGS)["published"] == 0


@pytest.mark.parametrize("feed", [-1, 3])
def test_feeds_out_of_range(engine: Start, feed: int) -> None:
    relay = engine()
    for call in (
        lambda: relay.native.publish(feed, b""),
        lambda: relay.native.drain(1, feed),
        lambda: _fastpath.Cursor(relay.native, feed),
    ):
        with pytest.raises((ValueError, OverflowError)):
            call()


@pytest.mark.parametrize("feed", events.FEEDS)
def test_published_events_are_scanned(engine: Start, feed: int) -> None:
    """As if a node had sent them: malformed ones are skipped and counted, invalid UTF-8 is repaired."""
    relay = engine()
    good = events.event(feed, 1)
    with Sink(relay, feed) as sink:
        relay.publish(feed, good, b"\x08", events.field(4, b"\xff"), b"", good)
        assert sink.take(4) == [good, events.field(4, "\ufffd".encode()), b"", good]
    counted = relay.feed(feed)
    assert (counted["published"], counted["malformed"], counted["repaired"]) == (4, 1, 1)


def test_publishing_an_event_above_the_limit(engine: Start) -> None:
    relay = engine(max_event_bytes=1000)
    with Sink(relay, LOGS) as sink:
        relay.publish(LOGS, events.event(LOGS, 1, 1001), events.event(LOGS, 2, 1000))
        assert sink.take(1) == [events.event(LOGS, 2, 1000)]
    assert relay.feed(LOGS)["oversize"] == 1


def test_the_command_queue_is_bounded(engine: Start) -> None:
    """Faster than the reactor can take it, publish() says so, and what it took is kept in order."""
    relay = engine()
    block = events.frames(events.events(LOGS, 500, 1000))
    refused = 0
    with Sink(relay, LOGS, at_head=True) as sink:
        for _ in range(2000):
            try:
                relay.native.publish(LOGS, block)
            except BlockingIOError:
                refused += 1
                if refused == 3:
                    break
        assert refused == 3
        relay.wait_counters(lambda now: now["feeds"]["logs"]["published"] % 500 == 0, "whole blocks")
        del sink


def test_drain_waits_for_subscribers(engine: Start) -> None:
    relay = engine()
    with h2_client.Client(relay.port, settings={"initial_window_size": 0}) as wire:
        stream = wire.watch(LOGS)
        sent = events.events(LOGS, 5, 300)
        relay.publish(LOGS, *sent)
        relay.native.drain(77, LOGS)
        relay.native.drain(78, ALERTS)
        relay.wait_report(_fastpath.REPORT_DRAINED, ticket=78)
        wire.round_trip()
        assert relay.reports(_fastpath.REPORT_DRAINED, ticket=77) == []
        wire.window(100_000, stream)
        relay.wait_report(_fastpath.REPORT_DRAINED, ticket=77)
        assert wire.wait_messages(stream, 5) == sent


def test_drain_waits_for_cursors(engine: Start) -> None:
    relay = engine()
    with Sink(relay, LOGS) as sink:
        relay.publish(LOGS, *events.events(LOGS, 5))
        relay.native.drain(77, LOGS)
        relay.native.drain(78, ALERTS)
        relay.wait_report(_fastpath.REPORT_DRAINED, ticket=78)
        assert relay.reports(_fastpath.REPORT_DRAINED, ticket=77) == []
        sink.take(5)
        assert sink.cursor.read() == b""
        relay.wait_report(_fastpath.REPORT_DRAINED, ticket=77)


def test_drain_does_not_wait_for_those_who_leave(engine: Start) -> None:
    relay = engine()
    wire = h2_client.Client(relay.port, settings={"initial_window_size": 0})
    wire.watch(LOGS)
    sink = Sink(relay, LOGS)
    relay.publish(LOGS, *events.events(LOGS, 5))
    relay.native.drain(77, LOGS)
    wire.close()
    sink.close()
    relay.wait_report(_fastpath.REPORT_DRAINED, ticket=77)


# Cursors ------------------------------------------------------------------------------------------


def test_where_a_cursor_starts(engine: Start) -> None:
    relay = engine()
    relay.publish(LOGS, *events.events(LOGS, 3))
    relay.wait_counters(lambda now: now["feeds"]["logs"]["next"] == 3)
    with Sink(relay, LOGS) as oldest, Sink(relay, LOGS, at_head=True) as newest:
        assert (oldest.cursor.sequence, newest.cursor.sequence) == (0, 3)
        relay.publish(LOGS, *events.events(LOGS, 2, start=3))
        assert list(map(events.number_of, oldest.take(5))) == [0, 1, 2, 3, 4]
        assert list(map(events.number_of, newest.take(2))) == [3, 4]
        assert (oldest.cursor.sequence, newest.cursor.sequence) == (5, 5)
        assert (oldest.cursor.lost, newest.cursor.lost) == (0, 0)


@pytest.mark.parametrize("limit", [1, 305, 306, 610, 100_000])
def test_a_read_gives_whole_frames(engine: Start, limit: int) -> None:
    """As many as fit, and at least one."""
    relay = engine()
    sent = events.events(LOGS, 10, 300)
    relay.publish(LOGS, *sent)
    relay.wait_counters(lambda now: now["feeds"]["logs"]["next"] == 10)
    with Sink(relay, LOGS) as sink:
        got: list[bytes] = []
        while data := sink.cursor.read(limit):
            assert len(data) <= max(limit, 305)
            messages, rest = events.unframe(data)
            assert (rest, len(messages)) == (b"", min(max(1, limit // 305), 10 - len(got)))
            got += messages
        assert got == sent


def test_a_cursor_that_was_overtaken_counts_the_difference(engine: Start) -> None:
    relay = engine(**SMALL)
    with Sink(relay, LOGS) as sink:
        sent = events.events(LOGS, 100, 20_000)
        for event in sent:
            relay.publish(LOGS, event)
        counters = relay.wait_counters(lambda now: now["feeds"]["logs"]["next"] == 100)
        first = counters["feeds"]["logs"]["first"]
        assert first > 0
        assert (sink.cursor.lost, sink.cursor.behind) == (first, 100 - first)
        assert sink.take(100 - first) == sent[first:]
        assert (sink.cursor.lost, sink.cursor.behind) == (first, 0)
        assert sink.cursor.sequence == 100


def test_a_cursor_of_a_thread_against_the_reactor(engine: Start) -> None:
    """One thread reads while the journal is overrun under it: every event is whole, in order, or counted as lost."""
    relay = engine(**SMALL)
    total = 20_000
    got: list[int] = []
    with Sink(relay, LOGS) as sink:

        def read() -> None:
            while len(got) + sink.cursor.lost < total:
                got.extend(map(events.number_of, sink.take(1)))

        reader = threading.Thread(target=read)
        reader.start()
        for start in range(0, total, 100):
            relay.publish(
                LOGS, *[events.event(LOGS, number, 45 + number % 2000) for number in range(start, start + 100)]
            )
        reader.join(60)
        assert not reader.is_alive()
        assert got == sorted(set(got))
        assert got[-1] == total - 1
        assert len(got) + sink.cursor.lost == total


def test_a_cursor_outlives_its_engine(engine: Start) -> None:
    relay = engine()
    relay.publish(LOGS, *events.events(LOGS, 3))
    sink = Sink(relay, LOGS)
    sink.take(1)
    relay.close()
    with contextlib.suppress(RuntimeError, ValueError):
        sink.cursor.read()
    sink.close()
    sink.cursor.close()


# Calls that Python answers ------------------------------------------------------------------------


@pytest.fixture
def answering(engine: Start) -> Engine:
    return engine(handle=[ECHO, OTHER])


@pytest.fixture
def channel(answering: Engine) -> Iterator[grpc.Channel]:
    with client.channel(answering.port) as made:
        yield made


def test_a_unary_call(answering: Engine, channel: grpc.Channel) -> None:
    asked = channel.unary_unary(OTHER).future(b"question")
    call = answering.wait_report(CALL, what=MESSAGE)
    assert (call.path, call.message) == (OTHER, b"question")
    answering.wait_report(CALL, what=HALF_CLOSED, call=call.call)
    assert answering.native.answer(call.call, b"answer", 0)
    assert asked.result(timeout=20) == b"answer"
    # Too late, and of no consequence: a call ends on either side at any time.
    answering.native.answer(call.call, b"too late", 0)
    answering.native.answer(10**9, b"a call that never was", 0)
    assert answering.counters()["process"]["calls"] == 0


@pytest.mark.parametrize("size", [0, 1, 16379, 16380, 1 << 20])
def test_messages_of_any_size(answering: Engine, channel: grpc.Channel, size: int) -> None:
    asked = channel.unary_unary(ECHO).future(b"x")
    call = answering.wait_report(CALL, what=MESSAGE)
    assert answering.native.answer(call.call, b"y" * size, 0)
    assert asked.result(timeout=20) == b"y" * size


def test_an_error(answering: Engine, channel: grpc.Channel) -> None:
    asked = channel.unary_unary(ECHO).future(b"")
    call = answering.wait_report(CALL, what=MESSAGE)
    assert answering.native.answer(call.call, None, 5, "nicht gefunden: größe 100 %\n")
    error = asked.exception(timeout=20)
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "nicht gefunden: größe 100 %\n")


def test_a_streaming_call(answering: Engine, channel: grpc.Channel) -> None:
    """Both sides say as much as they like, in any order."""
    more = threading.Semaphore(0)

    def questions() -> Iterator[bytes]:
        for number in range(3):
            more.acquire(timeout=20)
            yield b"question %d" % number

    answers = channel.stream_stream(ECHO)(questions())
    more.release()
    call = answering.wait_report(CALL, what=MESSAGE)
    assert (call.path, call.message) == (ECHO, b"question 0")
    assert answering.native.answer(call.call, b"answer 0")
    assert next(answers) == b"answer 0"
    more.release()
    more.release()
    second, third = (answering.wait_report(CALL, time, what=MESSAGE) for time in (2, 3))
    assert [(each.path, each.message) for each in (second, third)] == [("", b"question 1"), ("", b"question 2")]
    answering.wait_report(CALL, what=HALF_CLOSED, call=call.call)
    for number in range(1, 50):
        assert answering.native.answer(call.call, b"answer %d" % number)
    assert answering.native.answer(call.call, None, 0)
    assert list(answers) == [b"answer %d" % number for number in range(1, 50)]


@pytest.mark.parametrize("how", ["cancel", "deadline", "close"])
def test_a_call_that_is_cancelled(answering: Engine, how: str) -> None:
    wire = h2_client.Client(answering.port)
    stream = wire.call(ECHO, b"x", extra=(("grpc-timeout", "300m"),) if how == "deadline" else ())
    call = answering.wait_report(CALL, what=MESSAGE)
    match how:
        case "cancel":
            wire.reset(stream)
        case "deadline":
            assert wire.wait_over(stream).status[0] == 4
        case "close":
            wire.close()
    answering.wait_report(CALL, what=CANCELLED, call=call.call)
    answering.native.answer(call.call, b"too late", 0)
    assert answering.counters()["process"]["calls"] == 0
    wire.close()


def test_calls_beyond_the_queue_are_refused(engine: Start) -> None:
    """Nobody takes the reports: the engine keeps a bounded number of calls and refuses the rest."""
    relay = engine(handle=[ECHO], max_streams=100_000, max_controls=1 << 30, client_bytes=1 << 28)
    relay.pause()
    with h2_client.Client(relay.port) as wire:
        streams = []
        for _ in range(5000):
            streams.append(wire.call(ECHO, b"x"))
            if any(wire.streams[stream].over for stream in streams[-1:]):
                break
        wire.wait(lambda wire: any(stream.over for stream in wire.streams.values()), "refusal")
        refused = [stream for stream in wire.streams.values() if stream.over]
        assert {stream.status[0] for stream in refused} == {8}
        assert wire.check(1) == 1
        assert relay.counters()["process"]["limits"]["calls"] >= len(refused)
        relay.resume()


def test_a_client_that_does_not_read_its_answers(answering: Engine) -> None:
    """They are kept up to a bound; then the call ends."""
    with h2_client.Client(answering.port, settings={"initial_window_size": 0}) as wire:
        stream = wire.call(ECHO, b"x")
        call = answering.wait_report(CALL, what=MESSAGE)
        before = answering.counters()["process"]["memory_bytes"]
        # A gigabyte, if it were taken.
        for _ in range(10_000):
            if wire.streams[stream].over:
                break
            answering.native.answer(call.call, b"y" * 100_000)
        assert wire.wait_over(stream).status[0] == 8
        answering.wait_report(CALL, what=CANCELLED, call=call.call)
        assert answering.counters()["process"]["memory_bytes"] < before + (1 << 20)


# An engine as the node of another --------------------------------------------------------------------


def test_a_relay_of_relays(engine: Start) -> None:
    """Three in a row, each with a subscriber; the last one has a second node."""
    first, second, third = engine(), engine(), engine()
    second.connect(first)
    third.connect(second)
    third.connect(first)
    with client.channel(third.port) as channel, client.channel(second.port) as middle:
        last = client.Subscriber(channel, LOGS).ready()
        halfway = client.Subscriber(middle, LOGS).ready()
        first.wait_subscribers(6)
        second.wait_subscribers(4)
        sent = events.events(LOGS, 500, 700)
        first.publish(LOGS, *sent)
        assert halfway.take(500) == sent
        assert sorted(last.take(1000)) == sorted(sent + sent)
        last.cancel()
        halfway.cancel()


def test_an_engine_as_simulator_and_as_subscriber(engine: Start) -> None:
    """The fast peers of benchmarks and demos: one without nodes, one without a listener."""
    simulator, relay, sink_engine = engine(event_per_frame=True), engine(), engine(listen=False)
    relay.connect(simulator)
    sink_engine.connect(relay)
    for each in (simulator, relay):
        each.wait_subscribers(3)
    sent = events.events(LOGS, 2000, 768)
    with Sink(sink_engine, LOGS) as sink:
        simulator.publish(LOGS, *sent)
        assert sink.take(2000) == sent
    simulator.drain(LOGS)
    relay.drain(LOGS)


# Nothing is left ---------------------------------------------------------------------------------------


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def live_briefly() -> None:
    native = _fastpath.Engine()
    native.start()
    native.add_node(1)
    native.publish(LOGS, events.frame(b""))
    cursor = _fastpath.Cursor(native, LOGS)
    cursor.close()
    native.close()


@pytest.mark.resident
def test_a_thousand_lives_leave_nothing() -> None:
    for _ in range(50):
        live_briefly()
    gc.collect()
    before = descriptors(), resident(), threading.active_count(), threads()
    for _ in range(1000):
        live_briefly()
    gc.collect()
    after = descriptors(), resident(), threading.active_count(), threads()
    assert (after[0], after[2], after[3]) == (before[0], before[2], before[3])
    assert after[1] - before[1] < 4 << 20, f"{after[1] - before[1]} bytes more after 1000 engines"


def test_connections_leave_nothing(engine: Start) -> None:
    relay = engine()

    def visit() -> None:
        with h2_client.Client(relay.port) as wire:
            wire.watch(LOGS)
            relay.publish(LOGS, *events.events(LOGS, 3))
            relay.drain(LOGS)
        relay.wait_counters(lambda now: now["process"]["clients"] == 0, "the end of the connection")

    for _ in range(10):
        visit()
    before = relay.counters()["process"]
    opened = descriptors()
    for _ in range(100):
        visit()
    after = relay.counters()["process"]
    assert descriptors() == opened
    # A buffer may be there now that was not then; a leak would show a hundred times.
    assert after["memory_blocks"] < before["memory_blocks"] + 10
    assert feeds.FEEDS == events.FEEDS
