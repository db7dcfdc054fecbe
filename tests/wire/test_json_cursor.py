"""Cursor.read_json and Cursor.seek: batches of lines, and every event counted once."""

import itertools
import json
import random
import select
import threading

import pytest
from peers.feed import Feed, fail_allocation, failing, large
from unit import oracle_json

from relay import _fastpath, events
from relay import kubearmor_pb2 as pb
from relay.feeds import ALERTS, LOGS

WAIT = 10_000  # ms


def numbers(batch: tuple[bytes, int, int] | None) -> list[int]:
    assert batch is not None
    return [json.loads(line)["Timestamp"] - 1 for line in batch[0].splitlines()]


def check(batch: tuple[bytes, int, int] | None) -> range:
    """The sequence numbers of a batch, which are also what its events say."""
    assert batch is not None
    held = range(batch[1], batch[1] + batch[2])
    assert numbers(batch) == list(held)
    return held


def test_lines_are_what_the_oracle_prints(feed: Feed) -> None:
    logs = [pb.Log(Timestamp=1, Resource="<a>\u2028"), pb.Log(), pb.Log(EventData={"b": "1", "a": "2"})]
    feed.hold(*logs)
    cursor = _fastpath.Cursor(feed.native, LOGS)
    data, first, count = cursor.read_json() or (b"", 0, 0)
    assert (first, count) == (0, len(logs))
    assert data == b"".join(oracle_json.printed(log) + b"\n" for log in logs)
    assert cursor.sequence == len(logs)
    assert cursor.read_json() is None
    cursor.close()


def test_alerts_too(feed: Feed) -> None:
    feed.hold(pb.Alert(ATags=["a"]), feed=ALERTS)
    cursor = _fastpath.Cursor(feed.native, ALERTS)
    assert cursor.read_json() == (b'{"PPID":0,"UID":0,"ATags":["a"]}\n', 0, 1)
    cursor.close()


def test_an_event_in_too_many_parts_is_lost_and_not_in_the_way(feed: Feed) -> None:
    cursor = _fastpath.Cursor(feed.native, ALERTS)
    feed.hold(pb.Alert(UID=1), pb.Alert(ATags=[""] * 70_000), pb.Alert(UID=2), feed=ALERTS)
    assert cursor.read_json() == (b'{"PPID":0,"UID":1}\n', 0, 1)
    assert cursor.read_json() == (b'{"PPID":0,"UID":2}\n', 2, 1)
    assert (cursor.lost, cursor.behind) == (1, 0)
    cursor.close()


def test_action_lines(feed: Feed) -> None:
    feed.number(12)
    cursor = _fastpath.Cursor(feed.native, LOGS)
    assert cursor.read_json(max_events=9)
    data, first, count = cursor.read_json(index='bo"ot-logs-') or (b"", 0, 0)
    assert (first, count) == (9, 3)
    lines = [json.loads(line) for line in data.splitlines()]
    assert lines[::2] == [{"index": {"_id": f'bo"ot-logs-{number}'}} for number in (9, 10, 11)]
    assert [line["Timestamp"] for line in lines[1::2]] == [10, 11, 12]
    cursor.close()


def test_bounds_of_a_batch(feed: Feed) -> None:
    feed.number(100, size=50)
    cursor = _fastpath.Cursor(feed.native, LOGS)
    size = len((cursor.read_json(max_events=1) or (b"", 0, 0))[0])
    assert check(cursor.read_json(max_bytes=1)) == range(1, 2)  # one in any case
    assert check(cursor.read_json(max_bytes=3 * size)) == range(2, 5)
    assert check(cursor.read_json(max_bytes=3 * size - 1)) == range(5, 7)
    assert check(cursor.read_json(max_events=4)) == range(7, 11)
    assert check(cursor.read_json()) == range(11, 100)
    with pytest.raises(ValueError, match="max_events is 0"):
        cursor.read_json(max_events=0)
    cursor.close()


def test_a_batch_spans_segments() -> None:
    feed = Feed(journal_bytes=1 << 20, max_event_bytes=65536)
    feed.number(2000, size=100)
    assert feed.native.counters()["feeds"]["logs"]["segments"] > 1
    cursor = _fastpath.Cursor(feed.native, LOGS)
    assert check(cursor.read_json()) == range(2000)
    cursor.close()
    feed.native.close()


def test_the_descriptor_tells_of_events(feed: Feed) -> None:
    cursor = _fastpath.Cursor(feed.native, LOGS)
    poll = select.poll()
    poll.register(cursor.fileno(), select.POLLIN)
    assert cursor.read_json() is None
    assert not poll.poll(0)
    feed.number(1)
    assert poll.poll(WAIT)
    assert check(cursor.read_json()) == range(1)
    cursor.close()


def test_lost_events_end_a_batch_and_are_counted(tight: Feed) -> None:
    cursor = _fastpath.Cursor(tight.native, LOGS)
    tight.number(2000, size=40)
    assert tight.first > 0
    held = check(cursor.read_json())
    assert held == range(tight.first, 2000)
    assert cursor.lost == tight.first
    cursor.close()


def test_back_to_what_is_held(feed: Feed) -> None:
    feed.number(500)
    cursor = _fastpath.Cursor(feed.native, LOGS)
    whole = cursor.read_json()
    for sequence in (499, 0, 123, 500):
        cursor.seek(sequence)
        assert cursor.sequence == sequence
        if sequence < 500:
            assert check(cursor.read_json()) == range(sequence, 500)
    cursor.seek(0)
    assert cursor.read_json() == whole
    assert cursor.lost == 0
    cursor.close()


def test_back_to_what_was_overwritten(tight: Feed) -> None:
    cursor = _fastpath.Cursor(tight.native, LOGS)
    tight.number(100, size=40)
    assert check(cursor.read_json()) == range(100)
    tight.number(2000, size=40)
    cursor.seek(60)
    assert cursor.sequence == tight.first
    assert cursor.lost == tight.first - 60
    # Reading on counts nothing twice.
    assert check(cursor.read_json()) == range(tight.first, 2100)
    assert cursor.lost == tight.first - 60
    cursor.close()


def test_back_over_a_loss(tight: Feed) -> None:
    """What lay in the gap stays lost once, and what was read before it is lost in addition."""
    cursor = _fastpath.Cursor(tight.native, LOGS)
    tight.number(10, size=40)
    assert check(cursor.read_json()) == range(10)
    tight.number(2000, size=40)
    first = tight.first
    assert check(cursor.read_json())[0] == first
    assert cursor.lost == first - 10
    cursor.seek(first + 1)
    assert cursor.lost == first - 10
    cursor.seek(5)
    assert (cursor.sequence, cursor.lost) == (first, first - 5)
    cursor.close()


def test_where_a_cursor_cannot_go(feed: Feed) -> None:
    feed.number(3)
    cursor = _fastpath.Cursor(feed.native, LOGS)
    with pytest.raises(ValueError, match="is at 0 and cannot go on to 1"):
        cursor.seek(1)
    cursor.close()
    with pytest.raises(RuntimeError, match="closed"):
        cursor.seek(0)
    with pytest.raises(RuntimeError, match="closed"):
        cursor.read_json()


def test_losses_too_long_ago(tight: Feed) -> None:
    cursor = _fastpath.Cursor(tight.native, LOGS)
    after = []
    for _ in range(66):
        tight.number(1500, size=40)
        after.append(check(cursor.read_json())[0])
    cursor.seek(after[5])
    with pytest.raises(ValueError, match="cannot tell any more"):
        cursor.seek(0)
    cursor.close()


@pytest.mark.parametrize("seed", range(4))
def test_any_way_of_reading(tight: Feed, seed: int) -> None:
    """A model: what was passed is read or lost, and seeking takes back what it takes back."""
    chance = random.Random(seed)
    cursor = _fastpath.Cursor(tight.native, LOGS)
    fates: list[str] = []  # by sequence number: read or lost
    for _ in range(200):
        do = chance.choice(["publish", "publish", "read", "read_json", "read_json", "seek"])
        if do == "publish":
            tight.number(chance.randrange(1, 200), size=chance.randrange(80))
        elif do == "seek":
            to = chance.randrange(max(0, len(fates) - 300), len(fates) + 1)
            cursor.seek(to)
            del fates[to:]
            fates += ["lost"] * (cursor.sequence - to)
        else:
            if do == "read":
                frames = cursor.read(chance.randrange(1, 20_000))
                held = [pb.Log.FromString(message).Timestamp - 1 for message in events.messages(frames)]
            else:
                batch = cursor.read_json(chance.randrange(1, 30_000), max_events=chance.randrange(1, 300))
                held = list(check(batch)) if batch is not None else []
            if held:
                fates += ["lost"] * (held[0] - len(fates))
                fates += ["read"] * len(held)
            fates += ["lost"] * (cursor.sequence - len(fates))
        assert cursor.sequence == len(fates)
        assert cursor.lost == fates.count("lost") + max(0, tight.first - cursor.sequence)
    assert "lost" in fates
    assert "read" in fates
    cursor.close()


# What is not meant ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "index", ["", "\0", "\n", '"}}\n{"delete":{}}', "\\", "\ud800", "\U0001f600", "\u2028", "x" * 100_000]
)
def test_any_index(feed: Feed, index: str) -> None:
    feed.number(2)
    cursor = _fastpath.Cursor(feed.native, LOGS)
    data, _, count = cursor.read_json(index=index) or (b"", 0, 0)
    lines = [json.loads(line) for line in data.splitlines()]
    assert count == 2
    assert lines[::2] == [{"index": {"_id": f"{index}{number}"}} for number in (0, 1)]
    cursor.close()


@pytest.mark.parametrize("size", [0, 1, 2**63, 2**64 - 1])
def test_any_size_of_a_batch(feed: Feed, size: int) -> None:
    feed.number(3)
    cursor = _fastpath.Cursor(feed.native, LOGS)
    assert check(cursor.read_json(size, max_events=2**64 - 1)) == range(1 if size < 2 else 3)
    for wrong in (-1, 2**64):
        with pytest.raises(OverflowError):
            cursor.read_json(wrong)
        with pytest.raises(OverflowError):
            cursor.read_json(max_events=wrong)
        with pytest.raises(OverflowError):
            cursor.seek(wrong)
    cursor.close()


def test_an_event_that_prints_six_times_its_size() -> None:
    feed = Feed(journal_bytes=64 << 20)
    line = large(feed)
    cursor = _fastpath.Cursor(feed.native, LOGS)
    data, first, count = cursor.read_json(max_bytes=1) or (b"", 0, 0)
    assert (first, count) == (0, 1)
    assert data == line
    assert cursor.read_json() == (b'{"PPID":0,"PID":2,"UID":0}\n', 1, 1)
    cursor.seek(0)
    assert (cursor.read_json(1 << 30) or (b"", 0, 0))[1:] == (0, 2)
    cursor.close()
    feed.native.close()


def test_a_cursor_is_for_one_thread_at_a_time() -> None:
    """The others are told so; what was read was read once."""
    feed = Feed(journal_bytes=64 << 20)
    large(feed)
    feed.number(5000)
    cursor = _fastpath.Cursor(feed.native, LOGS)
    batches: list[tuple[bytes, int, int]] = []
    refused = []
    begin = threading.Barrier(4)

    def read() -> None:
        begin.wait()
        while True:
            try:
                batch = cursor.read_json(2000)
            except RuntimeError as error:
                refused.append(str(error))
                continue
            if batch is None:
                return
            batches.append(batch)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(refused) <= {"the cursor is in use on another thread"}
    held = sorted((first, count) for _, first, count in batches)
    assert [first for first, _ in held] == [0, *itertools.accumulate(count for _, count in held)][:-1]
    assert (cursor.sequence, cursor.lost) == (5002, 0)
    cursor.close()
    feed.native.close()


@pytest.mark.parametrize("what", ["cursor", "engine"])
def test_closing_while_another_thread_reads(what: str) -> None:
    """The one that is read comes whole, and the next is refused."""
    feed = Feed(journal_bytes=64 << 20)
    for _ in range(4):
        large(feed)
    cursor = _fastpath.Cursor(feed.native, LOGS)
    read: list[int] = []
    begun = threading.Event()
    told: list[str] = []

    def run() -> None:
        try:
            while (batch := cursor.read_json(max_events=1)) is not None:
                read.append(batch[1])
                begun.set()
        except RuntimeError as error:
            told.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    begun.wait()
    if what == "cursor":
        cursor.close()
        with pytest.raises(RuntimeError, match="closed"):
            cursor.read_json()
        cursor.close()
    feed.native.close()
    thread.join()
    assert read == list(range(len(read)))
    assert len(read) == 8 or told[0].endswith("is closed")
    cursor.close()


@pytest.mark.parametrize("seed", range(3))
def test_seeking_while_events_are_overwritten(tight: Feed, seed: int) -> None:
    """What was passed is read or lost, whatever the reactor does between two calls, and during one."""
    chance = random.Random(seed)
    cursor = _fastpath.Cursor(tight.native, LOGS)
    publisher = threading.Thread(target=tight.number, args=(20_000, 40))
    publisher.start()
    fates: list[str] = []  # by sequence number: read or lost
    while len(fates) < 20_000:
        batch = cursor.read_json(chance.randrange(1, 20_000), max_events=chance.randrange(1, 300))
        if batch is not None:
            fates += ["lost"] * (batch[1] - len(fates))
            fates += ["read"] * len(check(batch))
        fates += ["lost"] * (cursor.sequence - len(fates))
        assert cursor.sequence == len(fates)
        # What the reactor has overwritten since then counts, too.
        assert cursor.lost >= fates.count("lost")
        if publisher.is_alive() and chance.random() < 0.5:
            to = chance.randrange(max(0, len(fates) - 100), len(fates) + 1)
            cursor.seek(to)
            del fates[to:]
            fates += ["lost"] * (cursor.sequence - to)
    publisher.join()
    assert cursor.read_json() is None
    assert (cursor.sequence, cursor.lost, cursor.behind) == (20_000, fates.count("lost"), 0)
    cursor.close()


# Memory, in builds that can make an allocation fail --------------------------------------------------


@failing
def test_memory_that_runs_out_costs_no_event(feed: Feed) -> None:
    assert fail_allocation is not None
    feed.hold(pb.Log(Timestamp=1), pb.Log(Timestamp=2, EventData={str(i): "" for i in range(100)}))
    failures = 0
    for count in range(1, 8):
        cursor = _fastpath.Cursor(feed.native, LOGS)
        fail_allocation(cursor, count)
        held: list[int] = []
        while len(held) < 2:
            try:
                held += check(cursor.read_json())
            except MemoryError:
                failures += 1
                assert cursor.sequence == len(held)
        assert held == [0, 1]
        assert (cursor.sequence, cursor.lost) == (2, 0)
        cursor.close()
    assert failures >= 1
