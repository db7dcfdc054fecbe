"""relay.rotation: what changes is taken over once it stands still, what is broken is refused, what ends soon is told.

Files, engine, clock and threads are replaced; the loop's time passes without waiting.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from peers.virtual import run

from relay.backoff import Backoff
from relay.certificates import Material, Pair, Span
from relay.rotation import DAY, FIRST_RETRY, HANG_SECONDS, LAST_RETRY, LOOK_SECONDS, Rotation
from relay.settings import SettingsError
from relay.tls import Certificates

NOW = 1_800_000_000.0
RARELY = 600.0
TAKEN = "certificates taken over"
REFUSED = "certificates not taken over: the old ones stay"
HANGS = "certificates cannot be looked at"
SOON = "certificate expires soon"
EXPIRED = "certificate has expired"
ROOTS = "ca.crt holds several certificates: the first is the root, the others are ignored"


class Files:
    """A provider whose files the test changes."""

    folder = Path("/tls")

    def __init__(self) -> None:
        self.content = "first"
        self.version = 1
        self.looks = 0
        self.reads = 0
        self.error = ""
        self.fresh: Span | None = None

    def put(self, content: str, error: str = "") -> None:
        self.content, self.error = content, error
        self.version += 1

    def look(self) -> tuple[tuple[int, ...], ...]:
        self.looks += 1
        return ((self.version,),)

    def obtain(self) -> Material:
        self.reads += 1
        if self.error:
            raise SettingsError(self.error)
        return Material(b"root", Pair(self.content.encode(), b"key"), None, self.fresh)


class World:
    """A rotation with everything around it."""

    def __init__(self) -> None:
        self.files = Files()
        self.jumped = 0.0
        self._loop = asyncio.get_running_loop()
        self._begin = self._loop.time()
        self.ends = {"ca": int(NOW + 100 * DAY), "server": int(NOW + 50 * DAY)}
        self.roots = 1
        self.used: list[str] = []
        self.failed: list[BaseException] = []
        self.hanging = asyncio.Event()
        self.hanging.set()
        self.rotation = Rotation(self.files, self.make, self.use, lambda: self.now, self.detached)

    @property
    def now(self) -> float:
        """The wall clock: goes on with the loop's, but for jumps."""
        return NOW + self._loop.time() - self._begin + self.jumped

    def make(self, material: Material) -> Certificates:
        assert material.server is not None
        if material.server.certificate == b"broken":
            raise SettingsError("server.crt is broken")
        return Certificates(
            material.server.certificate.decode(), None, self.ends, self.roots, material.digest(), material.fresh
        )

    def use(self, certificates: Certificates) -> None:
        self.used.append(certificates.server)

    async def detached(self, work: Callable[[], Any], _name: str) -> Any:
        await self.hanging.wait()
        return work()


def rotating(
    work: Callable[[World], Coroutine[Any, Any, None]], prepare: Callable[[World], None] = lambda _: None
) -> World:
    """Load, start, let `work` happen, and stop."""

    async def main() -> World:
        world = World()
        prepare(world)
        world.rotation.load()
        world.rotation.start(world.failed.append)
        await work(world)
        world.rotation.stop()
        await asyncio.sleep(0)
        return world

    world = run(main())
    assert world.failed == []
    return world


def lines(caplog: pytest.LogCaptureFixture, *wanted: str) -> list[tuple[str, dict[str, Any]]]:
    found = [(record.getMessage(), record.relay_fields) for record in caplog.records]  # type: ignore[attr-defined]
    return [line for line in found if line[0] in wanted]


@pytest.fixture(autouse=True)
def steady(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Without jitter, and with all lines."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("relay.rotation.Backoff", lambda first, last: Backoff(first, last, draw=lambda: 1.0))


@pytest.fixture
def rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of many days, which would take as many looks."""
    monkeypatch.setattr("relay.rotation.LOOK_SECONDS", RARELY)


# --- what changes -------------------------------------------------------------------------


def test_the_first_certificates_are_used_and_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    async def work(world: World) -> None:
        await asyncio.sleep(3600)

    world = rotating(work)
    assert (world.used, world.files.reads) == (["first"], 1)
    assert caplog.records == []


def test_the_first_certificates_must_be_good() -> None:
    async def main() -> None:
        world = World()
        world.files.put("broken")
        with pytest.raises(SettingsError, match=r"server\.crt is broken"):
            world.rotation.load()
        assert world.used == []

    run(main())


def test_a_change_is_taken_over_within_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    async def work(world: World) -> None:
        for content in ("second", "third"):
            world.files.put(content)
            await asyncio.sleep(10)
            assert world.used[-1] == content

    world = rotating(work)
    assert world.used == ["first", "second", "third"]
    assert lines(caplog, TAKEN) == [(TAKEN, {"days": {"ca": 100.0, "server": 50.0}})] * 2
    assert world.rotation.describe() | {"days": 0} == {
        "folder": "/tls",
        "days": 0,
        "taken": 3,
        "refused": 0,
        "last_error": "",
    }


def test_files_that_are_still_being_written_are_left_alone() -> None:
    async def work(world: World) -> None:
        for number in range(20):
            world.files.put(f"part {number}", error="half written")
            await asyncio.sleep(LOOK_SECONDS)
        assert world.files.reads == 1
        world.files.put("whole")
        await asyncio.sleep(10)

    world = rotating(work)
    assert world.used == ["first", "whole"]
    assert world.rotation.describe()["refused"] == 0


def test_the_same_content_again_is_no_change(caplog: pytest.LogCaptureFixture) -> None:
    async def work(world: World) -> None:
        world.files.put("first")
        await asyncio.sleep(60)

    world = rotating(work)
    assert (world.used, world.files.reads) == (["first"], 2)
    assert caplog.records == []


def test_a_look_can_be_asked_for() -> None:
    async def work(world: World) -> None:
        await asyncio.sleep(LOOK_SECONDS / 2)
        world.files.put("second")
        world.rotation.look_now()
        for _ in range(20):
            await asyncio.sleep(0)  # time stands still
        assert world.used == ["first", "second"]

    rotating(work)


def test_a_look_that_finds_nothing_new_reads_nothing() -> None:
    """Or else each SIGHUP would make another certificate."""

    async def work(world: World) -> None:
        for _ in range(3):
            world.rotation.look_now()
            await asyncio.sleep(LOOK_SECONDS / 2)

    world = rotating(work)
    assert world.files.looks > 3
    assert (world.used, world.files.reads) == (["first"], 1)


def test_a_defect_is_told() -> None:
    async def main() -> None:
        world = World()
        world.rotation.load()
        world.rotation.start(world.failed.append)
        world.use = None  # type: ignore[assignment,method-assign]
        world.rotation._use = None  # type: ignore[assignment]
        world.files.put("second")
        await asyncio.sleep(10)
        assert [type(error) for error in world.failed] == [TypeError]

    run(main())


# --- what cannot be used ------------------------------------------------------------------


def test_a_broken_set_is_refused_with_its_reason_and_the_old_one_kept(caplog: pytest.LogCaptureFixture) -> None:
    async def work(world: World) -> None:
        world.files.put("broken")
        await asyncio.sleep(10)
        assert world.rotation.describe()["last_error"] == "server.crt is broken"
        world.files.put("second", error="no server.key")
        await asyncio.sleep(10)
        world.files.put("second")
        await asyncio.sleep(10)
        assert world.rotation.describe()["last_error"] == ""

    world = rotating(work)
    assert world.used == ["first", "second"]
    told = [(what, fields.get("error", "")) for what, fields in lines(caplog, REFUSED, TAKEN)]
    assert told == [(REFUSED, "server.crt is broken"), (REFUSED, "no server.key"), (TAKEN, "")]


@pytest.mark.usefixtures("rarely")
def test_the_same_reason_is_told_once_a_day(caplog: pytest.LogCaptureFixture) -> None:
    async def work(world: World) -> None:
        world.files.put("broken")
        await asyncio.sleep(DAY - RARELY)
        assert len(lines(caplog, REFUSED)) == 1
        await asyncio.sleep(4 * RARELY)

    rotating(work)
    told = lines(caplog, REFUSED)
    assert len(told) == 2
    assert told[1][1]["times"] > 1


def test_what_was_refused_is_tried_again_by_itself_with_growing_pauses() -> None:
    """Its reason may go without a change of the files: a certificate that begins later, no memory for a process."""

    async def work(world: World) -> None:
        world.files.put("second", error="not yet valid")
        await asyncio.sleep(2 * LOOK_SECONDS + 1)
        tries = [world.files.reads]
        for pause in (FIRST_RETRY, 2 * FIRST_RETRY, 4 * FIRST_RETRY):
            await asyncio.sleep(pause + LOOK_SECONDS)
            tries.append(world.files.reads)
        assert tries == [2, 3, 4, 5]
        await asyncio.sleep(3600)
        before = world.files.reads
        await asyncio.sleep(6 * LAST_RETRY)
        assert world.files.reads - before in (5, 6)
        world.files.error = ""
        await asyncio.sleep(LAST_RETRY + LOOK_SECONDS)

    assert rotating(work).used == ["first", "second"]


def test_a_look_that_is_asked_for_tries_again_at_once() -> None:
    async def work(world: World) -> None:
        world.files.put("second", error="no memory")
        await asyncio.sleep(2 * LOOK_SECONDS + 1)
        world.files.error = ""
        world.rotation.look_now()
        for _ in range(20):
            await asyncio.sleep(0)
        assert world.used == ["first", "second"]

    rotating(work)


def test_a_disk_that_hangs_is_told_of_and_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    async def work(world: World) -> None:
        world.hanging.clear()
        looks = world.files.looks
        await asyncio.sleep(3 * HANG_SECONDS)
        assert world.files.looks == looks
        assert world.rotation.describe()["last_error"] == "/tls does not answer"
        await asyncio.sleep(2 * DAY)
        assert lines(caplog, SOON)  # all the same
        world.files.put("second")
        world.hanging.set()
        await asyncio.sleep(10)
        assert world.rotation.describe()["last_error"] == ""

    def soon(world: World) -> None:
        world.ends["server"] = int(NOW + 15 * DAY)

    world = rotating(work, soon)
    assert world.used == ["first", "second"]
    assert [fields["error"] for _, fields in lines(caplog, HANGS)] == ["/tls does not answer"] * 3


def test_a_look_without_a_thread_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def refuse(_work: Callable[[], Any], _name: str) -> Any:
        raise RuntimeError("can't start new thread")

    async def work(world: World) -> None:
        detached, world.rotation._detached = world.rotation._detached, refuse
        world.files.put("second")
        await asyncio.sleep(60)
        world.rotation._detached = detached
        await asyncio.sleep(10)

    assert rotating(work).used == ["first", "second"]
    told = lines(caplog, HANGS, TAKEN)
    assert [what for what, _ in told] == [HANGS, TAKEN]
    assert told[0][1]["error"] == "can't start new thread"


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError("no memory")])
def test_certificates_that_cannot_be_read_for_want_of_memory_are_tried_again(error: Exception) -> None:
    async def work(world: World) -> None:
        obtain, world.files.obtain = world.files.obtain, refuse  # type: ignore[method-assign]
        world.files.put("second")
        await asyncio.sleep(2 * LOOK_SECONDS + 1)
        assert world.rotation.describe()["last_error"] == str(error)
        world.files.obtain = obtain  # type: ignore[method-assign]
        await asyncio.sleep(FIRST_RETRY + LOOK_SECONDS)

    def refuse() -> Material:
        raise error

    assert rotating(work).used == ["first", "second"]


def test_certificates_that_the_engine_has_no_memory_for_are_given_to_it_again() -> None:
    async def work(world: World) -> None:
        use, world.rotation._use = world.rotation._use, refuse
        world.files.put("second")
        await asyncio.sleep(2 * LOOK_SECONDS + 1)
        assert world.rotation.describe()["last_error"] == "no memory for a command"
        world.rotation._use = use
        await asyncio.sleep(FIRST_RETRY + LOOK_SECONDS)

    def refuse(_: Certificates) -> None:
        raise MemoryError("no memory for a command")

    assert rotating(work).used == ["first", "second"]


# --- made anew ----------------------------------------------------------------------------


def self_made(world: World) -> None:
    """Each reading gives another certificate, good from now on for a while."""
    obtain = world.files.obtain

    def anew() -> Material:
        world.files.content = f"made {world.files.reads + 1}"
        world.files.fresh = Span(world.now - 3600, world.now + 40 * DAY)
        return obtain()

    world.files.obtain = anew  # type: ignore[method-assign]


@pytest.mark.usefixtures("rarely")
def test_certificates_are_made_anew_when_it_is_time() -> None:
    async def work(world: World) -> None:
        await asyncio.sleep(40 * DAY - RARELY)
        assert world.used == ["made 1"]
        await asyncio.sleep(2 * RARELY)
        assert world.used == ["made 1", "made 2"]
        await asyncio.sleep(40 * DAY)

    assert rotating(work, self_made).used == ["made 1", "made 2", "made 3"]


@pytest.mark.usefixtures("rarely")
def test_certificates_that_cannot_be_made_anew_are_tried_again() -> None:
    async def work(world: World) -> None:
        world.files.error = "no ca.key"
        await asyncio.sleep(41 * DAY)
        assert world.used == ["made 1"]
        world.files.error = ""
        await asyncio.sleep(LAST_RETRY + RARELY)
        assert len(world.used) == 2

    rotating(work, self_made)


@pytest.mark.parametrize("jump", [400 * DAY, -400 * DAY])
def test_a_clock_that_jumps_makes_certificates_anew_that_are_good_then(jump: float) -> None:
    async def work(world: World) -> None:
        world.jumped += jump
        await asyncio.sleep(10)
        assert world.used == ["made 1", "made 2"]
        await asyncio.sleep(3600)
        assert len(world.used) == 2

    rotating(work, self_made)


# --- expiry -------------------------------------------------------------------------------


@pytest.mark.usefixtures("rarely")
def test_what_ends_within_14_days_is_told_once_a_day_and_what_has_ended_as_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work(world: World) -> None:
        await asyncio.sleep(36 * DAY - RARELY)
        assert lines(caplog, SOON) == []
        await asyncio.sleep(2 * RARELY)
        assert lines(caplog, SOON) == [(SOON, {"certificate": "server", "days": 14.0, "folder": "/tls"})]
        await asyncio.sleep(14 * DAY)
        days = [fields["days"] for _, fields in lines(caplog, SOON)]
        assert days == [float(day) for day in range(14, 0, -1)]
        (expired,) = lines(caplog, EXPIRED)
        assert expired[1]["certificate"] == "server"
        await asyncio.sleep(2 * DAY)

    rotating(work)
    assert len(lines(caplog, EXPIRED)) == 3
    levels = {record.getMessage(): record.levelname for record in caplog.records}
    assert levels == {SOON: "WARNING", EXPIRED: "ERROR"}


@pytest.mark.usefixtures("rarely")
def test_new_certificates_end_the_warnings(caplog: pytest.LogCaptureFixture) -> None:
    async def work(world: World) -> None:
        await asyncio.sleep(40.5 * DAY)
        told = len(lines(caplog, SOON))
        world.ends = {name: int(world.now + 90 * DAY) for name in world.ends}
        world.files.put("second")
        await asyncio.sleep(70 * DAY)
        assert len(lines(caplog, SOON)) == told
        assert world.rotation.describe()["days"] == {"ca": 20.0, "server": 20.0}

    rotating(work)


def test_new_certificates_that_end_soon_are_told_of_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """Though the old ones did, and that was told within the day."""

    def soon(world: World) -> None:
        world.ends = {"server": int(NOW + 5 * DAY)}

    async def work(world: World) -> None:
        await asyncio.sleep(60)
        world.ends = {"server": int(NOW + 6 * DAY)}
        world.files.put("second")
        await asyncio.sleep(10)

    rotating(work, soon)
    assert [fields["days"] for _, fields in lines(caplog, SOON)] == [5.0, 6.0]


def test_a_clock_that_jumps_to_and_fro_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def work(world: World) -> None:
        for _ in range(100):
            world.jumped += 45 * DAY
            await asyncio.sleep(LOOK_SECONDS)
            world.jumped -= 45 * DAY
            await asyncio.sleep(LOOK_SECONDS)

    rotating(work)
    assert len(lines(caplog, SOON)) == 1


def test_days_are_counted_down_below_nothing() -> None:
    async def work(world: World) -> None:
        world.jumped += 51.26 * DAY
        assert world.rotation.describe()["days"] == {"ca": 48.7, "server": -1.3}

    rotating(work)


def test_several_certificates_in_the_root_are_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    def several(world: World) -> None:
        world.roots = 3

    async def work(world: World) -> None:
        world.files.put("second")
        await asyncio.sleep(10)

    rotating(work, several)
    assert lines(caplog, ROOTS) == [(ROOTS, {"certificates": 3, "folder": "/tls"})]
