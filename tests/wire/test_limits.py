"""What clients may take of the relay, and what is said to whoever takes more."""

import contextlib
import socket
from collections.abc import Callable, Iterator

import pytest
from peers import events, h2_client, h2_wire
from peers.engine import Engine
from peers.events import LOGS
from peers.hostile import CHECK, PADDED, WATCH, Attacker, call, frame, headers, literal, long_block
from peers.trust import trust

from relay import feeds

METHOD = "/test.Service/Method"
RESOURCE_EXHAUSTED = 8
ENHANCE_YOUR_CALM = 11

Start = Callable[..., Engine]


def limits(relay: Engine) -> dict[str, int]:
    """The limits that somebody met, with how often."""
    return {name: count for name, count in relay.counters()["process"]["limits"].items() if count}


@contextlib.contextmanager
def connected(port: int, source: str = "127.0.0.1") -> Iterator[socket.socket]:
    """A bare connection from a loopback address."""
    with socket.create_connection(("127.0.0.1", port), h2_wire.WAIT, (source, 0)) as sock:
        yield sock


def refusal(sock: socket.socket) -> bytes:
    """What is said before the end: empty SETTINGS, then GOAWAY with a reason."""
    said = b""
    while piece := sock.recv(4096):
        said += piece
    assert said[:9] == b"\0\0\0\4\0\0\0\0\0"
    assert said[12:16] == bytes([h2_wire.GOAWAY, 0, 0, 0])
    assert int.from_bytes(said[9:12]) == len(said) - 18
    assert int.from_bytes(said[22:26]) == ENHANCE_YOUR_CALM
    return said[26:]


# Connections --------------------------------------------------------------------------------------


def test_connections_beyond_the_limit_are_told_which(engine: Start) -> None:
    relay = engine(max_connections=1)
    with connected(relay.port), connected(relay.port) as refused:
        assert refusal(refused) == b"too many connections: max-connections"
        assert limits(relay) == {"connections": 1}


def test_connections_of_one_address_are_limited(engine: Start) -> None:
    """Others come in all the same; and so does the address, as soon as it has fewer."""
    relay = engine(max_address_connections=2)
    with connected(relay.port), contextlib.ExitStack() as leaving:
        leaving.enter_context(connected(relay.port))
        relay.wait_counters(lambda now: now["process"]["clients"] == 2)
        with connected(relay.port) as refused:
            assert refusal(refused) == b"too many connections: max-connections-per-address"
        assert limits(relay) == {"address": 1}
        with h2_client.Client(0, sock=socket.create_connection(("127.0.0.1", relay.port), 5, ("127.0.0.2", 0))) as wire:
            assert wire.check(1) == 1
            assert relay.counters()["process"]["addresses"] == 2
        leaving.close()
        relay.wait_counters(lambda now: now["process"]["clients"] == 1)
        with h2_client.Client(relay.port) as wire:
            assert wire.check(2) == 2


def test_without_budget_there_are_no_more_connections(engine: Start) -> None:
    """A budget that is too small for so many connections: the rest is refused, nobody is cut off."""
    relay = engine(client_bytes=1 << 20, max_connections=1000, max_address_connections=1000)
    with contextlib.ExitStack() as peers:
        wires = [peers.enter_context(h2_client.Client(relay.port)) for _ in range(16)]
        for wire in wires:
            wire.watch(LOGS)
        with connected(relay.port) as refused:
            assert refusal(refused) == b"no memory for more connections: client-bytes"
        assert limits(relay) == {"budget": 1}
        assert all(wire.check(1) == 1 for wire in wires)
        assert relay.counters()["process"]["client_bytes"] <= 1 << 19


# Subscribers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 16])
def test_as_many_connections_of_tls_as_the_limit_says_have_their_parts(engine: Start, most: int) -> None:
    """What TLS holds of each comes out of its part, where that is large enough."""
    relay = engine(tls=trust(), max_connections=most, max_address_connections=most)
    with contextlib.ExitStack() as staying:
        for count in range(1, most + 1):
            staying.enter_context(connected(relay.port))
            relay.wait_counters(lambda now, count=count: now["process"]["clients"] == count, f"{count} connections")
        assert limits(relay) == {}


def test_subscribers_beyond_the_limit_are_refused(engine: Start) -> None:
    relay = engine(max_subscribers=3, max_address_connections=512)
    with h2_client.Client(relay.port) as wire:
        streams = [wire.watch(LOGS) for _ in range(3)]
        over = wire.wait_over(wire.call(feeds.METHODS[LOGS], b""))
        assert over.status == (RESOURCE_EXHAUSTED, "too many subscribers: max-subscribers of the relay")
        assert limits(relay) == {"subscribers": 1}
        wire.reset(streams.pop())
        relay.wait_subscribers(2)
        streams.append(wire.watch(LOGS))
        relay.publish(LOGS, b"")
        assert [wire.wait_messages(stream, 1) for stream in streams] == [[b""]] * 3


def test_one_address_has_its_share_of_the_subscribers(engine: Start) -> None:
    relay = engine(max_subscribers=8)
    with h2_client.Client(relay.port) as first, h2_client.Client(relay.port) as second:
        first.watch(LOGS)
        second.watch(LOGS)
        over = first.wait_over(first.call(feeds.METHODS[LOGS], b""))
        assert over.status[0] == RESOURCE_EXHAUSTED
        assert "max-connections-per-address" in over.status[1]
        assert limits(relay) == {"address": 1}
        other = socket.create_connection(("127.0.0.1", relay.port), 5, ("127.0.0.2", 0))
        with h2_client.Client(0, sock=other) as wire:
            wire.watch(LOGS)


# The budget ---------------------------------------------------------------------------------------


def test_what_clients_hold_is_counted_and_given_back(engine: Start) -> None:
    relay = engine(handle=[METHOD])
    with h2_client.Client(relay.port) as wire:
        wire.watch(LOGS)
        session = relay.counters()["process"]["client_bytes"]
        assert 10_000 < session < 32_768, "a session and a stream are within a connection's part"
        stream = wire.open(METHOD)
        wire.data(stream, b"\0" + (16384).to_bytes(4) + bytes(10_000))
        relay.wait_counters(lambda now: now["process"]["client_bytes"] > session + 10_000, "the request")
        wire.reset(stream)
        wire.round_trip()
        relay.wait_counters(lambda now: now["process"]["client_bytes"] <= session + 2000, "the end of the request")
    now = relay.wait_counters(lambda now: now["process"]["clients"] == 0, "the end of the connection")["process"]
    assert (now["client_bytes"], now["addresses"]) == (0, 0)


def hold(wire: h2_client.Client, streams: int) -> None:
    """Requests of 16 KiB each that are not completed."""
    for _ in range(streams):
        stream = wire.open(METHOD)
        with contextlib.suppress(AssertionError, OSError):
            wire.data(stream, b"\0" + (60_000).to_bytes(4) + bytes(16_300))


def test_a_connection_that_holds_too_much_is_cut_off(engine: Start) -> None:
    """An eighth of what is there beyond the parts, for one; whoever is content with its part notices nothing."""
    relay = engine(handle=[METHOD], client_bytes=4 << 20)
    with h2_client.Client(relay.port) as good, h2_client.Client(relay.port) as bad:
        stream = good.watch(LOGS)
        with contextlib.suppress(OSError, AssertionError):
            hold(bad, 40)
        bad.wait_closed()
        assert bad.goaway is not None
        assert bad.goaway[0] == ENHANCE_YOUR_CALM
        assert limits(relay)["budget"] >= 1
        relay.wait_counters(lambda now: now["process"]["client_bytes"] < 100_000, "the end of what it held")
        relay.publish(LOGS, b"")
        assert good.wait_messages(stream, 1) == [b""]
        assert good.check(1) == 1


def test_when_all_is_held_the_small_are_served_and_the_large_get_no_more(engine: Start) -> None:
    relay = engine(handle=[METHOD], client_bytes=4 << 20, max_connections=64, max_address_connections=64)
    with contextlib.ExitStack() as peers:
        good = peers.enter_context(h2_client.Client(relay.port))
        stream = good.watch(LOGS)
        bad = []
        while not limits(relay):
            bad.append(peers.enter_context(h2_client.Client(relay.port)))
            # Less than one connection may have, so that many are needed.
            with contextlib.suppress(OSError, AssertionError):
                hold(bad[-1], 6)
                bad[-1].round_trip()
        bad[-1].wait_closed()
        assert len(bad) > 8
        assert set(limits(relay)) == {"budget"}
        assert relay.counters()["process"]["client_bytes"] < 4 << 20
        # Newcomers and those who were there have their parts.
        new = peers.enter_context(h2_client.Client(relay.port))
        streams = [(good, stream), (new, new.watch(LOGS)), (good, good.watch(LOGS))]
        relay.publish(LOGS, b"")
        assert [wire.wait_messages(number, 1) for wire, number in streams] == [[b""]] * 3
        assert all(wire.goaway is None for wire in (good, new))


def test_messages_that_wait_for_python_are_bounded(engine: Start) -> None:
    """By their bytes, too: a mebibyte, however many calls they belong to."""
    relay = engine(handle=[METHOD], max_controls=1 << 30)
    relay.pause()
    try:
        with h2_client.Client(relay.port) as wire:
            for _ in range(30):
                wire.call(METHOD, bytes(60_000))
            wire.round_trip()
            refused = [stream for stream in wire.streams.values() if stream.over]
            assert {stream.status[0] for stream in refused} == {RESOURCE_EXHAUSTED}
            assert len(refused) == 30 - (1 << 20) // 60_000
            assert limits(relay) == {"calls": len(refused)}
    finally:
        relay.resume()


# What is counted by the second --------------------------------------------------------------------


def cut_off(wire: h2_client.Client, relay: Engine, limit: str) -> None:
    """The connection ends with ENHANCE_YOUR_CALM, counted once."""
    wire.wait_closed()
    assert wire.goaway is not None
    assert wire.goaway[0] == ENHANCE_YOUR_CALM
    assert limits(relay) == {limit: 1}


def flood(wire: h2_client.Client, data: bytes, times: int) -> None:
    """The same over and over, in one write; whoever is cut off meanwhile is."""
    with contextlib.suppress(OSError):
        wire.send(data * times)


# What is said, and how many of it count as much as ten pings.
FLOODS = {
    "acknowledgements of no ping": (frame(h2_wire.PING, 1, payload=bytes(8)), 10),
    "going away": (frame(h2_wire.GOAWAY, payload=bytes(8)), 1),
    "priorities": (frame(h2_wire.PRIORITY, 0, 1, b"\0\0\0\0\x10"), 1),
    "crumbs of credit": (frame(h2_wire.WINDOW_UPDATE, payload=(1).to_bytes(4)), 10),
    "padding without data": (frame(h2_wire.DATA, PADDED, 1, b"\0"), 1),
}


@pytest.mark.parametrize(("said", "ten"), FLOODS.values(), ids=FLOODS.keys())
def test_frames_that_bring_nothing_are_counted(engine: Start, said: bytes, ten: int) -> None:
    relay = engine(max_controls=500)
    with h2_client.Client(relay.port) as good, h2_client.Client(relay.port) as bad:
        stream = good.watch(LOGS)
        bad.open(feeds.METHODS[LOGS])
        flood(bad, said, 20 * ten)
        assert bad.check(1) == 1
        flood(bad, said, 120 * ten)
        cut_off(bad, relay, "controls")
        relay.publish(LOGS, b"")
        assert good.wait_messages(stream, 1) == [b""]


def test_calls_are_counted(engine: Start) -> None:
    relay = engine(max_controls=500)
    with Attacker(relay.port) as bad:
        bad.say(b"".join(call(stream, CHECK, events.nonce(1)) for stream in range(1, 601, 2)))
        said = bad.last_words()
        assert said.goaway is not None
        assert said.goaway[0] == ENHANCE_YOUR_CALM
        assert said.statuses.total() < 300
        assert limits(relay) == {"controls": 1}


def test_messages_for_python_are_counted(engine: Start) -> None:
    """One call may have as many as it likes, and each costs a hundred times what is answered natively."""
    relay = engine(handle=[METHOD], max_controls=500)
    with h2_client.Client(relay.port) as bad:
        stream = bad.open(METHOD)
        with contextlib.suppress(OSError, AssertionError):
            bad.data(stream, events.frames([b""] * 60))
        cut_off(bad, relay, "controls")


def test_a_client_that_does_not_hear_it_is_cut_off_all_the_same(engine: Start) -> None:
    """Its socket is full, so GOAWAY cannot be said; it goes on with what makes no answer."""
    relay = engine(max_controls=500)
    settings = {"initial_window_size": 2**31 - 1}
    with h2_client.Client(relay.port, settings=settings, receive_buffer=4096, read=False) as bad:
        bad.window(2**31 - 1 - 65535)
        bad.call(feeds.METHODS[LOGS], b"")
        relay.wait_subscribers(1)
        for number in range(5):
            relay.publish(LOGS, *events.events(LOGS, 2000, 1000, number))
        relay.wait_counters(lambda now: now["process"]["tail_bytes"], "a full socket")
        flood(bad, frame(h2_wire.PRIORITY, 0, 1, b"\0\0\0\0\x10"), 120)
        relay.wait_counters(lambda now: now["process"]["clients"] == 0, "the end of the connection")
        assert limits(relay) == {"controls": 1}


# Header blocks ------------------------------------------------------------------------------------


# One entry of 4 KiB in the table, then a byte for each repetition (RFC 7541, 6.1).
INDEXED = WATCH + b"\x40\x01x\x7f\xa1\x1e" + b"y" * 4000 + b"\xbe" * 60_000
EMPTY = WATCH + literal(b"", b"") * 20_000
SMALL_ONES = WATCH + literal(b"a", b"") * 20_000


@pytest.mark.parametrize("block", [INDEXED, EMPTY, SMALL_ONES], ids=["indexed", "empty names", "many"])
def test_a_header_bomb_is_not_decoded_to_its_end(engine: Start, block: bytes) -> None:
    relay = engine()
    with h2_client.Client(relay.port) as good, h2_client.Client(relay.port) as bad:
        stream = good.watch(LOGS)
        flood(bad, long_block(1, block), 1)
        cut_off(bad, relay, "headers")
        relay.publish(LOGS, b"")
        assert good.wait_messages(stream, 1) == [b""]


def test_a_table_that_is_too_large_is_refused(engine: Start) -> None:
    """A table size update beyond the 4,096 bytes that we have announced by saying nothing (RFC 7541, 4.2)."""
    relay = engine()
    with h2_client.Client(relay.port) as bad:
        flood(bad, headers(1, b"\x3f\xe1\xff\x03" + WATCH), 1)
        bad.wait_closed()
        assert bad.goaway is not None
        assert bad.goaway[0] == 9, "COMPRESSION_ERROR"
