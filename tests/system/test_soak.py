"""Churn, rotation of certificates and attack together; the invariants of the design are checked from the counters again
and again. `make soak` gives it SOAK_SECONDS, 600 if not told otherwise; among other tests it has a minute.
"""

import contextlib
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peers import events
from peers.certificates import swap_folder
from peers.command import Relay, free_port
from peers.crowd import Crowd
from peers.go_peers import ClientProcess, GoClient, GoNode, NodeProcess, tls_flags
from peers.h2_wire import PREFACE, RST_STREAM
from peers.hostile import WATCH, Attacker, frame, headers
from peers.tls_door import Door
from peers.trust import NAMES, trust

SECONDS = float(os.environ.get("SOAK_SECONDS", "60"))
WAIT = 30.0
SEED = 20261123
LOGS = events.LOGS
MIB = 1 << 20
# Limits that what happens here runs into.
NOTICED = {"controls", "tls", "handshake", "protocol", "headers", "streams", "address", "budget", "keepalive"}


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


class Attack:
    """Hostile clients, each of which does its worst once.

    Args:
        plain: a port of the relay's where somebody else speaks TLS for them.
        secure: the relay's own.
    """

    def __init__(self, plain: int, secure: int) -> None:
        self._plain = plain
        self._secure = secure
        self._kept: list[socket.socket] = []

    def flood(self) -> None:
        """Streams that are asked for and reset, as fast as that goes (CVE-2023-44487)."""
        cancel = (8).to_bytes(4)
        with Attacker(self._plain) as attacker:
            for first in range(1, 6000, 200):
                streams = range(first, first + 200, 2)
                calls = (headers(each, WATCH) + frame(RST_STREAM, 0, each, cancel) for each in streams)
                if not attacker.say(b"".join(calls)):
                    break

    def linger(self) -> None:
        """Handshakes that are begun, and some that are ended: more than a few are there at any time."""
        for said in (b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300), b""):
            sock = socket.create_connection(("127.0.0.1", self._secure), WAIT)
            sock.sendall(said)
            self._kept.append(sock)
        for sock in self._kept[:-20]:
            sock.close()
        del self._kept[:-20]

    def mistake(self) -> None:
        """Plaintext where TLS is spoken, and TLS that is none."""
        for said in (PREFACE, b"\x16\x03\x01\x00\x05hello", bytes(100)):
            with socket.create_connection(("127.0.0.1", self._secure), WAIT) as sock:
                sock.sendall(said)

    def close(self) -> None:
        for sock in self._kept:
            sock.close()


@pytest.mark.slow
def test_churn_rotation_and_attack(go_node: GoNode, go_client: GoClient, tmp_path: Path) -> None:
    """Nodes are killed and come back; subscribers of all kinds come, stall, and go; certificates change; others mean
    harm. One that reads gets everything."""
    draw = random.Random(SEED)
    whom, served = trust(), tmp_path / "served"
    folder = whom.write(tmp_path / "peers")
    swap_folder(served, whom.ca, whom.leaf, whom.leaf)
    ports = [free_port(following=3) for _ in range(5)]
    nodes: list[NodeProcess] = []

    def start(at: int) -> NodeProcess:
        flags = ("-nodes", "4", "-port", str(ports[at]), "-host", f"host{at}", "-rate", "150", "-size", "700")
        return go_node(*flags, "-send", "messages,alerts,logs", *tls_flags(folder, "server"))

    def read(*flags: str) -> ClientProcess:
        return go_client("-server", f"127.0.0.1:{relay.port}", *flags, *tls_flags(folder, "client"))

    nodes = [start(at) for at in range(5)]
    everyone = tuple(port + number for port in ports for number in range(4))
    flags = ("-journal-bytes=32MiB", "-max-connections-per-address=256", "-tlsEnabled", f"-tlsCertPath={served}")
    with (
        Relay(*flags, nodes=everyone) as relay,
        Door(relay.port, whom.context(server=False)) as door,
        contextlib.closing(Attack(door.port, relay.port)) as attack,
    ):
        steady = read("-feed", "alerts")
        steady.wait_subscribed()
        visitors: list[ClientProcess] = []
        crowds: list[Crowd] = []

        def restart() -> None:
            at = draw.randrange(len(nodes))
            nodes[at].close()
            nodes[at] = start(at)

        def visit() -> None:
            if len(visitors) < 12:
                counts = ("-connections", str(draw.randint(1, 5)), "-streams", str(draw.randint(1, 4)))
                feed, pause = draw.choice(events.NAMES), draw.choice(["0", "1ms", "50ms"])
                visitors.append(read("-feed", feed, "-pause", pause, *counts))

        def leave() -> None:
            if visitors:
                visitor = visitors.pop(draw.randrange(len(visitors)))
                draw.choice([visitor.kill, visitor.close])()

        def stall() -> None:
            if len(crowds) < 5:
                window = draw.choice([0, 1000, 65_535, 1 << 30])
                crowds.append(Crowd(door.port, draw.randint(1, 15), LOGS, window=window))

        def disperse() -> None:
            if crowds:
                crowds.pop(draw.randrange(len(crowds))).close()

        def rotate() -> None:
            swap_folder(served, whom.ca, whom.ca.issue(*NAMES), whom.ca.issue(*NAMES))

        acts: list[Callable[[], None]] = [restart, visit, visit, leave, stall, disperse, rotate]
        acts += [attack.flood, attack.linger, attack.mistake]
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
        attack.close()
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
        # Whoever meant harm was noticed, and nobody else was held up.
        limits = last["process"]["limits"]
        assert limits["controls"] > 0
        assert limits["tls"] > 0
        assert {name for name, count in limits.items() if count} <= NOTICED
        # At least every other time that there was time for.
        assert last["tls"]["taken"] > SECONDS / 30
        assert last["process"]["tls"]["resumed"] <= last["process"]["tls"]["handshakes"]
        assert relay.end() == 0
        said = steady.result()
        assert said["events"] == reader["delivered"]
        assert (said["code"], said["relay_lost"]) == ("Unavailable", "0")
