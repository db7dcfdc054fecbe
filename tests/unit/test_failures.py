"""relay.failures: a new failure is told at once, the same one once a minute with its count, and memory is bounded."""

from hypothesis import given
from hypothesis import strategies as st

from relay.failures import OTHER, REASONS_KEPT, REPEAT_AFTER, FailureLog


def test_the_same_failure_is_told_once_a_minute_with_the_count() -> None:
    failures = FailureLog()
    assert [failures.count("refused", now) for now in (0.0, 1.0, 2.0, 59.9, 60.0, 61.0, 200.0)] == [1, 0, 0, 0, 4, 0, 2]


def test_a_new_failure_is_told_at_once() -> None:
    failures = FailureLog()
    assert [failures.count(reason, 0.0) for reason in ("refused", "no such name", "refused")] == [1, 1, 0]


def test_many_reasons_within_a_minute_are_kept_in_bounded_memory() -> None:
    failures = FailureLog()
    told = sum(failures.count(f"reason {number}", 0.0) for number in range(1000))
    assert told == 17  # 16 reasons, and one line for the rest
    assert failures.count("reason 1000", 61.0) == 1
    assert failures.count("new", 200.0) == 1


def test_reasons_that_never_come_again_make_room() -> None:
    """Also where some of their failures were never told."""
    failures = FailureLog()
    for number in range(REASONS_KEPT):
        assert [failures.count(f"reason {number}", 0.0) for _ in range(2)] == [1, 0]
    assert failures.count("late", 1.0) == 1
    assert failures.count("later", 2.0) == 0, "both are others"
    for number in range(REASONS_KEPT):
        assert failures.count(f"new reason {number}", REPEAT_AFTER + 2) == 1


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 40)), max_size=200))
def test_every_failure_is_told_or_counted(history: list[tuple[int, float]]) -> None:
    """A reason has at most one line a minute, and while there is room each failure is in one line's count."""
    failures = FailureLog()
    now = 0.0
    told: dict[str, float] = {}
    silent: dict[str, int] = {}
    for number, after in history:
        now += after
        reason = f"reason {number % REASONS_KEPT}"  # as many as there is room for
        count = failures.count(reason, now)
        silent[reason] = silent.get(reason, 0) + 1
        if reason in told:
            assert bool(count) == (now - told[reason] >= REPEAT_AFTER)
        if count:
            assert count <= silent[reason]
            told[reason], silent[reason] = now, 0
    assert len(failures._reasons) <= REASONS_KEPT
    assert OTHER not in failures._reasons
