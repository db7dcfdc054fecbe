"""relay.detached: what the work returns or raises comes back, and work that hangs holds nobody up."""

import asyncio
import threading

import pytest

from relay.detached import run_detached

WAIT = 30.0


def test_what_the_work_returns_comes_back_from_another_thread() -> None:
    here = threading.get_ident()
    there = asyncio.run(run_detached(threading.get_ident, "work"))
    assert there != here


def test_what_the_work_raises_comes_back() -> None:
    def work() -> None:
        raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"):
        asyncio.run(run_detached(work, "work"))


def test_the_thread_has_the_name_that_it_was_given() -> None:
    assert asyncio.run(run_detached(lambda: threading.current_thread().name, "certificates")) == "certificates"


def test_work_that_hangs_is_left_behind() -> None:
    """Neither the loop's end nor its threads wait for it; and it may end when the loop is closed."""
    go_on, ended = threading.Event(), threading.Event()

    def work() -> None:
        go_on.wait(WAIT)
        ended.set()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run_detached(work, "work"), 0.01)

    asyncio.run(main())
    assert not ended.is_set()
    go_on.set()
    assert ended.wait(WAIT)
