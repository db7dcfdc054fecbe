"""All sinks of a relay, run as one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol


class Running(Protocol):
    """A sink at work: a `Runner` around one, or `Stdout`."""

    def start(self, failed: Callable[[BaseException], None], /) -> None:
        """Begin; `failed` is told of a defect."""

    async def stop(self, seconds: float, /) -> int:
        """Carry what the journal holds now, for at most `seconds`, and close; returns the events given up."""

    def give_up(self) -> None:
        """End at once a stop that waits."""

    def describe(self) -> dict[str, Any]:
        """The counters."""


class Sinks:
    """What `build.make_sinks` has made."""

    def __init__(self, members: Sequence[Running]) -> None:
        self._members = members

    def start(self, failed: Callable[[BaseException], None]) -> None:
        """Begin; `failed` is told of a defect in any of them."""
        for member in self._members:
            member.start(failed)

    async def stop(self, seconds: float) -> None:
        """Let all of them carry what the journal holds now, for at most `seconds`, and close."""
        await asyncio.gather(*(member.stop(seconds) for member in self._members))

    def give_up(self) -> None:
        """End at once a stop that waits."""
        for member in self._members:
            member.give_up()

    def describe(self) -> list[dict[str, Any]]:
        """The counters of each."""
        return [member.describe() for member in self._members]
