"""An engine in this process, with what a test needs around it: a port, its reports, and the check of its counters."""

import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from relay import _fastpath

from . import events
from .closing import Closing
from .tls_door import Door
from .trust import Trust

WAIT = 120.0  # a bound for what hangs: nothing that works takes so long, under a sanitizer on a busy machine neither
FIELDS = {
    _fastpath.REPORT_NODE: ("node", "state", "code", "text"),
    _fastpath.REPORT_STREAM: ("node", "feed", "code", "text"),
    _fastpath.REPORT_CALL: ("call", "what", "path", "message"),
    _fastpath.REPORT_SUBSCRIBER: ("subscriber", "what", "feed", "peer", "delivered", "lost", "code"),
    _fastpath.REPORT_DRAINED: ("ticket",),
    _fastpath.REPORT_TLS: ("peer", "text"),
    _fastpath.REPORT_STOPPED: ("code", "text"),
}


class Listening(Protocol):
    """Any peer that a relay can connect to."""

    port: int


@dataclass
class At:
    """A port to connect to, where that is all there is of a peer."""

    port: int


class Report:
    """A report with its fields by name."""

    def __init__(self, kind: int, *values: Any) -> None:
        self.kind = kind
        self.fields = dict(zip(FIELDS[kind], values, strict=True))

    def __getattr__(self, name: str) -> Any:
        try:
            return self.fields[name]
        except KeyError:
            raise AttributeError(name) from None

    def __repr__(self) -> str:
        return f"Report({self.kind}, {self.fields})"


class Engine:
    """A started engine that serves a loopback port.

    Args:
        handle: methods that Python answers.
        listen: without, it serves nobody: an engine with a node is then a subscriber.
        tls: with it the engine speaks TLS with everybody.
        doors: peers that do not speak TLS come to it, and it to them, through doors that do.
        settings: of relay._fastpath.Engine.
    """

    def __init__(
        self,
        *,
        handle: list[str] | None = None,
        listen: bool = True,
        tls: Trust | None = None,
        doors: bool = False,
        **settings: Any,
    ) -> None:
        self.native = _fastpath.Engine(**settings)
        self.history: list[Report] = []
        self._changed = threading.Condition()
        self._ending = threading.Event()
        self._paused = threading.Lock()
        self._nodes = 0
        self._tickets = 0
        self.port = 0  # where peers connect
        self.own_port = 0  # where it listens itself: another one where there are doors
        self.closed = False
        if handle:
            self.native.handle(handle)
        self.doors: list[Door] = []
        self._trust = tls if doors else None
        # Payload bytes of a DATA frame. One record of TLS holds 16,384 bytes, the frame's header among them.
        # The kernel, where it encrypts, makes records as it likes.
        self.largest_frame = 16_384 if tls is None or tls.server().kernel else 16_384 - 9
        if tls is not None:
            self.native.set_tls(server=tls.server(), client=tls.client())
        self.native.start()
        if listen:
            with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
                self.port = listener.getsockname()[1]
                self.native.listen(listener.fileno())
        self.own_port = self.port
        if self._trust is not None:
            self.doors.append(Door(self.port, self._trust.context(server=False)))
            self.port = self.doors[0].port
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def set_tls(self, *, server: _fastpath.Tls | None, client: _fastpath.Tls | None) -> None:
        """What new connections speak from here on, with subscribers and with nodes."""
        self.native.set_tls(server=server, client=client)
        self.counters()  # whoever comes before the command is looked at, comes before it

    # Nodes ------------------------------------------------------------------------------------

    def add(self, peer: Listening, feeds: int = 7, address: str = "127.0.0.1") -> int:
        """Make a peer known as a node and connect to it; does not wait. Returns the node's number."""
        number = self.next_node()
        self.native.add_node(number, feeds)
        self.reach(number, peer.port, address)
        return number

    def next_node(self) -> int:
        """The number of the next node."""
        self._nodes += 1
        return self._nodes - 1

    def reach(self, node: int, port: int, address: str = "127.0.0.1") -> None:
        """Connect to a node that is known; does not wait."""
        if self._trust is not None:
            context = self._trust.context(server=True)
            self.doors.append(Door(port, context, secure_outside=True, host=address))
            address, port = "127.0.0.1", self.doors[-1].port
        self.native.connect_node(node, address, port)

    def peer(self, sock: socket.socket) -> str:
        """What the engine calls the client that has this socket."""
        address = sock.getsockname()
        for door in self.doors:
            address = door.behind.get(address, address)
        return f"{address[0]}:{address[1]}"

    def connect(self, peer: Listening, feeds: int = 7) -> int:
        """Connect to a peer that plays along by itself, and wait until it streams."""
        number = self.add(peer, feeds)
        self.wait_state(number, _fastpath.NODE_STREAMING)
        return number

    def wait_state(self, node: int, state: int) -> Report:
        """Wait until the node's newest report says that state."""

        def newest(_: Self) -> Report | None:
            for report in reversed(self.history):
                if report.kind == _fastpath.REPORT_NODE and report.node == node:
                    return report if report.state == state else None
            return None

        return self.wait(newest, f"state {state} of node {node}")

    def wait_failure(self, node: int) -> Report:
        """Wait until a node's connection has failed or ended: the report says why."""
        return self.wait_state(node, _fastpath.NODE_IDLE)

    # Reports ----------------------------------------------------------------------------------

    def wait(self, look: Callable[[Self], Any], what: str) -> Any:
        """Wait until `look` returns something true; looked at after every report. That is returned."""
        found: Any = None

        def holds() -> bool:
            nonlocal found
            found = look(self)
            return bool(found)

        with self._changed:
            assert self._changed.wait_for(holds, WAIT), f"{what} did not come; reports: {self.history[-20:]}"
        return found

    def wait_report(self, kind: int, times: int = 1, **fields: Any) -> Report:
        """Wait for a report of a kind with these fields, the first or a later one (`times`)."""

        def look(_: Self) -> Report | None:
            found = self.reports(kind, **fields)
            return found[times - 1] if len(found) >= times else None

        result: Report = self.wait(look, f"report {kind} with {fields}, {times} times")
        return result

    def reports(self, kind: int, **fields: Any) -> list[Report]:
        """Those that have come so far."""
        with self._changed:
            return [
                report
                for report in self.history
                if report.kind == kind and all(report.fields[name] == value for name, value in fields.items())
            ]

    # Events -----------------------------------------------------------------------------------

    def publish(self, feed: int, *sent: bytes) -> None:
        """Events from Python, waiting while the queue is full."""
        self.publish_frames(feed, events.frames(sent))

    def publish_frames(self, feed: int, data: bytes) -> None:
        """Frames from Python, waiting while the queue is full."""
        deadline = time.monotonic() + WAIT
        while True:
            try:
                self.native.publish(feed, data)
                return
            except BlockingIOError:
                assert time.monotonic() < deadline, "the command queue stays full"
                time.sleep(0.001)  # nothing tells when there is room

    def drain(self, feed: int) -> None:
        """Wait until every reader has taken what the feed holds now."""
        self._tickets += 1
        self.native.drain(self._tickets, feed)
        self.wait_report(_fastpath.REPORT_DRAINED, ticket=self._tickets)

    # Counters ---------------------------------------------------------------------------------

    def counters(self) -> dict[str, Any]:
        """The engine's counters, nodes and subscribers by their numbers."""
        counters = self.native.counters()
        counters["nodes"] = {each["node"]: each for each in counters["nodes"]}
        counters["subscribers"] = {each["subscriber"]: each for each in counters["subscribers"]}
        return counters

    def node(self, number: int) -> dict[str, Any]:
        """A node's counters."""
        found: dict[str, Any] = self.counters()["nodes"][number]
        return found

    def feed(self, feed: int) -> dict[str, Any]:
        """A feed's counters."""
        found: dict[str, Any] = self.counters()["feeds"][events.NAMES[feed]]
        return found

    def subscribers(self) -> list[dict[str, Any]]:
        """The counters of all subscribers."""
        return list(self.counters()["subscribers"].values())

    def wait_counters(self, holds: Callable[[dict[str, Any]], Any], what: str = "counters") -> dict[str, Any]:
        """Wait until the counters say so. They do not announce themselves: this asks again and again."""
        deadline = time.monotonic() + WAIT
        while True:
            counters = self.counters()
            if holds(counters):
                return counters
            assert time.monotonic() < deadline, f"{what} did not come: {counters}"
            time.sleep(0.005)

    def wait_received(self, feed: int, count: int) -> None:
        """Wait until a feed's journal has taken so many events from nodes."""
        self.wait_counters(lambda now: now["feeds"][events.NAMES[feed]]["received"] >= count, f"{count} events")

    def wait_subscribers(self, count: int) -> None:
        """Wait until it serves so many streams of feeds."""
        self.wait_counters(lambda now: len(now["subscribers"]) == count, f"{count} subscribers")

    def check(self) -> None:
        """Invariants 1 and 2 of the design, as far as one snapshot shows them."""
        counters = self.counters()
        for subscriber in counters["subscribers"].values():
            accounted = sum(subscriber[name] for name in ("delivered", "filtered", "lost", "in_flight"))
            assert accounted == subscriber["passed"], subscriber
        for name, feed in counters["feeds"].items():
            assert feed["next"] == feed["received"] + feed["published"], (name, feed)
            assert feed["first"] <= feed["next"], (name, feed)

    # The end ----------------------------------------------------------------------------------

    def shutdown(self, seconds: float = 5.0) -> Report:
        """End gracefully, and wait for the end."""
        self.native.shutdown(seconds)
        return self.wait_report(_fastpath.REPORT_STOPPED)

    def close(self) -> None:
        """End at once. Its reports are taken to the last one."""
        self.closed = True
        self._ending.set()
        self._reader.join(WAIT)
        self.native.close()
        for door in self.doors:
            door.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and not self.closed and not self.reports(_fastpath.REPORT_STOPPED):
                self.check()
        finally:
            self.close()

    def pause(self) -> None:
        """Take no reports until `resume`."""
        self._paused.acquire()

    def resume(self) -> None:
        """Take reports again."""
        self._paused.release()

    def _read(self) -> None:
        waiting = select.poll()  # not select(), which knows no descriptor above 1023
        waiting.register(self.native.fileno(), select.POLLIN)
        while not self._ending.is_set():
            # A short wait, so that `close` needs no descriptor of its own to end it.
            if not waiting.poll(50):
                continue
            with self._paused:
                taken = [Report(*report) for report in self.native.reports()]
                with self._changed:
                    self.history += taken
                    self._changed.notify_all()


class Sink(Closing):
    """A cursor, read as a sink would read it."""

    def __init__(self, engine: Engine, feed: int, *, at_head: bool = False) -> None:
        self.cursor = _fastpath.Cursor(engine.native, feed, at_head=at_head)
        self._waiting = select.poll()
        self._waiting.register(self.cursor.fileno(), select.POLLIN)
        self._read: list[bytes] = []

    def take(self, count: int) -> list[bytes]:
        """The next so many events; waits for them."""
        deadline = time.monotonic() + WAIT
        while len(self._read) < count:
            data = self.cursor.read()
            if data:
                messages, rest = events.unframe(data)
                assert not rest, "a cursor reads whole frames"
                self._read += messages
                continue
            left = deadline - time.monotonic()
            assert left > 0, f"{len(self._read)} of {count} events came"
            self._waiting.poll(left * 1000)
        taken, self._read = self._read[:count], self._read[count:]
        return taken

    def close(self) -> None:
        self.cursor.close()
