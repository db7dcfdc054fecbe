"""The heap of deadlines, against a dictionary."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from shown import TIMER_NEVER, ShownTimers

TIMERS = 100  # more than the heap's first room

# Few different ones, so that many are equal; and the last two there are.
DEADLINES = st.one_of(st.integers(0, 30), st.integers(TIMER_NEVER - 1, TIMER_NEVER))


class TimersMachine(RuleBasedStateMachine):
    """Timers set, moved, cleared and taken in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.native = ShownTimers(TIMERS)
        self.model: dict[int, int] = {}  # number → deadline

    def teardown(self) -> None:
        self.native.free()
        assert self.native.memory_bytes == 0
        assert not any(self.native.is_set(number) for number in range(TIMERS))

    @rule(number=st.integers(0, TIMERS - 1), deadline=DEADLINES)
    def set(self, number: int, deadline: int) -> None:
        assert self.native.set(number, deadline) == "STATUS_OK"
        self.model[number] = deadline

    @rule(deadlines=st.lists(DEADLINES, min_size=TIMERS, max_size=TIMERS))
    def set_all(self, deadlines: list[int]) -> None:
        for number, deadline in enumerate(deadlines):
            self.set(number, deadline)

    @rule(number=st.integers(0, TIMERS - 1))
    def clear(self, number: int) -> None:
        self.native.clear(number)
        self.model.pop(number, None)

    @rule(numbers=st.lists(st.integers(0, TIMERS - 1)))
    def clear_some(self, numbers: list[int]) -> None:
        for number in numbers:
            self.clear(number)

    @rule(now=DEADLINES)
    def pop_due(self, now: int) -> None:
        while (popped := self.native.pop_due(now)) is not None:
            number, deadline = popped
            assert deadline == min(self.model.values()) <= now
            assert self.model.pop(number) == deadline
        assert all(deadline > now for deadline in self.model.values())

    @invariant()
    def same(self) -> None:
        assert self.native.well_formed()
        assert self.native.set_count == len(self.model)
        assert self.native.first() == min(self.model.values(), default=TIMER_NEVER)
        assert [number for number in range(TIMERS) if self.native.is_set(number)] == sorted(self.model)


TestTimersMachine = TimersMachine.TestCase
TestTimersMachine.settings = settings(max_examples=100, stateful_step_count=30)


def test_no_timer_is_due_before_its_deadline() -> None:
    timers = ShownTimers(2)
    timers.set(0, 1000)
    timers.set(1, 999)
    assert timers.first() == 999
    assert timers.pop_due(998) is None
    assert timers.pop_due(999) == (1, 999)
    assert timers.pop_due(999) is None
    assert timers.pop_due(1000) == (0, 1000)
    assert timers.first() == TIMER_NEVER


def test_reserved_room_is_enough() -> None:
    timers = ShownTimers(TIMERS)
    assert timers.reserve(TIMERS) == "STATUS_OK"
    taken = timers.memory_taken
    timers.fail_at(1)
    for number in range(TIMERS):
        assert timers.set(number, TIMERS - number) == "STATUS_OK"
    assert timers.memory_taken == taken


def test_without_memory_a_new_timer_is_refused_and_the_others_stay() -> None:
    timers = ShownTimers(TIMERS)
    timers.fail_at(1)
    assert timers.set(0, 5) == "STATUS_NO_MEMORY"
    assert not timers.is_set(0)
    assert timers.reserve(64) == "STATUS_OK"
    for number in range(64):
        assert timers.set(number, number) == "STATUS_OK"
    timers.fail_at(1)
    assert timers.set(64, 0) == "STATUS_NO_MEMORY"
    assert not timers.is_set(64)
    assert timers.set(63, 0) == "STATUS_OK"  # one that is set only moves
    assert timers.well_formed()
    assert timers.set_count == 64


def test_reserve_refuses_what_cannot_be() -> None:
    timers = ShownTimers(1)
    timers.fail_at(1)
    for count in (2**32 - 1, 2**63, 2**64 - 1):
        assert timers.reserve(count) == "STATUS_NO_MEMORY"
    # The armed failure is still there: no memory was asked for.
    assert timers.reserve(1) == "STATUS_NO_MEMORY"
    assert timers.reserve(1) == "STATUS_OK"
