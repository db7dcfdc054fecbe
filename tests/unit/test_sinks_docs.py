"""The pages about sinks against the code: counters, the contract, the example, and what is made of each answer."""

import asyncio
import contextlib
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from peers.fake_reader import FakeJournal

from relay import feeds
from relay.backoff import Backoff
from relay.sink_settings import parse_index
from relay.sinks.bulk import MAX_RETRY_AFTER, BulkSink, Target, settle
from relay.sinks.protocol import Batch, Sink
from relay.sinks.runner import Limits, Runner

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
WAIT = 60.0


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def rows(name: str, heading: str) -> list[list[str]]:
    """The cells of the table below a heading."""
    _, _, section = page(name).partition(f"{heading}\n")
    lines = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_the_counters_are_those_of_a_runner() -> None:
    async def run() -> dict[str, Any]:
        return Runner(BulkSink(Target("elasticsearch", "http://h", "i"), "b"), {}, Limits(1, 1, 1)).describe()

    told = [cells[0].strip("`") for cells in rows("sinks.md", "## Counters")]
    assert ["sink", "feeds", *told] == list(asyncio.run(run()))


def test_the_contract_has_the_members_of_a_sink() -> None:
    told = [re.sub(r"\W.*", "", cells[0].strip("`")) for cells in rows("sinks-new.md", "# Writing a sink")]
    assert told == [name for name in vars(Sink) if not name.startswith("_")]


@pytest.mark.parametrize("name", ["sinks-new.md", "sinks-elasticsearch.md", "sinks-file.md", "sinks.md"])
def test_what_is_named_is_there(name: str) -> None:
    for path in re.findall(r"`((?:relay|tests|benchmarks)/[\w/.]+)`", page(name)):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"\]\(([\w.-]+\.md)\)", page(name)):
        assert (ROOT / "docs" / path).exists(), path


DOCUMENTS = [cells for cells in rows("sinks-elasticsearch.md", "## What happens when") if "for a document" in cells[0]]


@pytest.mark.parametrize("cells", DOCUMENTS, ids=lambda cells: cells[0][:20])
def test_what_becomes_of_a_document_is_what_the_table_says(cells: list[str]) -> None:
    answers, verdict = cells
    kinds = re.findall(r"`(\w+_exception)`", answers)
    answers = answers.replace("5xx", "500, 503")
    items: list[dict[str, Any]] = []
    for status in map(int, re.findall(r"\b[45]\d\d\b", answers)):
        # The kinds are those of status 400, where there are any; "other" is any that is not listed.
        for kind in kinds if status == 400 and kinds else ["mapper_parsing_exception"]:
            items.append({"index": {"status": status, "error": {"type": kind, "reason": "why"}}})
    assert items
    lines = b'{"index":{"_id":"1"}}\n{}\n' * len(items)
    written = settle(Batch(1, lines, len(items), datetime.now(UTC)), json.dumps({"items": items}).encode())
    skipped = sum(each.events for each in written.rejected)
    assert (skipped == len(items)) == verdict.startswith("skipped")
    assert (written.again is not None and written.again.events == len(items)) == verdict.startswith("that document")


def test_all_that_is_told_of_documents_is_looked_at() -> None:
    assert len(DOCUMENTS) == 4


def test_the_dates_of_an_index_are_accepted() -> None:
    (dates,) = re.findall(r"`strftime`'s `([^`]+)`", page("sinks-elasticsearch.md"))
    assert parse_index("alerts-" + dates.replace(" ", "."))
    for letter in "AaBbcDIklMnPpsSTUwXxZz%":
        assert f"%{letter}" not in dates.split()


def test_an_id_is_made_as_told() -> None:
    assert "`_id` is `<boot id>-<feed>-<sequence>`" in page("sinks-elasticsearch.md")
    assert BulkSink(Target("elasticsearch", "http://h", "i"), "boot").action(feeds.LOGS) == "boot-logs-"


def test_the_pauses_are_as_told() -> None:
    backoff = Backoff()
    told = f"after 0 to {backoff.first:g} s"
    assert told in page("sinks-elasticsearch.md")
    assert told in page("sinks.md")
    assert f"doubling to {backoff.last:g} s" in page("sinks-elasticsearch.md")
    assert MAX_RETRY_AFTER == 60  # "at most a minute of it"


def test_the_example_is_a_sink() -> None:
    """It carries events, and again what a peer took without a word."""
    namespace: dict[str, Any] = {}
    exec(page("sinks-new.md").partition("```python\n")[2].partition("```")[0], namespace)

    async def run() -> list[bytes]:
        got: list[bytes] = []
        served: list[asyncio.Task[None]] = []

        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            served.append(asyncio.current_task())  # type: ignore[arg-type]
            first = len(served) == 1
            with contextlib.suppress(ConnectionError):
                while line := await reader.readline():
                    got.append(line)
                    if first and len(got) == 5:
                        break
                    if json.loads(line)["n"] % 3 == 2:
                        writer.write(b"ok\n")
                writer.close()
                await writer.wait_closed()

        server = await asyncio.start_server(accepted, "127.0.0.1", 0)
        journal = FakeJournal()
        journal.append(*(b'{"n":%d}' % number for number in range(9)))
        sink = namespace["LineSink"]("127.0.0.1", server.sockets[0].getsockname()[1])
        limits = Limits(bytes=1 << 20, events=3, seconds=0.01)
        runner = Runner(sink, {feeds.LOGS: journal.reader()}, limits, backoff=lambda: Backoff(first=0.01, last=0.01))
        runner.start(pytest.fail)
        assert await runner.stop(WAIT) == 0
        counted = runner.describe()
        assert (counted["sent"], counted["retried"], counted["lost"]) == (9, 3, 0)
        server.close()
        await asyncio.gather(*served)
        return got

    got = asyncio.run(run())
    assert got[:5] == [b'{"n":%d}\n' % number for number in range(5)]
    assert got[5:] == [b'{"n":%d}\n' % number for number in range(3, 9)]
