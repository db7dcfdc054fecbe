"""Reading the settings again while the relay serves (SIGHUP): what changes now, and what has to wait.

Flags and environment are those of the process's start; only the file can have changed.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, TypeVar, cast

from relay import log
from relay.settings import Settings, SettingsError, as_text
from relay.sink_settings import SinkSettings
from relay.sources import Sources, load_sources

_T = TypeVar("_T", Settings, SinkSettings)


class Change(NamedTuple):
    """A setting that differs from the one that the relay runs with."""

    name: str  # of the field
    flag: str
    before: str
    after: str


class Line(NamedTuple):
    """A line for the log: logging's level, the message, and its fields."""

    level: int
    text: str
    values: dict[str, str]


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What came of reading the settings again."""

    # To run with from now on: the old ones, with what can change while serving as it is wanted now.
    settings: Settings
    # What differs between the old and the new `settings`.
    changed: tuple[Change, ...] = ()
    # What is wanted to be different, and stays as it is until the next start.
    restart: tuple[Change, ...] = ()
    # Why nothing was taken over; empty if all went well.
    error: str = ""
    # What was read; empty without a file.
    file: str = ""

    def has_changed(self, *names: str) -> bool:
        """Whether one of these fields has a new value in `settings`."""
        return any(change.name in names for change in self.changed)

    def lines(self) -> list[Line]:
        """What the log is to say about it."""
        if self.error:
            return [Line(log.ERROR, "settings not reloaded: the old ones stay", {"error": self.error})]
        if not self.file:
            return [
                Line(
                    log.INFO,
                    "nothing to reload: flags and environment are those of the start, and there is no -config",
                    {},
                )
            ]
        lines = [Line(log.INFO, "settings reloaded", {"file": self.file, "changed": str(len(self.changed))})]
        for text, level, changes in (
            ("setting changed", log.INFO, self.changed),
            ("setting needs a restart to change", log.WARNING, self.restart),
        ):
            for change in changes:
                lines.append(
                    Line(level, text, {"setting": change.flag, "before": change.before, "after": change.after})
                )
        return lines


def reload_settings(sources: Sources, running: Settings, sinks: SinkSettings) -> Reloaded:
    """Read the file again and tell what is different; changes nothing itself and never raises SettingsError.

    Args:
        sources: what the process was told at its start.
        running: what it runs with: the settings of the start, or those of the last reload.
        sinks: those of the start; none of them can change while the relay serves.
    Returns:
        With an `error` `settings` is `running` itself. A value that needs a restart is told again at each reload
        for as long as it differs.
    """
    try:
        loaded = load_sources(sources)
    except SettingsError as error:
        return Reloaded(running, error=str(error), file=sources.file)
    wanted = loaded.settings
    changed = _differences(running, wanted, reloadable=True)
    settings = replace(running, **{change.name: getattr(wanted, change.name) for change in changed})
    try:
        settings.check()
    except SettingsError as error:
        # Both are right, and what lies between them is not: nodes given up for a cluster that is still off.
        return Reloaded(running, error=f"only a restart can take this over: {error}", file=sources.file)
    restart = (
        *_differences(running, wanted, reloadable=False),
        *_differences(sinks, loaded.sinks, reloadable=False),
    )
    return Reloaded(settings, changed, restart, file=sources.file)


def _differences(running: _T, wanted: _T, *, reloadable: bool) -> tuple[Change, ...]:
    return tuple(
        Change(option.name, option.metadata["flag"], as_text(before), as_text(after))
        for option in fields(cast(Any, running))
        if option.metadata["reload"] is reloadable
        and (before := getattr(running, option.name)) != (after := getattr(wanted, option.name))
    )
