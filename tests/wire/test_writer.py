"""The native writer: whole lines, in order, each event written or counted; and nothing that waits for its reader."""

import contextlib
import errno
import fcntl
import json
import os
import pty
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unit import oracle_json
from wire.test_json_cursor import Feed

from relay import _fastpath
from relay import kubearmor_pb2 as pb
from relay.feeds import ALERTS, MESSAGES

WAIT = 20.0
ALL, ONLY_LOGS = 7, 4
TIGHT: dict[str, Any] = {"journal_bytes": 64 << 10, "max_event_bytes": 4096}


@pytest.fixture
def feed() -> Iterator[Feed]:
    made = Feed()
    yield made
    made.native.close()


@pytest.fixture
def tight() -> Iterator[Feed]:
    made = Feed(**TIGHT)
    yield made
    made.native.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for each in ends:
        with contextlib.suppress(OSError):  # a test may have closed it
            os.close(each)


def settled(writer: _fastpath.Writer) -> dict[str, Any]:
    """The counters; every event is somewhere in them."""
    counters = writer.counters()
    for each in counters["feeds"].values():
        assert each["written"] <= each["read"]
        assert min(each.values()) >= 0
    return counters


def until(said: Any) -> None:
    """Wait until it is true."""
    end = time.monotonic() + WAIT
    while not said():
        assert time.monotonic() < end
        threading.Event().wait(0.002)


class Reader:
    """Reads the other end to its end, in a thread."""

    def __init__(self, fd: int) -> None:
        self.data = bytearray()
        self._fd = fd
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            got = os.read(self._fd, 65536)
            if not got:
                return
            self.data += got

    def lines(self) -> list[dict[str, Any]]:
        """All lines, when the writer has closed its end."""
        self._thread.join(WAIT)
        assert not self._thread.is_alive()
        assert not self.data or self.data.endswith(b"\n")
        return [json.loads(line) for line in self.data.splitlines()]


def test_what_is_held_is_written_then_what_comes(feed: Feed, pipe: tuple[int, int]) -> None:
    feed.number(10)
    writer = _fastpath.Writer(feed.native, pipe[1], ONLY_LOGS)
    writer.start()
    until(lambda: settled(writer)["feeds"]["logs"]["written"] == 10)
    feed.number(5)
    until(lambda: settled(writer)["feeds"]["logs"]["written"] == 15)
    assert writer.stop(WAIT) == 0
    data = os.read(pipe[0], 65536)
    assert [json.loads(line)["Timestamp"] for line in data.splitlines()] == list(range(1, 16))
    counters = settled(writer)
    assert counters["feeds"] == {"logs": {"read": 15, "written": 15, "lost": 0, "buffered": 0, "behind": 0}}
    assert (counters["bytes"], counters["error"]) == (len(data), 0)


def test_lines_are_those_of_the_oracle(feed: Feed, pipe: tuple[int, int]) -> None:
    made = [pb.Log(Timestamp=1, Resource="<a>\u2028\n"), pb.Log(), pb.Log(EventData={"b": "1", "a": "ü"})]
    feed.hold(*made)
    writer = _fastpath.Writer(feed.native, pipe[1], ONLY_LOGS)
    writer.start()
    assert writer.stop(WAIT) == 0
    assert os.read(pipe[0], 65536) == b"".join(oracle_json.printed(each) + b"\n" for each in made)


def test_only_the_feeds_that_were_asked_for(feed: Feed, pipe: tuple[int, int]) -> None:
    feed.hold(pb.Log(Type="log"))
    feed.hold(pb.Alert(Type="alert"), feed=ALERTS)
    feed.hold(pb.Message(Type="message"), feed=MESSAGES)
    writer = _fastpath.Writer(feed.native, pipe[1], 1 | 2)
    writer.start()
    assert writer.stop(WAIT) == 0
    types = [json.loads(line)["Type"] for line in os.read(pipe[0], 65536).splitlines()]
    assert sorted(types) == ["alert", "message"]
    assert set(writer.counters()["feeds"]) == {"messages", "alerts"}


def test_no_feed_waits_for_another(pipe: tuple[int, int]) -> None:
    """With logs for many buffers waiting, an alert is among the first lines."""
    feed = Feed()
    feed.number(20_000, size=100)
    feed.hold(pb.Alert(Type="alert"), feed=ALERTS)
    writer = _fastpath.Writer(feed.native, pipe[1], ALL)
    writer.start()
    reader = Reader(pipe[0])
    assert writer.stop(WAIT) == 0
    os.close(pipe[1])
    del writer
    lines = reader.lines()
    assert len(lines) == 20_001
    assert [line.get("Type") for line in lines].index("alert") < 2000
    assert [line["Timestamp"] for line in lines if "Timestamp" in line] == list(range(1, 20_001))
    feed.native.close()


@pytest.mark.parametrize("kind", ["pipe", "non-blocking pipe", "socket", "file", "terminal"])
def test_every_kind_of_descriptor(feed: Feed, kind: str, tmp_path: Path) -> None:
    """Many times what a pipe or a socket holds; no flag of the descriptor is changed."""
    count = 300 if kind == "terminal" else 3000
    feed.number(count, size=200)
    path = tmp_path / "out"
    if kind == "socket":
        one, other = socket.socketpair()
        theirs, ours = one.detach(), other.detach()
    elif kind == "file":
        ours = os.open(path, os.O_WRONLY | os.O_CREAT)
        theirs = -1
    elif kind == "terminal":
        theirs, ours = pty.openpty()
    else:
        theirs, ours = os.pipe()
        os.set_blocking(ours, kind == "pipe")
    flags = fcntl.fcntl(ours, fcntl.F_GETFL)
    writer = _fastpath.Writer(feed.native, ours, ONLY_LOGS)
    writer.start()
    data = b""
    if kind != "file":
        poll = select.poll()
        poll.register(theirs, select.POLLIN)
        while data.count(b"\n") < count:
            assert poll.poll(WAIT * 1000)
            data += os.read(theirs, 65536)
    assert writer.stop(WAIT) == 0
    assert fcntl.fcntl(ours, fcntl.F_GETFL) == flags
    if kind == "file":
        data = path.read_bytes()
    else:
        os.close(theirs)
    os.close(ours)
    assert [json.loads(line)["Timestamp"] for line in data.splitlines()] == list(range(1, count + 1))
    assert settled(writer)["feeds"]["logs"]["written"] == count


def test_a_reader_that_stops_costs_counted_lines_and_nothing_else(tight: Feed, pipe: tuple[int, int]) -> None:
    writer = _fastpath.Writer(tight.native, pipe[1], ONLY_LOGS)
    writer.start()
    tight.number(20_000, size=40)  # nobody reads, and publishing does not wait
    reader = Reader(pipe[0])
    assert writer.stop(WAIT) == 0
    counters = settled(writer)["feeds"]["logs"]
    os.close(pipe[1])
    del writer
    numbers = [line["Timestamp"] for line in reader.lines()]
    assert numbers == sorted(set(numbers))
    assert counters["lost"] > 0
    assert counters["written"] == len(numbers) == 20_000 - counters["lost"]


def test_losses_are_counted_while_the_reader_stands_still(tight: Feed, pipe: tuple[int, int]) -> None:
    writer = _fastpath.Writer(tight.native, pipe[1], ONLY_LOGS)
    writer.start()
    tight.number(20_000, size=40)
    until(lambda: settled(writer)["feeds"]["logs"]["lost"] > 0)
    each = settled(writer)["feeds"]["logs"]
    assert each["written"] + each["lost"] + each["buffered"] + each["behind"] == 20_000
    writer.stop(0)


def test_a_closed_pipe_ends_the_writer(feed: Feed, pipe: tuple[int, int]) -> None:
    writer = _fastpath.Writer(feed.native, pipe[1], ONLY_LOGS)
    writer.start()
    feed.number(10)
    until(lambda: settled(writer)["feeds"]["logs"]["written"] == 10)
    poll = select.poll()
    poll.register(writer.fileno(), select.POLLIN)
    assert not poll.poll(0)
    os.close(pipe[0])
    assert poll.poll(WAIT * 1000)  # seen without an event
    feed.number(5)
    counters = settled(writer)
    assert counters["error"] == errno.EPIPE
    assert counters["feeds"]["logs"] == {"read": 10, "written": 10, "lost": 5, "buffered": 0, "behind": 0}
    assert writer.stop(WAIT) == 0
    feed.number(1)
    assert settled(writer)["feeds"]["logs"]["lost"] == 6


def test_a_pipe_that_closes_in_the_middle(feed: Feed, pipe: tuple[int, int]) -> None:
    feed.number(5000, size=100)
    writer = _fastpath.Writer(feed.native, pipe[1], ONLY_LOGS)
    writer.start()
    data = os.read(pipe[0], 1000)
    until(lambda: settled(writer)["feeds"]["logs"]["written"] > 0)
    os.close(pipe[0])
    poll = select.poll()
    poll.register(writer.fileno(), select.POLLIN)
    assert poll.poll(WAIT * 1000)
    counters = settled(writer)
    assert counters["error"] == errno.EPIPE
    assert data.count(b"\n") <= counters["feeds"]["logs"]["written"] < 5000
    assert counters["feeds"]["logs"]["written"] + counters["feeds"]["logs"]["lost"] == 5000


def test_other_errors_say_which(feed: Feed) -> None:
    with Path("/dev/null").open("rb") as null:
        writer = _fastpath.Writer(feed.native, null.fileno(), ONLY_LOGS)
        writer.start()
        feed.number(1)
        until(lambda: settled(writer)["error"] == errno.EBADF)
    with Path("/dev/full").open("wb") as full:
        writer = _fastpath.Writer(feed.native, full.fileno(), ONLY_LOGS)
        writer.start()
        until(lambda: settled(writer)["error"] == errno.ENOSPC)
        assert settled(writer)["feeds"]["logs"]["lost"] == 1


def test_stopping_is_bounded_and_tells_what_is_left(feed: Feed, pipe: tuple[int, int]) -> None:
    feed.number(5000, size=100)
    writer = _fastpath.Writer(feed.native, pipe[1], ONLY_LOGS)
    writer.start()
    until(lambda: settled(writer)["feeds"]["logs"]["written"] > 0)
    left = writer.stop(0.05)
    each = settled(writer)["feeds"]["logs"]
    assert left == 5000 - each["written"] > 0
    assert writer.stop(WAIT) == left
    os.set_blocking(pipe[0], False)
    data = os.read(pipe[0], 1 << 20)
    assert data.count(b"\n") == each["written"]


def test_stopping_writes_up_to_the_moment_of_the_call(feed: Feed, pipe: tuple[int, int]) -> None:
    feed.number(3)
    writer = _fastpath.Writer(feed.native, pipe[1], ONLY_LOGS)
    writer.start()
    assert writer.stop(WAIT) == 0
    feed.number(3)
    assert os.read(pipe[0], 65536).count(b"\n") == 3
    assert settled(writer)["feeds"]["logs"]["behind"] == 0


def test_a_write_that_hangs_is_left_behind(feed: Feed) -> None:
    """A terminal that was stopped takes no bytes, whatever poll() says of it."""
    theirs, ours = pty.openpty()
    feed.number(5000, size=100)
    writer = _fastpath.Writer(feed.native, ours, ONLY_LOGS)
    writer.start()
    until(lambda: settled(writer)["feeds"]["logs"]["written"] > 0)
    assert writer.stop(0.05) > 0
    feed.native.close()
    os.close(theirs)
    os.close(ours)


def test_closing_the_engine_stops_its_writers(pipe: tuple[int, int]) -> None:
    feed = Feed()
    feed.number(5000, size=100)
    writer = _fastpath.Writer(feed.native, pipe[1], ONLY_LOGS)
    writer.start()
    until(lambda: settled(writer)["feeds"]["logs"]["written"] > 0)
    feed.native.close()
    assert writer.stop(0) > 0
    assert settled(writer)["feeds"]["logs"]["written"] > 0


def test_what_a_writer_refuses(feed: Feed) -> None:
    with pytest.raises(ValueError, match="feeds is 0"):
        _fastpath.Writer(feed.native, 1, 0)
    with pytest.raises(ValueError, match="feeds is 8"):
        _fastpath.Writer(feed.native, 1, 8)
    with pytest.raises(OSError, match="cannot be duplicated"):
        _fastpath.Writer(feed.native, 99_999, 1)
    with Path("/dev/null").open("wb") as null:
        writer = _fastpath.Writer(feed.native, null.fileno(), 7)
        assert writer.stop(0) == 0
        writer.start()
        with pytest.raises(RuntimeError, match="started before"):
            writer.start()
        with pytest.raises(ValueError, match="within 0 to"):
            writer.stop(-1)
