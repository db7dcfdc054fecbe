"""Go-style command-line flags: one dash or two, `-name=value` or `-name value`.

The Go relay's command lines must work unchanged, so the grammar is that of Go's package
flag (https://pkg.go.dev/flag, "Command line flag syntax"), which argparse cannot speak:
a boolean flag stands alone or takes `=value`, never a separate word; flags end at the
first word that is not one, or behind `--`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

TRUE_WORDS = ("1", "t", "T", "TRUE", "true", "True")
FALSE_WORDS = ("0", "f", "F", "FALSE", "false", "False")


class FlagError(ValueError):
    """A command line that cannot be read; the text is one line for the user."""


def parse_bool(text: str) -> bool:
    """Read a boolean as Go's strconv.ParseBool does.

    Raises:
        ValueError: the text is none of Go's twelve words.
    """
    if text in TRUE_WORDS:
        return True
    if text in FALSE_WORDS:
        return False
    raise ValueError("true or false")


def parse_flags(words: Sequence[str], flags: Mapping[str, bool]) -> tuple[dict[str, str], list[str]]:
    """Split a command line into flags and the words that follow them.

    Args:
        words: the command line without the program's name.
        flags: every known flag; True for a boolean one.
    Returns:
        The text given to each flag (the last one wins, as in Go), and the remaining words.
    Raises:
        FlagError: an unknown or malformed flag, or one without its value.
    """
    given: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest[0]
        if len(word) < 2 or not word.startswith("-"):
            break
        rest.pop(0)
        if word == "--":
            break
        name, has_value, value = word.removeprefix("-").removeprefix("-").partition("=")
        if not name or name.startswith("-"):
            raise FlagError(f"malformed flag {word!r}: accepted are -name value and -name=value")
        if name not in flags:
            raise FlagError(f"unknown flag -{name}{_suggest(name, flags)}")
        if not has_value:
            value = _separate_value(name, flags[name], rest)
        given[name] = value
    return given, rest


def _separate_value(name: str, boolean: bool, rest: list[str]) -> str:
    """The value of a flag given without `=`: "true" for a boolean, else the next word."""
    if boolean:
        return "true"
    if not rest:
        raise FlagError(f"flag -{name} needs a value: accepted are -{name} value and -{name}=value")
    return rest.pop(0)


def _suggest(name: str, flags: Mapping[str, bool]) -> str:
    """The part of the message that names the nearest known flag, or says where to look."""
    near = nearest(name, flags)
    return f": did you mean -{near}?" if near else ": see relay --help"


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that a misspelt one most likely stands for; None if none is like it."""
    from difflib import get_close_matches  # only a mistake needs it

    by_lower_case = {known.lower(): known for known in names}
    near = get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.6)
    return by_lower_case[near[0]] if near else None
