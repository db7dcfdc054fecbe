"""The relay itself: the installed command, as an operator runs it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.load.secure import Secured
from benchmarks.peers import process

ALONE = {"RELAY_KUBERNETES": "off"}  # a developer's cluster is none of its business


def command() -> str:
    """The installed command; RELAY_COMMAND names another build of it."""
    named = os.environ.get("RELAY_COMMAND")
    path = Path(named) if named else Path(sys.executable).parent / "relay"
    if not path.exists():
        path = process.ROOT / ".venv" / "bin" / "relay"
    if not path.exists():
        raise process.Missing("the relay is not built: run make build")
    return str(path)


@contextlib.contextmanager
def start_printing(nodes: list[int]) -> Iterator[process.Contender]:
    """With logs on standard output, which goes through a pipe to a reader that forgets them."""
    end, write = os.pipe()
    reader = subprocess.Popen(["cat"], stdin=end, stdout=subprocess.DEVNULL)
    os.close(end)
    try:
        with start(nodes, "-stdout=logs", stdout=write) as contender:
            os.close(write)
            write = -1
            yield contender
    finally:
        if write >= 0:
            os.close(write)
        reader.wait()


@contextlib.contextmanager
def start(
    nodes: list[int], *flags: str, stdout: int | None = None, tls: Secured | None = None
) -> Iterator[process.Contender]:
    port = process.free_ports()[0]
    listed = ",".join(f"127.0.0.1:{node}" for node in nodes)
    argv = [command(), f"--nodes={listed}", f"--gRPCPort={port}", "--bind=127.0.0.1", *flags]
    environment = ALONE
    if tls:
        argv += ["--tlsEnabled", f"--tlsCertPath={tls.folder}"]
        environment = ALONE | tls.environment
    with (
        process.folder() as folder,
        process.program(argv, cpus=process.contender_cpus(), folder=folder, environment=environment, stdout=stdout) as (
            child,
            log,
        ),
    ):
        process.wait_listening(port, child, log)
        yield process.Contender("relay", [port], child, log)


def counters(contender: process.Contender, timeout: float = 5.0) -> dict[str, Any]:
    """Its own counters: SIGUSR1 logs them as one JSON line."""
    before = len(contender.log.read_text())
    contender.process.send_signal(signal.SIGUSR1)
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        for line in contender.log.read_text()[before:].splitlines():
            if line.startswith("{") and '"feeds"' in line and line.endswith("}"):
                found: dict[str, Any] = json.loads(line)
                return found
        time.sleep(0.02)
    raise TimeoutError(f"no counters after {timeout} s: {contender.log.read_text()[-500:]}")
