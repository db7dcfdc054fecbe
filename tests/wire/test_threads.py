"""Everything at once, from many threads, until somebody ends the engine: for the sanitizers above all.

What holds: invariant 2 in every snapshot, no descriptor and no block is left behind (`close` raises otherwise), and the
only thing that a caller may meet is an engine that is closed, or a queue that is full.
"""

import contextlib
import os
import random
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from h2.exceptions import ProtocolError
from peers import events, h2_client
from peers.engine import At, Engine
from peers.trust import trust

from relay import _fastpath, feeds

SANITIZED = Path(os.environ.get("RELAY_BUILD", "normal")).name in ("address-undefined", "thread")
ROUNDS = 30 if SANITIZED else 100  # snapshots before the end begins
OPEN = Path("/proc/self/fd")
FRAMES = {feed: [events.frames([events.event(feed, 0, size)]) for size in (60, 900, 3000)] for feed in events.FEEDS}

Step = Callable[[random.Random], object]


def publish(engine: _fastpath.Engine) -> Step:
    def step(chance: random.Random) -> None:
        for feed in events.FEEDS:
            engine.publish(feed, chance.choice(FRAMES[feed]) * chance.randrange(1, 5))

    return step


def read(engine: _fastpath.Engine) -> Step:
    def step(chance: random.Random) -> None:
        cursor = _fastpath.Cursor(engine, chance.choice(events.FEEDS), at_head=chance.random() < 0.5)
        try:
            for _ in range(chance.randrange(30)):
                cursor.read(chance.choice([1, 5000, 262144]))
        finally:
            cursor.close()

    return step


def connect(engine: _fastpath.Engine, port: int, numbers: Iterable[int]) -> Step:
    """Nodes come and go, in whatever state they are."""
    left = iter(numbers)

    def step(chance: random.Random) -> None:
        number = next(left)
        engine.add_node(number)
        engine.connect_node(number, "127.0.0.1", port)
        for _ in range(chance.randrange(3)):
            engine.counters()
        engine.drain(number, chance.choice(events.FEEDS))
        engine.remove_node(number)

    return step


def subscribe(port: int) -> Step:
    """Clients come and go, with half-read streams, politely or not."""

    def step(chance: random.Random) -> None:
        wire = h2_client.Client(port, settings={"initial_window_size": chance.choice([10, 1000, 65535])}, reopen=False)
        try:
            for path in feeds.METHODS:
                stream = wire.call(path, b"")
            if chance.random() < 0.5:
                with contextlib.suppress(ProtocolError):  # the relay may have been quicker
                    wire.reset(stream)
            wire.round_trip()
        finally:
            (wire.close if chance.random() < 0.5 else wire.vanish)()

    return step


def rotate(engine: _fastpath.Engine) -> Step:
    """The same certificates anew, for subscribers, and for nodes."""

    def step(_: random.Random) -> None:
        engine.set_tls(server=trust().server(), client=trust().client())

    return step


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("end", ["close", "shut down", "leave first"])
def test_everything_at_once(end: str, tls: bool) -> None:
    secure = trust() if tls else None
    descriptors = len(list(OPEN.iterdir()))
    # A slow build has clients that come faster than the last ones are gone, and that take seconds to say a word.
    room = {"max_connections": 10_000, "max_address_connections": 10_000, "client_bytes": 1 << 30}
    room["handshake_timeout"] = 60
    relay = Engine(journal_bytes=3 * 8400, max_event_bytes=4096, tls=secure, doors=tls, **room)
    below = Engine(journal_bytes=3 * 8400, max_event_bytes=4096, tls=secure, listen=False)
    below.add(At(relay.own_port))
    ended = threading.Event()
    wrong: list[BaseException] = []

    def run(step: Step, seed: int) -> None:
        chance = random.Random(seed)
        while not ended.is_set():
            try:
                step(chance)
            except BlockingIOError:
                pass  # the queue is full: the reactor empties it
            except (RuntimeError, OSError, AssertionError) as error:
                # Once the engines end, everything may fail; before, nothing.
                if not ended.is_set():
                    wrong.append(error)
                    return

    steps = [publish(relay.native), read(relay.native), read(relay.native), read(below.native)]
    steps += [connect(below.native, relay.own_port, range(1, 1 << 20)), subscribe(relay.port), subscribe(relay.port)]
    if tls:
        steps += [rotate(relay.native), rotate(below.native)]
    threads = [threading.Thread(target=run, args=(step, seed)) for seed, step in enumerate(steps)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(ROUNDS):
            relay.check()
            below.check()
    finally:
        ended.set()
        if end == "leave first":
            for thread in threads:
                thread.join()
        elif end == "shut down":
            relay.shutdown(0.1)
        for engine in (relay, below):
            engine.close()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert len(list(OPEN.iterdir())) <= descriptors
