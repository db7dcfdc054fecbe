"""Start a program on loopback, know when it listens, end it by its own process id."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import measure

ROOT = Path(__file__).resolve().parents[2]
_CPUS = os.sched_getaffinity(0)  # at the start; this process later keeps to those of the load


class Missing(Exception):
    """A contender that is not installed; the text says what is missing."""


@dataclass
class Contender:
    """A running program between nodes and subscribers.

    Attributes:
        ports: where subscribers connect; one, or one a node where the program cannot do otherwise.
        pids: the processes whose run time counts.
        log: what it printed.
        packs: whether it fills DATA frames with events, or passes on the node's, of one event each.
        holds_headers: whether a subscriber gets its response headers only with the first event.
    """

    name: str
    ports: list[int]
    process: subprocess.Popen[str]
    log: Path
    packs: bool = True
    holds_headers: bool = False

    @property
    def pids(self) -> list[int]:
        return measure.family(self.process.pid)


def contender_cpus() -> set[int]:
    """Where the contender runs: anywhere, as in the field; with BENCH_PIN=1 on one processor of its own.

    On a machine that does nothing else pinning halves the noise. On a shared one it makes more: the
    contender cannot give way to what else wants its processor.
    """
    return {min(_CPUS)} if os.environ.get("BENCH_PIN") == "1" else _CPUS


def load_cpus() -> set[int]:
    """Where load runs: not where the contender is pinned."""
    return _CPUS - contender_cpus() or _CPUS


def find(program: str) -> str:
    """Its path; system programs also where an ordinary user's PATH does not lead."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin:/sbin")
    if path is None:
        raise Missing(f"{program} is not installed")
    return path


def free_ports(count: int = 1) -> list[int]:
    """Ports that nobody uses now; all are held until all are known, so that they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [s.getsockname()[1] for s in sockets]


def wait_listening(port: int, process: subprocess.Popen[str], log: Path, timeout: float = 20.0) -> None:
    end = time.monotonic() + timeout
    while True:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}: {log.read_text()[-2000:]}")
        if listening(port):
            return
        if time.monotonic() > end:
            raise TimeoutError(
                f"{process.args!r} does not listen on {port} after {timeout} s: {log.read_text()[-2000:]}"
            )
        time.sleep(0.02)


def listening(port: int) -> bool:
    """Whether anybody listens there; told by the kernel's table, for a connection would be work for the contender."""
    wanted = f":{port:04X}"
    for name in ("tcp", "tcp6"):
        for line in (measure.PROC / "net" / name).read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A" and columns[1].endswith(wanted):
                return True
    return False


@contextlib.contextmanager
def program(
    argv: Sequence[str],
    *,
    cpus: set[int] | None = None,
    folder: Path,
    stdin: int | None = subprocess.DEVNULL,
    environment: dict[str, str] | None = None,
    stop: signal.Signals = signal.SIGTERM,
    stdout: int | None = None,
) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Run it with its output in a file of `folder`, or `stdout` elsewhere; end it, and wait for it, at the end."""
    log = folder / "output"
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus or own)  # the child inherits it, and so do its threads
    try:
        with log.open("w") as output:
            process = subprocess.Popen(
                argv,
                stdin=stdin,
                stdout=output if stdout is None else stdout,
                stderr=output,
                text=True,
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)} | (environment or {}),
            )
    finally:
        os.sched_setaffinity(0, own)
    try:
        yield process, log
    finally:
        if process.poll() is None:
            process.send_signal(stop)
        try:
            process.wait(6)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin:
            process.stdin.close()


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as name:
        path = Path(name)
        path.chmod(0o755)  # nginx's worker is another user
        yield path
