"""Peers that use TLS against the relay: what they send, and when, is all of it allowed, or nearly so."""

import contextlib
import datetime as dt
import time
from collections.abc import Callable

import pytest
from cryptography import x509
from peers import h2_client, h2_node, node
from peers.engine import At, Engine
from peers.resident import resident
from peers.tls_door import Door
from peers.tls_records import DATA, HANDSHAKE, HOST, Records
from peers.trust import load, trust

from relay import _fastpath

Start = Callable[..., Engine]
CONTROL_COST = 10  # of max_controls, a message about keys
LARGEST_HELLO = 131_000  # bytes; OpenSSL takes 131,396
SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
PING = bytes((0, 0, 8, 6, 0, 0, 0, 0, 0)) + b"question"
ANSWER = bytes((0, 0, 8, 6, 1, 0, 0, 0, 0)) + b"question"
# A frame of a type that nobody knows, and everybody passes over (RFC 9113, 4.1), with 16,000 bytes.
UNKNOWN = bytes((0, 0x3E, 0x80, 0xEE, 0, 0, 0, 0, 0)) + bytes(16_000)


def node_records(peer: h2_node.Node) -> Records:
    return Records(peer.accept_socket(), trust().context(server=True), server=True)


def heard(records: Records, what: bytes) -> bytes:
    """All that comes up to these bytes of HTTP/2."""
    said = b""
    while what not in said:
        kind, data = records.take()
        said += data if kind == DATA else b""
    return said


# Keys -----------------------------------------------------------------------------------------------------


def test_a_node_asks_for_keys_in_the_middle_of_what_one_read_brings(engine: Start) -> None:
    """Each wish is answered once, with a record that follows from the one before."""
    relay = engine(tls=trust(kernel=False))
    with h2_node.Node() as peer:
        relay.add(peer)
        with node_records(peer) as records:
            records.sock.sendall(records.seal(SETTINGS))
            burst = b"".join(records.seal(UNKNOWN) + records.ask() for _ in range(64))
            records.sock.sendall(burst + records.seal(PING))
            heard(records, ANSWER)


def test_a_node_that_changes_keys_all_the_time_is_let_go(engine: Start) -> None:
    """Each change costs us ten times what it costs the node, and a read may bring 40,000."""
    relay = engine(tls=trust(kernel=False), max_controls=3 * CONTROL_COST)
    with h2_node.Node() as peer:
        number = relay.add(peer)
        with node_records(peer) as records:
            records.sock.sendall(records.seal(SETTINGS) + b"".join(records.ask() for _ in range(64)))
            assert relay.wait_failure(number).text == "TLS: it changes its keys, or gives tickets, all the time"
    assert relay.counters()["process"]["limits"]["controls"] == 1


# Hellos ---------------------------------------------------------------------------------------------------


@pytest.mark.resident
def test_hellos_that_are_announced_hold_little(engine: Start) -> None:
    """OpenSSL makes room for a message as soon as its length is known: 175 KiB for the largest hello."""
    count = 256
    relay = engine(tls=trust(), max_connections=2 * count, max_address_connections=count, client_bytes=1 << 30)
    announced = bytes((1, *LARGEST_HELLO.to_bytes(3), 3, 3, *bytes(33)))
    before = resident()
    with contextlib.ExitStack() as crowd:
        for _ in range(count):
            sock = crowd.enter_context(h2_client.connect(relay.port))
            sock.sendall(bytes((HANDSHAKE, 3, 1, *len(announced).to_bytes(2))) + announced)
        relay.wait_counters(lambda now: now["process"]["clients"] == count, "all of them")
        for _ in range(count):
            relay.counters()  # a turn of the loop, which goes on with one of them at least
        assert resident() - before < 24 << 20


# Sessions of before ---------------------------------------------------------------------------------------


def test_a_nodes_session_ends_with_the_rules_that_it_was_verified_by(engine: Start) -> None:
    """Also that of a connection which was open when the rules changed."""
    relay = engine(tls=trust())
    with node.Node() as peer, Door(peer.port, trust().context(server=True), secure_outside=True) as door:
        number = relay.connect(At(door.port))
        relay.set_tls(server=None, client=trust(operator=True).client())
        door.passages[0].cut()
        relay.wait_failure(number)
        relay.reach(number, door.port)
        met = relay.wait_report(_fastpath.REPORT_NODE, node=number, state=_fastpath.NODE_IDLE, times=2)
        assert met.text.startswith("TLS: the peer's certificate: ")
    assert relay.counters()["process"]["tls"]["resumed"] == 0


def test_a_node_with_a_new_certificate_is_met_anew_when_the_one_of_its_session_has_expired(engine: Start) -> None:
    relay = engine(tls=trust())
    context = trust().context(server=True)
    expiring = trust().ca.issue(HOST, ends=dt.timedelta(seconds=2))
    load(context, expiring)
    with node.Node() as peer, Door(peer.port, context, secure_outside=True) as door:
        number = relay.connect(At(door.port))
        door.passages[0].cut()
        relay.wait_failure(number)
        load(context, trust().leaf)
        ends = x509.load_pem_x509_certificate(expiring.certificate_pem).not_valid_after_utc
        time.sleep(max(0.0, ends.timestamp() + 1 - time.time()))
        relay.reach(number, door.port)
        relay.wait_report(_fastpath.REPORT_NODE, node=number, state=_fastpath.NODE_STREAMING, times=2)
    assert not relay.counters()["process"]["tls"]["failed"]
