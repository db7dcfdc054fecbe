"""What a snapshot of all counters costs the one who asks."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.micro import engine

pytest.importorskip("relay._fastpath", reason="the engine is not built")


@pytest.mark.parametrize("nodes", [0, 100])
def test_snapshot(benchmark: Any, nodes: int) -> None:
    """With as many nodes known, none of them connected."""
    with engine() as (native, _):
        for number in range(nodes):
            native.add_node(number)
        benchmark.group = "counters"
        found = benchmark(native.counters)
        assert len(found["nodes"]) in (0, nodes)
