"""Names to addresses, without stopping the loop or the end of the process.

getaddrinfo can block for many seconds, and asyncio's own executor is joined at exit; so the
look-ups run on a few daemon threads, started when the first name (not a numeric address) comes.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any

from relay.settings import is_ip

Lookup = Callable[[str, int], Sequence[tuple[Any, ...]]]
Done = Callable[[tuple[str, ...], str], None]

# Enough that a few dead name servers' names do not hold up the rest; each costs a thread.
THREADS = 4


def _lookup(host: str, port: int) -> Sequence[tuple[Any, ...]]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


class Resolver:
    """Resolves on threads, and answers on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, lookup: Lookup = _lookup) -> None:
        self._loop = loop
        self._lookup = lookup
        self._queue: Any = None

    def resolve(self, host: str, port: int, done: Done) -> None:
        """Call `done(addresses, error)` on the loop, soon: one of the two is empty.

        The addresses are numeric, each once, in the order that the system prefers. What was
        resolved is never kept: a name is asked for again at each try.
        """
        if is_ip(host):
            self._loop.call_soon(done, (host,), "")
            return
        if self._queue is None:
            self._start()
        self._queue.put((host, port, done))

    def _start(self) -> None:
        import queue
        import threading

        self._queue = queue.SimpleQueue()
        for number in range(THREADS):
            threading.Thread(target=self._work, name=f"resolver-{number}", daemon=True).start()

    def _work(self) -> None:
        while True:
            host, port, done = self._queue.get()
            addresses: tuple[str, ...] = ()
            error = ""
            try:
                found = self._lookup(host, port)
                addresses = tuple(dict.fromkeys(str(address[4][0]) for address in found))
            except Exception as reason:  # whatever it is, its node must hear of it, or it waits for ever
                error = f"cannot resolve {host}: {getattr(reason, 'strerror', None) or reason}"
            else:
                if not addresses:
                    error = f"cannot resolve {host}: no addresses"
            try:
                self._loop.call_soon_threadsafe(done, addresses, error)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return
