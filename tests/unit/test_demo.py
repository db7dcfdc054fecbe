"""relay.demo: when it counts as a success, and what its summary says."""

import dataclasses

import pytest

from relay.demo import Summary

GOOD = Summary(
    sent=[1, 20, 3000],
    received=[1, 20, 3000],
    delivered=[1, 20, 3000],
    lost=[0, 0, 0],
    bytes=3021 * 800,
    cpu=0.003021,
    memory=30 << 20,
)


def test_everything_delivered_is_a_success() -> None:
    assert not GOOD.lost_anything()


@pytest.mark.parametrize(
    "change",
    [
        {"lost": [0, 1, 0]},
        {"delivered": [1, 20, 2999]},
        {"received": [1, 19, 3000], "delivered": [1, 19, 3000]},
        {"sent": [0, 0, 0], "received": [0, 0, 0], "delivered": [0, 0, 0]},
    ],
)
def test_anything_lost_anywhere_is_a_failure(change: dict[str, list[int]]) -> None:
    assert dataclasses.replace(GOOD, **change).lost_anything()


def test_the_summary_is_a_table() -> None:
    assert dataclasses.replace(GOOD, lost=[0, 0, 7]).table() == (
        "\nsummary:\n"
        "                     messages      alerts        logs         all\n"
        "  sent by nodes             1          20       3,000       3,021\n"
        "  in                        1          20       3,000       3,021\n"
        "  delivered                 1          20       3,000       3,021\n"
        "  lost                      0           0           7           7\n"
        "  CPU of the relay: 1.00 us per delivered event (800 bytes each)\n"
        "  memory of the relay: 30 MiB at most"
    )


def test_it_is_made_from_what_the_processes_say() -> None:
    names = ("messages", "alerts", "logs")
    counters = {
        "feeds": {name: {"received": 10 + n, "bytes": 100, "ended_lost": n} for n, name in enumerate(names)},
    }
    simulated = {"published": dict(zip(names, (20, 21, 22), strict=True))}
    assert Summary.of(simulated, counters, [7, 8, 9], 0.5, 1000) == Summary(
        sent=[20, 21, 22],
        received=[10, 11, 12],
        delivered=[7, 8, 9],
        lost=[0, 1, 2],
        bytes=300,
        cpu=0.5,
        memory=1000,
    )
