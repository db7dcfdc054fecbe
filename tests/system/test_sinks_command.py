"""Sinks of the relay as a user starts it: their settings, their counters, and what they cost everybody else."""

import contextlib
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peers import events
from peers.bulk_server import BulkServer
from peers.client import Subscriber, channel
from peers.command import HOST, PATIENT, WAIT, Command, Relay, finished, free_port
from peers.engine import Engine
from peers.events import ALERTS, LOGS, MESSAGES
from peers.node import Node

pytestmark = pytest.mark.system

ES = {"ENABLE_DASHBOARDS": "true", "ES_URL": "http://127.0.0.1:9"}
OS = {"ENABLE_OPENSEARCH_DASHBOARD": "true", "OS_ALERTS_INDEX": "kubearmor"}


def sinks(relay: Command) -> list[dict[str, Any]]:
    return list(relay.counters()["sinks"])


def wait_sinks(relay: Command, condition: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Wait until the counters of each sink are as a condition wants them."""
    end = time.monotonic() + WAIT
    while not all(map(condition, counted := sinks(relay))):
        assert time.monotonic() < end, counted
        time.sleep(0.01)
    return counted


# --- settings -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        ([], {"ENABLE_DASHBOARDS": "true"}, "Elasticsearch is switched on, and ES_URL is not set"),
        (["-sink=elasticsearch"], {}, "Elasticsearch is switched on, and ES_URL is not set"),
        ([], {"ENABLE_OPENSEARCH_DASHBOARD": "true"}, "OpenSearch is switched on, and OS_ALERTS_INDEX is not set"),
        ([], ES | {"ES_URL": "localhost:9200"}, "ES_URL: 'localhost:9200' is wrong"),
        ([], ES | {"ES_URL": "https://me:hunter2@h:x"}, "ES_URL: 'https://…@h:x' is wrong"),
        ([], ES | {"ES_ALERTS_INDEX": "Alerts"}, "ES_ALERTS_INDEX: 'Alerts' is wrong"),
        ([], ES | {"ES_ALERTS_INDEX": "a-%Q"}, "ES_ALERTS_INDEX: 'a-%Q' is wrong"),
        ([], ES | {"ES_CA_CERT_PATH": "/nowhere/ca.crt"}, "ES_CA_CERT_PATH: '/nowhere/ca.crt' is wrong"),
        ([], OS | {"RELAY_OS_BATCH_EVENTS": "0"}, "RELAY_OS_BATCH_EVENTS"),
        (["-es-batch-bytes=100MiB"], ES, "-es-batch-bytes"),
        (["-sink=kafka"], {}, "-sink"),
        (["-sink=opensearch,opensearch"], OS, "each sink once"),
    ],
)
def test_what_is_missing_or_wrong_ends_the_start(arguments: list[str], variables: dict[str, str], said: str) -> None:
    run = finished("-kubernetes=off", "-nodes=127.0.0.1:1", f"-gRPCPort={free_port()}", *arguments, **variables)
    assert run.returncode == 2
    assert run.stdout == ""
    (line,) = run.stderr.splitlines()
    assert said in line
    assert "hunter2" not in line


# --- at work ------------------------------------------------------------------------------


def test_each_engine_gets_its_feeds_and_ids_differ_from_start_to_start() -> None:
    with BulkServer() as elastic, BulkServer() as opensearch, Node() as node:
        variables = {**ES, **OS, "ES_URL": elastic.url, "OS_URL": opensearch.url + "/behind/a/path/"}
        for start in (1, 2):
            with Relay(nodes=(node.port,), program=PATIENT, **variables) as relay:
                for feed in (MESSAGES, ALERTS, LOGS):
                    node.wait_open(feed, start)
                    node.send(feed, *events.events(feed, 10))
                while any(feed["received"] < 10 for feed in relay.counters()["feeds"].values()):
                    pass
                # A batch would wait for ten seconds; at the end it leaves.
                assert relay.end() == 0
                counted = relay.logged("counters")[-1]["sinks"]
                assert [(each["sink"], each["sent"], each["behind"]) for each in counted] == [
                    ("elasticsearch", 10, 0),
                    ("opensearch", 20, 0),
                ]
        assert (len(elastic.ids), elastic.paths) == (20, {"/kubearmor-alerts/_bulk"})
        assert (len(opensearch.ids), opensearch.paths) == (40, {"/behind/a/path/kubearmor/_bulk"})


def test_an_engine_that_never_answers_holds_up_the_end_for_the_deadline_only() -> None:
    with (
        BulkServer(answers=False) as silent,
        Node() as node,
        Relay(nodes=(node.port,), **ES | {"ES_URL": silent.url}) as relay,
    ):
        node.wait_open(ALERTS)
        node.send(ALERTS, *events.events(ALERTS, 10))
        while relay.counters()["feeds"]["alerts"]["received"] < 10:
            pass
        assert relay.end() == 0
        (told,) = relay.logged("sink ends before all events were sent")
        assert (told["sink"], told["events"]) == ("elasticsearch", 10)
        (counted,) = relay.logged("counters")[-1]["sinks"]
        assert (counted["sent"], counted["lost"], counted["behind"]) == (0, 10, 0)


@pytest.mark.parametrize("size", [800, 16_000, 400_000])
def test_a_pod_of_128_mib_holds_a_relay_whose_engines_take_nothing(size: int) -> None:
    """Batches of every feed under way and gathered, of both sinks, beside a journal that is full."""
    with BulkServer(answers=False) as silent, Engine(max_event_bytes=1 << 20) as node:
        variables = {**ES, **OS, "ES_URL": silent.url, "OS_URL": silent.url}
        with Relay("-journal-bytes=32MiB", nodes=(node.port,), **variables) as relay:
            node.wait_subscribers(3)
            count = max(1, 400_000 // size)
            frames = {feed: events.frames(events.events(feed, count, size)) for feed in (ALERTS, LOGS)}
            end = time.monotonic() + WAIT
            history: list[list[int]] = []
            # Until the journal is full, and the sinks read no more for some time.
            while len(history) < 200 or history[-200] != history[-1]:
                assert time.monotonic() < end
                for feed, data in frames.items():
                    node.publish_frames(feed, data)
                history.append([each["read"] for each in sinks(relay)])
            counters = relay.counters()
            assert counters["feeds"]["logs"]["first"] > 0
            assert all(each["lost"] and each["behind"] and not each["sent"] for each in counters["sinks"])
            # What it has had at most, files that it shares with others included.
            status = Path(f"/proc/{relay.pid}/status").read_text()
            (most,) = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")]
            assert most < 128 * 1024
            relay.send(signal.SIGTERM)
            relay.line("ending")
            assert relay.end() == 128 + signal.SIGTERM


# --- nobody else's business -----------------------------------------------------------------

PART, PARTS, ROUNDS = 1000, 10, 3
FRAMES = [events.frames(events.events(ALERTS, PART, 800, start)) for start in range(0, PART * PARTS * ROUNDS, PART)]


class Rig:
    """A node, a relay with a sink or without, and a subscriber."""

    def __init__(self, stack: contextlib.ExitStack, **variables: str) -> None:
        self.node = stack.enter_context(Engine())
        self.relay = stack.enter_context(Relay(nodes=(self.node.port,), **variables))
        self.subscriber = stack.enter_context(Subscriber(stack.enter_context(channel(self.relay.port)), ALERTS).ready())
        self.node.wait_subscribers(3)
        self.seconds: list[float] = []

    def run(self, parts: list[bytes]) -> None:
        """Send events, each part when the subscriber has the last one."""
        start = time.perf_counter()
        for part in parts:
            self.node.publish_frames(ALERTS, part)
            assert len(self.subscriber.take(PART)) == PART
        self.seconds.append(time.perf_counter() - start)

    def check(self) -> dict[str, Any]:
        """Nobody lost anything; the sink's counters."""
        counters = self.relay.counters()
        (served,) = counters["subscribers"]
        assert (served["delivered"], served["lost"]) == (PART * PARTS * ROUNDS, 0)
        assert [stream["lost"] for stream in self.node.native.counters()["subscribers"]] == [0, 0, 0]
        return dict(counters["sinks"][0]) if "sinks" in counters else {}


def test_a_slow_or_dead_engine_changes_nothing_for_subscribers_and_nodes() -> None:
    """More events than the journal holds, so that the sink loses some where its server takes none."""
    with contextlib.ExitStack() as stack:
        healthy = stack.enter_context(BulkServer())
        silent = stack.enter_context(BulkServer(answers=False))
        dead = stack.enter_context(socket.socket())  # nobody listens there
        dead.bind((HOST, 0))
        urls = {"healthy": healthy.url, "silent": silent.url, "dead": f"http://{HOST}:{dead.getsockname()[1]}"}
        rigs = {"none": Rig(stack)}
        rigs |= {name: Rig(stack, **ES | {"ES_URL": url, "RELAY_ES_BATCH_SECONDS": "1"}) for name, url in urls.items()}
        for number in range(ROUNDS):
            for rig in rigs.values():
                rig.run(FRAMES[number * PARTS : (number + 1) * PARTS])
        counted = {name: rig.check() for name, rig in rigs.items()}
        total = PART * PARTS * ROUNDS
        for name in ("silent", "dead"):
            assert counted[name]["sent"] == 0
            assert counted[name]["lost"] > 0
            assert counted[name]["lost"] + counted[name]["behind"] == total
        healthy_sink = wait_sinks(rigs["healthy"].relay, lambda now: now["sent"] + now["lost"] == total)[0]
        assert len(healthy.ids) == healthy_sink["sent"] > 0
        # The best of the rounds, and a bound that only what waits for the engine would pass.
        best = {name: min(rig.seconds) for name, rig in rigs.items()}
        assert all(seconds < 5 * best["none"] for seconds in best.values()), best
