"""The one retry policy: exponential backoff with full jitter."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Delays between tries: each drawn from 0 to a ceiling that doubles from `first` to `last`.

    Full jitter (the whole delay is random) keeps many relays, or many nodes of one relay, from
    trying in step after a common failure. After `healthy` seconds of health the ceiling is back
    at the start.
    """

    __slots__ = ("_draw", "_failures", "first", "healthy", "last")

    def __init__(
        self,
        first: float = 0.5,
        last: float = 30.0,
        healthy: float = 60.0,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """All in seconds; `draw` gives numbers from 0 to 1."""
        self.first = first
        self.last = last
        self.healthy = healthy
        self._draw = draw
        self._failures = 0

    @property
    def ceiling(self) -> float:
        """The longest that the next delay can be, in seconds."""
        # 2**64 would do, but an unbounded exponent overflows a float after a day of retries.
        return min(self.last, self.first * float(2 ** min(self._failures, 64)))

    def delay(self) -> float:
        """Seconds to wait before the next try; the one after it may wait twice as long."""
        delay = self.ceiling * self._draw()
        self._failures += 1
        return delay

    def was_healthy(self, seconds: float) -> None:
        """Tell how long the last try's success lasted; long enough starts the delays afresh."""
        if seconds >= self.healthy:
            self._failures = 0
