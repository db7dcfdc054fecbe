"""What every sink needs: its place in each feed, batches, retries, counters, and an orderly end.

    reader ─▶ gather (bytes, events, seconds) ─▶ write, again and again until settled ─▶ acknowledge, in order

A batch is kept until the destination has settled every event of it, so a retry needs no journal. What waits is
bounded: for each feed the batches in flight, and one that is being gathered. All else waits in the journal, which
may overwrite it: that is loss, and counted. The destination has one number of slots for all feeds, and a batch holds
one only while it is being written: a feed whose events are not taken keeps none from the others.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from relay import feeds, log
from relay.backoff import Backoff
from relay.failures import FailureLog
from relay.sinks.protocol import Batch, Reader, Rejected, Sink, Unavailable

logger = log.logger(__name__)

# While a batch fills, events are fetched this often, and not for every burst: each time wakes the process.
FETCH_SECONDS = 0.1
# Towards the end there is no time to lose: the longest pause between two tries.
ENDING_PAUSE = 0.5
# How long a sink may take to let go of a batch when it is told to, and then to close.
CLOSE_SECONDS = 0.4


class Limits(NamedTuple):
    """When a batch is complete: whichever comes first."""

    bytes: int
    events: int
    seconds: float  # since its first event was read


@dataclass(slots=True)
class Counters:
    """Events of one feed. read = sent + rejected + those under way, which are given up at the end."""

    read: int = 0
    sent: int = 0
    retried: int = 0  # sent once more; an event counts each time
    rejected: int = 0

    @property
    def under_way(self) -> int:
        """Read, and not settled."""
        return self.read - self.sent - self.rejected


@dataclass(slots=True)
class _Flight:
    """A batch that has left, and where its feed goes on behind it."""

    end: int
    settled: bool = False


class Runner:
    """Carries feeds to one sink."""

    def __init__(
        self,
        sink: Sink,
        readers: Mapping[int, Reader],
        limits: Limits,
        *,
        backoff: Callable[[], Backoff] = Backoff,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`readers` by feed. They are closed with the runner."""
        self.sink = sink
        self.limits = limits
        self._backoff = backoff
        self._clock = clock
        self._failures = FailureLog()
        self._failing = False
        self._slots = asyncio.Semaphore(sink.in_flight)
        self._stopping = asyncio.Event()
        self._pipelines = [Pipeline(self, feed, reader) for feed, reader in readers.items()]
        self._task: asyncio.Task[None] | None = None

    # --- life -----------------------------------------------------------------------------

    def start(self, failed: Callable[[BaseException], None]) -> None:
        """Begin; `failed` is told of a defect, which ends the runner."""
        self._task = asyncio.create_task(self._run())

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                failed(error)

        self._task.add_done_callback(ended)

    async def stop(self, seconds: float) -> int:
        """Carry what the journal holds now, for at most `seconds`, and close; returns the events given up."""
        self._stopping.set()
        if self._task is not None:
            _, late = await asyncio.wait([self._task], timeout=seconds)
            if late:
                self._task.cancel()
                await asyncio.wait(late, timeout=CLOSE_SECONDS)
        self._report_losses()
        for pipeline in self._pipelines:
            pipeline.close()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.sink.close()
        except (Unavailable, TimeoutError) as error:
            logger.warning("sink could not be closed", extra=self.about(reason=str(error) or "no end in time"))
        given_up = sum(pipeline.given_up for pipeline in self._pipelines)
        if given_up:
            logger.warning("sink ends before all events were sent", extra=self.about(events=given_up))
        return given_up

    def give_up(self) -> None:
        """End at once a stop that waits."""
        if self._task is not None:
            self._task.cancel()

    def describe(self) -> dict[str, Any]:
        """The counters: sent + rejected + lost + behind are all events that there were."""
        own = [(pipeline, pipeline.counters) for pipeline in self._pipelines]
        return {
            "sink": self.sink.name,
            "feeds": [feeds.NAMES[pipeline.feed] for pipeline, _ in own],
            "read": sum(counters.read for _, counters in own),
            "sent": sum(counters.sent for _, counters in own),
            "retried": sum(counters.retried for _, counters in own),
            "rejected": sum(counters.rejected for _, counters in own),
            "lost": sum(pipeline.lost for pipeline, _ in own),
            "behind": sum(pipeline.behind for pipeline, _ in own),
        }

    async def _run(self) -> None:
        try:
            await self._until_done(self.sink.open)
            async with asyncio.TaskGroup() as group:
                for pipeline in self._pipelines:
                    group.create_task(pipeline.run())
        except BaseExceptionGroup as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            raise error from None

    async def _until_done(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        backoff = self._backoff()
        while True:
            try:
                await work()
            except Unavailable as error:
                await self.failed(error, backoff)
            else:
                return

    # --- what pipelines share -------------------------------------------------------------

    @property
    def stopping(self) -> bool:
        """Whether batches leave as they are, and readers stop at their feed's end."""
        return self._stopping.is_set()

    @property
    def slots(self) -> asyncio.Semaphore:
        """One for each batch that may be written at a time."""
        return self._slots

    async def wait(self, seconds: float) -> None:
        """Wait for the stop, at most so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    async def wait_readable(self, reader: Reader) -> None:
        """Wait until a reader that gave nothing has something, or for the stop."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        descriptor = reader.fileno()
        loop.add_reader(descriptor, readable.set)
        waits = [asyncio.ensure_future(event.wait()) for event in (readable, self._stopping)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(descriptor)
            for wait in waits:
                wait.cancel()

    def make_backoff(self) -> Backoff:
        """The delays between tries of one batch."""
        return self._backoff()

    async def failed(self, error: Unavailable, backoff: Backoff) -> None:
        """Note that the sink did not take something now, and wait until it is to be asked again."""
        self._report_losses()
        if count := self._failures.count(error.reason, self._clock()):
            self._failing = True  # the log's last word, until it says that this is over
            extra = self.about(reason=error.reason, detail=error.detail, times=count)
            logger.warning("sink cannot take events, and is asked again", extra=extra)
        delay = max(backoff.delay(), error.retry_after)
        if self.stopping:
            await asyncio.sleep(min(delay, ENDING_PAUSE))
        else:
            await self.wait(delay)  # with the stop it is asked once more at once

    def succeeded(self) -> None:
        """Note that the sink took something."""
        if self._failing:
            self._failing = False
            logger.info("sink takes events again", extra=self.about())

    def rejected(self, rejections: Sequence[Rejected]) -> None:
        """Log what the destination will never take, each reason at most once a minute."""
        for reason, events, example in rejections:
            if count := self._failures.count(f"rejected: {reason}", self._clock()):
                extra = self.about(reason=reason, example=example, events=events, batches=count)
                logger.warning("sink skips events that its destination refuses", extra=extra)

    def losing(self, feed: int, lost: int) -> None:
        """Log that the journal overwrote events before they were read, at most once a minute."""
        if self._failures.count(f"lost {feed}", self._clock()):
            extra = self.about(feed=feeds.NAMES[feed], lost=lost)
            logger.warning("sink loses events: the journal overwrote them before they were read", extra=extra)

    def _report_losses(self) -> None:
        """Nothing is read while nothing is taken, and the journal overwrites all the same."""
        for pipeline in self._pipelines:
            pipeline.report_losses()

    def about(self, **values: Any) -> dict[str, Any]:
        """Fields of a log line."""
        return log.fields(sink=self.sink.name, **values)


class Pipeline:
    """One feed on its way to a sink."""

    def __init__(self, runner: Runner, feed: int, reader: Reader) -> None:
        self.feed = feed
        self.counters = Counters()
        self.given_up = 0  # not settled when the relay ended
        self._runner = runner
        self._reader: Reader | None = reader
        self._lost = 0  # once the reader is closed
        self._told = 0  # losses that were logged
        self._slots = asyncio.Semaphore(runner.sink.in_flight)
        self._flights: deque[_Flight] = deque()
        self._acknowledging = asyncio.Lock()

    @property
    def lost(self) -> int:
        """Events that were overwritten before they were read, or given up."""
        return self._lost if self._reader is None else self._reader.lost

    @property
    def behind(self) -> int:
        """Events that are under way, or wait in the journal."""
        return 0 if self._reader is None else self.counters.under_way + self._reader.behind

    def close(self) -> None:
        """Give up what is not settled, and let go of the reader."""
        if self._reader is not None:
            self.given_up = self.behind
            self._lost = self._reader.lost + self.given_up
            self._reader.close()
            self._reader = None

    def report_losses(self) -> None:
        """Log what was lost since the last time."""
        if self._reader is not None and (lost := self._reader.lost) > self._told:
            self._told = lost
            self._runner.losing(self.feed, lost)

    async def run(self) -> None:
        """Carry events until the stop, and then what there is."""
        reader = self._reader
        if reader is None:
            return
        async with asyncio.TaskGroup() as group:
            while (batch := await self._gather(reader)) is not None:
                flight = _Flight(reader.sequence)
                self._flights.append(flight)
                await self._slots.acquire()
                group.create_task(self._carry(batch, flight))

    async def _gather(self, reader: Reader) -> Batch | None:
        """The next batch; None when the runner is stopping and nothing is left."""
        runner, limits, clock = self._runner, self._runner.limits, time.monotonic
        pieces: list[bytes] = []
        size = events = 0
        complete_at = 0.0
        backoff = runner.make_backoff()
        while size < limits.bytes and events < limits.events:
            try:
                piece = self._read(reader, limits.bytes - size, limits.events - events)
            except MemoryError:
                if pieces:
                    break  # what there is leaves first, and makes room
                await runner.failed(Unavailable("no memory for the next event"), backoff)
                continue
            if piece is not None:
                if not pieces:
                    complete_at = clock() + limits.seconds
                pieces.append(piece[0])
                size += len(piece[0])
                events += piece[2]
                continue
            if runner.stopping:
                break
            if not pieces:
                await runner.wait_readable(reader)
            elif (rest := complete_at - clock()) > 0:
                await runner.wait(min(rest, FETCH_SECONDS))
            else:
                break
        if not pieces:
            return None
        return Batch(self.feed, b"".join(pieces), events, datetime.now(UTC))

    def _read(self, reader: Reader, size: int, events: int) -> tuple[bytes, int, int] | None:
        piece = reader.read_json(size, max_events=events, index=self._runner.sink.action(self.feed))
        if piece is not None:
            self.counters.read += piece[2]
        self.report_losses()
        return piece

    async def _carry(self, batch: Batch, flight: _Flight) -> None:
        """Offer a batch until all of it is settled, then let another one go."""
        runner, counters = self._runner, self.counters
        backoff = runner.make_backoff()
        while True:
            try:
                async with runner.slots:
                    written = await runner.sink.write(batch)
            except Unavailable as error:
                why = error
            else:
                refused = sum(rejected.events for rejected in written.rejected)
                left = 0 if written.again is None else written.again.events
                if written.taken + refused + left != batch.events:
                    raise ValueError(f"{runner.sink.name} accounts for other events than it was given: {written!r}")
                counters.sent += written.taken
                counters.rejected += refused
                runner.rejected(written.rejected)
                if written.again is None:
                    break
                if left < batch.events:
                    backoff = runner.make_backoff()  # it gets on
                batch, why = written.again, written.why or Unavailable("no reason given")
            await runner.failed(why, backoff)
            counters.retried += batch.events
        runner.succeeded()
        self._settle(flight)
        await self._acknowledge()
        self._slots.release()

    def _settle(self, flight: _Flight) -> None:
        """Note it. What is settled one behind the other becomes one, so that they do not pile up behind the first."""
        flight.settled = True
        kept: deque[_Flight] = deque()
        for each in self._flights:
            if kept and kept[-1].settled and each.settled:
                kept.pop()
            kept.append(each)
        self._flights = kept

    async def _acknowledge(self) -> None:
        """Move on behind the batches that are settled, up to the first one that is not."""
        async with self._acknowledging:
            if not self._flights or not self._flights[0].settled:
                return
            end = self._flights.popleft().end
            backoff = self._runner.make_backoff()
            while True:
                try:
                    await self._runner.sink.acknowledge(self.feed, end)
                    break
                except Unavailable as error:
                    await self._runner.failed(error, backoff)
            self._runner.succeeded()
