"""What a test asks a relay that finds its nodes in a cluster."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .command import Command, Line, free_port, parse

PATIENCE = 60.0  # s after which what has not come will not; backoff alone can take some
PAUSE = 0.02  # s between two questions: counters do not announce themselves

Counters = dict[str, Any]


class ClusterRelay(Command):
    """A serving relay that reads its nodes from a cluster.

    Args:
        kubeconfig: the flag's value; without, the relay is left to look for itself.
        node_port: of all nodes of the cluster.
        arguments: more flags.
        port: its own.
    """

    def __init__(
        self, kubeconfig: Path | None, node_port: int, *arguments: str, port: int = 0, **keywords: Any
    ) -> None:
        self.port = port or free_port()
        where = ("-kubeconfig", str(kubeconfig)) if kubeconfig else ()
        ports = ("-gRPCPort", str(self.port), "-node-port", str(node_port))
        super().__init__(*ports, "-log-level", "debug", *where, *arguments, **keywords)
        try:
            self.line("serving")
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def until(self, holds: Callable[[Counters], object], what: str, seconds: float = PATIENCE) -> Counters:
        """Ask for the counters until they say so."""
        end = time.monotonic() + seconds
        while True:
            counters = self.counters()
            if holds(counters):
                return counters
            assert time.monotonic() < end, f"{what} did not come: {counters}\n" + "\n".join(self.said())
            time.sleep(PAUSE)

    def until_streaming(self, *addresses: str) -> Counters:
        """Wait until it knows just these nodes, and all of them stream."""
        wanted = sorted(addresses)
        return self.until(lambda now: hosts(now) == wanted and streaming(now) == wanted, f"nodes {wanted}")

    def until_listed(self, *names: str) -> Counters:
        """Wait until these collections ("pods", "enrichment_pods", …), by default all three, have been listed."""
        wanted = names or ("pods", "enrichment_pods", "enrichment_services")
        return self.until(lambda now: all(now["kubernetes"][name]["lists"] for name in wanted), f"lists of {wanted}")

    def warned(self, *parts: str) -> Line:
        """The first warning that has all of these parts somewhere, said already or still to come."""

        def wanted(line: Line) -> bool:
            return line.get("level") == "warn" and all(part in str(line) for part in parts)

        return next(filter(wanted, map(parse, self.log)), None) or self.line(wanted)

    def said(self) -> list[str]:
        """Its log so far, without counters."""
        return [line for line in self.log if '"msg":"counters"' not in line]


def hosts(counters: Counters) -> list[str]:
    """The hosts of the nodes that the relay knows, sorted."""
    return sorted(_host(node) for node in counters["nodes"])


def streaming(counters: Counters) -> list[str]:
    """The hosts of the nodes that stream, sorted."""
    return sorted(_host(node) for node in counters["nodes"] if node["state"] == "streaming")


def node_at(counters: Counters, address: str) -> Counters:
    """The counters of the node with that host."""
    (found,) = (node for node in counters["nodes"] if _host(node) == address)
    return dict(found)


def _host(node: Counters) -> str:
    # A node that has just been removed has no address any more, until the reactor knows, too.
    return str(node.get("address", "")).rpartition(":")[0].strip("[]")
