"""relay.discovery: every KubeArmor pod with an address is a node, for as long as it has it."""

import logging
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from peers import kube_http
from unit.test_claims import Nodes

from relay.claims import Claims
from relay.discovery import Discovery
from relay.objects import Pod
from relay.settings import Address

PORT = 32767


class World:
    def __init__(self) -> None:
        self.nodes = Nodes()
        self.claims = Claims(self.nodes, lambda where: where.host == "10.0.0.9")
        self.discovery = Discovery(self.claims, PORT)

    def pod(self, name: str, *ips: str, **status: Any) -> None:
        self.discovery.put(msgspec.convert(kube_http.pod(name, *ips, **status), Pod))

    def drop(self, name: str) -> None:
        self.discovery.drop(f"default/{name}")

    def keep(self, *names: str) -> None:
        self.discovery.keep({f"default/{name}" for name in names})

    def hosts(self) -> list[str]:
        return sorted(where.host for where in self.nodes.live.values())


def test_a_pod_is_a_node_from_its_address_on() -> None:
    world = World()
    world.pod("a")
    assert world.nodes.history == []
    world.pod("a", "10.0.0.1")
    assert list(world.nodes.live.values()) == [Address("10.0.0.1", PORT)]
    assert world.nodes.history == ["+10.0.0.1 node-of-a"]


def test_a_pod_without_a_node_is_called_by_its_own_name() -> None:
    world = World()
    world.discovery.put(msgspec.convert({**kube_http.pod("a", "10.0.0.1"), "spec": {}}, Pod))
    assert world.nodes.history == ["+10.0.0.1 default/a"]


def test_a_pod_of_two_stacks_is_one_node() -> None:
    world = World()
    world.pod("a", "10.0.0.1", "fd00::1")
    assert world.nodes.history == ["+10.0.0.1 node-of-a fd00::1"]


@pytest.mark.parametrize("how", ["deleted", "succeeded", "failed", "without an address", "not listed"])
def test_a_pod_that_ends_takes_its_node_with_it(how: str) -> None:
    world = World()
    world.pod("a", "10.0.0.1")
    if how == "deleted":
        world.drop("a")
    elif how == "not listed":
        world.keep("b")
    else:
        phase = how.capitalize() if how in ("succeeded", "failed") else "Running"
        world.pod("a", *(["10.0.0.1"] if phase != "Running" else []), phase=phase)
    assert world.hosts() == []


def test_a_rolling_update_on_the_hosts_network_keeps_the_connection() -> None:
    world = World()
    world.pod("old", "10.0.0.1")
    world.pod("new", "10.0.0.1")
    world.drop("old")
    assert world.nodes.history == ["+10.0.0.1 node-of-old"]


def test_a_pod_that_took_anothers_place_unseen_keeps_the_connection() -> None:
    """The API server was away; the list that follows tells of the new pod before it leaves out the old."""
    world = World()
    world.pod("old", "10.0.0.1")
    world.keep("old")
    world.pod("new", "10.0.0.1")
    world.keep("new")
    assert world.nodes.history == ["+10.0.0.1 node-of-old"]


@pytest.mark.parametrize("wrong", ["", "None", "10.0.0", "node.example", "10.0.0.1/32"])
def test_what_is_no_address_is_passed_over(wrong: str) -> None:
    world = World()
    world.pod("a", wrong, "10.0.0.2")
    assert world.hosts() == ["10.0.0.2"]
    world.pod("b", wrong)
    assert world.hosts() == ["10.0.0.2"]


def test_a_list_leaves_the_nodes_of_the_settings_alone() -> None:
    world = World()
    world.claims.replace("-nodes ", [Address("10.0.0.1", PORT), Address("10.0.0.3", PORT)])
    world.pod("a", "10.0.0.1")
    world.keep()
    assert world.hosts() == ["10.0.0.1", "10.0.0.3"]


def test_the_first_list_is_told_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for found in (True, False):
        world = World()
        if found:
            world.pod("a", "10.0.0.1")
        world.keep("a", "b")
        world.keep("a")
    said = [(record.levelname, record.message, record.relay_fields) for record in caplog.records]  # type: ignore[attr-defined]
    assert said == [
        ("INFO", "KubeArmor found", {"pods": 2, "with_address": 1}),
        ("WARNING", "no KubeArmor pod with an address yet", {"pods": 2}),
    ]


# --- any history --------------------------------------------------------------------------

SPELLINGS = {"10.0.0.1": "10.0.0.1", "::ffff:10.0.0.1": "10.0.0.1", "FD00:0::1": "fd00::1", "fd00::1": "fd00::1"}
SPELLINGS |= {"10.0.0.2": "10.0.0.2", "10.0.0.9": "10.0.0.9"}
NAMES = ["a", "b", "c", "d"]


class AnyHistory(RuleBasedStateMachine):
    """Nodes are the first addresses of the live pods and those of -nodes, each once, the relay's own never."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.pods: dict[str, str] = {}
        self.flags: set[str] = set()

    @rule(
        name=st.sampled_from(NAMES),
        ips=st.lists(st.sampled_from(sorted(SPELLINGS)), max_size=2),
        phase=st.sampled_from(["Pending", "Running", "Running", "Failed", "Succeeded"]),
    )
    def changes(self, name: str, ips: list[str], phase: str) -> None:
        self.pods.pop(name, None)
        if ips and phase in ("Pending", "Running"):
            self.pods[name] = SPELLINGS[ips[0]]
        self.world.pod(name, *ips, phase=phase)

    @rule(name=st.sampled_from(NAMES))
    def goes(self, name: str) -> None:
        self.pods.pop(name, None)
        self.world.drop(name)

    @rule(one=st.sampled_from(NAMES), other=st.sampled_from(NAMES))
    def swap(self, one: str, other: str) -> None:
        if one in self.pods and other in self.pods:
            self.pods[one], self.pods[other] = self.pods[other], self.pods[one]
            self.world.pod(one, self.pods[one])
            self.world.pod(other, self.pods[other])

    @rule(kept=st.sets(st.sampled_from(NAMES)))
    def is_listed(self, kept: set[str]) -> None:
        self.pods = {name: ip for name, ip in self.pods.items() if name in kept}
        stay = set(self.pods.values()) & set(self.world.hosts())
        before = dict(self.world.nodes.live)
        self.world.keep(*kept)
        for number, where in before.items():
            assert where.host not in stay or self.world.nodes.live.get(number) == where, "stays connected"

    @rule(hosts=st.lists(st.sampled_from(sorted(SPELLINGS)), max_size=2))
    def settings_are_reloaded(self, hosts: list[str]) -> None:
        self.flags = {SPELLINGS[host] for host in hosts}
        self.world.claims.replace("-nodes ", [Address(host, PORT) for host in hosts])

    @invariant()
    def nodes_are_those(self) -> None:
        assert self.world.hosts() == sorted({*self.pods.values(), *self.flags} - {"10.0.0.9"})


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
