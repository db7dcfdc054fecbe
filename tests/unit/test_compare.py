"""`make bench-compare`: when a result falls behind the baseline, and what a baseline is made of."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CALIBRATION = "benchmarks/test_micro_calibration.py::test_calibration"
MICRO = "benchmarks/test_micro_scan.py::test_logs"
Compare = Callable[..., int]


def result(*, micro: float = 2.0, unit: float = 1.0, **whole: float) -> dict[str, Any]:
    """A result of pytest-benchmark: a micro benchmark, and ratios of a row; `more` is better when larger."""
    figures = {
        name: {"value": value, "normalised": True, "at_least": name.startswith("more"), "noise": 0.0}
        for name, value in whole.items()
    }
    figures["microseconds"] = {"value": 5.0, "normalised": False, "at_least": False, "noise": 0.0}
    return {
        "benchmarks": [
            {"fullname": CALIBRATION, "stats": {"min": unit}, "extra_info": {}},
            {"fullname": MICRO, "stats": {"min": micro}, "extra_info": {}},
            {"fullname": "benchmarks/test_whole.py::test_row[flat]", "stats": {}, "extra_info": {"figures": figures}},
        ]
    }


@pytest.fixture
def compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compare:
    """The program, with results as files; they come before its other arguments. Returns its exit code."""
    main = runpy.run_path(str(ROOT / "benchmarks" / "compare.py"))["main"]

    def run(*results: dict[str, Any], write: bool = False) -> int:
        paths = [tmp_path / f"{number}.json" for number in range(len(results))]
        for path, content in zip(paths, results, strict=True):
            path.write_text(json.dumps(content))
        options = ["--write"] if write else []
        monkeypatch.setattr("sys.argv", ["compare", *options, "--baseline", str(tmp_path / "base"), *map(str, paths)])
        return int(main())

    return run


def test_what_made_the_baseline_is_not_behind_it(compare: Compare) -> None:
    runs = [result(less=0.5, more=100.0) for _ in range(3)]
    assert compare(*runs, write=True) == 0
    assert compare(runs[0]) == 0


@pytest.mark.parametrize(
    ("now", "behind"),
    [
        ({"less": 0.54}, False),
        ({"less": 0.56}, True),
        ({"less": 0.1}, False),
        ({"more": 93.0}, False),
        ({"more": 90.0}, True),
        ({"more": 500.0}, False),
        ({"micro": 2.1}, False),
        ({"micro": 2.3}, True),
        # On a machine of half the speed nothing is slower than it was.
        ({"micro": 4.0, "unit": 2.0}, False),
        ({"micro": 2.0, "unit": 0.5}, True),
    ],
)
def test_a_figure_that_is_worse_by_more_than_its_noise_fails(
    compare: Compare, capsys: pytest.CaptureFixture[str], now: dict[str, float], behind: bool
) -> None:
    """Runs that agree have a noise of a tenth: the least there is."""
    compare(*(result(less=0.5, more=100.0) for _ in range(3)), write=True)
    capsys.readouterr()
    assert compare(result(**{"less": 0.5, "more": 100.0, **now})) == int(behind)
    said = capsys.readouterr().out
    assert said.count("BEHIND") == int(behind), said
    assert f"3 figures compared, {int(behind)} behind" in said


def test_noise_is_twice_what_the_baselines_own_runs_showed(compare: Compare) -> None:
    compare(result(less=0.4), result(less=0.5), result(less=0.55), write=True)
    assert compare(result(less=0.69)) == 0
    assert compare(result(less=0.71)) == 1


def test_figures_that_one_of_the_two_lacks_are_named(compare: Compare, capsys: pytest.CaptureFixture[str]) -> None:
    compare(result(less=0.5), result(less=0.5), write=True)
    capsys.readouterr()
    assert compare(result(other=0.5)) == 0
    said = capsys.readouterr().out
    assert "note: less: not in this result" in said
    assert "note: other: not in the baseline" in said
    assert "1 figures compared, 0 behind" in said
