"""The end of the engine: bounded in time, and what could be delivered was (invariant 6 of the design)."""

import contextlib
import socket
from collections.abc import Callable

import grpc
import pytest
from peers import client, events, h2_client, h2_node, node
from peers.engine import At, Engine

from relay import _fastpath, feeds

pytestmark = pytest.mark.both_transports

Start = Callable[..., Engine]
LOGS, ALERTS = events.LOGS, events.ALERTS
SUBSCRIBER = _fastpath.REPORT_SUBSCRIBER
STARTED, ENDED = _fastpath.SUBSCRIBER_STARTED, _fastpath.SUBSCRIBER_ENDED
UNAVAILABLE = 14
REFUSED_STREAM = 7
LONG = 3600.0


def test_an_idle_subscriber_is_told(engine: Start) -> None:
    relay = engine()
    with client.channel(relay.port) as channel:
        subscriber = client.Subscriber(channel, LOGS).ready()
        stopped = relay.shutdown(LONG)
        assert stopped.code == 0
        assert subscriber.code() is grpc.StatusCode.UNAVAILABLE
        assert subscriber.details() != ""


def test_goaway_comes_first_and_trailers_last(engine: Start) -> None:
    relay = engine()
    with h2_client.Client(relay.port) as wire:
        stream = wire.watch(LOGS)
        relay.shutdown(LONG)
        over = wire.wait_over(stream)
        wire.wait_closed()
        assert over.status[0] == UNAVAILABLE
        assert over.status[1] != ""
        assert wire.goaway is not None
        assert wire.goaway[0] == 0


@pytest.mark.parametrize("size", [100, 1000, 100_000])
def test_what_the_journal_holds_is_delivered_first(engine: Start, size: int) -> None:
    relay = engine()
    with client.channel(relay.port) as channel:
        subscribers = [client.Subscriber(channel, LOGS).ready() for _ in range(3)]
        sent = events.events(LOGS, 200, size)
        relay.publish(LOGS, *sent)
        relay.native.shutdown(LONG)
        for subscriber in subscribers:
            assert subscriber.rest() == sent
            assert subscriber.code() is grpc.StatusCode.UNAVAILABLE
            assert subscriber.trailers().get("relay-lost", "0") == "0"
        relay.wait_report(_fastpath.REPORT_STOPPED)


def test_a_subscriber_with_a_closed_window_holds_the_end_up_to_the_deadline(engine: Start) -> None:
    relay = engine()
    with h2_client.Client(relay.port, settings={"initial_window_size": 0}) as wire:
        stream = wire.watch(LOGS)
        relay.publish(LOGS, *events.events(LOGS, 10, 300))
        relay.shutdown(0.3)
        over = wire.wait_over(stream)
        # Trailers need no window, and no message was begun. What it was owed is lost, and it is told.
        assert over.status[0] == UNAVAILABLE
        assert over.trailers["relay-lost"] == "10"
        assert over.data == b""


def test_a_window_that_opens_in_time_gets_everything(engine: Start) -> None:
    relay = engine()
    with h2_client.Client(relay.port, settings={"initial_window_size": 0}) as wire:
        stream = wire.watch(LOGS)
        sent = events.events(LOGS, 10, 300)
        relay.publish(LOGS, *sent)
        relay.native.shutdown(LONG)
        wire.wait(lambda wire: wire.goaway, "GOAWAY")
        wire.window(100_000, stream)
        over = wire.wait_over(stream)
        assert (over.messages, over.status[0]) == (sent, UNAVAILABLE)
        relay.wait_report(_fastpath.REPORT_STOPPED)


@pytest.mark.parametrize("taken", [1, 5, 100, 304])
def test_in_the_middle_of_a_message_the_stream_is_reset(engine: Start, taken: int) -> None:
    """Trailers after half a message would read as INTERNAL, which clients do not retry."""
    relay = engine()
    with h2_client.Client(relay.port, settings={"initial_window_size": taken}, reopen=False) as wire:
        stream = wire.watch(LOGS)
        relay.publish(LOGS, *events.events(LOGS, 10, 300))
        wire.wait(lambda wire: len(wire.streams[stream].data) == taken, "the first part")
        relay.shutdown(0.3)
        over = wire.wait_over(stream)
        assert over.reset == REFUSED_STREAM
        assert over.trailers == {}


def test_a_socket_that_is_never_read_does_not_hold_it_longer(engine: Start) -> None:
    relay = engine()
    wire = h2_client.Client(relay.port, read=False, receive_buffer=4096, settings={"initial_window_size": 1 << 30})
    wire.window(1 << 30)
    wire.call(feeds.METHODS[LOGS], events.request())
    relay.wait_report(SUBSCRIBER, what=STARTED)
    relay.publish(LOGS, *events.events(LOGS, 100, 50_000))
    assert relay.shutdown(0.3) is not None
    assert relay.wait_report(SUBSCRIBER, what=ENDED).code == UNAVAILABLE
    wire.close()


def test_a_second_call_ends_at_once(engine: Start) -> None:
    relay = engine()
    with h2_client.Client(relay.port, settings={"initial_window_size": 0}) as wire:
        wire.watch(LOGS)
        relay.publish(LOGS, *events.events(LOGS, 10, 300))
        relay.native.shutdown(LONG)
        wire.wait(lambda wire: wire.goaway, "GOAWAY")
        assert relay.reports(_fastpath.REPORT_STOPPED) == []
        relay.native.shutdown(0)
        relay.wait_report(_fastpath.REPORT_STOPPED)
        wire.wait_closed()


def test_nobody_is_there(engine: Start) -> None:
    assert engine().shutdown(LONG).code == 0


@pytest.mark.parametrize("said", [b"", b"PRI * HTTP", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
def test_connections_that_have_not_proved_themselves_are_closed(engine: Start, said: bytes) -> None:
    relay = engine()
    with h2_client.connect(relay.port) as sock:
        sock.sendall(said)
        relay.wait_counters(lambda now: now["process"]["clients"] == 1, "the connection")
        relay.shutdown(LONG)
        sock.settimeout(20)
        # With TLS the rest of a handshake may be on its way, and is answered with a reset.
        with contextlib.suppress(ConnectionResetError):
            while sock.recv(4096):
                pass


@pytest.mark.tcp_alone
def test_new_requests_are_refused_while_it_ends(engine: Start) -> None:
    relay = engine()
    with h2_client.Client(relay.port, settings={"initial_window_size": 0}) as wire:
        stream = wire.watch(LOGS)
        relay.publish(LOGS, *events.events(LOGS, 10, 300))
        relay.native.shutdown(LONG)
        wire.wait(lambda wire: wire.goaway, "GOAWAY")
        late = wire.open_anyhow(feeds.METHODS[LOGS])
        wire.round_trip()
        answer = wire.streams[late]
        assert not answer.over or answer.reset == REFUSED_STREAM or answer.status[0] == UNAVAILABLE
        assert answer.data == b""
        wire.window(100_000, stream)
        wire.wait_over(stream)
        relay.wait_report(_fastpath.REPORT_STOPPED)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", relay.port)).close()


def test_nodes_are_disconnected(engine: Start) -> None:
    relay = engine()
    with h2_node.Node() as peer, node.Node() as other:
        relay.add(peer)
        relay.connect(other)
        wire = peer.accept()
        wire.stream(LOGS)
        relay.shutdown(LONG)
        wire.wait_closed()
        other.wait(lambda other: not any(other.open.values()), "the end of the streams")


def test_what_a_node_said_before_is_delivered(engine: Start) -> None:
    relay = engine()
    with h2_node.Node() as peer, client.channel(relay.port) as channel:
        relay.add(peer)
        wire = peer.accept()
        subscriber = client.Subscriber(channel, LOGS).ready()
        sent = events.events(LOGS, 100, 1000)
        wire.say(LOGS, events.frames(sent))
        relay.wait_received(LOGS, 100)
        relay.native.shutdown(LONG)
        assert subscriber.rest() == sent
        relay.wait_report(_fastpath.REPORT_STOPPED)


@pytest.mark.parametrize("state", ["new", "connecting", "checking", "streaming", "subscribed", "blocked", "stopping"])
def test_close_in_every_state(engine: Start, state: str) -> None:
    relay = engine()
    with (
        h2_node.Node() as peer,
        h2_client.Client(relay.port, settings={"initial_window_size": 7}, reopen=False) as wire,
    ):
        if state == "connecting":
            with socket.socket() as full:
                full.bind(("127.0.0.1", 0))
                full.listen(0)
                relay.add(At(full.getsockname()[1]))
        elif state in ("checking", "streaming"):
            relay.add(peer)
            node_wire = peer.accept(checks=state == "streaming")
            if state == "streaming":
                node_wire.say(LOGS, b"\0\0\0\0\x09abc")
        elif state in ("subscribed", "blocked", "stopping"):
            wire.watch(LOGS)
            if state != "subscribed":
                relay.publish(LOGS, *events.events(LOGS, 5))
            if state == "stopping":
                relay.native.shutdown(LONG)
        relay.close()
        relay.native.close()
        wire.wait_closed()


def test_close_before_start() -> None:
    native = _fastpath.Engine()
    native.close()
    native.close()
