"""Enrichment of logs against two oracles, as ingest does it: by scan, by shape, and of what had to be repaired."""

import ipaddress

import pytest
import shown
from hypothesis import assume, example, given
from hypothesis import strategies as st
from unit import oracle_enrich, oracle_scan
from unit.oracle_enrich import DATA, RESOURCE, SPACES
from unit.oracle_messages import EDGES, blobs, events, groups, messages, mutated, scalars, tags, varints
from unit.oracle_repair import varint
from unit.oracle_scan import BYTES, CLASSES, MALFORMED, OK, REPAIR
from unit.test_ip import TEXTS, address

from relay import kubearmor_pb2 as pb
from relay.feeds import ALERTS, FEEDS, LOGS, MESSAGES

LIMIT = 4096
HOSTS = {
    "10.1.2.3": "pod/default/web-0",
    "10.0.0.1": "svc/default/kubernetes",
    "0.0.0.0": "n",
    "fd00::1": "pod/shop/" + "long-" * 40,
    "::": "größe/日本",
}
NAMES = {address(text): name for text, name in HOSTS.items()}
TABLE = [(each, name.encode()) for each, name in NAMES.items()]
TCP = "kprobe=tcp_connect domain=AF_INET"


def taken(ingest: shown.Ingest, feed: int, event: bytes) -> bytes | None:
    """What the journal has of an event, the same whether it is scanned or recognised; None when it was skipped."""
    ingest.shapes_free(feed)
    first = ingest.take(feed, event)
    assert ingest.take(feed, event) == first
    return None if isinstance(first, int) else first


def resource(text: str, data: str = TCP) -> str:
    """What becomes of a Resource."""
    event = pb.Log(Timestamp=1, Resource=text, Data=data, Result="Passed").SerializeToString()
    log = pb.Log.FromString(taken(shown.Ingest(TABLE), LOGS, event))
    assert (log.Timestamp, log.Data, log.Result) == (1, data, "Passed")
    assert log == oracle_enrich.enriched_log(event, NAMES)
    return log.Resource.removeprefix(text)


# What decides ---------------------------------------------------------------------------------

KNOWN = " remotehost=pod/default/web-0"


@pytest.mark.parametrize(
    "text",
    [
        "remoteip=10.1.2.3",
        "remoteip=10.1.2.3 port=443 protocol=TCP",
        "sa_family=AF_INET sin_port=53 remoteip=10.1.2.3",
        "xremoteip=10.1.2.3",
        "remoteip=::ffff:10.1.2.3",
        "remoteip=::FFFF:a01:203",
        "remoteip=0:0:0:0:0:ffff:10.1.2.3",
        "remoteip=fe80::1%eth0 remoteip=10.1.2.3",
        "remoteip= remoteip=10.1.2.3",
        "remoteip remoteip=10.1.2.3",
        "a=b=c\tremoteip=10.1.2.3\n",
        "\u00e9remoteip=10.1.2.3",
        "  remoteip=10.1.2.3  ",
        "remoteip=10.1.2.3 remoteip=9.9.9.9",
    ],
)
def test_the_first_field_with_an_address_decides(text: str) -> None:
    assert resource(text) == KNOWN


@pytest.mark.parametrize(
    "text",
    [
        "",
        "remoteip=",
        "remoteip=9.9.9.9",
        "remoteip=9.9.9.9 remoteip=10.1.2.3",
        "remoteip=010.1.2.3",
        "remoteip=10.1.2.3:80",
        "remoteip=10.1.2.3,",
        "remoteip=[::ffff:10.1.2.3]",
        "remoteip==10.1.2.3",
        "remoteip=remoteip=10.1.2.3",
        "a=remoteip=10.1.2.3",
        "remoteip=x=10.1.2.3",
        "remoteip 10.1.2.3",
        "remoteip =10.1.2.3",
        "RemoteIP=10.1.2.3",
        "emoteip=10.1.2.3",
        "remoteip=10.1.2.3\u200b",
        "remoteip=10.1.2.3\u180e",
        "remoteip=10.1.2.3\x1c",
        "remoteip=10.1.2.3\0",
        "remoteip:10.1.2.3",
    ],
)
def test_others_do_not(text: str) -> None:
    assert resource(text) == ""


@pytest.mark.parametrize("space", SPACES, ids=lambda space: f"U+{ord(space):04X}")
def test_fields_are_cut_at_every_white_space_of_unicode(space: str) -> None:
    assert resource(f"x{space}remoteip=10.1.2.3{space}y") == KNOWN
    assert resource(f"{space}remoteip=10.1.2.3") == KNOWN
    assert resource(f"remoteip=10.1.2.3{space}") == KNOWN


def test_the_white_space_of_the_oracle_is_that_of_unicode() -> None:
    """Python's own differs by four control characters, which only str.isspace() takes for spaces."""
    assert set(SPACES) == {chr(code) for code in range(0x110000) if chr(code).isspace()} - set("\x1c\x1d\x1e\x1f")


@given(st.text(max_size=30), st.sampled_from(["remoteip=10.1.2.3", "remoteip=", "10.1.2.3", "=", "remoteip=::"]), TEXTS)
def test_agrees_with_the_oracle_on_any_resource(before: str, middle: str, after: str) -> None:
    assume(all(not 0xD800 <= ord(letter) < 0xE000 for letter in before + after))
    text = before + middle + after
    assert resource(text) == oracle_enrich.suffix(text, TCP, NAMES)


# Whether Data has `tcp_` ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", ["tcp_", "tcp_connect", "kprobe=tcp_accept", "x" * 200 + "tcp_", "ttcp_p", "TCP tcp_é"]
)
def test_logs_of_tcp_are_concerned(data: str) -> None:
    assert resource("remoteip=10.1.2.3", data) == KNOWN


@pytest.mark.parametrize(
    "data", ["", "tcp", "tcp-", "TCP_", "tc_p", "tcpp_", "udp_sendmsg", "t_p_c_", "x" * 200 + "tcp"]
)
def test_other_logs_are_not(data: str) -> None:
    assert resource("remoteip=10.1.2.3", data) == ""


@given(
    head=st.text(alphabet="tcp_x", max_size=90), tail=st.text(alphabet="tcp_x", max_size=90), size=st.integers(0, 300)
)
@example(head="x" * 63 + "tcp", tail="_", size=0)
@example(head="x" * 64, tail="tcp_", size=0)
@example(head="x" * 65, tail="tcp_", size=63)
def test_nothing_behind_data_counts(head: str, tail: str, size: int) -> None:
    """Wherever it ends, and however much may be read behind it."""
    text = (head + tail).encode()
    room = b"tcp_" * (size // 4)
    assert shown.tcp_within(text + room, len(text)) == ("tcp_" in head + tail)
    assert shown.tcp_within(text, len(text)) == ("tcp_" in head + tail)
    assert shown.tcp_within(head.encode() + tail.encode(), len(head)) == ("tcp_" in head)


# The bytes ------------------------------------------------------------------------------------


def field(number: int, body: bytes, size: int = 1) -> bytes:
    """A field whose length takes at least `size` bytes."""
    return varint(number << 3 | BYTES) + varint(len(body), size) + body


CONCERNED = field(DATA, b"tcp_")
HOST = b" remotehost=pod/default/web-0"


@pytest.mark.parametrize("length", range(1, 6))
def test_the_length_is_written_anew_and_all_else_stays(length: int) -> None:
    """Unknown fields of all kinds, over-long numbers, and the tag of Resource itself."""
    odd = b"\x08\x81\x00" + varint(100 << 3 | 3) + b"\x08\x01" + varint(100 << 3 | 4, 5) + field(200, b"\xff\x00", 4)
    tag = varint(RESOURCE << 3 | BYTES, 5)
    body = b"remoteip=10.1.2.3"
    event = odd + CONCERNED + tag + varint(len(body), length) + body + odd
    expected = odd + CONCERNED + tag + varint(len(body + HOST)) + body + HOST + odd
    assert taken(shown.Ingest(TABLE), LOGS, event) == expected


@pytest.mark.parametrize("size", [97, 98, 99, 100, 127, 128, 129])
def test_a_length_may_grow_by_a_byte(size: int) -> None:
    body = b"remoteip=10.1.2.3 ".ljust(size, b"x")
    expected = CONCERNED + field(RESOURCE, body + HOST) + b"\x08\x01"
    assert taken(shown.Ingest(TABLE), LOGS, CONCERNED + field(RESOURCE, body) + b"\x08\x01") == expected


def test_of_repeated_fields_the_last_counts_and_is_edited() -> None:
    ingest = shown.Ingest(TABLE)
    known, other = field(RESOURCE, b"remoteip=10.1.2.3"), field(RESOURCE, b"remoteip=9.9.9.9")
    enriched = field(RESOURCE, b"remoteip=10.1.2.3" + HOST)
    assert taken(ingest, LOGS, known + CONCERNED + known) == known + CONCERNED + enriched
    assert taken(ingest, LOGS, other + CONCERNED + known) == other + CONCERNED + enriched
    for same in (
        known + CONCERNED + other,
        known + CONCERNED + field(DATA, b""),
        known + field(RESOURCE, b"") + CONCERNED,
    ):
        assert taken(ingest, LOGS, same) == same
    assert taken(ingest, LOGS, field(DATA, b"udp_") + known + CONCERNED) == field(DATA, b"udp_") + enriched + CONCERNED


@pytest.mark.parametrize(
    "unknown",
    [b"\x80\x01\x05", b"\x81\x01remoteip", b"\x85\x01remo", b"\x83\x01\x84\x01", b"\x88\x01\x05", b"\x8b\x01\x8c\x01"],
    ids=["varint", "fixed64", "fixed32", "group", "Data varint", "Data group"],
)
def test_with_another_wire_type_they_are_unknown_fields(unknown: bytes) -> None:
    known = CONCERNED + field(RESOURCE, b"remoteip=10.1.2.3")
    enriched = CONCERNED + field(RESOURCE, b"remoteip=10.1.2.3" + HOST)
    assert taken(shown.Ingest(TABLE), LOGS, known + unknown) == enriched + unknown
    assert taken(shown.Ingest(TABLE), LOGS, unknown) == unknown


def test_fields_of_nested_messages_and_groups_do_not_count() -> None:
    both = CONCERNED + field(RESOURCE, b"remoteip=10.1.2.3")
    for event in (
        field(24, both),
        field(33, both),
        varint(100 << 3 | 3) + both + varint(100 << 3 | 4),
        field(99, both),
    ):
        assert taken(shown.Ingest(TABLE), LOGS, event) == event


@pytest.mark.parametrize("feed", [MESSAGES, ALERTS])
def test_other_feeds_stay_as_they_are(feed: int) -> None:
    fields = [field(number, b"remoteip=10.1.2.3 tcp_") for number in (8, 16, 17, 20, 21)]
    event = b"".join(fields[: 1 if feed == MESSAGES else None])
    assert taken(shown.Ingest(TABLE), feed, event) == event


def test_what_would_become_too_large_stays_as_it_is() -> None:
    head = CONCERNED + field(RESOURCE, b"remoteip=10.1.2.3")
    for spare in (len(HOST) - 1, len(HOST)):
        ingest = shown.Ingest(TABLE, LIMIT)
        rest = field(99, b"x" * (LIMIT - len(head) - spare - 4))
        event = head + rest
        assert len(event) == LIMIT - spare
        enriched = CONCERNED + field(RESOURCE, b"remoteip=10.1.2.3" + HOST) + rest
        assert taken(ingest, LOGS, event) == (enriched if spare == len(HOST) else event)
        assert ingest.enriched(LOGS) == (2 if spare == len(HOST) else 0)


def test_repaired_first_then_enriched() -> None:
    ingest = shown.Ingest(TABLE)
    event = CONCERNED + field(RESOURCE, b"\xff remoteip=10.1.2.3\xc2") + field(4, b"\xfe")
    bad = "\ufffd".encode()
    assert taken(ingest, LOGS, event) == CONCERNED + field(RESOURCE, bad + b" remoteip=10.1.2.3" + bad) + field(4, bad)
    event = CONCERNED + field(RESOURCE, b"\xff remoteip=10.1.2.3 \xc2") + field(4, b"\xfe")
    enriched = CONCERNED + field(RESOURCE, bad + b" remoteip=10.1.2.3 " + bad + HOST) + field(4, bad)
    assert taken(ingest, LOGS, event) == enriched
    assert (ingest.repaired(LOGS), ingest.enriched(LOGS)) == (4, 2)


@pytest.mark.parametrize("spare", [0, 1])
def test_where_memory_fails_it_passes_as_it_is(spare: int) -> None:
    """The segment that is begun has just room for what came, or lacks a byte; a new one is not to be had at once."""
    event = CONCERNED + field(RESOURCE, b"remoteip=10.1.2.3")
    room = shown.SEGMENT_BYTES - shown.SEGMENT_HEADER - (5 + len(event)) + spare
    filler = field(99, b"x" * (room - 5 - 2 - 3))
    ingest = shown.Ingest(TABLE)
    assert ingest.take(LOGS, filler) == filler
    ingest.fail_at(2)  # the first is for shapes
    assert ingest.take(LOGS, event) == event
    assert ingest.enriched(LOGS) == 0
    assert ingest.take(LOGS, event) == CONCERNED + field(RESOURCE, b"remoteip=10.1.2.3" + HOST)


def test_without_a_table_nothing_is_enriched() -> None:
    event = CONCERNED + field(RESOURCE, b"remoteip=10.1.2.3")
    assert taken(shown.Ingest(), LOGS, event) == event
    assert taken(shown.Ingest([]), LOGS, event) == event


# Any bytes ------------------------------------------------------------------------------------

SPELLINGS = [*HOSTS, "9.9.9.9", "::FFFF:10.1.2.3", "::ffff:a00:1", "010.1.2.3", "fd00:0::1", "fd00::1%eth0", ""]
TOKENS = st.one_of(
    st.sampled_from(SPELLINGS).map(lambda text: f"remoteip={text}".encode()),
    st.sampled_from([b"port=443", b"xremoteip=10.1.2.3", b"a=remoteip=::", b"remoteip", b"=", b"\xff", b"\xe2\x80"]),
    st.lists(st.sampled_from(EDGES), max_size=3).map(bytes),
)
GAPS = st.one_of(st.sampled_from(SPACES).map(str.encode), st.just(b" "), st.just(b""))
RESOURCES = st.lists(st.tuples(TOKENS, GAPS), max_size=4).map(lambda made: b"".join(a + b for a, b in made))
DATAS = st.one_of(
    st.sampled_from([b"tcp_", b"kprobe=tcp_connect", b"udp_", b"tcp", b"", b"x" * 70 + b"tcp_", b"tcp_\xff"])
)


@st.composite
def noted(draw: st.DrawFn, number: int, bodies: st.SearchStrategy[bytes]) -> bytes:
    body = draw(bodies)
    return draw(tags(number, BYTES)) + draw(varints(len(body), longest=5)) + body


@st.composite
def logs(draw: st.DrawFn) -> bytes:
    """Logs in which Resource and Data come any number of times, of any wire type, among anything else."""
    others = messages(pb.Log.DESCRIPTOR).map(lambda made: made.raw)
    numbers = st.sampled_from([RESOURCE, DATA])
    strangers = numbers.flatmap(lambda number: st.one_of(scalars(number), groups(number), blobs(99)))
    parts = st.one_of(noted(RESOURCE, RESOURCES), noted(DATA, DATAS), others, strangers.map(lambda made: made.raw))
    return b"".join(draw(st.lists(parts, max_size=6)))


INGESTS = [shown.Ingest(TABLE, LIMIT) for _ in FEEDS]


def agrees(feed: int, event: bytes) -> bytes | None:
    found = taken(INGESTS[feed], feed, event)
    assert found == oracle_enrich.taken(feed, event, NAMES, LIMIT)
    return found


@given(logs())
def test_agrees_with_the_oracle_on_logs(event: bytes) -> None:
    assume(len(event) <= LIMIT)
    found = agrees(LOGS, event)
    if found is not None and len(event) < LIMIT // 2 and oracle_scan.scan(LOGS, event) == OK:
        # And a subscriber reads what the other oracle would have written.
        assert pb.Log.FromString(found) == oracle_enrich.enriched_log(event, NAMES)


@given(st.data())
def test_agrees_with_the_oracle_on_logs_with_a_few_bytes_changed(data: st.DataObject) -> None:
    event = bytearray(data.draw(logs()))
    assume(0 < len(event) <= LIMIT)
    for at, byte in data.draw(
        st.lists(
            st.tuples(st.integers(0, len(event) - 1), st.one_of(st.sampled_from(EDGES), st.integers(0, 255))),
            max_size=4,
        )
    ):
        event[at] = byte
    agrees(LOGS, bytes(event))


@pytest.mark.parametrize("feed", FEEDS)
@given(data=st.data())
def test_agrees_with_the_oracle_on_anything(feed: int, data: st.DataObject) -> None:
    event = data.draw(
        st.one_of(st.binary(max_size=64), mutated(feed), events(feed).map(lambda made: made.raw)).filter(
            lambda event: len(event) <= LIMIT
        )
    )
    agrees(feed, event)


@given(event=logs(), text=st.sampled_from([b"10.1.2.3", b"9.9.9.99"]), other=st.sampled_from(["tcp_", "tcp-"]))
def test_an_event_that_is_recognised_is_treated_as_if_scanned(event: bytes, text: bytes, other: str) -> None:
    """The shape is learnt of one event; another of the same layout says something else."""
    assume(len(event) <= LIMIT)
    ingest = INGESTS[LOGS]
    ingest.shapes_free(LOGS)
    if isinstance(ingest.take(LOGS, event), int):
        return
    same = event.replace(b"10.1.2.3", text).replace(b"tcp_", other.encode())
    if len(same) == len(event):
        found = ingest.take(LOGS, same)
        assert (None if isinstance(found, int) else found) == oracle_enrich.taken(LOGS, same, NAMES, LIMIT)


def test_a_shape_forgets_where_the_strings_of_the_former_one_were() -> None:
    """Two layouts of one size take turns in a slot; only one of them has Data and Resource."""
    ingest = shown.Ingest(TABLE)
    other = field(18, b"tcp_") + field(19, b"remoteip=10.1.2.3")
    event = field(DATA, b"tcp_") + field(RESOURCE, b"remoteip=10.1.2.3")
    enriched = field(DATA, b"tcp_") + field(RESOURCE, b"remoteip=10.1.2.3" + HOST)
    for _ in range(4):
        for _ in range(2 * shown.SHAPE_PATIENCE):
            assert ingest.take(LOGS, event) == enriched
        for _ in range(2 * shown.SHAPE_PATIENCE):
            assert ingest.take(LOGS, other) == other


def test_the_oracles_know_an_address_in_any_spelling() -> None:
    """Both take addresses, not text, for what is known (unlike the Go relay)."""
    assert oracle_enrich.host("remoteip=::ffff:10.1.2.3", NAMES) == oracle_enrich.host("remoteip=10.1.2.3", NAMES)
    assert ipaddress.ip_address("::ffff:10.1.2.3").packed in NAMES
    assert (REPAIR, MALFORMED, len(CLASSES)) == (1, 2, 3)
