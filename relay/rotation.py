"""Rotation: certificates that change are taken over while the relay serves, and what ends soon is told.

Files are looked at again and again, on a thread, since a disk may hang. What has changed and then stays as it is for
one look is read, checked and taken into use, both sides at once: new connections use it, open ones go on. What cannot
be used is refused with its reason, and what was there before stays.

Two clocks: the loop's, which never jumps, for pauses; the wall clock for what certificates say. A jump of the wall
clock can make them end, or be made anew, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

from relay import log
from relay.backoff import Backoff
from relay.certificates import Material, Provider, Seen
from relay.detached import run_detached
from relay.failures import FailureLog
from relay.settings import SettingsError
from relay.tls import Certificates

logger = log.logger(__name__)

# A change is taken over within two looks and the time that it takes to read it, or to make a certificate (a second):
# the promise is 10 s.
LOOK_SECONDS = 2.0
# So long may a disk take before it is told that it does not answer.
HANG_SECONDS = 60.0
DAY = 86400.0
WARN_DAYS = 14.0
# What was refused is looked at again, though nothing has changed: the reason may have been a certificate that begins
# later, or a process that found no memory.
FIRST_RETRY, LAST_RETRY = 10.0, 600.0

# What is raised where there is no memory, also for a thread, or where the process may have no further thread.
_NO_MEMORY = (RuntimeError, MemoryError)

Detached = Callable[[Callable[[], Any], str], Awaitable[Any]]


class Rotation:
    """The certificates in use, and what comes after them. Every method is called on the loop's thread."""

    def __init__(
        self,
        provider: Provider,
        make: Callable[[Material], Certificates],
        use: Callable[[Certificates], None],
        wall: Callable[[], float] = time.time,
        detached: Detached = run_detached,
    ) -> None:
        """Nothing happens before `start`.

        Args:
            provider: where certificates come from.
            make: checks them, and makes what the engine uses; SettingsError where it cannot.
            use: takes them into use.
            wall: seconds since the epoch; may jump.
            detached: runs what may wait for a disk.
        """
        self._provider = provider
        self._make = make
        self._use = use
        self._wall = wall
        self._detached = detached
        self._asked = asyncio.Event()
        self._backoff = Backoff(FIRST_RETRY, LAST_RETRY)
        self._failures = FailureLog(repeat_after=DAY)
        self._expiry = FailureLog(repeat_after=DAY)
        self.current: Certificates | None = None
        self._task: asyncio.Task[None] | None = None
        self._said_roots = False
        self._seen: Seen = ()  # at the last look
        self._tried: Seen = ()  # what came of it is known
        self._retry_at: float | None = None  # the loop's time
        self._taken = 0
        self._refused = 0
        self._last_error = ""
        self._hanging = ""  # while the disk does not answer

    def load(self) -> None:
        """Take the first certificates into use; waits for the disk, so not for a loop that serves.

        Raises:
            SettingsError: they are not to be had, or not to be used.
        """
        seen = self._provider.look()
        self._accept(self._make(self._provider.obtain()))
        self._seen = self._tried = seen

    def start(self, failed: Callable[[BaseException], None]) -> None:
        """Follow what changes from now on; `failed` is told of a defect."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                failed(error)

        self._task = asyncio.get_running_loop().create_task(self.run(), name="rotation")
        self._task.add_done_callback(ended)

    def stop(self) -> None:
        """Follow nothing any more."""
        if self._task is not None:
            self._task.cancel()

    def look_now(self) -> None:
        """Look at once, and try at once what is different or was refused."""
        self._asked.set()

    def describe(self) -> dict[str, Any]:
        """What the counters show."""
        return {
            "folder": str(self._provider.folder),
            "days": {name: _days(left) for name, left in self._left().items()},
            "taken": self._taken,
            "refused": self._refused,
            "last_error": self._hanging or self._last_error,
        }

    async def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            self._tell_expiry()
            asked = await self._pause()
            try:
                seen = await self._waiting(self._provider.look)
            except _NO_MEMORY as error:
                self._tell_failure("certificates cannot be looked at", str(error))
                continue
            stays, self._seen = seen == self._seen, seen
            if self._is_due(seen, at_once=stays or asked, again=asked):
                await self._try(seen)

    def _is_due(self, seen: Seen, *, at_once: bool, again: bool) -> bool:
        """Whether there may be something to take over.

        Args:
            seen: the last look.
            at_once: a change need not be waited with, for somebody who may still be writing.
            again: what was refused is to be tried now.
        """
        if seen != self._tried:
            return at_once
        if self._retry_at is not None:
            return again or asyncio.get_running_loop().time() >= self._retry_at
        fresh = self.current.fresh if self.current is not None else None
        # Before they begin: the clock was put back.
        return fresh is not None and not fresh.begins <= self._wall() < fresh.until

    async def _try(self, seen: Seen) -> None:
        try:
            self._accept(await self._waiting(lambda: self._make(self._provider.obtain())))
        except (SettingsError, *_NO_MEMORY) as error:
            self._refuse(str(error))
        self._tried = seen

    def _accept(self, made: Certificates) -> None:
        first = self.current is None
        if made.roots > 1 and not self._said_roots:
            self._said_roots = True
            extra = log.fields(certificates=made.roots, folder=str(self._provider.folder))
            logger.warning(
                "ca.crt holds several certificates: the first is the root, the others are ignored", extra=extra
            )
        if self.current is None or made.digest != self.current.digest:
            self._use(made)
            self.current = made
            self._taken += 1
            self._expiry = FailureLog(repeat_after=DAY)
            if not first:
                days = {name: _days(left) for name, left in self._left().items()}
                logger.info("certificates taken over", extra=log.fields(days=days))
        self._backoff = Backoff(FIRST_RETRY, LAST_RETRY)
        self._failures = FailureLog(repeat_after=DAY)
        self._retry_at = None
        self._last_error = ""

    def _refuse(self, reason: str) -> None:
        delay = self._backoff.delay()
        self._retry_at = asyncio.get_running_loop().time() + delay
        self._refused += 1
        self._last_error = reason
        self._tell_failure("certificates not taken over: the old ones stay", reason)

    def _tell_failure(self, what: str, reason: str) -> None:
        count = self._failures.count(reason, asyncio.get_running_loop().time())
        if count:
            logger.warning(what, extra=log.fields(error=reason, times=count))

    def _tell_expiry(self) -> None:
        """Warn of each certificate that ends soon, or has ended, once a day."""
        for name, left in self._left().items():
            if left > WARN_DAYS * DAY:
                continue
            what = "certificate expires soon" if left > 0 else "certificate has expired"
            if self._expiry.count(f"{name}: {what}", asyncio.get_running_loop().time()):
                extra = log.fields(certificate=name, days=_days(left), folder=str(self._provider.folder))
                logger.log(log.WARNING if left > 0 else log.ERROR, what, extra=extra)

    def _left(self) -> dict[str, float]:
        """Seconds until each certificate ends; below 0 where it has."""
        ends = self.current.ends if self.current is not None else {}
        return {name: end - self._wall() for name, end in sorted(ends.items())}

    async def _pause(self) -> bool:
        """Wait for the time of the next look; returns whether somebody asked for it."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._asked.wait(), LOOK_SECONDS)
        asked = self._asked.is_set()
        self._asked.clear()
        return asked

    async def _waiting(self, work: Callable[[], Any]) -> Any:
        """Do what may wait for a disk; expiry goes on being told meanwhile."""
        task = asyncio.ensure_future(self._detached(work, "certificates"))
        try:
            while not (await asyncio.wait([task], timeout=HANG_SECONDS))[0]:
                self._hanging = f"{self._provider.folder} does not answer"
                self._tell_failure("certificates cannot be looked at", self._hanging)
                self._tell_expiry()
            return task.result()
        finally:
            self._hanging = ""
            task.cancel()


def _days(seconds: float) -> float:
    return round(seconds / DAY, 1)
