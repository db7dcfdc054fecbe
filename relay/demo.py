"""`relay demo`: simulated nodes, the relay and an observer for a few seconds, then a summary.

Nodes and relay are processes of their own, started as a user would start them. The observer is an
engine in this process whose only node is the relay: it takes all three feeds over one connection.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relay import _fastpath, feeds
from relay.engine import Engine, NodeReport, NodeState
from relay.events import CLASSES, messages
from relay.render import as_line
from relay.settings import MIB, SettingsError, parse_integer, parse_number, setting

NODES = 3
SAMPLES = (3, 5, 6)  # lines shown of each feed, at most
SAMPLE_BYTES = 16 * 1024
SAMPLE_SECONDS = 0.5  # after the start of events
SAMPLE_WIDTH = 150  # characters, the rest of a line is left out
START_SECONDS = 15.0  # for a process to say that it is ready
END_SECONDS = 15.0  # for a process to end after its signal
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """What the demo is told."""

    seconds: float = setting(
        parse_number(0.1, 3600),
        flag="seconds",
        value="SECONDS",
        default=5.0,
        default_text="5",
        doc="How long events flow.",
    )
    rate: float = setting(
        parse_number(0, 1_000_000),
        flag="rate",
        value="EVENTS",
        default=2000.0,
        default_text="2000",
        doc="Events a second of each node; 0 is as fast as they can, which may be more than this machine can observe.",
    )
    seed: int = setting(
        parse_integer(0, 2**63 - 1), flag="seed", value="NUMBER", default=0, doc="Another seed, other events."
    )


class DemoFailed(Exception):
    """The demo cannot go on; the text says why."""


def demo(settings: DemoSettings) -> int:
    """Run the demo; returns 0, or 1 when something was lost or did not work."""
    try:
        return asyncio.run(_demo(settings))
    except DemoFailed as error:
        print(f"relay demo: {error}", file=sys.stderr)
        return 1


async def _demo(settings: DemoSettings) -> int:
    relay_port, node_port = free_ports(NODES)
    observer = Observer()
    started: list[Command] = []
    try:
        simulator = await Command.start(
            *("simulate", "-port", str(node_port), "-nodes", str(NODES), "-wait"),
            *("-rate", f"{settings.rate:f}", "-seed", str(settings.seed)),
        )
        started.append(simulator)
        await simulator.line("simulating")
        nodes = ",".join(f"{LOOPBACK}:{node_port + number}" for number in range(NODES))
        relay = await Command.start(
            *(
                "-gRPCPort",
                str(relay_port),
                "-bind",
                LOOPBACK,
                "-nodes",
                nodes,
                "-kubernetes=off",
                "-log-level",
                "debug",
            )
        )
        started.append(relay)
        await relay.line("serving")
        observer.start(relay_port)
        await relay.lines({"node connected": NODES, "subscriber started": len(feeds.FEEDS)})
        rate = f"{settings.rate:g} events/s each" if settings.rate else "as many events as they can"
        print(f"relay on port {relay_port}; an observer of all feeds; {NODES} nodes, {rate}", flush=True)

        cpu = relay.cpu()
        simulator.go()
        await asyncio.sleep(min(SAMPLE_SECONDS, settings.seconds / 2))
        observer.show_samples()
        await asyncio.sleep(max(settings.seconds - SAMPLE_SECONDS, settings.seconds / 2))
        await simulator.end()
        simulated = await simulator.line("simulated")
        memory = relay.memory()
        cpu = relay.cpu() - cpu
        await relay.end()
        counters = await relay.line("counters")
        await asyncio.wait_for(observer.ended.wait(), END_SECONDS)
        summary = Summary.of(simulated, counters, observer.counts(), cpu, memory)
    except TimeoutError:
        raise DemoFailed("a process did not start or end in time") from None
    finally:
        observer.close()
        for command in started:
            command.kill()
    print(summary.table())
    return 1 if summary.lost_anything() else 0


class Command:
    """A relay command as a process of its own, whose output is JSON lines."""

    def __init__(
        self, process: asyncio.subprocess.Process, given: asyncio.StreamWriter, output: asyncio.StreamReader
    ) -> None:
        self._process = process
        self._input = given
        self._output = output
        self._lines: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._said: list[str] = []
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, *arguments: str) -> Command:
        """Start `relay` with these arguments, in this Python."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "relay", *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=16 * MIB,
        )
        if process.stdin is None or process.stdout is None:
            raise DemoFailed("a process was started without its input or output")
        return cls(process, process.stdin, process.stdout)

    async def _read(self) -> None:
        async for line in self._output:
            try:
                self._lines.put_nowait(json.loads(line))
            except ValueError:
                self._said.append(line.decode(errors="replace").rstrip())
        self._lines.put_nowait({"msg": "", "ended": True})

    async def line(self, msg: str) -> dict[str, Any]:
        """The next output line with this "msg"; those before it are dropped.

        Raises:
            DemoFailed: the process has ended without it.
            TimeoutError: it does not come.
        """
        return await self.lines({msg: 1})

    async def lines(self, wanted: dict[str, int]) -> dict[str, Any]:
        """Wait for so many lines of each "msg", in any order; returns the last one. Raises as `line`."""
        async with asyncio.timeout(START_SECONDS):
            while True:
                line = await self._lines.get()
                msg = line["msg"]
                if line.get("level") == "error":
                    self._said.append(json.dumps(line))
                if line.get("ended"):
                    code = await self._process.wait()
                    raise DemoFailed(f"a process ended early (exit code {code})\n" + "\n".join(self._said[-20:]))
                if wanted.get(msg):
                    wanted = {**wanted, msg: wanted[msg] - 1}
                    if not any(wanted.values()):
                        return line

    def go(self) -> None:
        """Give it the line on standard input that it waits for."""
        self._input.write(b"\n")

    def cpu(self) -> float:
        """Run time of all its threads so far, in seconds."""
        # utime and stime are sampled by ticks; schedstat is exact.
        tasks = Path(f"/proc/{self._process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def memory(self) -> int:
        """Its highest resident memory so far, in bytes."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return 0

    async def end(self) -> None:
        """Ask it to end, and wait until it has."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(self._process.wait(), END_SECONDS)
        await self._reader

    def kill(self) -> None:
        """End it at once, if it still runs."""
        if self._process.returncode is None:
            self._process.kill()


class Observer:
    """All three feeds of the relay, counted by the engine; the first events are kept to be shown."""

    def __init__(self) -> None:
        self._native = _fastpath.Engine()
        self._engine = Engine(self._native)
        self._cursors = [_fastpath.Cursor(self._native, feed) for feed in feeds.FEEDS]
        self.ended = asyncio.Event()

    def start(self, port: int) -> None:
        """Connect to the relay, which listens already."""
        self._engine.on_node = self._on_node
        self._engine.start()
        self._native.add_node(0)
        self._native.connect_node(0, LOOPBACK, port)

    def _on_node(self, report: NodeReport) -> None:
        if report.state is NodeState.IDLE:
            self.ended.set()

    def show_samples(self) -> None:
        """Print the first events of each feed that the journal still holds."""
        colours = sys.stdout.isatty()
        for feed in feeds.FEEDS:
            frames = self._cursors[feed].read(SAMPLE_BYTES)
            print(f"\n{feeds.NAMES[feed]}:")
            for event in list(messages(frames))[: SAMPLES[feed]]:
                print("  " + as_line(CLASSES[feed].FromString(event), colours=colours, width=SAMPLE_WIDTH))

    def counts(self) -> list[int]:
        """Events received of each feed."""
        counters = self._engine.counters()["feeds"]
        return [counters[name]["received"] for name in feeds.NAMES]

    def close(self) -> None:
        """End the connection and the engine."""
        for cursor in self._cursors:
            cursor.close()
        self._engine.close()


@dataclass(frozen=True, slots=True)
class Summary:
    """What the demo tells at its end; lists are by feed."""

    sent: list[int]
    received: list[int]
    delivered: list[int]
    lost: list[int]
    bytes: int
    cpu: float
    memory: int

    @classmethod
    def of(
        cls, simulated: dict[str, Any], counters: dict[str, Any], observed: list[int], cpu: float, memory: int
    ) -> Summary:
        """Made from the last words of the processes and the observer's own count."""
        by_feed = counters["feeds"]
        return cls(
            sent=[simulated["published"][name] for name in feeds.NAMES],
            received=[by_feed[name]["received"] for name in feeds.NAMES],
            delivered=observed,
            lost=[by_feed[name]["ended_lost"] for name in feeds.NAMES],
            bytes=sum(by_feed[name]["bytes"] for name in feeds.NAMES),
            cpu=cpu,
            memory=memory,
        )

    def lost_anything(self) -> bool:
        """Whether any event did not arrive, wherever it was lost; or none came at all."""
        return not sum(self.delivered) or any(self.lost) or not self.sent == self.received == self.delivered

    def table(self) -> str:
        """The summary as text."""
        rows: list[tuple[str, ...]] = [("", *feeds.NAMES, "all")]
        for name, counts in (
            ("sent by nodes", self.sent),
            ("in", self.received),
            ("delivered", self.delivered),
            ("lost", self.lost),
        ):
            rows.append((name, *(f"{count:,}" for count in (*counts, sum(counts)))))
        text = "\n".join(f"  {row[0]:15}" + "".join(f"{cell:>12}" for cell in row[1:]) for row in rows)
        events = max(sum(self.delivered), 1)
        return (
            f"\nsummary:\n{text}\n"
            f"  CPU of the relay: {self.cpu * 1e6 / events:.2f} us per delivered event"
            f" ({self.bytes / max(sum(self.received), 1):.0f} bytes each)\n"
            f"  memory of the relay: {self.memory / MIB:.0f} MiB at most"
        )


def free_ports(following: int) -> tuple[int, int]:
    """A free port, and the first of `following` free ports in a row.

    Raises:
        SettingsError: there are none.
    """
    for _ in range(100):
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            first: int = probe.getsockname()[1]
            ports = range(first + 1, first + 1 + following)
            if ports[-1] <= 65535 and all(_is_free(port) for port in ports):
                return first, ports[0]
    raise SettingsError("no free ports in a row: end what uses them")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
