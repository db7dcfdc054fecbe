"""Start a storm of handshakes in a process of its own, and let it go."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.load.commanded import Commanded
from benchmarks.load.secure import Secured
from benchmarks.peers import process


class Storm(Commanded):
    """Connections that are about to shake hands (benchmarks.load.storm)."""

    def let_go(self) -> None:
        self.say("go")

    def wait_shaken(self, count: int) -> None:
        """Until so many handshakes are done, and none has failed."""
        said = self.wait_line("shaken", 60.0)
        if int(said.split()[1]) != count:
            raise RuntimeError(f"not all of {count} handshakes were done: {said}")


@contextlib.contextmanager
def storm(port: int, count: int, tls: Secured) -> Iterator[Storm]:
    argv = [sys.executable, "-m", "benchmarks.load.storm", str(port), str(count), str(tls.folder)]
    with (
        process.folder() as folder,
        process.program(
            argv, cpus=process.load_cpus(), folder=folder, stdin=subprocess.PIPE, environment=tls.environment
        ) as (child, log),
    ):
        made = Storm(child, log)
        made.wait_line("ready")
        yield made
