"""relay.names: the table is what one would make from nothing of the objects that are there, whatever came before.

The oracle keeps the objects and ranks all owners of an address anew each time.
"""

import random
import socket
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from peers.virtual import Clock

from relay import names as names_module
from relay.names import MEMORY_DELAY, SWAP_DELAY, SWAP_SHARE, Names, PodNames, ServiceNames, pack
from relay.objects import Pod, Service

Object = dict[str, Any]


class Engine:
    """Takes tables; one that takes some time moves the clock on."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.cost = 0.0
        self.memory = True
        self.tables: list[tuple[float, dict[bytes, str]]] = []

    def set_names(self, names: Mapping[bytes, str]) -> None:
        if not self.memory:
            raise MemoryError("no memory for names")
        self.clock.now += self.cost
        self.tables.append((self.clock.now, dict(names)))

    @property
    def table(self) -> dict[bytes, str]:
        return self.tables[-1][1] if self.tables else {}


class World:
    def __init__(self) -> None:
        self.clock = Clock()
        self.engine = Engine(self.clock)
        self.names = Names(self.engine, self.clock)
        self.pods = PodNames(self.names)
        self.services = ServiceNames(self.names)

    def pod(self, name: str, *ips: str, **how: Any) -> None:
        self.pods.put(msgspec.convert(pod(name, *ips, **how), Pod))

    def service(self, name: str, *ips: str, **how: Any) -> None:
        self.services.put(msgspec.convert(service(name, *ips, **how), Service))

    def table(self) -> dict[str, str]:
        """What the engine has once all is quiet, by the address as text."""
        self.clock.advance(10)
        return {text(address): name for address, name in self.engine.table.items()}


def pod(name: str, *ips: str, host: bool = False, created: int = 0, phase: str = "Running") -> Object:
    return {
        "metadata": metadata(name, created),
        "spec": {"hostNetwork": host},
        "status": {"phase": phase, "podIP": ips[0] if ips else "", "podIPs": [{"ip": ip} for ip in ips]},
    }


def service(name: str, *ips: str, created: int = 0) -> Object:
    return {
        "metadata": metadata(name, created),
        "spec": {"clusterIP": ips[0] if ips else "", "clusterIPs": list(ips)},
    }


def metadata(name: str, created: int) -> Object:
    when = f"2026-11-23T18:{created // 60:02}:{created % 60:02}Z"
    return {"namespace": "default", "name": name, "creationTimestamp": when}


def text(address: bytes) -> str:
    parsed = ip_address(address)
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


# --- who names an address -----------------------------------------------------------------


def test_pods_and_services_name_their_addresses() -> None:
    world = World()
    world.pod("web", "10.0.0.1", "fd00::1")
    world.service("shop", "10.96.0.1", "fd00:96::1")
    assert world.table() == {
        "10.0.0.1": "pod/default/web",
        "fd00::1": "pod/default/web",
        "10.96.0.1": "svc/default/shop",
        "fd00:96::1": "svc/default/shop",
    }
    assert len(world.names) == 4


@pytest.mark.parametrize("ips", [(), ("",), ("None",), ("None", "None")])
def test_a_headless_service_names_nothing(ips: tuple[str, ...]) -> None:
    world = World()
    world.service("shop", *ips)
    assert world.table() == {}
    assert world.engine.tables == []


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_finished_pod_releases_its_address(phase: str) -> None:
    world = World()
    world.pod("job", "10.0.0.1")
    assert world.table() == {"10.0.0.1": "pod/default/job"}
    world.pod("job", "10.0.0.1", phase=phase)
    assert world.table() == {}


def test_a_new_owner_keeps_its_address_when_the_old_one_goes() -> None:
    world = World()
    world.pod("old", "10.0.0.1", created=1)
    world.pod("new", "10.0.0.1", created=2)
    assert world.table() == {"10.0.0.1": "pod/default/new"}
    world.pods.drop("default/old")
    assert world.table() == {"10.0.0.1": "pod/default/new"}
    world.pods.drop("default/new")
    assert world.table() == {}


def test_an_old_owner_that_is_heard_of_late_takes_nothing() -> None:
    world = World()
    world.pod("new", "10.0.0.1", created=2)
    world.pod("old", "10.0.0.1", created=1)
    assert world.table() == {"10.0.0.1": "pod/default/new"}


@pytest.mark.parametrize("first", ["host", "own"])
def test_a_pod_on_its_hosts_network_hides_nobody(first: str) -> None:
    world = World()
    for each in (first, "own" if first == "host" else "host"):
        world.pod(each, "10.0.0.1", host=each == "host", created=9 if each == "host" else 1)
    assert world.table() == {"10.0.0.1": "pod/default/own"}
    world.pods.drop("default/own")
    assert world.table() == {"10.0.0.1": "pod/default/host"}


def test_also_where_nobody_knows_how_old_they_are() -> None:
    world = World()
    world.names.put("pod/default/a-host", ["10.0.0.1"], None, host=True)
    world.names.put("pod/default/own", ["10.0.0.1"], None)
    assert world.table() == {"10.0.0.1": "pod/default/own"}


def test_among_pods_on_a_hosts_network_the_oldest_stays() -> None:
    world = World()
    for number in (5, 3, 7):
        world.pod(f"host-{number}", "10.0.0.1", host=True, created=number)
    assert world.table() == {"10.0.0.1": "pod/default/host-3"}
    world.pods.drop("default/host-7")
    world.pod("host-9", "10.0.0.1", host=True, created=9)
    assert world.table() == {"10.0.0.1": "pod/default/host-3"}
    assert len(world.engine.tables) == 1, "nothing has changed"


def test_several_spellings_of_one_address_are_one() -> None:
    world = World()
    world.pod("web", "fd00::1", "FD00:0:0::1", "fd00:0:0:0:0:0:0:1")
    world.pod("old", "::ffff:10.0.0.1", "10.0.0.1")
    assert world.table() == {"fd00::1": "pod/default/web", "10.0.0.1": "pod/default/old"}
    world.pod("web", "fd00::2")
    world.pods.drop("default/old")
    assert world.table() == {"fd00::2": "pod/default/web"}


@pytest.mark.parametrize(
    "wrong", ["x", "10.0.0", "10.0.0.1.1", "fe80::1%eth0", "1:2", "10.0.0.1/24", "\0", "1.1.1.1\0"]
)
def test_what_is_no_address_is_passed_over(wrong: str) -> None:
    world = World()
    world.pod("web", wrong, "10.0.0.2")
    assert world.table() == {"10.0.0.2": "pod/default/web"}


@given(st.ip_addresses())
def test_addresses_are_packed_as_the_engine_wants_them(address: Any) -> None:
    packed = pack(str(address))
    assert len(packed) == 16
    assert packed[-len(address.packed) :] == address.packed
    if address.version == 4:
        assert socket.inet_ntop(socket.AF_INET6, packed) == f"::ffff:{address}"


@pytest.mark.parametrize("created", [None, "", "yesterday", "²"])
def test_an_object_of_unknown_age_is_the_oldest(created: str | None) -> None:
    world = World()
    world.names.put("pod/default/new", ["10.0.0.1"], "2026-11-23T18:00:00Z")
    world.names.put("pod/default/ageless", ["10.0.0.1"], created)
    assert world.table() == {"10.0.0.1": "pod/default/new"}


def test_what_a_whole_list_does_not_show_is_gone() -> None:
    world = World()
    for name in ("one", "two"):
        world.pod(name, f"10.0.0.{len(name)}" if name == "one" else "10.0.0.9")
        world.service(name, "10.96.0.1" if name == "one" else "10.96.0.9")
    world.pods.keep({"default/two"})
    assert sorted(world.table().values()) == ["pod/default/two", "svc/default/one", "svc/default/two"]
    world.services.keep(set())
    assert sorted(world.table().values()) == ["pod/default/two"]


# --- swaps --------------------------------------------------------------------------------


def test_a_burst_of_changes_is_one_swap_soon() -> None:
    world = World()
    begin = world.clock.now
    for number in range(100):
        world.pod(f"web-{number}", f"10.0.0.{number}")
    world.clock.advance(SWAP_DELAY)
    assert [(when - begin, len(table)) for when, table in world.engine.tables] == [(pytest.approx(SWAP_DELAY), 100)]
    assert world.clock.pending() == []


def test_what_changes_nothing_swaps_nothing() -> None:
    world = World()
    world.pod("web", "10.0.0.1")
    world.clock.advance(10)
    world.pod("web", "10.0.0.1")
    world.pod("none")
    world.pods.drop("default/unknown")
    world.pods.keep({"default/web"})
    assert world.clock.pending() == []


def test_a_costly_swap_is_followed_by_another_later() -> None:
    world = World()
    world.engine.cost = 0.2
    world.pod("one", "10.0.0.1")
    world.clock.advance(SWAP_DELAY)
    first = world.engine.tables[0][0]
    world.pod("two", "10.0.0.2")
    assert world.clock.pending() == [pytest.approx(SWAP_SHARE * 0.2)]
    world.clock.advance(100)
    assert world.engine.tables[1][0] - first == pytest.approx(SWAP_SHARE * 0.2 + 0.2)


def test_without_memory_the_former_names_stay_and_it_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.engine.memory = False
    world.pod("one", "10.0.0.1")
    world.clock.advance(SWAP_DELAY)
    assert "no memory" in caplog.text
    world.pod("two", "10.0.0.2")
    assert world.clock.pending() == [pytest.approx(MEMORY_DELAY)]
    world.engine.memory = True
    world.clock.advance(MEMORY_DELAY)
    assert len(world.engine.table) == 2


@pytest.mark.parametrize("changed", [False, True])
def test_nothing_is_handed_over_after_the_end(changed: bool) -> None:
    world = World()
    if changed:
        world.pod("one", "10.0.0.1")
    world.names.stop()
    world.clock.advance(100)
    assert world.engine.tables == []


# --- any history --------------------------------------------------------------------------

KEYS = ["pod/a", "pod/b", "pod/c", "pod/d", "svc/a", "svc/b"]
SPELLINGS = ["10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2", "fd00::1", "FD00:0::1", "fd00:0:0:0::1", "no", ""]
OBJECTS = st.tuples(
    st.lists(st.sampled_from(SPELLINGS), max_size=3),
    st.booleans(),
    st.integers(0, 3),
    st.sampled_from(["Running", "Running", "Pending", "Succeeded", "Failed"]),
)
Live = dict[str, tuple[list[str], bool, int, str]]


def put(world: World, key: str, value: tuple[list[str], bool, int, str]) -> None:
    kind, name = key.split("/")
    ips, host, created, phase = value
    if kind == "pod":
        world.pod(name, *ips, host=host, created=created, phase=phase)
    else:
        world.service(name, *ips, created=created)


def oracle(live: Live) -> dict[str, str]:
    """The table, from nothing."""
    claims: dict[str, list[tuple[bool, int, str]]] = {}
    for key, (ips, host, created, phase) in live.items():
        kind, name = key.split("/")
        if kind == "svc":
            host = False
        elif phase in ("Succeeded", "Failed"):
            continue
        for spelled in set(ips) - {"no", ""}:
            parsed = ip_address(spelled)
            address = str(getattr(parsed, "ipv4_mapped", None) or parsed)
            claims.setdefault(address, []).append((host, created if host else -created, f"{kind}/default/{name}"))
    return {address: min(owners)[2] for address, owners in claims.items()}


class AnyHistory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.live: Live = {}

    @rule(key=st.sampled_from(KEYS), value=OBJECTS)
    def changes(self, key: str, value: tuple[list[str], bool, int, str]) -> None:
        self.live[key] = value
        put(self.world, key, value)

    @rule(key=st.sampled_from(KEYS))
    def goes(self, key: str) -> None:
        self.live.pop(key, None)
        kind, name = key.split("/")
        (self.world.pods if kind == "pod" else self.world.services).drop(f"default/{name}")

    @rule(kind=st.sampled_from(["pod", "svc"]), kept=st.sets(st.sampled_from("abcd")))
    def is_listed(self, kind: str, kept: set[str]) -> None:
        self.live = {key: value for key, value in self.live.items() if key[:3] != kind or key[4:] in kept}
        (self.world.pods if kind == "pod" else self.world.services).keep({f"default/{name}" for name in kept})

    @rule(seconds=st.sampled_from([0.01, SWAP_DELAY, 1.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.clock.advance(seconds)

    @invariant()
    def one_swap_at_most_is_due(self) -> None:
        assert len(self.world.clock.pending()) <= 1

    @invariant()
    def the_engine_has_it_when_no_swap_is_due(self) -> None:
        expected = oracle(self.live)
        assert len(self.world.names) == len(expected)
        if not self.world.clock.pending():
            assert {text(address): name for address, name in self.world.engine.table.items()} == expected

    @invariant()
    def no_claimant_is_remembered_that_has_gone(self) -> None:
        rivals = self.world.names._rivals
        for address, claimants in rivals.items():
            assert len(claimants) > 1, address
            assert claimants <= set(self.world.names._owners)

    def teardown(self) -> None:
        assert self.world.table() == oracle(self.live)


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)


@given(live=st.dictionaries(st.sampled_from(KEYS), OBJECTS), seed=st.integers(0, 1 << 32))
def test_the_order_in_which_objects_are_heard_of_does_not_matter(live: Live, seed: int) -> None:
    tables = []
    for _ in range(3):
        keys = list(live)
        random.Random(seed).shuffle(keys)
        seed += 1
        world = World()
        for key in keys:
            put(world, key, live[key])
        tables.append(world.table())
    assert tables == [oracle(live)] * 3


def test_a_table_of_a_large_cluster_shares_its_addresses() -> None:
    """An address is kept once, not for the object and for the table."""
    world = World()
    world.names.put("pod/default/web", ["10.0.0.1"], None)
    (address,) = world.names._names
    assert address is world.names._owners["pod/default/web"].addresses
    assert len(address) == names_module.WIDTH
