"""The transcoder against its oracle: events as Go's encoding/json prints them."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import shown
from hypothesis import given, settings
from hypothesis import strategies as st
from unit import oracle_json
from unit.oracle_messages import Made, events, mutated
from unit.oracle_repair import varint
from unit.oracle_scan import CLASSES

from relay import kubearmor_pb2 as pb
from relay.feeds import ALERTS, FEEDS, LOGS, MESSAGES

SCRIPTS = Path(__file__).parents[2] / "scripts"
OWNER, EVENT_DATA, UID, RESULT, UNKNOWN = 24, 33, 12, 18, 100  # of a log
ATAGS = 30  # of an alert
feeds = pytest.mark.parametrize("feed", FEEDS)


def field(number: int, body: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(body)) + body


def number(of: int, value: int, longest: int = 0) -> bytes:
    return varint(of << 3) + varint(value % 2**64, longest) if longest else varint(of << 3) + varint(value % 2**64)


def log(data: bytes) -> str:
    """A log as text; the two numbers that every log has are left out."""
    made: bytes = shown.json_event(LOGS, data)
    assert made == oracle_json.event(LOGS, data)
    return made.decode().replace('"PPID":0,"UID":0', "")


# Random events -------------------------------------------------------------------------------------

# What is escaped, or nearly; every plane.
CHARACTERS = st.one_of(
    st.sampled_from(
        '"\\/<>&\x00\x08\x09\x0a\x0b\x0c\x0d\x1b\x1f \x7f\x80\u2027\u2028\u2029\u202a\ufffd\ufeff\U0010ffff'
    ),
    st.characters(exclude_categories=["Cs"]),
    st.characters(min_codepoint=0x10000),
)
TEXTS = st.one_of(
    st.text(CHARACTERS, max_size=40),
    st.builds(lambda size, end: "a" * size + end, st.integers(0, 40), st.text(CHARACTERS, max_size=4)),
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "text": TEXTS,
    "int32": st.one_of(st.integers(-(2**31), 2**31 - 1), st.sampled_from([0, 1, -1, 99, 100, 2**31 - 1, -(2**31)])),
    "int64": st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63)])),
}


@st.composite
def filled(draw: st.DrawFn, of: Any) -> Any:
    """A message with any of its fields set."""
    message = of()
    for entry in of.DESCRIPTOR.fields:
        if not draw(st.booleans()):
            continue
        if entry.type == entry.TYPE_MESSAGE and entry.message_type.GetOptions().map_entry:
            getattr(message, entry.name).update(draw(st.dictionaries(TEXTS, TEXTS, max_size=20)))
        elif entry.type == entry.TYPE_MESSAGE:
            getattr(message, entry.name).CopyFrom(draw(filled(getattr(pb, entry.message_type.name))))
        elif entry.is_repeated:
            getattr(message, entry.name).extend(draw(st.lists(TEXTS, max_size=4)))
        else:
            kind = {entry.TYPE_INT32: "int32", entry.TYPE_INT64: "int64"}.get(entry.type, "text")
            setattr(message, entry.name, draw(VALUES[kind]))
    return message


@feeds
@settings(max_examples=150)
@given(data=st.data())
def test_any_message(feed: int, data: st.DataObject) -> None:
    message = data.draw(filled(CLASSES[feed]))
    made = shown.json_event(feed, message.SerializeToString())
    assert made == oracle_json.printed(message)
    assert b"\n" not in made
    # What a parser of JSON reads from it is what is in the message.
    read = json.loads(made)
    for key, value in read.items():
        if isinstance(value, str):
            assert value == getattr(message, key)


@feeds
@settings(max_examples=200)
@given(data=st.data())
def test_any_spelling_on_the_wire(feed: int, data: st.DataObject) -> None:
    """Fields in any order, repeated, unknown, of other wire types, with over-long numbers; UTF-8 or not."""
    made: Made = data.draw(events(feed))
    assert shown.json_event(feed, made.raw) == oracle_json.event(feed, made.raw)
    assert shown.json_event(feed, made.repaired) == oracle_json.event(feed, made.repaired)


@feeds
@settings(max_examples=200)
@given(data=st.data())
def test_any_bytes(feed: int, data: st.DataObject) -> None:
    """Malformed exactly where the scanner says so; well-formed, and of the oracle's, everywhere else."""
    raw = data.draw(st.one_of(mutated(feed), st.binary(max_size=60)))
    made = shown.json_event(feed, raw)
    assert made == oracle_json.event(feed, raw)
    if isinstance(made, bytes):
        json.loads(made.decode())


@pytest.mark.parametrize(
    ("data", "printed"),
    [
        (b"\xff", "*"),
        (b"a\x80b", "a*b"),
        (b"\xe2\x80", "**"),  # the beginning of a line separator
        (b"\xe2\x80<", "**\\u003c"),
        (b"\xf0\x9f\x98", "***"),
        (b"\xed\xa0\x80", "***"),  # a surrogate
        (b"\xc0\xaf\xf4\x90\x80\x80", "******"),
        (b"\xc3\xa9\xc3", "é*"),
        (b"\xef\xbf\xbd", "\ufffd"),  # the replacement itself is a character like any other
    ],
)
def test_bytes_that_are_not_utf8(data: bytes, printed: str) -> None:
    """Each is replaced: in a text, in a list, and in a map, where keys that are printed alike stay two."""
    text = printed.replace("*", "\\ufffd")
    assert log(field(RESULT, data)) == f'{{,"Result":"{text}"}}'
    assert log(field(EVENT_DATA, field(1, data) + field(2, data))) == f'{{,"EventData":{{"{text}":"{text}"}}}}'
    made = shown.json_event(ALERTS, field(ATAGS, data) + field(ATAGS, b"x" + data))
    assert made.decode() == f'{{"PPID":0,"UID":0,"ATags":["{text}","x{text}"]}}'
    entries = [field(EVENT_DATA, field(1, key) + field(2, data)) for key in (b"\xff", b"\xfe", b"\xff")]
    assert log(b"".join(entries)) == f'{{,"EventData":{{"\\ufffd":"{text}","\\ufffd":"{text}"}}}}'


# Texts ----------------------------------------------------------------------------------------------


@given(st.binary(max_size=80))
def test_any_text(data: bytes) -> None:
    expected = oracle_json.text(data.decode(errors="surrogateescape"))[1:-1]
    assert shown.json_text(data).decode() == expected


def test_every_byte_at_every_place() -> None:
    for byte in range(256):
        for size in (1, 2, 15, 16, 17, 31, 32, 33, 48):
            for at in (0, size // 2, size - 1):
                data = bytearray(b"x" * size)
                data[at] = byte
                expected = oracle_json.text(bytes(data).decode(errors="surrogateescape"))[1:-1]
                assert shown.json_text(bytes(data)).decode() == expected


def test_every_character() -> None:
    """In runs, and each behind a letter."""
    every = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    for start in range(0, len(every), 4096):
        part = every[start : start + 4096]
        for between in ("", "a"):
            whole = between.join(part)
            assert shown.json_text(whole.encode()).decode() == oracle_json.text(whole)[1:-1]


@given(st.binary(min_size=16, max_size=16))
def test_marks_are_found_without_vectors_too(data: bytes) -> None:
    """On processors without SSE2 the same bits come from words."""
    special = {*b'"\\<>&'}
    expected = sum(1 << at for at, byte in enumerate(data) if byte < 0x20 or byte >= 0x80 or byte in special)
    assert shown.json_marks(data) == (expected, expected)


def test_marks_of_every_byte() -> None:
    for byte in range(256):
        for at in range(16):
            for around in b"\x00\x1fa\x7f\x80\xff":
                data = bytearray([around] * 16)
                data[at] = byte
                one, other = shown.json_marks(bytes(data))
                assert one == other


@given(st.one_of(st.integers(-(2**63), 2**64 - 1), st.integers(0, 20000)))
def test_any_number(value: int) -> None:
    assert shown.json_number(value) == str(value).encode()


def test_numbers_of_every_length() -> None:
    for digits in range(20):
        for value in (10**digits - 1, 10**digits, 10**digits + 1):
            assert shown.json_number(value) == str(value).encode()
            if value < 2**63:
                assert shown.json_number(-value) == str(-value).encode()


# What Go prints ---------------------------------------------------------------------------------------


def test_empty_events() -> None:
    assert shown.json_event(LOGS, b"") == b'{"PPID":0,"UID":0}'
    assert shown.json_event(ALERTS, b"") == b'{"PPID":0,"UID":0}'
    assert shown.json_event(MESSAGES, b"") == b"{}"


def test_the_order_of_declaration() -> None:
    """On the wire the fields come by number, and Owner is field 24."""
    event = pb.Log(Timestamp=1, NamespaceName="ns", Owner=pb.Podowner(Name="web"), PodName="pod", HostPID=5)
    text = log(event.SerializeToString())
    assert text == '{"Timestamp":1,"NamespaceName":"ns","Owner":{"Name":"web"},"PodName":"pod","HostPID":5,}'.replace(
        ",}", ",}"
    )


def test_a_set_but_empty_message_is_printed() -> None:
    assert log(field(OWNER, b"")) == '{"Owner":{},}'
    assert log(pb.Log(ExecEvent=pb.ExecEvent()).SerializeToString()) == '{,"ExecEvent":{}}'


def test_lists_and_maps_of_empty_texts_are_printed() -> None:
    assert shown.json_event(ALERTS, pb.Alert(ATags=[""]).SerializeToString()) == b'{"PPID":0,"UID":0,"ATags":[""]}'
    assert log(pb.Log(EventData={"": ""}).SerializeToString()) == '{,"EventData":{"":""}}'
    assert log(field(EVENT_DATA, b"")) == '{,"EventData":{"":""}}'


def test_escapes() -> None:
    event = pb.Log(Result='"\\/<>&\u2028\u2029\b\f\n\r\t\0\x1b\x7f')
    assert log(event.SerializeToString()) == (
        '{,"Result":"\\"\\\\/\\u003c\\u003e\\u0026\\u2028\\u2029\\b\\f\\n\\r\\t\\u0000\\u001b\x7f"}'
    )


def test_keys_of_maps_are_sorted_by_their_bytes() -> None:
    keys = ["b", "a", "aa", "", "é", "Z", "\U0001f600", "\uffff"]
    event = pb.Log(EventData=dict.fromkeys(keys, "v"))
    printed = json.loads(shown.json_event(LOGS, event.SerializeToString()))["EventData"]
    assert list(printed) == sorted(keys, key=str.encode)


def test_the_last_value_of_a_key_counts() -> None:
    def entry(key: str, value: str) -> bytes:
        return field(EVENT_DATA, field(1, key.encode()) + field(2, value.encode()))

    assert log(entry("k", "1") + entry("j", "2") + entry("k", "3")) == '{,"EventData":{"j":"2","k":"3"}}'
    # An entry without a value has the empty one, and counts as well.
    assert log(entry("k", "1") + field(EVENT_DATA, field(1, b"k"))) == '{,"EventData":{"k":""}}'
    assert log(field(EVENT_DATA, field(1, b"k")) + entry("k", "1")) == '{,"EventData":{"k":"1"}}'


def test_keys_and_values_in_an_entry_in_any_number_and_order() -> None:
    assert log(field(EVENT_DATA, field(2, b"v") + field(1, b"a") + field(2, b"w") + field(1, b"b"))) == (
        '{,"EventData":{"b":"w"}}'
    )
    assert log(field(EVENT_DATA, field(2, b"v"))) == '{,"EventData":{"":"v"}}'
    assert log(field(EVENT_DATA, number(1, 5) + field(3, b"x") + number(2, 5))) == '{,"EventData":{"":""}}'


@pytest.mark.parametrize("count", [2, 11, 12, 13, 14, 100, 3000])
def test_many_entries(count: int) -> None:
    """Sorted in more ways than one; keys come three times, and the third counts."""
    entries = b"".join(
        field(EVENT_DATA, field(1, str(i * 7919 % count).encode()) + field(2, str(i).encode()))
        for i in range(3 * count)
    )
    printed = json.loads(shown.json_event(LOGS, entries))["EventData"]
    assert log(entries)
    assert len(printed) == count
    assert all(int(value) >= 2 * count for value in printed.values())
    assert list(printed) == sorted(printed)


def test_parts_of_a_message_are_merged() -> None:
    owner = field(1, b"Deployment") + field(2, b"web")
    parts = (
        field(OWNER, owner[:12]) + field(RESULT, b"Passed") + field(OWNER, owner[12:]) + field(OWNER, field(2, b"db"))
    )
    assert log(parts) == '{"Owner":{"Ref":"Deployment","Name":"db"},,"Result":"Passed"}'
    assert log(field(OWNER, owner) + field(OWNER, field(1, b""))) == '{"Owner":{"Name":"web"},}'


def test_the_last_of_repeated_scalars_counts() -> None:
    assert log(field(RESULT, b"a") + field(RESULT, b"b")) == '{,"Result":"b"}'
    assert log(field(RESULT, b"a") + field(RESULT, b"")) == "{}"
    assert shown.json_event(LOGS, number(UID, 5) + number(UID, 0)) == b'{"PPID":0,"UID":0}'


@pytest.mark.parametrize(
    ("value", "printed"),
    [(-1, -1), (2**31, -(2**31)), (2**32 + 7, 7), (-(2**31), -(2**31)), (2**63, 0), (2**64 - 2**31 - 1, 2**31 - 1)],
)
def test_int32_is_cut(value: int, printed: int) -> None:
    assert shown.json_event(LOGS, number(UID, value)) == f'{{"PPID":0,"UID":{printed}}}'.encode()
    assert oracle_json.event(LOGS, number(UID, value)) == f'{{"PPID":0,"UID":{printed}}}'.encode()


def test_numbers_may_be_longer_than_needed() -> None:
    assert (
        shown.json_event(LOGS, varint(UID << 3) + b"\x85\x80\x80\x80\x80\x80\x80\x80\x80\x00") == b'{"PPID":0,"UID":5}'
    )
    assert shown.json_event(LOGS, b"\x08" + b"\xff" * 9 + b"\x01") == b'{"Timestamp":-1,"PPID":0,"UID":0}'


def test_other_wire_types_and_unknown_fields_are_not_printed() -> None:
    group = varint(UNKNOWN << 3 | 3) + field(RESULT, b"no") + varint(UNKNOWN << 3 | 4)
    for data in (
        number(RESULT, 5),
        number(OWNER, 5),
        number(EVENT_DATA, 5),
        field(UID, b"\x05"),
        varint(RESULT << 3 | 5) + b"1234",
        varint(UID << 3 | 1) + b"12345678",
        varint(OWNER << 3 | 3) + varint(OWNER << 3 | 4),
        field(UNKNOWN, b"no"),
        field(63, b"no"),
        field(64 + RESULT, b"no"),
        group,
    ):
        assert log(data) == "{}"
    assert log(field(OWNER, field(9, b"no") + group)) == '{"Owner":{},}'


@pytest.mark.parametrize("data", [b"\x08", b"\xff", field(OWNER, b"\x0a\x05"), field(EVENT_DATA, b"\x0a"), b"\x0c"])
def test_malformed_events(data: bytes) -> None:
    """Also where something was printed already."""
    assert shown.json_event(LOGS, field(4, b"host") + data) == "STATUS_MALFORMED"


@pytest.mark.parametrize(("within", "deepest"), [(None, 99), (OWNER, 98), (EVENT_DATA, 98), (UNKNOWN, 1000)], ids=str)
def test_groups_in_groups(within: int | None, deepest: int) -> None:
    """As deep as the scanner lets them be, beneath the event; bytes of an unknown field are not looked into."""

    def event(depth: int) -> bytes:
        body = varint(UNKNOWN << 3 | 3) * depth + varint(UNKNOWN << 3 | 4) * depth
        return field(within, body) if within else body

    assert isinstance(shown.json_event(LOGS, event(deepest)), bytes)
    assert shown.json_event(LOGS, event(deepest)) == oracle_json.event(LOGS, event(deepest))
    if within != UNKNOWN:
        assert shown.json_event(LOGS, event(deepest + 1)) == "STATUS_MALFORMED"
        assert oracle_json.event(LOGS, event(deepest + 1)) == "STATUS_MALFORMED"


# Bounds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [100, 600, 4090, 5000, 60_000])
@pytest.mark.parametrize("body", [b"\x01", b"a", b"\xff", "\u2028".encode(), b"<a"], ids=repr)
def test_the_most_that_an_event_prints(size: int, body: bytes) -> None:
    """Every kind of text, at the sizes around which the bound is found in another way. The debug build asserts it."""
    text = body * (size // len(body))
    for data in (
        field(RESULT, text),
        field(EVENT_DATA, field(1, text)),
        field(EVENT_DATA, b"") * size,
        field(EVENT_DATA, field(1, body)) * (size // 3),
        field(OWNER, field(1, text)),
    ):
        assert json.loads(shown.json_event(LOGS, data).decode())
    for data in (field(ATAGS, b"") * size, field(ATAGS, body) * (size // 3)):
        assert json.loads(shown.json_event(ALERTS, data).decode())


def test_numbers_at_their_longest() -> None:
    event = b"".join(
        number(entry.number, -(2**63) if entry.type == entry.TYPE_INT64 else -(2**31))
        for entry in pb.Alert.DESCRIPTOR.fields
        if entry.type in (entry.TYPE_INT32, entry.TYPE_INT64)
    )
    made = shown.json_event(ALERTS, event)
    assert made == oracle_json.event(ALERTS, event)
    assert len(made) < shown.JSON_MOST


def test_memory_that_runs_out() -> None:
    """Each allocation fails once: the status says so, and the next event is printed."""
    event = b"".join(field(EVENT_DATA, field(1, str(i).encode())) for i in range(200))
    failures = 0
    for count in range(1, 20):
        one = shown.Json()
        one.fail_at(count)
        made = one.event(LOGS, event)
        if made == "STATUS_NO_MEMORY":
            failures += 1
            made = one.event(LOGS, event)
        assert made == oracle_json.event(LOGS, event)
        assert one.free() == 0
    assert failures == 5  # the buffer, items three times, entries


def test_room_for_a_huge_map_is_given_back() -> None:
    one = shown.Json()
    one.event(LOGS, field(EVENT_DATA, b"") * 10)
    kept = one.blocks
    one.event(LOGS, field(EVENT_DATA, b"") * (shown.JSON_KEPT * 2))
    assert one.blocks == kept - 2
    assert one.event(LOGS, b"") == b'{"PPID":0,"UID":0}'


def test_an_event_in_too_many_parts_is_refused() -> None:
    """The event itself is one part."""
    entries = field(EVENT_DATA, b"") * (shown.JSON_ITEMS - 1)
    one = shown.Json()
    kept = one.blocks
    assert one.event(LOGS, entries) == oracle_json.event(LOGS, entries)
    assert one.event(LOGS, entries + field(EVENT_DATA, b"")) == "STATUS_OVERSIZE"
    assert one.event(LOGS, b"") == b'{"PPID":0,"UID":0}'
    assert one.blocks == kept + 2  # the buffer, and room for few items
    assert one.free() == 0


# The table -----------------------------------------------------------------------------------------


def load() -> ModuleType:
    sys.path.insert(0, str(SCRIPTS))
    try:
        spec = importlib.util.spec_from_file_location("make_json_table", SCRIPTS / "make_json_table.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(SCRIPTS))
    return module


make_json_table = load()


def table(folder: Path, fields: str, more: str = "") -> str:
    source = folder / "given.proto"
    source.write_text(
        f'syntax = "proto3"; package feeder; message Message {{}} message Alert {{}} message Log {{ {fields} }} {more}'
    )
    text: str = make_json_table.table(make_json_table.read_types(source))
    return text


def test_a_new_field_is_a_new_row(tmp_path: Path) -> None:
    text = table(
        tmp_path,
        "string b = 4; bool a = 2; map<string, string> m = 9; repeated string r = 5; Sub s = 6; int32 UID = 7;",
        "message Sub { uint64 n = 1; }",
    )
    rows = [line.strip() for line in text.splitlines() if line.strip().startswith('{",')]
    assert rows == [
        r'{",\"b\":\"", 6, JSON_STRING, 0, 4},',
        r'{",\"a\":", 5, JSON_BOOL, 0, 2},',
        r'{",\"m\":{", 6, JSON_MAP, 0, 9},',
        r'{",\"r\":[", 6, JSON_STRINGS, 0, 5},',
        r'{",\"s\":", 5, JSON_MESSAGE, 3, 6},',
        r'{",\"UID\":", 7, JSON_INT32, 0, 7},',
        r'{",\"n\":", 5, JSON_UINT64, 0, 1},',
    ]
    assert "UINT64_C(0x20)" in text
    assert "[4] = 1, [2] = 2, [9] = 3, [5] = 4, [6] = 5, [7] = 6" in text


@pytest.mark.parametrize(
    ("fields", "more", "told"),
    [
        ("optional string name = 4;", "", "Log.name tells unset from empty"),
        ("oneof one { string name = 4; }", "", "Log.name tells unset from empty"),
        ("map<string, int32> counts = 4;", "", "Log.counts is a map of other things than strings"),
        ("repeated Sub subs = 4;", "message Sub {}", "Log.subs is a list of messages"),
        ("bytes raw = 4;", "", "Log.raw is a TYPE_BYTES"),
        ("double share = 4;", "", "Log.share is a TYPE_DOUBLE"),
        ("sint32 less = 4;", "", "Log.less is a TYPE_SINT32"),
        ("repeated int32 many = 4;", "", "Log.many is a TYPE_INT32, repeated"),
        ("Sub sub = 4;", "message Sub { Sub sub = 1; }", "contains itself"),
        ("string UID = 4;", "", "Log.UID is printed in any case and no number"),
        (f"string {'n' * 70} = 4;", "", "has a long name"),
        ("string far = 5000;", "", "field number 5000"),
        (" ".join(f"string f{i} = {i};" for i in range(1, 66)), "", "a message has 65 fields"),
    ],
)
def test_what_cannot_be_printed_is_refused(tmp_path: Path, fields: str, more: str, told: str) -> None:
    with pytest.raises(SystemExit, match=told):
        table(tmp_path, fields, more)
