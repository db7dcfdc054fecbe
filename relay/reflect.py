"""A collection of the Kubernetes API, kept up with for ever: list, watch from there, list again.

    LISTING ──all pages──▶ WATCHING ──the server ends the watch──▶ WATCHING, from the last version
       ▲  ▲                   │  │
       │  └──too old, refused─┘  └──not allowed──▶ POLLING: a list each interval; the watch again
       └──delay over── any failure                 at last each 10 minutes

What the lists and the watches say goes to a target. A failure never takes anything away from it:
it is told of deletions, and of what a whole list no longer shows.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import aclosing
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar

from msgspec import MsgspecError, Struct
from msgspec.json import Decoder

from relay import log, objects
from relay.backoff import Backoff
from relay.failures import FailureLog
from relay.kube_api import Api, ApiError, Refused, Resource, Unreachable

logger = log.logger(__name__)

PAGE_BYTES = 1 << 20  # pages are asked for in numbers of objects that come to about this
PAGE_FIRST = 100
PAGE_MOST = 500  # what client-go asks for
WATCH_AGAIN = 600.0  # seconds that polling goes on at most before the watch is tried again
# An API server that has just started refuses everything for a moment, until it has read its roles.
DOUBT = 2.0  # seconds before a refusal is believed
SHORT_WATCH = 1.0  # seconds; one that ends sooner without a word counts as a failure

_Item = TypeVar("_Item", bound="Item")
_Item_contra = TypeVar("_Item_contra", bound="Item", contravariant=True)


class Item(Protocol):
    """An object as reflect needs it."""

    metadata: objects.ObjectMeta


class Target(Protocol[_Item_contra]):
    """Who is told what the collection holds."""

    def put(self, item: _Item_contra) -> None:
        """An object is there, new or changed."""

    def drop(self, key: str) -> None:
        """An object is gone; `key` may be one that was never told of."""

    def keep(self, keys: set[str]) -> None:
        """A whole list has been told of: anything else is gone."""


class Mode(Enum):
    """How the collection is kept up with."""

    LISTING = "list"
    WATCHING = "watch"
    POLLING = "poll"
    DOWN = "down"  # waiting after a failure


class Reflector(Generic[_Item]):
    """Keeps a target up with one collection."""

    def __init__(
        self,
        api: Api,
        resource: Resource,
        kind: type[_Item],
        page: type[Struct],
        target: Target[_Item],
        *,
        purpose: str,
        poll_seconds: float,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """What to follow, and whom to tell.

        Args:
            kind: the objects' class; `page` that of a list of them.
            purpose: what it is for, in log lines: "discovery".
            poll_seconds: between two lists where watching is not allowed.
            draw: gives the jitter: numbers from 0 to 1.
        """
        self.mode = Mode.DOWN
        self.objects = 0
        self.lists = 0
        self.watches = 0
        self.last_error = ""
        self._api = api
        self._resource = resource
        self._target = target
        self._purpose = purpose
        self._poll_seconds = poll_seconds
        self._draw = draw
        self._item = Decoder(kind).decode
        self._page: Callable[[bytes], Any] = Decoder(page).decode
        self._page_size = PAGE_FIRST
        self._backoff = Backoff(draw=draw)
        self._failures = FailureLog()
        self._failing = False
        self._refused: dict[str, float] = {}  # by verb: since when a right has been missing
        self._listed = ""  # the version of the last list
        self._version = ""  # the newest that the target has been told of

    def describe(self) -> dict[str, Any]:
        """What the counters show of it."""
        return {
            "mode": self.mode.value,
            "objects": self.objects,
            "lists": self.lists,
            "watches": self.watches,
            "last_error": self.last_error,
        }

    async def run(self) -> None:
        """List, then follow; after a failure wait, and begin again. Ends by being cancelled."""
        while True:
            try:
                await self._list()
                await self._follow()
            except (ApiError, MsgspecError) as error:
                await self._wait("list", error)

    async def _list(self) -> None:
        """Tell the target of everything that is there."""
        self.mode = Mode.LISTING
        seen: set[str] = set()
        continuation = ""
        while True:
            body = await self._api.page(self._resource, continuation, self._page_size)
            page = self._page(body)
            items = page.items or ()
            for item in items:
                self._target.put(item)
                seen.add(item.metadata.key)
            if items:
                self._page_size = max(1, min(PAGE_MOST, PAGE_BYTES * len(items) // len(body)))
            continuation = page.metadata.continuation
            if not continuation:
                break
        self._target.keep(seen)
        self._listed = self._version = page.metadata.resource_version
        self.objects = len(seen)
        self.lists += 1
        self._granted("list")

    async def _follow(self) -> None:
        """Watch from the last version on; returns when a new list is due."""
        while True:
            try:
                await self._watch()
            except Refused as error:
                if error.forbidden:
                    await self._do_without(error)
                elif error.gone and self._version != self._listed:
                    logger.debug("the watch is too old: listing again", extra=self._fields())
                else:
                    await self._wait("watch", error)
                return
            except Unreachable as error:
                # The server may just have been replaced by another: go on from where this one was.
                await self._wait("watch", error)

    async def _watch(self) -> None:
        """One watch, to its end."""
        self.mode = Mode.WATCHING
        self.watches += 1
        clock = asyncio.get_running_loop().time
        begin = clock()
        events = 0
        async with aclosing(self._api.watch(self._resource, self._version)) as lines:
            async for line in lines:
                if line.strip():
                    self._take(objects.watch_event(line))
                    events += 1
        if not events and clock() - begin < SHORT_WATCH:
            raise Unreachable("the watch ended at once, without a word")
        self._granted("watch")
        self._backoff.was_healthy(clock() - begin)

    def _take(self, event: objects.WatchEvent) -> None:
        """An event of a watch."""
        if event.type == "ERROR":
            status = objects.status(event.object)
            raise Refused(status.code, status.reason, status.message or "")
        meta = objects.any_object(event.object).metadata
        if event.type in ("ADDED", "MODIFIED"):
            self._target.put(self._item(event.object))
            self.objects += event.type == "ADDED"
        elif event.type == "DELETED":
            self._target.drop(meta.key)
            self.objects -= 1
        self._version = meta.resource_version or self._version
        self._granted("watch")

    async def _do_without(self, why: Refused) -> None:
        """Watching is not allowed: poll; returns when the watch is worth another try, which is later each time."""
        clock = asyncio.get_running_loop().time
        refused = self._refused_for("watch")
        if refused < DOUBT:
            await self._wait("watch", why)
            return
        if self._failures.count(str(why), clock()):
            what = (
                f"{self._purpose} may not watch {self._resource}: polling; grant the verb watch to see changes at once"
            )
            logger.warning(what, extra=self._fields(verb="watch", error=str(why), interval=self._poll_seconds))
        until = clock() + min(WATCH_AGAIN, refused)
        while clock() < until:
            self.mode = Mode.POLLING
            await asyncio.sleep(self._poll_seconds * (0.9 + 0.2 * self._draw()))
            await self._list()

    async def _wait(self, verb: str, error: Exception) -> None:
        """Say what failed, unless it was said lately, and wait before the next try."""
        self.mode = Mode.DOWN
        self.last_error = str(error)
        delay = self._backoff.delay()
        what = f"{self._purpose} cannot {verb} {self._resource}"
        certain = True
        if isinstance(error, Refused):
            delay = max(delay, error.retry_after)
            if error.forbidden:
                what = f"{self._purpose} may not {verb} {self._resource}: grant the verb {verb}"
                certain = self._refused_for(verb) >= DOUBT
        if certain and (count := self._failures.count(str(error), asyncio.get_running_loop().time())):
            self._failing = True
            extra = self._fields(verb=verb, error=str(error), times=count, retry_in=round(delay, 3))
            logger.warning(what, extra=extra)
        await asyncio.sleep(delay)

    def _refused_for(self, verb: str) -> float:
        """Seconds since a right was first refused, without having been granted since."""
        now = asyncio.get_running_loop().time()
        return now - self._refused.setdefault(verb, now)

    def _granted(self, verb: str) -> None:
        """The server has answered."""
        self._refused.pop(verb, None)
        if self._failing:
            logger.info("Kubernetes answers again", extra=self._fields(purpose=self._purpose))
        self._failing = False
        self.last_error = ""

    def _fields(self, **values: Any) -> dict[str, Any]:
        return log.fields(resource=self._resource.name, **values)
