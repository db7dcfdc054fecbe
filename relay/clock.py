"""The part of an asyncio loop that keeps time; a test gives one that it turns itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Timer(Protocol):
    """What `call_later` returns."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """What tells the time, and calls back later. Times are seconds."""

    def time(self) -> float: ...
    def call_later(self, delay: float, callback: Callable[..., None], *args: Any) -> Timer: ...
