"""Memory in a large cluster: 11,000 pods and 2,000 services of usual size, from a real Kubernetes API server."""

from pathlib import Path

import pytest
from peers.cluster import missing
from peers.crowded import MIB, MOST, MOST_GROWN, measure


@pytest.mark.slow
@pytest.mark.resident
def test_eleven_thousand_pods(tmp_path: Path) -> None:
    """They cost at most 12 MiB over an empty cluster, and the process with full journals stays under 128 MiB."""
    if missing():
        pytest.skip(missing())
    found = measure(tmp_path / "cluster")
    told = {name: round(getattr(found, name) / MIB, 1) for name in ("empty", "watched", "listed", "grown", "peak")}
    print(f"MiB: {told}")
    assert found.grown <= MOST_GROWN, told
    assert found.peak < MOST, told
