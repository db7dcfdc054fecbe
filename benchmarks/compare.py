"""Compare a result of `make bench` with the committed baseline.

    python benchmarks/compare.py build/bench.json            exit code 1 and a line for each figure that fell behind
    python benchmarks/compare.py --write build/bench*.json   make the baseline anew from several results

Only normalised figures are compared: ratios between contenders of the same run, and micro benchmarks, their
fastest rounds, in units of the fastest round of that run's calibration loop (test_micro_calibration.py). A figure
falls behind when it is worse than the baseline's by more than the noise recorded there: twice the largest
distance from the median that the baseline's own runs showed, or twice the spread within one of them, and at
least a tenth.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

BASELINE = Path(__file__).resolve().parent / "baseline.json"
CALIBRATION = "test_calibration"
LEAST_NOISE = 0.10


def normalised(result: dict[str, Any]) -> dict[str, tuple[float, bool, float]]:
    """Figures of one result by name: (value, larger is better, noise within the run)."""
    figures: dict[str, tuple[float, bool, float]] = {}
    fastest: dict[str, float] = {}
    for benchmark in result["benchmarks"]:
        whole = benchmark["extra_info"].get("figures")
        if whole is None:
            fastest[benchmark["fullname"].rpartition("/")[2]] = benchmark["stats"]["min"]
            continue
        for name, figure in whole.items():
            if figure["normalised"]:
                figures[name] = (figure["value"], figure["at_least"], figure["noise"])
    loops = [value for name, value in fastest.items() if name.endswith(CALIBRATION)]
    if loops:
        unit = loops[0]
        figures |= {
            name: (value / unit, False, 0.0) for name, value in fastest.items() if not name.endswith(CALIBRATION)
        }
    return figures


def make(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The baseline of several runs: of each figure the median, its noise, and its direction."""
    runs = [normalised(result) for result in results]
    figures = {}
    for name in sorted(set.intersection(*map(set, runs))):
        values = [run[name][0] for run in runs]
        middle = statistics.median(values)
        noise = 2 * max(max(abs(run[name][0] - middle) / middle, run[name][2]) for run in runs)
        figures[name] = {
            "value": float(f"{middle:.4g}"),
            "noise": round(max(LEAST_NOISE, noise), 3),
            "at_least": runs[0][name][1],
        }
    return {"runs": len(runs), "figures": figures}


def behind(baseline: dict[str, Any], result: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Lines about figures that fell behind, and about figures that one of the two lacks."""
    now = normalised(result)
    worse, unknown = [], []
    for name, old in baseline["figures"].items():
        if name not in now:
            unknown.append(f"{name}: not in this result")
            continue
        value = now[name][0]
        change = (old["value"] / value if old["at_least"] else value / old["value"]) - 1
        if change > old["noise"]:
            worse.append(
                f"{name}: {value:.4g}, baseline {old['value']:.4g}: {change:.0%} behind, noise is {old['noise']:.0%}"
            )
    unknown += [f"{name}: not in the baseline" for name in now if name not in baseline["figures"]]
    return worse, unknown


def main() -> int:
    parser = argparse.ArgumentParser(description="compare benchmark results with the committed baseline")
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--write", action="store_true", help="make the baseline from these results")
    parser.add_argument("--baseline", type=Path, default=BASELINE)
    options = parser.parse_args()
    results = [json.loads(path.read_text()) for path in options.results]
    if options.write:
        baseline = make(results)
        options.baseline.write_text(json.dumps(baseline, indent=1) + "\n")
        print(f"{options.baseline}: {len(baseline['figures'])} figures of {len(results)} runs")
        return 0
    baseline = json.loads(options.baseline.read_text())
    failed = False
    for path, result in zip(options.results, results, strict=True):
        worse, unknown = behind(baseline, result)
        for line in unknown:
            print(f"note: {line}")
        for line in worse:
            print(f"BEHIND: {line}")
        failed = failed or bool(worse)
        compared = len(baseline["figures"]) - sum(line.endswith("not in this result") for line in unknown)
        print(f"{path}: {compared} figures compared, {len(worse)} behind")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
