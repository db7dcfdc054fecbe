"""What the bulk API answers, document by document; names of indices; templates."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from relay.sinks.bulk import Target, index_pattern, make_template, settle, template_name
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
    assert written.reason == f"{status} {kind}: why"


@pytest.mark.parametrize(
    "kind", ["mapper_parsing_exception", "document_parsing_exception", "illegal_argument_exception"]
)
def test_documents_that_are_refused_for_good_are_counted(kind: str) -> None:
    written = settle(batch(3), answer((400, kind), (201, ""), (400, kind)))
    assert (written.taken, written.again) == (1, None)
    ((reason, events, example),) = written.rejected
    assert (reason, events, example) == (f"400 {kind}", 2, f"{kind}: why")


@pytest.mark.parametrize(
    "text",
    [b"", b"<html>", b"[]", b"{}", b'{"errors":true,"items":[]}', b'{"errors":true,"items":[{},{},{}]}', b"\xff"],
)
def test_an_answer_that_says_nothing_settles_nothing(text: bytes) -> None:
    with pytest.raises(Unavailable):
        settle(batch(3), text)


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
