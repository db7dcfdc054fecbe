"""The queue of commands from Python to the reactor, and the way back."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from benchmarks.load import events
from benchmarks.micro import Reports, engine

pytest.importorskip("relay._fastpath", reason="the engine is not built")


@pytest.mark.parametrize("batch", [1, 256])
def test_publish_and_drain(benchmark: Any, batch: int) -> None:
    """Publish one command of `batch` events and wait until the engine says that they are in the journal."""
    frames = events.frame(events.event()) * batch
    tickets = itertools.count(1)
    with engine() as (native, _):
        reports = Reports(native)

        def turn() -> None:
            ticket = next(tickets)
            native.publish(events.LOGS, frames)
            native.drain(ticket, events.LOGS)
            reports.drained(ticket)

        benchmark.group = "control queue"
        benchmark.extra_info["events"] = batch
        benchmark(turn)


def test_round_trip(benchmark: Any) -> None:
    """One command and one report, each with its wake-up."""
    tickets = itertools.count(1)
    with engine() as (native, _):
        reports = Reports(native)

        def turn() -> None:
            ticket = next(tickets)
            native.drain(ticket, events.LOGS)
            reports.drained(ticket)

        benchmark.group = "control queue"
        benchmark(turn)
