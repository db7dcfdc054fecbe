"""The peers written in Go, as processes."""

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from . import binaries

WAIT = 30.0
PATIENCE = 100.0  # less than pytest has for one test


class Process:
    """One of the binaries, running; its lines of JSON are read on demand."""

    def __init__(self, name: str, *flags: str) -> None:
        # A sanitizer's library is for this process: it has no business in a Go program.
        environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        self._process = subprocess.Popen(
            [str(binaries.path(name)), *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def line(self) -> dict[str, Any]:
        """The next line it prints."""
        assert self._process.stdout is not None
        said: dict[str, Any] = json.loads(self._process.stdout.readline())
        return said

    def tell(self) -> None:
        """A line on its standard input: for a node, that events may flow."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """Its last line; waits for its end.

        Raises:
            AssertionError: it did not end in time.
        """
        code, lines, error = self._rest()
        assert code == 0, f"exit code {code}; it said {lines} {error}"
        said: dict[str, Any] = json.loads(lines[-1])
        return said

    def failure(self) -> str:
        """Why it failed, in its words; waits for its end."""
        code, lines, error = self._rest()
        assert code != 0, f"it did not fail; it said {lines}"
        return error

    def _rest(self) -> tuple[int, list[str], str]:
        """Its exit code, its last lines, and its last words; waits for its end."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        overdue = threading.Timer(PATIENCE, self._process.kill)
        overdue.start()
        lines = self._process.stdout.read().splitlines()
        overdue.cancel()
        return self._process.wait(WAIT), lines, self._process.stderr.read()

    def stop(self) -> dict[str, Any]:
        """End it, and take its last line."""
        self._process.terminate()
        return self.result()

    def kill(self) -> None:
        """End it without a word."""
        self._process.kill()
        self._process.wait(WAIT)

    def close(self) -> None:
        """Make sure that nothing of it is left."""
        if self._process.poll() is None:
            self.kill()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()


class NodeProcess(Process):
    """grpc-go nodes; `ports` as soon as they listen."""

    def __init__(self, *flags: str) -> None:
        super().__init__("node", *flags)
        self.ports: list[int] = self.line()["ports"]


class ClientProcess(Process):
    """A karmor-like subscriber."""

    def __init__(self, *flags: str) -> None:
        super().__init__("client", *flags)

    def wait_subscribed(self) -> None:
        """Wait until every stream has its response headers."""
        assert "subscribed" in self.line()


def tls_flags(folder: Path, side: str) -> tuple[str, ...]:
    """TLS with the files of a folder: ca.crt, <side>.crt and <side>.key, where side is "server" or "client"."""
    files = ("-tls-root", "ca.crt"), ("-tls-certificate", f"{side}.crt"), ("-tls-key", f"{side}.key")
    return tuple(word for flag, name in files for word in (flag, str(folder / name)))


GoNode = Callable[..., NodeProcess]
GoClient = Callable[..., ClientProcess]


@pytest.fixture
def go_node() -> Iterator[GoNode]:
    """Starts grpc-go nodes: call it with flags."""
    if binaries.missing():
        pytest.skip(binaries.missing())
    started: list[NodeProcess] = []

    def start(*flags: str) -> NodeProcess:
        started.append(NodeProcess(*flags))
        return started[-1]

    yield start
    for process in started:
        process.close()


@pytest.fixture
def go_client() -> Iterator[GoClient]:
    """Starts karmor-like subscribers: call it with flags."""
    if binaries.missing():
        pytest.skip(binaries.missing())
    started: list[ClientProcess] = []

    def start(*flags: str) -> ClientProcess:
        started.append(ClientProcess(*flags))
        return started[-1]

    yield start
    for process in started:
        process.close()
