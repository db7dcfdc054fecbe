"""Each allocation of a conversation fails once: what it was for may be lost, and nothing else.

A failure may cost an event, a call or a connection, which then ends and says so. The engine lives on, nobody waits for
ever (every wait here is bounded), the counters still agree, and at the end every block has been given back.

Only builds with assertions can make an allocation fail: `make debug`, `make sanitize-address`.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from h2.exceptions import ProtocolError
from peers import events, h2_client, h2_node
from peers.engine import WAIT, Engine, Report, Sink
from peers.events import LOGS
from peers.trust import trust

from relay import _fastpath

METHOD = "/test.Service/Method"
WINDOW = 1000  # bytes of each stream's first window
LARGE = 3000  # bytes of an event that does not fit it
MOST = 3000  # allocations of one conversation, far more than there are

fail_allocation: Callable[[_fastpath.Engine, int], None] | None = getattr(_fastpath, "_fail_allocation", None)
pytestmark = pytest.mark.skipif(fail_allocation is None, reason="this build cannot make an allocation fail")


@contextlib.contextmanager
def forgiving() -> Iterator[None]:
    """What has ended makes some things impossible, and a call without memory raises; what hangs is an error."""
    try:
        yield
    except (OSError, MemoryError, ProtocolError):
        pass
    except AssertionError as error:
        if "timeout" in str(error) or "did not come; reports" in str(error):
            raise


@contextlib.contextmanager
def client(relay: Engine) -> Iterator[h2_client.Client]:
    """A client whose windows stay as they are."""
    wire = h2_client.Client(relay.port, reopen=False, settings={"initial_window_size": WINDOW})
    try:
        yield wire
    finally:
        wire.close()


def wait(wire: h2_client.Client, stream: int, holds: Callable[[], object], what: str) -> None:
    """Wait until it holds, or the stream or its connection is over. Some of it announces itself to nobody here."""
    deadline = time.monotonic() + WAIT
    while not (wire.closed or wire.streams[stream].over or holds()):
        assert time.monotonic() < deadline, f"timeout: {what}"
        time.sleep(0.001)


def from_a_node(relay: Engine, number: int) -> None:
    """A node connects, sends events, whole and in pieces, one of them to be repaired, and leaves."""
    with h2_node.Node() as node:
        seen = len(relay.history)
        with forgiving():
            relay.native.add_node(number)
            relay.reach(number, node.port)

            def settled(relay: Engine) -> list[int]:
                found = [each for each in relay.history[seen:] if each.kind == _fastpath.REPORT_NODE]
                return [each.state for each in found if each.state in (_fastpath.NODE_STREAMING, _fastpath.NODE_IDLE)]

            # Without a descriptor's worth of memory the relay may not even connect.
            node._listener.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                wire = node.accept()
                if relay.wait(settled, "the node's state")[-1] == _fastpath.NODE_STREAMING:
                    broken = events.field(2, b"\xff")
                    wire.say(LOGS, events.frames([*events.events(LOGS, 3, 100), broken]))
                    wire.say(LOGS, events.frames([events.event(LOGS, 5, 2000)]), size=300)
                    wire.round_trip()
                wire.close()
        with forgiving():
            relay.native.remove_node(number)


def to_subscribers(relay: Engine) -> None:
    """One stops in the middle of an event, while the journal turns over and the other reads on."""
    with client(relay) as slow, client(relay) as quick, forgiving():
        streams = []
        for wire in (slow, quick):
            streams.append(stream := wire.call("/feeder.LogService/WatchLogs", b""))
            wait(wire, stream, lambda wire=wire, stream=stream: wire.streams[stream].headers, "response headers")
        with forgiving():
            quick.window(1 << 20)
            quick.window(1 << 20, streams[1])
        for number in range(12):
            with forgiving():
                relay.publish(LOGS, events.event(LOGS, number, LARGE))
                relay.counters()
        with forgiving():
            slow.window(1 << 20)
            slow.window(1 << 20, streams[0])
        for wire, stream in zip((slow, quick), streams, strict=True):
            wait(wire, stream, lambda: up_to_date(relay), "the last events")
            numbers = [events.number_of(message) for message in wire.streams[stream].messages]
            assert numbers == sorted(set(numbers)), "events are in order, none is there twice"
        relay.native.drain(relay._tickets + 1, LOGS)


def up_to_date(relay: Engine) -> bool:
    """Whether every subscriber has everything."""
    return all(each["in_flight"] == each["behind"] == 0 for each in relay.subscribers())


def asked(relay: Engine) -> list[Report]:
    """What Python was asked so far."""
    return relay.reports(_fastpath.REPORT_CALL, what=_fastpath.CALL_MESSAGE)


def calls(relay: Engine) -> None:
    """HealthCheck, a call that Python answers, and one that is nobody's."""
    with client(relay) as wire, forgiving():
        check = wire.call("/feeder.LogService/HealthCheck", b"\x08\x07")
        wait(wire, check, lambda: False, "the answer to HealthCheck")
        answered = len(asked(relay))
        stream = wire.call(METHOD, b"hello")
        wait(wire, stream, lambda: len(asked(relay)) > answered, "the call")
        for call in asked(relay)[answered:]:
            with forgiving():
                relay.native.answer(call.call, b"x" * LARGE)
                relay.native.answer(call.call, None, 0)
                wire.window(1 << 20, stream)
                wait(wire, stream, lambda: False, "the answer")
        nobody = wire.call("/no.Such/Method", b"")
        wait(wire, nobody, lambda: False, "the refusal")


def conversation(relay: Engine, number: int) -> None:
    from_a_node(relay, number)
    to_subscribers(relay)
    calls(relay)
    with forgiving(), Sink(relay, LOGS) as sink:
        sink.cursor.read()


def settled(relay: Engine) -> None:
    """Everybody has left: nothing stays behind, and the counters agree."""
    now = relay.wait_counters(lambda now: now["process"]["connections"] == 0, "the end of all connections")
    process = now["process"]
    assert (process["tail_bytes"], process["remainder_bytes"], process["assembly_bytes"]) == (0, 0, 0)
    assert not now["subscribers"]
    assert not process["calls"]
    relay.check()


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_any_allocation_may_fail(tls: bool) -> None:
    behind: dict[str, Any] = {"tls": trust(), "doors": True} if tls else {}
    with Engine(handle=[METHOD], journal_bytes=3 * 8400, max_event_bytes=4096, **behind) as relay:
        conversation(relay, 0)
        settled(relay)
        for number in range(1, MOST):
            before = relay.counters()["process"]["memory_failures"]
            fail_allocation(relay.native, number)
            conversation(relay, number)
            fail_allocation(relay.native, 0)
            settled(relay)
            if relay.counters()["process"]["memory_failures"] == before:
                break
        print(number)
        # It serves as before.
        with h2_client.Client(relay.port) as wire:
            stream = wire.watch(LOGS)
            sent = events.events(LOGS, 3, 100)
            relay.publish(LOGS, *sent)
            assert wire.wait_messages(stream, 3) == sent
        settled(relay)
