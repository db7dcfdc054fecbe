"""How fast this machine is at the moment: the unit in which micro benchmarks are compared between runs."""

from __future__ import annotations

from typing import Any


def test_calibration(benchmark: Any) -> None:
    benchmark.group = "calibration"
    benchmark(lambda: sum(range(20_000)))
