"""Enrichment from end to end: a node, the engine, a subscriber; tables that change while events flow."""

import itertools
import threading
import time
from collections.abc import Callable
from ipaddress import ip_address

import grpc
import pytest
from peers import client, events, h2_node, node
from peers.engine import WAIT, At, Engine, Sink

from relay import _fastpath, feeds
from relay import kubearmor_pb2 as pb

Start = Callable[..., Engine]
LOGS, ALERTS, MESSAGES = events.LOGS, events.ALERTS, events.MESSAGES
WEB = ip_address("10.1.2.3").packed
HOST = " remotehost=pod/default/web-0"


def tcp(number: int, address: str = "10.1.2.3") -> bytes:
    """A log of a TCP connection to an address."""
    return events.event(LOGS, number, Resource=f"remoteip={address} port=443", Data="kprobe=tcp_connect")


def hosts(logs: list[bytes]) -> list[str]:
    """What was appended to each Resource."""
    return [pb.Log.FromString(log).Resource.partition(" port=443")[2] for log in logs]


@pytest.fixture
def named(engine: Start) -> Engine:
    """An engine that knows one address."""
    relay = engine()
    relay.native.set_names({WEB: "pod/default/web-0"})
    return relay


def enriched(relay: Engine) -> list[int]:
    return [relay.feed(feed)["enriched"] for feed in events.FEEDS]


# On the wire ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 3, 100])
def test_from_a_node_to_a_subscriber(named: Engine, size: int) -> None:
    """Whole, or in pieces that are put together first; others stay byte for byte as they were."""
    sent = [tcp(0), events.event(LOGS, 1), tcp(2, "9.9.9.9"), tcp(3, "::ffff:a01:203"), tcp(4) + b"\xf8\xff\x03\x07"]
    with h2_node.Node() as peer, client.channel(named.port) as over, client.Subscriber(over, LOGS) as stream:
        stream.ready()
        named.add(peer)
        peer.accept().say(LOGS, events.frames(sent), size=size)
        got = stream.take(5)
    assert hosts(got) == [HOST, "", "", HOST, HOST]
    assert got[1:3] == sent[1:3]
    text = b"remoteip=10.1.2.3 port=443"
    longer = text + HOST.encode()
    assert got[4] == sent[4].replace(bytes([len(text)]) + text, bytes([len(longer)]) + longer)
    assert enriched(named) == [0, 0, 3]


def test_alerts_and_messages_are_left_alone(named: Engine) -> None:
    texts = {"Resource": "remoteip=10.1.2.3", "Data": "tcp_connect", "Message": "remoteip=10.1.2.3 tcp_"}
    alert = pb.Alert(**texts).SerializeToString()
    message = pb.Message(Message=texts["Message"]).SerializeToString()
    with node.Node() as peer, Sink(named, ALERTS) as alerts, Sink(named, MESSAGES) as messages:
        named.connect(peer)
        peer.send(ALERTS, alert)
        peer.send(MESSAGES, message)
        assert alerts.take(1) == [alert]
        assert messages.take(1) == [message]
    assert enriched(named) == [0, 0, 0]


def test_what_python_publishes_is_enriched_too(named: Engine) -> None:
    with Sink(named, LOGS) as sink:
        named.publish(LOGS, tcp(1))
        assert hosts(sink.take(1)) == [HOST]


@pytest.mark.parametrize("spare", [len(HOST) - 1, len(HOST)])
def test_a_log_is_never_skipped_because_of_its_enrichment(engine: Start, spare: int) -> None:
    limit = 2000
    relay = engine(max_event_bytes=limit)
    relay.native.set_names({WEB: "pod/default/web-0"})
    text = {"Data": "tcp_"}
    start = "remoteip=10.1.2.3 port=443"
    fill = limit - spare - len(events.event(LOGS, 1, Resource=start, Labels="x" * 200, **text)) + 200
    sent = events.event(LOGS, 1, Resource=start, Labels="x" * fill, **text)
    assert len(sent) == limit - spare
    with Sink(relay, LOGS) as sink:
        relay.publish(LOGS, sent)
        assert hosts(sink.take(1)) == [HOST if spare == len(HOST) else ""]


# Tables ---------------------------------------------------------------------------------------


def test_a_new_table_replaces_the_old_one(named: Engine) -> None:
    other = ip_address("10.9.9.9").packed
    with Sink(named, LOGS) as sink:
        for names, expected in (
            ({other: "svc/default/db"}, ["", " remotehost=svc/default/db"]),
            ({WEB: "pod/a/b", other: "größe"}, [" remotehost=pod/a/b", " remotehost=größe"]),
            ({}, ["", ""]),
            ({bytes(10) + b"\xff\xff" + WEB: "x" * 600}, [" remotehost=" + "x" * 600, ""]),
        ):
            named.native.set_names(names)
            named.publish(LOGS, tcp(1), tcp(2, "10.9.9.9"))
            assert hosts(sink.take(2)) == expected


def test_tables_change_while_events_flow(engine: Start) -> None:
    """Each event has the name of one of the tables, none is lost, and they stay in order."""
    relay = engine()
    count, batch = 10_000, 100
    tables = [{WEB: f"name-{number}", **{each.to_bytes(4): "x" for each in range(200)}} for number in range(7)]
    ended = threading.Event()
    relay.native.set_names(tables[0])

    def change() -> None:
        for table in itertools.cycle(tables):
            if ended.wait(0.001):
                return
            relay.native.set_names(table)

    changing = threading.Thread(target=change)
    with h2_node.Node() as peer, client.channel(relay.port) as over, client.Subscriber(over, LOGS) as stream:
        stream.ready()
        relay.add(peer)
        wire = peer.accept()
        changing.start()
        try:
            for start in range(0, count, batch):
                wire.say(LOGS, events.frames(tcp(number) for number in range(start, start + batch)))
            got = stream.take(count)
        finally:
            ended.set()
            changing.join()
    assert [events.number_of(event) for event in got] == list(range(count))
    assert len(set(hosts(got))) > 1
    assert set(hosts(got)) <= {f" remotehost=name-{number}" for number in range(7)}
    assert enriched(relay)[LOGS] == count


def test_of_tables_that_nobody_takes_only_the_newest_waits() -> None:
    """As long as the engine is not started, none is taken."""
    native = _fastpath.Engine()
    table = {number.to_bytes(4): "x" * 600 for number in range(1000)}
    native.set_names(table)
    one = native.counters()["process"]["memory_bytes"]
    for number in range(100):
        native.set_names({**table, WEB: f"pod/{number}/x"})
    held = native.counters()["process"]["memory_bytes"]
    assert one > 600_000
    assert held < one + 2000
    native.close()


def test_a_table_that_is_given_before_the_start_counts(engine: Start) -> None:
    native = _fastpath.Engine()
    native.set_names({WEB: "pod/default/web-0"})
    native.publish(LOGS, events.frame(tcp(1)))
    cursor = _fastpath.Cursor(native, LOGS)
    native.start()
    native.counters()  # answered once what was asked before is done
    assert hosts(events.unframe(cursor.read())[0]) == [HOST]
    cursor.close()
    native.close()


def test_after_the_shutdown_a_table_is_given_back(named: Engine) -> None:
    named.shutdown()
    named.native.set_names({WEB: "pod/default/web-1"})
    named.native.set_names({})
    named.close()  # says what has leaked
    with pytest.raises(RuntimeError, match="closed"):
        named.native.set_names({})


BAD = {
    "3 bytes": ({b"123": "x"}, "3 bytes; 4 .IPv4. or 16 .IPv6. are accepted"),
    "no bytes": ({b"": "x"}, "0 bytes"),
    "an empty name": ({WEB: ""}, "0 bytes; 1 to 600 are accepted"),
    "a long name": ({WEB: "é" * 301}, "602 bytes"),
    "half a character": ({WEB: "\ud800"}, "no UTF-8 form"),
    "two names": ({WEB: "one", bytes(10) + b"\xff\xff" + WEB: "two"}, "two names"),
}


@pytest.mark.parametrize(("names", "told"), BAD.values(), ids=BAD)
def test_a_table_that_is_wrong_is_refused_and_the_old_one_stays(
    named: Engine, names: dict[bytes, str], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        named.native.set_names(names)
    with Sink(named, LOGS) as sink:
        named.publish(LOGS, tcp(1))
        assert hosts(sink.take(1)) == [HOST]


@pytest.mark.skipif(not hasattr(_fastpath, "_fail_allocation"), reason="this build cannot make an allocation fail")
@pytest.mark.parametrize("count", [1, 2], ids=["the command", "the table"])
def test_without_memory_for_a_table_the_old_one_stays(named: Engine, count: int) -> None:
    named.counters()  # the engine has taken the old one
    _fastpath._fail_allocation(named.native, count)
    with pytest.raises(MemoryError):
        named.native.set_names({WEB: "another"})
    _fastpath._fail_allocation(named.native, 0)
    with Sink(named, LOGS) as sink:
        named.publish(LOGS, tcp(1))
        assert hosts(sink.take(1)) == [HOST]


def test_an_address_may_be_there_twice_with_one_name(named: Engine) -> None:
    named.native.set_names({WEB: "same", bytes(10) + b"\xff\xff" + WEB: "same"})
    with Sink(named, LOGS) as sink:
        named.publish(LOGS, tcp(1))
        assert hosts(sink.take(1)) == [" remotehost=same"]


@pytest.mark.parametrize("names", [{"10.1.2.3": "x"}, {WEB: b"x"}, {WEB: None}, {None: "x"}])
def test_addresses_are_bytes_and_names_are_text(named: Engine, names: dict[object, object]) -> None:
    with pytest.raises(TypeError):
        named.native.set_names(names)


# The relay as its own node --------------------------------------------------------------------


def states(relay: Engine, number: int) -> list[int]:
    return [report.state for report in relay.reports(_fastpath.REPORT_NODE, node=number)]


def test_a_relay_is_not_its_own_node(engine: Start) -> None:
    relay = engine()
    number = relay.add(At(relay.port))
    failed = relay.wait_failure(number)
    assert (failed.code, failed.text) == (9, "this is the relay itself")
    # Nor at the next try.
    relay.native.connect_node(number, "127.0.0.1", relay.port)
    relay.wait(lambda now: states(now, number).count(_fastpath.NODE_IDLE) == 2, "the second failure")
    assert _fastpath.NODE_STREAMING not in states(relay, number)
    assert relay.node(number)["connects"] == 0
    assert relay.subscribers() == []


def test_a_relay_recognises_itself_behind_others(engine: Start) -> None:
    """Whoever brings it its own nonce: a proxy, a service's address. Other nonces are answered meanwhile."""
    relay = engine()
    with h2_node.Node() as peer, client.channel(relay.port) as over:
        number = relay.add(peer)
        wire = peer.accept(checks=False)
        wire.wait(lambda wire: wire.streams and wire.streams[1].ended, "HealthCheck")
        nonce = pb.NonceMessage.FromString(wire.streams[1].messages[0]).nonce
        for other in (0, 1, -nonce, nonce ^ 2):
            assert client.check(over, other) == other
        assert relay.node(number)["state"] == _fastpath.NODE_CHECKING
        with pytest.raises(grpc.RpcError) as raised:
            client.check(over, nonce)
        assert raised.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert raised.value.details() == "this is the relay itself"
        assert relay.wait_failure(number).text == "this is the relay itself"
        wire.wait_closed()
        # With nobody waiting for it, a nonce is like any other.
        assert client.check(over, nonce) == nonce


def test_a_healthy_node_may_be_checked_with_the_nonce_that_it_had(engine: Start) -> None:
    relay = engine()
    with node.Node() as peer, client.channel(relay.port) as over:
        number = relay.connect(peer)
        assert client.check(over, peer.checks[0]) == peer.checks[0]
        assert relay.node(number)["state"] == _fastpath.NODE_STREAMING


def test_a_relay_may_be_the_node_of_another(engine: Start) -> None:
    first, second = engine(), engine()
    first.connect(At(second.port))
    first.wait_state(0, _fastpath.NODE_STREAMING)
    second.wait_subscribers(len(feeds.FEEDS))


# A node that is let go ------------------------------------------------------------------------

TRIES = 5


def test_what_waits_in_the_kernel_when_a_node_is_removed_is_kept(engine: Start) -> None:
    """The command to remove it is run after others that take long; meanwhile the node says its last words.

    They come between the read and the command of one turn. Where this process is too slow to say them while the
    others are being run, the node is gone before: then all is tried anew.
    """
    relay = engine()
    long = events.frame(b"") * 1_500_000
    sent = events.events(LOGS, 200)
    for attempt in range(TRIES):
        with h2_node.Node() as peer, Sink(relay, LOGS, at_head=True) as logs:
            mark = _fastpath.Cursor(relay.native, MESSAGES, at_head=True)
            number = relay.add(peer)
            wire = peer.accept()
            relay.wait_state(number, _fastpath.NODE_STREAMING)
            wire.stream(LOGS)
            relay.publish_frames(ALERTS, long)  # while this is run, the others queue up behind it
            relay.publish(MESSAGES, b"")
            relay.publish_frames(ALERTS, long)
            relay.native.remove_node(number)
            deadline = time.monotonic() + WAIT
            while not mark.read():  # it is told only when the turn is over
                assert time.monotonic() < deadline, "the mark did not come"
            wire.say(LOGS, events.frames(sent))
            wire.wait_closed()
            mark.close()
            if relay.feed(LOGS)["next"]:
                assert logs.take(200) == sent
                return
        assert attempt < TRIES - 1, "nothing of what the node said was kept"
