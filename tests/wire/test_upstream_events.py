"""From nodes to the journal: which events are kept, changed, or skipped and counted (invariant 1 of the design)."""

from collections.abc import Callable, Iterator

import pytest
from google.protobuf.message import DecodeError
from peers import events, h2_node
from peers.engine import Engine, Sink
from peers.talking import Talking

from relay import kubearmor_pb2 as pb

pytestmark = pytest.mark.both_transports

FEEDS = events.FEEDS
LOGS = events.LOGS
LIMIT = 2000


class Counted(Talking):
    """Whose events are limited to LIMIT bytes."""

    def __init__(self) -> None:
        super().__init__(max_event_bytes=LIMIT)

    def counted(self, reason: str) -> int:
        """How often the node's events were skipped for that reason, or repaired."""
        counters = self.engine.node(self.number)
        return int(counters["repaired"] if reason == "repaired" else counters["skipped"][reason])

    def pass_on(self, feed: int, data: bytes, size: int = 0) -> list[bytes]:
        """What the relay makes of frames: everything up to a last, good event, which must follow them."""
        last = events.event(feed, 10**15)
        self.wire.say(feed, data + events.frame(last), size=size)
        taken: list[bytes] = []
        while not taken or taken[-1] != last:
            taken += self.sinks[feed].take(1)
        return taken[:-1]


@pytest.fixture(scope="module")
def talking() -> Iterator[Counted]:
    """One connection: whatever a node sends here, its stream goes on."""
    made = Counted()
    yield made
    made.close()


# In one piece, and in pieces that fall into prefix and event.
pieces = pytest.mark.parametrize("size", [0, 3, 100])
each_feed = pytest.mark.parametrize("feed", FEEDS)


def full(feed: int) -> bytes:
    """An event in which every field of the feed is set, nested messages, maps and lists included."""
    made = events.CLASSES[feed]()
    for field in made.DESCRIPTOR.fields:
        value = getattr(made, field.name)
        if field.type == field.TYPE_MESSAGE and field.message_type.GetOptions().map_entry:
            value["key"] = "value"
            value[""] = ""
        elif field.type == field.TYPE_MESSAGE:
            for part in field.message_type.fields:
                setattr(value, part.name, f"a {part.name}")
        elif isinstance(value, str):
            setattr(made, field.name, f"a {field.name}: grüße, 漢字, 🙂")
        elif isinstance(value, int):
            setattr(made, field.name, -1)
        else:
            value.extend(["one", "", "three"])
    encoded: bytes = made.SerializeToString()
    return encoded


@pieces
@each_feed
def test_every_field_is_kept(talking: Counted, feed: int, size: int) -> None:
    event = full(feed)
    assert talking.pass_on(feed, events.frame(event), size) == [event]


@pieces
@each_feed
def test_an_empty_event_is_an_event(talking: Counted, feed: int, size: int) -> None:
    assert talking.pass_on(feed, events.frames([b"", b""]), size) == [b"", b""]


UNKNOWN = {
    "varint": b"\xf8\xff\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    "fixed64": b"\xf9\xff\x0301234567",
    "bytes that are no UTF-8": b"\xfa\xff\x03\x04\xff\xfe\xfd\xfc",
    "group": b"\xfb\xff\x03\x08\x01\xfc\xff\x03",
    "fixed32": b"\xfd\xff\x030123",
}


@pieces
@pytest.mark.parametrize("field", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_unknown_fields_pass_untouched(talking: Counted, field: bytes, size: int) -> None:
    event = field + events.event(LOGS, 1) + field
    assert talking.pass_on(LOGS, events.frame(event), size) == [event]


@pieces
@each_feed
def test_an_event_exactly_at_the_limit_is_kept(talking: Counted, feed: int, size: int) -> None:
    event = events.event(feed, 1, LIMIT)
    assert talking.pass_on(feed, events.frame(event), size) == [event]


@pieces
@each_feed
@pytest.mark.parametrize("bytes_", [LIMIT + 1, 20_000, 300_000])
def test_an_event_above_the_limit_is_skipped_and_counted(talking: Counted, feed: int, bytes_: int, size: int) -> None:
    before = talking.counted("oversize")
    small = events.event(feed, 2)
    data = events.frames([small, events.event(feed, 1, bytes_), small])
    assert talking.pass_on(feed, data, size * bytes_ // 2000) == [small, small]
    assert talking.counted("oversize") == before + 1


MALFORMED = {
    "a varint that is cut off": b"\x08\xff",
    "a varint of eleven bytes": b"\x08" + b"\xff" * 10 + b"\x01",
    "a tag that is cut off": b"\x80",
    "field number 0": b"\x02\x00",
    "a length past the end": b"\x12\x05abcd",
    "a length that is cut off": b"\x12\x80",
    "a length of nearly 2^64": b"\x12\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    "wire type 6": b"\x0e",
    "wire type 7": b"\x0f",
    "a group without an end": b"\xfb\xff\x03",
    "an end without a group": b"\xfc\xff\x03",
    "a fixed64 that is cut off": b"\xf9\xff\x030123",
    "a nested message with a length past its end": b"\xda\x01\x02\x0a\x05" + b"abcdef",
}


@pieces
@pytest.mark.parametrize("event", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_event_is_skipped_and_counted(talking: Counted, event: bytes, size: int) -> None:
    before = talking.counted("malformed")
    with pytest.raises(DecodeError):
        pb.Log.FromString(event)
    good = events.event(LOGS, 2)
    assert talking.pass_on(LOGS, events.frames([good, event, good]), size) == [good, good]
    assert talking.counted("malformed") == before + 1


REPAIRED = {
    "a lone continuation byte": (b"a\x80b", "a\ufffdb"),
    "each bad byte by itself": (b"\xff\xfe\xfd", "\ufffd\ufffd\ufffd"),
    "a sequence that is cut off": (b"x\xe6\xbc", "x\ufffd\ufffd"),
    "a surrogate": (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),
    "an overlong form": (b"\xc0\xaf", "\ufffd\ufffd"),
    "above U+10FFFF": (b"\xf4\x90\x80\x80", "\ufffd" * 4),
    "good beside bad": ("grüße".encode() + b"\xff", "grüße\ufffd"),
}


@pieces
@pytest.mark.parametrize(("bad", "good"), REPAIRED.values(), ids=REPAIRED.keys())
def test_invalid_utf8_is_repaired_and_counted(talking: Counted, bad: bytes, good: str, size: int) -> None:
    before = talking.counted("repaired")
    neighbour = events.event(LOGS, 7)
    event = events.field(4, bad) + neighbour
    repaired = events.field(4, good.encode()) + neighbour
    assert talking.pass_on(LOGS, events.frames([neighbour, event, neighbour]), size) == [neighbour, repaired, neighbour]
    assert talking.counted("repaired") == before + 1


@pieces
def test_nested_strings_are_repaired_and_their_lengths_with_them(talking: Counted, size: int) -> None:
    """Owner, ExecEvent and map entries hold strings, too: what holds them grows with them."""
    bad, good = b"\xff" * 60, ("\ufffd" * 60).encode()  # 180 bytes: lengths of two bytes instead of one

    def event(value: bytes) -> bytes:
        text = events.field(2, value)
        return events.field(24, text) + events.field(27, text) + events.field(33, events.field(1, b"k") + text)

    with pytest.raises(DecodeError):
        pb.Log.FromString(event(bad))
    assert pb.Log.FromString(event(good)).EventData["k"] == good.decode()
    assert talking.pass_on(LOGS, events.frame(event(bad)), size) == [event(good)]


def test_a_repair_may_take_an_event_over_the_limit(talking: Counted) -> None:
    """The limit is for what nodes send. A repaired event is kept or skipped and counted, and the next one comes."""
    before = talking.counted("oversize"), talking.counted("repaired")
    event = events.event(LOGS, 1, LIMIT - 102) + events.field(4, b"\xff" * 100)
    assert len(event) == LIMIT
    kept = talking.pass_on(LOGS, events.frame(event))
    after = talking.counted("oversize"), talking.counted("repaired")
    if kept:
        assert kept == [events.event(LOGS, 1, LIMIT - 102) + b"\x22\xac\x02" + ("\ufffd" * 100).encode()]
        assert after == (before[0], before[1] + 1)
    else:
        assert after[0] == before[0] + 1


@pieces
def test_a_compressed_message_is_skipped_and_counted(talking: Counted, size: int) -> None:
    """The relay never offers a compression, so none may come."""
    before = talking.counted("compressed")
    good = events.event(LOGS, 2)
    data = events.frame(good) + events.frame(b"whatever it is", flag=1) + events.frame(good)
    assert talking.pass_on(LOGS, data, size) == [good, good]
    assert talking.counted("compressed") == before + 1


def test_each_node_is_counted_by_itself(engine: Callable[..., Engine]) -> None:
    relay = engine(max_event_bytes=LIMIT)
    with h2_node.Node() as good, h2_node.Node() as bad:
        numbers = [relay.add(good), relay.add(bad)]
        wires = [good.accept(), bad.accept()]
        wires[0].say(LOGS, events.frames(events.events(LOGS, 3)))
        wires[1].say(LOGS, events.frames([b"\x08", events.event(LOGS, 1, LIMIT + 1), events.event(LOGS, 1)]))
        relay.wait_received(LOGS, 4)
        counted = [relay.node(number) for number in numbers]
        assert [counts["received"]["logs"] for counts in counted] == [3, 1]
        assert [counts["skipped"]["malformed"] for counts in counted] == [0, 1]
        assert [counts["skipped"]["oversize"] for counts in counted] == [0, 1]


def test_an_event_announced_with_four_gibibytes_takes_no_memory(engine: Callable[..., Engine]) -> None:
    """It is skipped as it comes; the other feeds of the node live on."""
    relay = engine()
    with h2_node.Node() as peer, Sink(relay, events.ALERTS) as sink:
        number = relay.add(peer)
        wire = peer.accept()
        wire.say(LOGS, b"\0\xff\xff\xff\xff" + bytes(1 << 20))
        alert = events.event(events.ALERTS, 1)
        wire.say(events.ALERTS, events.frame(alert))
        assert sink.take(1) == [alert]
        assert relay.node(number)["skipped"]["oversize"] == 1
        assert relay.counters()["process"]["assembly_bytes"] == 0


def test_a_node_that_stalls_in_a_large_event_takes_no_room_from_small_ones(engine: Callable[..., Engine]) -> None:
    """It has used up what there is for assembling; another node's event in pieces finds room all the same."""
    budget = 1 << 16
    relay = engine(assembly_bytes=budget)
    with h2_node.Node() as stalling, h2_node.Node() as other, Sink(relay, LOGS) as sink:
        relay.add(stalling)
        number = relay.add(other)
        greedy, modest = stalling.accept(), other.accept()
        greedy.say(LOGS, b"\0" + (1 << 20).to_bytes(4) + b"x" * (budget // 2))
        greedy.say(events.ALERTS, events.frame(b""))
        relay.wait_received(events.ALERTS, 1)
        assert relay.counters()["process"]["assembly_bytes"] == budget
        small = events.event(LOGS, 1, 3000)
        frame = events.frame(small)
        modest.say(LOGS, frame[:1500])
        modest.say(events.ALERTS, events.frame(b""))
        relay.wait_received(events.ALERTS, 2)
        modest.say(LOGS, frame[1500:])
        assert sink.take(1) == [small]
        assert relay.node(number)["skipped"]["budget"] == 0
