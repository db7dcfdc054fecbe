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
from relay.discovery import Discovery
from relay.kube_api import Api, Resource
from relay.names import Clock, Names, PodNames, ServiceNames, Table
from relay.objects import Pod, PodList, Service, ServiceList
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
        self._retiring: set[asyncio.Task[None]] = set()

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
        return asyncio.gather(*self._retiring)

    def _discover(self, api: Api, wanted: Wanted) -> None:
        resource = Resource("pods", wanted.namespace, wanted.selector)
        target = Discovery(self._claims, wanted.port)
        pods = Reflector(api, resource, Pod, PodList, target, purpose="discovery", poll_seconds=DISCOVERY_POLL)
        self._start("pods", pods)

    def _enrich(self, api: Api) -> None:
        purpose, seconds = "enrichment", ENRICHMENT_POLL
        pods = PodNames(self._names)
        self._start(
            "enrichment_pods",
            Reflector(api, Resource("pods"), Pod, PodList, pods, purpose=purpose, poll_seconds=seconds),
        )
        services = ServiceNames(self._names)
        self._start(
            "enrichment_services",
            Reflector(api, Resource("services"), Service, ServiceList, services, purpose=purpose, poll_seconds=seconds),
        )

    def _start(self, name: str, reflector: Reflector[Any]) -> None:
        """Run a reflector in the place of the one that had its name."""
        if name in self._tasks:
            self._tasks.pop(name).cancel()
        self._reflectors[name] = reflector
        task = self._tasks[name] = asyncio.get_running_loop().create_task(reflector.run(), name=name)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    def _retire(self) -> None:
        """End all tasks, and then let go of their connections."""

        async def retire(api: Api | None, tasks: list[asyncio.Task[None]]) -> None:
            await asyncio.gather(*tasks, return_exceptions=True)
            if api is not None:
                await api.close()

        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        retiring = asyncio.get_running_loop().create_task(retire(self._api, tasks))
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)
        self._api = None
