"""The control plane: commands to the reactor and the way back; what changes in a cluster cost."""

from __future__ import annotations

import asyncio
import itertools
import json
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


def pod(number: int, version: int) -> dict[str, Any]:
    """A pod of usual size, 6 KiB, most of which nobody looks at."""
    ip = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    container = {
        "name": "web",
        "image": "registry.example/web:1",
        "env": [{"name": f"N{i}", "value": "v" * 40} for i in range(60)],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"web-6f5d8c7b9-{number:05}",
            "namespace": "default",
            "uid": f"8a6c0b1e-0000-4000-8000-{number:012}",
            "resourceVersion": str(version),
            "creationTimestamp": "2026-11-23T18:00:00Z",
            "labels": {f"label-{i}": "value" for i in range(10)},
            "managedFields": [{"manager": "kubelet", "fieldsV1": {f"f:{i}": {".": {}} for i in range(60)}}],
        },
        "spec": {"nodeName": "node-1", "containers": [container]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
    }


@pytest.mark.parametrize("moves", [False, True])
def test_watch_event(benchmark: Any, moves: bool) -> None:
    """A line of a watch, from its bytes into the names: of a pod whose address stays, or is new each time."""
    from relay import objects
    from relay.kube_api import Resource
    from relay.names import Names, PodNames
    from relay.reflect import Reflector

    class Nothing:
        def set_names(self, names: Any) -> None:
            pass

        def time(self) -> float:
            return 0.0

        def call_later(self, delay: float, callback: Any, *args: Any) -> None:
            return None

    async def main() -> None:
        nothing = Nothing()
        api: Any = None
        target = PodNames(Names(nothing, nothing))
        reflector = Reflector(api, Resource("pods"), objects.Pod, target, purpose="enrichment", poll_seconds=60.0)
        lines = []
        for version in range(2):
            changed = pod(7, version)
            changed["metadata"]["name"] = "web"
            if moves:
                changed["status"]["podIP"] = f"10.0.0.{version}"
                changed["status"]["podIPs"] = [{"ip": f"10.0.0.{version}"}]
            lines.append(json.dumps({"type": "MODIFIED", "object": changed}, separators=(",", ":")).encode())
        assert 5_500 < len(lines[0]) < 6_500, len(lines[0])
        following = itertools.cycle(lines)
        benchmark.group = "cluster"
        benchmark(lambda: reflector._take(objects.watch_event(next(following))))

    asyncio.run(main())


def test_table_of_names(benchmark: Any) -> None:
    """The native table for 13,000 addresses, on the caller's thread."""
    names = {
        b"\0" * 10 + b"\xff\xff" + number.to_bytes(4, "big"): f"pod/default/web-{number:05}" for number in range(13_000)
    }
    with engine() as (native, _):
        benchmark.group = "cluster"
        benchmark.extra_info["names"] = len(names)
        benchmark(lambda: native.set_names(names))
