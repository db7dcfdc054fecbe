"""Events as JSON: encoding alone, and through the writer into /dev/null and into a pipe that is read.

The target is 2 us of CPU for a log of 768 bytes, write included (`cpu_us_per_event`: all threads of this process).
Beside it what Python libraries need for encoding alone: msgspec on a struct that was decoded before, and
protobuf's json_format.
"""

from __future__ import annotations

import os
import subprocess
import time
from typing import Any

import msgspec
import pytest
from google.protobuf import json_format

from benchmarks.test_micro_scan import EVENTS, LOGS, make_logs
from relay import _fastpath
from relay import kubearmor_pb2 as pb

shown = pytest.importorskip("shown", reason="the test module is not built")

ROUNDS = 10
WRITTEN = 20_000
SECONDS = 60.0


@pytest.mark.parametrize("which", ["different", "same"])
def test_encode(benchmark: Any, which: str) -> None:
    benchmark.group = "json"
    events = make_logs() if which == "different" else make_logs()[:1] * EVENTS
    elapsed: list[int] = []
    size = 0

    def encode() -> None:
        nonlocal size
        nanoseconds, size = shown.json_time(LOGS, events, ROUNDS)
        elapsed.append(nanoseconds)

    benchmark(encode)
    benchmark.extra_info["ns_per_event"] = round(min(elapsed) / (ROUNDS * EVENTS), 1)
    benchmark.extra_info["bytes_per_event"] = sum(map(len, events)) // EVENTS
    benchmark.extra_info["json_bytes_per_event"] = size // (ROUNDS * EVENTS)


def test_encode_by_msgspec(benchmark: Any) -> None:
    """Structs of the same fields, made beforehand: no protobuf in it, and no HTML escapes."""
    benchmark.group = "json"
    fields = [(field.name, Any, None) for field in pb.Log.DESCRIPTOR.fields]
    struct = msgspec.defstruct("Log", fields, omit_defaults=True)
    logs = [struct(**json_format.MessageToDict(pb.Log.FromString(event))) for event in make_logs()]
    encoder = msgspec.json.Encoder()
    benchmark(lambda: [encoder.encode(log) for log in logs])
    benchmark.extra_info["ns_per_event"] = round(benchmark.stats.stats.min * 1e9 / EVENTS, 1)


def test_encode_by_json_format(benchmark: Any) -> None:
    benchmark.group = "json"
    logs = [pb.Log.FromString(event) for event in make_logs()]
    benchmark(lambda: [json_format.MessageToJson(log, indent=None) for log in logs])
    benchmark.extra_info["ns_per_event"] = round(benchmark.stats.stats.min * 1e9 / EVENTS, 1)


def frames() -> bytes:
    return b"".join(b"\0" + len(event).to_bytes(4, "big") + event for event in make_logs())


@pytest.mark.parametrize("where", ["null", "pipe"])
def test_write(benchmark: Any, where: str) -> None:
    """What a journal holds, to the last byte accepted by the kernel."""
    benchmark.group = "json"
    cost: list[float] = []
    writes: list[float] = []

    def setup() -> tuple[tuple[Any, int, Any], dict[str, Any]]:
        engine = _fastpath.Engine(journal_bytes=128 << 20)
        engine.start()
        for _ in range(WRITTEN // EVENTS):
            engine.publish(LOGS, frames())
        engine.counters()
        reader = None
        if where == "pipe":
            reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
            assert reader.stdin is not None
            fd = os.dup(reader.stdin.fileno())
            reader.stdin.close()
        else:
            fd = os.open(os.devnull, os.O_WRONLY)
        return (engine, fd, reader), {}

    def write(engine: Any, fd: int, reader: Any) -> None:
        before = time.process_time()
        writer = _fastpath.Writer(engine, fd, 4)
        writer.start()
        assert writer.stop(SECONDS) == 0
        cost.append((time.process_time() - before) / WRITTEN)
        assert writer.counters()["feeds"]["logs"]["written"] == WRITTEN
        writes.append(WRITTEN / writer.counters()["writes"])
        os.close(fd)
        engine.close()
        if reader is not None:
            reader.wait(SECONDS)

    benchmark.pedantic(write, setup=setup, rounds=5)
    benchmark.extra_info["cpu_us_per_event"] = round(min(cost) * 1e6, 3)
    benchmark.extra_info["events_per_write"] = round(max(writes), 1)
