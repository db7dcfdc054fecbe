"""The transcoder against Go itself: decoded by Go protobuf into generated structs, printed by encoding/json.

Whatever is printed is what Go prints, strings that are not UTF-8 included: Go refuses events with those, so there the
structs are of the same contract without that check. The scanner refuses a little more than Go does (scan.pxd tells
what); the oracle without those limits has to take what Go takes.
"""

from collections.abc import Iterator
from unittest import mock

import pytest
import shown
from hypothesis import given, settings
from hypothesis import strategies as st
from peers import go_tool
from peers.go_json import Printer
from unit import oracle_reader, oracle_scan
from unit.oracle_messages import EDGES, events, mutated
from unit.oracle_repair import varint

from relay.feeds import ALERTS, FEEDS, LOGS

feeds = pytest.mark.parametrize("feed", FEEDS)
OWNER, EVENT_DATA, UID, RESULT, UNKNOWN = 24, 33, 12, 18, 100  # of a log
ATAGS = 30  # of an alert
VERDICTS = {oracle_scan.OK: b"j", oracle_scan.REPAIR: b"u", oracle_scan.MALFORMED: b"m"}


@pytest.fixture(scope="module")
def go() -> Iterator[Printer]:
    if go_tool.missing():
        pytest.skip(go_tool.missing())
    printer = Printer()
    yield printer
    printer.close()


def without_limits(feed: int, data: bytes) -> int:
    """The scanner's verdict, with Go's sizes of tags and lengths, and its depth."""
    with (
        mock.patch.object(oracle_reader, "LONGEST", 10),
        mock.patch.object(oracle_reader, "TAGS", 2**34),
        mock.patch.object(oracle_scan, "DEPTH", 10_000),
    ):
        return oracle_scan.scan(feed, data)


def same(go: Printer, feed: int, data: bytes) -> str:
    """The event as the transcoder prints it, which is as Go does; "" where it is malformed."""
    made: bytes | str = shown.json_event(feed, data)
    said = go.event(feed, data)
    if isinstance(made, str):
        assert made == "STATUS_MALFORMED"
        assert said.verdict == b"m" or without_limits(feed, data) != oracle_scan.MALFORMED, said.text
        return ""
    assert made == said.text
    assert said.verdict == VERDICTS[oracle_scan.scan(feed, data)]
    return made.decode()


def field(number: int, body: bytes, longest: int = 1) -> bytes:
    return varint(number << 3 | 2) + varint(len(body), longest) + body


# Random events -------------------------------------------------------------------------------------


@feeds
@settings(max_examples=300)
@given(data=st.data())
def test_any_spelling_on_the_wire(go: Printer, feed: int, data: st.DataObject) -> None:
    assert same(go, feed, data.draw(events(feed)).raw)


@feeds
@settings(max_examples=300)
@given(data=st.data())
def test_any_bytes(go: Printer, feed: int, data: st.DataObject) -> None:
    same(go, feed, data.draw(st.one_of(mutated(feed), st.binary(max_size=60))))


NUMBERS = st.sampled_from([0, 1, 2, 3, 9, 12, 24, 30, 31, 33, 36, 43, 100, 2**29 - 1, 2**29, 2**32 - 1])
WIRES = st.integers(0, 7)


def spelled(value: int, size: int) -> bytes:
    """A varint of at least that size."""
    return varint(value, max(size, len(varint(value))))


# What events are made of, in no order: most of it is malformed, but not from its first byte on.
TOKENS = st.one_of(
    st.builds(lambda number, wire: varint(number << 3 | wire), NUMBERS, WIRES),
    st.builds(lambda number, wire, size: spelled(number << 3 | wire, size), NUMBERS, WIRES, st.integers(1, 10)),
    st.integers(0, 12).map(lambda small: bytes([small])),
    st.binary(max_size=4),
    st.integers(0, 2**64 - 1).map(varint),
    st.sampled_from([b"\xff" * 9 + b"\x01", b"\xff" * 9 + b"\x02", b"\x80" * 9 + b"\0", b"\x80" * 10 + b"\0"]),
)


def around(within: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """That in messages, maps, lists, texts and groups, and several of it."""
    known = st.sampled_from([OWNER, EVENT_DATA, 27, 31, 36, 43, ATAGS, RESULT, 1, 2, 50])
    return st.one_of(
        st.builds(
            lambda number, body, size: field(number, body, max(size, len(varint(len(body))))),
            known,
            within,
            st.sampled_from([1, 1, 1, 5, 6]),
        ),
        st.builds(
            lambda number, body, more: varint(number << 3 | 3) + body + varint(number + more << 3 | 4),
            known,
            within,
            st.sampled_from([0, 0, 0, 1]),
        ),
        st.lists(within, max_size=3).map(b"".join),
    )


@settings(max_examples=1000)
@given(feed=st.sampled_from(FEEDS), data=st.recursive(st.lists(TOKENS, max_size=6).map(b"".join), around, max_leaves=8))
def test_any_pieces(go: Printer, feed: int, data: bytes) -> None:
    same(go, feed, data)


ENTRIES = st.lists(
    st.one_of(
        st.builds(field, st.sampled_from([1, 1, 2, 2, 3]), st.sampled_from([b"", b"k", b"kk", b"\xc3\xa9", b"\xff"])),
        st.sampled_from(
            [b"\x08\x05", b"\x10\x05", b"\x18\x05", b"\x0d1234", b"\x1b\x1c", b"\x0b\x0c", b"\x13\x08\x01\x14"]
        ),
    ),
    max_size=4,
).map(b"".join)


@settings(max_examples=500)
@given(st.lists(ENTRIES, max_size=6))
def test_any_map(go: Printer, entries: list[bytes]) -> None:
    """Keys and values that are missing, repeated, of another wire type, and among unknown fields."""
    assert same(go, LOGS, b"".join(field(EVENT_DATA, entry) for entry in entries))


@settings(max_examples=500)
@given(st.lists(st.one_of(st.sampled_from(EDGES).map(lambda byte: bytes([byte])), st.binary(max_size=3)), max_size=12))
def test_any_text(go: Printer, pieces: list[bytes]) -> None:
    """UTF-8 or not: as a text, in a list, and as key and value of a map."""
    text = b"".join(pieces)
    assert same(go, LOGS, field(RESULT, text) + field(EVENT_DATA, field(1, text) + field(2, text)))
    assert same(go, ALERTS, field(ATAGS, text) * 2)


# Single doubts -------------------------------------------------------------------------------------


def test_an_entry_with_other_fields_in_it_is_kept(go: Printer) -> None:
    """Other parsers (upb) drop it."""
    group = varint(UNKNOWN << 3 | 3) + field(1, b"no") + varint(UNKNOWN << 3 | 4)
    for other in (field(3, b"x"), varint(1 << 3) + b"\x05", varint(2 << 3) + b"\x05", group):
        for entry in (other + field(1, b"k") + field(2, b"v"), field(1, b"k") + field(2, b"v") + other):
            assert same(go, LOGS, field(EVENT_DATA, entry)) == '{"PPID":0,"UID":0,"EventData":{"k":"v"}}'


def test_keys_that_differ_where_they_are_not_utf8(go: Printer) -> None:
    """They are printed alike, and are two."""
    entries = [field(EVENT_DATA, field(1, key) + field(2, key)) for key in (b"\xfe", b"\xff", b"\xef\xbf\xbd")]
    assert same(go, LOGS, b"".join(entries)).count("\\ufffd") == 4


@pytest.mark.parametrize("value", [-1, 2**31, 2**32, 2**32 + 7, -(2**31), 2**63, 2**64 - 1, 2**40 - 1])
@pytest.mark.parametrize("size", [1, 10])
def test_numbers(go: Printer, value: int, size: int) -> None:
    body = spelled(value % 2**64, size)
    assert same(go, LOGS, varint(UID << 3) + body + varint(1 << 3) + body)


def test_fields_of_no_number_and_groups_without_a_start(go: Printer) -> None:
    for data in (b"\x00\x05", b"\x02\x00", b"\x04", b"\x0c", b"\x0b\x14", b"\x0b", b"\x0e", b"\x0f"):
        assert not same(go, LOGS, data)
        assert not same(go, LOGS, field(OWNER, data))
        assert not same(go, LOGS, field(EVENT_DATA, data))
        assert same(go, LOGS, field(UNKNOWN, data))


def test_a_message_in_parts(go: Printer) -> None:
    parts = [field(1, b"a"), field(2, b"b"), field(1, b""), b"", field(9, b"no"), field(3, b"c"), field(2, b"d")]
    data = b"".join(field(OWNER, part) + varint(UID << 3) + bytes([at]) for at, part in enumerate(parts))
    assert same(go, LOGS, data) == '{"Owner":{"Name":"d","Namespace":"c"},"PPID":0,"UID":6}'


def test_a_large_event(go: Printer) -> None:
    entries = b"".join(field(EVENT_DATA, field(1, str(i * 7919 % 5000).encode()) + field(2, b"<")) for i in range(9999))
    assert len(same(go, LOGS, entries + field(RESULT, b"\x01" * 2**20, 3))) > 6 * 2**20
