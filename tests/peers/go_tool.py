"""The Go compiler, where the peers' module is."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULE = Path(__file__).resolve().parent / "go"


def missing() -> str:
    """Why nothing can be built here, or "" when it can."""
    return "" if shutil.which("go") else "Go is not installed"


def environment() -> dict[str, str]:
    """That of the compiler, and of what it made: a sanitizer's library, which is for this process, stays out of it."""
    # Without C the binaries are static.
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"} | {"CGO_ENABLED": "0"}


def run(command: list[str]) -> None:
    """Run a build's command in the module.

    Raises:
        RuntimeError: it failed; the text is its own.
    """
    done = subprocess.run(command, cwd=MODULE, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} in {MODULE}:\n{done.stderr}")
