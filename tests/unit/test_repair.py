"""UTF-8 repair of whole events: what changes, and that nothing else does."""

import pytest
import shown
from hypothesis import given
from hypothesis import strategies as st
from unit import oracle_repair, oracle_utf8
from unit.oracle_messages import Made, events, mutated
from unit.oracle_repair import varint
from unit.oracle_scan import CLASSES, MALFORMED, OK, Malformed, scan

from relay import kubearmor_pb2 as pb
from relay.feeds import ALERTS, FEEDS, LOGS

feeds = pytest.mark.parametrize("feed", FEEDS)
OWNER, EVENT_DATA, HOST_NAME, UNKNOWN = 24, 33, 4, 100  # of a log
BAD = b"\xef\xbf\xbd"


def field(number: int, body: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(body)) + body


@feeds
@given(data=st.data())
def test_repaired_as_built(feed: int, data: st.DataObject) -> None:
    made: Made = data.draw(events(feed))
    status, repaired, count = shown.repair_event(feed, made.raw)
    assert (status, repaired) == ("STATUS_OK", made.repaired)
    assert (count == 0) == (made.raw == made.repaired)
    assert shown.scan_event(feed, repaired) == OK
    CLASSES[feed].FromString(repaired)


@feeds
@given(data=st.data())
def test_agrees_with_the_oracle_on_anything(feed: int, data: st.DataObject) -> None:
    raw = data.draw(st.one_of(mutated(feed), st.binary(max_size=64)))
    status, repaired, count = shown.repair_event(feed, raw)
    if scan(feed, raw) == MALFORMED:
        with pytest.raises(Malformed):
            oracle_repair.repair(feed, raw)
        assert (status, repaired, count) == ("STATUS_MALFORMED", None, 0)
    else:
        assert status == "STATUS_OK"
        assert (repaired, count) == oracle_repair.repair(feed, raw)


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=40))
def test_parsed_again_the_strings_are_the_repaired_ones(name: bytes, key: bytes, value: bytes) -> None:
    raw = field(HOST_NAME, name) + field(EVENT_DATA, field(1, key) + field(2, value)) + field(OWNER, field(2, name))
    log = pb.Log.FromString(shown.repair_event(LOGS, raw)[1])

    def text(data: bytes) -> str:
        return oracle_utf8.repaired(data)[0].decode()

    assert log.HostName == log.Owner.Name == text(name)
    assert dict(log.EventData) == {text(key): text(value)}


def test_lengths_around_a_repair_grow() -> None:
    # 126 bytes of text and 2 of tag and length make an inner message of 128: its length takes 2 bytes already.
    # One invalid byte more and the inner length, which took 1 byte, takes 2 as well.
    name = b"n" * 125 + b"\xff"
    raw = b"\x08\x01" + field(OWNER, field(2, name)) + field(UNKNOWN, b"\xff")
    expected = b"\x08\x01" + field(OWNER, field(2, b"n" * 125 + BAD)) + field(UNKNOWN, b"\xff")
    assert len(expected) == len(raw) + 3
    assert shown.repair_event(LOGS, raw) == ("STATUS_OK", expected, 1)


def test_over_long_forms_stay_unless_the_length_changes() -> None:
    over_long = varint(HOST_NAME << 3 | 2, 5) + varint(2, 5) + b"ok"
    flawed = varint(HOST_NAME << 3 | 2, 5) + varint(1, 5) + b"\xff"
    repaired = varint(HOST_NAME << 3 | 2, 5) + b"\x03" + BAD
    assert shown.repair_event(LOGS, over_long + flawed + b"\x08\x81\x00") == (
        "STATUS_OK",
        over_long + repaired + b"\x08\x81\x00",
        1,
    )


def test_a_shorter_length_can_make_up_for_longer_text() -> None:
    # The inner message keeps its size, but not its bytes.
    inner = varint(2 << 3 | 2) + varint(1, 3) + b"\xff"
    expected = field(OWNER, field(2, BAD))
    assert len(field(OWNER, inner)) == len(expected)
    assert shown.repair_event(LOGS, field(OWNER, inner)) == ("STATUS_OK", expected, 1)
    over_long = varint(OWNER << 3 | 2) + varint(len(inner), 2) + inner
    assert shown.repair_event(LOGS, over_long) == ("STATUS_OK", expected, 1)


def test_each_of_repeated_strings() -> None:
    raw = b"".join(field(30, tag) for tag in (b"one", b"\xff\xff", b"", b"\xc3\xa9", b"\xc3"))
    repaired = shown.repair_event(ALERTS, raw)
    assert list(pb.Alert.FromString(repaired[1]).ATags) == ["one", "\ufffd\ufffd", "", "é", "\ufffd"]
    assert repaired[2] == 3


def test_map_keys_that_become_equal_are_both_kept_on_the_wire() -> None:
    raw = field(EVENT_DATA, field(1, b"\xfe") + field(2, b"1")) + field(EVENT_DATA, field(1, b"\xff") + field(2, b"2"))
    _, repaired, count = shown.repair_event(LOGS, raw)
    assert count == 2
    assert repaired == field(EVENT_DATA, field(1, BAD) + field(2, b"1")) + field(
        EVENT_DATA, field(1, BAD) + field(2, b"2")
    )


def test_all_of_a_large_string() -> None:
    size = 1 << 20
    status, repaired, count = shown.repair_event(LOGS, field(HOST_NAME, b"\x80" * size))
    assert (status, count) == ("STATUS_OK", size)
    assert repaired == field(HOST_NAME, BAD * size)


def test_no_memory_is_said_and_counted() -> None:
    memory = shown.Memory()
    memory.fail_at(1)
    assert shown.repair_event(LOGS, field(HOST_NAME, b"\xff"), memory) == ("STATUS_NO_MEMORY", None, 0)
    assert memory.counters() == (0, 0, 0, 1)
    assert shown.repair_event(LOGS, field(HOST_NAME, b"\xff"), memory)[0] == "STATUS_OK"
