"""A relay with a well-behaved node and subscriber, for attacks beside them: whether those two notice anything."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .closing import Closing
from .command import Relay
from .crowded import MIB, MOST, resident
from .good_pair import Pair

CALM = 1.0  # s in which the pace without an attack is measured
ATTACK = 2.0  # s for which an attack goes on at least
PACE = 0.9  # of it, at least, with the attack
ATTEMPTS = 3  # at that, for a machine that has other things to do
PAUSE = 0.02  # s between two rounds of it: faster, and it would run out of ports to come from


class Scene(Closing):
    """The installed relay, as in a pod of 128 MiB, between a steady node and its subscriber.

    Args:
        flags: of the relay.
        nodes: ports of further nodes, which may be hostile.
        variables: of its environment.
    """

    def __init__(self, *flags: str, nodes: tuple[int, ...] = (), **variables: str) -> None:
        self.pair = Pair()
        try:
            self.relay = Relay(
                "-journal-bytes=32MiB", "-log-level=info", *flags, nodes=(self.pair.port, *nodes), **variables
            )
            try:
                self.pair.subscribe(self.relay.port)
                while len(self.counters()["subscribers"]) < 3:
                    time.sleep(0.01)  # they do not announce themselves
                self.pair.begin()
            except BaseException:
                self.relay.__exit__(None, None, None)
                raise
        except BaseException:
            self.pair.close()
            raise
        self.port = self.relay.port

    def counters(self) -> dict[str, Any]:
        """The relay's."""
        return self.relay.counters()

    def limits(self) -> dict[str, int]:
        """Those that somebody has met so far, with how often."""
        return {name: count for name, count in self.counters()["process"]["limits"].items() if count}

    def attack(self, act: Callable[[], object], *, seconds: float = ATTACK) -> dict[str, int]:
        """Do it over and over for a while: the well-behaved ones keep their pace, and lose nothing.

        Returns:
            The limits that were met meanwhile, with how often.
        """
        before = self.limits()
        for _ in range(ATTEMPTS):
            calm, busy = self._paces(act, seconds)
            if busy >= PACE * calm:
                break
        assert busy >= PACE * calm, f"{busy:.0f} events a second under attack, {calm:.0f} before"
        self.pair.settle()
        counters = self.counters()
        good = max(counters["subscribers"], key=lambda each: int(each["delivered"]))
        assert (good["lost"], good["filtered"]) == (0, 0)
        assert resident(self.relay, "VmHWM") < MOST, f"{resident(self.relay, 'VmHWM') / MIB} MiB"
        after = {name: count for name, count in counters["process"]["limits"].items() if count}
        return {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)}

    def _paces(self, act: Callable[[], object], seconds: float) -> tuple[float, float]:
        """Events a second without the attack and with it, one right after the other."""
        first = self.pair.now()
        time.sleep(CALM)
        second = self.pair.now()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            act()
            time.sleep(PAUSE)
        return second.pace_since(first), self.pair.now().pace_since(second)

    def close(self) -> None:
        self.relay.__exit__(None, None, None)
        self.pair.close()
