"""The relay as a whole, beside other proxies on the same machine at the same time.

Every row's figures are in extra_info: `figures` holds the targets' (ratios where they are normalised, which
is what `make bench-compare` looks at), `cpu_us` each contender's CPU a delivered event.
"""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import rows, table
from benchmarks.peers import process
from benchmarks.rows import Effort


@pytest.mark.usefixtures("beside")
@pytest.mark.parametrize("key", list(rows.ROWS))
def test_row(key: str, benchmark: Any, effort: Effort) -> None:
    try:
        row = benchmark.pedantic(rows.ROWS[key], args=(effort,), rounds=1, iterations=1)
    except process.Missing as error:
        pytest.skip(str(error))
    found = list(table.findings(key, row))
    benchmark.group = "whole"
    benchmark.extra_info["figures"] = {
        f.target.key: {
            "value": f.value.median,
            "noise": f.value.noise,
            "normalised": f.target.normalised,
            "at_least": f.target.at_least,
            "verdict": f.verdict(),
        }
        for f in found
    }
    benchmark.extra_info["cpu_us"] = {name: row.cpu(name).median for name in row.samples}
    benchmark.extra_info["not_run"] = row.missing
    benchmark.extra_info["title"] = row.title
    lost = [f for f in found if f.target.key.endswith("/lost")]
    assert not [f.target.key for f in lost if f.value.median], "the relay lost events"
    if not row.samples.get("relay") and row.missing:
        pytest.skip("; ".join(row.missing.values()))
