"""Standard output: events as JSON lines, written by the engine's own thread.

The thread has its own cursors and buffer (`relay._fastpath.Writer`), so that a line costs no Python, and a reader that
stops holds up nothing. What is done here is to log what becomes of it, and to end it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from relay import _fastpath, feeds, log
from relay.failures import FailureLog

logger = log.logger(__name__)

NAME = "stdout"
LOOK_SECONDS = 5.0  # between two looks at what was lost


class Stdout:
    """A descriptor that gets feeds as JSON lines."""

    def __init__(self, native: _fastpath.Engine, chosen: Sequence[int], descriptor: int = 1) -> None:
        """Make it ready; nothing is written before `start`.

        Raises:
            OSError: the descriptor is not open.
        """
        self._writer = _fastpath.Writer(native, descriptor, sum(1 << feed for feed in chosen))
        self._losses = dict.fromkeys(map(feeds.NAMES.__getitem__, chosen), 0)
        self._failures = FailureLog()
        self._failing = False
        self._stopped = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._look: asyncio.TimerHandle | None = None

    def start(self, _failed: Callable[[BaseException], None]) -> None:
        """Begin to write."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._writer.fileno(), self._ended)
        self._writer.start()
        self._look_again(self._loop)

    async def stop(self, seconds: float) -> int:
        """Write what the journal holds now, for at most `seconds`; returns the events that were not written."""
        self._leave()
        was_broken = bool(self._writer.counters()["error"])
        unwritten = await asyncio.to_thread(self._writer.stop, seconds)
        self._stopped = True
        self._report_losses(self._writer.counters())
        if unwritten and not was_broken:
            logger.warning("sink ends before all events were sent", extra=log.fields(sink=NAME, events=unwritten))
        return unwritten

    def give_up(self) -> None:
        """End at once a stop that waits."""
        self._writer.stop(0)

    def describe(self) -> dict[str, Any]:
        """The counters, under the names that every sink has."""
        counted = self._writer.counters()
        each = counted["feeds"].values()
        lost = sum(feed["lost"] for feed in each)
        behind = sum(feed["buffered"] + feed["behind"] for feed in each)
        if self._stopped:
            lost, behind = lost + behind, 0  # given up
        return {
            "sink": NAME,
            "feeds": list(counted["feeds"]),
            "read": sum(feed["read"] for feed in each),
            "sent": sum(feed["written"] for feed in each),
            "retried": 0,
            "rejected": 0,
            "lost": lost,
            "behind": behind,
            "bytes": counted["bytes"],
            "writes": counted["writes"],
        }

    def _look_again(self, loop: asyncio.AbstractEventLoop) -> None:
        counted = self._writer.counters()
        self._report_failing(counted)
        self._report_losses(counted)
        self._look = loop.call_later(LOOK_SECONDS, self._look_again, loop)

    def _report_failing(self, counted: dict[str, Any]) -> None:
        """Log that the descriptor refuses lines for a reason that may pass, and that it takes them again."""
        if counted["failing"]:
            reason = os.strerror(counted["failing"])
            if times := self._failures.count(reason, time.monotonic()):
                self._failing = True
                extra = log.fields(sink=NAME, reason=reason, times=times)
                logger.warning("sink cannot take events, and is asked again", extra=extra)
        elif self._failing:
            self._failing = False
            logger.info("sink takes events again", extra=log.fields(sink=NAME))

    def _report_losses(self, counted: dict[str, Any]) -> None:
        """Log that the journal overwrote events, for each feed at most once a minute."""
        if counted["error"]:
            return  # that everything is lost from there on was said
        for name, feed in counted["feeds"].items():
            if feed["lost"] > self._losses[name]:
                self._losses[name] = feed["lost"]
                if self._failures.count(name, time.monotonic()):
                    extra = log.fields(sink=NAME, feed=name, lost=feed["lost"])
                    logger.warning("sink loses events: the journal overwrote them before they were read", extra=extra)

    def _ended(self) -> None:
        """Its thread has ended by itself: the descriptor cannot be written."""
        self._leave()
        error = self._writer.counters()["error"]
        logger.error("sink ends: standard output cannot be written", extra=log.fields(error=os.strerror(error)))

    def _leave(self) -> None:
        if self._look is not None:
            self._look.cancel()
        if self._loop is not None:
            self._loop.remove_reader(self._writer.fileno())
