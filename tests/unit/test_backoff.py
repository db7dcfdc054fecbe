"""relay.backoff: the ceilings double, the jitter is full, health starts afresh."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.backoff import Backoff


def whole() -> float:
    return 1.0


def test_ceilings_double_from_half_a_second_to_thirty() -> None:
    backoff = Backoff(draw=whole)
    assert [backoff.delay() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


@given(draws=st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_a_delay_is_the_drawn_part_of_its_ceiling(draws: list[float]) -> None:
    following = iter(draws)
    backoff = Backoff(draw=lambda: next(following))
    for draw in draws:
        ceiling = backoff.ceiling
        assert backoff.delay() == ceiling * draw


def test_a_thousand_failures_do_not_overflow() -> None:
    backoff = Backoff(draw=whole)
    assert [backoff.delay() for _ in range(5000)][-1] == 30


@pytest.mark.parametrize(("seconds", "then"), [(60.0, 0.5), (1e6, 0.5), (59.9, 8.0), (0.0, 8.0)])
def test_only_a_minute_of_health_starts_the_delays_afresh(seconds: float, then: float) -> None:
    backoff = Backoff(draw=whole)
    for _ in range(4):
        backoff.delay()
    backoff.was_healthy(seconds)
    assert backoff.delay() == then
