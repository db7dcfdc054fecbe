"""A large cluster, and what it costs a relay's memory: 11,000 pods and 2,000 services of usual size."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import events
from .cluster import Cluster
from .command import Command, free_port
from .discovered import PATIENCE, PAUSE, ClusterRelay
from .loopback import Node

MIB = 1 << 20
PODS = 11_000
SERVICES = 2_000
NAMES = PODS + SERVICES + 1  # and the API server's own service

MOST_GROWN = 12 * MIB
MOST = 128 * MIB  # what the Go relay's pod is given

EVENT_BYTES = 1200
BATCH = 200


@dataclass(frozen=True)
class Figures:
    """Resident bytes of relays.

    Attributes:
        empty: of one that follows an empty cluster.
        watched: of the same after it has heard of every object through its watches.
        listed: of one that was started in the full cluster.
        peak: the most that the latter ever had, journals full.
    """

    empty: int
    watched: int
    listed: int
    peak: int

    @property
    def grown(self) -> int:
        """What the cluster's size costs, at the most."""
        return max(self.watched, self.listed) - self.empty


def resident(command: Command, field: str = "VmRSS") -> int:
    """Resident bytes of a process; with VmHWM the most it ever had."""
    for line in Path(f"/proc/{command.pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise AssertionError(field)


def measure(folder: Path) -> Figures:
    """Build the cluster, and look at relays in it."""
    with Cluster(folder) as cluster, _relay(cluster, names=1) as relay:
        empty = resident(relay)
        cluster.fill(PODS, SERVICES)
        _wait_names(relay, NAMES)
        watched = resident(relay)
        with _relay(cluster, names=NAMES) as another:
            listed = resident(another)
        port = free_port()
        with Node("127.0.7.1", port) as node, _relay(cluster, names=NAMES, port=port) as full:
            cluster.node("one", node.address)
            full.until_streaming(node.address)
            _fill_journals(node, full)
            peak = resident(full, "VmHWM")
    return Figures(empty, watched, listed, peak)


@contextmanager
def _relay(cluster: Cluster, names: int, port: int = 1) -> Iterator[ClusterRelay]:
    """A relay with the default settings of a machine without a memory limit, once it knows so many names."""
    with ClusterRelay(cluster.kubeconfig(), port, "-journal-bytes", "64MiB") as relay:
        relay.until_listed()
        _wait_names(relay, names)
        yield relay


def _wait_names(relay: ClusterRelay, count: int) -> None:
    """Wait until it knows so many, and the engine has them: that frees what was there before."""
    relay.until(lambda now: now["kubernetes"]["names"] == count, f"{count} names")
    before = -1
    end = time.monotonic() + PATIENCE
    while (now := resident(relay)) != before:
        assert time.monotonic() < end, "its memory does not come to rest"
        before = now
        time.sleep(1)  # the table is handed over at most a second after the last change


def _fill_journals(node: Node, relay: ClusterRelay) -> None:
    """Events on all feeds until the relay's journals recycle segments."""
    batches = {feed: events.frames([events.event(feed, 1, EVENT_BYTES)] * BATCH) for feed in events.FEEDS}
    end = time.monotonic() + PATIENCE
    while True:
        for feed, frames in batches.items():
            for _ in range(20):
                node.publish_frames(feed, frames)
        for feed in events.FEEDS:
            node.drain(feed)
        held = relay.counters()["feeds"].values()
        if all(feed["first"] > 0 for feed in held):
            return
        assert time.monotonic() < end, f"journals do not fill: {held}"
        time.sleep(PAUSE)
