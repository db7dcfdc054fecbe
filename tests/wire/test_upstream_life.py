"""The life of a node's connection and of its three streams: how each can fail, and what is said and done then."""

import socket
import threading
from collections.abc import Callable

import grpc
import pytest
from hyperframe.frame import RstStreamFrame
from peers import events, h2_node, h2_wire, node
from peers.engine import At, Engine, Sink
from peers.go_peers import GoClient, GoNode

from relay import _fastpath, feeds

pytestmark = pytest.mark.both_transports

Start = Callable[..., Engine]
LOGS, ALERTS, MESSAGES = events.LOGS, events.ALERTS, events.MESSAGES
STREAM = _fastpath.REPORT_STREAM


# Connecting -----------------------------------------------------------------------------------


def test_all_three_feeds_share_one_connection(engine: Start, go_node: GoNode) -> None:
    relay, peer = engine(), go_node("-send", "messages,alerts,logs", "-count", "10")
    relay.connect(At(peer.ports[0]))
    for feed in events.FEEDS:
        relay.wait_received(feed, 10)
    said = peer.stop()
    assert (said["connections"], said["streams"], said["checks"]) == (1, 3, 1)


def test_each_feed_is_asked_for_with_its_filter(engine: Start) -> None:
    relay = engine()
    with node.Node() as peer:
        relay.connect(peer)
        for feed in events.FEEDS:
            peer.wait_open(feed)
        assert peer.filters == {MESSAGES: ["all"], ALERTS: ["policy"], LOGS: ["system"]}
        assert len(peer.checks) == 1


@pytest.mark.tcp_alone
def test_requests_are_those_of_grpc_and_offer_no_compression(engine: Start) -> None:
    """gRPC over HTTP2, "Requests": who sends no grpc-accept-encoding is sent no compressed message."""
    relay = engine()
    with h2_node.Node() as peer:
        relay.add(peer)
        wire = peer.accept()
        asked = {feeds.METHODS[feed]: wire.stream(feed) for feed in events.FEEDS}
        (check,) = wire.streams.keys() - asked.values()
        for path, number in {**asked, feeds.HEALTH_CHECK: check}.items():
            assert wire.streams[number].headers == {
                ":method": "POST",
                ":scheme": "http",
                ":path": path,
                ":authority": f"127.0.0.1:{peer.port}",
                "content-type": "application/grpc",
                "te": "trailers",
                "user-agent": "kubearmor-relay",
            }


def test_the_filters_can_be_chosen(engine: Start) -> None:
    relay = engine()
    with node.Node() as peer:
        relay.native.add_node(5, 7, ("", "all", "all"))
        relay.reach(5, peer.port)
        for feed in events.FEEDS:
            peer.wait_open(feed)
        assert peer.filters == {MESSAGES: [""], ALERTS: ["all"], LOGS: ["all"]}


@pytest.mark.parametrize("feed", events.FEEDS)
def test_a_single_feed_can_be_asked_for(engine: Start, feed: int) -> None:
    relay = engine()
    with node.Node() as peer, Sink(relay, feed) as sink:
        relay.connect(peer, feeds=1 << feed)
        sent = events.events(feed, 3)
        peer.send(feed, *sent)
        assert sink.take(3) == sent
        assert [len(peer.filters[each]) for each in events.FEEDS] == [int(each == feed) for each in events.FEEDS]


def test_each_check_has_its_own_nonce(engine: Start) -> None:
    relay = engine()
    with node.Node(threads=32) as peer:
        for _ in range(5):
            relay.connect(peer)
        assert len(set(peer.checks)) == 5


def test_a_node_at_an_ipv6_address(engine: Start) -> None:
    relay = engine()
    with h2_node.Node("::1") as peer, Sink(relay, LOGS) as sink:
        relay.add(peer, address="::1")
        sent = events.events(LOGS, 2)
        peer.accept().say(LOGS, events.frames(sent))
        assert sink.take(2) == sent


def test_the_states_of_a_node_on_its_way(engine: Start) -> None:
    relay = engine()
    with h2_node.Node() as peer:
        number = relay.add(peer)
        wire = peer.accept(checks=False)
        relay.wait_state(number, _fastpath.NODE_CHECKING)
        wire.wait(lambda wire: wire.streams and wire.streams[1].ended, "HealthCheck")
        check = wire.streams[1]
        wire.headers(1, h2_node.RESPONSE)
        wire.data(1, events.frames(check.messages))
        assert relay.node(number)["state"] == _fastpath.NODE_CHECKING
        wire.headers(1, h2_node.OK_TRAILERS, end=True)
        relay.wait_state(number, _fastpath.NODE_STREAMING)
        assert check.headers[":path"] == "/feeder.LogService/HealthCheck"
        assert check.headers["content-type"].startswith("application/grpc")
        assert check.headers["te"] == "trailers"


def test_a_request_keeps_to_the_nodes_window(engine: Start) -> None:
    """A node that leaves new streams a window of one byte gets the requests byte by byte, as it reopens it."""
    relay = engine()
    with h2_node.Node() as peer:
        number = relay.add(peer)
        wire = peer.accept(checks=False)
        wire.wait(lambda wire: wire.streams and wire.streams[1].ended, "HealthCheck")
        # SETTINGS count from their acknowledgement on, so the check, which may be ahead of them, is held until then.
        acknowledged = wire.settings_acknowledged
        wire.change(initial_window_size=1)
        wire.wait(lambda wire: wire.settings_acknowledged > acknowledged, "acknowledged SETTINGS")
        wire.answer_check(1)
        relay.wait_state(number, _fastpath.NODE_STREAMING)
        assert [wire.filter(feed) for feed in events.FEEDS] == ["all", "policy", "system"]
        assert set(wire.streams[wire.stream(LOGS)].pieces) <= {0, 1}


@pytest.mark.tcp_alone
def test_nobody_listens(engine: Start) -> None:
    relay = engine()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    failed = relay.wait_failure(relay.add(At(port)))
    assert (failed.code, "refused" in failed.text) == (14, True), failed


def test_nobody_accepts(engine: Start) -> None:
    """A full backlog: the connection is never made."""
    relay = engine(connect_timeout=0.3)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        failed = relay.wait_failure(relay.add(At(port)))
        for filler in fillers:
            filler.close()
    assert failed.code == 4, failed


def test_a_node_that_accepts_and_says_nothing(engine: Start) -> None:
    relay = engine(check_timeout=0.3)
    with h2_node.Node() as peer:
        failed = relay.wait_failure(relay.add(peer))
        assert failed.code == 4, failed


@pytest.mark.parametrize("said", [b"\0", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01\0\x02\x02\x46", bytes(9)])
def test_a_node_that_speaks_something_else(engine: Start, said: bytes) -> None:
    relay = engine(check_timeout=0.5)
    with h2_node.Node() as peer:
        number = relay.add(peer)
        sock = peer.accept_socket()
        sock.sendall(said)
        assert relay.wait_failure(number).code in (4, 13, 14)
        sock.close()


def test_a_node_that_leaves_the_check_unanswered(engine: Start) -> None:
    relay = engine(check_timeout=0.3)
    with node.Node(answers=False) as peer:
        failed = relay.wait_failure(relay.add(peer))
        assert failed.code == 4, failed


def test_a_node_that_answers_with_another_nonce(engine: Start) -> None:
    relay = engine()
    with node.Node(nonce_offset=1) as peer:
        number = relay.add(peer)
        failed = relay.wait_failure(number)
        assert "nonce" in failed.text, failed
        relay.reach(number, peer.port)
        relay.wait_report(_fastpath.REPORT_NODE, 2, node=number, state=_fastpath.NODE_IDLE)
        # The same failure has the same text, or else the log would tell of each try.
        assert relay.wait_failure(number).text == failed.text
        assert all(not asked for asked in peer.filters.values()) or not any(peer.open.values())


@pytest.mark.parametrize("body", [b"", b"<html>"], ids=["nothing", "a page"])
def test_a_server_that_answers_the_check_without_a_status_is_no_node(engine: Start, body: bytes) -> None:
    relay = engine()
    with h2_node.Node() as peer:
        number = relay.add(peer)
        wire = peer.accept(checks=False)
        wire.wait(lambda wire: wire.streams and wire.streams[1].ended, "HealthCheck")
        wire.headers(1, [(":status", "200"), ("content-type", "text/html")])
        wire.data(1, body, end=True)
        failed = relay.wait_failure(number)
        assert (failed.code, failed.text) == (13, "HealthCheck ended without a gRPC status")


def test_a_node_that_refuses_the_check(engine: Start) -> None:
    relay = engine()
    with h2_node.Node() as peer:
        number = relay.add(peer)
        wire = peer.accept(checks=False)
        wire.wait(lambda wire: wire.streams and wire.streams[1].ended, "HealthCheck")
        wire.headers(1, [*h2_node.RESPONSE, ("grpc-status", "7"), ("grpc-message", "not you")], end=True)
        failed = relay.wait_failure(number)
        assert (failed.code, "not you" in failed.text) == (7, True), failed


def test_a_failed_node_can_be_connected_again(engine: Start) -> None:
    relay = engine()
    with node.Node() as peer:
        number = relay.connect(peer)
        port = peer.port
    relay.wait_failure(number)
    with node.Node(port=port) as peer, Sink(relay, LOGS) as sink:
        relay.reach(number, port)
        relay.wait_state(number, _fastpath.NODE_STREAMING)
        sent = events.events(LOGS, 2)
        peer.send(LOGS, *sent)
        assert sink.take(2) == sent
        assert relay.node(number)["connects"] == 2


# Streams that end -------------------------------------------------------------------------------


def test_a_feed_that_ends_with_an_error(engine: Start) -> None:
    relay = engine()
    with node.Node() as peer, Sink(relay, ALERTS) as alerts, Sink(relay, LOGS) as logs:
        number = relay.connect(peer)
        sent = events.events(ALERTS, 2)
        peer.send(ALERTS, *sent)
        peer.end(ALERTS, grpc.StatusCode.RESOURCE_EXHAUSTED, "too much, zu viel, 多すぎる")
        ended = relay.wait_report(STREAM, node=number, feed=ALERTS)
        assert (ended.code, ended.text) == (8, "too much, zu viel, 多すぎる")
        assert alerts.take(2) == sent
        others = events.events(LOGS, 2)
        peer.send(LOGS, *others)
        assert logs.take(2) == others
        assert len(relay.reports(STREAM)) == 1


@pytest.mark.parametrize("feed", events.FEEDS)
def test_a_feed_that_ends_with_ok_can_be_opened_again(engine: Start, feed: int) -> None:
    relay = engine()
    with node.Node() as peer, Sink(relay, feed) as sink:
        number = relay.connect(peer)
        sent = events.events(feed, 6)
        for time in range(3):
            peer.wait_open(feed, time + 1)
            peer.send(feed, *sent[2 * time : 2 * time + 2])
            peer.end(feed)
            ended = relay.wait_report(STREAM, time + 1, node=number, feed=feed)
            assert ended.code == 0
            relay.native.open_stream(number, feed)
        assert sink.take(6) == sent
        assert [len(peer.filters[each]) for each in events.FEEDS if each != feed] == [1, 1]


def test_an_open_feed_is_not_opened_twice(engine: Start) -> None:
    relay = engine()
    with node.Node() as peer, Sink(relay, LOGS) as sink:
        number = relay.connect(peer)
        peer.wait_open(LOGS)
        relay.native.open_stream(number, LOGS)
        sent = events.events(LOGS, 2)
        peer.send(LOGS, *sent)
        assert sink.take(2) == sent
        assert peer.filters[LOGS] == ["system"]


def test_a_node_without_one_of_the_methods_keeps_the_others(engine: Start) -> None:
    relay = engine()
    with node.Node(unimplemented=(ALERTS,)) as peer, Sink(relay, LOGS) as sink:
        number = relay.connect(peer)
        assert relay.wait_report(STREAM, node=number, feed=ALERTS).code == 12
        sent = events.events(LOGS, 2)
        peer.send(LOGS, *sent)
        assert sink.take(2) == sent


ENDS: dict[str, tuple[Callable[[h2_node.NodeConnection, int], None], int]] = {
    "without trailers": (lambda wire, stream: wire.data(stream, b"", end=True), 13),
    "without a status in its trailers": (lambda wire, stream: wire.headers(stream, [("x", "y")], end=True), 13),
    "with a status that is no number": (lambda wire, stream: wire.headers(stream, [("grpc-status", "x")], end=True), 2),
    # gRPC's table of HTTP/2 error codes
    "by RST_STREAM NO_ERROR": (lambda wire, stream: wire.reset(stream, 0), 13),
    "by RST_STREAM INTERNAL_ERROR": (lambda wire, stream: wire.reset(stream, 2), 13),
    "by RST_STREAM REFUSED_STREAM": (lambda wire, stream: wire.reset(stream, 7), 14),
    "by RST_STREAM CANCEL": (lambda wire, stream: wire.reset(stream, 8), 1),
    "by RST_STREAM ENHANCE_YOUR_CALM": (lambda wire, stream: wire.reset(stream, 11), 8),
    "with UNAVAILABLE": (lambda wire, stream: wire.headers(stream, [("grpc-status", "14")], end=True), 14),
}


@pytest.mark.parametrize(("end", "code"), ENDS.values(), ids=ENDS.keys())
@pytest.mark.parametrize(
    "half", [b"", b"\0", b"\0\0\0\0\x09", b"\0\0\0\0\x09abc"], ids=["whole", "flag", "prefix", "part"]
)
def test_how_a_feed_can_end(
    engine: Start, end: Callable[[h2_node.NodeConnection, int], None], code: int, half: bytes
) -> None:
    """In every way a stream ends alone, after whole events and in the middle of one; what was whole is kept."""
    relay = engine()
    with h2_node.Node() as peer, Sink(relay, LOGS) as sink:
        number = relay.add(peer)
        wire = peer.accept()
        sent = events.events(LOGS, 2)
        wire.say(LOGS, events.frames(sent) + half)
        end(wire, wire.stream(LOGS))
        ended = relay.wait_report(STREAM, node=number, feed=LOGS)
        assert ended.code == code or (half and ended.code == 13), ended
        assert sink.take(2) == sent
        assert relay.node(number)["skipped"]["truncated"] == int(len(half) > 0)
        relay.native.open_stream(number, LOGS)
        wire.data(wire.stream(LOGS, 2), events.frames(sent))
        assert sink.take(2) == sent
        assert relay.node(number)["state"] == _fastpath.NODE_STREAMING


ANSWERS = {
    # gRPC's table of HTTP statuses
    "503": ([(":status", "503"), ("content-type", "text/html")], 14, "HTTP status 503"),
    "404": ([(":status", "404")], 12, "HTTP status 404"),
    "a page": ([(":status", "200"), ("content-type", "text/html")], 2, "content type is not application/grpc"),
    "UNIMPLEMENTED": (
        [*h2_node.RESPONSE, ("grpc-status", "12"), ("grpc-message", "no such method")], 12, "no such method",
    ),
    "PERMISSION_DENIED": ([*h2_node.RESPONSE, ("grpc-status", "7")], 7, ""),
}  # fmt: skip
# An answer that is not gRPC may have a body, which the relay does not wait for.
BODIES = [(name, True) for name in ANSWERS] + [(name, False) for name in ("503", "404", "a page")]


@pytest.mark.parametrize(("answer", "end"), BODIES, ids=[f"{name}{'' if end else ' and more'}" for name, end in BODIES])
def test_a_feed_that_is_refused(engine: Start, answer: str, end: bool) -> None:
    """It ends alone, and is told with what the answer says, not with how we then let go of the stream."""
    headers, code, text = ANSWERS[answer]
    relay = engine()
    with h2_node.Node() as peer, Sink(relay, ALERTS) as sink:
        number = relay.add(peer)
        wire = peer.accept(accepts=False)
        wire.headers(wire.stream(LOGS), headers, end=end)
        ended = relay.wait_report(STREAM, node=number, feed=LOGS)
        assert (ended.code, text in ended.text) == (code, True), ended
        wire.headers(wire.stream(ALERTS), h2_node.RESPONSE)
        sent = events.events(ALERTS, 2)
        wire.say(ALERTS, events.frames(sent))
        assert sink.take(2) == sent


# Connections that end -----------------------------------------------------------------------------


def test_events_before_a_goaway_arrive(engine: Start) -> None:
    relay = engine()
    with h2_node.Node() as peer, Sink(relay, LOGS) as sink:
        number = relay.add(peer)
        wire = peer.accept()
        sent = events.events(LOGS, 50)
        wire.say(LOGS, events.frames(sent))
        wire.go_away(11, text=b"too_many_pings")
        wire.close()
        failed = relay.wait_failure(number)
        assert sink.take(50) == sent
        assert failed.code == 14
        assert "too_many_pings" in failed.text, failed


def test_a_stream_may_run_on_after_a_graceful_goaway(engine: Start) -> None:
    """GOAWAY with NO_ERROR forbids new streams only: what follows on the old ones counts, until the node closes."""
    relay = engine()
    with h2_node.Node() as peer, Sink(relay, LOGS) as sink:
        number = relay.add(peer)
        wire = peer.accept()
        before, after = events.events(LOGS, 2), events.events(LOGS, 2, start=2)
        wire.say(LOGS, events.frames(before))
        wire.go_away(0, last=wire.stream(LOGS))
        wire.send(b"")
        wire.say(LOGS, events.frames(after))
        wire.end(LOGS)
        wire.close()
        relay.wait_failure(number)
        assert sink.take(4) == before + after


@pytest.mark.parametrize("how", ["close", "vanish"])
@pytest.mark.parametrize("half", [b"", b"\0\0\0\0\x09abc"], ids=["whole", "part"])
def test_a_connection_that_breaks(engine: Start, how: str, half: bytes) -> None:
    relay = engine()
    with h2_node.Node() as peer, Sink(relay, LOGS) as sink:
        number = relay.add(peer)
        wire = peer.accept()
        sent = events.events(LOGS, 2)
        wire.say(LOGS, events.frames(sent) + half)
        assert sink.take(2) == sent
        getattr(wire, how)()
        assert relay.wait_failure(number).code == 14
        assert relay.node(number)["skipped"]["truncated"] == int(len(half) > 0)


def test_a_node_that_breaks_the_rules_of_http2(engine: Start) -> None:
    relay = engine()
    with h2_node.Node() as peer:
        number = relay.add(peer)
        wire = peer.accept()
        wire.stream(LOGS)
        wire.send_raw_frame(h2_wire.DATA, 0, 0, b"DATA on stream 0")
        assert relay.wait_failure(number).code in (13, 14)
        wire.wait(lambda wire: wire.goaway, "GOAWAY")
        assert wire.goaway is not None
        assert wire.goaway[0] == 1  # PROTOCOL_ERROR


@pytest.mark.parametrize(
    ("stream", "error"), [(2, "even"), (99, "idle"), (0x7FFFFFFF, "last")], ids=["even", "idle", "last"]
)
def test_data_on_a_stream_that_nobody_opened(engine: Start, stream: int, error: str) -> None:
    relay = engine()
    with h2_node.Node() as peer:
        number = relay.add(peer)
        wire = peer.accept()
        wire.stream(LOGS)
        wire.data_frame(stream, events.frame(events.event(LOGS)))
        assert relay.wait_failure(number).code in (13, 14)
        assert relay.feed(LOGS)["received"] == 0


def test_data_on_a_stream_that_was_just_reset_is_no_offence(engine: Start) -> None:
    """The node resets, and what it had under way still arrives: RFC 9113, 5.1, closed."""
    relay = engine()
    with h2_node.Node() as peer, Sink(relay, ALERTS) as sink:
        number = relay.add(peer)
        wire = peer.accept()
        wire.send_frame(RstStreamFrame(wire.stream(LOGS), error_code=8))
        relay.wait_report(STREAM, node=number, feed=LOGS)
        sent = events.events(ALERTS, 2)
        wire.say(ALERTS, events.frames(sent))
        assert sink.take(2) == sent
        assert relay.node(number)["state"] == _fastpath.NODE_STREAMING


# Signs of life ----------------------------------------------------------------------------------------


def test_a_node_that_pinged_and_then_fell_silent_is_dead(engine: Start) -> None:
    """One that never pinged may be silent for as long as it likes."""
    relay = engine(node_silence=0.4)
    with h2_node.Node() as quiet, h2_node.Node() as dying:
        still = relay.add(quiet)
        wire = quiet.accept()
        relay.wait_state(still, _fastpath.NODE_STREAMING)
        number = relay.add(dying)
        dead = dying.accept()
        relay.wait_state(number, _fastpath.NODE_STREAMING)
        dead.ping()
        dead.wait(lambda wire: wire.pongs, "answer to PING")
        failed = relay.wait_failure(number)
        assert failed.code in (4, 14), failed
        assert relay.node(number)["pings"]
        sent = events.events(LOGS, 1)
        with Sink(relay, LOGS, at_head=True) as sink:
            wire.say(LOGS, events.frames(sent))
            assert sink.take(1) == sent
        assert relay.reports(_fastpath.REPORT_NODE, node=still, state=_fastpath.NODE_IDLE) == []


def test_any_byte_is_a_sign_of_life(engine: Start) -> None:
    """A node that goes on pinging lives, for longer than another takes to die three times."""
    relay = engine(node_silence=0.4)
    ended = threading.Event()

    def ping(wire: h2_node.NodeConnection) -> None:
        while not ended.wait(0.05):
            wire.ping()

    with h2_node.Node() as living, h2_node.Node() as dying:
        number = relay.add(living)
        pinging = threading.Thread(target=ping, args=[living.accept()])
        pinging.start()
        try:
            mortal = relay.add(dying)
            for time in range(1, 4):
                dead = dying.accept()
                dead.stream(LOGS)
                dead.ping()
                relay.wait_report(_fastpath.REPORT_NODE, time, node=mortal, state=_fastpath.NODE_IDLE)
                relay.reach(mortal, dying.port)
        finally:
            ended.set()
            pinging.join()
        assert relay.reports(_fastpath.REPORT_NODE, node=number, state=_fastpath.NODE_IDLE) == []


@pytest.mark.tcp_alone
@pytest.mark.slow
def test_idle_nodes_with_the_default_policy_on_pings_keep_their_connection(engine: Start, go_node: GoNode) -> None:
    """A client that pings on a timer gets GOAWAY too_many_pings from KubeArmor at the fourth ping within 5 minutes."""
    relay = engine()
    with node.Node() as peer, Sink(relay, LOGS) as sink:
        idle = go_node("-send", "")
        numbers = [relay.connect(peer), relay.connect(At(idle.ports[0]))]
        # The passing of time is what is tested here. A relay that pings as the Go relay's server does, after 10 s of
        # silence at the latest, would be cut off within 40 s.
        threading.Event().wait(150)
        sent = events.events(LOGS, 1)
        peer.send(LOGS, *sent)
        assert sink.take(1) == sent
        for number in numbers:
            assert relay.node(number)["connects"] == 1
            assert relay.reports(_fastpath.REPORT_NODE, node=number, state=_fastpath.NODE_IDLE) == []
        assert idle.stop()["connections"] == 1


# Removing -------------------------------------------------------------------------------------------------


def test_a_removed_node_is_disconnected_and_what_it_said_is_kept(engine: Start) -> None:
    relay = engine()
    with h2_node.Node() as peer, Sink(relay, LOGS) as sink:
        number = relay.add(peer)
        wire = peer.accept()
        sent = events.events(LOGS, 100)
        wire.say(LOGS, events.frames(sent))
        relay.wait_received(LOGS, 1)
        relay.native.remove_node(number)
        wire.wait_closed()
        assert sink.take(100) == sent
        assert number not in relay.counters()["nodes"]


@pytest.mark.parametrize("state", [_fastpath.NODE_IDLE, _fastpath.NODE_CONNECTING, _fastpath.NODE_CHECKING])
def test_a_node_can_be_removed_in_any_state(engine: Start, state: int) -> None:
    relay = engine()
    with h2_node.Node() as peer:
        relay.native.add_node(3)
        if state != _fastpath.NODE_IDLE:
            relay.reach(3, peer.port)
        if state == _fastpath.NODE_CHECKING:
            peer.accept(checks=False)
            relay.wait_state(3, state)
        relay.native.remove_node(3)
        relay.wait_counters(lambda now: 3 not in now["nodes"], "removal")
        # Its number is free again.
        relay.native.add_node(3)
        with pytest.raises(ValueError, match="3"):
            relay.native.add_node(3)


# Many of them ------------------------------------------------------------------------------------------------


@pytest.mark.paced
def test_the_order_of_each_node_is_kept(engine: Start, go_node: GoNode, go_client: GoClient) -> None:
    """As fast as five grpc-go nodes can send, and read by a grpc-go client: every number once, in order.

    No more than the journal holds, so that nothing is lost on a machine that is busy with other things.
    """
    relay, peers = engine(), go_node("-nodes", "5", "-count", "8000", "-gate")
    for port in peers.ports:
        relay.connect(At(port))
    reader = go_client("-server", f"127.0.0.1:{relay.port}", "-count", "40000")
    reader.wait_subscribed()
    peers.tell()
    said = reader.result()
    assert (said["events"], said["missing"], said["disordered"]) == (40_000, 0, 0)
    assert relay.feed(LOGS)["received"] == 40_000


@pytest.mark.tcp_alone
def test_five_hundred_nodes(engine: Start, go_node: GoNode) -> None:
    relay, peers = engine(), go_node("-nodes", "500", "-count", "20", "-rate", "100")
    numbers = [relay.add(At(port)) for port in peers.ports]
    relay.wait_received(LOGS, 500 * 20)
    counters = relay.counters()["nodes"]
    assert {counters[number]["received"]["logs"] for number in numbers} == {20}
    assert {counters[number]["connects"] for number in numbers} == {1}
