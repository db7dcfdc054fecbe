"""The command line: which command is meant, its flags, and the exit code.

Without a command the relay serves, so that the command lines of the Go relay work unchanged.
What a command needs is imported when it is the one that runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from relay.flags import parse_bool
from relay.settings import Layer, SettingsError, describe, flag_layers, load, setting
from relay.sources import KINDS, load_sources, make_sources

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

_T = TypeVar("_T")

USAGE = """\
usage: relay [flags]                  serve the events of KubeArmor nodes to subscribers
       relay observe [feed] [flags]   print events of a relay, or of a node
       relay simulate [flags]         serve as KubeArmor-like nodes
       relay demo [flags]             nodes, relay and observer for a few seconds, and a summary
       relay config [flags]           print every setting of the relay and where it comes from

Flags have one dash or two; a value follows as -flag=value or -flag value.
relay COMMAND -help lists the flags of a command.
"""

SOURCES = """
A flag wins over its environment variable, that over the file of -config, that over the default.
The file is TOML; its keys are the names of the flags, as in: journal-bytes = "64MiB"
"""


@dataclass(frozen=True, slots=True)
class General:
    """Flags that answer a question instead of serving."""

    version: bool = setting(parse_bool, flag="version", default=False, doc="Print the version.")
    help: bool = setting(parse_bool, flag="help", default=False, doc="Print this help.")
    h: bool = setting(parse_bool, flag="h", default=False, doc="Print this help.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = _COMMANDS.get(words[0]) if words else None
    try:
        code = command(words[1:]) if command else _serve(words)
        sys.stdout.flush()
        return code
    except SettingsError as error:
        print(f"relay: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (`relay observe | head`). Python would complain again
        # when it flushes at exit, so standard output goes nowhere from here on.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK


def _serve(words: list[str]) -> int:
    if words and not words[0].startswith("-"):
        known = ", ".join(_COMMANDS)
        raise SettingsError(f"unknown command {words[0]!r}: accepted is one of {known}, or none to serve")
    flags = _flags(words, USAGE + SOURCES + "\nflags of relay:\n", *KINDS)
    if flags is None:
        return EXIT_OK
    sources = make_sources(flags, os.environ)
    loaded = load_sources(sources)
    from relay.app import run

    return run(loaded, sources)


def _config(words: list[str]) -> int:
    from relay.show_config import ShowSettings, show_config

    usage = (
        "usage: relay config [flags]\n\nPrint every setting that `relay` would start with, and where it comes from.\n"
    )
    layers = _flags(words, usage + SOURCES + "\n", ShowSettings, *KINDS)
    if layers is None:
        return EXIT_OK
    options, *flags = layers
    sources = make_sources(flags, os.environ)
    return show_config(load_sources(sources), os.environ, load(ShowSettings, [options]), sys.stdout)


def _observe(words: list[str]) -> int:
    from relay.observe import ObserveSettings, observe

    settings = _read(ObserveSettings, words, "usage: relay observe [logs|alerts|messages] [flags]\n\n")
    return EXIT_OK if settings is None else observe(settings)


def _simulate(words: list[str]) -> int:
    from relay.simulate import SimulateSettings, simulate

    settings = _read(SimulateSettings, words, "usage: relay simulate [flags]\n\n")
    return EXIT_OK if settings is None else simulate(settings)


def _demo(words: list[str]) -> int:
    from relay.demo import DemoSettings, demo

    settings = _read(DemoSettings, words, "usage: relay demo [flags]\n\n")
    return EXIT_OK if settings is None else demo(settings)


def _help(words: list[str]) -> int:
    return main([*words[:1], "-help"])


_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "observe": _observe,
    "simulate": _simulate,
    "demo": _demo,
    "config": _config,
    "help": _help,
}


def _read(kind: type[_T], words: list[str], usage: str) -> _T | None:
    """Read a command's settings from its flags; None when its help or the version was asked for instead.

    Args:
        kind: the command's settings class.
        words: its part of the command line.
        usage: what its help begins with; the flags follow.
    """
    flags = _flags(words, usage, kind)
    return None if flags is None else load(kind, flags)


def _flags(words: list[str], usage: str, *kinds: type[Any]) -> list[Layer] | None:
    """Read a command line; a layer for each settings class, or None when help or the version was asked for.

    Args:
        words: the command line.
        usage: what the help begins with; the flags follow.
        kinds: the settings classes whose flags may stand there.
    """
    *layers, general_layer = flag_layers(words, *kinds, General)
    general = load(General, [general_layer])
    if general.version:
        from relay import __version__

        print(f"relay {__version__}")
        return None
    if general.help or general.h:
        print(usage + "\n".join(describe(kind) for kind in kinds))
        return None
    return layers
