"""Events as text: a line for people, or a JSON object for programs."""

from __future__ import annotations

import json
from typing import Any

# The Go relay prints these two even when they are zero (compat.md).
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


def as_line(event: Any, *, colours: bool = False) -> str:
    """One line for people: when, where, what, and what became of it.

    Everything printed comes from a node, so control characters are shown, not obeyed.
    """
    paint = _paint if colours else _plain
    when = event.UpdatedTime.partition("T")[2].rstrip("Z") or event.UpdatedTime
    parts = [paint(_DIM, _printable(when)), _printable(event.HostName)]
    if hasattr(event, "Level"):
        parts += [paint(_BOLD, _printable(event.Level)), _printable(event.Message)]
        return " ".join(part for part in parts if part)
    if event.PodName:
        parts.append(_printable(f"{event.NamespaceName}/{event.PodName}"))
    parts += [paint(_BOLD, _printable(event.Operation)), _printable(event.ProcessName or event.Source)]
    parts.append(_printable(event.Resource))
    policy = getattr(event, "PolicyName", "")
    if policy:
        parts.append(f"policy={_printable(policy)}")
    verdict = getattr(event, "Action", "") or event.Result
    parts.append(paint(_COLOURS.get(verdict, _OTHER_RESULT), _printable(verdict)))
    return " ".join(part for part in parts if part)


def _paint(code: str, text: str) -> str:
    return f"{code}{text}{_RESET}" if text else ""


def _plain(_code: str, text: str) -> str:
    return text


def _printable(text: str) -> str:
    """Control characters as \\x1b and the like: an event must not drive the reader's terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
