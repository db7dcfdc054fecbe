"""relay.cluster: three collections are followed, apart from each other; settings change what is followed."""

import asyncio
import gc
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest
from peers import kube_http
from peers.kube_http import Configuration, Request, Server, line, page, pod, status
from unit.test_claims import Nodes

from relay import cluster as cluster_module
from relay import kube_config, names, reflect
from relay.claims import Claims
from relay.cluster import Cluster, Wanted
from relay.kube_config import Loaded, Source

SOURCE = Source("/somewhere", "kubeconfig")
WANTED = Wanted(SOURCE, "", "kubearmor-app=kubearmor", 32767)
WAIT = 30.0

SERVICE = {"metadata": {"name": "shop", "namespace": "default"}, "spec": {"clusterIP": "10.96.0.1"}}


class Engine:
    def __init__(self) -> None:
        self.names: dict[bytes, str] = {}
        self.changed = asyncio.Event()

    def set_names(self, names: Mapping[bytes, str]) -> None:
        self.names = dict(names)
        self.changed.set()

    async def named(self, *expected: str) -> None:
        async with asyncio.timeout(WAIT):
            while sorted(self.names.values()) != sorted(expected):
                self.changed.clear()
                await self.changed.wait()


class World:
    def __init__(self, *servers: Server) -> None:
        self.servers = servers
        self.engine = Engine()
        self.nodes = Nodes()
        self.failures: list[BaseException] = []
        self.failed = asyncio.Event()
        self.loads = 0
        loop = asyncio.get_running_loop()
        self.cluster = Cluster(Claims(self.nodes, lambda where: False), self.engine, loop, self._fail)

    def _fail(self, error: BaseException) -> None:
        self.failures.append(error)
        self.failed.set()

    async def load(self, source: Source) -> Loaded:
        self.loads += 1
        server = self.servers[0] if source == SOURCE else self.servers[1]
        return Configuration(server.host).token(f"token-{self.loads}").loaded()

    def hosts(self) -> list[str]:
        return sorted(where.host for where in self.nodes.live.values())


def what(request: Request) -> str:
    """Of the relay's three collections, and how."""
    kind = request.path.removeprefix("/api/v1/") + ("?" if "labelSelector" in request.query else "")
    return f"{'watch' if request.watches else 'list'} {kind}"


async def requests(server: Server, count: int) -> dict[str, Request]:
    found = [await server.next() for _ in range(count)]
    return {what(request): request for request in found}


async def listed(server: Server, *nodes: dict[str, Any]) -> dict[str, Request]:
    """Answer the three lists, and return the three watches, begun."""
    lists = await requests(server, 3)
    lists["list pods?"].answer(page(*nodes))
    lists["list pods"].answer(page(pod("web", "10.1.0.1"), *nodes))
    lists["list services"].answer(page(SERVICE))
    return {name: request.begin() for name, request in (await requests(server, 3)).items()}


def run(monkeypatch: pytest.MonkeyPatch, work: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    """Two servers, and a cluster that follows the first; at the end nothing is left."""
    monkeypatch.setattr(names, "SWAP_DELAY", 0.0)
    monkeypatch.setattr(reflect, "SHORT_WATCH", 0.0)

    async def main() -> None:
        async with kube_http.serve() as one, kube_http.serve() as two:
            world = World(one, two)
            monkeypatch.setattr(kube_config, "load", world.load)
            await work(world)
            await world.cluster.stop()
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    gc.collect()


def test_pods_become_nodes_and_names(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(world: World) -> None:
        assert world.cluster.describe() == {}
        world.cluster.follow(WANTED)
        world.cluster.follow(WANTED)
        watches = await listed(world.servers[0], pod("one", "10.0.0.1"))
        assert world.hosts() == ["10.0.0.1"]
        await world.engine.named("pod/default/web", "pod/default/one", "svc/default/shop")
        told = world.cluster.describe()
        assert (told["source"], told["names"]) == ("kubeconfig /somewhere", 3)
        assert told.keys() == {"source", "names", "pods", "enrichment_pods", "enrichment_services"}
        await watches["watch services"].event("DELETED", SERVICE)
        await world.engine.named("pod/default/web", "pod/default/one")

    run(monkeypatch, work)


def test_a_collection_that_is_refused_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(world: World) -> None:
        world.cluster.follow(WANTED)
        lists = await requests(world.servers[0], 3)
        lists["list pods?"].answer(page(pod("one", "10.0.0.1")))
        lists["list pods"].answer(status(403), 403)
        lists["list services"].answer(page(SERVICE))
        await world.engine.named("svc/default/shop")
        assert world.hosts() == ["10.0.0.1"]

    run(monkeypatch, work)


def test_other_pods_may_be_wanted_while_the_names_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is still there afterwards stays connected."""

    async def work(world: World) -> None:
        server = world.servers[0]
        world.cluster.follow(WANTED)
        watches = await listed(server, pod("one", "10.0.0.1"), pod("two", "10.0.0.2"))
        world.cluster.follow(WANTED._replace(selector="app=other", namespace="security"))
        await watches["watch pods?"].closed()
        request = await server.next()
        assert request.path == "/api/v1/namespaces/security/pods"
        assert request.query["labelSelector"] == "app=other"
        assert world.hosts() == ["10.0.0.1", "10.0.0.2"]
        before = set(world.nodes.live.items())
        request.answer(page(pod("one", "10.0.0.1")))
        (await server.next()).begin()
        assert world.hosts() == ["10.0.0.1"]
        assert set(world.nodes.live.items()) <= before
        await watches["watch pods"].event("DELETED", pod("web"))
        await world.engine.named("pod/default/one", "pod/default/two", "svc/default/shop")
        assert world.loads == 1

    run(monkeypatch, work)


def test_another_cluster_may_be_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(world: World) -> None:
        world.cluster.follow(WANTED)
        watches = await listed(world.servers[0], pod("one", "10.0.0.1"))
        await world.engine.named("pod/default/web", "pod/default/one", "svc/default/shop")
        world.cluster.follow(WANTED._replace(source=Source("/elsewhere", "kubeconfig")))
        for watch in watches.values():
            await watch.closed()
        assert world.hosts() == ["10.0.0.1"], "until it is known what is there now"
        lists = await requests(world.servers[1], 3)
        lists["list pods?"].answer(page(pod("three", "10.0.0.3")))
        lists["list pods"].answer(page(pod("three", "10.0.0.3")))
        lists["list services"].answer(page())
        await world.engine.named("pod/default/three")
        assert world.hosts() == ["10.0.0.3"]
        await world.servers[0].without_connections()

    run(monkeypatch, work)


def test_credentials_can_be_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(world: World) -> None:
        world.cluster.refresh()  # nothing is followed yet
        world.cluster.follow(WANTED)
        watches = await listed(world.servers[0])
        world.cluster.refresh()
        await watches["watch pods"].send(line("ADDED", pod("new", "10.1.0.2")))
        watches["watch pods"].end()
        request = await world.servers[0].next()
        assert request.headers["authorization"] == "Bearer token-2"
        await world.engine.named("pod/default/web", "pod/default/new", "svc/default/shop")

    run(monkeypatch, work)


def test_a_task_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """That ends the process: no half-dead relay."""

    async def work(world: World) -> None:
        def defect(*arguments: Any, **keywords: Any) -> None:
            raise RuntimeError("a defect")

        monkeypatch.setattr(world.nodes, "add", defect)
        world.cluster.follow(WANTED)
        (await requests(world.servers[0], 3))["list pods?"].answer(page(pod("one", "10.0.0.1")))
        async with asyncio.timeout(WAIT):
            await world.failed.wait()
        assert [str(error) for error in world.failures] == ["a defect"]

    run(monkeypatch, work)


@pytest.mark.parametrize("state", ["not begun", "loading", "listing", "watching", "waiting"])
def test_the_end_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    """`run` sees to that: no task, no connection, no warning."""

    async def work(world: World) -> None:
        if state == "not begun":
            return
        if state == "loading":
            monkeypatch.setattr(kube_config, "load", lambda source: asyncio.Event().wait())
        world.cluster.follow(WANTED)
        if state == "watching":
            await listed(world.servers[0])
        elif state == "listing":
            await requests(world.servers[0], 3)
        elif state == "waiting":
            for request in (await requests(world.servers[0], 3)).values():
                request.answer(status(500), 500)
        for _ in range(10):  # turns of the loop, for the tasks to get there
            await asyncio.sleep(0)
        if state in ("watching", "listing"):
            world.cluster.follow(WANTED._replace(port=7101))
            world.cluster.follow(WANTED._replace(source=Source("/elsewhere", "kubeconfig")))

    run(monkeypatch, work)


def test_discovery_polls_more_often_than_enrichment() -> None:
    assert cluster_module.DISCOVERY_POLL < cluster_module.ENRICHMENT_POLL
