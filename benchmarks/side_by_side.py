"""Run the relay beside the other proxies and print the table of targets as markdown.

python benchmarks/side_by_side.py [ROW…] [--seconds 2] [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.peers import process
from benchmarks.rows import ROWS, Effort, Row
from benchmarks.table import figure, findings


def limits(must: float | None, aim: float | None, unit: str, at_least: bool) -> tuple[str, str]:
    sign = "≥" if at_least else "≤"
    return tuple("" if x is None else f"{sign} {figure(x, unit)}" for x in (must, aim))  # type: ignore[return-value]


def verdicts(key: str, row: Row) -> list[str]:
    lines = []
    for found in findings(key, row):
        target = found.target
        must, aim = limits(target.must, target.aim, target.unit, target.at_least)
        value = figure(found.value.median, target.unit)
        noise = f" ±{found.value.noise:.0%}" if found.value.noise else ""
        lines.append(f"| {row.title} | {target.text} | {must} | {aim} | {value}{noise} | {found.verdict()} |")
    lines += [f"| {row.title} | {name} | | | | not run: {why} |" for name, why in row.missing.items()]
    return lines


def details(row: Row) -> list[str]:
    lines = []
    for name, samples in row.samples.items():
        p50, p99 = row.latency(name), row.latency(name, "p99")
        times = f"{p50.median:.3f} / {p99.median:.3f}" if p50 and p99 else ""
        rate = sorted(s.delivered / s.seconds for s in samples)[len(samples) // 2]
        busy = sorted(s.busy for s in samples)[len(samples) // 2]
        cpu = row.cpu(name)
        cells = [
            row.title,
            name,
            f"{cpu.median:.3f} ±{cpu.noise:.0%}",
            f"{rate:,.0f}",
            f"{busy:.2f}",
            times,
            row.lost(name),
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += [f"| {row.title} | {name}: {value:,.0f} | | | | | |" for name, value in row.extra.items()]
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description="the relay beside other proxies, as a markdown table")
    parser.add_argument("rows", nargs="*", choices=[[], *ROWS], help="rows to run; all if none is named")  # type: ignore[list-item]
    effort = Effort.from_environment()
    parser.add_argument("--seconds", type=float, default=effort.seconds, help="measured work of each run")
    parser.add_argument("--rounds", type=int, default=effort.rounds, help="runs of each contender")
    options = parser.parse_args()
    os.sched_setaffinity(0, process.load_cpus())
    heads, tails, missed = [], [], False
    for key in options.rows or ROWS:
        print(f"{key} …", file=sys.stderr, flush=True)
        try:
            row = ROWS[key](Effort(options.seconds, options.rounds))
        except process.Missing as error:
            heads.append(f"| {key} | | | | | not run: {error} |")
            continue
        except Exception as error:
            heads.append(f"| {key} | | | | | FAILED: {type(error).__name__}: {str(error)[:300]} |".replace("\n", " "))
            missed = True
            continue
        heads += verdicts(key, row)
        tails += details(row)
        missed = missed or any(f.verdict() == "MISSED" for f in findings(key, row))
    print("| work | figure | must | aim | measured | verdict |\n|---|---|---|---|---|---|", *heads, sep="\n")
    print(
        "\n| work | contender | CPU us/event | events/s | busy | p50 / p99 ms | lost |\n|---|---|---|---|---|---|---|",
        *tails,
        sep="\n",
    )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
