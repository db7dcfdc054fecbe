"""The thread sanitizer finds what it is there for: a race that is there on purpose, run as the suites are run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLANTED = """
import sys, threading
import shown
# Long enough for both to be at it at once: one after the other is no race, since Python's own lock orders them.
threads = [threading.Thread(target=shown.planted, args=(5_000_000, sys.argv[1] == "atomic")) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""

pytestmark = pytest.mark.skipif(
    Path(os.environ.get("RELAY_BUILD", "normal")).name != "thread", reason="only for the thread sanitizer's build"
)


def under_it(how: str) -> subprocess.CompletedProcess[str]:
    # Its options are of this run: reports of the other one belong to that alone.
    inherited = {name: value for name, value in os.environ.items() if name != "TSAN_OPTIONS"}
    return subprocess.run(
        [str(ROOT / "scripts" / "sanitized.sh"), "thread", sys.executable, "-c", PLANTED, how],
        env=inherited,
        check=False,
        capture_output=True,
        text=True,
    )


def test_a_race_is_found() -> None:
    done = under_it("plain")
    assert done.returncode == 99
    assert "data race" in done.stderr
    assert "planted_plain" in done.stderr


def test_what_is_no_race_is_not() -> None:
    done = under_it("atomic")
    assert (done.returncode, done.stderr) == (0, "")
