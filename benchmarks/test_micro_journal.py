"""The journal and the framing: what an event costs on its way in and out, without sockets.

`ns_per_event` is the quickest round's time, with Python's share of one call for a thousand events and more.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from benchmarks.test_micro_scan import EVENTS, LOGS, ROUNDS, make_logs

shown = pytest.importorskip("shown", reason="the test module is not built")

EVENT = 768  # bytes, as in the table of whole-relay figures
SHARE = 48 << 20  # the logs' part of the default budget
MANY = 50_000  # events: most of what such a journal holds, and more than any processor's cache does
DATA_FRAME = 16_384  # HTTP/2's default, and so what a subscriber's stream takes at a time


def frame_of(size: int) -> bytes:
    return b"\0" + size.to_bytes(4, "big") + bytes(size)


def figures(benchmark: Any, group: str, count: int) -> None:
    """The benchmark has run; say what one of `count` events cost."""
    benchmark.group = group
    if benchmark.stats is not None:  # None where benchmarks are only tried out
        benchmark.extra_info["ns_per_event"] = round(benchmark.stats.stats.min / count * 1e9, 2)


def warm_journal() -> Any:
    """A journal that has been full before: every page is there, and every append recycles."""
    journal = shown.ShownJournal(SHARE, shown.shown_journal_segment_bytes(SHARE))
    shown.shown_journal_append_many(journal, frame_of(EVENT), SHARE // EVENT + MANY)
    return journal


def oldest(journal: Any) -> Any:
    """A place at the oldest frame that the journal holds."""
    place = shown.ShownPlace(journal, "start")
    place.settle()
    return place


@pytest.mark.parametrize("size", [0, EVENT, 16_000])
def test_append(benchmark: Any, size: int) -> None:
    """The copy of the event included."""
    journal = warm_journal()
    frame = frame_of(size)
    benchmark(shown.shown_journal_append_many, journal, frame, MANY)
    figures(benchmark, "journal append", MANY)


@pytest.mark.parametrize("limit", [1, DATA_FRAME, 1 << 30], ids=["one", "data-frame", "segment"])
def test_read(benchmark: Any, limit: int) -> None:
    """Find the runs of frames that a subscriber is given; the bytes themselves are not touched."""
    journal = warm_journal()

    def begin() -> tuple[tuple[Any, int], dict[str, Any]]:
        return (oldest(journal), limit), {}

    held = journal.next - journal.first
    frames, size, runs = benchmark.pedantic(shown.shown_journal_read_all, setup=begin, rounds=20, warmup_rounds=1)
    assert (frames, size) == (held, held * (EVENT + 5))
    benchmark.extra_info["events_per_run"] = round(frames / runs, 1)
    figures(benchmark, "journal read", held)


def test_pass_events_one_at_a_time(benchmark: Any) -> None:
    """As for a filtered subscriber, before its filter."""
    journal = warm_journal()

    def begin() -> tuple[tuple[Any, int], dict[str, Any]]:
        return (oldest(journal), MANY), {}

    benchmark.pedantic(shown.shown_journal_walk, setup=begin, rounds=20, warmup_rounds=1)
    figures(benchmark, "journal read", MANY)


@pytest.mark.parametrize("which", ["different", "same"])
def test_receive(benchmark: Any, which: str) -> None:
    """Events of a node, one DATA frame each, from the bytes of a read to the journal: cut out, checked, copied."""
    taken = shown.Ingest()
    events = make_logs() if which == "different" else make_logs()[:1] * EVENTS
    elapsed: list[int] = []
    benchmark(lambda: elapsed.append(taken.receive_time(LOGS, events, ROUNDS)))
    benchmark.group = "framing"
    benchmark.extra_info["ns_per_event"] = round(min(elapsed) / (ROUNDS * EVENTS), 1)


def test_request_message(benchmark: Any) -> None:
    benchmark(shown.shown_grpc_filter_many, b"\x0a\x06system", 10_000)
    figures(benchmark, "framing", 10_000)


@pytest.mark.parametrize("timers", [100, 10_000])
def test_move_timers(benchmark: Any, timers: int) -> None:
    """Deadlines that are put off again and again, as those of live connections are."""
    heap = shown.ShownTimers(timers)
    rng = random.Random(1)
    for number in range(timers):
        heap.set(number, rng.randrange(1000))
    rounds = 10_000 // timers
    benchmark(shown.shown_timers_churn, heap, rounds)
    figures(benchmark, "timers", rounds * timers)
