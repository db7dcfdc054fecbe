"""Steps of the wall clock: deadlines, backoff and signs of life go by the monotonic clock, and do not notice."""

import datetime as dt
import itertools
import time
from pathlib import Path

import pytest
from peers.scene import Scene
from peers.wall_clock import WallClock, missing

YEAR = 366 * 86_400


@pytest.mark.skipif(bool(missing()), reason=missing() or "there is one")
@pytest.mark.paced
def test_the_wall_clock_jumps(tmp_path: Path) -> None:
    """A year ahead, an hour back, to the last century: nobody is pinged, cut off, or connected to anew."""
    with WallClock(tmp_path) as clock, Scene(**clock.variables) as scene:
        steps = itertools.cycle([YEAR, YEAR - 3600, 0, -30 * YEAR, 3600, 1, -1])

        def act() -> None:
            clock.step(next(steps))
            time.sleep(0.2)

        before = scene.counters()
        assert scene.attack(act, seconds=7) == {}
        clock.step(YEAR)
        after = scene.counters()
        assert [node["reconnects"] for node in after["nodes"]] == [0]
        assert after["process"]["accepted"] == before["process"]["accepted"]
        assert 0 < after["process"]["uptime"] - before["process"]["uptime"] < 60
        # The log goes by the wall clock: the steps were there.
        told = [dt.datetime.fromisoformat(line["ts"]) for line in (before, after)]
        assert (told[1] - told[0]).days in (366, 367)
