"""A well-behaved node and a well-behaved subscriber in a process of their own, so that an attack cannot disturb them.

Both are native engines. The node sends logs at a steady rate, the subscriber reads every one of them and looks at its
number; `Pair` drives the process from a test. Run as a program it takes words on standard input, a line each, and
answers each with a line of JSON.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import events
from .closing import Closing
from .engine import At, Engine, Sink

RATE = 2000  # events a second: steady work, far from what the relay can do
EVENT_BYTES = 500
STEP = 0.005  # s between two bursts of the node
LATE = 0.1  # s
MARK = "of the good pair"  # in its events: those of other nodes come, too, and are passed over
PATIENCE = 30.0
TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Moment:
    """How far the pair had come at a time, in s of the monotonic clock; counts are totals since the start."""

    time: float
    sent: int
    received: int

    def pace_since(self, before: Moment) -> float:
        """Events received a second."""
        return (self.received - before.received) / (self.time - before.time)


class Pair(Closing):
    """The process. The node listens from the start; events flow from `begin` on."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "peers.good_pair"],
            cwd=TESTS,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self._answer()["port"])

    def subscribe(self, port: int) -> None:
        """Connect the subscriber to a relay, which must be connected to the node, and ask for all feeds."""
        self._say(f"subscribe {port}")

    def begin(self) -> None:
        """Let events flow; the relay must know of the subscriber. Waits until it has got the first."""
        self._say("begin")

    def now(self) -> Moment:
        """How far they have come."""
        return Moment(**self._say("now"))

    def settle(self) -> Moment:
        """Stop sending, wait until all that was sent has been received, and go on.

        Raises:
            AssertionError: something is missing, was there twice or came out of order.
        """
        said = self._say("settle")
        assert said.pop("wrong") == [], "events out of order"
        moment = Moment(**said)
        assert moment.received == moment.sent, moment
        return moment

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)
        self._process.stdout.close()

    def _say(self, words: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(words + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the well-behaved pair has ended"
        said: dict[str, Any] = json.loads(line)
        return said


class _Inside:
    """The pair, in its process."""

    def __init__(self) -> None:
        self._node = Engine(event_per_frame=True)
        self._subscriber = Engine(listen=False)
        self._sink = Sink(self._subscriber, events.LOGS)
        self._template = events.frame(events.event(events.LOGS, 0, EVENT_BYTES, NamespaceName=MARK))
        self._zero = self._template.index(b"0" * 20)
        self._flowing = False
        self._sent = 0
        self._received = 0
        self._wrong: list[tuple[int, int]] = []
        self._began = 0.0
        self.port = self._node.port

    def run(self) -> None:
        print(json.dumps({"port": self.port}), flush=True)
        waiting = select.poll()
        waiting.register(sys.stdin.fileno(), select.POLLIN)
        while True:
            if waiting.poll(STEP * 1000):
                words = sys.stdin.readline().split()
                if not words:
                    break
                print(json.dumps(self._answer(words)), flush=True)
            if self._flowing:
                self._send(int((time.monotonic() - self._began) * RATE))
            self._read()
        self._subscriber.close()
        self._node.close()

    def _answer(self, words: list[str]) -> dict[str, object]:
        if words[0] == "subscribe":
            self._subscriber.connect(At(int(words[1])))
            self._node.wait_subscribers(3)
        elif words[0] == "begin":
            self._began = time.monotonic()
            self._flowing = True
            self._send(1)
            self._until(lambda: self._received == 1)
        elif words[0] == "settle":
            self._until(lambda: self._received == self._sent)
            # What was not sent meanwhile is not made up for.
            self._began = time.monotonic() - self._sent / RATE
        self._read()
        said: dict[str, object] = {"time": time.monotonic(), "sent": self._sent, "received": self._received}
        return said | ({"wrong": self._wrong} if words[0] == "settle" else {})

    def _send(self, up_to: int) -> None:
        if up_to - self._sent > RATE * LATE:
            # We were kept from running: what was not sent then is not made up for, or the pace would say too much.
            self._began = time.monotonic() - self._sent / RATE
            return
        frames = bytearray()
        while self._sent < up_to:
            at = len(frames) + self._zero
            frames += self._template
            frames[at : at + 20] = b"%020d" % self._sent
            self._sent += 1
        if frames:
            self._node.publish_frames(events.LOGS, bytes(frames))

    def _read(self) -> None:
        while data := self._sink.cursor.read():
            for message in events.unframe(data)[0]:
                if MARK.encode() not in message:
                    continue
                if b"%020d" % self._received not in message:
                    self._wrong.append((self._received, events.number_of(message)))
                self._received += 1

    def _until(self, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not holds() and time.monotonic() < end:
            self._read()
            time.sleep(STEP)


if __name__ == "__main__":
    _Inside().run()
