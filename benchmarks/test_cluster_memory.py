"""What a large cluster costs the relay's memory, beside a real Kubernetes API server: 11,000 pods, 2,000 services."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.peers import cluster, crowded


def test_memory(benchmark: Any, tmp_path: Path) -> None:
    """Resident MiB over an empty cluster, and at the most with full journals; the time says nothing."""
    if cluster.missing():
        pytest.skip(cluster.missing())
    found = benchmark.pedantic(crowded.measure, args=(tmp_path / "cluster",), rounds=1, iterations=1)
    benchmark.group = "cluster"
    limits = {"grown": crowded.MOST_GROWN, "peak": crowded.MOST}
    benchmark.extra_info["figures"] = {
        f"cluster/{name}": {
            "value": getattr(found, name) / crowded.MIB,
            "noise": 0.0,
            "normalised": False,
            "at_least": False,
            "verdict": "reached" if getattr(found, name) <= limit else "MISSED",
        }
        for name, limit in limits.items()
    }
    benchmark.extra_info["mib"] = {name: getattr(found, name) / crowded.MIB for name in ("empty", "watched", "listed")}
    assert found.grown <= crowded.MOST_GROWN
    assert found.peak < crowded.MOST
