"""The environment: RELAY_* variables as settings, and what else the Go relay's manifests put there.

Kubernetes adds variables for each service of the namespace (its documentation: "Service", environment
variables). Those of a service named relay, or relay-grpc, look like ours and are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from relay.flags import nearest
from relay.settings import Given, SettingsError, Source

PREFIX = "RELAY_"

# They choose what is built and tested, and may still be set in the shell of a developer.
BUILD_VARIABLES = frozenset(
    PREFIX + name for name in ("BUILD", "BUILD_DIR", "DEBUG", "FUZZ", "SANITIZE", "SHOWN", "WERROR")
)


OBSOLETE = ("KUBEARMOR_SERVICE",)

_OF_A_SERVICE = re.compile(
    r"RELAY_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_LINK = re.compile(r"(tcp|udp|sctp)://.*")


def environment_layer(kind: type[Any], environment: Mapping[str, str]) -> dict[str, Given]:
    """Read the settings that have an environment variable; an empty one counts as not set."""
    layer = {}
    for option in fields(kind):
        variable = option.metadata["environment"]
        if variable is not None and environment.get(variable) and not _is_kubernetes(variable, environment[variable]):
            layer[option.name] = Given(environment[variable], Source.ENVIRONMENT, variable)
    return layer


def check_names(kinds: Sequence[type[Any]], environment: Mapping[str, str]) -> None:
    """Refuse RELAY_* variables that none of the settings classes reads: most likely misspelt.

    Raises:
        SettingsError: names the first one, and the nearest that is known.
    """
    known = {option.metadata["environment"]: option.metadata["flag"] for kind in kinds for option in fields(kind)}
    for name in sorted(environment):
        if not name.startswith(PREFIX) or name in known or name in BUILD_VARIABLES:
            continue
        if not _is_kubernetes(name, environment[name]):
            raise SettingsError(f"unknown variable {name}{_suggest(name, known)}")


def _suggest(name: str, known: Mapping[str, str]) -> str:
    """The part of the message that names the nearest variable: by its flag, because the prefix is like in all."""
    flag = nearest(name.removeprefix(PREFIX), known.values())
    near = next((variable for variable in known if known[variable] == flag), None)
    return f": did you mean {near}?" if near else ": see relay --help"


def _is_kubernetes(name: str, value: str) -> bool:
    """Whether a variable is one that Kubernetes sets for a service, such as RELAY_PORT=tcp://10.96.0.7:32767."""
    return bool(_OF_A_SERVICE.fullmatch(name) or (name.endswith("_PORT") and _LINK.fullmatch(value)))
