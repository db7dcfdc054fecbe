"""Events over TLS: cut anywhere, broken off anywhere, and the end said. (The tests of delivery run over TLS, too.)"""

import socket
from collections.abc import Callable

import pytest
from peers import client, events, h2_client, h2_node
from peers.crowd import request
from peers.engine import WAIT, Engine, Sink
from peers.events import LOGS
from peers.tls_door import Door
from peers.trust import PREFACE, trust

from relay import _fastpath

Start = Callable[..., Engine]
MIB = 1 << 20
UNAVAILABLE = 14


def door(relay: Engine, **ways: int) -> Door:
    """A way to a relay for clients that do not speak TLS."""
    return Door(relay.port, trust().context(server=False), **ways)


@pytest.mark.parametrize("piece", [1, 2, 5, 1000])
def test_what_a_client_says_may_come_in_pieces(engine: Start, piece: int) -> None:
    """From the first byte of the handshake on."""
    relay = engine(tls=trust())
    with door(relay, piece=piece) as way, h2_client.Client(way.port) as wire:
        stream = wire.watch(LOGS)
        sent = events.events(LOGS, 20, 900)
        relay.publish(LOGS, *sent)
        assert wire.wait_messages(stream, 20) == sent
        assert wire.check(5) == 5


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_what_a_node_says_may_come_in_pieces(engine: Start, piece: int) -> None:
    relay = engine(tls=trust())
    context = trust().context(server=True)
    with h2_node.Node() as peer, Door(peer.port, context, secure_outside=True, piece=piece) as way:
        number = relay.next_node()
        relay.native.add_node(number)
        relay.native.connect_node(number, "127.0.0.1", way.port)
        wire = peer.accept()
        with Sink(relay, LOGS) as sink:
            sent = events.events(LOGS, 20, 900)
            wire.say(LOGS, events.frames(sent), size=100)
            assert sink.take(20) == sent


def test_large_events(engine: Start) -> None:
    """As large as they may be, from a node to a subscriber."""
    relay = engine(tls=trust(), doors=True)
    sent = [events.event(LOGS, number, 4 * MIB) for number in range(3)]
    with (
        h2_node.Node() as peer,
        client.channel(relay.port) as channel,
        client.Subscriber(channel, LOGS).ready() as reader,
    ):
        relay.add(peer)
        peer.accept().say(LOGS, events.frames(sent))
        assert reader.take(3) == sent


def test_the_end_is_said(engine: Start) -> None:
    """By close_notify after the last trailers: nobody takes a connection that was cut for it (RFC 8446, 6.1)."""
    relay = engine(tls=trust())
    with door(relay) as way, h2_client.Client(way.port) as wire:
        stream = wire.watch(LOGS)
        relay.shutdown()
        assert wire.wait_over(stream).status[0] == UNAVAILABLE
        wire.wait_closed()
        wire.close()
        way.passages[0].join()
        assert (way.passages[0].notified, way.passages[0].error) == (True, "")


def test_a_client_that_says_its_end_is_let_go(engine: Start) -> None:
    relay = engine(tls=trust())
    with door(relay) as way:
        with h2_client.Client(way.port) as wire:
            wire.watch(LOGS)
        relay.wait_counters(lambda now: now["process"]["clients"] == 0, "the end of the connection")
    assert relay.counters()["process"]["limits"]["tls"] == 0


@pytest.mark.parametrize("how", ["reset", "end of file"])
@pytest.mark.parametrize("said", [1, 4, 5, 20])
def test_a_client_that_goes_in_the_middle_of_a_record(engine: Start, how: str, said: int) -> None:
    """It is missed at once, not when it leaves a ping unanswered."""
    relay = engine(tls=trust(), ping_after=WAIT)
    context = trust().context(server=False)
    with client.channel(relay.port, trust().channel()) as channel:
        other = client.Subscriber(channel, LOGS).ready()
        sock = h2_client.connect(relay.port)
        with context.wrap_socket(sock, server_hostname="127.0.0.1") as secure:
            secure.sendall(PREFACE)
            assert secure.recv(9)
            # Of a record of 100 bytes, past OpenSSL.
            socket.socket.send(secure, (b"\x17\x03\x03\0\x64" + bytes(100))[:said])
            if how == "reset":
                secure.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        relay.wait_counters(lambda now: now["process"]["clients"] == 1, "the end of the connection")
        sent = events.events(LOGS, 5)
        relay.publish(LOGS, *sent)
        assert other.take(5) == sent


def test_a_record_that_nobody_has_encrypted(engine: Start) -> None:
    """It ends the connection, and nothing of it is looked at."""
    relay = engine(tls=trust())
    context = trust().context(server=False)
    with context.wrap_socket(h2_client.connect(relay.port), server_hostname="127.0.0.1") as secure:
        secure.sendall(PREFACE)
        assert secure.recv(9)
        socket.socket.send(secure, b"\x17\x03\x03\0\x64" + bytes(100))
        relay.wait_counters(lambda now: now["process"]["clients"] == 0, "the end of the connection")


def test_a_node_that_goes_in_the_middle_of_a_record(engine: Start) -> None:
    relay = engine(tls=trust(), node_silence=2 * WAIT, check_timeout=2 * WAIT)
    with h2_node.Node() as peer:
        number = relay.add(peer)
        with trust().context(server=True).wrap_socket(peer.accept_socket(), server_side=True) as secure:
            assert secure.recv(24)
            socket.socket.send(secure, b"\x17\x03\x03\0\x64abc")
        assert relay.wait_failure(number).text


def test_a_client_that_reads_nothing_at_all(engine: Start) -> None:
    """Not even its session tickets: what it does not read is counted as lost, and the relay's memory is bounded."""
    relay = engine(tls=trust(), journal_bytes=MIB, max_event_bytes=100_000)
    context = trust().context(server=False)
    sock = h2_client.connect(relay.port, 4096)
    with context.wrap_socket(sock, server_hostname="127.0.0.1") as secure:
        secure.sendall(request(LOGS, 1 << 30))
        relay.wait_subscribers(1)
        sent = 400
        for number in range(sent):
            relay.publish(LOGS, events.event(LOGS, number, 50_000))
        relay.wait_report(_fastpath.REPORT_SUBSCRIBER, what=_fastpath.SUBSCRIBER_LOSING)
        (slow,) = relay.subscribers()
        assert slow["lost"] > 0
        assert slow["delivered"] + slow["lost"] + slow["in_flight"] == slow["passed"]
        assert slow["passed"] + slow["behind"] == sent
