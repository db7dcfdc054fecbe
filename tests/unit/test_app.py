"""relay.app and relay.listen: what cannot be brought about from outside the process."""

import asyncio
import errno
import logging
import resource
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from relay import _fastpath, app, feeds, listen
from relay.engine import Stopped, SubscriberEvent, SubscriberReport
from relay.settings import Address, Settings, SettingsError
from relay.sink_settings import SinkSettings
from relay.sources import Loaded, Sources

WAIT = 30.0


@pytest.fixture(autouse=True)
def limits() -> Iterator[None]:
    """The limit on open files is the process's: it is put back."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


# --- the end of the engine ----------------------------------------------------------------


def served(interfere: Any) -> int:
    """Serve, let `interfere(relay)` happen, and return the exit code."""

    async def work() -> int:
        native = _fastpath.Engine()
        relay = app.startup(Loaded(Settings(), SinkSettings(), {}), Sources({}, {}), native, [])
        try:
            asyncio.get_running_loop().call_soon(interfere, relay)
            async with asyncio.timeout(WAIT):
                reason, code = await app.main_loop(relay)
                return await app.shutdown(relay, reason, code)
        finally:
            relay.engine.close()

    return asyncio.run(work())


def test_an_engine_that_stops_by_itself_ends_the_process(caplog: pytest.LogCaptureFixture) -> None:
    assert served(lambda relay: relay.engine.native.shutdown(0)) == app.EXIT_FAILURE
    assert "the engine has stopped" in str([vars(record) for record in caplog.records])


def test_an_engine_that_ends_with_an_error_ends_the_process(caplog: pytest.LogCaptureFixture) -> None:
    def fail(relay: app.Relay) -> None:
        relay.engine.stopped.set_result(Stopped(5, "no memory"))

    assert served(fail) == app.EXIT_FAILURE
    assert "no memory" in str([vars(record) for record in caplog.records])


def test_a_task_that_fails_ends_the_process(caplog: pytest.LogCaptureFixture) -> None:
    def fail(relay: app.Relay) -> None:
        raise RuntimeError("a defect")

    assert served(fail) == app.EXIT_FAILURE
    assert "a defect" in caplog.text


@pytest.mark.parametrize(
    ("event", "lost", "level", "message"),
    [
        (SubscriberEvent.STARTED, 0, "DEBUG", "subscriber started"),
        (SubscriberEvent.LOSING, 7, "WARNING", "subscriber loses events: it reads too slowly"),
        (SubscriberEvent.RECOVERED, 7, "INFO", "subscriber has stopped losing events"),
        (SubscriberEvent.ENDED, 7, "WARNING", "subscriber ended"),
        (SubscriberEvent.ENDED, 0, "DEBUG", "subscriber ended"),
    ],
)
def test_a_subscribers_life_is_logged_with_its_totals(
    caplog: pytest.LogCaptureFixture, event: SubscriberEvent, lost: int, level: str, message: str
) -> None:
    caplog.set_level(logging.DEBUG, "relay")

    def report(relay: app.Relay) -> None:
        relay.engine.on_subscriber(SubscriberReport(3, event, feeds.LOGS, "10.0.0.9:4711", 40, lost, 14))
        relay.ending.set_result(("test", app.EXIT_OK))

    assert served(report) == app.EXIT_OK
    (line,) = (record for record in caplog.records if record.message == message)
    assert line.levelname == level
    told = {"subscriber": 3, "peer": "10.0.0.9:4711", "feed": "logs", "delivered": 40, "lost": lost}
    assert vars(line)["relay_fields"] == told


def test_counters_without_memory_for_them_end_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def starve(relay: app.Relay) -> None:
        def counters() -> dict[str, Any]:
            raise MemoryError("no memory for a snapshot of the counters")

        monkeypatch.setattr(relay.engine, "counters", counters)
        app.log_counters(relay)
        relay.ending.set_result(("test", app.EXIT_OK))

    assert served(starve) == app.EXIT_OK
    (asked, _) = (record for record in caplog.records if record.message == "counters cannot be had")
    assert vars(asked)["relay_fields"] == {"error": "no memory for a snapshot of the counters"}


def test_an_engine_that_does_not_end_does_not_hold_up_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process leaves without it, after its deadline."""
    left: list[int] = []

    class Left(Exception):
        pass

    def leave(code: int) -> None:
        left.append(code)
        raise Left

    monkeypatch.setattr(app.os, "_exit", leave)
    monkeypatch.setattr(app, "SHUTDOWN_SECONDS", 0.01)
    monkeypatch.setattr(app, "SHUTDOWN_MARGIN", 0.01)

    def hang(relay: app.Relay) -> None:
        relay.engine.shutdown = lambda seconds: None  # type: ignore[method-assign]
        relay.ending.set_result(("SIGTERM", 0))

    with pytest.raises(Left):
        served(hang)
    assert left == [app.EXIT_FAILURE]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("gather_us is -1; 0 to 1000000 are accepted"), "gather_us is -1; 0 to 1000000 are accepted"),
        (OSError(errno.EMFILE, "Too many open files"), "the engine cannot start: [Errno 24] Too many open files"),
        (MemoryError("no memory for an engine"), "the engine cannot start: no memory for an engine"),
    ],
)
def test_an_engine_that_cannot_be_made_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, text: str
) -> None:
    def refuse(**settings: Any) -> None:
        raise error

    monkeypatch.setattr(_fastpath, "Engine", refuse)
    with pytest.raises(SettingsError) as told:
        app.make_engine(Settings())
    assert str(told.value) == text


# --- sockets ------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::", 0))
        return int(probe.getsockname()[1])


def refusing(family: int, number: int) -> type[socket.socket]:
    """A socket class that fails for one family as the kernel would."""

    class Refusing(socket.socket):
        def __init__(self, family_: int = -1, *arguments: Any, **keywords: Any) -> None:
            if family_ == family:
                raise OSError(number, "refused")
            super().__init__(family_, *arguments, **keywords)

    return Refusing


def test_without_ipv6_all_ipv4_addresses_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setattr(listen.socket, "socket", refusing(socket.AF_INET6, errno.EAFNOSUPPORT))
    (listener,) = listen.open_sockets("", port)
    with listener:
        assert listener.getsockname() == ("0.0.0.0", port)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.EACCES, "not permitted; choose a port from 1024 up with -gRPCPort"),
        (errno.EMFILE, "refused"),
    ],
)
def test_other_failures_are_told(monkeypatch: pytest.MonkeyPatch, number: int, text: str) -> None:
    monkeypatch.setattr(listen.socket, "socket", refusing(socket.AF_INET6, number))
    with pytest.raises(SettingsError) as told:
        listen.open_sockets("", 80)
    assert str(told.value) == f"cannot listen on {Address('::', 80)}: {text}"


def test_a_backlog_is_kept_for_bursts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Asking(socket.socket):
        def listen(self, backlog: int = 0) -> None:  # type: ignore[override]
            asked.append(backlog)
            super().listen(backlog)

    monkeypatch.setattr(listen.socket, "socket", Asking)
    for listener in listen.open_sockets("127.0.0.1", free_port()):
        listener.close()
    assert asked == [4096]


def test_a_limit_that_cannot_be_raised_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(kind: int, limits: tuple[int, int]) -> None:
        raise OSError(errno.EPERM, "not permitted")

    monkeypatch.setattr(listen.resource, "setrlimit", refuse)
    caplog.set_level(logging.WARNING)
    listen.raise_file_limit()
    assert "cannot raise the limit on open files" in caplog.text
    monkeypatch.undo()
