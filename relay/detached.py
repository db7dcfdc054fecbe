"""Work that may hang for good, such as a disk that does not answer: on a thread that no end waits for."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


async def run_detached(work: Callable[[], _T], name: str) -> _T:
    """Do it on a thread of its own, and wait for what it returns or raises; whoever is cancelled leaves it behind.

    asyncio's threads (`asyncio.to_thread`) are joined when the loop ends and again when the process does.

    Args:
        work: what to do.
        name: of the thread.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    results: list[_T] = []

    def settle(error: BaseException | None) -> None:
        if done.done():  # nobody waits any more
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        outcome: BaseException | None = None
        try:
            results.append(work())
        except BaseException as error:
            outcome = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, outcome)

    threading.Thread(target=run, name=name, daemon=True).start()
    await done
    return results[0]
