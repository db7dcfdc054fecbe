"""`relay config`: every setting, its value, and where it comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import Field, dataclass
from typing import Any, TextIO

from relay.environment import OBSOLETE
from relay.flags import parse_bool
from relay.printable import printable
from relay.settings import Settings, Source, as_size, as_text, derive_journal_bytes, parse_size, setting
from relay.sink_settings import SECRETS, STDOUT, SWITCHES
from relay.sources import Loaded

EXIT_OK = 0


@dataclass(frozen=True, slots=True)
class ShowSettings:
    """What `relay config` is told about its output."""

    json: bool = setting(
        parse_bool, flag="json", default=False, doc="Print one JSON object instead of lines for people."
    )


@dataclass(frozen=True, slots=True)
class Row:
    """A setting as it is shown."""

    flag: str
    value: Any  # as JSON has it
    text: str
    source: Source
    origin: str
    note: str  # how the value was derived; empty if it was given as it is
    environment: str
    reloadable: bool


def show_config(loaded: Loaded, environment: Mapping[str, str], options: ShowSettings, output: TextIO) -> int:
    """Print the settings in the order of their declaration; returns the exit code."""
    rows = [_row(loaded, option, value, environment) for option, value in loaded.values()]
    others = other_variables(environment)
    output.write(_as_json(rows, others) if options.json else _as_lines(rows, others))
    return EXIT_OK


def other_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables of the Go relay that are set and belong to no flag, each with what becomes of it; no secrets."""
    told = {
        switch.name: f"on: adds {switch.adds} to -{switch.setting}" if switch.is_on(environment) else "off"
        for switch in SWITCHES
        if environment.get(switch.name)
    }
    told |= {name: "set" for name in SECRETS if environment.get(name)}
    told |= {name: "no effect: obsolete, in the Go relay as well" for name in OBSOLETE if name in environment}
    return told


def _row(loaded: Loaded, option: Field[Any], value: Any, environment: Mapping[str, str]) -> Row:
    about = option.metadata
    value, note = _value(loaded.settings, option.name, value, environment)
    text = as_text(value) or '""'
    if not note and about["parse"] is parse_size and as_size(value) != text:
        note = as_size(value)
    given = loaded.given.get(option.name)
    return Row(
        flag=about["flag"],
        value=[str(part) for part in value] if isinstance(value, tuple) else value,
        text=text,
        source=given.source if given else Source.DEFAULT,
        origin=given.origin if given else Source.DEFAULT,
        note=note,
        environment=about["environment"],
        reloadable=about["reload"],
    )


def _value(settings: Settings, name: str, value: Any, environment: Mapping[str, str]) -> tuple[Any, str]:
    """What the relay works with, and how it came about where it was not given so."""
    if name == "journal_bytes" and value is None:
        return derive_journal_bytes(settings.max_event_bytes)
    if name == "node_port" and value is None:
        return settings.discovered_port, "that of gRPCPort"
    if name in ("tls_nodes", "tls_subscribers") and value == "auto":
        return value, f"{'on' if settings.tls_enabled else 'off'}, as tlsEnabled says"
    if name in (STDOUT, "sink"):
        on = [switch.name for switch in SWITCHES if switch.setting == name and switch.is_on(environment)]
        return value, f"with {', '.join(on)}" if on else ""
    if value == "":
        return value, _EMPTY.get(name, "") if name != "kubeconfig" else _kubeconfig(environment)
    return value, ""


# What an empty text stands for.
_EMPTY = {"bind": "all addresses, IPv6 and IPv4", "namespace": "all namespaces", "config": "no file"}


def _kubeconfig(environment: Mapping[str, str]) -> str:
    """Where a configuration is looked for without -kubeconfig."""
    if path := environment.get("KUBECONFIG"):
        return f"KUBECONFIG={path}"
    return "the pod's service account, or ~/.kube/config"


# --- output ---------------------------------------------------------------------------


def _as_lines(rows: list[Row], others: Mapping[str, str]) -> str:
    """Columns: flag, value with how it was derived in brackets, origin."""
    table = [(row.flag, f"{row.text} ({row.note})" if row.note else row.text, row.origin) for row in rows]
    table += [(name, told, "environment") for name, told in others.items()]
    table = [(name, printable(value), printable(origin)) for name, value, origin in table]
    widths = [max(len(line[column]) for line in table) for column in range(2)]
    return "".join(f"{name:{widths[0]}}  {value:{widths[1]}}  {origin}\n" for name, value, origin in table)


def _as_json(rows: list[Row], others: Mapping[str, str]) -> str:
    """An object with "settings" by flag, and "variables" of the Go relay that are set beside them."""
    settings = {
        row.flag: {
            "value": row.value,
            "source": row.source,
            "origin": row.origin,
            "derived": row.note,
            "environment": row.environment,
            "reloadable": row.reloadable,
        }
        for row in rows
    }
    return json.dumps({"settings": settings, "variables": others}, indent=2, ensure_ascii=False, default=str) + "\n"
