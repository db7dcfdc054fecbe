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
    loggers = [logging.getLogger(name) for name in (None, "relay", "relay.counters")]
    before = [(known, known.handlers[:], known.level, known.propagate) for known in loggers]
    yield
    for known, handlers, level, propagate in before:
        known.handlers[:] = handlers
        known.setLevel(level)
        known.propagate = propagate
    logging.raiseExceptions = True


def set_up(level: str = "debug", form: str = "json") -> io.StringIO:
    stream = io.StringIO()
    log.set_up(level, form, stream)
    return stream


class Terminal(io.StringIO):
    """A stream that says of itself that it is a terminal."""

    def isatty(self) -> bool:
        return True


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


def test_a_text_line_has_time_level_message_and_fields() -> None:
    stream = set_up(form="text")
    logger.info("serving", extra=log.fields(address="[::]:5", text="two words", empty="", number=3))
    assert stream.getvalue()[13:] == 'info  serving address=[::]:5 text="two words" empty="" number=3\n'


@pytest.mark.parametrize(
    ("form", "stream", "is_json"),
    [
        ("auto", io.StringIO, True),
        ("auto", Terminal, False),
        ("json", Terminal, True),
        ("text", io.StringIO, False),
    ],
)
def test_auto_is_text_on_a_terminal_and_json_elsewhere(form: str, stream: type[io.StringIO], is_json: bool) -> None:
    output = stream()
    log.set_up("info", form, output)
    logger.info("serving")
    assert output.getvalue().startswith("{") is is_json


def test_level_and_form_can_change_while_the_process_runs() -> None:
    stream = set_up("info")
    logger.debug("one")
    log.set_up("debug", "text", stream)
    logger.debug("two")
    log.set_up("warn", "json", stream)
    logger.info("three")
    logger.warning("four")
    two, four = stream.getvalue().splitlines()
    assert two[13:] == "debug two"
    assert json.loads(four)["msg"] == "four"


def test_a_field_takes_the_place_of_nothing() -> None:
    stream = set_up()
    logger.info("m", extra=log.fields(level="l", ts="t", caller="c", msg="own", msg_="other"))
    line = json.loads(stream.getvalue())
    assert (line["level"], line["msg"], line["level_"], line["ts_"], line["caller_"]) == ("info", "m", "l", "t", "c")
    assert {line["msg_"], line["msg__"]} == {"own", "other"}
    assert line["caller"].startswith("unit/test_log.py:")


def test_an_error_field_and_a_traceback_are_both_there() -> None:
    stream = set_up()
    logger.error("m", exc_info=ValueError("a defect"), extra=log.fields(error="refused"))
    line = json.loads(stream.getvalue())
    assert (line["error"], line["error_"]) == ("refused", "ValueError: a defect")


class Unprintable:
    """Raises when it is made text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def circle() -> list[object]:
    items: list[object] = []
    items.append(items)
    return items


def deep() -> object:
    value: object = None
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize(
    "value", [Unprintable(), circle(), deep(), {(1, 2): 3}, float("nan"), float("-inf"), b"bytes", {"a"}, "\ud800"]
)
def test_a_value_that_json_cannot_hold_costs_neither_the_line_nor_the_other_fields(form: str, value: object) -> None:
    stream = set_up(form=form)
    logger.info("m", extra=log.fields(value=value, node="a:1"))
    (line,) = stream.getvalue().splitlines()
    if form == "text":
        assert line.endswith(" node=a:1")
    else:
        read = json.loads(line, parse_constant=pytest.fail)
        assert (read["msg"], read["node"]) == ("m", "a:1")


def test_only_the_part_that_json_cannot_hold_becomes_text() -> None:
    stream = set_up()
    logger.info("m", extra=log.fields(value={"part": {1}, "number": 2}))
    assert json.loads(stream.getvalue())["value"] == {"part": "{1}", "number": 2}


@pytest.mark.parametrize("arguments", [("one", "two"), (Unprintable(),)])
def test_a_message_that_cannot_be_made_is_told_as_far_as_it_goes(arguments: tuple[object, ...]) -> None:
    stream = set_up()
    logger.info("node %s", *arguments)
    assert json.loads(stream.getvalue())["msg"] == "node %s"


@given(st.text(), st.text())
def test_no_text_from_outside_controls_the_terminal_or_forges_a_line(message: str, value: str) -> None:
    stream = set_up(form="text")
    logger.info("%s", message, extra=log.fields(value=value))
    line = stream.getvalue()
    assert line.removesuffix("\n").isprintable()
    assert line.endswith("\n")


@pytest.mark.parametrize("form", ["json", "text"])
def test_counters_are_json_whatever_the_level_and_the_form(form: str) -> None:
    stream = set_up("error", form)
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


def test_a_library_is_heard_from_warnings_up() -> None:
    stream = set_up("debug")
    for name in ("asyncio", "some.client"):
        logging.getLogger(name).info("about itself")
        logging.getLogger(name).warning("about us")
    assert [json.loads(line)["msg"] for line in stream.getvalue().splitlines()] == ["about us", "about us"]


@pytest.mark.parametrize("form", ["auto", "json", "text"])
def test_logging_to_a_closed_stream_can_be_set_up(form: str) -> None:
    stream = io.StringIO()
    stream.close()
    log.set_up("info", form, stream)
    logger.info("unheard")
