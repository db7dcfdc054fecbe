"""The cluster: what is followed in Kubernetes while the relay runs, and for whom.

Three collections, each on its own, so that one that fails leaves the others alone: the pods of
KubeArmor (discovery), and all pods and all services (enrichment).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from relay import kube_config, log
from relay.claims import Claims
from relay.clock import Clock
from relay.discovery import Discovery
from relay.kube_api import Api, Resource
from relay.names import Names, PodNames, ServiceNames, Table
from relay.objects import Pod, Service
from relay.reflect import Reflector

logger = log.logger(__name__)

# Where watching is not allowed: a node that comes should be found soon, and the KubeArmor pods of a
# cluster are few; all pods and services are many, and a name that comes late is a small harm.
DISCOVERY_POLL = 10.0
ENRICHMENT_POLL = 60.0


class Wanted(NamedTuple):
    """What is to be followed, from the settings."""

    source: kube_config.Source
    namespace: str  # of the KubeArmor pods; all when empty
    selector: str  # of their labels
    port: int  # of the nodes


class Cluster:
    """A cluster being followed. Every method is called on the loop's thread."""

    def __init__(self, claims: Claims, engine: Table, clock: Clock, failed: Callable[[BaseException], None]) -> None:
        """`failed` is called with what a task has raised, which is a defect."""
        self._claims = claims
        self._failed = failed
        self._names = Names(engine, clock)
        self._wanted: Wanted | None = None
        self._api: Api | None = None
        self._reflectors: dict[str, Reflector[Any]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def follow(self, wanted: Wanted) -> None:
        """Begin to follow, or go on in another way: what is known stays until the new lists say otherwise."""
        before, self._wanted = self._wanted, wanted
        if before == wanted:
            return
        extra = log.fields(
            source=str(wanted.source), selector=wanted.selector, namespace=wanted.namespace or "all", port=wanted.port
        )
        logger.info("following Kubernetes", extra=extra)
        api = self._api
        if api is None or before is None or before.source != wanted.source:
            self._retire()
            api = self._api = Api(lambda: kube_config.load(wanted.source))
            self._enrich(api)
        self._discover(api, wanted)

    def refresh(self) -> None:
        """Read the configuration again, with the next request."""
        if self._api is not None:
            self._api.forget_credentials()

    def describe(self) -> dict[str, Any]:
        """What the counters show; nothing where no cluster is followed."""
        if self._wanted is None:
            return {}
        followed = {name: reflector.describe() for name, reflector in self._reflectors.items()}
        return {"source": str(self._wanted.source), **followed, "names": len(self._names)}

    def stop(self) -> asyncio.Future[Any]:
        """Follow nothing any more; the future is done when all connections are closed."""
        self._names.stop()
        self._retire()
        return asyncio.gather(*self._ending, return_exceptions=True)

    def _discover(self, api: Api, wanted: Wanted) -> None:
        resource = Resource("pods", wanted.namespace, wanted.selector)
        target = Discovery(self._claims, wanted.port)
        self._start("pods", Reflector(api, resource, Pod, target, purpose="discovery", poll_seconds=DISCOVERY_POLL))

    def _enrich(self, api: Api) -> None:
        purpose, seconds = "enrichment", ENRICHMENT_POLL
        pods = Reflector(api, Resource("pods"), Pod, PodNames(self._names), purpose=purpose, poll_seconds=seconds)
        self._start("enrichment_pods", pods)
        target = ServiceNames(self._names)
        services = Reflector(api, Resource("services"), Service, target, purpose=purpose, poll_seconds=seconds)
        self._start("enrichment_services", services)

    def _start(self, name: str, reflector: Reflector[Any]) -> None:
        """Run a reflector in the place of the one that had its name."""
        if name in self._tasks:
            self._end(self._tasks.pop(name))
        self._reflectors[name] = reflector
        task = self._tasks[name] = asyncio.get_running_loop().create_task(reflector.run(), name=name)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    def _end(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        self._keep(task)

    def _keep(self, task: asyncio.Task[None]) -> None:
        """Remember a task until it has ended."""
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _retire(self) -> None:
        """End all tasks, and then let go of their connections."""

        async def retire(api: Api, tasks: list[asyncio.Task[None]]) -> None:
            await asyncio.wait(tasks)
            await api.close()

        if self._api is not None:
            for task in self._tasks.values():
                self._end(task)
            self._keep(asyncio.get_running_loop().create_task(retire(self._api, list(self._ending))))
        self._tasks.clear()
        self._api = None
