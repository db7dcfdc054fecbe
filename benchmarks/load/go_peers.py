"""grpc-go as node and subscriber (tests/peers/go): the peers of the field, for the paced rows."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers import process


def _binary(name: str) -> str:
    from tests.peers import binaries

    try:
        return str(binaries.path(name))
    except (FileNotFoundError, RuntimeError) as error:
        raise process.Missing(f"the Go {name} cannot be built: {binaries.missing() or error}") from error


def _json_line(log: Path, child: subprocess.Popen[str], number: int, timeout: float) -> dict[str, Any]:
    """The line of that number, once it is whole."""
    end = time.monotonic() + timeout
    while True:
        # Between them may be what the peer logs of a connection that is not there yet.
        lines = [line for line in log.read_text().splitlines(keepends=True) if line.startswith("{")]
        if len(lines) > number and lines[number].endswith("\n"):
            found: dict[str, Any] = json.loads(lines[number])
            return found
        if time.monotonic() > end or (child.poll() is not None and len(lines) <= number):
            raise RuntimeError(f"{child.args!r} printed no line {number}: {log.read_text()[-1000:]}")
        time.sleep(0.02)


@dataclass
class GoNode:
    """Running grpc-go nodes, which wait at their gate."""

    ports: list[int]
    child: subprocess.Popen[str]
    log: Path

    def open_gate(self) -> None:
        assert self.child.stdin
        self.child.stdin.write("go\n")
        self.child.stdin.flush()


@contextlib.contextmanager
def go_node(rate: float, count: int, nodes: int = 1) -> Iterator[GoNode]:
    """`count` events from each node at `rate` (0: as fast as they are taken), when the gate is opened."""
    argv = [_binary("node"), "-gate", f"-rate={rate}", f"-count={count}", f"-nodes={nodes}"]
    with (
        process.folder() as folder,
        process.program(argv, cpus=process.load_cpus(), folder=folder, stdin=subprocess.PIPE, stop=signal.SIGKILL) as (
            child,
            log,
        ),
    ):
        yield GoNode(_json_line(log, child, 0, 20)["ports"], child, log)


@dataclass
class GoClient:
    """A running grpc-go subscriber."""

    child: subprocess.Popen[str]
    log: Path

    def wait_subscribed(self, timeout: float = 15) -> None:
        _json_line(self.log, self.child, 0, timeout)

    def report(self, timeout: float) -> dict[str, Any]:
        """What it says when it has all its events."""
        return _json_line(self.log, self.child, 1, timeout)


@contextlib.contextmanager
def go_client(port: int, count: int) -> Iterator[GoClient]:
    argv = [_binary("client"), f"-server=127.0.0.1:{port}", f"-count={count}", "-quiet=2s", "-filter=system"]
    with (
        process.folder() as folder,
        process.program(argv, cpus=process.load_cpus(), folder=folder, stop=signal.SIGKILL) as (child, log),
    ):
        yield GoClient(child, log)
