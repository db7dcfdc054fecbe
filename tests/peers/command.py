"""The installed command as a process: its output lines, its signals and its end."""

import json
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

WAIT = 60.0  # a bound for what hangs; nothing that works takes so long
PROGRAM = Path(sys.executable).parent / "relay"
HOST = "127.0.0.1"
# The relay with a deadline for its graceful end that no test waits for: what holds it up shows.
PATIENT = (
    sys.executable,
    "-c",
    "import sys, relay.app, relay.cli; relay.app.SHUTDOWN_SECONDS = 3600; sys.exit(relay.cli.main())",
)

Line = dict[str, Any]


def free_port(following: int = 0) -> int:
    """A port that nobody uses now, with so many more behind it.

    From outside of what the kernel chooses from for connections: or else crowds of them take it until it is used.
    """
    least = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10_000, least if least > 20_000 else 65_000)
        try:
            for number in range(following + 1):
                with socket.socket() as probe:
                    probe.bind((HOST, port + number))
        except (OSError, OverflowError):
            continue
        return port


def environment(**values: str) -> dict[str, str]:
    """This process's environment with `values`, without what changes the command's ways, and without a cluster."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name != "PYTHONUNBUFFERED" and not name.startswith(("RELAY_", "KUBE", "ENABLE_", "ES_", "OS_"))
    }
    return kept | {"HOME": "/nonexistent"} | values


def finished(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [str(PROGRAM), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT,
        env=environment(**variables),
        check=False,
    )


class Command:
    """A running command. Lines of standard error and output are read as they come, JSON where they are JSON.

    Args:
        arguments: of the command.
        program: what runs; the installed command when empty.
        output: where its standard output goes; by default `printed` gives it.
        variables: of its environment, on top of ours.
    """

    def __init__(
        self, *arguments: str, program: tuple[str, ...] = (), output: IO[str] | None = None, **variables: str
    ) -> None:
        self._process = subprocess.Popen(
            [*(program or (str(PROGRAM),)), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if output is None else output,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**variables),
        )
        self._logged: queue.Queue[str | None] = queue.Queue()
        self._printed: queue.Queue[str | None] = queue.Queue()
        self.log: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=pair, daemon=True)
            for pair in ((self._process.stderr, self._logged), (self._process.stdout, self._printed))
            if pair[0] is not None
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def line(self, wanted: Callable[[Line], bool] | str) -> Line:
        """The next line of standard error that is wanted, by its "msg" or a predicate; others are passed over.

        Raises:
            AssertionError: the process ended without it, or it does not come.
        """
        matches = (lambda line: line.get("msg") == wanted) if isinstance(wanted, str) else wanted
        while True:
            line = self._next(self._logged)
            if line is None:
                raise AssertionError(f"{wanted} did not come; log:\n" + "\n".join(self.log))
            self.log.append(line)
            parsed = parse(line)
            if matches(parsed):
                return parsed

    def printed(self) -> str | None:
        """The next line of standard output; None at its end."""
        return self._next(self._printed)

    def say(self) -> None:
        """Give it a line on standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def counters(self) -> Line:
        """Its counters now."""
        self.send(signal.SIGUSR1)
        return self.line("counters")

    def wait(self) -> int:
        """Its exit code; waits for its end, and takes what it said until then into `log`."""
        code = self._process.wait(WAIT)
        while (line := self._next(self._logged)) is not None:
            self.log.append(line)
        self._logged.put(None)
        return code

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it, and wait for its exit code."""
        self.send(number)
        return self.wait()

    def logged(self, msg: str) -> list[Line]:
        """The lines seen so far with this "msg"."""
        return [line for line in map(parse, self.log) if line.get("msg") == msg]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(WAIT)
        for reader in self._readers:
            reader.join(WAIT)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _next(self, lines: queue.Queue[str | None]) -> str | None:
        try:
            line = lines.get(timeout=WAIT)
        except queue.Empty:
            raise AssertionError("no line in time; log:\n" + "\n".join(self.log)) from None
        if line is None:
            lines.put(None)
        return line

    @staticmethod
    def _read(pipe: Any, lines: queue.Queue[str | None]) -> None:
        for line in pipe:
            lines.put(line.rstrip("\n"))
        lines.put(None)


def parse(line: str) -> Line:
    """A line of JSON as it is; any other as its "text"."""
    try:
        parsed = json.loads(line)
    except ValueError:
        return {"text": line}
    return parsed if isinstance(parsed, dict) else {"text": line}


class Relay(Command):
    """A serving relay on a port of its own, ready to be connected to.

    Args:
        nodes: ports of nodes on this machine; without any, one that nobody listens on.
        arguments: more flags.
    """

    def __init__(self, *arguments: str, nodes: tuple[int, ...] = (), port: int = 0, **keywords: Any) -> None:
        self.port = port or free_port()
        given = ("-nodes", ",".join(f"{HOST}:{node}" for node in nodes or (1,)))
        super().__init__("-gRPCPort", str(self.port), "-log-level", "debug", *given, *arguments, **keywords)
        try:
            self.line("serving")
        except BaseException:
            self.__exit__(None, None, None)
            raise
