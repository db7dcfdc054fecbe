"""Names of remote hosts: which pod or service of the cluster has an address.

The table that the engine enriches logs with. Several objects may claim one address for a while, or
for good; the choice among them does not depend on the order in which they were heard of:

- an object of its own network before a pod on its host's network, whose address is the node's;
- then the newest, because an address that was given again belongs to the pod that got it last;
- among pods on a host's network the oldest, which stays the same while others come and go.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import ClassVar, Protocol

from msgspec import Struct

from relay import log
from relay.clock import Clock, Timer
from relay.objects import Pod, Service

logger = log.logger(__name__)

SWAP_DELAY = 0.1  # seconds: changes come in bursts, and one new table holds them all
SWAP_SHARE = 20  # a swap that takes t seconds is followed by another after 20 t at the earliest
MEMORY_DELAY = 60.0  # seconds before another try where there was no memory for the table

WIDTH = 16  # bytes of an address, IPv4 as ::ffff:a.b.c.d
MAPPED = b"\0" * 10 + b"\xff\xff"


class Table(Protocol):
    """The part of the native engine that takes the table."""

    def set_names(self, names: Mapping[bytes, str]) -> None: ...


class _Owner(Struct, gc=False, frozen=True):
    """An object that has addresses; `addresses` has WIDTH bytes for each."""

    addresses: bytes
    host: bool
    created: int

    def rank(self, text: str) -> tuple[bool, int, str]:
        """The least of those that claim an address names it."""
        return self.host, self.created if self.host else -self.created, text


class Names:
    """Address to name, for all pods and services. Every method is called on the loop's thread."""

    def __init__(self, engine: Table, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._owners: dict[str, _Owner] = {}
        self._names: dict[bytes, str] = {}
        # All who claim an address, for the few that more than one does.
        self._rivals: dict[bytes, set[str]] = {}
        self._swap: Timer | None = None
        self._earliest = 0.0

    def __len__(self) -> int:
        return len(self._names)

    def put(self, text: str, addresses: list[str], created: str | None, *, host: bool = False) -> None:
        """An object has these addresses now.

        Args:
            text: its name in the table, "pod/default/web-0"; a key, too.
            addresses: as text; what is not an address is passed over.
            created: when it was made, as in "2026-11-23T18:00:00Z".
            host: whether it lives on its node's own network.
        """
        packed = b"".join(pack(address) for address in addresses)
        digits = "".join(filter(str.isdecimal, created or ""))
        owner = _Owner(packed, host, int(digits[:14] or 0))
        held = self._owners.get(text)
        if held == owner or (held is None and not packed):
            return
        self.drop(text)
        if not packed:
            return
        self._owners[text] = owner
        for address in _split(packed):
            self._claim(address, text)

    def drop(self, text: str) -> None:
        """An object is gone, or has lost its addresses; an unknown one is ignored."""
        owner = self._owners.pop(text, None)
        if owner is not None:
            for address in _split(owner.addresses):
                self._release(address, text)

    def keep(self, prefix: str, keys: set[str]) -> None:
        """Forget the objects with a prefix ("pod/") that are not among the keys."""
        for text in [text for text in self._owners if text.startswith(prefix)]:
            if text.removeprefix(prefix) not in keys:
                self.drop(text)

    def _claim(self, address: bytes, text: str) -> None:
        holder = self._names.get(address)
        if holder is not None and holder != text:
            self._rivals.setdefault(address, {holder}).add(text)
            if self._rank(holder) < self._rank(text):
                return
        self._names[address] = text
        self._changed()

    def _release(self, address: bytes, text: str) -> None:
        rivals = self._rivals.get(address, set())
        rivals.discard(text)
        if len(rivals) <= 1:
            self._rivals.pop(address, None)
        if self._names.get(address) != text:
            return
        if rivals:
            self._names[address] = min(rivals, key=self._rank)
        else:
            del self._names[address]
        self._changed()

    def _rank(self, text: str) -> tuple[bool, int, str]:
        return self._owners[text].rank(text)

    def _changed(self) -> None:
        if self._swap is None:
            delay = max(SWAP_DELAY, self._earliest - self._clock.time())
            self._swap = self._clock.call_later(delay, self._hand_over)

    def _hand_over(self) -> None:
        begin = self._clock.time()
        self._swap = None
        try:
            self._engine.set_names(self._names)
        except MemoryError as error:
            logger.warning("names of remote hosts are out of date: no memory", extra=log.fields(error=str(error)))
            self._swap = self._clock.call_later(MEMORY_DELAY, self._hand_over)
            return
        end = self._clock.time()
        self._earliest = end + SWAP_SHARE * (end - begin)

    def stop(self) -> None:
        """Hand over nothing any more."""
        if self._swap is not None:
            self._swap.cancel()
            self._swap = None


class _KindNames:
    """Names of the objects of a kind; with `put` a target of reflect.Reflector."""

    PREFIX: ClassVar[str]

    def __init__(self, names: Names) -> None:
        self._names = names

    def drop(self, key: str) -> None:
        """An object is gone."""
        self._names.drop(self.PREFIX + key)

    def keep(self, keys: set[str]) -> None:
        """Any other object is gone."""
        self._names.keep(self.PREFIX, keys)


class PodNames(_KindNames):
    """Names of pods."""

    PREFIX = "pod/"

    def put(self, pod: Pod) -> None:
        """A pod is there, new or changed. One that has finished has no addresses any more."""
        meta = pod.metadata
        host = pod.spec.host_network
        self._names.put(self.PREFIX + meta.key, pod.addresses, meta.creation_timestamp, host=host)


class ServiceNames(_KindNames):
    """Names of services."""

    PREFIX = "svc/"

    def put(self, service: Service) -> None:
        """A service is there, new or changed. A headless one has no address."""
        meta = service.metadata
        self._names.put(self.PREFIX + meta.key, service.addresses, meta.creation_timestamp)


def pack(address: str) -> bytes:
    """An address as WIDTH bytes; nothing for what is not one."""
    try:
        if ":" in address:
            return socket.inet_pton(socket.AF_INET6, address)
        return MAPPED + socket.inet_pton(socket.AF_INET, address)
    except (OSError, ValueError):
        return b""


def _split(packed: bytes) -> list[bytes]:
    return [packed[at : at + WIDTH] for at in range(0, len(packed), WIDTH)]
