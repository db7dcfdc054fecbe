"""Nodes that mean harm beside a node and a subscriber that must not notice: what they say is counted, or the end."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from peers import events, h2_node
from peers.h2_wire import CONTINUATION, DATA, HEADERS, PING, SETTINGS
from peers.hostile import END_HEADERS, END_STREAM, frame, literal
from peers.scene import Scene

pytestmark = [pytest.mark.paced, pytest.mark.resident]

LOGS, ALERTS = events.LOGS, events.ALERTS
PATIENCE = 30.0
# In the three seconds of an attack: the backoff begins with 0 to 0.5 s, and doubles each time.
MOST_TRIES = 20
RESPONSE = literal(b":status", b"200") + literal(b"content-type", b"application/grpc")


Script = Callable[[h2_node.NodeConnection, "Hostile"], object]


class Hostile:
    """A node whose every connection is answered with a script, on a thread of its own."""

    def __init__(self, script: Script, **accepting: Any) -> None:
        self.connections = 0
        self.stopping = threading.Event()
        self._script = script
        self._accepting = accepting
        self._node = h2_node.Node()
        self._node._listener.settimeout(0.1)
        self.port = self._node.port
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def wires(self) -> list[h2_node.NodeConnection]:
        """The connections so far."""
        return self._node._connections

    def close(self) -> None:
        self.stopping.set()
        self._thread.join(PATIENCE)
        self._node.close()

    def _run(self) -> None:
        while not self.stopping.is_set():
            with contextlib.suppress(TimeoutError):
                wire = self._node.accept(**self._accepting)
                self.connections += 1
                # Whatever the relay does to it, it begins anew.
                with contextlib.suppress(OSError, AssertionError):
                    self._script(wire, self)
                wire.close()


@contextlib.contextmanager
def hostile(script: Script, **accepting: Any) -> Iterator[tuple[Scene, Hostile]]:
    """A relay with the well-behaved pair and such a node."""
    node = Hostile(script, **accepting)
    try:
        with Scene(nodes=(node.port,)) as scene:
            yield scene, node
    finally:
        node.close()


def of(scene: Scene, node: Hostile) -> dict[str, Any]:
    """The relay's counters of the hostile node."""
    (found,) = [each for each in scene.counters()["nodes"] if each["node"] == f"127.0.0.1:{node.port}"]
    return dict(found)


def until(scene: Scene, node: Hostile, holds: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Wait for its counters."""
    end = time.monotonic() + PATIENCE
    while not holds(found := of(scene, node)):
        assert time.monotonic() < end, found
        time.sleep(0.05)
    return found


def rest() -> None:
    """The attack goes on by itself."""
    time.sleep(0.1)


def flooding(data: Callable[[int], bytes], first: Callable[[int], bytes] = lambda _: b"") -> Script:
    """A script: on the stream of logs, `first`, and then `data` over and over, as fast as it is taken."""

    def script(wire: h2_node.NodeConnection, node: Hostile) -> None:
        stream = wire.stream(LOGS)
        wire.send(first(stream))
        more = data(stream)
        while not node.stopping.is_set():
            wire.send(more)

    return script


# What is skipped and counted ----------------------------------------------------------------------


@pytest.mark.parametrize("size", [0xFFFFFFFF, 100_000_000], ids=["4 GB", "100 MB"])
def test_an_event_that_is_too_large(size: int) -> None:
    """Announced, and then sent, as far as the time goes: nothing of it is kept."""
    script = flooding(
        # Behind the 100 MB it begins a message that is compressed, and again too large.
        lambda stream: frame(DATA, 0, stream, b"\xff" * 16384) * 64,
        first=lambda stream: frame(DATA, 0, stream, b"\0" + size.to_bytes(4)),
    )
    with hostile(script) as (scene, node):
        until(scene, node, lambda now: now["skipped"]["oversize"])
        assert scene.attack(rest) == {}
        assert of(scene, node)["state"] == "streaming"
        assert scene.counters()["process"]["assembly_bytes"] == 0


@pytest.mark.parametrize("size", [1, 400])
def test_malformed_protobuf_at_full_rate(size: int) -> None:
    bad = events.frame(b"\xff" * size)
    many = 16384 // len(bad)
    script = flooding(lambda stream: frame(DATA, 0, stream, bad * many) * 64)
    with hostile(script) as (scene, node):
        until(scene, node, lambda now: now["skipped"]["malformed"] > 10_000)
        before = of(scene, node)["skipped"]["malformed"]
        assert scene.attack(rest) == {}
        now = of(scene, node)
        assert now["skipped"]["malformed"] > before + 10_000
        assert sum(now["received"].values()) == 0


def test_compressed_events_at_full_rate() -> None:
    """Never asked for, so none is looked into."""
    bomb = events.frame(b"\x1f\x8b\x08" + bytes(400), flag=1)
    script = flooding(lambda stream: frame(DATA, 0, stream, bomb * 39) * 64)
    with hostile(script) as (scene, node):
        until(scene, node, lambda now: now["skipped"]["compressed"] > 10_000)
        assert scene.attack(rest) == {}


def test_a_million_tiny_data_frames() -> None:
    """A byte each. They are events all the same, and arrive."""
    event = events.event(ALERTS, 7)
    data = events.frame(event)
    count = 1_000_000 // len(data)
    sent = threading.Event()

    def script(wire: h2_node.NodeConnection, _: Hostile) -> None:
        stream = wire.stream(ALERTS)
        once = b"".join(frame(DATA, 0, stream, data[at : at + 1]) for at in range(len(data)))
        for _ in range(count):
            wire.send(once)
        sent.set()
        wire.wait(lambda _: False)

    with hostile(script) as (scene, node):
        assert scene.attack(rest) == {}
        assert sent.wait(PATIENCE)
        found = until(scene, node, lambda now: now["received"]["alerts"] == count)
        assert sum(found["skipped"].values()) == 0
        node.wires[0].vanish()


# What ends a stream or a connection ---------------------------------------------------------------


def begin(wire: h2_node.NodeConnection, say: Callable[[int], bytes]) -> None:
    """On the stream of logs, instead of an answer."""
    wire.send(say(wire.stream(LOGS)))
    wire.wait_closed()


def indexed(stream: int) -> bytes:
    """A table entry of 4,000 bytes, repeated by one byte each."""
    block = RESPONSE + b"\x40\x01x\x7f\xa1\x1e" + b"y" * 4000 + b"\xbe" * 100_000
    parts = list(events.chunks(block, 16384))
    return b"".join(
        frame(CONTINUATION if at else HEADERS, END_HEADERS if at == len(parts) - 1 else 0, stream, part)
        for at, part in enumerate(parts)
    )


ENDS: dict[str, tuple[Callable[[int], bytes], str]] = {
    "an endless header block": (
        lambda stream: frame(HEADERS, 0, stream, RESPONSE) + frame(CONTINUATION, 0, stream, literal(b"x", b"y")) * 9999,
        "HTTP/2 protocol error",
    ),
    "a header bomb": (indexed, "its answer's headers are too large"),
    "a flood of pings": (lambda _: frame(PING, payload=bytes(8)) * 100_000, "HTTP/2 protocol error"),
    "a flood of settings": (lambda _: frame(SETTINGS) * 100_000, "HTTP/2 protocol error"),
}


@pytest.mark.parametrize(("say", "why"), ENDS.values(), ids=ENDS.keys())
def test_a_connection_that_is_ended(say: Callable[[int], bytes], why: str) -> None:
    """The relay says in its log why, and tries again with backoff: not more often than that allows."""
    with hostile(lambda wire, _: begin(wire, say), accepts=False) as (scene, node):
        assert scene.attack(rest) == {}
        assert until(scene, node, lambda now: now["last_error"])["last_error"] == why
        assert node.connections <= MOST_TRIES
        assert scene.counters()["process"]["memory_bytes"] < 64 << 20


@pytest.mark.parametrize("late", [b"", events.frame(b"")], ids=["trailers first", "data after the end"])
def test_a_feed_that_ends_before_it_has_begun(late: bytes) -> None:
    """It is asked for again, alone and with backoff; what follows its end is nobody's event."""

    def script(wire: h2_node.NodeConnection, _: Hostile) -> None:
        for turn in itertools.count(1):
            stream = wire.stream(LOGS, turn)
            end = frame(HEADERS, END_HEADERS | END_STREAM, stream, RESPONSE + literal(b"grpc-status", b"2"))
            wire.send(end + (frame(DATA, 0, stream, late) * 1000 if late else b""))

    with hostile(script, accepts=False) as (scene, node):
        assert scene.attack(rest) == {}
        wire = node.wires[0]
        assert 2 <= len(wire.asked[LOGS]) <= MOST_TRIES
        assert len(wire.asked[ALERTS]) == 1
        assert node.connections == 1
        assert sum(of(scene, node)["received"].values()) == 0
        wire.vanish()


def test_a_stream_that_resets_and_is_asked_for_again_for_ever() -> None:
    def script(wire: h2_node.NodeConnection, _: Hostile) -> None:
        for turn in itertools.count(1):
            wire.reset(wire.stream(LOGS, turn), 2)

    with hostile(script) as (scene, node):
        assert scene.attack(rest) == {}
        wire = node.wires[0]
        assert 2 <= len(wire.asked[LOGS]) <= MOST_TRIES
        assert node.connections == 1
        wire.vanish()


def test_goaway_in_a_loop() -> None:
    def script(wire: h2_node.NodeConnection, _: Hostile) -> None:
        wire.stream(LOGS)
        wire.go_away(11, text=b"go away")
        wire.wait_closed()

    with hostile(script) as (scene, node):
        assert scene.attack(rest) == {}
        found = until(scene, node, lambda now: now["last_error"])
        assert "go away" in found["last_error"]
        assert 1 <= node.connections <= MOST_TRIES


def deaf(wire: h2_node.NodeConnection, _: Hostile) -> None:
    """Ask for answers, and read none of them."""
    wire.stream(LOGS)
    with wire._changed:  # without it, its reader cannot go on
        while True:
            wire.send(frame(PING, payload=bytes(8)) * 1000)


def test_a_server_that_never_reads() -> None:
    """Its socket is full of what it does not read, while it asks for answers: more than may wait is the end."""

    with hostile(deaf) as (scene, node):
        assert scene.attack(rest) == {}
        until(scene, node, lambda now: now["last_error"])
        assert node.connections <= MOST_TRIES
        assert scene.counters()["process"]["memory_bytes"] < 64 << 20
