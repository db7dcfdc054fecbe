"""relay.cli: which command runs with which settings, what is printed, and the exit codes."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from relay import __version__, app, cli, demo, observe, simulate
from relay.demo import DemoSettings
from relay.observe import ObserveSettings
from relay.settings import Address, Settings, SettingsError
from relay.simulate import SimulateSettings
from relay.sources import Loaded, Sources, load_sources


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set around the tests is not meant for them."""
    for name in list(os.environ):
        if name.startswith("RELAY_"):
            monkeypatch.delenv(name)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The settings that a command was run with; no command really runs."""
    settings: list[Any] = []

    def run(given: Any, *_: Any) -> int:
        settings.append(given)
        return 0

    monkeypatch.setattr(app, "run", lambda loaded, _: run(loaded.settings))
    monkeypatch.setattr(observe, "observe", run)
    monkeypatch.setattr(simulate, "simulate", run)
    monkeypatch.setattr(demo, "demo", run)
    return settings


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ([], Settings()),
        (["-gRPCPort", "7101", "--nodes=a:1"], Settings(port=7101, nodes=(Address("a", 1),))),
        (["observe"], ObserveSettings()),
        (["observe", "alerts", "-json"], ObserveSettings(feed="alerts", json=True)),
        (["observe", "--json=false", "messages", "--limit", "5"], ObserveSettings(feed="messages", limit=5)),
        (["observe", "-server", "[::1]:5"], ObserveSettings(server=Address("::1", 5))),
        (["simulate", "-port=5", "-nodes=3", "-rate=0"], SimulateSettings(port=5, nodes=3, rate=0)),
        (["simulate", "-events", "f", "-seed", "9"], SimulateSettings(events="f", seed=9)),
        (["demo"], DemoSettings()),
        (["demo", "--seconds", "0.5"], DemoSettings(seconds=0.5)),
    ],
)
def test_a_command_line_runs_its_command(ran: list[Any], words: list[str], settings: Any) -> None:
    assert cli.main(words) == 0
    assert ran == [settings]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["-gRPCPort=x"], "flag -gRPCPort: 'x' is wrong: accepted is a TCP port from 1 to 65535"),
        (
            ["obseve"],
            "unknown command 'obseve': accepted is one of observe, simulate, demo, config, help, or none to serve",
        ),
        (["observe", "log"], "feed: 'log' is wrong: accepted is logs, alerts or messages"),
        (["observe", "logs", "alerts"], "unexpected word 'alerts': accepted are flags, see relay --help"),
        (["observe", "-limits=5"], "unknown flag -limits: did you mean -limit?"),
        (["observe", "-json=yes"], "flag -json: 'yes' is wrong: accepted is true or false"),
        (["simulate", "-rate=fast"], "flag -rate: 'fast' is wrong: accepted is a number from 0 to 10000000"),
        (["simulate", "5"], "unexpected word '5': accepted are flags, see relay --help"),
        (["config", "-gRPCPort=x"], "flag -gRPCPort: 'x' is wrong: accepted is a TCP port from 1 to 65535"),
        (
            ["config", "-tls-allow=siem"],
            "-tls-allow siem needs TLS to subscribers: accepted with -tlsEnabled or -tls-subscribers on",
        ),
        (["config", "-jsn"], "unknown flag -jsn: did you mean -json?"),
        (["-json"], "unknown flag -json: see relay --help"),
        (["config", "nodes"], "unexpected word 'nodes': accepted are flags, see relay --help"),
        (["-config=/nowhere"], "file /nowhere cannot be read: No such file or directory"),
        (["demo", "-seconds=0"], "flag -seconds: '0' is wrong: accepted is a number from 0.1 to 3600"),
    ],
)
def test_a_bad_command_line_says_one_line_and_ends_with_2(
    ran: list[Any], capsys: pytest.CaptureFixture[str], words: list[str], text: str
) -> None:
    assert cli.main(words) == 2
    assert capsys.readouterr() == ("", f"relay: {text}\n")
    assert ran == []


@pytest.mark.parametrize("words", [["-version"], ["--version"], ["-version=t"], ["observe", "-version"]])
def test_version(ran: list[Any], capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert cli.main(words) == 0
    assert capsys.readouterr() == (f"relay {__version__}\n", "")
    assert ran == []


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        (["-h"], ["-gRPCPort PORT", "relay demo", "relay config", "A flag wins over its environment variable"]),
        (["config", "-h"], ["usage: relay config", "-json\n", "-gRPCPort PORT", "also RELAY_GRPC_PORT"]),
        (["help", "config"], ["-config FILE"]),
        (["--help"], ["-journal-bytes BYTES", "relay observe"]),
        (["help"], ["-nodes HOST:PORT[,…]"]),
        (["observe", "-help"], ["-server HOST:PORT", "-json\n", "  feed\n"]),
        (["help", "simulate"], ["-rate EVENTS", "-seed NUMBER"]),
        (["demo", "-h"], ["-seconds SECONDS"]),
    ],
)
def test_help(ran: list[Any], capsys: pytest.CaptureFixture[str], words: list[str], flags: list[str]) -> None:
    assert cli.main(words) == 0
    printed, errors = capsys.readouterr()
    assert errors == ""
    assert [flag for flag in flags if flag not in printed] == []
    assert "\x1b" not in printed
    assert "default )" not in printed
    assert "default ;" not in printed
    assert ran == []


def test_a_failure_to_start_ends_with_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(loaded: Loaded, sources: Sources) -> int:
        raise SettingsError("cannot listen on [::]:5: the port is in use")

    monkeypatch.setattr(app, "run", run)
    assert cli.main([]) == 2
    assert capsys.readouterr().err == "relay: cannot listen on [::]:5: the port is in use\n"


def test_ctrl_c_before_there_is_a_handler_ends_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(loaded: Loaded, sources: Sources) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "run", run)
    assert cli.main([]) == 130


def test_the_relay_runs_with_flags_over_environment_over_file(
    monkeypatch: pytest.MonkeyPatch, ran: list[Any], tmp_path: Path
) -> None:
    file = tmp_path / "relay.toml"
    file.write_text("gRPCPort = 1\nnode-port = 1\ngather-us = 1")
    monkeypatch.setenv("RELAY_CONFIG", str(file))
    monkeypatch.setenv("RELAY_NODE_PORT", "2")
    monkeypatch.setenv("RELAY_GATHER_US", "2")
    assert cli.main(["-gather-us=3"]) == 0
    assert ran == [Settings(port=1, node_port=2, gather_us=3, config=str(file))]


def test_what_was_told_is_kept_for_a_reload(monkeypatch: pytest.MonkeyPatch, ran: list[Any], tmp_path: Path) -> None:
    given: list[Sources] = []
    monkeypatch.setattr(app, "run", lambda _, sources: given.append(sources) or 0)
    file = tmp_path / "relay.toml"
    file.write_text("log-level = 'warn'")
    monkeypatch.setenv("RELAY_NODES", "a:1")
    assert cli.main([f"-config={file}"]) == 0
    monkeypatch.setenv("RELAY_NODES", "b:2")
    file.write_text("log-level = 'debug'")
    settings = load_sources(given[0]).settings
    assert (settings.log_level, settings.nodes) == ("debug", (Address("a", 1),))


@pytest.mark.parametrize("words", [[], ["config"]])
def test_an_unknown_variable_ends_with_2(
    monkeypatch: pytest.MonkeyPatch, ran: list[Any], capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    monkeypatch.setenv("RELAY_NODDES", "a:1")
    assert cli.main(words) == 2
    assert capsys.readouterr() == ("", "relay: unknown variable RELAY_NODDES: did you mean RELAY_NODES?\n")
    assert ran == []


def test_config_shows_and_does_not_serve(ran: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "-gRPCPort=7101"]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith(" flag -gRPCPort")
    assert cli.main(["config", "-json", "-gRPCPort=7101"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["gRPCPort"]["value"] == 7101
    assert ran == []
