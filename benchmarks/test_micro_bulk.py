"""Events on their way to a search engine: read and encoded, compressed, posted, and the answer read.

`cpu_us_per_event` is of all threads of this process; the server, which takes everything, is another. Levels of gzip
beside each other: `sent_bytes_per_event` is what the network carries, of `json_bytes_per_event`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.test_micro_scan import EVENTS, LOGS, make_logs
from relay import _fastpath
from relay.sinks import bulk
from relay.sinks.runner import Limits, Runner

ROOT = Path(__file__).resolve().parents[1]
WRITTEN = 20_000
SECONDS = 60.0
LIMITS = Limits(bytes=1_000_000, events=1_000_000, seconds=10.0)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A bulk API in a process of its own."""
    command = [sys.executable, "-m", "tests.peers.bulk_server"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        yield int(server.stdout.readline())
        server.stdin.close()


def frames() -> bytes:
    return b"".join(b"\0" + len(event).to_bytes(4, "big") + event for event in make_logs())


@pytest.mark.parametrize("level", [0, 1, 6])
def test_post(benchmark: Any, monkeypatch: pytest.MonkeyPatch, port: int, level: int) -> None:
    """What a journal holds, to the last answer."""
    benchmark.group = "bulk"
    monkeypatch.setattr(bulk, "GZIP_LEVEL", level)
    cost: list[float] = []
    target = bulk.Target("elasticsearch", f"http://127.0.0.1:{port}", "logs", gzip=level > 0)

    async def carry(engine: Any) -> None:
        runner = Runner(bulk.BulkSink(target, "0123456789abcdef"), {LOGS: _fastpath.Cursor(engine, LOGS)}, LIMITS)
        runner.start(pytest.fail)
        assert await runner.stop(SECONDS) == 0
        assert runner.describe()["sent"] == WRITTEN

    def setup() -> tuple[tuple[Any], dict[str, Any]]:
        engine = _fastpath.Engine(journal_bytes=128 << 20)
        engine.start()
        for _ in range(WRITTEN // EVENTS):
            engine.publish(LOGS, frames())
        engine.counters()
        return (engine,), {}

    def post(engine: Any) -> None:
        before = time.process_time()
        asyncio.run(carry(engine))
        cost.append((time.process_time() - before) / WRITTEN)
        engine.close()

    benchmark.pedantic(post, setup=setup, rounds=5, warmup_rounds=1)
    lines = sample()
    benchmark.extra_info["cpu_us_per_event"] = round(min(cost) * 1e6, 3)
    benchmark.extra_info["json_bytes_per_event"] = len(lines) // EVENTS
    benchmark.extra_info["sent_bytes_per_event"] = (
        len(zlib.compress(lines, level, wbits=31) if level else lines) // EVENTS
    )


def sample() -> bytes:
    """The body of a request."""
    engine = _fastpath.Engine(journal_bytes=128 << 20)
    engine.start()
    try:
        engine.publish(LOGS, frames())
        engine.counters()
        read = _fastpath.Cursor(engine, LOGS).read_json(1 << 30, index="0123456789abcdef-logs-")
        assert read is not None
        return read[0]
    finally:
        engine.close()
