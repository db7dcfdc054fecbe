"""Events on standard output: whole lines and nothing else, and a reader that stops or goes costs nobody else."""

import contextlib
import hashlib
import json
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from peers import events
from peers.client import Subscriber, channel
from peers.command import PATIENT, PROGRAM, WAIT, Command, Relay, environment, parse
from peers.engine import Engine
from peers.events import ALERTS, FEEDS, LOGS, MESSAGES, NAMES
from peers.node import Node
from unit import oracle_json

from relay import kubearmor_pb2 as pb

pytestmark = pytest.mark.system

DOCS = "".join(page.read_text(encoding="utf-8") for page in (Path(__file__).parents[2] / "docs").glob("sinks*.md"))
ALL = "-stdout=logs,alerts,messages"
FEW = ("-journal-bytes=7MiB", "-max-event-bytes=1MiB")  # room for about 5 MiB of logs


class Output:
    """A pipe for a process's standard output, read by a thread that can stand still."""

    def __init__(self) -> None:
        self._end, write = os.pipe()
        self.file = os.fdopen(write, "w")
        self.data = bytearray()
        self._goes = threading.Event()
        self._goes.set()
        self._thread = threading.Thread(target=self._read)

    def pause(self) -> None:
        """Read at most what the thread is reading now, and then nothing."""
        self._goes.clear()

    def resume(self) -> None:
        self._goes.set()

    def wait(self, count: int) -> None:
        """Wait for so many lines."""
        end = time.monotonic() + WAIT
        while self.data.count(b"\n") < count:
            assert time.monotonic() < end, f"fewer than {count} lines: {self.data[-1000:]!r}"
            time.sleep(0.005)

    def rest(self, *, cut: bool = False) -> list[bytes]:
        """Every line, when the process has closed its end; the last one may be `cut`."""
        self.resume()
        self._thread.join(WAIT)
        assert not self._thread.is_alive()
        assert cut or not self.data or self.data.endswith(b"\n")
        return bytes(self.data).splitlines(keepends=True)

    def __enter__(self) -> Self:
        return self

    def begin(self) -> Self:
        """Read, once the process has its end: ours would keep the pipe open."""
        self.file.close()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self.file.close()
        self.resume()
        if self._thread.ident is not None:
            self._thread.join(WAIT)
        os.close(self._end)

    def _read(self) -> None:
        while self._goes.wait() and (got := os.read(self._end, 65536)):
            self.data += got


@contextlib.contextmanager
def printing(*arguments: str, node: int, **keywords: Any) -> Iterator[tuple[Relay, Output]]:
    """A relay whose standard output is read."""
    with Output() as output, Relay(*arguments, nodes=(node,), output=output.file, **keywords) as relay:
        output.begin()
        yield relay, output


def sink(relay: Command) -> dict[str, Any]:
    """The counters of standard output."""
    (counted,) = relay.counters()["sinks"]
    assert counted["sink"] == "stdout"
    assert counted["read"] >= counted["sent"]
    return dict(counted)


def wait_sink(relay: Command, **values: int) -> dict[str, Any]:
    """Wait until the counters have these values."""
    end = time.monotonic() + WAIT
    while not values.items() <= (counted := sink(relay)).items():
        assert time.monotonic() < end, counted
    return counted


def wait_loss(relay: Command) -> int:
    """Wait until all is counted that was overwritten: its thread looks once a second. How much that is."""
    end = time.monotonic() + WAIT
    while True:
        counters = relay.counters()
        (counted,) = counters["sinks"]
        if counted["read"] + counted["lost"] >= counters["feeds"]["logs"]["first"]:
            return int(counted["lost"])
        assert time.monotonic() < end, counted


def expected(feed: int, sent: list[bytes]) -> list[bytes]:
    return [oracle_json.printed(events.CLASSES[feed].FromString(each)) + b"\n" for each in sent]


# --- what is printed ----------------------------------------------------------------------


def test_every_event_is_a_line_of_its_feed_and_nothing_else_is_printed() -> None:
    sent = {feed: [events.event(feed, number, ClusterName=NAMES[feed]) for number in range(500)] for feed in FEEDS}
    with Node() as node, printing(ALL, node=node.port) as (relay, output):
        for feed in FEEDS:
            node.wait_open(feed)
            node.send(feed, *sent[feed])
        output.wait(1500)
        counted = wait_sink(relay, sent=1500, lost=0, behind=0, read=1500)
        assert counted["feeds"] == list(NAMES)
        assert {name for name in counted if f"`{name}`" not in DOCS} == set()
        assert relay.end() == 0
        lines = output.rest()
    wanted = {feed: expected(feed, sent[feed]) for feed in FEEDS}
    assert len(lines) == 1500
    for feed in FEEDS:
        theirs = set(wanted[feed])
        assert [line for line in lines if line in theirs] == wanted[feed]


@pytest.mark.parametrize(
    ("variables", "feed"),
    [
        ({"ENABLE_STDOUT_LOGS": "TRUE"}, LOGS),
        ({"ENABLE_STDOUT_ALERTS": "true"}, ALERTS),
        ({"ENABLE_STDOUT_MSGS": "True"}, MESSAGES),
        ({"RELAY_STDOUT": "alerts"}, ALERTS),
    ],
)
def test_a_feed_is_switched_on_alone(variables: dict[str, str], feed: int) -> None:
    with Node() as node, printing(node=node.port, **variables) as (relay, output):
        for each in FEEDS:
            node.wait_open(each)
            node.send(each, *events.events(each, 3))
        output.wait(3)
        assert sink(relay)["feeds"] == [NAMES[feed]]
        assert relay.end() == 0
        assert output.rest() == expected(feed, events.events(feed, 3))


def test_without_a_word_nothing_is_printed_and_the_relay_has_no_sinks() -> None:
    with Node() as node, printing(node=node.port) as (relay, output):
        node.wait_open(LOGS)
        node.send(LOGS, *events.events(LOGS, 3))
        assert "sinks" not in relay.counters()
        assert relay.end() == 0
        assert output.rest() == []


class Numbered:
    """Logs of about 780 bytes that differ in their first field, as frames and as lines, made fast."""

    def __init__(self) -> None:
        log = pb.Log(
            UpdatedTime="2026-11-02T10:00:00.000000Z", ClusterName="cluster", HostName="node-1", NamespaceName="shop",
            PodName="checkout-5d9f8c7b6d-x2x4q", Labels="app=checkout,tier=backend", ContainerID="4f1a" * 16,
            ContainerName="checkout", ContainerImage="shop/checkout@sha256:" + "ab" * 32, ParentProcessName="/bin/sh",
            ProcessName="/usr/bin/curl", HostPPID=4711, HostPID=4712, PPID=1, PID=7, UID=1000, Type="ContainerLog",
            Source="/usr/bin/curl -s <http://a&b>", Operation="Network", Resource="x" * 200, Data="syscall=SYS_CONNECT",
            Result="Passed", Owner=pb.Podowner(Ref="Deployment", Name="checkout", Namespace="shop"),
        )  # fmt: skip
        self._rest = bytes(log.SerializeToString())
        # Numbers of one length, so that frames are, too.
        line = oracle_json.printed(pb.Log.FromString(self._message(self.first)))
        self._before, self._behind = line.split(b"%d" % self.first)

    first = 1_000_000_000

    def _message(self, number: int) -> bytes:
        return b"\x08" + events.varint(number) + self._rest

    def frames(self, start: int, count: int) -> bytes:
        return b"".join(events.frame(self._message(self.first + each)) for each in range(start, start + count))

    def lines(self, start: int, count: int) -> bytes:
        return b"".join(
            b"%b%d%b\n" % (self._before, self.first + each, self._behind) for each in range(start, start + count)
        )


@pytest.mark.slow
def test_a_million_events_through_a_pipe_are_those_of_the_oracle() -> None:
    """Paced to the reader: the next part comes when the last one was printed."""
    numbered, part, parts = Numbered(), 20_000, 50
    digest = hashlib.sha256()
    assert numbered.lines(7, 1) == expected(LOGS, [numbered.frames(7, 1)[events.PREFIX :]])[0]
    with (
        Engine() as node,
        subprocess.Popen(["sha256sum"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as hasher,
    ):
        assert hasher.stdin is not None
        assert hasher.stdout is not None
        with Relay("-stdout=logs", nodes=(node.port,), output=hasher.stdin) as relay:
            hasher.stdin.close()
            node.wait_subscribers(3)
            for start in range(0, part * parts, part):
                node.publish_frames(LOGS, numbered.frames(start, part))
                digest.update(numbered.lines(start, part))
                wait_sink(relay, sent=start + part)
            assert wait_sink(relay, sent=part * parts, lost=0)["writes"] < part * parts / 10
            assert relay.end() == 0
        assert hasher.stdout.read().split()[0] == digest.hexdigest()
        hasher.wait(WAIT)


# --- a reader that is slow, or gone ---------------------------------------------------------


def numbers(lines: list[bytes]) -> list[int]:
    return [json.loads(line)["Timestamp"] - Numbered.first for line in lines]


@pytest.mark.slow
def test_a_reader_that_stops_for_half_a_minute_costs_counted_lines_and_nobody_else() -> None:
    numbered, part, parts = Numbered(), 1000, 30
    with (
        Engine() as node,
        printing("-stdout=logs", *FEW, node=node.port) as (relay, output),
        channel(relay.port) as over,
        Subscriber(over, LOGS).ready() as subscriber,
    ):
        node.wait_subscribers(3)
        output.pause()
        stopped = time.monotonic()
        for start in range(0, part * parts, part):
            node.publish_frames(LOGS, numbered.frames(start, part))
            assert len(subscriber.take(part)) == part
        lost = wait_loss(relay)
        assert lost > 0
        time.sleep(max(0.0, stopped + 30 - time.monotonic()))
        assert sink(relay)["lost"] == lost
        output.resume()
        counted = wait_sink(relay, behind=0)
        assert counted["sent"] + counted["lost"] == part * parts
        assert relay.end() == 0
        printed = numbers(output.rest())
        assert len(printed) == counted["sent"]
        assert printed == sorted(set(printed))
        assert printed[-1] == part * parts - 1
        (told,) = relay.logged("sink loses events: the journal overwrote them before they were read")
        assert (told["level"], told["sink"], told["feed"]) == ("warn", "stdout", "logs")
        (served,) = relay.logged("counters")[-1]["subscribers"]
        assert (served["delivered"], served["lost"]) == (part * parts, 0)


def test_a_closed_pipe_is_told_once_and_the_relay_goes_on() -> None:
    end, write = os.pipe()
    with (
        Node() as node,
        os.fdopen(write, "w") as output,
        Relay("-stdout=logs", nodes=(node.port,), output=output) as relay,
        channel(relay.port) as over,
        Subscriber(over, LOGS).ready() as subscriber,
    ):
        output.close()
        node.wait_open(LOGS)
        os.close(end)
        node.send(LOGS, *events.events(LOGS, 10))
        told = relay.line("sink ends: standard output cannot be written")
        assert (told["level"], told["error"]) == ("error", "Broken pipe")
        node.send(LOGS, *events.events(LOGS, 10))
        assert len(subscriber.take(20)) == 20
        counted = sink(relay)
        assert (counted["sent"], counted["lost"], counted["behind"]) == (0, 20, 0)
        assert relay.end() == 0
        assert len(relay.logged("sink ends: standard output cannot be written")) == 1
        assert relay.logged("sink loses events: the journal overwrote them before they were read") == []


def test_a_closed_standard_output_is_refused() -> None:
    run = subprocess.run(
        ["sh", "-c", 'exec "$0" "$@" >&-', str(PROGRAM), ALL, "-nodes=127.0.0.1:1", "-kubernetes=off"],
        capture_output=True, text=True, timeout=WAIT, env=environment(), check=False,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (
        2,
        "relay: standard output is closed, and -stdout prints there: leave it open, or leave -stdout out\n",
    )


def test_a_file_is_as_good_as_a_pipe(tmp_path: Path) -> None:
    with (
        Node() as node,
        (tmp_path / "out").open("w") as output,
        Relay(ALL, nodes=(node.port,), output=output) as relay,
    ):
        for feed in FEEDS:
            node.wait_open(feed)
        node.send(LOGS, *events.events(LOGS, 100))
        wait_sink(relay, sent=100, behind=0)
        assert relay.end() == 0
    assert (tmp_path / "out").read_bytes() == b"".join(expected(LOGS, events.events(LOGS, 100)))


def test_log_lines_in_the_same_pipe_stand_between_events() -> None:
    """The reader is slower than the relay, so that the pipe is full all the time; events are logged about meanwhile."""
    sent = events.events(LOGS, 20_000, size=1024)
    together = ("sh", "-c", 'exec "$0" "$@" 1>&2', str(PROGRAM))
    with Node() as node, Relay("-stdout=logs", nodes=(node.port,), program=together) as relay:
        node.wait_open(LOGS)
        for start in range(0, len(sent), 200):
            node.send(LOGS, *sent[start : start + 200])
            relay.send(signal.SIGUSR1)
        wait_sink(relay, sent=len(sent), lost=0, behind=0)
        assert relay.end() == 0
    assert [line for line in relay.log if "text" in parse(line)] == []  # all are JSON
    printed = [line for line in relay.log if "msg" not in parse(line)]
    assert b"".join(line.encode() + b"\n" for line in printed) == b"".join(expected(LOGS, sent))


def test_a_full_disk_is_told_and_so_is_that_it_has_healed(tmp_path: Path) -> None:
    """No file of the relay may be larger, and then it may. Whole lines, in order, none of them twice."""
    sent = events.events(LOGS, 1000, size=1024)
    lines = b"".join(expected(LOGS, sent))
    size = len(lines) // 2 + 1
    with (
        Node() as node,
        (tmp_path / "out").open("w") as output,
        Relay("-stdout=logs", nodes=(node.port,), output=output) as relay,
    ):
        soft, hard = resource.prlimit(relay.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        assert (soft, hard) == (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        node.wait_open(LOGS)
        node.send(LOGS, *sent)
        told = relay.line("sink cannot take events, and is asked again")
        assert (told["level"], told["reason"], told["times"]) == ("warn", "File too large", 1)
        assert (tmp_path / "out").read_bytes() == lines[:size]
        resource.prlimit(relay.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        relay.line("sink takes events again")
        wait_sink(relay, sent=1000, lost=0, behind=0)
        assert relay.end() == 0
        assert len(relay.logged("sink cannot take events, and is asked again")) == 1
    assert (tmp_path / "out").read_bytes() == lines


# --- the end --------------------------------------------------------------------------------


def test_what_the_journal_holds_is_printed_at_the_end() -> None:
    sent = events.events(LOGS, 3000, size=1024)
    with Node() as node, printing("-stdout=logs", node=node.port, program=PATIENT) as (relay, output):
        node.wait_open(LOGS)
        output.pause()
        node.send(LOGS, *sent)
        while relay.counters()["feeds"]["logs"]["received"] < len(sent):
            pass
        relay.send(signal.SIGTERM)
        relay.line("ending")
        assert len(output.data) < sum(map(len, sent)) / 2
        output.resume()
        assert relay.wait() == 0
        assert output.rest() == expected(LOGS, sent)
        assert relay.logged("counters")[-1]["sinks"][0]["sent"] == len(sent)


def test_a_reader_that_never_reads_holds_up_the_end_for_its_deadline_only() -> None:
    with Node() as node, printing("-stdout=logs", node=node.port) as (relay, output):
        node.wait_open(LOGS)
        output.pause()
        node.send(LOGS, *events.events(LOGS, 3000, size=1024))
        while relay.counters()["feeds"]["logs"]["received"] < 3000:
            pass
        assert relay.end() == 0
        (told,) = relay.logged("sink ends before all events were sent")
        counted = relay.logged("counters")[-1]["sinks"][0]
        assert (told["sink"], told["events"]) == ("stdout", 3000 - counted["sent"])
        assert (counted["lost"], counted["behind"]) == (told["events"], 0)
        # What it is in the middle of when the time is over is cut.
        lines = output.rest(cut=True)[: counted["sent"]]
        assert lines == expected(LOGS, events.events(LOGS, 3000, size=1024))[: counted["sent"]]


def test_a_second_signal_does_not_wait_for_the_reader() -> None:
    with Node() as node, printing("-stdout=logs", node=node.port, program=PATIENT) as (relay, output):
        node.wait_open(LOGS)
        output.pause()
        node.send(LOGS, *events.events(LOGS, 3000, size=1024))
        while relay.counters()["feeds"]["logs"]["received"] < 3000:
            pass
        relay.send(signal.SIGTERM)
        relay.line("ending")
        relay.send(signal.SIGTERM)
        assert relay.wait() == 128 + signal.SIGTERM
