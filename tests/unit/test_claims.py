"""relay.claims: one node an address, from its first claim to the end of its last."""

import itertools
import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from relay import claims as claims_module
from relay.claims import Claim, Claims, own_address
from relay.settings import Address

PORT = 32767


class Nodes:
    """Refuses what the node table must never be asked for, and keeps what it was."""

    def __init__(self) -> None:
        self.live: dict[int, Address] = {}
        self.history: list[str] = []
        self._numbers = itertools.count()

    def add(self, where: Address, name: str = "", *, others: tuple[str, ...] = ()) -> int:
        assert where not in self.live.values(), f"{where} has a node"
        number = next(self._numbers)
        self.live[number] = where
        self.history.append(f"+{where.host} {name} {','.join(others)}".strip())
        return number

    def remove(self, number: int) -> None:
        self.history.append(f"-{self.live.pop(number).host}")


class World:
    def __init__(self, own: str = "") -> None:
        self.nodes = Nodes()
        self.claims = Claims(self.nodes, lambda where: where.host == own)

    def claim(self, owner: str, host: str, name: str = "", *others: str, port: int = PORT) -> None:
        self.claims.claim(owner, Claim(Address(host, port), name, others))


# --- one node an address ------------------------------------------------------------------


def test_the_first_claim_makes_a_node_known_and_the_last_takes_it_away() -> None:
    world = World()
    world.claim("pod/old", "10.0.0.1", "one", "fd00::1")
    world.claim("pod/new", "10.0.0.1", "one")
    world.claims.release("pod/old")
    world.claims.release("pod/old")
    assert world.nodes.history == ["+10.0.0.1 one fd00::1"]
    world.claims.release("pod/new")
    assert world.nodes.history == ["+10.0.0.1 one fd00::1", "-10.0.0.1"]


def test_an_owner_that_moves_takes_its_node_with_it() -> None:
    world = World()
    world.claim("pod/a", "10.0.0.1")
    world.claim("pod/a", "10.0.0.2")
    assert world.nodes.history == ["+10.0.0.1", "-10.0.0.1", "+10.0.0.2"]


def test_an_address_that_another_owner_claims_stays_when_the_first_moves() -> None:
    world = World()
    world.claim("pod/a", "10.0.0.1")
    world.claim("-nodes 10.0.0.1:32767", "10.0.0.1")
    world.claim("pod/a", "10.0.0.2")
    assert world.nodes.history == ["+10.0.0.1", "+10.0.0.2"]


def test_the_same_claim_again_changes_nothing() -> None:
    world = World()
    for name in ("one", "one", "another name"):
        world.claim("pod/a", "10.0.0.1", name)
    assert world.nodes.history == ["+10.0.0.1 one"]


def test_ports_are_part_of_an_address() -> None:
    world = World()
    world.claim("pod/a", "10.0.0.1")
    world.claim("pod/b", "10.0.0.1", port=7101)
    assert len(world.nodes.live) == 2


@pytest.mark.parametrize(
    "spellings",
    [
        ["10.0.0.1", "::ffff:10.0.0.1", "::FFFF:0a00:0001"],
        ["fd00::1", "FD00::1", "fd00:0:0:0:0:0:0:1", "fd00::0.0.0.1"],
        ["node.example", "NODE.Example"],
    ],
)
def test_every_spelling_of_an_address_is_that_address(spellings: list[str]) -> None:
    world = World()
    for number, host in enumerate(spellings):
        world.claim(f"pod/{number}", host)
    assert len(world.nodes.history) == 1
    for number in range(len(spellings)):
        assert len(world.nodes.live) == 1
        world.claims.release(f"pod/{number}")
    assert not world.nodes.live


def test_reload_keeps_what_is_still_wanted_connected() -> None:
    world = World()
    world.claims.replace("-nodes ", [Address("a", 1), Address("b", 1), Address("10.0.0.1", 1)])
    world.claim("pod/x", "a", port=1)
    world.nodes.history.clear()
    world.claims.replace("-nodes ", [Address("::ffff:10.0.0.1", 1), Address("c", 1), Address("C", 1)])
    assert world.nodes.history == ["+c", "-b"]
    assert sorted(where.host for where in world.nodes.live.values()) == ["10.0.0.1", "a", "c"]
    assert world.claims.owned("pod/") == ["pod/x"]


# --- the relay's own address --------------------------------------------------------------


def test_the_relays_own_address_is_never_a_node(caplog: pytest.LogCaptureFixture) -> None:
    world = World(own="10.0.0.1")
    world.claim("pod/a", "::ffff:10.0.0.1")
    world.claim("pod/a", "::ffff:10.0.0.1")
    assert [record.relay_fields for record in caplog.records] == [  # type: ignore[attr-defined]
        {"node": "pod/a", "address": f"10.0.0.1:{PORT}"}
    ]
    world.claim("pod/a", "10.0.0.2")
    world.claims.release("pod/a")
    assert world.nodes.history == ["+10.0.0.2", "-10.0.0.2"]


@pytest.mark.parametrize("bind", ["", "0.0.0.0", "::", "::0"])
def test_a_relay_on_all_addresses_knows_those_of_its_machine(bind: str) -> None:
    is_self = own_address(bind, PORT)
    assert is_self(Address("127.0.0.1", PORT))
    assert not is_self(Address("127.0.0.1", PORT + 1))
    assert not is_self(Address("192.0.2.1", PORT)), "an address for documentation is no machine's"
    assert not is_self(Address("node.example", PORT)), "a name: the engine finds out"


@pytest.mark.parametrize("bind", ["10.0.0.1", "::ffff:10.0.0.1"])
def test_a_relay_on_one_address_knows_that(bind: str) -> None:
    is_self = own_address(bind, PORT)
    assert is_self(Address("10.0.0.1", PORT))
    assert not is_self(Address("10.0.0.1", PORT + 1))
    assert not is_self(Address("127.0.0.1", PORT))


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_an_address_without_a_route_is_not_this_machines(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    class Unroutable(socket.socket):
        def connect(self, address: Any) -> None:
            raise OSError("no route")

    monkeypatch.setattr(claims_module.socket, "socket", Unroutable)
    assert not own_address("", PORT)(Address(host, PORT))


def test_an_ipv6_address_of_this_machine_is_known() -> None:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.connect(("::1", 9))
    except OSError:
        pytest.skip("no IPv6 here")
    assert own_address("", PORT)(Address("::1", PORT))


# --- any history --------------------------------------------------------------------------

OWN = "10.0.0.9"
SPELLINGS = {
    "10.0.0.1": "10.0.0.1",
    "::ffff:10.0.0.1": "10.0.0.1",
    "10.0.0.2": "10.0.0.2",
    "fd00::1": "fd00::1",
    "FD00:0:0::1": "fd00::1",
    "node": "node",
    "Node": "node",
    OWN: OWN,
    f"::ffff:{OWN}": OWN,
}
OWNERS = ["pod/a", "pod/b", "pod/c", "svc/a"]
HOSTS = st.sampled_from(sorted(SPELLINGS))


class AnyHistory(RuleBasedStateMachine):
    """The nodes are always the addresses that somebody claims, but for the relay's own."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(OWN)
        self.wanted: dict[str, str] = {}  # owner to address
        self.before: set[Address] = set()

    @rule(owner=st.sampled_from(OWNERS), host=HOSTS, name=st.sampled_from(["", "one"]))
    def claim(self, owner: str, host: str, name: str) -> None:
        self.wanted[owner] = SPELLINGS[host]
        self.world.claim(owner, host, name)

    @rule(owner=st.sampled_from(OWNERS))
    def release(self, owner: str) -> None:
        self.wanted.pop(owner, None)
        self.world.claims.release(owner)

    @rule(hosts=st.lists(HOSTS, max_size=4))
    def replace(self, hosts: list[str]) -> None:
        before = set(self.world.nodes.live.items())
        kept = {SPELLINGS[host] for host in hosts}
        self.wanted = {owner: host for owner, host in self.wanted.items() if not owner.startswith("-nodes ")}
        self.wanted |= {f"-nodes {host}": SPELLINGS[host] for host in hosts}
        self.world.claims.replace("-nodes ", [Address(host, PORT) for host in hosts])
        for number, where in before:
            if where.host in kept:
                assert self.world.nodes.live.get(number) == where, "stays connected"

    @invariant()
    def nodes_are_what_is_claimed(self) -> None:
        expected = set(self.wanted.values()) - {OWN}
        assert sorted(where.host for where in self.world.nodes.live.values()) == sorted(expected)
        assert len(self.world.claims.owned("")) == len(self.wanted)
        assert set(self.world.claims._owners) == {Address(host, PORT) for host in self.wanted.values()}


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


@given(st.ip_addresses())
def test_an_address_is_one_whatever_its_spelling(address: Any) -> None:
    world = World()
    for owner, host in enumerate((str(address), address.exploded, str(address).upper())):
        world.claim(str(owner), host)
    assert len(world.nodes.live) == 1
