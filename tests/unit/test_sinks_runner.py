"""The runner of a sink, on a journal and a sink of this process."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peers.fake_reader import FakeJournal

from relay import feeds
from relay.backoff import Backoff
from relay.sinks.protocol import Batch, Rejected, Unavailable, Written
from relay.sinks.runner import Limits, Runner

pytestmark = pytest.mark.unit

WAIT = 30.0
LOSING = "sink loses events: the journal overwrote them before they were read"
SMALL = Limits(bytes=1 << 20, events=3, seconds=0.01)
PATIENT = Limits(bytes=1 << 20, events=1000, seconds=3600)
Answer = Callable[[Batch], Awaitable[Written]]


async def take(batch: Batch) -> Written:
    return Written(batch.events)


class Memory:
    """A sink that keeps what it is given, and answers as a test wants."""

    name = "memory"

    def __init__(self, answer: Answer = take, in_flight: int = 2) -> None:
        self.in_flight = in_flight
        self.answer = answer
        self.offered: list[Batch] = []
        self.acknowledged: list[tuple[int, int]] = []
        self.opened = self.closed = 0
        self.shut = 0  # how many times `open` fails first
        self.fragile = 0  # how many times `acknowledge` fails first
        self.changed = asyncio.Event()

    def action(self, feed: int) -> str | None:
        return None

    async def open(self) -> None:
        self.opened += 1
        if self.opened <= self.shut:
            raise Unavailable("shut")

    async def write(self, batch: Batch) -> Written:
        self.offered.append(batch)
        self.changed.set()
        return await self.answer(batch)

    async def acknowledge(self, feed: int, sequence: int) -> None:
        if self.fragile:
            self.fragile -= 1
            raise Unavailable("fragile")
        self.acknowledged.append((feed, sequence))
        self.changed.set()

    async def close(self) -> None:
        self.closed += 1

    @property
    def lines(self) -> list[bytes]:
        return b"".join(batch.lines for batch in self.offered).splitlines()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


def at_once() -> Backoff:
    return Backoff(draw=lambda: 0.0)


def after(seconds: float) -> Backoff:
    return Backoff(first=seconds, last=seconds, draw=lambda: 1.0)


def unexpected(error: BaseException) -> None:
    raise AssertionError from error


class Started:
    """A runner with a journal for each feed."""

    def __init__(
        self,
        sink: Memory,
        limits: Limits = SMALL,
        wanted: tuple[int, ...] = (feeds.ALERTS,),
        patience: float = 0,  # s between tries
    ) -> None:
        self.journals = {feed: FakeJournal() for feed in wanted}
        readers = {feed: journal.reader() for feed, journal in self.journals.items()}
        self.runner = Runner(sink, readers, limits, backoff=lambda: after(patience))
        self.sink = sink
        self.runner.start(unexpected)

    @property
    def journal(self) -> FakeJournal:
        return next(iter(self.journals.values()))

    def counters(self) -> dict[str, int]:
        described = self.runner.describe()
        return {name: value for name, value in described.items() if isinstance(value, int)}


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [b'{"n":%d}' % number for number in range(start, start + count)]


def test_events_come_in_order_and_once() -> None:
    async def run() -> None:
        sink = Memory(in_flight=1)
        started = Started(sink)
        for start in range(0, 100, 7):
            started.journal.append(*numbered(7, start))
            await asyncio.sleep(0)
        await sink.until(lambda: sink.acknowledged[-1:] == [(feeds.ALERTS, 105)])
        assert sink.lines == numbered(105)
        assert all(batch.events <= 3 for batch in sink.offered)
        assert await started.runner.stop(WAIT) == 0
        assert started.counters() == {"read": 105, "sent": 105, "retried": 0, "rejected": 0, "lost": 0, "behind": 0}
        assert sink.closed == 1

    asyncio.run(run())


def test_a_batch_is_complete_by_bytes() -> None:
    async def run() -> None:
        sink = Memory(in_flight=1)
        started = Started(sink, PATIENT._replace(bytes=100))
        started.journal.append(*[b"x" * 29] * 10)
        await sink.until(lambda: len(sink.offered) == 2)
        # The last event of a batch begins within the limit.
        assert [batch.events for batch in sink.offered] == [4, 4]
        await started.runner.stop(WAIT)

    asyncio.run(run())


def test_a_batch_is_complete_by_time() -> None:
    async def run() -> None:
        sink = Memory()
        started = Started(sink, PATIENT._replace(seconds=0.05))
        started.journal.append(*numbered(2))
        await sink.until(lambda: bool(sink.offered))
        assert sink.offered[0].events == 2
        await started.runner.stop(WAIT)

    asyncio.run(run())


def test_a_batch_that_is_not_complete_waits_and_leaves_at_the_stop() -> None:
    async def run() -> None:
        sink = Memory()
        started = Started(sink, PATIENT)
        started.journal.append(*numbered(2))
        while started.counters()["read"] < 2:  # noqa: ASYNC110 - a counter has no event
            await asyncio.sleep(0)
        assert sink.offered == []
        started.journal.append(*numbered(2, 2))
        assert await started.runner.stop(WAIT) == 0
        assert sink.lines == numbered(4)

    asyncio.run(run())


def test_the_same_batch_comes_again_until_it_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        failures = 5

        async def refuse(batch: Batch) -> Written:
            nonlocal failures
            failures -= 1
            if failures >= 0:
                raise Unavailable("away")
            return Written(batch.events)

        sink = Memory(refuse, in_flight=1)
        started = Started(sink)
        started.journal.append(*numbered(3))
        await sink.until(lambda: bool(sink.acknowledged))
        assert len(sink.offered) == 6
        assert len(set(sink.offered)) == 1
        assert started.counters() == {"read": 3, "sent": 3, "retried": 15, "rejected": 0, "lost": 0, "behind": 0}
        await started.runner.stop(WAIT)

    with caplog.at_level(logging.INFO):
        asyncio.run(run())
    # The same failure has one line a minute, and its end has one.
    assert [record.getMessage() for record in caplog.records] == [
        "sink cannot take events, and is asked again",
        "sink takes events again",
    ]


def test_only_the_rest_comes_again_and_what_is_refused_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async def one_of_each(batch: Batch) -> Written:
            lines = batch.lines.splitlines()
            if len(lines) < 3:
                return Written(len(lines))
            again = Batch(batch.feed, lines[2] + b"\n", 1, batch.read_at)
            return Written(1, (Rejected("bad", 1, "its field"),), again, Unavailable("busy"))

        sink = Memory(one_of_each)
        started = Started(sink)
        started.journal.append(*numbered(3))
        await sink.until(lambda: bool(sink.acknowledged))
        assert sink.offered[1].lines.splitlines() == numbered(1, 2)
        assert started.counters() == {"read": 3, "sent": 2, "retried": 1, "rejected": 1, "lost": 0, "behind": 0}
        await started.runner.stop(WAIT)

    with caplog.at_level(logging.INFO):
        asyncio.run(run())
    skipped = [r for r in caplog.records if r.getMessage() == "sink skips events that its destination refuses"]
    assert [record.relay_fields["example"] for record in skipped] == ["its field"]  # type: ignore[attr-defined]


def test_the_position_waits_for_the_first_batch_in_flight() -> None:
    async def run() -> None:
        gates = [asyncio.Event(), asyncio.Event()]

        async def gated(batch: Batch) -> Written:
            await gates[0 if b'"n":0' in batch.lines else 1].wait()
            return Written(batch.events)

        sink = Memory(gated, in_flight=2)
        started = Started(sink)
        started.journal.append(*numbered(9))
        await sink.until(lambda: len(sink.offered) == 2)
        gates[1].set()
        await sink.until(lambda: len(sink.offered) == 3)
        assert sink.acknowledged == []
        assert started.counters()["behind"] == 3
        gates[0].set()
        await sink.until(lambda: sink.acknowledged[-1:] == [(feeds.ALERTS, 9)])
        assert started.counters()["behind"] == 0
        await started.runner.stop(WAIT)

    asyncio.run(run())


def test_no_more_batches_are_in_flight_than_the_sink_takes() -> None:
    async def run() -> None:
        under_way = most = 0

        async def slow(batch: Batch) -> Written:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            for _ in range(5):
                await asyncio.sleep(0)
            under_way -= 1
            return Written(batch.events)

        sink = Memory(slow, in_flight=2)
        started = Started(sink, wanted=(feeds.ALERTS, feeds.LOGS))
        for journal in started.journals.values():
            journal.append(*numbered(30))
        assert await started.runner.stop(WAIT) == 0
        assert most == 2
        assert started.counters()["sent"] == 60

    asyncio.run(run())


def test_what_was_overwritten_is_lost_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        gate = asyncio.Event()

        async def gated(batch: Batch) -> Written:
            await gate.wait()
            return Written(batch.events)

        sink = Memory(gated, in_flight=1)
        started = Started(sink)
        started.journal.append(*numbered(100))
        # One batch in flight, one that waits behind it: both are the runner's own, whatever the journal forgets.
        await sink.until(lambda: bool(sink.offered))
        while started.counters()["read"] < 6:  # noqa: ASYNC110 - a counter has no event
            await asyncio.sleep(0)
        started.journal.overwrite(90)
        gate.set()
        await sink.until(lambda: sink.acknowledged[-1:] == [(feeds.ALERTS, 100)])
        assert sink.lines == numbered(6) + numbered(10, 90)
        assert started.counters() == {"read": 16, "sent": 16, "retried": 0, "rejected": 0, "lost": 84, "behind": 0}
        await started.runner.stop(WAIT)
        assert started.counters()["lost"] == 84

    with caplog.at_level(logging.INFO):
        asyncio.run(run())
    assert caplog.messages == [LOSING]


@pytest.mark.parametrize("begun", [False, True], ids=["before a batch", "in the middle of a batch"])
def test_without_memory_for_an_event_it_is_read_later(begun: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The relay goes on, and no event is passed over."""

    async def run() -> None:
        sink = Memory()
        started = Started(sink, PATIENT)
        (reader,) = started.journal.readers
        if begun:
            started.journal.append(*numbered(2))
            while started.counters()["read"] < 2:  # noqa: ASYNC110 - a counter has no event
                await asyncio.sleep(0)
        reader.starved = 3
        started.journal.append(*numbered(5, 2 if begun else 0))
        async with asyncio.timeout(WAIT):
            while reader.starved:  # noqa: ASYNC110 - nor has this
                await asyncio.sleep(0.001)
        assert await started.runner.stop(WAIT) == 0
        assert sink.lines == numbered(7 if begun else 5)
        assert [batch.events for batch in sink.offered][:1] == [2 if begun else 5]

    with caplog.at_level(logging.INFO):
        asyncio.run(run())
    (told,) = (record for record in caplog.records if record.message.startswith("sink cannot take events"))
    assert vars(told)["relay_fields"]["reason"] == "no memory for the next event"


def test_a_sink_that_does_not_open_is_asked_again_and_reads_nothing_meanwhile() -> None:
    async def run() -> None:
        sink = Memory()
        sink.shut = 3
        started = Started(sink)
        started.journal.append(*numbered(3))
        await sink.until(lambda: bool(sink.acknowledged))
        assert sink.opened == 4
        assert sink.lines == numbered(3)
        await started.runner.stop(WAIT)

    asyncio.run(run())


def test_an_acknowledgement_that_fails_comes_again() -> None:
    async def run() -> None:
        sink = Memory()
        sink.fragile = 2
        started = Started(sink)
        started.journal.append(*numbered(3))
        await sink.until(lambda: bool(sink.acknowledged))
        assert sink.acknowledged == [(feeds.ALERTS, 3)]
        assert len(sink.offered) == 1
        await started.runner.stop(WAIT)

    asyncio.run(run())


def test_the_stop_is_bounded_and_counts_what_it_gives_up(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async def never(batch: Batch) -> Written:
            await asyncio.Event().wait()
            raise AssertionError

        sink = Memory(never, in_flight=1)
        started = Started(sink)
        started.journal.append(*numbered(30))
        await sink.until(lambda: bool(sink.offered))
        started.journal.overwrite(10)
        assert await started.runner.stop(0.01) == 26
        assert started.counters() == {"read": 6, "sent": 0, "retried": 0, "rejected": 0, "lost": 30, "behind": 0}
        assert sink.closed == 1
        assert started.journal.readers[0].closed

    with caplog.at_level(logging.INFO):
        asyncio.run(run())
    (record,) = [each for each in caplog.records if each.getMessage() == "sink ends before all events were sent"]
    assert record.relay_fields["events"] == 26  # type: ignore[attr-defined]


def test_a_sink_that_never_opened_gives_up_what_the_journal_holds(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        sink = Memory()
        sink.shut = 1 << 30
        started = Started(sink, patience=3600)
        started.journal.append(*numbered(5))
        assert await started.runner.stop(0.01) == 5
        assert started.counters() == {"read": 0, "sent": 0, "retried": 0, "rejected": 0, "lost": 5, "behind": 0}

    asyncio.run(run())
    assert "sink ends before all events were sent" in caplog.messages


@pytest.mark.parametrize("how", ["fails", "hangs"])
def test_a_sink_that_does_not_close_does_not_hold_up_the_end(how: str, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        class Stuck(Memory):
            async def close(self) -> None:
                if how == "fails":
                    raise Unavailable("disk")
                await asyncio.Event().wait()

        started = Started(Stuck())
        started.journal.append(*numbered(3))
        assert await started.runner.stop(WAIT) == 0

    asyncio.run(run())
    assert caplog.messages == ["sink could not be closed"]


def test_a_write_that_does_not_let_itself_be_cancelled_does_not_hold_up_the_end() -> None:
    async def run() -> None:
        gate = asyncio.Event()

        async def stubborn(batch: Batch) -> Written:
            while not gate.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await gate.wait()
            return Written(batch.events)

        sink = Memory(stubborn)
        started = Started(sink)
        started.journal.append(*numbered(3))
        await sink.until(lambda: bool(sink.offered))
        assert await started.runner.stop(0.01) == 3
        assert sink.closed == 1
        gate.set()

    asyncio.run(run())


def test_loss_is_seen_while_the_sink_takes_nothing() -> None:
    async def run() -> None:
        async def never(batch: Batch) -> Written:
            await asyncio.Event().wait()
            raise AssertionError

        sink = Memory(never, in_flight=1)
        started = Started(sink)
        started.journal.append(*numbered(100))
        await sink.until(lambda: bool(sink.offered))
        while started.counters()["read"] < 6:  # noqa: ASYNC110 - a counter has no event
            await asyncio.sleep(0)
        started.journal.overwrite(90)
        assert started.counters() == {"read": 6, "sent": 0, "retried": 0, "rejected": 0, "lost": 84, "behind": 16}
        await started.runner.stop(0)

    asyncio.run(run())


@pytest.mark.parametrize("seconds", [0.0, WAIT], ids=["at the next try", "at the stop"])
def test_loss_is_logged_while_the_sink_takes_nothing(seconds: float, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async def refuse(batch: Batch) -> Written:
            raise Unavailable("full")

        sink = Memory(refuse)
        started = Started(sink, patience=seconds)
        started.journal.append(*numbered(100))
        await sink.until(lambda: bool(sink.offered))
        while started.counters()["read"] < 9:  # noqa: ASYNC110 - a counter has no event
            await asyncio.sleep(0)
        started.journal.overwrite(90)
        if not seconds:
            tries = len(sink.offered)
            await sink.until(lambda: len(sink.offered) > tries + 4)
            assert LOSING in caplog.messages
        await started.runner.stop(0)

    with caplog.at_level(logging.INFO):
        asyncio.run(run())
    assert caplog.messages.count(LOSING) == 1


@pytest.mark.parametrize("whole", [True, False], ids=["whole batches", "one event of each"])
def test_a_feed_that_is_not_taken_keeps_no_slot_from_another(whole: bool) -> None:
    async def run() -> None:
        async def no_alerts(batch: Batch) -> Written:
            if batch.feed != feeds.ALERTS:
                return Written(batch.events)
            if whole or batch.events == 1:
                raise Unavailable("not these", retry_after=3600)
            last = Batch(batch.feed, batch.lines.splitlines(keepends=True)[-1], 1, batch.read_at)
            return Written(batch.events - 1, again=last, why=Unavailable("not this", retry_after=3600))

        sink = Memory(no_alerts, in_flight=1)
        started = Started(sink, wanted=(feeds.ALERTS, feeds.LOGS))
        started.journals[feeds.ALERTS].append(*numbered(30))
        await sink.until(lambda: bool(sink.offered))
        started.journals[feeds.LOGS].append(*numbered(30))
        await sink.until(lambda: sink.acknowledged[-1:] == [(feeds.LOGS, 30)])
        assert {feed for feed, _ in sink.acknowledged} == {feeds.LOGS}
        await started.runner.stop(0)

    asyncio.run(run())


def test_batches_do_not_pile_up_behind_an_acknowledgement() -> None:
    async def run() -> None:
        sink = Memory(in_flight=2)
        sink.fragile = 1 << 30
        started = Started(sink, patience=3600)
        started.journal.append(*numbered(300))
        await sink.until(lambda: len(sink.offered) == 2)
        while started.counters()["read"] < 9:  # noqa: ASYNC110 - a counter has no event
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        # Two in flight until the destination makes them last, and one that waits.
        assert started.counters()["read"] == 9
        await started.runner.stop(0)

    asyncio.run(run())


def test_places_do_not_pile_up_behind_a_batch_that_is_not_taken() -> None:
    async def run() -> None:
        gate = asyncio.Event()

        async def first_is_gated(batch: Batch) -> Written:
            if b'"n":0}' in batch.lines:
                await gate.wait()
            return Written(batch.events)

        sink = Memory(first_is_gated, in_flight=3)
        started = Started(sink)
        started.journal.append(*numbered(600))
        await sink.until(lambda: len(sink.offered) == 200)
        (pipeline,) = started.runner._pipelines
        assert len(pipeline._flights) <= 4
        gate.set()
        await sink.until(lambda: sink.acknowledged[-1:] == [(feeds.ALERTS, 600)])
        await started.runner.stop(WAIT)

    asyncio.run(run())


def test_a_sink_that_gets_on_is_asked_again_soon() -> None:
    async def run() -> None:
        ceilings: list[float] = []

        def draw() -> float:
            ceilings.append(made[-1].ceiling)
            return 0.0

        made: list[Backoff] = []

        def backoff() -> Backoff:
            made.append(Backoff(draw=draw))
            return made[-1]

        answers = iter(["away", "away", "part", "away", "rest"])

        async def answer(batch: Batch) -> Written:
            outcome = next(answers)
            if outcome == "away":
                raise Unavailable("away")
            if outcome == "part":
                rest = Batch(batch.feed, batch.lines.splitlines(keepends=True)[-1], 1, batch.read_at)
                return Written(batch.events - 1, again=rest, why=Unavailable("busy"))
            return Written(batch.events)

        journal, sink = FakeJournal(), Memory(answer)
        runner = Runner(sink, {feeds.ALERTS: journal.reader()}, SMALL, backoff=backoff)
        runner.start(unexpected)
        journal.append(*numbered(3))
        await sink.until(lambda: bool(sink.acknowledged))
        first = Backoff().first
        assert ceilings == [first, 2 * first, first, 2 * first]
        await runner.stop(WAIT)

    asyncio.run(run())


def test_an_end_is_logged_for_each_failure_that_was_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async def every_other(batch: Batch) -> Written:
            if len(sink.offered) % 2:
                raise Unavailable("away", f"try {len(sink.offered)}")
            return Written(batch.events)

        sink = Memory(every_other, in_flight=1)
        started = Started(sink)
        started.journal.append(*numbered(30))
        await sink.until(lambda: sink.acknowledged[-1:] == [(feeds.ALERTS, 30)])
        await started.runner.stop(WAIT)

    with caplog.at_level(logging.INFO):
        asyncio.run(run())
    assert caplog.messages == ["sink cannot take events, and is asked again", "sink takes events again"]
    assert caplog.records[0].relay_fields["detail"] == "try 1"  # type: ignore[attr-defined]


def test_a_sink_that_wants_to_be_asked_later_is_asked_at_the_stop_all_the_same() -> None:
    async def run() -> None:
        async def refuse_once(batch: Batch) -> Written:
            if len(sink.offered) <= 3:
                raise Unavailable("away", retry_after=3600)
            return Written(batch.events)

        sink = Memory(refuse_once)
        started = Started(sink)
        started.journal.append(*numbered(3))
        await sink.until(lambda: bool(sink.offered))
        assert await started.runner.stop(WAIT) == 0
        assert sink.acknowledged == [(feeds.ALERTS, 3)]

    asyncio.run(run())


def test_a_defect_of_a_sink_is_told() -> None:
    async def run() -> None:
        async def defect(batch: Batch) -> Written:
            raise ZeroDivisionError

        journal = FakeJournal()
        runner = Runner(Memory(defect), {feeds.LOGS: journal.reader()}, SMALL, backoff=at_once)
        told: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        runner.start(told.set_result)
        journal.append(*numbered(3))
        async with asyncio.timeout(WAIT):
            assert isinstance(await told, ZeroDivisionError)
        await runner.stop(WAIT)

    asyncio.run(run())


@pytest.mark.parametrize("taken", [2, 4])
def test_a_sink_that_miscounts_is_a_defect(taken: int) -> None:
    async def run() -> None:
        async def miscount(batch: Batch) -> Written:
            return Written(taken)

        journal = FakeJournal()
        runner = Runner(Memory(miscount), {feeds.LOGS: journal.reader()}, SMALL, backoff=at_once)
        told: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        runner.start(told.set_result)
        journal.append(*numbered(3))
        async with asyncio.timeout(WAIT):
            assert "memory accounts for other events" in str(await told)
        await runner.stop(WAIT)

    asyncio.run(run())


@given(
    outcomes=st.lists(st.sampled_from(["taken", "away", "half", "refused"]), max_size=40),
    sizes=st.lists(st.integers(1, 9), max_size=12),
    in_flight=st.integers(1, 3),
)
def test_each_event_is_settled_once_whatever_the_sink_answers(
    outcomes: list[str], sizes: list[int], in_flight: int
) -> None:
    async def run() -> None:
        left = list(outcomes)
        settled: list[bytes] = []
        refused: list[bytes] = []

        async def answer(batch: Batch) -> Written:
            await asyncio.sleep(0)
            lines = batch.lines.splitlines()
            outcome = left.pop() if left else "taken"
            if outcome == "away":
                raise Unavailable("away")
            if outcome == "half" and len(lines) > 1:
                half = len(lines) // 2
                settled.extend(lines[:half])
                rest = b"\n".join(lines[half:]) + b"\n"
                again = Batch(batch.feed, rest, len(lines) - half, batch.read_at)
                return Written(half, again=again, why=Unavailable("busy"))
            if outcome == "refused":
                refused.append(lines[0])
                settled.extend(lines[1:])
                return Written(len(lines) - 1, (Rejected("bad", 1),))
            settled.extend(lines)
            return Written(len(lines))

        sink = Memory(answer, in_flight)
        started = Started(sink)
        total = 0
        for size in sizes:
            started.journal.append(*numbered(size, total))
            total += size
            await asyncio.sleep(0)
        assert await started.runner.stop(WAIT) == 0
        assert sorted(settled + refused) == sorted(numbered(total))
        counters = started.counters()
        assert (counters["read"], counters["sent"], counters["rejected"]) == (total, len(settled), len(refused))
        assert (counters["lost"], counters["behind"]) == (0, 0)

    asyncio.run(run())


steps = st.lists(
    st.tuples(st.sampled_from([feeds.ALERTS, feeds.LOGS]), st.integers(0, 9), st.integers(0, 4), st.integers(0, 5)),
    max_size=15,
)


@given(
    outcomes=st.lists(st.sampled_from(["taken", "away", "half", "refused", "never"]), max_size=20),
    steps=steps,
    in_flight=st.integers(1, 3),
)
def test_the_counters_account_for_every_event_at_any_time(
    outcomes: list[str], steps: list[tuple[int, int, int, int]], in_flight: int
) -> None:
    """Whatever was appended and overwritten when, and wherever the end finds the batches."""

    async def run() -> None:
        left = list(outcomes)

        async def answer(batch: Batch) -> Written:
            await asyncio.sleep(0)
            outcome = left.pop() if left else "taken"
            if outcome == "never":
                await asyncio.Event().wait()
            if outcome == "away":
                raise Unavailable("away")
            if outcome == "half" and batch.events > 1:
                rest = b"".join(batch.lines.splitlines(keepends=True)[1:])
                again = Batch(batch.feed, rest, batch.events - 1, batch.read_at)
                return Written(1, again=again, why=Unavailable("busy"))
            if outcome == "refused":
                return Written(batch.events - 1, (Rejected("bad", 1),))
            return Written(batch.events)

        def check() -> None:
            now = started.counters()
            total = sum(len(journal.lines) for journal in started.journals.values())
            assert now["sent"] + now["rejected"] + now["lost"] + now["behind"] == total
            assert now["sent"] + now["rejected"] <= now["read"]

        started = Started(Memory(answer, in_flight), wanted=(feeds.ALERTS, feeds.LOGS))
        for feed, appended, overwritten, turns in steps:
            journal = started.journals[feed]
            journal.append(*numbered(appended, len(journal.lines)))
            journal.overwrite(min(journal.oldest + overwritten, len(journal.lines)))
            check()
            for _ in range(turns):
                await asyncio.sleep(0)
                check()
        given_up = await started.runner.stop(0.001)
        check()
        assert started.counters()["behind"] == 0
        assert given_up <= started.counters()["lost"]

    asyncio.run(run())
