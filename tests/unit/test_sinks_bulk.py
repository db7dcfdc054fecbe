"""What the bulk API answers, document by document; names of indices; templates."""

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.sinks.bulk import DETAIL_CHARACTERS, Target, index_pattern, make_template, settle, template_name
from relay.sinks.protocol import Batch, Unavailable

pytestmark = pytest.mark.unit

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def batch(count: int) -> Batch:
    lines = b"".join(b'{"index":{"_id":"%d"}}\n{"n":%d}\n' % (number, number) for number in range(count))
    return Batch(1, lines, count, NOW)


def answer(*items: tuple[int, str]) -> bytes:
    def item(status: int, kind: str) -> dict[str, Any]:
        return {"index": {"status": status} | ({"error": {"type": kind, "reason": "why"}} if kind else {})}

    return json.dumps({"errors": any(kind for _, kind in items), "items": [item(*each) for each in items]}).encode()


def test_all_taken() -> None:
    written = settle(batch(3), answer((201, ""), (200, ""), (201, "")))
    assert (written.taken, written.again, written.rejected) == (3, None, ())


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (429, "es_rejected_execution_exception"),
        (503, "unavailable_shards_exception"),
        (403, "cluster_block_exception"),
        (404, "index_not_found_exception"),
        (400, "validation_exception"),
        (400, "index_closed_exception"),
    ],
)
def test_only_documents_that_may_be_taken_later_come_again(status: int, kind: str) -> None:
    written = settle(batch(3), answer((201, ""), (status, kind), (201, "")))
    assert written.taken == 2
    assert written.rejected == ()
    assert written.again == Batch(1, b'{"index":{"_id":"1"}}\n{"n":1}\n', 1, NOW)
    assert written.why is not None
    assert (written.why.reason, written.why.detail) == (f"{status} {kind}", "why")


@pytest.mark.parametrize(
    "kind", ["mapper_parsing_exception", "document_parsing_exception", "illegal_argument_exception"]
)
def test_documents_that_are_refused_for_good_are_counted(kind: str) -> None:
    written = settle(batch(3), answer((400, kind), (201, ""), (400, kind)))
    assert (written.taken, written.again) == (1, None)
    ((reason, events, example),) = written.rejected
    assert (reason, events, example) == (f"400 {kind}", 2, "why")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b"\xff",
        b'{"errors":false}',
        b'{"errors":false,"items":null}',
        b'{"items":[]}',
        b'{"errors":false,"items":[{"index":{"status":201}},{"index":{"status":201}}]}',
        b'{"items":[{"index":{"status":201}},{"index":{"status":201}},{"index":{"status":201}}',
        b'{"items":[{},{},{}]}',
        b'{"items":[{"index":{}},{"index":{}},{"index":{}}]}',
        b"[" * 100_000,
        b'{"items":[' + b'{"index":{"status":400,"error":{"caused_by":{"caused_by":' * 50_000,
    ],
    ids=range(14),
)
def test_an_answer_that_says_nothing_settles_nothing(text: bytes) -> None:
    with pytest.raises(Unavailable, match="an answer that is not the bulk API's"):
        settle(batch(3), text)


@pytest.mark.parametrize("status", [-1, 0, 100, 199, 300, 302])
def test_only_success_is_success(status: int) -> None:
    """Whatever `errors` says, or does not say."""
    items = [{"index": {"status": 201}}, {"index": {"status": status}}, {"index": {"status": 201}}]
    written = settle(batch(3), json.dumps({"errors": False, "items": items}).encode())
    assert written.taken == 2
    assert written.again == Batch(1, b'{"index":{"_id":"1"}}\n{"n":1}\n', 1, NOW)


def test_an_error_in_other_forms() -> None:
    errors: list[Any] = [
        "old style",
        {"type": None, "reason": None},
        {},
        {"reason": "a\nb", "caused_by": {"reason": "c"}},
    ]
    items = [{"index": {"status": 400, "error": error}} for error in errors]
    written = settle(batch(4), json.dumps({"items": items}).encode())
    assert [tuple(each) for each in written.rejected] == [("400 old style", 1, ""), ("400", 3, "")]
    (rejected,) = settle(batch(1), json.dumps({"items": items[3:]}).encode()).rejected
    assert rejected.example == "a\\nb (c)"


texts = st.sampled_from(["", "mapper_parsing_exception", "validation_exception", "\x1b[31m"]) | st.text(max_size=5)
anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
statuses = st.sampled_from([200, 201, 400, 403, 404, 409, 413, 429, 500, 503]) | st.integers()
found = st.fixed_dictionaries(
    {"status": statuses | anything},
    optional={
        "error": anything | st.fixed_dictionaries({}, optional={"type": texts, "reason": texts, "caused_by": anything})
    },
)
answers = st.fixed_dictionaries(
    {},
    optional={
        "errors": st.booleans() | anything,
        "items": st.lists(st.dictionaries(texts, found, max_size=2), max_size=4),
    },
)


@given(answers.map(lambda each: json.dumps(each).encode()) | st.binary(), st.integers(1, 3), st.integers(0, 30))
def test_every_document_is_spoken_of_once_whatever_the_answer(text: bytes, count: int, cut: int) -> None:
    whole = batch(count)
    with contextlib.suppress(Unavailable):
        written = settle(whole, text[: len(text) - cut])
        left = [] if written.again is None else written.again.lines.splitlines()[1::2]
        assert written.taken + sum(each.events for each in written.rejected) + len(left) == count
        assert set(left) <= set(whole.lines.splitlines())
        assert (written.why is not None) == bool(left)
        told = [written.why.reason, written.why.detail] if written.why else []
        told += [text for each in written.rejected for text in (each.reason, each.example)]
        assert all(text.isprintable() and len(text) <= DETAIL_CHARACTERS for text in told)


@pytest.mark.parametrize(
    ("index", "pattern", "name"),
    [
        ("kubearmor-alerts", "kubearmor-alerts", "relay-kubearmor-alerts"),
        ("alerts-%Y.%m.%d", "alerts-*", "relay-alerts"),
        ("alerts-%Y-eu", "alerts-*-eu", "relay-alerts--eu"),
    ],
)
def test_a_template_covers_all_dates(index: str, pattern: str, name: str) -> None:
    assert index_pattern(index) == pattern
    assert template_name(index) == name
    assert make_template(index)["index_patterns"] == [pattern]


def test_a_password_is_not_shown() -> None:
    assert "hunter2" not in repr(Target("elasticsearch", "http://h", "i", "me", "hunter2"))
