"""A minute of churn, in which the invariants of the design are checked from the counters again and again."""

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from peers import events
from peers.command import Relay, free_port
from peers.crowd import Crowd
from peers.go_peers import ClientProcess, GoClient, GoNode, NodeProcess

SECONDS = 60
SEED = 20261123
LOGS = events.LOGS
MIB = 1 << 20


def check(now: dict[str, Any], before: dict[str, Any]) -> None:
    """What must hold in every snapshot, and between two of them."""
    for name, feed in now["feeds"].items():
        nodes = sum(node["received"][name] for node in now["nodes"])
        assert feed["received"] == nodes, f"{name}: the nodes' counts make {nodes}: {feed}"
        assert feed["next"] == feed["received"] + feed["published"], (name, feed)
        assert feed["first"] <= feed["next"], (name, feed)
        assert feed["held_bytes"] <= feed["share_bytes"], (name, feed)
        for count in ("received", "bytes", "first", "next", "ended_delivered", "ended_lost"):
            assert feed[count] >= before["feeds"][name][count], (name, count)
    for subscriber in now["subscribers"]:
        accounted = sum(subscriber[count] for count in ("delivered", "filtered", "lost", "in_flight"))
        assert accounted == subscriber["passed"], subscriber
        earlier = next((each for each in before["subscribers"] if each["subscriber"] == subscriber["subscriber"]), None)
        if earlier is not None:
            for count in ("delivered", "filtered", "lost", "passed"):
                assert subscriber[count] >= earlier[count], (subscriber, earlier)
    for node in now["nodes"]:
        assert set(node["skipped"].values()) <= {0, node["skipped"]["truncated"]}, node
    assert now["process"]["rss"] < 160 * MIB, now["process"]


@pytest.mark.slow
def test_a_minute_of_churn(go_node: GoNode, go_client: GoClient) -> None:
    """Nodes are killed and come back; subscribers of all kinds come, stall, and go; one that reads gets everything."""
    draw = random.Random(SEED)
    ports = [free_port(following=3) for _ in range(5)]
    nodes: list[NodeProcess] = []

    def start(at: int) -> NodeProcess:
        flags = ("-nodes", "4", "-port", str(ports[at]), "-host", f"host{at}", "-rate", "400", "-size", "700")
        return go_node(*flags, "-send", "messages,alerts,logs")

    nodes = [start(at) for at in range(5)]
    everyone = tuple(port + number for port in ports for number in range(4))
    with Relay("-journal-bytes=32MiB", "-max-connections-per-address=256", nodes=everyone) as relay:
        steady = go_client("-server", f"127.0.0.1:{relay.port}", "-feed", "alerts")
        steady.wait_subscribed()
        visitors: list[ClientProcess] = []
        crowds: list[Crowd] = []

        def restart() -> None:
            at = draw.randrange(len(nodes))
            nodes[at].close()
            nodes[at] = start(at)

        def visit() -> None:
            flags = ("-connections", str(draw.randint(1, 5)), "-streams", str(draw.randint(1, 4)))
            feed, pause = draw.choice(events.NAMES), draw.choice(["0", "1ms", "50ms"])
            visitors.append(go_client("-server", f"127.0.0.1:{relay.port}", "-feed", feed, "-pause", pause, *flags))

        def leave() -> None:
            if visitors:
                visitor = visitors.pop(draw.randrange(len(visitors)))
                draw.choice([visitor.kill, visitor.close])()

        def stall() -> None:
            crowds.append(Crowd(relay.port, draw.randint(1, 20), LOGS, window=draw.choice([0, 1000, 65_535, 1 << 30])))

        def disperse() -> None:
            if crowds:
                crowds.pop(draw.randrange(len(crowds))).close()

        acts: list[Callable[[], None]] = [restart, visit, visit, leave, stall, disperse]
        before = relay.counters()
        pace = threading.Event()
        ending = time.monotonic() + SECONDS
        while time.monotonic() < ending:
            draw.choice(acts)()
            pace.wait(draw.random() * 0.4)
            now = relay.counters()
            check(now, before)
            before = now
        for visitor in visitors:
            visitor.close()
        for crowd in crowds:
            crowd.close()
        while len(relay.counters()["subscribers"]) > 1:
            pace.wait(0.1)
        for node in nodes:
            node.close()
        while any(node["state"] == "streaming" for node in relay.counters()["nodes"]):
            pace.wait(0.1)
        # Nobody sends and one reads: it has everything that came since it was there.
        last = relay.counters()
        check(last, before)
        (reader,) = last["subscribers"]
        assert (reader["lost"], reader["behind"], reader["in_flight"]) == (0, 0, 0)
        assert set(last["process"]["limits"].values()) == {0}
        assert relay.end() == 0
        said = steady.result()
        assert said["events"] == reader["delivered"]
        assert (said["code"], said["relay_lost"]) == ("Unavailable", "0")
