"""Time that passes only when nothing else is left to do: a loop whose sleeps take no time."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class _Selector(selectors.DefaultSelector):
    """Waits for nobody: instead of the time that it was to wait, the clock moves on by as much."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise AssertionError("nothing is left that could ever happen")
            self.now += max(timeout, 0.0)
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def run(work: Coroutine[Any, Any, _Result]) -> _Result:
    """As asyncio.run; nothing in it may wait for other threads or processes."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(work)
