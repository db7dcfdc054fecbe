"""A collection of the Kubernetes API, kept up with for ever: list, watch from there, list again.

    LISTING ──all pages──▶ WATCHING ──it ends, breaks, or the server is busy──▶ WATCHING, from the last version
       ▲  ▲                   │  │
       │  └──too old, failed──┘  └──not allowed──▶ POLLING: a list each interval; the watch again
       └──delay over── a list failed               at last each 10 minutes

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

from msgspec import MsgspecError, Raw
from msgspec.json import Decoder

from relay import log, objects
from relay.backoff import Backoff
from relay.failures import REPEAT_AFTER, FailureLog
from relay.kube_api import Api, ApiError, Refused, Resource, Unreachable

logger = log.logger(__name__)

# Pages are asked for in numbers of objects that come to about this. Measured with 11,000 pods and 2,000
# services: a relay grows by 8.8-11.4 MiB with 1 MiB, by 8.1-9.3 with 512 KiB, which takes no longer; by
# 8.4-9.8 with 256 KiB and 7.9-8.2 with 128, which takes up to twice as long.
PAGE_BYTES = 512 << 10
PAGE_FIRST = 100
PAGE_MOST = 500  # what client-go asks for
WATCH_AGAIN = 600.0  # seconds that polling goes on at most before the watch is tried again
# An API server that has just started refuses everything for a moment, until it has read its roles.
DOUBT = 2.0  # seconds before a refusal is believed
SOON = 10.0  # seconds; the version of a list that is too old sooner than that is a failure
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
        target: Target[_Item],
        *,
        purpose: str,
        poll_seconds: float,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """What to follow, and whom to tell.

        Args:
            kind: the objects' class.
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
        self._page_size = PAGE_FIRST
        self._backoff = Backoff(draw=draw)
        self._failures = FailureLog()
        self._failing = False
        self._healthy: float | None = None  # since when the server has answered without a failure
        self._listed = 0.0  # when the last list was finished
        self._gone = -REPEAT_AFTER  # when a version was too old the last time
        self._refused: dict[str, float] = {}  # by verb: since when a right has been missing
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
            page = objects.page(body)
            items = page.items or ()
            for item in items:
                seen.add(self._put(item).key)
            if items:
                self._page_size = max(1, min(PAGE_MOST, PAGE_BYTES * len(items) // len(body)))
            continuation = page.metadata.continuation
            if not continuation:
                break
        self._target.keep(seen)
        self._version = page.metadata.resource_version
        self.objects = len(seen)
        self.lists += 1
        self._listed = asyncio.get_running_loop().time()
        self._granted("list")

    async def _follow(self) -> None:
        """Watch from the last version on; returns when a new list is due."""
        while True:
            try:
                await self._watch()
            except Refused as error:
                if error.forbidden:
                    await self._do_without(error)
                    return
                if error.gone and asyncio.get_running_loop().time() - self._listed >= SOON:
                    return  # after an outage, say: it takes a new list, that is all
                await self._wait("watch", error)
                if not (error.unauthorized or error.busy):
                    return
            except Unreachable as error:
                # The server may just have been replaced by another: go on from where this one was.
                await self._wait("watch", error)
            except MsgspecError as error:
                await self._wait("watch", error)
                return

    async def _watch(self) -> None:
        """One watch, to its end."""
        self.watches += 1
        clock = asyncio.get_running_loop().time
        begin = clock()
        events = 0
        async with aclosing(self._api.watch(self._resource, self._version)) as lines:
            async for line in lines:
                if line.strip():
                    self._take(objects.watch_event(line))
                    events += 1
                self.mode = Mode.WATCHING
                self._granted("watch")
        lasted = clock() - begin
        if lasted < SHORT_WATCH:
            if not events:
                raise Unreachable("the watch ended at once, without a word")
            await asyncio.sleep(SHORT_WATCH - lasted)

    def _take(self, event: objects.WatchEvent) -> None:
        """An event of a watch."""
        if event.type == "ERROR":
            status = objects.status(event.object)
            raise Refused(status.code, status.reason, " ".join((status.message or "").split()))
        if event.type in ("ADDED", "MODIFIED"):
            meta = self._put(event.object)
            self.objects += event.type == "ADDED"
        else:
            meta = objects.any_object(event.object).metadata
            if event.type == "DELETED":
                self._target.drop(meta.key)
                self.objects -= 1
        self._version = meta.resource_version or self._version

    def _put(self, encoded: Raw) -> objects.ObjectMeta:
        """Tell the target of an object; returns its metadata. One that cannot be read stays what it was."""
        try:
            item = self._item(encoded)
        except MsgspecError as error:
            meta = objects.any_object(encoded).metadata
            if count := self._failures.count(f"{meta.key}: {error}", asyncio.get_running_loop().time()):
                what = f"{self._purpose} cannot read one of the {self._resource}"
                logger.warning(what, extra=self._fields(object=meta.key, error=str(error), times=count))
            return meta
        self._target.put(item)
        return item.metadata

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
        now = asyncio.get_running_loop().time()
        healthy = 0.0 if self._healthy is None else now - self._healthy
        self._healthy = None
        self._backoff.was_healthy(healthy)
        delay = self._backoff.delay()
        what = f"{self._purpose} cannot {verb} {self._resource}"
        reason = str(error)
        worth_a_line = True
        if isinstance(error, Refused):
            delay += error.retry_after
            if error.forbidden:
                what = f"{self._purpose} may not {verb} {self._resource}: grant the verb {verb}"
                worth_a_line = self._refused_for(verb) >= DOUBT
            elif error.gone:
                # Once in a while a list takes too long, or its version is too old at once.
                worth_a_line = now - self._gone < REPEAT_AFTER
                self._gone = now
                reason = f"{verb}: too old"  # what the server says has versions in it, and differs each time
        if worth_a_line and (count := self._failures.count(reason, now)):
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
        if self._healthy is None:
            self._healthy = asyncio.get_running_loop().time()
        self._refused.pop(verb, None)
        if self._failing:
            logger.info("Kubernetes answers again", extra=self._fields(purpose=self._purpose))
        self._failing = False
        self.last_error = ""

    def _fields(self, **values: Any) -> dict[str, Any]:
        return log.fields(resource=self._resource.name, **values)
