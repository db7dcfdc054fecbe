"""The sources of a serving relay's settings: flags over environment over file over defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from relay.config_file import file_layer
from relay.environment import check_names, environment_layer
from relay.settings import Layer, Settings, load, winners


@dataclass(frozen=True, slots=True)
class Sources:
    """What a process was told at its start; the file that it names is read again at each `load_sources`."""

    flags: Layer
    environment: Layer

    @property
    def file(self) -> str:
        """The path of the TOML file; empty if there is none."""
        given = winners([self.flags, self.environment]).get("config")
        return given.text if given else ""


class Loaded(NamedTuple):
    """Settings, and for each field that was given where."""

    settings: Settings
    given: Layer


def make_sources(flags: Layer, environment: Mapping[str, str]) -> Sources:
    """The sources of a run with these flags in this environment.

    Raises:
        SettingsError: an unknown RELAY_* variable.
    """
    check_names(Settings, environment)
    return Sources(flags, environment_layer(Settings, environment))


def load_sources(sources: Sources) -> Loaded:
    """Read the file if there is one, then every value, and check them together.

    Raises:
        SettingsError: a file that cannot be read or a wrong value, also where another source hides it;
            one line that says where it was given and what is accepted.
    """
    layers = [sources.flags, sources.environment]
    if sources.file:
        layers.append(file_layer(Settings, sources.file))
    loaded = Loaded(load(Settings, layers), winners(layers))
    loaded.settings.check(loaded.given)
    return loaded
