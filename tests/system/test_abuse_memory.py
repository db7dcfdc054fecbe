"""A pod of 128 MiB with every limit used up at the same time: it lives, and those who were there notice nothing."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import events, hostile
from peers.crowded import MIB, MOST, resident
from peers.engine import Engine
from peers.h2_wire import DATA
from peers.hostile import WATCH, Attacker, call, frame, headers
from peers.scene import Scene

pytestmark = [pytest.mark.paced, pytest.mark.resident]

CONNECTIONS, AN_ADDRESS = 256, 64
ROUNDS = 2  # of 17 KiB each, beyond a session with two subscribers: an address then has nearly all that it may have
PATIENCE = 60.0
REFLECTION = hostile.block("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
ODD = range(1, 1 << 31, 2)


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """Six hundred sockets in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def kernel_bytes() -> int:
    """What sockets hold in the kernel, of all processes here: both ends of each, and others' besides."""
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            return int(line.split()[-1]) * 4096
    raise AssertionError("no TCP in sockstat")


def fill_journals(scene: Scene, node: Engine) -> None:
    """Events of another node on all feeds, until each journal has begun to forget."""
    node.wait_subscribers(3)
    end = time.monotonic() + PATIENCE
    while not all(feed["first"] for feed in scene.counters()["feeds"].values()):
        assert time.monotonic() < end, "the journals do not fill"
        for feed in events.FEEDS:
            node.publish(feed, *[events.event(feed, 1, 1200)] * 1000)
            node.drain(feed)


def test_everything_at_once() -> None:
    """All connections there may be, from as many addresses as that takes; each with streams, with a request that is
    not completed and grows as far as it may, and with events that it never reads."""
    with Engine() as node, Scene(nodes=(node.port,)) as scene, contextlib.ExitStack() as stack:
        fill_journals(scene, node)
        attackers = []
        for number in range(CONNECTIONS - 1):
            source = f"127.0.3.{1 + number // AN_ADDRESS}"
            attacker = Attacker(scene.port, source, settings=hostile.open_windows(), receive_buffer=4096)
            attackers.append(stack.enter_context(attacker))
            attacker.say(hostile.widen() + call(1, WATCH) + call(3, WATCH))

        def act() -> None:
            """One stream more, with a request that is not completed; beyond what an address may hold, by a few only."""
            stream = next(streams)
            for attacker in attackers if stream <= ODD[1 + ROUNDS] else attackers[::16]:
                attacker.say_blindly(headers(stream, REFLECTION))
                attacker.say_blindly(frame(DATA, 0, stream, b"\0" + (60_000).to_bytes(4) + bytes(8000)))

        streams = iter(ODD[2:])
        met = scene.attack(act, seconds=4)
        process = scene.counters()["process"]
        assert 11 * MIB < process["client_bytes"] <= 16 * MIB, process
        assert process["clients"] > CONNECTIONS - 32
        assert {"budget", "request"} & met.keys(), met
        assert resident(scene.relay, "VmHWM") + kernel_bytes() < MOST, (process, kernel_bytes())
        # A newcomer finds no place among the connections, and hears which limit that is; when one leaves, it does.
        with Attacker(scene.port, "127.0.4.1") as late:
            if process["clients"] == CONNECTIONS:
                assert late.last_words().goaway is not None
        for attacker in attackers[:16]:
            attacker.close()
        with Attacker(scene.port, "127.0.4.2") as later:
            later.say(call(1, hostile.CHECK, events.nonce(7)))
            later.until(lambda said: said.statuses == {"0": 1})
