"""A byte-level node that talks to an engine, whose journals are read as they grow."""

from typing import Any

from . import events, h2_node
from .engine import Engine, Sink


class Talking:
    """One node on all three feeds, and what the relay makes of it. Times out as its parts do."""

    def __init__(self, *, segment: int = 0, **settings: Any) -> None:
        """`segment`: bytes that the node writes at a time, 0 for all; `settings` are the engine's."""
        self.engine = Engine(**settings)
        self.node = h2_node.Node()
        self.number = self.engine.add(self.node)
        self.wire = self.node.accept(segment=segment)
        self.sinks = {feed: Sink(self.engine, feed) for feed in events.FEEDS}
        for feed in events.FEEDS:
            self.wire.stream(feed)

    def close(self) -> None:
        """Check the counters, and let go of everything; the node must have seen no error."""
        self.engine.check()
        for sink in self.sinks.values():
            sink.close()
        self.engine.close()
        self.node.close()
        assert self.wire.error is None
