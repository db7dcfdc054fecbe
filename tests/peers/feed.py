"""An engine without nodes, whose feeds hold what a test publishes: for those who read them on other threads."""

from collections.abc import Callable
from typing import Any

import pytest

from relay import _fastpath, events
from relay import kubearmor_pb2 as pb
from relay.feeds import LOGS

TIGHT: dict[str, Any] = {"journal_bytes": 64 << 10, "max_event_bytes": 4096}  # the logs' share is 48 KiB

fail_allocation: Callable[[Any, int], None] | None = getattr(_fastpath, "_fail_allocation", None)
failing = pytest.mark.skipif(fail_allocation is None, reason="this build cannot make an allocation fail")


class Feed:
    """An engine that is told what to hold."""

    def __init__(self, **settings: Any) -> None:
        self.native = _fastpath.Engine(**settings)
        self.native.start()
        self._total = 0

    def hold(self, *logs: pb.Log, feed: int = LOGS) -> None:
        """Publish, and return when the events are in the journal."""
        self.native.publish(feed, b"".join(events.frame(log) for log in logs))
        # Commands are run in order, so the snapshot is of the time after it.
        self.native.counters()

    def number(self, count: int, size: int = 0) -> None:
        """Publish logs whose Timestamp is their number, from 1."""
        for start in range(0, count, 50):
            some = range(start, min(count, start + 50))
            self.hold(*(pb.Log(Timestamp=self._total + 1 + i - start, Result="x" * size) for i in some))
            self._total += len(some)

    @property
    def first(self) -> int:
        """The oldest event held."""
        first: int = self.native.counters()["feeds"]["logs"]["first"]
        return first


def large(feed: Feed) -> bytes:
    """Hold an event of 4 MiB that prints as six times that, and a small one behind it; the line of the first."""
    size = (4 << 20) - 100
    feed.hold(pb.Log(Result="\1" * size))
    feed.hold(pb.Log(PID=2))
    return b'{"PPID":0,"UID":0,"Result":"' + b"\\u0001" * size + b'"}\n'
