"""What a client may ask, in which ways, and what it is answered."""

import contextlib
import socket
from collections.abc import Callable

import grpc
import pytest
from hyperframe.frame import DataFrame, SettingsFrame
from peers import client, events, h2_client, h2_wire
from peers.engine import Engine

from relay import _fastpath, feeds

pytestmark = pytest.mark.both_transports

Start = Callable[..., Engine]
LOGS, ALERTS, MESSAGES = events.LOGS, events.ALERTS, events.MESSAGES
STARTED, ENDED = _fastpath.SUBSCRIBER_STARTED, _fastpath.SUBSCRIBER_ENDED
SUBSCRIBER = _fastpath.REPORT_SUBSCRIBER
each_feed = pytest.mark.parametrize("feed", events.FEEDS)


# Subscribing --------------------------------------------------------------------------------------


@each_feed
def test_a_subscriber_gets_what_comes_after_it(engine: Start, feed: int) -> None:
    relay = engine()
    relay.publish(feed, *events.events(feed, 3))
    relay.wait_counters(lambda now: now["feeds"][events.NAMES[feed]]["next"] == 3)
    with client.channel(relay.port) as channel, client.Subscriber(channel, feed).ready() as subscriber:
        sent = events.events(feed, 5, start=3)
        relay.publish(feed, *sent)
        assert subscriber.take(5) == sent


def test_many_streams_on_one_connection(engine: Start) -> None:
    relay = engine()
    with client.channel(relay.port) as channel:
        subscribers = {feed: [client.Subscriber(channel, feed).ready() for _ in range(5)] for feed in events.FEEDS}
        sent = {feed: events.events(feed, 20) for feed in events.FEEDS}
        for feed in events.FEEDS:
            relay.publish(feed, *sent[feed])
        for feed in events.FEEDS:
            assert [subscriber.take(20) for subscriber in subscribers[feed]] == [sent[feed]] * 5
        assert relay.counters()["process"]["clients"] == 1


def test_one_stream_on_each_of_many_connections(engine: Start) -> None:
    relay = engine()
    channels = [client.channel(relay.port) for _ in range(20)]
    subscribers = [client.Subscriber(channel, LOGS).ready() for channel in channels]
    sent = events.events(LOGS, 20)
    relay.publish(LOGS, *sent)
    assert [subscriber.take(20) for subscriber in subscribers] == [sent] * 20
    assert relay.counters()["process"]["clients"] == 20
    for channel in channels:
        channel.close()
    relay.wait_counters(lambda now: now["process"]["clients"] == 0, "the end of all connections")


def test_subscribers_are_reported(engine: Start) -> None:
    relay = engine()
    with h2_client.Client(relay.port) as wire:
        wire.watch(ALERTS, "policy")
        started = relay.wait_report(SUBSCRIBER, what=STARTED)
        relay.publish(ALERTS, *events.events(ALERTS, 7))
        relay.drain(ALERTS)
        counted = relay.subscribers()[0]
        assert (counted["feed"], counted["filter"], counted["delivered"]) in (("alerts", "policy", 7), (1, "policy", 7))
        assert started.feed == ALERTS
        assert started.peer == relay.peer(wire.sock)
    ended = relay.wait_report(SUBSCRIBER, what=ENDED)
    assert (ended.subscriber, ended.delivered, ended.lost) == (started.subscriber, 7, 0)


# Filters ------------------------------------------------------------------------------------------

WORDS = ("", "all", "policy", "system")


@each_feed
@pytest.mark.parametrize("word", WORDS, ids=lambda word: word or "nothing")
def test_the_words_of_a_filter(engine: Start, feed: int, word: str) -> None:
    """A feed serves its words; a word of another feed ends the stream at once, with OK and no event."""
    relay = engine()
    with client.channel(relay.port) as channel, client.Subscriber(channel, feed, word) as subscriber:
        if word in feeds.FILTERS[feed]:
            subscriber.ready()
            sent = events.events(feed, 3)
            relay.publish(feed, *sent)
            assert subscriber.take(3) == sent
        else:
            assert subscriber.rest() == []
            assert subscriber.code() is grpc.StatusCode.OK


def test_which_words_each_feed_serves() -> None:
    assert ({*WORDS}, {"", "all", "policy"}, {"", "all", "system"}) == feeds.FILTERS


@each_feed
@pytest.mark.parametrize("word", ["All", "all ", "policy\0", "namespace == 'default'", "x" * 500, "größe"])
def test_other_words_are_refused_with_what_is_accepted(engine: Start, feed: int, word: str) -> None:
    relay = engine()
    with client.channel(relay.port) as channel, client.Subscriber(channel, feed, word) as subscriber:
        assert subscriber.rest() == []
        assert subscriber.code() is grpc.StatusCode.INVALID_ARGUMENT
        for accepted in ("all", "policy", "system"):
            assert accepted in subscriber.details()


# HealthCheck --------------------------------------------------------------------------------------


@pytest.mark.parametrize("nonce", [0, 1, -1, 127, 128, 2**31 - 1, -(2**31)])
def test_health_check_echoes(engine: Start, nonce: int) -> None:
    relay = engine()
    with client.channel(relay.port) as channel:
        assert client.check(channel, nonce) == nonce


def test_a_nonce_may_be_written_in_odd_ways(engine: Start) -> None:
    """Unknown fields are skipped, of several values the last counts, and a long varint is cut to 32 bits."""
    relay = engine()
    with h2_client.Client(relay.port) as wire:
        stream = wire.call(feeds.HEALTH_CHECK, b"\x08\x01" + events.field(9, b"?") + b"\x08\x85\x80\x80\x80\x10")
        assert wire.wait_over(stream).status[0] == 0
        assert events.nonce(5) == wire.streams[stream].messages[0]


# Requests that are refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/feeder.LogService/WatchEverything",
        "/feeder.LogService/",
        "/feeder.LogService",
        "/feeder.LogService/WatchLogs/",
        "/feeder.LogService/watchlogs",
        "/grpc.health.v1.Health/Check",
        "/",
    ],
)
def test_unknown_methods(engine: Start, path: str) -> None:
    relay = engine()
    with h2_client.Client(relay.port) as wire:
        over = wire.wait_over(wire.call(path, b""))
        assert over.headers[":status"] == "200"
        assert over.status[0] == 12
        assert wire.check(1) == 1


@pytest.mark.parametrize("value", ["text/plain", "application/json", "application/grp", ""])
def test_other_content_types_get_415(engine: Start, value: str) -> None:
    relay = engine()
    with h2_client.Client(relay.port) as wire:
        stream = wire.open(feeds.METHODS[LOGS], replace=(("content-type", value),), end=True)
        assert wire.wait_over(stream).headers[":status"] == "415"
        assert wire.check(1) == 1


def test_no_content_type_gets_415(engine: Start) -> None:
    relay = engine()
    with h2_client.Client(relay.port) as wire:
        stream = wire.open(feeds.METHODS[LOGS], without=("content-type",), end=True)
        assert wire.wait_over(stream).headers[":status"] == "415"


@pytest.mark.parametrize("value", ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"])
def test_the_content_types_of_grpc(engine: Start, value: str) -> None:
    relay = engine()
    with h2_client.Client(relay.port) as wire:
        stream = wire.open(feeds.HEALTH_CHECK, replace=(("content-type", value),))
        wire.data(stream, events.frame(events.nonce(3)), end=True)
        over = wire.wait_over(stream)
        assert (over.status, over.messages) == ((0, ""), [events.nonce(3)])


@pytest.mark.parametrize("method", ["GET", "PUT", "OPTIONS"])
def test_other_http_methods_get_405(engine: Start, method: str) -> None:
    relay = engine()
    with h2_client.Client(relay.port) as wire:
        stream = wire.open(feeds.METHODS[LOGS], replace=((":method", method),), end=True)
        assert wire.wait_over(stream).headers[":status"] == "405"
        assert wire.check(1) == 1


@pytest.mark.parametrize("path", [*feeds.METHODS, feeds.HEALTH_CHECK])
@pytest.mark.parametrize(
    "message",
    [b"\x0a\x05all", b"\x0a", b"\x80", b"\x08\xff", b"\x02\x00"],
    ids=["length", "no length", "tag", "varint", "field 0"],
)
def test_malformed_requests(engine: Start, path: str, message: bytes) -> None:
    relay = engine()
    with h2_client.Client(relay.port) as wire:
        assert wire.wait_over(wire.call(path, message)).status[0] == 13
        assert wire.check(1) == 1


@each_feed
def test_a_filter_that_is_no_utf8(engine: Start, feed: int) -> None:
    relay = engine()
    with h2_client.Client(relay.port) as wire:
        assert wire.wait_over(wire.call(feeds.METHODS[feed], events.field(1, b"\xff"))).status[0] in (3, 13)


@each_feed
def test_unknown_fields_of_a_request_are_skipped(engine: Start, feed: int) -> None:
    relay = engine()
    with h2_client.Client(relay.port) as wire:
        stream = wire.call(feeds.METHODS[feed], events.field(7, b"?") + events.request("all") + b"\x48\x01")
        wire.wait(lambda wire: wire.streams[stream].headers, "headers")
        sent = events.events(feed, 2)
        relay.publish(feed, *sent)
        assert wire.wait_messages(stream, 2) == sent


@pytest.mark.parametrize("path", [*feeds.METHODS, feeds.HEALTH_CHECK])
@pytest.mark.parametrize("size", [1001, 70_000, 0xFFFFFFFF])
def test_oversize_requests(engine: Start, path: str, size: int) -> None:
    """The announced length is enough to refuse it."""
    relay = engine(max_request_bytes=1000)
    with h2_client.Client(relay.port) as wire:
        stream = wire.open(path)
        wire.data(stream, b"\0" + size.to_bytes(4) + b"x" * 100)
        wire.wait(lambda wire: wire.streams[stream].over, "answer")
        assert wire.streams[stream].status[0] == 8
        assert wire.check(1) == 1
        assert relay.counters()["process"]["limits"]["request"] == 1


def test_a_request_at_the_limit(engine: Start) -> None:
    relay = engine(max_request_bytes=1000)
    with h2_client.Client(relay.port) as wire:
        message = events.nonce(3) + events.field(9, b"x" * 995)
        assert len(message) == 1000
        over = wire.wait_over(wire.call(feeds.HEALTH_CHECK, message))
        assert over.messages == [events.nonce(3)]


# gRPC's table of status codes has UNIMPLEMENTED for a wrong number of request messages; grpc-go says INTERNAL.
CARDINALITY = (12, 13)


@pytest.mark.parametrize("path", [*feeds.METHODS, feeds.HEALTH_CHECK])
def test_a_request_without_a_message(engine: Start, path: str) -> None:
    relay = engine()
    with h2_client.Client(relay.port) as wire:
        assert wire.wait_over(wire.open_and_end(path)).status[0] in CARDINALITY
        assert wire.wait_over(wire.call(path)).status[0] in CARDINALITY
        assert wire.check(1) == 1


@pytest.mark.parametrize("path", [*feeds.METHODS, feeds.HEALTH_CHECK])
def test_a_request_with_two_messages(engine: Start, path: str) -> None:
    relay = engine()
    with h2_client.Client(relay.port) as wire:
        assert wire.wait_over(wire.call(path, b"", b"")).status[0] in CARDINALITY
        assert wire.check(1) == 1


@pytest.mark.parametrize("path", [*feeds.METHODS, feeds.HEALTH_CHECK])
@pytest.mark.parametrize("half", [b"\0", b"\0\0\0\0\x04", b"\0\0\0\0\x04\x0a\x02"], ids=["flag", "prefix", "part"])
def test_a_request_that_ends_in_the_middle(engine: Start, path: str, half: bytes) -> None:
    relay = engine()
    with h2_client.Client(relay.port) as wire:
        stream = wire.open(path)
        wire.data(stream, half, end=True)
        assert wire.wait_over(stream).status[0] in (3, 12, 13)
        assert wire.check(1) == 1


@pytest.mark.parametrize("path", [*feeds.METHODS, feeds.HEALTH_CHECK])
@pytest.mark.parametrize(("encoding", "codes"), [("gzip", (12,)), ("identity", (12, 13)), ("", (12, 13))])
def test_compressed_requests(engine: Start, path: str, encoding: str, codes: tuple[int, ...]) -> None:
    relay = engine()
    with h2_client.Client(relay.port) as wire:
        stream = wire.open(path, (("grpc-encoding", encoding),) if encoding else ())
        wire.data(stream, events.frame(b"whatever it is", flag=1), end=True)
        assert wire.wait_over(stream).status[0] in codes
        assert wire.check(1) == 1


@pytest.mark.parametrize("encoding", ["identity", ""])
def test_an_uncompressed_message_of_a_client_that_could_compress(engine: Start, encoding: str) -> None:
    relay = engine()
    with h2_client.Client(relay.port) as wire:
        extra = (("grpc-accept-encoding", "gzip,identity"), *((("grpc-encoding", encoding),) if encoding else ()))
        over = wire.wait_over(wire.call(feeds.HEALTH_CHECK, events.nonce(4), extra=extra))
        assert (over.status[0], over.messages) == (0, [events.nonce(4)])


# Requests in pieces -------------------------------------------------------------------------------


@pytest.mark.parametrize("segment", [0, 1, 5])
@pytest.mark.parametrize("size", [0, 1, 3])
@pytest.mark.parametrize("pad", [None, 0, 9])
def test_requests_in_pieces(engine: Start, segment: int, size: int, pad: int | None) -> None:
    relay = engine()
    with h2_client.Client(relay.port, segment=segment) as wire:
        stream = wire.open(feeds.METHODS[LOGS])
        wire.data(stream, events.frame(events.request("system")), size=size, pad=pad, end=True)
        wire.wait(lambda wire: wire.streams[stream].headers, "headers")
        sent = events.events(LOGS, 2)
        relay.publish(LOGS, *sent)
        assert wire.wait_messages(stream, 2) == sent
        assert wire.check(-7) == -7


def test_headers_in_continuation_frames(engine: Start) -> None:
    relay = engine()
    with h2_client.Client(relay.port) as wire:
        stream = wire.open_anyhow(feeds.HEALTH_CHECK, pieces=5)
        wire.data_frame(stream, events.frame(events.nonce(6)), "END_STREAM")
        over = wire.wait_over(stream)
        assert (over.status, over.messages) == ((0, ""), [events.nonce(6)])


def test_a_late_half_close(engine: Start) -> None:
    """The end of the request may come long after its message."""
    relay = engine()
    with h2_client.Client(relay.port) as wire:
        check, watch = wire.open(feeds.HEALTH_CHECK), wire.open(feeds.METHODS[LOGS])
        wire.data(check, events.frame(events.nonce(8)))
        wire.data(watch, events.frame(events.request()))
        assert wire.check(1) == 1
        for stream in (check, watch):
            if not wire.streams[stream].over:
                wire.data(stream, b"", end=True)
        wire.wait(lambda wire: wire.streams[watch].headers, "headers")
        over = wire.wait_over(check)
        assert (over.status[0], over.messages) == (0, [events.nonce(8)])
        sent = events.events(LOGS, 2)
        relay.publish(LOGS, *sent)
        assert wire.wait_messages(watch, 2) == sent


def test_a_message_after_the_stream_began(engine: Start) -> None:
    """What a client says after its request costs at most its stream."""
    relay = engine()
    with h2_client.Client(relay.port) as wire:
        stream = wire.open(feeds.METHODS[LOGS])
        wire.data(stream, events.frame(events.request()))
        assert wire.check(1) == 1
        wire.data_frame(stream, events.frame(events.request()) * 3)
        assert wire.check(2) == 2


# Deadlines ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", ["1n", "0S", "200000u", "200m", "00000200m"])
def test_a_deadline_that_passes(engine: Start, timeout: str) -> None:
    relay = engine()
    with h2_client.Client(relay.port) as wire:
        stream = wire.call(feeds.METHODS[LOGS], events.request(), extra=(("grpc-timeout", timeout),))
        assert wire.wait_over(stream).status[0] == 4
        assert wire.check(1) == 1


def test_events_come_until_the_deadline(engine: Start) -> None:
    relay = engine()
    with client.channel(relay.port) as channel:
        subscriber = client.Subscriber(channel, LOGS, timeout=1).ready()
        sent = events.events(LOGS, 3)
        relay.publish(LOGS, *sent)
        assert subscriber.take(3) == sent
        assert subscriber.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("timeout", ["1H", "99999999H", "5M", "100S"])
def test_a_deadline_that_does_not_pass(engine: Start, timeout: str) -> None:
    relay = engine()
    with h2_client.Client(relay.port) as wire:
        stream = wire.call(feeds.METHODS[LOGS], events.request(), extra=(("grpc-timeout", timeout),))
        sent = events.events(LOGS, 2)
        wire.wait(lambda wire: wire.streams[stream].headers, "headers")
        relay.publish(LOGS, *sent)
        assert wire.wait_messages(stream, 2) == sent


@pytest.mark.parametrize("timeout", ["", "5", "S", "5x", "-5S", "123456789S", "1.5S"])
def test_a_deadline_that_is_none(engine: Start, timeout: str) -> None:
    """The gRPC specification allows at most eight digits and one of six units."""
    relay = engine()
    with h2_client.Client(relay.port) as wire:
        stream = wire.call(feeds.HEALTH_CHECK, events.nonce(1), extra=(("grpc-timeout", timeout),))
        over = wire.wait_over(stream)
        assert over.headers[":status"] == "400" or over.status[0] in (3, 13), over
        assert wire.check(1) == 1


# Limits -------------------------------------------------------------------------------------------


def test_streams_beyond_the_limit_are_refused(engine: Start) -> None:
    """RFC 9113, 5.1.2: an error of the stream; the library makes it one of the connection, as 5.4.2 lets it."""
    relay = engine(max_streams=2)
    with h2_client.Client(relay.port) as wire, h2_client.Client(relay.port) as other:
        streams = [wire.watch(LOGS) for _ in range(2)]
        staying = other.watch(LOGS)
        assert wire.h2.remote_settings.max_concurrent_streams == 2
        third = wire.open_anyhow(feeds.METHODS[LOGS])
        wire.wait(lambda wire: wire.streams[third].over or wire.goaway, "refusal")
        sent = events.events(LOGS, 2)
        relay.publish(LOGS, *sent)
        assert other.wait_messages(staying, 2) == sent
        if not wire.goaway:
            assert wire.streams[third].reset == 7 or wire.streams[third].status[0] == 8
            assert [wire.wait_messages(stream, 2) for stream in streams] == [sent, sent]


@pytest.mark.tcp_alone
def test_connections_beyond_the_limit_are_closed(engine: Start) -> None:
    relay = engine(max_connections=2)
    with h2_client.Client(relay.port) as first, h2_client.Client(relay.port) as second:
        assert first.check(1) == second.check(1) == 1
        third = h2_client.Client(relay.port)
        third.wait_closed()
        third.close()
        assert first.check(2) == second.check(2) == 2
        assert relay.counters()["process"]["limits"]["connections"] == 1
    relay.wait_counters(lambda now: now["process"]["clients"] == 0, "the end of both")
    with h2_client.Client(relay.port) as wire:
        assert wire.check(3) == 3


def test_headers_beyond_the_limit(engine: Start) -> None:
    relay = engine(max_header_bytes=4096)
    with h2_client.Client(relay.port) as wire, h2_client.Client(relay.port) as other:
        assert wire.check(1) == 1
        assert wire.h2.remote_settings.max_header_list_size == 4096
        stream = wire.open(feeds.HEALTH_CHECK, tuple((f"x-{number}", "y" * 100) for number in range(200)), end=True)
        wire.wait(lambda wire: wire.streams[stream].over or wire.goaway, "refusal")
        over = wire.streams[stream]
        assert wire.goaway or over.reset is not None or over.headers[":status"] == "431" or over.status[0] == 8
        assert other.check(1) == 1
        assert relay.counters()["process"]["limits"]["headers"] == 1


def test_a_preface_must_come_in_time(engine: Start) -> None:
    relay = engine(handshake_timeout=0.3)
    for part in (b"", h2_wire.PREFACE[:10]):
        with h2_client.connect(relay.port) as sock:
            sock.sendall(part)
            sock.settimeout(h2_wire.WAIT)
            while sock.recv(4096):
                pass
    assert relay.counters()["process"]["limits"]["handshake"] == 2


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    ],
    ids=["HTTP/1.1", "TLS", "nearly a preface"],
)
def test_another_protocol_is_refused_at_once(engine: Start, said: bytes) -> None:
    """karmor tries plaintext and TLS in turn: it must not have to wait for a timeout."""
    relay = engine(handshake_timeout=3600.0)
    with h2_client.connect(relay.port) as sock:
        sock.sendall(said)
        sock.settimeout(h2_wire.WAIT)
        with contextlib.suppress(ConnectionResetError):
            while sock.recv(4096):
                pass
    relay.wait_counters(lambda now: now["process"]["clients"] == 0, "the end of the connection")


def test_a_connection_without_a_stream_is_ended(engine: Start) -> None:
    relay = engine(idle_timeout=0.4)
    with h2_client.Client(relay.port) as busy, h2_client.Client(relay.port) as idle:
        stream = busy.watch(LOGS)
        assert idle.check(1) == 1
        idle.wait_closed()
        assert idle.goaway is not None
        assert idle.goaway[0] == 0
        sent = events.events(LOGS, 2)
        relay.publish(LOGS, *sent)
        assert busy.wait_messages(stream, 2) == sent
        assert relay.counters()["process"]["limits"]["idle"] == 1


def flood_pings(wire: h2_client.Client, count: int) -> None:
    for _ in range(count):
        wire.ping()


def flood_settings(wire: h2_client.Client, count: int) -> None:
    for _ in range(count):
        wire.send_frame(SettingsFrame(settings={}))


def flood_resets(wire: h2_client.Client, count: int) -> None:
    for _ in range(count):
        stream = wire.open_anyhow(feeds.METHODS[LOGS])
        wire.reset_quietly(stream)


def flood_empty(wire: h2_client.Client, count: int) -> None:
    stream = wire.open(feeds.METHODS[LOGS])
    for _ in range(count):
        wire.send_frame(DataFrame(stream, data=b""))


FLOODS = {"pings": flood_pings, "settings": flood_settings, "resets": flood_resets, "empty frames": flood_empty}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
def test_a_flood_of_control_frames_ends_the_connection(
    engine: Start, flood: Callable[[h2_client.Client, int], None]
) -> None:
    relay = engine(max_controls=50)
    with h2_client.Client(relay.port) as other:
        wire = h2_client.Client(relay.port)
        assert wire.check(1) == 1
        with contextlib.suppress(OSError):  # it is cut off in the middle, as it should be
            flood(wire, 500)
        wire.wait_closed()
        assert wire.goaway is None or wire.goaway[0] == 11
        wire.close()
        assert other.check(1) == 1
        relay.wait_counters(lambda now: now["process"]["limits"]["controls"] == 1, "the count")


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
def test_control_frames_below_the_limit_are_no_offence(
    engine: Start, flood: Callable[[h2_client.Client, int], None]
) -> None:
    relay = engine(max_controls=6000, max_streams=1000)
    with h2_client.Client(relay.port) as wire:
        flood(wire, 200)
        assert wire.check(1) == 1
        assert wire.goaway is None


# Signs of life ------------------------------------------------------------------------------------


def test_a_silent_subscriber_is_pinged_and_lives_when_it_answers(engine: Start) -> None:
    relay = engine(ping_after=0.1, ping_timeout=0.3)
    with h2_client.Client(relay.port) as wire:
        stream = wire.watch(LOGS)
        wire.wait(lambda wire: len(wire.pings) >= 6, "pings")
        sent = events.events(LOGS, 2)
        relay.publish(LOGS, *sent)
        assert wire.wait_messages(stream, 2) == sent


def test_a_subscriber_that_does_not_answer_a_ping_is_cut_off(engine: Start) -> None:
    relay = engine(ping_after=0.1, ping_timeout=0.3)
    with h2_client.Client(relay.port) as wire:
        wire.watch(LOGS)
        wire.answer = False
        wire.wait_closed()
        assert len(wire.pings) >= 1
        relay.wait_report(SUBSCRIBER, what=ENDED)
        assert relay.counters()["process"]["limits"]["keepalive"] == 1


def test_a_closed_window_is_no_reason_to_be_cut_off(engine: Start) -> None:
    relay = engine(ping_after=0.1, ping_timeout=0.3)
    with h2_client.Client(relay.port, settings={"initial_window_size": 0}) as wire:
        stream = wire.watch(LOGS)
        sent = events.events(LOGS, 2)
        relay.publish(LOGS, *sent)
        wire.wait(lambda wire: len(wire.pings) >= 6, "pings")
        assert wire.streams[stream].data == b""
        wire.window(100_000, stream)
        assert wire.wait_messages(stream, 2) == sent


def test_a_socket_that_is_never_read_is_cut_off(engine: Start) -> None:
    relay = engine(ping_after=0.1, ping_timeout=0.5)
    wire = h2_client.Client(relay.port, read=False, receive_buffer=4096, settings={"initial_window_size": 1 << 30})
    wire.window(1 << 30)
    wire.call(feeds.METHODS[LOGS], events.request())
    relay.wait_report(SUBSCRIBER, what=STARTED)
    relay.publish(LOGS, *events.events(LOGS, 20, 100_000))
    relay.wait_report(SUBSCRIBER, what=ENDED)
    relay.wait_counters(lambda now: now["process"]["clients"] == 0, "the end of the connection")
    wire.close()


@pytest.mark.tcp_alone
def test_an_ipv6_client(engine: Start) -> None:
    relay = engine()
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        port = listener.getsockname()[1]
        relay.native.listen(listener.fileno())
    with grpc.insecure_channel(f"[::1]:{port}") as channel:
        assert client.check(channel, 5) == 5
        with client.Subscriber(channel, LOGS).ready():
            assert relay.wait_report(SUBSCRIBER, what=STARTED).peer.startswith("[::1]:")
