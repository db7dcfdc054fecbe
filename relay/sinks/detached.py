"""Work that may hang for good, such as a write to a disk that does not answer: on a thread that no end waits for."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable


async def run_detached(work: Callable[[], object]) -> None:
    """Do it on a thread of its own, and wait for it; whoever is cancelled leaves it behind.

    asyncio's threads (`asyncio.to_thread`) are joined when the loop ends and again when the process does.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

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
            work()
        except BaseException as error:
            outcome = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, outcome)

    threading.Thread(target=run, name="sink", daemon=True).start()
    await done
