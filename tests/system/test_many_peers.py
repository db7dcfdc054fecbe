"""The relay as a process among many peers: hundreds of nodes and subscribers, and what kills some of them."""

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

from peers import events, h2_client
from peers.client import Subscriber, channel
from peers.command import PROGRAM, Relay, free_port
from peers.go_peers import GoClient, GoNode
from peers.node import Node

LOGS = events.LOGS
PATIENCE = 60.0  # s after which what has not come will not; backoff alone can take some


def until(relay: Relay, holds: Any, what: str) -> dict[str, Any]:
    """Ask for the counters until they say so; each answer takes the relay a moment, which is the pause."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        counters = relay.counters()
        if holds(counters):
            return counters
    raise AssertionError(f"{what} did not come: {counters}")


def streaming(counters: dict[str, Any]) -> int:
    return sum(node["state"] == "streaming" for node in counters["nodes"])


def test_two_hundred_nodes(go_node: GoNode, go_client: GoClient) -> None:
    """Every event of each arrives once, in its node's order."""
    nodes = go_node("-nodes", "200", "-gate", "-count", "100", "-rate", "50")
    with Relay(nodes=tuple(nodes.ports)) as relay:
        until(relay, lambda now: streaming(now) == 200, "200 nodes")
        reader = go_client("-server", f"127.0.0.1:{relay.port}", "-count", "20000")
        reader.wait_subscribed()
        nodes.tell()
        said = reader.result()
        assert (said["events"], said["missing"], said["disordered"]) == (20_000, 0, 0)
        counters = relay.counters()
        assert {node["received"]["logs"] for node in counters["nodes"]} == {100}
        assert counters["feeds"]["logs"]["received"] == 20_000
        assert relay.end() == 0


MANY = ("-max-connections=512", "-max-connections-per-address=512", "-client-bytes=32MiB")


def test_five_hundred_subscribers(go_node: GoNode, go_client: GoClient) -> None:
    nodes = go_node("-gate", "-count", "500", "-rate", "1000")
    with Relay(*MANY, nodes=tuple(nodes.ports)) as relay:
        until(relay, lambda now: streaming(now) == 1, "the node")
        readers = go_client("-server", f"127.0.0.1:{relay.port}", "-connections", "500", "-count", "500")
        readers.wait_subscribed()
        nodes.tell()
        said = readers.result()
        assert (said["events"], said["missing"], said["disordered"]) == (250_000, 0, 0)
        counters = until(relay, lambda now: not now["subscribers"], "the end of all subscribers")
        assert counters["feeds"]["logs"]["ended_lost"] == 0
        assert relay.end() == 0


def test_nodes_that_are_killed_are_found_again(go_node: GoNode) -> None:
    """SIGKILL to a process with 20 nodes; they come back on their ports, and a subscriber sees nothing but silence."""
    first = free_port(following=20)
    flags = ("-nodes", "20", "-port", str(first), "-count", "50", "-rate", "500")
    nodes = go_node(*flags)
    with Relay(nodes=tuple(nodes.ports)) as relay, channel(relay.port) as over:
        subscriber = Subscriber(over, LOGS).ready()
        until(relay, lambda now: now["feeds"]["logs"]["received"] == 1000, "the events of the first run")
        nodes.kill()
        until(relay, lambda now: streaming(now) == 0, "the end of all nodes")
        go_node(*flags)
        counters = until(relay, lambda now: now["feeds"]["logs"]["received"] == 2000, "the events of the second run")
        assert {node["received"]["logs"] for node in counters["nodes"]} == {100}
        assert {node["reconnects"] for node in counters["nodes"]} == {1}
        # Those that it missed it missed before it came.
        got = subscriber.take(1000)
        assert len(set(got)) == 1000
        subscriber.cancel()
        assert relay.end() == 0


def test_subscribers_that_are_killed_leave_nothing(go_node: GoNode, go_client: GoClient) -> None:
    nodes = go_node("-rate", "2000")
    with Relay(nodes=tuple(nodes.ports)) as relay, channel(relay.port) as over:
        staying = Subscriber(over, LOGS).ready()
        for _ in range(3):
            readers = go_client("-server", f"127.0.0.1:{relay.port}", "-connections", "20", "-streams", "5")
            readers.wait_subscribed()
            assert len(relay.counters()["subscribers"]) == 101
            readers.kill()
            until(relay, lambda now: len(now["subscribers"]) == 1, "the end of those that were killed")
        counters = relay.counters()
        assert counters["process"]["clients"] == 1
        assert counters["subscribers"][0]["lost"] == 0
        staying.take(1000)
        staying.cancel()
        assert relay.end() == 0


@contextlib.contextmanager
def few_descriptors(most: int, **keywords: Any) -> Iterator[Relay]:
    """A relay whose limit on open files is low, and cannot be raised."""
    program = ("sh", "-c", f'ulimit -n {most}; exec "$0" "$@"', str(PROGRAM))
    with Relay(program=program, **keywords) as relay:
        yield relay


def test_without_descriptors_those_that_are_there_are_served() -> None:
    """And others again, as soon as there are some."""
    with Node() as node, few_descriptors(40, nodes=(node.port,)) as relay, channel(relay.port) as over:
        subscriber = Subscriber(over, LOGS).ready()
        node.wait_open(LOGS)
        crowd = []
        for _ in range(60):
            crowd.append(socket.create_connection(("127.0.0.1", relay.port)))
        counters = until(relay, lambda now: now["process"]["limits"]["descriptors"] > 0, "a refusal")
        assert counters["process"]["clients"] < 40
        sent = events.events(LOGS, 100)
        node.send(LOGS, *sent)
        assert subscriber.take(100) == sent
        for each in crowd:
            each.close()
        until(relay, lambda now: now["process"]["clients"] == 1, "the end of the crowd")
        with h2_client.Client(relay.port) as wire:
            assert wire.check(7) == 7
        subscriber.cancel()
        assert relay.end() == 0


def test_without_descriptors_a_node_is_tried_again() -> None:
    with Node() as node, few_descriptors(40, nodes=(node.port,)) as relay:
        node.wait_open(LOGS)
        crowd = [socket.create_connection(("127.0.0.1", relay.port)) for _ in range(60)]
        until(relay, lambda now: now["process"]["limits"]["descriptors"] > 0, "a refusal")
        port = node.port
        node.stop()
        until(relay, lambda now: streaming(now) == 0, "the end of the node")
        for each in crowd:
            each.close()
        with Node(port=port) as again:
            again.wait_open(LOGS)
            until(relay, lambda now: streaming(now) == 1, "the node")
        assert relay.end() == 0
