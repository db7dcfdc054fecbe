"""Events in files, as a user asks for them: `relay -sink file:PATH`."""

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from peers import events
from peers.command import WAIT, Command, Relay, finished
from peers.events import ALERTS, FEEDS, LOGS, NAMES
from peers.node import Node
from unit import oracle_json

pytestmark = pytest.mark.system

# A relay that may write files of 64 KiB: as a disk that is full, and without one.
SMALL = (
    sys.executable,
    "-c",
    "import resource as r, sys, relay.cli; r.setrlimit(r.RLIMIT_FSIZE, (65536, 65536)); sys.exit(relay.cli.main())",
)
# A relay whose disk does not answer.
HUNG = (
    sys.executable,
    "-c",
    """
import sys, threading, relay.cli, relay.sinks.file as file
def hang(*_):
    print('{"msg": "hangs"}', file=sys.stderr, flush=True)
    threading.Event().wait()
file.FileSink._append = hang
sys.exit(relay.cli.main())
""",
)
SOON = "-file-batch-seconds=0.1"


def wait_sent(relay: Command, count: int) -> dict[str, Any]:
    end = time.monotonic() + WAIT
    while (counted := relay.counters()["sinks"][0])["sent"] < count:
        assert time.monotonic() < end, counted
    return dict(counted)


def lines(feed: int, sent: list[bytes]) -> list[bytes]:
    return [oracle_json.printed(events.CLASSES[feed].FromString(each)) for each in sent]


def test_every_feed_goes_to_the_file_in_its_order(tmp_path: Path) -> None:
    path = tmp_path / "events.json"
    sent = {feed: [events.event(feed, number, ClusterName=NAMES[feed]) for number in range(200)] for feed in FEEDS}
    with Node() as node, Relay(f"-sink=file:{path}", SOON, nodes=(node.port,)) as relay:
        for feed in FEEDS:
            node.wait_open(feed)
            node.send(feed, *sent[feed])
        counted = wait_sent(relay, 600)
        assert (counted["sink"], counted["feeds"]) == (f"file:{path}", ["logs", "alerts", "messages"])
        assert (counted["read"], counted["lost"], counted["behind"]) == (600, 0, 0)
        assert relay.end() == 0
    written = path.read_bytes().splitlines()
    assert len(written) == 600
    for feed in FEEDS:
        wanted = lines(feed, sent[feed])
        assert [line for line in written if line in set(wanted)] == wanted


def test_two_files_and_the_feeds_that_go_there(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    with Node() as node, Relay(f"-sink=file:{one},file:{two}", "-file-feeds=alerts", SOON, nodes=(node.port,)) as relay:
        for feed in FEEDS:
            node.wait_open(feed)
            node.send(feed, *events.events(feed, 5))
        wait_sent(relay, 5)
        assert relay.end() == 0
    assert one.read_bytes() == two.read_bytes()
    assert one.read_bytes().splitlines() == lines(ALERTS, events.events(ALERTS, 5))


def test_a_file_is_set_aside_when_it_has_its_size(tmp_path: Path) -> None:
    path = tmp_path / "events.json"
    rotate = (f"-sink=file:{path}", SOON, "-file-rotate-bytes=64KiB", "-file-keep=2", "-file-fsync")
    with Node() as node, Relay(*rotate, nodes=(node.port,)) as relay:
        node.wait_open(LOGS)
        for start in range(0, 400, 40):  # of about 40 KiB
            node.send(LOGS, *events.events(LOGS, 40, size=1024, start=start))
            wait_sent(relay, start + 40)
        assert relay.end() == 0
    kept = [tmp_path / "events.json.2", tmp_path / "events.json.1", path]
    assert sorted(kept) == sorted(tmp_path.iterdir())
    numbers = [
        json.loads(line)["Timestamp"] - 1_700_000_000 for file in kept for line in file.read_bytes().splitlines()
    ]
    assert numbers == list(range(numbers[0], 400))
    assert max(file.stat().st_size for file in kept) <= 65536


def test_what_was_not_written_yet_is_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "events.json"
    with Node() as node, Relay(f"-sink=file:{path}", "-file-batch-seconds=3600", nodes=(node.port,)) as relay:
        node.wait_open(LOGS)
        node.send(LOGS, *events.events(LOGS, 100))
        while relay.counters()["feeds"]["logs"]["received"] < 100:
            pass
        assert path.stat().st_size == 0
        assert relay.end(signal.SIGINT) == 0
        counted = relay.logged("counters")[-1]["sinks"][0]
        assert (counted["sent"], counted["lost"], counted["behind"]) == (100, 0, 0)
    assert path.read_bytes().splitlines() == lines(LOGS, events.events(LOGS, 100))


def test_a_file_that_cannot_grow_is_told_and_tried_again_and_lines_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.json"
    with Node() as node, Relay(f"-sink=file:{path}", SOON, nodes=(node.port,), program=SMALL) as relay:
        node.wait_open(LOGS)
        node.send(LOGS, *events.events(LOGS, 10, size=1024))
        wait_sent(relay, 10)
        before = path.read_bytes()
        node.send(LOGS, *events.events(LOGS, 100, size=1024, start=10))
        told = relay.line("sink cannot take events, and is asked again")
        assert told["reason"] == f"File too large: {path}"
        counted = relay.counters()["sinks"][0]
        assert (counted["read"], counted["sent"], counted["rejected"], counted["behind"]) == (110, 10, 0, 100)
        assert relay.end() == 0
        (left,) = relay.logged("sink ends before all events were sent")
        assert left["events"] == 100
    assert path.read_bytes() == before


def test_a_disk_that_hangs_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with Node() as node, Relay(f"-sink=file:{tmp_path / 'x'}", SOON, nodes=(node.port,), program=HUNG) as relay:
        node.wait_open(LOGS)
        node.send(LOGS, *events.events(LOGS, 10))
        relay.line("hangs")
        relay.send(signal.SIGTERM)
        relay.line("ending")
        relay.send(signal.SIGTERM)
        assert relay.wait() == 128 + signal.SIGTERM
        last = relay.logged("counters")[-1]
        assert last["sinks"][0]["lost"] == last["feeds"]["logs"]["received"] > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["-sink=files"],
            "flag -sink: 'files' is wrong: accepted is elasticsearch, opensearch or file:PATH, or several",
        ),
        (
            ["-sink=file:/nowhere/x"],
            "flag -sink: 'file:/nowhere/x' is wrong: accepted is a file in a folder that exists",
        ),
        (["-sink=file:/tmp"], "flag -sink: 'file:/tmp' is wrong: accepted is a file in a folder that exists"),
        (["-sink=file:/a,file:/a"], "flag -sink: 'file:/a,file:/a' is wrong: accepted is each sink once"),
        (["-file-rotate-bytes=x"], "flag -file-rotate-bytes: 'x' is wrong: accepted is a number of bytes"),
    ],
)
def test_what_is_wrong_ends_the_start_with_one_line(arguments: list[str], said: str) -> None:
    run = finished("-kubernetes=off", "-nodes=127.0.0.1:1", *arguments)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith(f"relay: {said}")
    assert run.stderr.count("\n") == 1
