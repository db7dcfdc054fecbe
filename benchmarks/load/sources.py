"""Start load nodes in a process of their own, and command them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import events
from benchmarks.peers import process


@dataclass
class Source:
    """Running load nodes (benchmarks.load.node)."""

    ports: list[int]
    child: subprocess.Popen[str]
    log: Path

    def listening(self, nodes: int) -> None:
        """Read the ports that it prints first."""
        while len(self.ports) < nodes:
            self._line("")
            self.ports = [int(word) for word in self.log.read_text().split()]

    def wait_streams(self, count: int) -> None:
        """Until so many streams that take events are open at the nodes."""
        self._say(f"wait {count}")
        self._line("ready")

    def flat(self, count: int, ahead: int = 0) -> None:
        self._say(f"flat {count} {ahead}")

    def got(self, count: int) -> None:
        """What the slowest subscriber has received since `flat`."""
        with contextlib.suppress(BrokenPipeError):
            self._say(f"got {count}")

    def pace(self, rate: float, count: int, burst: int = 1) -> None:
        self._say(f"pace {rate} {count} {burst}")

    def _say(self, line: str) -> None:
        assert self.child.stdin
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()

    def _line(self, word: str, timeout: float = 20.0) -> None:
        """Until the last line it printed is this word."""
        end = time.monotonic() + timeout
        while not self.log.read_text().endswith(f"{word}\n"):
            if self.child.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the load nodes did not say {word!r}: {self.log.read_text()[-1000:]}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(0.01)


@contextlib.contextmanager
def raw_nodes(
    nodes: int = 1, *, plain: bool = False, feeds: tuple[int, ...] = (events.LOGS,), layouts: int = 0
) -> Iterator[Source]:
    """`layouts` different events; 0 leaves it to the nodes, who send as many as they can."""
    argv = [sys.executable, "-m", "benchmarks.load.node", "--nodes", str(nodes), "--feeds", *map(str, feeds)]
    argv += ["--plain"] if plain else []
    argv += [f"--layouts={layouts}"] if layouts else []
    with (
        process.folder() as folder,
        process.program(argv, cpus=process.load_cpus(), folder=folder, stdin=subprocess.PIPE) as (child, log),
    ):
        source = Source([], child, log)
        source.listening(nodes)
        yield source
