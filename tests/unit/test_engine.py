"""relay.engine: reports as dataclasses, publish and drain that wait, an end that settles everything.

Two real engines: one publishes (a node), the other reads it (a relay) or is not there.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from peers import events

from relay import _fastpath
from relay.engine import Engine, NodeReport, NodeState, Stopped, SubscriberEvent, SubscriberReport

LOGS = events.LOGS
WAIT = 30.0


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(WAIT):
            await work()

    asyncio.run(bounded())


def listening(native: _fastpath.Engine) -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        native.listen(listener.fileno())
        return int(listener.getsockname()[1])


class Reports:
    """Keeps reports, and lets a test wait for one."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self._changed = asyncio.Event()

    def __call__(self, report: Any) -> None:
        self.seen.append(report)
        self._changed.set()

    async def wait(self, wanted: Callable[[Any], bool]) -> Any:
        while True:
            for report in self.seen:
                if wanted(report):
                    return report
            self._changed.clear()
            await self._changed.wait()


class Pair:
    """A node and a subscriber of it, both engines."""

    def __init__(self) -> None:
        self.node, self.reader = Engine(_fastpath.Engine()), Engine(_fastpath.Engine())
        self.nodes, self.subscribers = Reports(), Reports()
        self.reader.on_node = self.nodes
        self.node.on_subscriber = self.subscribers
        port = listening(self.node.native)
        self.node.start()
        self.reader.start()
        self.reader.native.add_node(5, 1 << LOGS)
        self.reader.native.connect_node(5, "127.0.0.1", port)

    async def streaming(self) -> None:
        await self.nodes.wait(lambda report: report.state is NodeState.STREAMING)
        await self.subscribers.wait(lambda report: report.event is SubscriberEvent.STARTED)

    def close(self) -> None:
        self.node.close()
        self.reader.close()


def test_reports_come_as_dataclasses() -> None:
    async def work() -> None:
        pair = Pair()
        try:
            await pair.streaming()
            streaming = await pair.nodes.wait(lambda report: report.state is NodeState.STREAMING)
            assert streaming == NodeReport(5, NodeState.STREAMING, streaming.code, streaming.text)
            started = pair.subscribers.seen[0]
            assert isinstance(started, SubscriberReport)
            assert (started.feed, started.delivered, started.lost) == (LOGS, 0, 0)
            pair.node.shutdown(0)
            ended = await pair.subscribers.wait(lambda report: report.event is SubscriberEvent.ENDED)
            assert ended.subscriber == started.subscriber
            idle = await pair.nodes.wait(lambda report: report.state is NodeState.IDLE)
            assert idle.text != ""
        finally:
            pair.close()

    run(work)


def test_drain_waits_until_the_reader_has_taken_everything() -> None:
    async def work() -> None:
        pair = Pair()
        try:
            await pair.streaming()
            for start in range(0, 2000, 100):
                await pair.node.publish(LOGS, events.frames(events.events(LOGS, 100, size=500, start=start)))
            await pair.node.drain(LOGS)
            (subscriber,) = pair.node.counters()["subscribers"]
            assert (subscriber["delivered"], subscriber["lost"], subscriber["behind"]) == (2000, 0, 0)
        finally:
            pair.close()

    run(work)


def test_publish_waits_while_the_queue_is_full() -> None:
    """Nothing is refused, nothing is left out, though the queue is far smaller than what is published."""

    async def work() -> None:
        engine = Engine(_fastpath.Engine())
        frames = events.frames(events.events(LOGS, 256, size=4000))
        refused = 0
        publish = engine.native.publish

        class Counting:
            def __getattr__(self, name: str) -> Any:
                return getattr(engine_native, name)

            def publish(self, feed: int, given: bytes) -> None:
                nonlocal refused
                try:
                    publish(feed, given)
                except BlockingIOError:
                    refused += 1
                    raise

        engine_native = engine.native
        engine.native = Counting()  # type: ignore[assignment]
        engine.start()
        try:
            for _ in range(200):
                await engine.publish(LOGS, frames)
            await engine.drain(LOGS)
            assert engine.counters()["feeds"]["logs"]["published"] == 200 * 256
        finally:
            engine.close()
        assert refused > 0

    run(work)


@pytest.mark.parametrize("end", ["shutdown", "close"])
def test_the_end_settles_everything_that_waits(end: str) -> None:
    async def work() -> None:
        pair = Pair()
        try:
            await pair.streaming()
            stopped = pair.node.stopped
            # This cursor never reads, so that the drain cannot end by itself.
            cursor = _fastpath.Cursor(pair.node.native, LOGS)
            await pair.node.publish(LOGS, events.frame(events.event(LOGS)))
            waiting = asyncio.ensure_future(pair.node.drain(LOGS))
            await asyncio.sleep(0)
            if end == "shutdown":
                pair.node.shutdown(0)
            else:
                pair.node.close()
            assert (await stopped).code == 0
            await waiting
            cursor.close()
            await pair.node.drain(LOGS)
            await pair.node.publish(LOGS, events.frame(events.event(LOGS)))
        finally:
            pair.close()
            pair.close()

    run(work)


def test_a_handler_that_raises_reaches_the_loop() -> None:
    async def work() -> None:
        defects = Reports()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: defects(context["exception"]))

        def fail(report: NodeReport) -> None:
            raise RuntimeError("a defect")

        engine = Engine(_fastpath.Engine())
        engine.on_node = fail
        engine.start()
        try:
            engine.native.add_node(0)
            with socket.create_server(("127.0.0.1", 0)) as nobody:
                port = nobody.getsockname()[1]
            engine.native.connect_node(0, "127.0.0.1", port)
            await defects.wait(lambda error: isinstance(error, RuntimeError))
        finally:
            engine.close()

    run(work)


def test_a_handler_that_raises_does_not_cost_the_reports_behind_it() -> None:
    class Batch:
        """A native engine whose reports come all at once."""

        def fileno(self) -> int:
            return 0

        def close(self) -> None:
            pass

        def reports(self) -> list[tuple[Any, ...]]:
            return [
                (_fastpath.REPORT_NODE, 0, _fastpath.NODE_IDLE, 0, ""),
                (_fastpath.REPORT_STOPPED, 0, "stopped"),
            ]

    async def work() -> None:
        defects = Reports()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: defects(context["exception"]))

        def fail(report: NodeReport) -> None:
            raise RuntimeError("a defect")

        engine = Engine(Batch())  # type: ignore[arg-type]
        engine.on_node = fail
        engine._take_reports()
        assert await engine.stopped == Stopped(0, "stopped")
        assert [str(error) for error in defects.seen] == ["a defect"]

    run(work)


def test_an_engine_that_never_started_is_closed() -> None:
    async def work() -> None:
        engine = Engine(_fastpath.Engine())
        engine.close()
        assert await engine.stopped == Stopped(0, "closed")

    run(work)
