"""The wire scanner against its oracle, and both against protobuf's own parser (upb)."""

import pytest
import shown
from google.protobuf.internal import api_implementation
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from unit import oracle_scan
from unit.oracle_messages import Made, events, mutated
from unit.oracle_repair import varint
from unit.oracle_scan import CLASSES, MALFORMED, OK, REPAIR

from relay import kubearmor_pb2 as pb
from relay.feeds import ALERTS, FEEDS, LOGS, MESSAGES

feeds = pytest.mark.parametrize("feed", FEEDS)
OWNER, EVENT_DATA, HOST_NAME, UNKNOWN = 24, 33, 4, 100  # of a log


def parses(feed: int, data: bytes) -> bool:
    try:
        CLASSES[feed].FromString(data)
    except (DecodeError, UnicodeDecodeError):
        return False
    return True


def field(number: int, body: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(body)) + body


def groups(count: int, number: int = UNKNOWN) -> bytes:
    return varint(number << 3 | 3) * count + varint(number << 3 | 4) * count


def check(feed: int, data: bytes) -> int:
    """Scan, and compare with the oracle and with the parser."""
    result: int = shown.scan_event(feed, data)
    assert result == oracle_scan.scan(feed, data)
    if result == OK:
        assert parses(feed, data)
    elif result == REPAIR:
        assert not parses(feed, data)
    elif parses(feed, data):
        # upb is laxer than others: Go refuses a 65th bit and, in groups too, number 0; Java lite the hundredth group.
        assert oracle_scan.why(feed, data) in ("65th bit", "number 0", "depth")
    return result


def test_the_parser_is_upb() -> None:
    assert api_implementation.Type() == "upb"


@feeds
@given(data=st.data())
def test_well_formed_events(feed: int, data: st.DataObject) -> None:
    made: Made = data.draw(events(feed))
    assert check(feed, made.raw) == (OK if made.raw == made.repaired else REPAIR)


@feeds
@given(data=st.data())
def test_mutated_events(feed: int, data: st.DataObject) -> None:
    check(feed, data.draw(mutated(feed)))


@feeds
@given(data=st.binary(max_size=64))
def test_random_bytes(feed: int, data: bytes) -> None:
    check(feed, data)


@feeds
@settings(max_examples=25)
@given(data=st.data())
def test_every_prefix_of_an_event(feed: int, data: st.DataObject) -> None:
    made: Made = data.draw(events(feed))
    for size in range(min(len(made.raw), 150)):
        check(feed, made.raw[:size])


@feeds
def test_every_field_of_the_schema_is_looked_into(feed: int) -> None:
    for entry in CLASSES[feed].DESCRIPTOR.fields:
        if entry.type == entry.TYPE_STRING:
            assert check(feed, field(entry.number, b"\xff")) == REPAIR
        elif entry.type == entry.TYPE_MESSAGE:
            assert check(feed, field(entry.number, b"\x0a")) == MALFORMED
            for inner in entry.message_type.fields:
                assert check(feed, field(entry.number, field(inner.number, b"\xff"))) == REPAIR
        else:
            assert check(feed, field(entry.number, b"\xff")) == OK


def test_empty_event_is_fine() -> None:
    assert [check(feed, b"") for feed in FEEDS] == [OK, OK, OK]


def test_real_events_are_fine() -> None:
    log = pb.Log(
        Timestamp=1_700_000_000,
        UpdatedTime="2026-11-23T10:00:00.000000Z",
        HostName="knoten-ü",
        PPID=-1,
        Data="x" * 5000,
    )
    log.EventData["Syscall"] = "SYS_OPENAT"
    log.ExecEvent.SetInParent()
    alert = pb.Alert(ATags=["MITRE", "T1555", ""], UserName="ユーザー")
    assert check(LOGS, log.SerializeToString()) == OK
    assert check(ALERTS, alert.SerializeToString()) == OK
    assert check(MESSAGES, pb.Message(Message="started", Level="INFO").SerializeToString()) == OK


def test_a_flaw_does_not_hide_what_is_worse() -> None:
    assert check(LOGS, field(HOST_NAME, b"\xff") + b"\x00") == MALFORMED
    assert check(LOGS, field(OWNER, field(1, b"\xff") + b"\x0f")) == MALFORMED


def test_a_flaw_is_found_before_good_text() -> None:
    assert check(LOGS, field(HOST_NAME, b"\xff") + field(HOST_NAME, b"good")) == REPAIR
    assert check(LOGS, field(OWNER, field(1, b"\xff")) + field(OWNER, field(1, b"good"))) == REPAIR


@feeds
def test_what_follows_a_message_is_of_the_outer_type(feed: int) -> None:
    """The types inside have none of the outer type's higher numbers, and would let its strings pass unseen."""
    descriptor = CLASSES[feed].DESCRIPTOR
    texts = [entry.number for entry in descriptor.fields if entry.type == entry.TYPE_STRING]
    for entry in descriptor.fields:
        if entry.type == entry.TYPE_MESSAGE:
            for inner in (b"", field(1, b"text")):
                for number in texts:
                    assert check(feed, field(entry.number, inner) + field(number, b"\xff")) == REPAIR


def test_unknown_fields_may_hold_anything() -> None:
    for number in (UNKNOWN, 63, 64, 65, 2**29 - 1):
        assert check(LOGS, field(number, b"\xff\xfe")) == OK
    for entry in pb.Log.DESCRIPTOR.fields:
        for beyond in (64, 128, 256):
            assert check(LOGS, field(entry.number + beyond, b"\xff")) == OK
    assert check(LOGS, field(OWNER, field(9, b"\xff"))) == OK
    assert check(LOGS, field(EVENT_DATA, field(3, b"\xff"))) == OK
    assert check(LOGS, varint(UNKNOWN << 3 | 3) + field(HOST_NAME, b"\xff") + varint(UNKNOWN << 3 | 4)) == OK


def test_another_wire_type_makes_a_field_unknown() -> None:
    assert check(LOGS, varint(HOST_NAME << 3) + b"\x05") == OK
    assert check(LOGS, varint(OWNER << 3) + b"\x05") == OK
    assert check(LOGS, groups(1, number=OWNER)) == OK
    assert check(LOGS, field(1, b"\xff")) == OK
    assert check(LOGS, field(EVENT_DATA, b"\x08\x05")) == OK


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x00",
        b"\x02\x00",
        b"\x0e",
        b"\x0f",
        b"\x0c",
        varint(UNKNOWN << 3 | 4),
        varint(UNKNOWN << 3 | 3),
        varint(UNKNOWN << 3 | 3) + varint(UNKNOWN + 1 << 3 | 4),
        b"\x0d\x00\x00\x00",
        b"\x09\x00\x00\x00\x00\x00\x00\x00",
        b"\x08",
        b"\x08\x80",
        b"\x22\x05four",
        b"\x22\x80\x80\x80\x80\x80\x00",
        b"\xa2\x80\x80\x80\x80\x00\x00",
        b"\x22\xff\xff\xff\xff\x0f",
        field(OWNER, b"\x0a\x02a") + b"b",
        field(OWNER, varint(UNKNOWN << 3 | 4)),
        varint(UNKNOWN << 3 | 3) + field(OWNER, varint(UNKNOWN << 3 | 4)),
    ],
    ids=[
        "number 0",
        "number 0 with bytes",
        "wire type 6",
        "wire type 7",
        "end without a group",
        "end without a group, unknown number",
        "group without an end",
        "group with another's end",
        "fixed32 cut",
        "fixed64 cut",
        "varint missing",
        "varint cut",
        "string cut",
        "length of 6 bytes",
        "tag of 6 bytes",
        "length of nearly 4 GiB",
        "string beyond its message",
        "end of a group inside a message",
        "end of a group inside bytes inside it",
    ],
)
def test_what_every_parser_refuses(data: bytes) -> None:
    assert not parses(LOGS, data)
    assert check(LOGS, data) == MALFORMED


@pytest.mark.parametrize(("last", "expected"), [(0, OK), (1, OK), (2, MALFORMED), (0x7F, MALFORMED)])
def test_go_refuses_a_65th_bit(last: int, expected: int) -> None:
    for number in (1, UNKNOWN):
        assert check(LOGS, varint(number << 3) + b"\xff" * 9 + bytes([last])) == expected


def test_the_hundredth_level_is_refused() -> None:
    assert shown.SCAN_DEPTH == oracle_scan.DEPTH == 99
    assert check(LOGS, groups(99)) == OK
    assert check(LOGS, groups(100)) == MALFORMED
    assert check(LOGS, field(OWNER, groups(98))) == OK
    assert check(LOGS, field(OWNER, groups(99))) == MALFORMED


def test_number_0_is_refused_in_a_group_as_well() -> None:
    """upb takes it there, Go does not."""
    assert check(LOGS, varint(UNKNOWN << 3 | 3) + b"\x00\x00" + varint(UNKNOWN << 3 | 4)) == MALFORMED


def test_groups_side_by_side_are_not_deep() -> None:
    assert check(LOGS, groups(1) * 300) == OK
    assert check(LOGS, varint(UNKNOWN << 3 | 3) + groups(98) * 3 + varint(UNKNOWN << 3 | 4)) == OK
    assert check(LOGS, varint(UNKNOWN << 3 | 3) + groups(98) + groups(99) + varint(UNKNOWN << 3 | 4)) == MALFORMED


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 16383, 16384, 1 << 21])
def test_sizes_of_strings(size: int) -> None:
    text = b"a" * size
    assert check(LOGS, field(HOST_NAME, text)) == OK
    assert check(LOGS, field(HOST_NAME, text) + field(UNKNOWN, b"\xff" * 20)) == OK
    assert check(LOGS, field(HOST_NAME, text + b"\xff")) == REPAIR
    assert check(LOGS, field(HOST_NAME, b"\xff" + text)) == REPAIR
