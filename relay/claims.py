"""Claims on nodes: one connection an address, however many pods or settings ask for it.

An owner (a pod, or the setting -nodes) claims one address at a time. The first claim on an address
makes its node known, the last one that goes takes it away.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Set
from ipaddress import ip_address
from typing import NamedTuple, Protocol

from relay import log
from relay.settings import Address

logger = log.logger(__name__)


class Nodes(Protocol):
    """The part of the node table that claims use."""

    def add(self, where: Address, name: str = ..., *, others: tuple[str, ...] = ...) -> int: ...
    def remove(self, number: int) -> None: ...


class Claim(NamedTuple):
    """What an owner asks for: an address, what to call the node, and further hosts that lead to it."""

    where: Address
    name: str = ""
    others: tuple[str, ...] = ()


class Claims:
    """Who claims which address. Every method is called on the loop's thread."""

    def __init__(self, nodes: Nodes, is_self: Callable[[Address], bool]) -> None:
        """`is_self` tells the relay's own address, which is never made a node."""
        self._nodes = nodes
        self._is_self = is_self
        self._claims: dict[str, Claim] = {}
        self._owners: dict[Address, set[str]] = {}
        self._numbers: dict[Address, int] = {}

    def claim(self, owner: str, wanted: Claim) -> None:
        """An owner asks for an address, in place of the one it asked for before."""
        wanted = wanted._replace(where=_plain(wanted.where))
        held = self._claims.get(owner)
        if held == wanted:
            return
        if held is not None and held.where != wanted.where:
            self.release(owner)
        self._claims[owner] = wanted
        owners = self._owners.setdefault(wanted.where, set())
        owners.add(owner)
        if wanted.where not in self._numbers:
            if self._is_self(wanted.where):
                logger.warning(
                    "not a node: the relay's own address", extra=log.fields(node=owner, address=str(wanted.where))
                )
                return
            self._numbers[wanted.where] = self._nodes.add(wanted.where, wanted.name, others=wanted.others)

    def release(self, owner: str) -> None:
        """An owner asks for nothing any more; one that never did is ignored."""
        held = self._claims.pop(owner, None)
        if held is None:
            return
        owners = self._owners[held.where]
        owners.discard(owner)
        if not owners:
            del self._owners[held.where]
            number = self._numbers.pop(held.where, None)
            if number is not None:
                self._nodes.remove(number)

    def owned(self, prefix: str) -> list[str]:
        """The owners whose names begin with a prefix."""
        return [owner for owner in self._claims if owner.startswith(prefix)]

    def replace(self, prefix: str, wanted: Iterable[Address]) -> None:
        """Claim just these addresses for the owners with a prefix: what is there stays connected."""
        claims = {f"{prefix}{where}": Claim(where) for where in wanted}
        for owner, claim in claims.items():
            self.claim(owner, claim)
        self.keep(prefix, claims.keys())

    def keep(self, prefix: str, owners: Set[str]) -> None:
        """Release what the owners with a prefix claim, but for these."""
        for owner in self.owned(prefix):
            if owner not in owners:
                self.release(owner)


def _plain(where: Address) -> Address:
    """An address in the one spelling that it is compared in."""
    try:
        parsed = ip_address(where.host)
    except ValueError:
        return Address(where.host.lower(), where.port)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return Address(str(mapped or parsed), where.port)


def own_address(bind: str, port: int) -> Callable[[Address], bool]:
    """A test for the addresses that this process itself listens on: `bind`, or any where it names none."""
    own = _plain(Address(bind, port))

    def is_self(where: Address) -> bool:
        if where.port != port:
            return False
        return where == own if own.host not in ("", "0.0.0.0", "::") else _is_local(where.host)

    return is_self


def _is_local(host: str) -> bool:
    """Whether a numeric address is this machine's: then the kernel would talk to it from itself."""
    try:
        family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        return False  # a name: the engine finds out when it meets itself
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))  # sends nothing: only a route and a source address are chosen
            return str(probe.getsockname()[0]) == host
    except OSError:
        return False
