"""Nodes with addresses of their own on this machine: all of 127.0.0.0/8 is its own."""

import contextlib
import socket
from collections.abc import Iterator

from . import events
from .engine import Engine


class Node(Engine):
    """A node at an address and a port; `tell` makes it send an event.

    Args:
        address: of the loopback network.
        port: the same for all nodes of a cluster.
    """

    def __init__(self, address: str, port: int) -> None:
        super().__init__(listen=False, event_per_frame=True)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.address = address
        self.port = port
        try:
            with socket.create_server((address, port), family=family, backlog=128) as listener:
                self.native.listen(listener.fileno())
        except BaseException:
            self.close()
            raise

    def tell(self, number: int = 0, **fields: object) -> bytes:
        """Send a log with that number; returns its bytes."""
        sent = events.event(events.LOGS, number, **fields)
        self.publish(events.LOGS, sent)
        return sent


@contextlib.contextmanager
def nodes(port: int, *addresses: str) -> Iterator[dict[str, Node]]:
    """Nodes that listen, by address; a cluster does not know of them yet."""
    with contextlib.ExitStack() as stack:
        made = {address: stack.enter_context(Node(address, port)) for address in addresses}
        yield made
        # Their readers end at their next look around: all at the same time rather than one after the other.
        for node in made.values():
            node.check()
            node._ending.set()
