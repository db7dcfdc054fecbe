"""Logs of connections name the pod or service at the other end: the relay against a real Kubernetes API server."""

import json
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Self

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from peers import events
from peers.churn import Churn
from peers.client import Subscriber, channel
from peers.cluster import Cluster, Object, token_of
from peers.command import PROGRAM, Command, free_port
from peers.discovered import PATIENCE, PAUSE, ClusterRelay, streaming
from peers.door import Door
from peers.loopback import Node

from relay import kubearmor_pb2 as pb

LOGS = events.LOGS
HERE = "127.0.7.1"


class Observed:
    """A relay with one node and one subscriber: `name` is what an event of the node comes out with."""

    def __init__(self, node: Node, relay: ClusterRelay) -> None:
        self.node = node
        self.relay = relay
        self._over = channel(relay.port)
        self._subscriber = Subscriber(self._over, LOGS).ready()
        self._number = 0

    def name(self, address: str) -> str:
        """The text behind remotehost= of a connection to that address; "" where there is none."""
        self._number += 1
        sent = connection(address)
        self.node.tell(self._number, **sent)
        (came,) = self._subscriber.take(1)
        log = pb.Log.FromString(came)
        assert (log.UpdatedTime, log.Data) == (f"{self._number:020d}", sent["Data"])
        assert log.Resource.startswith(sent["Resource"])
        rest = log.Resource.removeprefix(sent["Resource"])
        assert not rest or rest.startswith(" remotehost="), rest
        return rest.removeprefix(" remotehost=")

    def until_named(self, address: str, name: str) -> None:
        """Wait until connections to an address are named so."""
        end = time.monotonic() + PATIENCE
        while (found := self.name(address)) != name:
            assert time.monotonic() < end, f"{address} is {found!r}, not {name!r}: {self.relay.counters()}"
            time.sleep(PAUSE)

    def close(self) -> None:
        self._subscriber.cancel()
        self._over.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connection(address: str) -> dict[str, str]:
    """The fields of a log of a TCP connection to that address."""
    return {
        "Data": "syscall=SYS_CONNECT kprobe=tcp_connect domain=AF_INET",
        "Resource": f"remoteip={address} port=443 protocol=TCP",
    }


@pytest.fixture
def node(cluster: Cluster) -> Iterator[Node]:
    """The one node of the cluster."""
    with Node(HERE, free_port()) as node:
        cluster.node("kubearmor-1", HERE)
        yield node


@pytest.fixture
def observed(cluster: Cluster, node: Node) -> Iterator[Observed]:
    """A relay that has read the cluster."""
    with ClusterRelay(cluster.kubeconfig(), node.port) as relay:
        relay.until_streaming(HERE)
        relay.until_listed()
        with Observed(node, relay) as observed:
            yield observed
        assert relay.end() == 0


def marked(cluster: Cluster, observed: Observed, mark: int) -> None:
    """Wait until all changes of pods up to now have taken effect: those of one kind come in their order."""
    cluster.pod(f"mark-{mark}", f"10.77.0.{mark}")
    observed.until_named(f"10.77.0.{mark}", f"pod/default/mark-{mark}")


# --- who has a name -----------------------------------------------------------------------


def test_pods_and_services_get_names(cluster: Cluster, observed: Observed) -> None:
    """Those of all namespaces, as soon as they are there, and as long."""
    cluster.pod("web-0", "10.1.0.1", namespace="web")
    observed.until_named("10.1.0.1", "pod/web/web-0")
    (address,) = cluster.service("front", "shop")
    observed.until_named(address, "svc/shop/front")
    assert observed.name("10.96.0.1") == "svc/default/kubernetes"
    assert observed.name("10.1.0.99") == ""
    cluster.set_status("web-0", "10.1.0.2", namespace="web")
    observed.until_named("10.1.0.2", "pod/web/web-0")
    assert observed.name("10.1.0.1") == ""
    cluster.delete_pod("web-0", "web")
    observed.until_named("10.1.0.2", "")
    cluster.delete_service("front", "shop")
    observed.until_named(address, "")


def test_what_is_there_at_the_start_has_its_name(cluster: Cluster, node: Node) -> None:
    cluster.pod("web-0", "10.1.0.1", "fd00::1:1", namespace="web")
    both = cluster.service("both", "shop", dual=True)
    assert len(both) == 2
    with ClusterRelay(cluster.kubeconfig(), node.port) as relay:
        relay.until_streaming(HERE)
        with Observed(node, relay) as observed:
            for address in both:
                observed.until_named(address, "svc/shop/both")
            for spelling in ("10.1.0.1", "::ffff:10.1.0.1", "::FFFF:a01:1", "fd00::1:1", "FD00:0:0:0:0:0:1:1"):
                observed.until_named(spelling, "pod/web/web-0")
        assert relay.end() == 0


def test_objects_of_the_largest_size(cluster: Cluster, observed: Observed) -> None:
    """A quarter of a MiB of annotations is what the API server takes: one line of a watch, one item of a page."""
    cluster.pod("large", "10.1.0.1", note="x" * 255 * 1024)
    observed.until_named("10.1.0.1", "pod/default/large")
    with ClusterRelay(cluster.kubeconfig(), observed.node.port) as relay:
        relay.until_streaming(HERE)
        with Observed(observed.node, relay) as another:
            another.until_named("10.1.0.1", "pod/default/large")
        assert relay.end() == 0


def test_headless_services_are_nobody(cluster: Cluster, observed: Observed) -> None:
    assert cluster.service("headless", "shop", headless=True) == ["None"]
    (address,) = cluster.service("front", "shop")
    observed.until_named(address, "svc/shop/front")
    names = observed.relay.counters()["kubernetes"]["names"]
    assert names == 3, "the node, the API server and front"
    assert observed.name("None") == ""


def test_events_that_are_no_connections_stay_as_they_are(cluster: Cluster, observed: Observed) -> None:
    cluster.pod("web-0", "10.1.0.1", namespace="web")
    observed.until_named("10.1.0.1", "pod/web/web-0")
    before = observed.relay.counters()["feeds"]["logs"]["enriched"]
    with channel(observed.relay.port) as over, Subscriber(over, LOGS).ready() as subscriber:
        sent = [
            observed.node.tell(1, Data="syscall=SYS_OPENAT", Resource="remoteip=10.1.0.1 port=443"),
            observed.node.tell(2, Data="kprobe=tcp_connect", Resource="10.1.0.1 port=443"),
            observed.node.tell(3, Data="kprobe=tcp_connect", Resource="remoteip=10.1.0.9"),
        ]
        assert subscriber.take(3) == sent
    assert observed.relay.counters()["feeds"]["logs"]["enriched"] == before


# --- one address after another ------------------------------------------------------------


def test_an_address_that_moves_to_a_new_pod(cluster: Cluster, observed: Observed) -> None:
    """The old pod is deleted after the new one got its address: that takes nothing from the new one."""
    cluster.pod("old", "10.1.0.1")
    observed.until_named("10.1.0.1", "pod/default/old")
    cluster.wait_next_second()  # times of creation are whole seconds, and the newer pod is the owner
    cluster.pod("new", "10.1.0.1")
    observed.until_named("10.1.0.1", "pod/default/new")
    cluster.delete_pod("old")
    marked(cluster, observed, 1)
    assert observed.name("10.1.0.1") == "pod/default/new"
    cluster.delete_pod("new")
    observed.until_named("10.1.0.1", "")


def test_pods_with_one_address_after_the_other(cluster: Cluster, observed: Observed) -> None:
    """As addresses go round in a node's range: a finished pod keeps its address on paper for days."""
    for number in range(1, 6):
        cluster.pod(f"job-{number}", "10.1.0.1")
        observed.until_named("10.1.0.1", f"pod/default/job-{number}")
        cluster.set_status(f"job-{number}", "10.1.0.1", phase=("Succeeded", "Failed")[number % 2])
        observed.until_named("10.1.0.1", "")
    cluster.pod("last", "10.1.0.1")
    observed.until_named("10.1.0.1", "pod/default/last")
    for number in range(1, 6):
        cluster.delete_pod(f"job-{number}")
    marked(cluster, observed, 1)
    assert observed.name("10.1.0.1") == "pod/default/last"


def test_a_pod_on_its_hosts_network_hides_nobody(cluster: Cluster, observed: Observed) -> None:
    """And of several of those it is always the same one, whatever order they came in."""
    cluster.pod("agent-b", "10.1.0.1", host_network=True)
    observed.until_named("10.1.0.1", "pod/default/agent-b")
    cluster.pod("web-0", "10.1.0.1", namespace="web")
    observed.until_named("10.1.0.1", "pod/web/web-0")
    cluster.wait_next_second()
    cluster.pod("agent-a", "10.1.0.1", host_network=True)
    marked(cluster, observed, 1)
    assert observed.name("10.1.0.1") == "pod/web/web-0"
    cluster.delete_pod("web-0", "web")
    marked(cluster, observed, 2)
    stays = observed.name("10.1.0.1")
    assert stays in ("pod/default/agent-a", "pod/default/agent-b")
    with ClusterRelay(cluster.kubeconfig(), observed.node.port) as relay:
        relay.until_streaming(HERE)
        with Observed(observed.node, relay) as another:
            another.until_named("10.77.0.2", "pod/default/mark-2")
            assert another.name("10.1.0.1") == stays
        assert relay.end() == 0


@given(seed=st.integers(0, 2**32))
@settings(max_examples=3, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_names_do_not_depend_on_what_happened_before(cluster: Cluster, seed: int) -> None:
    """After changes at random, on a way that breaks at random, a relay says what one that has just begun says."""
    cluster.clear()
    addresses = [f"127.0.9.{number}" for number in range(1, 6)]  # relays will try to reach those with the label
    port = free_port()
    with Node(HERE, port) as node, Door(cluster.folder, cluster.port, watch_seconds=3) as door:
        old = ClusterRelay(cluster.kubeconfig("door", port=door.port), port, "-nodes", f"{HERE}:{port}")
        with old, Observed(node, old) as changed:
            old.until(lambda now: HERE in streaming(now), "the node")
            churn = Churn(cluster, door, addresses, random.Random(seed))
            for mark in (1, 2):
                churn.run(40)
                marked(cluster, changed, mark)
            told = {address: changed.name(address) for address in addresses}
        new = ClusterRelay(cluster.kubeconfig(), port, "-nodes", f"{HERE}:{port}")
        with new, Observed(node, new) as fresh:
            new.until(lambda now: HERE in streaming(now), "the node")
            fresh.until_named("10.77.0.2", "pod/default/mark-2")
            assert {address: fresh.name(address) for address in addresses} == told


# --- rights and failures ------------------------------------------------------------------


def test_without_the_right_to_list_services(cluster: Cluster, node: Node) -> None:
    """Discovery and the names of pods do without; the line says what to grant."""
    cluster.pod("web-0", "10.1.0.1", namespace="web")
    (address,) = cluster.service("front", "shop")
    configuration = cluster.kubeconfig("without-services", token=token_of("without-services"))
    with ClusterRelay(configuration, node.port) as relay:
        said = relay.warned("enrichment", "list", "services", "403")
        assert (said["verb"], said["resource"]) == ("list", "services")
        relay.until_streaming(HERE)
        with Observed(node, relay) as observed:
            observed.until_named("10.1.0.1", "pod/web/web-0")
            assert observed.name(address) == ""
            with cluster.granted("without-services", "relay"):
                observed.until_named(address, "svc/shop/front")
        assert relay.end() == 0


def test_without_the_right_to_list_pods(cluster: Cluster, node: Node) -> None:
    """Nodes of the flag are served, and services have names."""
    (address,) = cluster.service("front", "shop")
    configuration = cluster.kubeconfig("without-pods", token=token_of("without-pods"))
    with ClusterRelay(configuration, node.port, "-nodes", f"{HERE}:{node.port}") as relay:
        relay.warned("enrichment", "list", "pods", "403")
        relay.until_streaming(HERE)
        with Observed(node, relay) as observed:
            observed.until_named(address, "svc/shop/front")
        assert relay.end() == 0


def test_without_watch_names_are_read_once_in_a_while(cluster: Cluster, node: Node) -> None:
    cluster.pod("web-0", "10.1.0.1", namespace="web")
    (address,) = cluster.service("front", "shop")
    configuration = cluster.kubeconfig("without-watch", token=token_of("without-watch"))
    with ClusterRelay(configuration, node.port) as relay:
        for resource in ("pods", "services"):
            relay.warned("enrichment", "watch", resource)
        relay.until_streaming(HERE)
        with Observed(node, relay) as observed:
            observed.until_named("10.1.0.1", "pod/web/web-0")
            observed.until_named(address, "svc/shop/front")
        assert relay.end() == 0


def test_names_stay_while_the_api_server_is_away(cluster: Cluster, node: Node) -> None:
    """And what changed meanwhile is caught up."""
    for number in (1, 2):
        cluster.pod(f"web-{number}", f"10.1.0.{number}", namespace="web")
    with Door(cluster.folder, cluster.port) as door:
        configuration = cluster.kubeconfig("door", port=door.port)
        with ClusterRelay(configuration, node.port) as relay:
            relay.until_streaming(HERE)
            with Observed(node, relay) as observed:
                observed.until_named("10.1.0.1", "pod/web/web-1")
                observed.until_named("10.1.0.2", "pod/web/web-2")
                door.shut()
                relay.until(lambda now: now["kubernetes"]["enrichment_pods"]["mode"] == "down", "the failure")
                cluster.delete_pod("web-1", "web")
                cluster.set_status("web-2", "10.1.0.1", namespace="web")
                assert observed.name("10.1.0.1") == "pod/web/web-1"
                assert observed.name("10.1.0.2") == "pod/web/web-2"
                door.open()
                observed.until_named("10.1.0.1", "pod/web/web-2")
                assert observed.name("10.1.0.2") == ""
            assert relay.end() == 0


# --- as a user runs it --------------------------------------------------------------------


def test_simulated_nodes_through_the_relay_to_an_observer(cluster: Cluster) -> None:
    """Found in the cluster, enriched and printed, by the installed command alone; the relay is killed in between."""
    port = free_port()
    addresses = ["127.0.7.1", "127.0.7.2", "127.0.7.3"]
    cluster.pod("web-0", "10.1.0.1", namespace="web")
    (service,) = cluster.service("front", "shop")
    events_file = cluster.folder / "events.jsonl"
    lines = [json.dumps({"HostName": "n", **connection(address)}) for address in ("10.1.0.1", service, "10.1.0.9")]
    events_file.write_text("\n".join(lines) + "\n")
    expected = {"pod/web/web-0", "svc/shop/front", ""}
    simulated = [
        Command("simulate", "-bind", address, "-port", str(port), "-events", str(events_file), "-rate", "50")
        for address in addresses
    ]
    own = free_port()
    try:
        for command in simulated:
            assert "simulating" in str(command.printed())
        for number, address in enumerate(addresses):
            cluster.node(f"kubearmor-{number}", address)
        for end in (signal.SIGKILL, signal.SIGTERM):
            with ClusterRelay(cluster.kubeconfig(), port, port=own) as relay:
                relay.until_streaming(*addresses)
                relay.until(lambda now: now["kubernetes"]["names"] >= 5 and all_listed(now), "all names")
                relay.until(lambda now: now["feeds"]["logs"]["enriched"] > 0, "an enriched event")
                done = subprocess.run(
                    [str(PROGRAM), "observe", "logs", "-json", "-server", f"127.0.0.1:{own}", "-limit", "60"],
                    capture_output=True,
                    text=True,
                    timeout=PATIENCE,
                    check=True,
                )
                seen = [json.loads(line) for line in done.stdout.splitlines()]
                assert len(seen) == 60
                assert {log["Resource"].partition(" remotehost=")[2] for log in seen} == expected
                for log in seen:
                    name = log["Resource"].partition(" remotehost=")[2]
                    assert (name == "") == ("remoteip=10.1.0.9" in log["Resource"])
                relay.end(end)
    finally:
        for command in simulated:
            command.__exit__(None, None, None)


def all_listed(counters: Object) -> bool:
    return all(counters["kubernetes"][name]["lists"] for name in ("enrichment_pods", "enrichment_services"))
