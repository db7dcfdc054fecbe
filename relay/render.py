"""Events as text: a line for people, or a JSON object for programs."""

from __future__ import annotations

import json
from typing import Any

# The Go relay prints these two even when they are zero.
ALWAYS_PRINTED = ("PPID", "UID")

_RESET = "\x1b[0m"
_DIM = "\x1b[2m"
_BOLD = "\x1b[1m"
_COLOURS = {"Block": "\x1b[31m", "Audit": "\x1b[33m", "Allow": "\x1b[32m", "Passed": "\x1b[32m"}
_OTHER_RESULT = "\x1b[31m"


def as_json(event: Any) -> str:
    """One JSON object: the fields in declaration order under their own names, empty ones left out."""
    return json.dumps(as_dict(event), ensure_ascii=False, separators=(",", ":"))


def as_dict(event: Any) -> dict[str, Any]:
    """The fields that are set, in declaration order; messages and maps as dictionaries."""
    values: dict[str, Any] = {}
    set_fields = {descriptor.name for descriptor, _ in event.ListFields()}
    for descriptor in event.DESCRIPTOR.fields:
        name = descriptor.name
        if name not in set_fields and name not in ALWAYS_PRINTED:
            continue
        value = getattr(event, name)
        if descriptor.type != descriptor.TYPE_MESSAGE:
            values[name] = list(value) if descriptor.is_repeated else value
        elif descriptor.message_type.GetOptions().map_entry:
            values[name] = {key: value[key] for key in sorted(value)}
        else:
            values[name] = as_dict(value)
    return values


def as_line(event: Any, *, colours: bool = False, width: int = 0) -> str:
    """One line for people: when, where, what, and what became of it.

    Everything printed comes from a node, so control characters are shown, not obeyed.

    Args:
        event: a Message, an Alert or a Log.
        colours: with a terminal's colours.
        width: characters at most, 0 for all; what is longer loses its end.
    """
    words = _message_words(event) if hasattr(event, "Level") else _act_words(event)
    parts = [(colour, _printable(text)) for colour, text in words if text]
    if width:
        parts = _cut(parts, width)
    return " ".join(f"{colour}{text}{_RESET}" if colours and colour else text for colour, text in parts)


def _cut(parts: list[tuple[str, str]], width: int) -> list[tuple[str, str]]:
    """The parts of a line, the last ones shortened or left out so that it fits."""
    if sum(len(text) + 1 for _, text in parts) - 1 <= width:
        return parts
    kept = []
    left = width - 1  # for the dots that stand for the rest
    for colour, text in parts:
        if len(text) + 1 > left:
            kept.append((colour, text[:left] + "…"))
            break
        kept.append((colour, text))
        left -= len(text) + 1
    return kept


def _message_words(event: Any) -> list[tuple[str, str]]:
    """Colour and text of each part of a Message's line."""
    return [(_DIM, _time(event)), ("", event.HostName), (_BOLD, event.Level), ("", event.Message)]


def _act_words(event: Any) -> list[tuple[str, str]]:
    """Colour and text of each part of an Alert's or a Log's line."""
    policy = getattr(event, "PolicyName", "")
    verdict = getattr(event, "Action", "") or event.Result
    return [
        (_DIM, _time(event)),
        ("", event.HostName),
        ("", f"{event.NamespaceName}/{event.PodName}" if event.PodName else ""),
        (_BOLD, event.Operation),
        ("", event.ProcessName or event.Source),
        ("", event.Resource),
        ("", f"policy={policy}" if policy else ""),
        (_COLOURS.get(verdict, _OTHER_RESULT), verdict),
    ]


def _time(event: Any) -> str:
    """The time of day, without the date."""
    return str(event.UpdatedTime.partition("T")[2].rstrip("Z") or event.UpdatedTime)


def _printable(text: str) -> str:
    """Control characters as \\x1b and the like: an event must not drive the reader's terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
