"""The peers against each other: what a test of the relay takes for granted of the other side."""

import grpc
import pytest
from peers import client, events, node

pytestmark = pytest.mark.wire


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
