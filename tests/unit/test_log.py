"""relay.log: the JSON line as the Go relay writes it, the text line, and the counters' line."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import log

logger = log.logger("relay.example")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Logging is the process's: what a test sets up is taken back."""
    root, handlers, level = logging.getLogger(), logging.getLogger().handlers[:], logging.getLogger().level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = True


def set_up(level: str = "debug", *, terminal: bool = False) -> io.StringIO:
    stream = io.StringIO()
    log.set_up(level, "text" if terminal else "json", stream)
    return stream


def test_a_json_line_has_level_time_caller_message_and_fields() -> None:
    stream = set_up()
    logger.warning("node disconnected", extra=log.fields(node="a:1", times=3))
    line = json.loads(stream.getvalue())
    assert list(line) == ["level", "ts", "caller", "msg", "node", "times"]
    assert (line["level"], line["msg"], line["node"], line["times"]) == ("warn", "node disconnected", "a:1", 3)
    file, _, number = line["caller"].partition(":")
    assert file == "unit/test_log.py"
    assert number.isdigit()


@given(st.floats(0, 4e9))
def test_the_time_is_utc_with_microseconds(created: float) -> None:
    record = logging.LogRecord("n", logging.INFO, "/a/b.py", 1, "m", (), None)
    record.created = created
    text = json.loads(log.JSONFormatter().format(record))["ts"]
    from datetime import UTC, datetime

    read = datetime.strptime(text, "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC).timestamp()
    assert abs(read - created) <= 1.1e-6
    assert len(text) == len("2006-01-02 15:04:05.000000")


@pytest.mark.parametrize(
    ("level", "seen"),
    [("debug", ["debug", "info", "warn", "error"]), ("info", ["info", "warn", "error"]), ("error", ["error"])],
)
def test_lines_below_the_level_are_left_out(level: str, seen: list[str]) -> None:
    stream = set_up(level)
    for say in (logger.debug, logger.info, logger.warning, logger.error):
        say("m")
    assert [json.loads(line)["level"] for line in stream.getvalue().splitlines()] == seen


@given(st.text(), st.text())
def test_any_text_is_one_line_that_can_be_read_back(message: str, value: str) -> None:
    stream = set_up()
    logger.info("%s", message, extra=log.fields(value=value))
    (line,) = stream.getvalue().removesuffix("\n").split("\n")
    assert (json.loads(line)["msg"], json.loads(line)["value"]) == (message, value)


def test_an_error_comes_with_its_traceback_in_the_same_line() -> None:
    stream = set_up()
    try:
        raise ValueError("a defect")
    except ValueError as error:
        logger.error("failed", exc_info=error)
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: a defect" in json.loads(line)["error"]


def test_a_line_for_a_terminal_is_text() -> None:
    stream = set_up(terminal=True)
    logger.info("serving", extra=log.fields(address="[::]:5", text="two words", empty="", number=3))
    assert stream.getvalue()[13:] == 'info  serving address=[::]:5 text="two words" empty="" number=3\n'


@pytest.mark.parametrize("terminal", [False, True])
def test_counters_are_json_whatever_the_level_and_the_terminal(terminal: bool) -> None:
    stream = set_up("error", terminal=terminal)
    log.counters({"feeds": {"logs": {"received": 1}}})
    line = json.loads(stream.getvalue())
    assert (line["msg"], line["feeds"]) == ("counters", {"logs": {"received": 1}})
    assert line["caller"].startswith("unit/test_log.py:")


def test_a_closed_stream_ends_nothing_and_is_not_complained_about(capsys: pytest.CaptureFixture[str]) -> None:
    stream = set_up()
    stream.close()
    logger.info("unheard")
    log.counters({})
    assert capsys.readouterr() == ("", "")


def test_asyncio_does_not_fill_the_debug_log() -> None:
    stream = set_up()
    logging.getLogger("asyncio").info("about itself")
    logging.getLogger("asyncio").warning("about us")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["msg"] == "about us"
