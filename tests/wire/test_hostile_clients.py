"""Clients that say too much, or only half of it."""

import contextlib
from collections.abc import Callable, Iterator

import pytest
from h2.exceptions import StreamClosedError
from peers import events, h2_client
from peers.engine import Engine
from peers.events import LOGS

from relay import _fastpath, feeds

pytestmark = pytest.mark.both_transports

METHOD = "/test.Service/Method"
COMPRESSED = b"\x01\x00\x00\x00\x01x"
HALF = b"\x00\x00\x00\x00\x09half"
BEGUN = b"\0" + (16384).to_bytes(4) + bytes(16379)  # all but five bytes of a message
RESOURCE_EXHAUSTED, UNAVAILABLE = 8, 14

Start = Callable[..., Engine]


@pytest.fixture
def halved(engine: Start) -> Iterator[tuple[Engine, h2_client.Client, int]]:
    """A subscriber in the middle of an event, whose request could go on."""
    relay = engine()
    with h2_client.Client(relay.port, settings={"initial_window_size": 100}, reopen=False) as wire:
        stream = wire.open(feeds.METHODS[LOGS])
        wire.data(stream, events.frames([b""]))
        wire.wait(lambda wire: wire.streams[stream].headers, "response headers")
        relay.publish(LOGS, events.event(LOGS, 0, 300))
        wire.wait(lambda wire: len(wire.streams[stream].data) == 100, "a third of the event")
        yield relay, wire, stream


def test_a_bad_word_in_the_middle_of_an_event(halved: tuple[Engine, h2_client.Client, int]) -> None:
    """Trailers after half a message would read as a broken message: the stream is reset."""
    _, wire, stream = halved
    wire.data(stream, COMPRESSED)
    over = wire.wait_over(stream)
    assert over.reset is not None
    assert not over.trailers


def test_a_request_that_ends_in_the_middle_of_an_event(halved: tuple[Engine, h2_client.Client, int]) -> None:
    """It had all that counts: the event is completed, and the next one follows."""
    relay, wire, stream = halved
    wire.data(stream, HALF, end=True)
    wire.window(1 << 20, stream)
    relay.publish(LOGS, events.event(LOGS, 1, 300))
    assert wire.wait_messages(stream, 2) == [events.event(LOGS, 0, 300), events.event(LOGS, 1, 300)]


def test_a_bad_word_in_the_middle_of_an_answer(engine: Start) -> None:
    relay = engine(handle=[METHOD])
    with h2_client.Client(relay.port, settings={"initial_window_size": 100}, reopen=False) as wire:
        stream = wire.open(METHOD)
        wire.data(stream, events.frames([b"question"]))
        call = relay.wait_report(_fastpath.REPORT_CALL, what=_fastpath.CALL_MESSAGE).call
        assert relay.native.answer(call, bytes(300))
        wire.wait(lambda wire: len(wire.streams[stream].data) == 100, "a third of the answer")
        wire.data(stream, COMPRESSED)
        over = wire.wait_over(stream)
        assert over.reset is not None
        assert not over.trailers
        relay.wait_report(_fastpath.REPORT_CALL, what=_fastpath.CALL_CANCELLED, call=call)


def test_requests_that_are_not_completed_share_a_budget(engine: Start) -> None:
    """Whatever they are, all together: 16 KiB a stream would be 16 MiB here. Subscribing stays possible."""
    plenty = {"max_streams": 1024, "max_controls": 1 << 30, "client_bytes": 1 << 28}
    relay = engine(handle=[METHOD], max_request_bytes=16384, **plenty)
    before = relay.counters()["process"]["memory_bytes"]
    with h2_client.Client(relay.port) as wire:
        streams = [wire.open(METHOD) for _ in range(1000)]
        for stream in streams:
            with contextlib.suppress(StreamClosedError):  # refused by a part of it
                wire.data(stream, BEGUN)
        wire.round_trip()
        refused = [stream for stream in streams if wire.streams[stream].over]
        assert {wire.streams[stream].status[0] for stream in refused} == {RESOURCE_EXHAUSTED}
        assert len(refused) == 1000 - 256
        now = relay.counters()["process"]
        assert now["limits"]["request"] == len(refused)
        assert now["memory_bytes"] - before < 8 << 20
        subscription = wire.watch(LOGS)
        relay.publish(LOGS, b"")
        assert wire.wait_messages(subscription, 1) == [b""]
    # What was taken is given back: the same again, as far as the budget goes.
    with h2_client.Client(relay.port) as wire:
        for stream in [wire.open(METHOD) for _ in range(200)]:
            wire.data(stream, BEGUN)
        wire.round_trip()
        assert not any(stream.over for stream in wire.streams.values())


def test_the_end_of_a_call_that_was_never_told_is_no_news(engine: Start) -> None:
    """Reports of ends are not bounded, so there must be none for calls that the bounded queue had no room for."""
    relay = engine(handle=[METHOD], max_controls=1 << 30)
    relay.pause()
    try:
        with h2_client.Client(relay.port) as wire:
            first = wire.open(METHOD)
            wire.data(first, events.frames([b""] * 5000))
            assert wire.wait_over(first).status[0] == RESOURCE_EXHAUSTED
            for _ in range(10):
                assert wire.wait_over(wire.call(METHOD, b"")).status[0] == RESOURCE_EXHAUSTED
    finally:
        relay.resume()
    cancelled = relay.wait_report(_fastpath.REPORT_CALL, what=_fastpath.CALL_CANCELLED)
    told = {report.call for report in relay.reports(_fastpath.REPORT_CALL, what=_fastpath.CALL_MESSAGE)}
    assert told == {cancelled.call}
    assert len(relay.reports(_fastpath.REPORT_CALL, what=_fastpath.CALL_CANCELLED)) == 1
    assert relay.counters()["process"]["limits"]["calls"] == 11


def test_half_a_request_does_not_hold_up_the_end(engine: Start) -> None:
    relay = engine(handle=[METHOD])
    with h2_client.Client(relay.port) as wire:
        streams = [wire.open(path) for path in (METHOD, *feeds.METHODS, feeds.HEALTH_CHECK)]
        wire.data(streams[0], HALF)
        wire.round_trip()
        stopped = relay.shutdown(20.0)
        assert stopped.text == "", "the deadline was not needed"
        assert {wire.wait_over(stream).status[0] for stream in streams} == {UNAVAILABLE}


def test_answers_that_are_not_read_are_bounded(engine: Start) -> None:
    """Each stream is reset before its answer could be sent; the answers wait all the same."""
    relay = engine(max_controls=1 << 30, max_streams=100)
    settings = {"initial_window_size": 2**31 - 1}
    with h2_client.Client(relay.port, settings=settings, receive_buffer=4096, read=False) as wire:
        wire.window(2**31 - 1 - 65535)
        wire.call(feeds.METHODS[LOGS], b"")
        relay.wait_subscribers(1)
        for number in range(5):
            # As much as the kernel takes at most, and then some.
            relay.publish(LOGS, *events.events(LOGS, 2000, 1000, number))
        relay.wait_counters(lambda now: now["process"]["tail_bytes"], "a full socket")
        before = relay.counters()["process"]
        with contextlib.suppress(OSError):
            for _ in range(50):
                for _ in range(50):
                    wire.reset(wire.open("/no.Such/Method"))
                if relay.counters()["process"]["clients"] == 0:
                    break
        now = relay.wait_counters(lambda now: now["process"]["clients"] == 0, "the end of the connection")["process"]
        assert now["limits"]["controls"] == 1
        assert now["memory_bytes"] < before["memory_bytes"]
