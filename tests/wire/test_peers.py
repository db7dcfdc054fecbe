"""The peers against each other: what a test of the relay takes for granted of the other side."""

import grpc
import pytest
from peers import client, events, h2_client, h2_node, node
from peers.go_peers import GoClient, GoNode

from relay import feeds


def test_a_node_echoes_the_nonce() -> None:
    with node.Node() as peer, client.channel(peer.port) as channel:
        assert [client.check(channel, nonce) for nonce in (0, -1, 2**31 - 1)] == [0, -1, 2**31 - 1]
        assert peer.checks == [0, -1, 2**31 - 1]


def test_a_node_can_echo_another_nonce() -> None:
    with node.Node(nonce_offset=1) as peer, client.channel(peer.port) as channel:
        assert client.check(channel, 2**31 - 1) == -(2**31)


def test_a_node_can_leave_a_check_unanswered() -> None:
    with node.Node(answers=False) as peer, client.channel(peer.port) as channel:
        with pytest.raises(grpc.RpcError) as failed:
            client.check(channel, 1, timeout=0.2)
        assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("feed", events.FEEDS)
def test_a_node_plays_its_script(feed: int) -> None:
    sent = events.events(feed, 5)
    with node.Node() as peer, client.channel(peer.port) as channel:
        subscriber = client.Subscriber(channel, feed, "all")
        peer.send(feed, *sent)
        assert subscriber.take(5) == sent
        peer.end(feed, grpc.StatusCode.ABORTED, "as told")
        assert (subscriber.code(), subscriber.details()) == (grpc.StatusCode.ABORTED, "as told")
        assert peer.filters[feed] == ["all"]


def test_a_node_can_lack_a_method() -> None:
    with node.Node(unimplemented=(events.ALERTS,)) as peer, client.channel(peer.port) as channel:
        assert client.Subscriber(channel, events.ALERTS).code() is grpc.StatusCode.UNIMPLEMENTED


def test_what_a_stream_did_not_take_is_left_for_the_next() -> None:
    with node.Node() as peer, client.channel(peer.port) as channel:
        with client.Subscriber(channel, events.LOGS):
            peer.wait_open(events.LOGS)
        peer.wait(lambda peer: peer.open[events.LOGS] == 0)
        sent = events.events(events.LOGS, 2)
        peer.send(events.LOGS, *sent)
        with client.Subscriber(channel, events.LOGS) as subscriber:
            assert subscriber.take(2) == sent


def test_events_have_the_size_asked_for() -> None:
    for feed in events.FEEDS:
        assert len(events.event(feed, 1, 768)) == 768
        assert events.number_of(events.event(feed, 7, 200)) == 7


def test_the_byte_level_client_subscribes_at_a_grpcio_node() -> None:
    sent = events.events(events.LOGS, 3, 700)
    with node.Node() as peer, h2_client.Client(peer.port) as wire:
        assert wire.check(-5) == -5
        # A grpcio server sends its headers with the first event.
        stream = wire.call(feeds.METHODS[events.LOGS], events.request("system"))
        peer.send(events.LOGS, *sent)
        assert wire.wait_messages(stream, 3) == sent
        peer.end(events.LOGS, grpc.StatusCode.ABORTED, "as told")
        assert wire.wait_over(stream).status == (10, "as told")


@pytest.mark.parametrize("segment", [0, 1])
@pytest.mark.parametrize("size", [0, 1, 7])
def test_the_byte_level_node_serves_a_grpcio_client(segment: int, size: int) -> None:
    sent = events.events(events.LOGS, 3)
    with h2_node.Node() as peer, client.channel(peer.port) as channel:
        subscriber = client.Subscriber(channel, events.LOGS, "system")
        wire = peer.accept(segment=segment)
        assert wire.filter(events.LOGS) == "system"
        wire.say(events.LOGS, events.frames(sent), size=size)
        assert subscriber.take(3) == sent
        wire.end(events.LOGS)
        assert subscriber.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("pad", [0, 200])
def test_the_byte_level_node_pads(pad: int) -> None:
    """grpcio does not take padded DATA frames, so the byte-level client reads them."""
    sent = events.events(events.LOGS, 3)
    with h2_node.Node() as peer, h2_client.Client(peer.port) as wire:
        connection = peer.accept()
        stream = wire.watch(events.LOGS)
        connection.say(events.LOGS, events.frames(sent), size=7, pad=pad)
        assert wire.wait_messages(stream, 3) == sent
        assert {(flags, length) for kind, flags, _, length in wire.frames if kind == 0} >= {(8, 8 + pad)}


def test_the_byte_level_node_answers_health_checks() -> None:
    with h2_node.Node() as peer, client.channel(peer.port) as channel:
        asked = channel.unary_unary(feeds.HEALTH_CHECK).future(events.nonce(-9))
        peer.accept()
        assert asked.result(timeout=10) == events.nonce(-9)


def test_the_byte_level_peers_follow_windows() -> None:
    """A window of one byte: one byte a frame, until it is opened."""
    with h2_node.Node() as peer, h2_client.Client(peer.port, settings={"initial_window_size": 1}) as wire:
        connection = peer.accept()
        stream = wire.watch(events.LOGS)
        sent = events.event(events.LOGS, 0, 300)
        connection.say(events.LOGS, events.frame(sent))
        assert wire.wait_messages(stream, 1) == [sent]
        assert wire.streams[stream].pieces == [1] * 305


def test_both_nodes_punish_a_client_that_pings_too_often(go_node: GoNode) -> None:
    """What the relay must not do: the fourth ping within five minutes is too much for KubeArmor."""
    with node.Node() as peer:
        for port in (peer.port, go_node("-send", "").ports[0]):
            with h2_client.Client(port) as wire:
                wire.call(feeds.METHODS[events.LOGS], events.request("system"))
                # One at a time: a ping that it leaves unread makes the kernel drop its GOAWAY.
                for number in range(1, 21):
                    if not wire.goaway:
                        wire.ping(number.to_bytes(8))
                        wire.wait(lambda wire, count=number: wire.goaway or len(wire.pongs) == count, "answer to PING")
                wire.wait(lambda wire: wire.goaway, "GOAWAY")
                assert wire.goaway is not None
                assert (wire.goaway[0], wire.goaway[2]) == (11, b"too_many_pings")


def test_go_peers_understand_each_other(go_node: GoNode, go_client: GoClient) -> None:
    started = go_node("-rate", "0", "-count", "100", "-then", "ok")
    said = go_client("-server", f"127.0.0.1:{started.ports[0]}").result()
    assert (said["events"], said["missing"], said["disordered"], said["code"]) == (100, 0, 0, "OK")


@pytest.mark.parametrize("pieces", [1, 7])
def test_the_byte_level_client_cuts_its_headers(pieces: int) -> None:
    with node.Node() as peer, h2_client.Client(peer.port) as wire:
        stream = wire.open_anyhow(feeds.HEALTH_CHECK, pieces)
        wire.data(stream, events.frame(events.nonce(6)), end=True)
        over = wire.wait_over(stream)
        assert (over.status, over.messages) == ((0, ""), [events.nonce(6)])
