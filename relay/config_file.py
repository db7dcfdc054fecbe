"""The TOML file of -config: its keys are the names of the flags.

Values keep TOML's types: a number is a number, true and false stand without quotes, a list may be a list.
Each becomes the text that the flag would be given, so that one reader per setting checks all of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from stat import S_ISREG
from typing import Any

from relay.flags import nearest
from relay.settings import Given, Layer, SettingsError, Source

LARGEST_BYTES = 256 * 1024  # far beyond any use, and little to read while serving
SHOWN_CHARACTERS = 60  # of a wrong value

_TYPES = {bool: "true or false, without quotes", int: "a whole number, without quotes", str: "a text in quotes"}
_AT_LINE = re.compile(r" \(at line ([0-9]+), column ([0-9]+)\)$")
_AT_END = " (at end of document)"


def file_layer(kinds: Sequence[type[Any]], path: str) -> Layer:
    """Read the values of settings classes that share a file.

    Raises:
        SettingsError: the file cannot be read or is not TOML (with the line), has a key that is unknown, or a
            value of the wrong type. Wrong values of the right type are left to the settings' readers.
    """
    options = {
        option.metadata["flag"]: option for kind in kinds for option in fields(kind) if option.metadata["in_file"]
    }
    layer = {}
    for key, value in _read(path).items():
        if key == "config":
            raise SettingsError(f"file {path}: config: accepted are -config and RELAY_CONFIG, not a key in the file")
        if key not in options:
            raise SettingsError(f"file {path}: unknown key {key!r}{_suggest(key, options)}")
        layer[options[key].name] = Given(
            _text(path, key, value, options[key].metadata["in_file"]), Source.FILE, key, path
        )
    return layer


def _suggest(key: str, known: Mapping[str, Any]) -> str:
    near = nearest(key, known)
    return f": did you mean {near}?" if near else ": keys are the names of the flags, see relay --help"


def _read(path: str) -> dict[str, Any]:
    """The file's table."""
    import tomllib  # only a run with a file needs it

    text = _decode(path, _content(path))
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise SettingsError(f"file {path} is not valid TOML: lists or tables lie too deep in each other") from None
    except ValueError as error:
        raise SettingsError(f"file {path}{_position(str(error), text)}") from None


def _content(path: str) -> bytes:
    content = b""
    try:
        # A pipe could keep a serving relay waiting, and could not be read a second time.
        is_regular = S_ISREG(Path(path).stat().st_mode)
        if is_regular:
            with Path(path).open("rb") as file:
                content = file.read(LARGEST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SettingsError(f"file {path} cannot be read: {reason}") from None
    if not is_regular:
        raise SettingsError(f"file {path} cannot be read: not a regular file")
    if len(content) > LARGEST_BYTES:
        raise SettingsError(f"file {path} is too large: accepted are up to {LARGEST_BYTES} bytes")
    return content


def _decode(path: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"file {path}, line {line}: not valid TOML: not UTF-8") from None


def _position(error: str, text: str) -> str:
    """The parser's error with the line ahead of it; at the end of the file the parser names none."""
    if at := _AT_LINE.search(error):
        line, what = int(at[1]), f"{error[: at.start()]} (column {at[2]})"
    else:
        line, what = text.count("\n") + 1, error.removesuffix(_AT_END)
    return f", line {line}: not valid TOML: {what}"


def _text(path: str, key: str, value: Any, types: tuple[type, ...]) -> str:
    """A value as the text that the flag would be given."""
    if type(value) not in types:
        accepted = ", or ".join(_TYPES.get(kind, "a list of texts") for kind in types)
        raise SettingsError(f"file {path}: {key}: {_shown(value)} is wrong: accepted is {accepted}")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        for part in value:
            if not isinstance(part, str) or not part.strip() or "," in part:
                raise SettingsError(
                    f"file {path}: {key}: {_shown(part)} is wrong: accepted is a text for each of the list"
                )
        return ",".join(value)
    return str(value)


def _shown(value: Any) -> str:
    """A wrong value for an error: short, on one line."""
    if isinstance(value, dict):
        return "a table"
    text = str(value).lower() if isinstance(value, bool) else str(value) if not isinstance(value, str) else repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
