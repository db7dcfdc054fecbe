"""The one logger: JSON lines on stderr, as the Go relay writes them, or text for a terminal.

A JSON line is {"level", "ts", "caller", "msg", fields…}, ts as 2006-01-02 15:04:05.000000 in UTC.
Fields go in as `logger.info("node connected", extra=fields(node="10.0.0.1:32767"))`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import Any, TextIO

from relay.printable import printable

DEBUG = logging.DEBUG
INFO = logging.INFO
WARNING = logging.WARNING
ERROR = logging.ERROR

_OURS = "relay"
_COUNTERS = "relay.counters"
_LEVELS = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warn",
    logging.ERROR: "error",
    logging.CRITICAL: "fatal",
}
_BY_NAME = {name: level for level, name in _LEVELS.items()}
_FIELDS = "relay_fields"


def logger(module: str) -> logging.Logger:
    """The logger of a module; `module` is its __name__."""
    return logging.getLogger(module)


def fields(**values: Any) -> dict[str, Any]:
    """Named values of a log line, for the `extra` of a logging call."""
    return {_FIELDS: values}


def set_up(level: str, form: str = "auto", stream: TextIO | None = None) -> None:
    """Send all logging to one stream; called again, it changes level and form from the next line on.

    Args:
        level: debug, info, warn or error.
        form: json, text, or auto: text for a terminal, else JSON.
        stream: stderr when None.
    """
    stream = sys.stderr if stream is None else stream
    handler = _Handler(stream)
    as_text = form == "text" or (form == "auto" and _is_terminal(stream))
    handler.setFormatter(TextFormatter() if as_text else JSONFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # The level is for our own lines: what a library says about itself may be long, or secret.
    root.setLevel(max(logging.WARNING, _BY_NAME[level]))
    logging.getLogger(_OURS).setLevel(_BY_NAME[level])
    # Counters are asked for, so they are logged whatever the level, and for programs, so as JSON.
    for_counters = _Handler(stream)
    for_counters.setFormatter(JSONFormatter())
    counters_logger = logging.getLogger(_COUNTERS)
    counters_logger.handlers[:] = [for_counters]
    counters_logger.setLevel(logging.INFO)
    counters_logger.propagate = False
    logging.raiseExceptions = False  # a closed stderr must not end, or fill, anything
    logging.logProcesses = logging.logThreads = logging.logMultiprocessing = False


def counters(values: dict[str, Any]) -> None:
    """Log counters as one JSON line, whatever the level."""
    logging.getLogger(_COUNTERS).info("counters", extra=fields(**values), stacklevel=2)


def flush() -> None:
    """Write out what is buffered, before the process leaves without Python's own clean-up."""
    logging.shutdown()


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


class _Handler(logging.StreamHandler[TextIO]):
    """Survives the reader of its pipe."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            # What is buffered would fail again when Python flushes at its end, and make the exit code 120.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)
        super().handleError(record)


class JSONFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "level": _level(record),
            "ts": _timestamp(record),
            "caller": _caller(record),
            "msg": _message(record),
        }
        for name, value in getattr(record, _FIELDS, {}).items():
            line[_free(name, line)] = value
        if record.exc_info:
            line[_free("error", line)] = self.formatException(record.exc_info)
        return _as_json(line)


class TextFormatter(logging.Formatter):
    """Time, level and message, then the fields as name=value.

    What could move the cursor or forge a line is escaped: messages hold text that came from peers.
    """

    def format(self, record: logging.LogRecord) -> str:
        parts = [_timestamp(record)[11:23], f"{_level(record):5}", printable(_message(record))]
        parts += [f"{name}={_plain(value)}" for name, value in getattr(record, _FIELDS, {}).items()]
        line = " ".join(parts)
        if not record.exc_info:
            return line
        trace = self.formatException(record.exc_info).splitlines()
        return "\n".join([line, *map(printable, trace)])


def _level(record: logging.LogRecord) -> str:
    return _LEVELS.get(record.levelno, record.levelname.lower())


def _message(record: logging.LogRecord) -> str:
    """The message with its arguments; a line that is wrong itself is told as far as it goes."""
    try:
        return record.getMessage()
    except Exception:  # an argument's own __str__ may raise anything
        return str(record.msg)


def _free(name: str, line: dict[str, Any]) -> str:
    """A name for a field that takes the place of nothing in the line: its own, or with _ behind it."""
    while name in line:
        name += "_"
    return name


def _as_json(line: dict[str, Any]) -> str:
    """Compact JSON; a field that JSON cannot hold becomes text, and takes no other with it."""
    try:
        return _dumps(line)
    except _NOT_JSON:
        return "{" + ",".join(f"{_dumps(str(name))}:{_field(value)}" for name, value in line.items()) + "}"


def _field(value: Any) -> str:
    """One field's value as JSON, as text if need be."""
    try:
        return _dumps(value)
    except _NOT_JSON:
        return _dumps(_as_text(value))


# Infinity and the like, or a circle; a key that is no text; too many levels.
_NOT_JSON = (ValueError, TypeError, RecursionError)


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_as_text, separators=(",", ":"))


def _as_text(value: Any) -> str:
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__}>"


def _plain(value: Any) -> str:
    """A field's value in a text line: bare where that is unambiguous, else as JSON."""
    text = value if isinstance(value, str) else _field(value)
    if text and text.isprintable() and not set(text) & set(' ="'):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _timestamp(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.created % 1 * 1_000_000):06d}"


def _caller(record: logging.LogRecord) -> str:
    """The last folder, the file and the line, as zap's short caller."""
    return "/".join(record.pathname.rsplit("/", 2)[-2:]) + f":{record.lineno}"
