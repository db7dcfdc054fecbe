"""Run the fuzz targets: first every input that ever failed, then new ones for some seconds each.

    python tests/fuzz/run.py SECONDS [TARGET…]

Corpora grow in build/fuzz/corpus/<target>. An input that fails is left in build/fuzz/found/<target>; once the
fault is mended it belongs in tests/fuzz/regressions/<target>, which is replayed by every run.
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "fuzz"
# The seed of a bounded run is fixed, so that it tells of the change and not of luck.
SEED = 1 if os.environ.get("CI") else 0
# The transcoder reads what the scanner reads.
DICTIONARIES = {"json": "scan"}


def environment() -> dict[str, str]:
    """Python is not instrumented: the sanitizers' runtime has to be loaded before it."""
    found = subprocess.run(
        ["clang", "-print-file-name=libclang_rt.asan-" + os.uname().machine + ".so"],
        check=True,
        capture_output=True,
        text=True,
    )
    return {
        **os.environ,
        "LD_PRELOAD": found.stdout.strip(),
        "PYTHONPATH": str(BUILD / "tests"),
        "PYTHONSAFEPATH": "1",
        # Targets check by their own counters that every block is given back.
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


def python(code: str, *arguments: str, quiet: bool = False) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment(),
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if quiet else None,
    )


def fuzz(target: str, seconds: int) -> bool:
    """True when nothing was found."""
    corpus, found = BUILD / "corpus" / target, BUILD / "found" / target
    seeds, regressions = BUILD / "seeds" / target, HERE / "regressions" / target
    for folder in (corpus, found, seeds):
        folder.mkdir(parents=True, exist_ok=True)
    print(f"fuzz {target}: {seconds} s", flush=True)
    dictionary = HERE / f"{DICTIONARIES.get(target, target)}.dict"
    options = [
        *([f"-dict={dictionary}"] if dictionary.exists() else []),
        f"-artifact_prefix={found}/",
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
        "-max_len=16384",
    ]
    code = "import sys, fuzz_targets; sys.exit(fuzz_targets.run(sys.argv[1], sys.argv[2:]))"
    old = sorted(str(path) for path in regressions.glob("*"))
    runs = [[*options, *old]] if old else []
    runs.append([*options, f"-seed={SEED}", f"-max_total_time={seconds}", str(corpus), str(seeds)])
    for arguments in runs:
        done = python(code, target, *arguments, quiet=True)
        lines = done.stderr.splitlines()
        if done.returncode:
            print("\n".join(lines[-80:]))
            print(f"fuzz {target}: FAILED; the input is in {found}")
            return False
    for line in lines:
        if "number_of_executed_units" in line or "DONE" in line:
            print(f"  {line}")
    return True


def main() -> int:
    seconds, chosen = int(sys.argv[1]), sys.argv[2:]
    listed = python("import fuzz_targets; print(*fuzz_targets.TARGETS)")
    targets = chosen or listed.stdout.split()
    if listed.returncode or not targets:
        print("no fuzz targets")
        return 1
    from seeds import write

    write(BUILD / "seeds")
    results = [fuzz(target, seconds) for target in targets]
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
