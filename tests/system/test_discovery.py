"""Nodes are the KubeArmor pods of a cluster: the relay against a real Kubernetes API server."""

import contextlib
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from peers import events
from peers.churn import Churn
from peers.client import Subscriber, channel
from peers.cluster import LABELS, Cluster, Refused, in_pod, no_pods, token_of
from peers.command import HOST, free_port
from peers.discovered import ClusterRelay, hosts, node_at, streaming
from peers.door import Door
from peers.loopback import Node, nodes

LOGS = events.LOGS
A, B, C, D = (f"127.0.7.{number}" for number in range(1, 5))


@pytest.fixture
def port() -> int:
    """The port of all nodes."""
    return free_port()


@contextlib.contextmanager
def behind_door(
    cluster: Cluster, port: int, watch_seconds: int | None = None, **user: str
) -> Iterator[tuple[ClusterRelay, Door]]:
    """A relay that has a door between itself and the API server."""
    with (
        Door(cluster.folder, cluster.port, watch_seconds) as door,
        ClusterRelay(cluster.kubeconfig("door", port=door.port, **user), port) as relay,
    ):
        yield relay, door


# --- pods come and go ---------------------------------------------------------------------


def test_a_cluster_without_kubearmor(cluster: Cluster, port: int) -> None:
    """The relay serves, and says what it follows; pods without the label are nothing to it."""
    cluster.pod("somebody", "127.0.7.1")
    with ClusterRelay(cluster.kubeconfig(), port) as relay, channel(relay.port) as over:
        counters = relay.until_listed()
        assert counters["nodes"] == []
        assert counters["kubernetes"]["pods"]["objects"] == 0
        said = next(line for line in relay.logged("following Kubernetes"))
        assert (said["selector"], said["port"]) == ("kubearmor-app=kubearmor", port)
        with Subscriber(over, LOGS).ready():
            pass
        assert relay.end() == 0


def test_nodes_come_move_and_leave(cluster: Cluster, port: int) -> None:
    """The others stay connected all along."""
    with nodes(port, A, B, C, D) as at, ClusterRelay(cluster.kubeconfig(), port) as relay, channel(relay.port) as over:
        subscriber = Subscriber(over, LOGS).ready()
        for name, address in (("one", A), ("two", B), ("three", C)):
            cluster.node(name, address)
        relay.until_streaming(A, B, C)
        sent = [at[address].tell(number) for number, address in enumerate((A, B, C))]
        assert sorted(subscriber.take(3)) == sorted(sent)

        cluster.set_status("three", D, namespace="kubearmor")
        relay.until_streaming(A, B, D)
        at[C].wait_subscribers(0)
        last = at[D].tell(4)
        assert subscriber.take(1) == [last]

        cluster.delete_pod("one", "kubearmor")
        counters = relay.until_streaming(B, D)
        at[A].wait_subscribers(0)
        assert {node["reconnects"] for node in counters["nodes"]} == {0}
        assert counters["kubernetes"]["pods"]["lists"] == 1
        subscriber.cancel()
        assert relay.end() == 0


def test_nodes_that_are_there_already(cluster: Cluster, port: int) -> None:
    cluster.node("one", A)
    cluster.node("two", B)
    with nodes(port, A, B), ClusterRelay(cluster.kubeconfig(), port) as relay:
        counters = relay.until_streaming(A, B)
        assert counters["kubernetes"]["pods"]["objects"] == 2
        assert relay.end() == 0


def test_a_pod_is_a_node_while_it_has_an_address_and_runs(cluster: Cluster, port: int) -> None:
    with nodes(port, A, B), ClusterRelay(cluster.kubeconfig(), port) as relay:
        relay.until_listed()
        cluster.node("early")  # scheduled, without an address yet
        cluster.node("other", B)
        assert hosts(relay.until_streaming(B)) == [B]
        cluster.set_status("early", A, namespace="kubearmor", phase="Pending")
        relay.until_streaming(A, B)
        # Marked for deletion, it still has its grace period to send events in.
        cluster.delete_pod("early", "kubearmor", grace=30)
        cluster.set_status("other", B, namespace="kubearmor", phase="Succeeded")
        assert hosts(relay.until_streaming(A)) == [A]
        cluster.set_status("early", A, namespace="kubearmor", phase="Failed")
        relay.until_streaming()
        assert relay.end() == 0


def test_a_pod_that_loses_its_label_is_no_node(cluster: Cluster, port: int) -> None:
    """For a watch with a selector that is a deletion."""
    with nodes(port, A), ClusterRelay(cluster.kubeconfig(), port) as relay:
        cluster.node("one", A)
        relay.until_streaming(A)
        path = "/api/v1/namespaces/kubearmor/pods/one"
        change = {"metadata": {"labels": {"kubearmor-app": "other"}}}
        cluster.call("PATCH", path, change, "application/merge-patch+json")
        relay.until_streaming()
        cluster.call("PATCH", path, {"metadata": {"labels": LABELS}}, "application/merge-patch+json")
        relay.until_streaming(A)
        assert relay.end() == 0


def test_two_hundred_nodes_at_once(cluster: Cluster, port: int) -> None:
    addresses = [f"127.0.8.{number}" for number in range(1, 201)]
    with nodes(port, *addresses) as at, ClusterRelay(cluster.kubeconfig(), port) as relay, channel(relay.port) as over:
        subscriber = Subscriber(over, LOGS).ready()
        cluster.nodes(addresses)
        counters = relay.until_streaming(*addresses)
        assert {node["reconnects"] for node in counters["nodes"]} == {0}
        sent = [node.tell(number) for number, node in enumerate(at.values())]
        assert sorted(subscriber.take(200)) == sorted(sent)
        subscriber.cancel()
        cluster.clear()
        relay.until_streaming()
        assert relay.end() == 0


def test_two_pods_of_one_host_are_one_node(cluster: Cluster, port: int) -> None:
    """As in a rolling update of a daemon set with hostNetwork: the new pod is there before the old one has gone."""
    with nodes(port, A) as at, ClusterRelay(cluster.kubeconfig(), port) as relay, channel(relay.port) as over:
        subscriber = Subscriber(over, LOGS).ready()
        cluster.node("old", A)
        relay.until_streaming(A)
        cluster.node("new", A)
        relay.until(lambda now: now["kubernetes"]["pods"]["objects"] == 2, "the second pod")
        sent = at[A].tell(1)
        assert subscriber.take(1) == [sent]
        cluster.delete_pod("old", "kubearmor")
        counters = relay.until(lambda now: now["kubernetes"]["pods"]["objects"] == 1, "the end of the first pod")
        assert streaming(counters) == [A]
        assert node_at(counters, A)["reconnects"] == 0
        # Once each: a second connection would have brought another copy.
        last = at[A].tell(2)
        assert subscriber.take(1) == [last]
        assert len(at[A].subscribers()) == 3
        subscriber.cancel()
        assert relay.end() == 0


def test_dual_stack(cluster: Cluster, port: int) -> None:
    """The first address is tried first, and the other where nobody answers there."""
    with nodes(port, A, "::1"), ClusterRelay(cluster.kubeconfig(), port) as relay:
        cluster.node("both", A, "fd00::7")
        cluster.node("second", B, "::1")
        relay.until(lambda now: streaming(now) == [A, "::1"], "both nodes")
        assert relay.end() == 0


def test_the_relay_is_no_node_of_itself(cluster: Cluster) -> None:
    """Its pod may carry the label; its address and port are what counts."""
    port = free_port()
    cluster.node("relay", A)
    with nodes(port, B), ClusterRelay(cluster.kubeconfig(), port, "-bind", A, port=port) as relay:
        cluster.node("one", B)
        assert hosts(relay.until_streaming(B)) == [B]
        relay.warned("own address", A)
        assert relay.end() == 0


# --- settings -----------------------------------------------------------------------------


def test_nodes_of_the_flag_and_of_the_cluster(cluster: Cluster, port: int) -> None:
    """A node that both name is one, and stays when the pod goes."""
    other = free_port()
    with (
        nodes(port, A, B),
        Node(C, other),
        ClusterRelay(cluster.kubeconfig(), port, "-nodes", f"{A}:{port},{C}:{other}") as relay,
    ):
        relay.until_streaming(A, C)
        cluster.node("one", A)
        cluster.node("two", B)
        relay.until_streaming(A, B, C)
        cluster.delete_pod("one", "kubearmor")
        cluster.delete_pod("two", "kubearmor")
        counters = relay.until_streaming(A, C)
        assert node_at(counters, A)["reconnects"] == 0
        assert relay.end() == 0


def test_selector_and_namespace(cluster: Cluster, port: int) -> None:
    cluster.node("one", A)
    cluster.node("two", B, labels={"tier": "guards"})
    cluster.node("three", C, labels={"tier": "guards"}, namespace="shop")
    with nodes(port, A, B, C):
        with ClusterRelay(cluster.kubeconfig(), port, "-node-selector", "tier in (guards,others)") as relay:
            relay.until_streaming(B, C)
        with ClusterRelay(cluster.kubeconfig(), port, "-node-selector", "tier=guards", "-namespace", "shop") as relay:
            relay.until_streaming(C)


def test_a_selector_that_changes_while_the_relay_runs(cluster: Cluster, port: int, tmp_path: Path) -> None:
    """By SIGHUP; a node that both selectors find stays connected."""
    cluster.node("one", A, labels={"tier": "guards", "zone": "x"})
    cluster.node("two", B, labels={"tier": "guards"})
    cluster.node("three", C, labels={"zone": "x"})
    file = tmp_path / "relay.toml"
    file.write_text('node-selector = "tier=guards"\n')
    with nodes(port, A, B, C), ClusterRelay(cluster.kubeconfig(), port, "-config", str(file)) as relay:
        relay.until_streaming(A, B)
        file.write_text('node-selector = "zone=x"\n')
        relay.send(signal.SIGHUP)
        counters = relay.until_streaming(A, C)
        assert node_at(counters, A)["reconnects"] == 0
        assert relay.end() == 0


# --- credentials --------------------------------------------------------------------------


def test_credentials_of_every_kind(cluster: Cluster, port: int) -> None:
    """A token, a token file, a client certificate, a credential plugin."""
    cluster.node("one", A)
    token = cluster.folder / "token"
    token.write_text(token_of("relay"))
    plugin = cluster.folder / "plugin"
    credential = '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"%s"}}'
    plugin.write_text(f"#!/bin/sh\ncat <<EOF\n{credential % token_of('relay')}\nEOF\n")
    plugin.chmod(0o755)
    users: list[dict[str, object]] = [
        {"token": token_of("relay")},
        {"tokenFile": str(token)},
        {**cluster.certificate("relay")},
        {
            "exec": {
                "apiVersion": "client.authentication.k8s.io/v1",
                "command": str(plugin),
                "interactiveMode": "Never",
            }
        },
    ]
    with nodes(port, A):
        for user in users:
            with ClusterRelay(cluster.kubeconfig("credentials", **user), port) as relay:
                relay.until_streaming(A)
                assert relay.end() == 0


def test_the_environments_configuration(cluster: Cluster, port: int) -> None:
    """KUBECONFIG, which may be a list, and the file in the home directory."""
    cluster.node("one", A)
    home = cluster.folder / "home"
    (home / ".kube").mkdir(parents=True, exist_ok=True)
    (home / ".kube" / "config").write_bytes(cluster.kubeconfig().read_bytes())
    with nodes(port, A):
        for variables in (
            {"KUBECONFIG": f"/nonexistent/config:{cluster.kubeconfig()}"},
            {"KUBECONFIG": "", "HOME": str(home)},
        ):
            with ClusterRelay(None, port, **variables) as relay:
                relay.until_streaming(A)
                assert relay.end() == 0


def test_in_a_pod_whose_token_is_renewed(cluster: Cluster, port: int) -> None:
    """The token of a service account expires, and its file has another by then."""
    if no_pods():
        pytest.skip(no_pods())
    cluster.node("one", A)
    with nodes(port, A, B), Door(cluster.folder, cluster.port, watch_seconds=2) as door:
        account = cluster.account(cluster.short_token(10))
        where = {"KUBECONFIG": "", "KUBERNETES_SERVICE_HOST": HOST, "KUBERNETES_SERVICE_PORT": str(door.port)}
        with ClusterRelay(None, port, program=in_pod(account), **where) as relay:
            relay.until_streaming(A)
            assert "service account" in relay.counters()["kubernetes"]["source"]
            relay.warned("401")
            cluster.account(cluster.short_token(50))
            cluster.node("two", B)
            counters = relay.until_streaming(A, B)
            assert node_at(counters, A)["reconnects"] == 0
            assert relay.end() == 0


def test_a_token_file_that_is_renewed(cluster: Cluster, port: int) -> None:
    """Nobody tells the relay: the server's 401 is what makes it look again."""
    token = cluster.folder / "token"
    token.write_text(cluster.short_token(5))
    cluster.node("one", A)
    with nodes(port, A, B), behind_door(cluster, port, watch_seconds=2, tokenFile=str(token)) as (relay, _):
        relay.until_streaming(A)
        said = relay.warned("401")
        assert said["resource"] in ("pods", "services")
        assert streaming(relay.counters()) == [A]
        token.write_text(cluster.short_token(50))
        cluster.node("two", B)
        counters = relay.until_streaming(A, B)
        assert node_at(counters, A)["reconnects"] == 0
        assert relay.end() == 0


# --- rights -------------------------------------------------------------------------------


def test_without_watch_it_polls(cluster: Cluster, port: int) -> None:
    """The Go relay's own manifest grants no more than list."""
    cluster.node("one", A)
    configuration = cluster.kubeconfig("without-watch", token=token_of("without-watch"))
    with nodes(port, A, B), ClusterRelay(configuration, port) as relay:
        said = relay.warned("discovery", "watch", "pods")
        assert (said["verb"], said["resource"]) == ("watch", "pods")
        relay.until_streaming(A)
        relay.until(lambda now: now["kubernetes"]["pods"]["mode"] == "poll", "polling")
        cluster.node("two", B)
        cluster.delete_pod("one", "kubearmor")
        relay.until_streaming(B)
        counters = relay.until(lambda now: now["kubernetes"]["pods"]["mode"] == "poll", "polling")
        assert counters["kubernetes"]["pods"]["lists"] >= 2
        assert relay.end() == 0


def test_without_the_right_to_list_pods(cluster: Cluster, port: int) -> None:
    """Nodes that were named are served all the same, and the others are found when the right is granted."""
    cluster.node("one", A)
    configuration = cluster.kubeconfig("without-pods", token=token_of("without-pods"))
    with nodes(port, A, B), ClusterRelay(configuration, port, "-nodes", f"{B}:{port}") as relay:
        said = relay.warned("discovery", "list", "pods", "403")
        assert (said["verb"], said["resource"]) == ("list", "pods")
        counters = relay.until_streaming(B)
        assert counters["kubernetes"]["pods"]["mode"] == "down"
        relay.until_listed("enrichment_services")
        with cluster.granted("without-pods", "relay"):
            relay.until_streaming(A, B)
        assert relay.end() == 0


def test_rights_in_one_namespace(cluster: Cluster, port: int) -> None:
    """A role of the namespace is enough to find the nodes in it; only the names of remote hosts need more."""
    cluster.node("one", A)
    cluster.node("two", B, namespace="shop")
    configuration = cluster.kubeconfig("nobody", token=token_of("nobody"))
    with (
        nodes(port, A, B),
        cluster.role("nobody", "kubearmor"),
        ClusterRelay(configuration, port, "-namespace", "kubearmor") as relay,
    ):
        relay.until_streaming(A)
        for resource in ("pods", "services"):
            said = relay.warned("enrichment", "list", resource, "403")
            assert (said["verb"], said["resource"]) == ("list", resource)
        assert not [line for line in relay.said() if "discovery may not" in line]
        assert relay.end() == 0


@pytest.mark.slow
def test_a_right_that_is_granted_later(cluster: Cluster, port: int) -> None:
    """From polling back to watching, without a restart."""
    cluster.node("one", A)
    with nodes(port, A, B), behind_door(cluster, port) as (relay, door):
        relay.until_streaming(A)
        with cluster.granted("relay", "without-watch"), cluster.revoked("relay"):
            door.drop()
            relay.until(lambda now: now["kubernetes"]["pods"]["mode"] == "poll", "polling")
        relay.until(lambda now: now["kubernetes"]["pods"]["mode"] == "watch", "the watch")
        cluster.node("two", B)
        counters = relay.until_streaming(A, B)
        assert node_at(counters, A)["reconnects"] == 0
        assert relay.end() == 0


def test_it_never_asks_for_a_single_object(cluster: Cluster, port: int) -> None:
    """The Helm chart's role has no get."""
    with nodes(port, A), behind_door(cluster, port) as (relay, door):
        cluster.node("one", A)
        relay.until_streaming(A)
        paths = {line.partition("?")[0] for line in door.requests}
        assert paths == {"GET /api/v1/pods", "GET /api/v1/services"}
        assert relay.end() == 0


# --- the API server fails -----------------------------------------------------------------


@pytest.mark.slow
def test_an_api_server_that_is_away_for_half_a_minute(cluster: Cluster, port: int) -> None:
    """Nodes stay connected, and what changed right after its return is caught up."""
    with nodes(port, A, B, C) as at, ClusterRelay(cluster.kubeconfig(), port) as relay, channel(relay.port) as over:
        subscriber = Subscriber(over, LOGS).ready()
        cluster.node("one", A)
        cluster.node("two", B)
        relay.until_streaming(A, B)
        cluster.stop()
        back = time.monotonic() + 30
        number = 0
        while time.monotonic() < back:
            number += 1
            sent = sorted(at[address].tell(number) for address in (A, B))
            assert sorted(subscriber.take(2)) == sent
            time.sleep(1)  # that nothing happens meanwhile is what is looked at
        assert streaming(relay.counters()) == [A, B]
        assert relay.counters()["kubernetes"]["pods"]["mode"] == "down"
        cluster.start()
        cluster.delete_pod("two", "kubearmor")
        cluster.node("three", C)
        counters = relay.until_streaming(A, C)
        assert node_at(counters, A)["reconnects"] == 0
        relay.until(lambda now: {each["mode"] for each in followed(now)} == {"watch"}, "watches")
        subscriber.cancel()
        assert relay.end() == 0


def test_what_changes_while_nobody_looks_is_caught_up(cluster: Cluster, port: int) -> None:
    """The connection to the API server breaks; the watch goes on where it was."""
    with nodes(port, A, B, C, D), behind_door(cluster, port) as (relay, door):
        for name, address in (("one", A), ("two", B), ("three", C)):
            cluster.node(name, address)
        relay.until_streaming(A, B, C)
        door.shut()
        relay.until(lambda now: now["kubernetes"]["pods"]["mode"] == "down", "the failure")
        cluster.delete_pod("one", "kubearmor")
        cluster.delete_pod("two", "kubearmor")
        cluster.node("two", B)  # the same name and address, another pod
        cluster.set_status("three", D, namespace="kubearmor")
        assert streaming(relay.counters()) == [A, B, C]
        door.open()
        relay.until_streaming(B, D)
        assert len([line for line in door.lists("pods") if "labelSelector" in line]) == 1
        assert relay.end() == 0


def test_a_watch_from_a_version_that_is_gone(cluster: Cluster, port: int) -> None:
    """410: a new list, and only the difference changes anything."""
    with nodes(port, A, B, C), behind_door(cluster, port) as (relay, door):
        cluster.node("one", A)
        cluster.node("two", B)
        relay.until_streaming(A, B)
        door.shut()
        relay.until(lambda now: now["kubernetes"]["pods"]["mode"] == "down", "the failure")
        version = cluster.call("GET", "/api/v1/pods?limit=1")["metadata"]["resourceVersion"]
        cluster.delete_pod("one", "kubearmor")
        cluster.node("three", C)
        cluster.compact()
        # What etcd has forgotten the server's own cache would still know.
        cluster.restart()
        with pytest.raises(Refused, match="410"):
            cluster.watch("pods", version)
        assert streaming(relay.counters()) == [A, B]
        door.open()
        counters = relay.until_streaming(B, C)
        assert node_at(counters, B)["reconnects"] == 0
        assert counters["kubernetes"]["pods"]["lists"] == 2
        assert not [line for line in relay.said() if '"level":"warn"' in line and "410" in line]
        relay.until(lambda now: {each["mode"] for each in followed(now)} == {"watch"}, "watches")
        assert relay.end() == 0


def test_a_page_that_is_gone(cluster: Cluster, port: int) -> None:
    """410 in the middle of a list: it begins again, and nobody who is there is left out."""
    addresses = [f"127.0.8.{number}" for number in range(1, 121)]  # more than a first page
    cluster.nodes(addresses)
    try:
        # Without its cache the server reads what etcd has forgotten from nowhere.
        cluster.restart("--watch-cache=false")
        with nodes(port, *addresses), Door(cluster.folder, cluster.port) as door:
            door.hold("continue=.*labelSelector=")
            with ClusterRelay(cluster.kubeconfig("door", port=door.port), port) as relay:
                door.wait_held()
                cluster.delete_pod("kubearmor-127-0-8-7", "kubearmor")
                cluster.compact()
                door.release()
                relay.until_streaming(*(address for address in addresses if address != "127.0.8.7"))
                assert len([line for line in door.lists("pods") if "labelSelector" in line]) == 2
                assert relay.end() == 0
    finally:
        cluster.restart()


def test_rights_that_are_missing_for_a_moment(cluster: Cluster, port: int) -> None:
    """An API server that has just started knows nobody's rights yet: that is no reason to poll from then on."""
    with nodes(port, A, B), behind_door(cluster, port) as (relay, door):
        cluster.node("one", A)
        relay.until_streaming(A)
        relay.until_listed()
        with cluster.revoked("relay"):
            door.drop()
            relay.warned("403", "pods")
        cluster.node("two", B)
        counters = relay.until_streaming(A, B)
        assert node_at(counters, A)["reconnects"] == 0
        relay.until(lambda now: {each["mode"] for each in followed(now)} == {"watch"}, "watches")
        assert relay.end() == 0


def test_watches_that_the_server_ends_every_other_second(cluster: Cluster, port: int) -> None:
    """Each goes on where the last one ended: no list, no failure, nothing missed."""
    with nodes(port, A, B), behind_door(cluster, port, watch_seconds=2) as (relay, _):
        cluster.node("one", A)
        relay.until_streaming(A)
        for round_ in range(1, 4):
            cluster.node("two", B)
            relay.until_streaming(A, B)
            wanted = 2 * round_
            relay.until(lambda now, wanted=wanted: now["kubernetes"]["pods"]["watches"] > wanted, "watches")
            cluster.delete_pod("two", "kubearmor")
            counters = relay.until_streaming(A)
        assert node_at(counters, A)["reconnects"] == 0
        # What a watch has told once no other tells again.
        assert [line["node"] for line in relay.logged("node removed")] == ["host-of-two"] * 3
        assert {each["lists"] for each in followed(counters)} == {1}
        assert not [line for line in relay.said() if '"level":"warn"' in line]
        assert relay.end() == 0


def test_connections_that_break_again_and_again(cluster: Cluster, port: int) -> None:
    """In the middle of whatever is under way."""
    with nodes(port, A, B, C), behind_door(cluster, port) as (relay, door):
        cluster.node("one", A)
        relay.until_streaming(A)
        for name, address in (("two", B), ("three", C)):
            seen = len(door.watches("pods"))
            cluster.node(name, address)
            door.drop()
            relay.until(lambda now, seen=seen: len(door.watches("pods")) > seen, "another watch")
        counters = relay.until_streaming(A, B, C)
        assert node_at(counters, A)["reconnects"] == 0
        assert relay.end() == 0


def test_a_relay_that_starts_before_the_api_server(cluster: Cluster, port: int) -> None:
    cluster.node("one", A)
    with nodes(port, A, B), Door(cluster.folder, cluster.port) as door:
        door.shut()
        configuration = cluster.kubeconfig("door", port=door.port)
        with ClusterRelay(configuration, port, "-nodes", f"{B}:{port}") as relay:
            relay.until_streaming(B)
            relay.warned("discovery", "list", "pods")
            door.open()
            relay.until_streaming(A, B)
            assert relay.end() == 0


@given(seed=st.integers(0, 2**32))
@settings(max_examples=3, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_changes_the_nodes_are_right_in_the_end(cluster: Cluster, port: int, seed: int) -> None:
    """Changes at random, on a way that breaks at random."""
    cluster.clear()
    addresses = [A, B, C, D]
    with nodes(port, *addresses), behind_door(cluster, port, watch_seconds=3) as (relay, door):
        churn = Churn(cluster, door, addresses, random.Random(seed))
        for _ in range(3):
            churn.run(40)
            relay.until_streaming(*churn.nodes())
        assert relay.end() == 0


# --- the relay fails ----------------------------------------------------------------------


def test_a_relay_that_is_killed_finds_everything_again(cluster: Cluster, port: int) -> None:
    for name, address in (("one", A), ("two", B)):
        cluster.node(name, address)
    with nodes(port, A, B) as at:
        for number in range(2):
            with ClusterRelay(cluster.kubeconfig(), port) as relay, channel(relay.port) as over:
                relay.until_streaming(A, B)
                with Subscriber(over, LOGS).ready() as subscriber:
                    sent = sorted(at[address].tell(number) for address in (A, B))
                    assert sorted(subscriber.take(2)) == sent
                relay.end(signal.SIGKILL)
            for node in at.values():
                node.wait_subscribers(0)


def followed(counters: dict[str, dict[str, dict[str, int]]]) -> list[dict[str, int]]:
    """The three collections that a relay follows."""
    return [counters["kubernetes"][name] for name in ("pods", "enrichment_pods", "enrichment_services")]
