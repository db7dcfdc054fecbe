"""relay.events and relay.render: realistic, repeatable events, and how they are shown."""

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.events import CLASSES, Node, frame, messages, read_events
from relay.kubearmor_pb2 import Alert, ExecEvent, Log, Message, Podowner
from relay.render import as_json, as_line

MESSAGES, ALERTS, LOGS = range(3)


def first(count: int, name: str = "node-1", seed: int = 0) -> list[tuple[int, bytes]]:
    return [(feed, frame(event)) for feed, event in itertools.islice(Node(name, seed), count)]


# --- made-up events -----------------------------------------------------------------------


@given(seed=st.integers(0, 2**63 - 1), feed=st.sampled_from([MESSAGES, ALERTS, LOGS]))
def test_every_field_is_set_and_sizes_are_real(seed: int, feed: int) -> None:
    event = Node("node-1", seed).event(feed)
    assert isinstance(event, CLASSES[feed])
    present = {descriptor.name for descriptor, _ in event.ListFields()}
    assert present == {descriptor.name for descriptor in event.DESCRIPTOR.fields}
    assert 500 <= event.ByteSize() <= 1200


@given(seed=st.integers(0, 2**63 - 1), name=st.text(min_size=1, max_size=10))
def test_the_same_seed_and_name_give_the_same_bytes(seed: int, name: str) -> None:
    assert first(20, name, seed) == first(20, name, seed)


def test_another_seed_or_name_gives_other_events() -> None:
    usual, other_seed, other_name = Node("a").event(LOGS), Node("a", seed=1).event(LOGS), Node("b").event(LOGS)
    assert len({usual.ContainerID, other_seed.ContainerID, other_name.ContainerID}) == 3


def test_the_entries_of_a_map_are_in_order() -> None:
    """Else the same event would be other bytes in another process."""
    keys = [f"key-{number:02d}" for number in range(40)]
    log = Log(EventData=dict.fromkeys(reversed(keys), "v"))
    framed = frame(log)
    assert sorted(keys, key=lambda key: framed.index(key.encode())) == keys
    assert list(json.loads(as_json(log))["EventData"]) == keys


def test_the_bytes_stay_those_of_this_version() -> None:
    """A recorded run can be compared with a later one: a change here is a change for its users."""
    feed, framed = first(1)[0]
    event = CLASSES[feed].FromString(framed[5:])
    assert (event.HostName, event.UpdatedTime[:10]) == ("node-1", "2026-01-01")


def test_the_feeds_come_in_their_shares() -> None:
    counts = Counter(feed for feed, _ in first(2000))
    assert counts[LOGS] > counts[ALERTS] > counts[MESSAGES] > 0


def test_time_goes_forward() -> None:
    times = [event.UpdatedTime for _, event in itertools.islice(Node("n"), 200)]
    assert times == sorted(set(times))


def test_some_events_are_of_the_network_so_that_they_can_be_enriched() -> None:
    logs = [event for feed, event in itertools.islice(Node("n"), 200) if feed == LOGS]
    assert any("tcp_" in log.Data and "remoteip=" in log.Resource for log in logs)


@given(st.lists(st.binary(max_size=50)))
def test_frames_are_read_back(bodies: list[bytes]) -> None:
    class Body:
        def __init__(self, body: bytes) -> None:
            self.body = body

        def SerializeToString(self, deterministic: bool) -> bytes:
            return self.body

    assert list(messages(b"".join(frame(Body(body)) for body in bodies))) == bodies


# --- events from a file -------------------------------------------------------------------


def written(path: Path, *lines: str) -> Path:
    file = path / "events.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def test_a_file_gives_its_events_in_order(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        '{"feed": "alerts", "PolicyName": "p", "PID": 7}',
        "",
        '{"PolicyName": "q", "ATags": ["x"], "EventData": {"a": "b"}}',
        '{"Level": "INFO", "Message": "m"}',
        '{"HostName": "h", "Owner": {"Ref": "Job"}, "Timestamp": 5}',
    )
    assert read_events(file) == [
        (ALERTS, Alert(PolicyName="p", PID=7)),
        (ALERTS, Alert(PolicyName="q", ATags=["x"], EventData={"a": "b"})),
        (MESSAGES, Message(Level="INFO", Message="m")),
        (LOGS, Log(HostName="h", Owner=Podowner(Ref="Job"), Timestamp=5)),
    ]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("{", "Expecting"),
        ("[]", "accepted is a JSON object"),
        ('{"feed": "other"}', "feed 'other' is unknown: accepted are messages, alerts, logs"),
        ('{"feed": 5}', "feed 5 is unknown"),
        ('{"Nonsense": 1}', "Nonsense"),
        ('{"PID": "many"}', "PID"),
        ('{"PID": 2147483648}', "PID"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, line: str, text: str) -> None:
    file = written(tmp_path, '{"HostName": "h"}', line)
    with pytest.raises(ValueError, match=r"events\.jsonl:2: ") as caught:
        read_events(file)
    assert text in str(caught.value)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no events"):
        read_events(written(tmp_path, ""))


@given(seed=st.integers(0, 1000))
def test_what_is_shown_as_json_is_read_back_the_same(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    node = Node("node-1", seed)
    events: list[tuple[int, Any]] = [(feed, node.event(feed)) for feed in (LOGS, ALERTS, MESSAGES)]
    lines = [as_json(event) for _, event in events]
    assert read_events(written(tmp_path_factory.mktemp("events"), *lines)) == events


# --- how events are shown -----------------------------------------------------------------


def test_json_has_the_fields_in_declaration_order_and_leaves_empty_ones_out() -> None:
    log = Log(Result="Passed", Timestamp=5, HostName="h", Owner=Podowner(Name="n"), ExecEvent=ExecEvent())
    log.EventData["b"] = "2"
    log.EventData["a"] = "1"
    assert as_json(log) == (
        '{"Timestamp":5,"HostName":"h","Owner":{"Name":"n"},"PPID":0,"UID":0,'
        '"EventData":{"a":"1","b":"2"},"Result":"Passed","ExecEvent":{}}'
    )


def test_an_empty_log_still_has_its_two_numbers() -> None:
    assert json.loads(as_json(Log())) == {"PPID": 0, "UID": 0}


def test_a_line_says_when_where_what_and_what_became_of_it() -> None:
    alert = Alert(
        UpdatedTime="2026-01-01T10:11:12.345678Z",
        HostName="node-1",
        NamespaceName="shop",
        PodName="checkout-1",
        Operation="File",
        ProcessName="/bin/cat",
        Resource="/etc/shadow",
        PolicyName="protect",
        Action="Block",
        Result="Permission denied",
    )
    shown = "10:11:12.345678 node-1 shop/checkout-1 File /bin/cat /etc/shadow policy=protect Block"
    assert as_line(alert) == shown
    assert as_line(Alert(HostName="node-1", Operation="File", Result="Passed")) == "node-1 File Passed"
    message = Message(UpdatedTime="2026-01-01T10:11:12Z", HostName="node-1", Level="WARN", Message="text")
    assert as_line(message) == "10:11:12 node-1 WARN text"


def test_colours_change_nothing_but_the_colour() -> None:
    for feed in (MESSAGES, ALERTS, LOGS):
        event = Node("n").event(feed)
        coloured = as_line(event, colours=True)
        assert coloured != as_line(event)
        plain = "".join(part.partition("m")[2] if at else part for at, part in enumerate(coloured.split("\x1b[")))
        assert plain == as_line(event)


@given(seed=st.integers(0, 100), feed=st.sampled_from([MESSAGES, ALERTS, LOGS]), width=st.integers(1, 400))
def test_a_line_is_cut_to_its_width(seed: int, feed: int, width: int) -> None:
    event = Node("n", seed).event(feed)
    whole, cut = as_line(event), as_line(event, width=width)
    assert len(cut) <= width
    assert cut == whole if len(whole) <= width else cut.endswith("…")
    assert whole.startswith(cut.removesuffix("…").rstrip())


def test_a_line_that_just_fits_is_not_cut() -> None:
    event = Node("n").event(LOGS)
    whole = as_line(event)
    for colours in (False, True):
        assert as_line(event, colours=colours, width=len(whole)) == as_line(event, colours=colours)
    assert as_line(event, width=len(whole) - 1) == whole[:-2] + "…"


def test_an_event_cannot_drive_the_terminal() -> None:
    log = Log(HostName="h", Operation="Process", Resource="a\x1b[2Jb\nc\u202ed", Result="Passed")
    assert as_line(log) == r"h Process a\x1b[2Jb\nc\u202ed Passed"


@given(st.sampled_from(CLASSES), st.text(max_size=20), st.booleans())
def test_any_text_stays_on_its_line(kind: Any, text: str, colours: bool) -> None:
    text = text.encode("utf-8", "replace").decode()
    names = [d.name for d in kind.DESCRIPTOR.fields if d.type == d.TYPE_STRING and not d.is_repeated]
    event = kind(**dict.fromkeys(names, text))
    assert len(as_line(event, colours=colours).splitlines()) <= 1
    assert len(as_json(event).split("\n")) == 1
