"""The native writer: whole lines, in order, each event written or counted; and nothing that waits for its reader."""

import contextlib
import errno
import fcntl
import json
import os
import pty
import resource
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from peers.feed import Feed, fail_allocation, failing, large
from unit import oracle_json

from relay import _fastpath
from relay import kubearmor_pb2 as pb
from relay.feeds import ALERTS, MESSAGES

WAIT = 60.0
SANITIZED = Path(os.environ.get("RELAY_BUILD", "normal")).name in ("address-undefined", "thread")
ALL, ONLY_LOGS = 7, 4


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


def wait_over(writer: _fastpath.Writer) -> None:
    """Wait until its thread has ended."""
    poll = select.poll()
    poll.register(writer.fileno(), select.POLLIN)
    assert poll.poll(WAIT * 1000)


class Reader:
    """Reads the other end to its end, in a thread; `end` is the error that says so, if it is one."""

    def __init__(self, fd: int, end: int = 0) -> None:
        self.data = bytearray()
        self._fd = fd
        self._end = end
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                got = os.read(self._fd, 65536)
            except OSError as error:
                if error.errno == self._end:
                    return
                raise
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


KINDS = ["pipe", "named pipe", "socket", "terminal"]


@pytest.mark.parametrize("kind", [*KINDS, *(f"non-blocking {kind}" for kind in KINDS), "file"])
def test_every_kind_of_descriptor(feed: Feed, kind: str, tmp_path: Path) -> None:
    """Many times what a pipe or a socket holds; no flag of the descriptor is changed."""
    count = 300 if "terminal" in kind else 3000
    feed.number(count, size=200)
    path = tmp_path / "out"
    if "socket" in kind:
        one, other = socket.socketpair()
        theirs, ours = one.detach(), other.detach()
    elif kind == "file":
        ours = os.open(path, os.O_WRONLY | os.O_CREAT)
        theirs = -1
    elif "terminal" in kind:
        theirs, ours = pty.openpty()
    elif "named" in kind:
        os.mkfifo(path)
        theirs = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(theirs, True)
        ours = os.open(path, os.O_WRONLY)
    else:
        theirs, ours = os.pipe()
    os.set_blocking(ours, "non-blocking" not in kind)
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


def test_a_pipe_that_does_not_know_nowait(feed: Feed, tmp_path: Path) -> None:
    """Linux has RWF_NOWAIT for pipes since 6.4, and not for those with a name: there each write fits in one buffer."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    theirs = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    ours = os.open(path, os.O_WRONLY)
    with contextlib.suppress(OSError):
        os.pwritev(ours, [b"\n"], -1, os.RWF_NOWAIT)
        pytest.skip("this kernel knows RWF_NOWAIT on named pipes")
    feed.number(3000, size=200)
    writer = _fastpath.Writer(feed.native, ours, ONLY_LOGS)
    writer.start()
    os.set_blocking(theirs, True)
    os.close(ours)
    reader = Reader(theirs)
    assert writer.stop(WAIT) == 0
    assert [line["Timestamp"] for line in reader.lines()] == list(range(1, 3001))
    os.close(theirs)
    counters = settled(writer)
    assert counters["bytes"] <= counters["writes"] * select.PIPE_BUF


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


def test_a_terminal_that_is_gone_ends_the_writer(feed: Feed) -> None:
    """Seen without an event."""
    theirs, ours = pty.openpty()
    writer = _fastpath.Writer(feed.native, ours, ONLY_LOGS)
    writer.start()
    os.close(theirs)
    wait_over(writer)
    assert settled(writer)["error"] == errno.EPIPE
    os.close(ours)


def test_an_event_that_prints_six_times_its_size(pipe: tuple[int, int]) -> None:
    """Its buffer is not kept."""
    feed = Feed(journal_bytes=64 << 20)
    line = large(feed)
    writer = _fastpath.Writer(feed.native, pipe[1], ONLY_LOGS)
    writer.start()
    reader = Reader(pipe[0])
    feed.number(10)
    assert writer.stop(WAIT) == 0
    os.close(pipe[1])
    lines = reader.lines()
    assert reader.data.startswith(line)
    assert len(lines) == 12
    feed.native.close()


@failing
def test_memory_that_runs_out_costs_no_event(feed: Feed, pipe: tuple[int, int]) -> None:
    assert fail_allocation is not None
    feed.hold(*(pb.Log(Timestamp=1 + i, EventData={str(j): "" for j in range(100)}) for i in range(50)))
    for count in range(1, 8):
        writer = _fastpath.Writer(feed.native, pipe[1], ONLY_LOGS)
        fail_allocation(writer, count)
        writer.start()
        assert writer.stop(WAIT) == 0
        data = os.read(pipe[0], 1 << 20)
        assert [json.loads(line)["Timestamp"] for line in data.splitlines()] == list(range(1, 51))
        assert settled(writer)["feeds"]["logs"]["lost"] == 0


# Disks ---------------------------------------------------------------------------------------------


def test_a_full_disk_is_tried_again(tight: Feed) -> None:
    with Path("/dev/full").open("wb") as full:
        writer = _fastpath.Writer(tight.native, full.fileno(), ONLY_LOGS)
        writer.start()
        tight.number(20_000, size=40)
        until(lambda: settled(writer)["failed"] > 2)
        until(lambda: settled(writer)["feeds"]["logs"]["lost"] > 0)
        assert not writer.ended
        left = writer.stop(0)
        counters = settled(writer)
    assert (counters["failing"], counters["error"], counters["bytes"]) == (errno.ENOSPC, 0, 0)
    assert counters["feeds"]["logs"]["written"] == 0
    assert left == 20_000 - counters["feeds"]["logs"]["lost"]


@contextlib.contextmanager
def files_of(size: int) -> Iterator[None]:
    """No file of this process can be larger: a disk that is full, and then is not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


FULL = 1_000_003


@pytest.fixture
def full_file(feed: Feed, tmp_path: Path) -> Iterator[tuple[Path, int, _fastpath.Writer]]:
    """A file, its descriptor, and a writer that could write some of its events there, the last in part."""
    path = tmp_path / "out"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    feed.number(10_000, size=200)
    writer = _fastpath.Writer(feed.native, fd, ONLY_LOGS)
    with files_of(FULL):
        writer.start()
        until(lambda: settled(writer)["failing"] == errno.EFBIG)
        assert path.stat().st_size == FULL
        assert not path.read_bytes().endswith(b"\n")
        yield path, fd, writer
    os.close(fd)


def test_a_disk_that_heals(feed: Feed, full_file: tuple[Path, int, _fastpath.Writer]) -> None:
    """The line that was cut is made whole."""
    path, _, writer = full_file
    with files_of(resource.RLIM_INFINITY):
        until(lambda: settled(writer)["feeds"]["logs"]["written"] == 10_000)
        assert writer.stop(WAIT) == 0
    counters = settled(writer)
    assert (counters["failing"], counters["error"]) == (0, 0)
    assert counters["failed"] > 0
    assert [json.loads(line)["Timestamp"] for line in path.read_bytes().splitlines()] == list(range(1, 10_001))


def test_a_cut_line_is_taken_back(full_file: tuple[Path, int, _fastpath.Writer]) -> None:
    path, fd, writer = full_file
    left = writer.stop(0)
    wait_over(writer)
    data = path.read_bytes()
    assert data.endswith(b"\n")
    count = data.count(b"\n")
    assert [json.loads(line)["Timestamp"] for line in data.splitlines()] == list(range(1, count + 1))
    counters = settled(writer)
    assert (counters["feeds"]["logs"]["written"], counters["bytes"], left) == (count, len(data), 10_000 - count)
    # Who has the descriptor, too, goes on behind it.
    assert os.lseek(fd, 0, os.SEEK_CUR) == len(data)


def test_what_others_have_written_is_not_taken_back(full_file: tuple[Path, int, _fastpath.Writer]) -> None:
    path, _, writer = full_file
    with files_of(FULL + 1), path.open("r+b") as other:
        os.pwrite(other.fileno(), b"#", FULL)
    writer.stop(0)
    wait_over(writer)
    assert path.stat().st_size == FULL + 1
    assert settled(writer)["bytes"] == FULL


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


# Writes that hang ------------------------------------------------------------------------------------


class Stuck:
    """A writer that the kernel keeps in a write: to a terminal that had room for a part of a line, says poll()."""

    def __init__(self, feed: Feed) -> None:
        feed.number(2000, size=101)
        for _ in range(20):
            self.theirs, ours = pty.openpty()
            self.writer = _fastpath.Writer(feed.native, ours, ONLY_LOGS)
            os.close(ours)
            self.writer.start()
            if self._stands():
                return
            self.writer.stop(0)
            os.close(self.theirs)
        pytest.skip("this kernel's terminals do not keep a write")

    def _stands(self) -> bool:
        """Wait until nothing moves; whether it is in a write."""
        looks = [self._look()]
        while len(looks) < 50:
            threading.Event().wait(0.002)
            look = self._look()
            looks = [*looks, look] if look == looks[0] and look[1] else [look]
        return looks[0][0]

    def _look(self) -> tuple[bool, int]:
        counters = settled(self.writer)
        return counters["writing"], counters["writes"]

    def release(self) -> None:
        """Have the write return after all; nothing follows it."""
        os.close(self.theirs)
        wait_over(self.writer)


def test_a_write_that_hangs_is_left_behind(feed: Feed) -> None:
    stuck = Stuck(feed)
    assert not stuck.writer.ended
    before = settled(stuck.writer)
    assert stuck.writer.stop(0) == 2000 - before["feeds"]["logs"]["written"]
    assert stuck.writer.ended
    poll = select.poll()
    poll.register(stuck.writer.fileno(), select.POLLIN)
    assert not poll.poll(0)  # its thread is where it was
    assert stuck.writer.stop(0) == 2000 - before["feeds"]["logs"]["written"]
    feed.native.close()
    stuck.release()
    after = settled(stuck.writer)
    assert (after["feeds"], after["bytes"], after["error"]) == (before["feeds"], before["bytes"], 0)


def test_a_write_that_hung_goes_on(feed: Feed) -> None:
    """As long as nobody stops it."""
    stuck = Stuck(feed)
    reader = Reader(stuck.theirs, errno.EIO)
    assert stuck.writer.stop(WAIT) == 0
    assert [line["Timestamp"] for line in reader.lines()] == list(range(1, 2001))
    stuck.release()


def test_closing_the_engine_leaves_a_write_that_hangs(feed: Feed) -> None:
    stuck = Stuck(feed)
    feed.native.close()
    assert stuck.writer.ended
    stuck.release()


PROCESS = """
import sys
sys.path.insert(0, sys.argv[1])
from peers.feed import Feed
from wire.test_writer import Stuck

feed = Feed()
stuck = Stuck(feed)
{end}
print("end")
"""


@pytest.mark.parametrize("end", ["stuck.writer.stop(0); feed.native.close()", "feed.native.close()", ""])
@pytest.mark.skipif(SANITIZED, reason="a new process would lack the sanitizer's library")
def test_a_process_ends_while_a_write_hangs(feed: Feed, end: str) -> None:
    Stuck(feed).release()  # or else this is skipped
    command = [sys.executable, "-c", PROCESS.format(end=end), str(Path(__file__).parents[1])]
    done = subprocess.run(command, timeout=WAIT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


def test_closing_the_engine_stops_its_writers(pipe: tuple[int, int]) -> None:
    feed = Feed()
    feed.number(5000, size=100)
    writer = _fastpath.Writer(feed.native, pipe[1], ONLY_LOGS)
    writer.start()
    until(lambda: settled(writer)["feeds"]["logs"]["written"] > 0)
    feed.native.close()
    assert writer.stop(0) > 0
    assert settled(writer)["feeds"]["logs"]["written"] > 0


def test_a_thread_that_cannot_be_had(feed: Feed, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine does not wait for it."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    writer = _fastpath.Writer(feed.native, pipe[1], ONLY_LOGS)
    feed.number(1)
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="new thread"):
        writer.start()
    assert writer.ended
    assert writer.stop(WAIT) == 1
    feed.native.close()


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
