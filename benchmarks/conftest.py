"""Benchmarks run one at a time, off the processor that the contenders have."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.peers import process
from benchmarks.rows import Effort


@pytest.fixture
def effort() -> Effort:
    """BENCH_SECONDS of work and BENCH_ROUNDS of each contender."""
    return Effort.from_environment()


@pytest.fixture
def beside() -> Iterator[None]:
    """This process keeps off the contender's processor."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, process.load_cpus())
    yield
    os.sched_setaffinity(0, allowed)
