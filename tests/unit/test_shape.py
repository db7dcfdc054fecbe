"""Shapes against the scanner's oracle: whatever is recognised must be an event that a scan finds well-formed."""

import pytest
import shown
from hypothesis import given
from hypothesis import strategies as st
from unit import oracle_scan
from unit.oracle_messages import Made, events
from unit.oracle_repair import varint
from unit.oracle_scan import OK

from relay import kubearmor_pb2 as pb
from relay.feeds import FEEDS, LOGS

feeds = pytest.mark.parametrize("feed", FEEDS)
UNKNOWN = 100  # no field of any feed


def taught(feed: int, event: bytes) -> shown.Shapes:
    shapes = shown.Shapes(feed)
    shapes.learn(event)
    return shapes


def log(**values: object) -> bytes:
    known = {"Timestamp": 1_700_000_000, "HostName": "node-1", "PID": 4321, "Resource": "/etc/passwd", **values}
    return pb.Log(**known).SerializeToString()


@feeds
@given(data=st.data())
def test_what_is_recognised_is_well_formed(feed: int, data: st.DataObject) -> None:
    event = data.draw(events(feed)).raw
    if oracle_scan.scan(feed, event) != OK or not event:
        return
    shapes = taught(feed, event)
    changed = bytearray(event)
    for at, byte in data.draw(st.lists(st.tuples(st.integers(0, len(event) - 1), st.integers(0, 255)), max_size=4)):
        changed[at] = byte
    if shapes.recognised(changed):
        assert oracle_scan.scan(feed, bytes(changed)) == OK


@feeds
@given(data=st.data())
def test_an_event_is_recognised_by_what_was_learnt_of_it(feed: int, data: st.DataObject) -> None:
    made: Made = data.draw(events(feed))
    event = made.raw
    if oracle_scan.scan(feed, event) != OK or not event or len(event) > shown.SHAPE_BYTES:
        return
    recognised = taught(feed, event).recognised(event)
    # Text beyond ASCII has no shape, nor have groups; anything else has.
    assert recognised or any(byte >= 0x80 for byte in event) or any(byte & 7 in (3, 4) for byte in event)


@pytest.mark.parametrize(
    "other",
    [log(HostName="node-2"), log(Resource="/etc/shadow"), log(PID=8191), log(Timestamp=1_799_999_999)],
    ids=["string", "another string", "number", "long number"],
)
def test_other_text_and_numbers_of_the_same_length_are_recognised(other: bytes) -> None:
    assert taught(LOGS, log()).recognised(other)


@pytest.mark.parametrize(
    "other",
    [
        log(HostName="node-"),
        log(HostName="node-12", Resource="/etc/passw"),
        log(PID=1, HostName="node-12"),
        log(HostName="node-\u00e9", Resource="/etc/passw"),
        log().replace(b"node-1", b"node-\xff"),
        log().replace(b"passwd", b"passw\x80"),
    ],
    ids=["shorter", "lengths moved", "number's size moved", "text beyond ASCII", "not UTF-8", "not UTF-8 at the end"],
)
def test_another_layout_or_other_than_ascii_is_not_recognised(other: bytes) -> None:
    assert not taught(LOGS, log()).recognised(other)


def test_a_nested_message_is_part_of_the_shape() -> None:
    event = log(Owner=pb.Podowner(Ref="Deployment", Name="shop"), EventData={"k": "v"})
    shapes = taught(LOGS, event)
    assert shapes.recognised(event.replace(b"shop", b"blog"))
    assert not shapes.recognised(event.replace(b"\x04shop", b"\x05shop"))
    assert not shapes.recognised(event.replace(b"shop", b"sho\xff"))


def test_bytes_of_an_unknown_field_may_be_any() -> None:
    tail = varint(UNKNOWN << 3 | 2) + varint(3)
    assert taught(LOGS, log() + tail + b"abc").recognised(log() + tail + b"\xff\x00\x80")


def test_the_sixty_fifth_bit_of_a_number_is_not_overlooked() -> None:
    number = varint(UNKNOWN << 3) + b"\xff" * 9
    shapes = taught(LOGS, number + b"\x01")
    assert shapes.recognised(number + b"\x01")
    assert oracle_scan.scan(LOGS, number + b"\x02") != OK
    assert not shapes.recognised(number + b"\x02")


@pytest.mark.parametrize("size", [shown.SHAPE_BYTES - 1, shown.SHAPE_BYTES, shown.SHAPE_BYTES + 1])
def test_large_events_are_left_to_the_scan(size: int) -> None:
    event = log(Data="x" * (size - len(log()) - 4))
    assert len(event) == size
    assert taught(LOGS, event).recognised(event) == (size <= shown.SHAPE_BYTES)


def test_a_slot_learns_again_after_misses_that_double() -> None:
    shapes = taught(LOGS, log())
    other = log(HostName="node-12", Resource="/etc/passw")
    assert len(other) == len(log())
    shapes.learn(other)  # its second miss: learnt
    assert shapes.recognised(other)
    for _ in range(2):
        shapes.learn(log())
    assert shapes.recognised(log())
    shapes.learn(other)  # recognition began the count anew
    assert shapes.recognised(other)


def test_a_slot_that_recognises_nothing_learns_rarely() -> None:
    shapes = shown.Shapes(LOGS)
    variants = [log(HostName="n" * (1 + i), Resource="r" * (40 - i)) for i in range(30)]
    assert len({len(v) for v in variants}) == 1
    misses = 10 * shown.SHAPE_PATIENCE
    learnt = sum(shapes.learn(variants[i % len(variants)]) for i in range(misses))
    assert (
        learnt == 10 + 6
    )  # each SHAPE_PATIENCE-th, and 1, 2, 4, 8, 16 and 32; 64, 128, 256 and 512 are among the former


def test_sizes_that_share_a_slot_are_told_apart() -> None:
    small = log()
    large = small + varint(UNKNOWN << 3 | 2) + varint(shown.SHAPE_SLOTS - 3) + b"x" * (shown.SHAPE_SLOTS - 3)
    assert len(large) == len(small) + shown.SHAPE_SLOTS
    assert not taught(LOGS, large).recognised(small)
    assert not taught(LOGS, small).recognised(large)


def test_everything_is_given_back() -> None:
    assert taught(LOGS, log()).free() == 0
