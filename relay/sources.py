"""The sources of a serving relay's settings: flags over environment over file over defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, fields
from typing import Any, NamedTuple

from relay.config_file import file_layer
from relay.environment import check_names, environment_layer
from relay.settings import Layer, Settings, load, winners
from relay.sink_settings import SWITCHES, SinkSettings, Switch, with_switches

# The settings classes that share flags, environment and file; no two have a field of the same name.
KINDS: tuple[type[Any], ...] = (Settings, SinkSettings)


@dataclass(frozen=True, slots=True)
class Sources:
    """What a process was told at its start; the file that it names is read again at each `load_sources`."""

    flags: Layer
    environment: Layer
    # Those of the Go relay that are on: they add to what the layers say.
    switches: tuple[Switch, ...] = ()

    @property
    def file(self) -> str:
        """The path of the TOML file; empty if there is none."""
        given = winners([self.flags, self.environment]).get("config")
        return given.text if given else ""


class Loaded(NamedTuple):
    """Settings, and for each field that was given where."""

    settings: Settings
    sinks: SinkSettings
    given: Layer

    def values(self) -> list[tuple[Field[Any], Any]]:
        """Every setting with its value, in the order of help."""
        return [(option, getattr(kind, option.name)) for kind in (self.settings, self.sinks) for option in fields(kind)]


def make_sources(flags: Sequence[Layer], environment: Mapping[str, str]) -> Sources:
    """The sources of a run in this environment, with the flags of each of KINDS.

    Raises:
        SettingsError: an unknown RELAY_* variable.
    """
    check_names(KINDS, environment)
    return Sources(
        winners(flags),
        winners([environment_layer(kind, environment) for kind in KINDS]),
        tuple(switch for switch in SWITCHES if switch.is_on(environment)),
    )


def load_sources(sources: Sources) -> Loaded:
    """Read the file if there is one, then every value, and check them together.

    Raises:
        SettingsError: a file that cannot be read or a wrong value, also where another source hides it;
            one line that says where it was given and what is accepted.
    """
    layers = [sources.flags, sources.environment]
    if sources.file:
        layers.append(file_layer(KINDS, sources.file))
    sinks = with_switches(load(SinkSettings, layers), sources.switches)
    loaded = Loaded(load(Settings, layers), sinks, winners(layers))
    loaded.settings.check(loaded.given)
    loaded.sinks.check(loaded.given)
    return loaded
