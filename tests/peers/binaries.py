"""Builds the peers that are written in Go, once, into build/peers/.

`python -m tests.peers.binaries` builds all; tests use `path`, which builds what is out of date.
"""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULE = Path(__file__).resolve().parent / "go"
BUILT = ROOT / "build" / "peers"
PACKAGES = {"node": "./node", "client": "./client", "h2spec": "github.com/summerwind/h2spec/cmd/h2spec"}


def missing() -> str:
    """Why the binaries cannot be built here, or "" when they can."""
    return "" if shutil.which("go") else "Go is not installed"


def path(name: str) -> Path:
    """The binary of that name (a key of PACKAGES), built when a source is newer.

    Raises:
        RuntimeError: the build failed; the text is the compiler's.
    """
    binary = BUILT / name
    newest = max(
        source.stat().st_mtime for source in MODULE.rglob("*") if source.is_file() and source.name != "README.md"
    )
    if binary.exists() and binary.stat().st_mtime >= newest:
        return binary
    BUILT.mkdir(parents=True, exist_ok=True)
    # Built beside and moved: another process that runs or builds the same binary never sees half of it.
    beside = BUILT / f".{name}.{os.getpid()}"
    command = ["go", "build", "-o", str(beside), PACKAGES[name]]
    # Without C the binaries are static: what is preloaded into this process stays out of them.
    environment = {**os.environ, "CGO_ENABLED": "0"}
    environment.pop("LD_PRELOAD", None)
    done = subprocess.run(command, cwd=MODULE, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} in {MODULE}:\n{done.stderr}")
    beside.replace(binary)
    return binary


if __name__ == "__main__":
    for each in PACKAGES:
        print(path(each))
