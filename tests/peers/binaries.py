"""Builds the peers that are written in Go, once, into build/peers/.

`python -m tests.peers.binaries` builds all; tests use `path`, which builds what is out of date.
"""

import tempfile
from pathlib import Path

from . import go_structs
from .go_tool import MODULE, ROOT, missing, run

__all__ = ["BUILT", "ROOT", "missing", "path"]

BUILT = ROOT / "build" / "peers"
PACKAGES = {
    "node": "./node",
    "client": "./client",
    "json": "./json",
    "judge": "./judge",
    "h2spec": "github.com/summerwind/h2spec/cmd/h2spec",
}
WITH_STRUCTS = ("json",)  # those that need the structs of KubeArmor's messages


def path(name: str) -> Path:
    """The binary of that name (a key of PACKAGES), built when a source is newer.

    Raises:
        RuntimeError: the build failed; the text is the compiler's.
    """
    binary = BUILT / name
    sources = [source for source in MODULE.rglob("*") if source.is_file() and source.name != "README.md"]
    if name in WITH_STRUCTS:
        sources += go_structs.SOURCES
    newest = max(source.stat().st_mtime for source in sources)
    if binary.exists() and binary.stat().st_mtime >= newest:
        return binary
    BUILT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILT, prefix=f".{name}.") as beside:
        overlay = ["-overlay", str(go_structs.overlay(Path(beside)))] if name in WITH_STRUCTS else []
        # Built beside and moved: another process that runs or builds the same binary never sees half of it.
        made = Path(beside) / name
        run(["go", "build", *overlay, "-o", str(made), PACKAGES[name]])
        made.replace(binary)
    return binary


if __name__ == "__main__":
    for each in PACKAGES:
        print(path(each))
