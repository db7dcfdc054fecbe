"""Start load nodes in a process of their own, and command them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks.load import events
from benchmarks.load.commanded import Commanded
from benchmarks.load.secure import Secured
from benchmarks.peers import process


@dataclass
class Source(Commanded):
    """Running load nodes (benchmarks.load.node)."""

    ports: list[int] = field(default_factory=list)

    def listening(self, nodes: int) -> None:
        """Read the ports that it prints first."""
        self.ports = [int(word) for word in self.wait_line("").split()]
        assert len(self.ports) == nodes

    def wait_streams(self, count: int) -> None:
        """Until so many streams that take events are open at the nodes."""
        self.say(f"wait {count}")
        self.wait_line("ready")

    def flat(self, count: int, ahead: int = 0) -> None:
        self.say(f"flat {count} {ahead}")

    def got(self, count: int) -> None:
        """What the slowest subscriber has received since `flat`."""
        with contextlib.suppress(BrokenPipeError):
            self.say(f"got {count}")

    def pace(self, rate: float, count: int, burst: int = 1) -> None:
        self.say(f"pace {rate} {count} {burst}")


@contextlib.contextmanager
def raw_nodes(
    nodes: int = 1,
    *,
    plain: bool = False,
    feeds: tuple[int, ...] = (events.LOGS,),
    layouts: int = 0,
    tls: Secured | None = None,
) -> Iterator[Source]:
    """`layouts` different events; 0 leaves it to the nodes, who send as many as they can."""
    argv = [sys.executable, "-m", "benchmarks.load.node", "--nodes", str(nodes), "--feeds", *map(str, feeds)]
    argv += ["--plain"] if plain else []
    argv += [f"--layouts={layouts}"] if layouts else []
    argv += [f"--tls={tls.folder}"] if tls else []
    with (
        process.folder() as folder,
        process.program(
            argv, cpus=process.load_cpus(), folder=folder, stdin=subprocess.PIPE, environment=tls and tls.environment
        ) as (child, log),
    ):
        source = Source(child, log)
        source.listening(nodes)
        yield source
