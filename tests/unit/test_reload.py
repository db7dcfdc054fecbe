"""relay.reload: what a file that has changed changes, what waits for a restart, and what the log is told."""

import logging
from dataclasses import fields, replace
from pathlib import Path

import pytest

from relay.reload import Change, Line, Reloaded, reload_settings
from relay.settings import Address, Settings, flag_layers
from relay.sources import KINDS, Sources, load_sources, make_sources

RELOADABLE = {"nodes", "kubeconfig", "node_selector", "namespace", "node_port", "log_level", "log_format"}


class Process:
    """A relay that was started with a file: what it was told, and what it runs with."""

    def __init__(self, file: Path, content: str, *words: str, **environment: str) -> None:
        self.file = file
        file.write_text(content)
        self.sources: Sources = make_sources(flag_layers([f"-config={file}", *words], *KINDS), environment)
        self.running, self.sinks, _ = load_sources(self.sources)

    def reload(self, content: str) -> Reloaded:
        """Change the file, and read it again."""
        self.file.write_text(content)
        reloaded = reload_settings(self.sources, self.running, self.sinks)
        self.running = reloaded.settings
        return reloaded


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "relay.toml"


def test_the_settings_that_can_change_while_serving() -> None:
    assert {option.name for option in fields(Settings) if option.metadata["reload"]} == RELOADABLE


def test_nothing_has_changed(file: Path) -> None:
    process = Process(file, "log-level = 'debug'")
    assert process.reload("log-level = 'debug' # as before") == Reloaded(process.running, file=str(file))


def test_what_can_change_changes(file: Path) -> None:
    process = Process(file, "nodes = ['a:1']\nlog-level = 'debug'")
    reloaded = process.reload(
        """
        nodes = ["a:1", "b:2"]
        log-format = "text"
        node-selector = "a=b"
        namespace = "c"
        node-port = 5
        kubeconfig = "/k"
        """
    )
    assert process.running == replace(
        Settings(config=str(file)),
        nodes=(Address("a", 1), Address("b", 2)),
        log_format="text",
        node_selector="a=b",
        namespace="c",
        node_port=5,
        kubeconfig="/k",
    )
    assert set(reloaded.changed) == {
        Change("nodes", "nodes", "a:1", "a:1,b:2"),
        Change("kubeconfig", "kubeconfig", "", "/k"),
        Change("node_selector", "node-selector", "kubearmor-app=kubearmor", "a=b"),
        Change("namespace", "namespace", "", "c"),
        Change("node_port", "node-port", "default", "5"),
        Change("log_level", "log-level", "debug", "info"),
        Change("log_format", "log-format", "auto", "text"),
    }
    assert (reloaded.restart, reloaded.error) == ((), "")
    assert reloaded.has_changed("port", "nodes")
    assert not reloaded.has_changed("port", "bind")


def test_what_needs_a_restart_stays_and_is_told_at_each_reload(file: Path) -> None:
    process = Process(file, "gRPCPort = 1")
    for _ in range(2):
        reloaded = process.reload("gRPCPort = 2\njournal-bytes = '1GiB'")
        assert (process.running.port, process.running.journal_bytes) == (1, None)
        assert reloaded.restart == (
            Change("port", "gRPCPort", "1", "2"),
            Change("journal_bytes", "journal-bytes", "default", "1073741824"),
        )
        assert reloaded.changed == ()
    assert process.reload("gRPCPort = 1").restart == ()
    assert process.reload("gRPCPort = 1\nstdout = ['logs']").restart == (Change("stdout", "stdout", "", "logs"),)


def test_a_port_that_waits_for_a_restart_keeps_that_of_found_nodes(file: Path) -> None:
    process = Process(file, "gRPCPort = 1")
    process.reload("gRPCPort = 2")
    assert process.running.discovered_port == 1


def test_flags_and_environment_still_win(file: Path) -> None:
    process = Process(file, "", "-log-level=warn", RELAY_NODES="a:1")
    reloaded = process.reload("log-level = 'debug'\nnodes = 'b:2'")
    assert (reloaded.changed, process.running.log_level, process.running.nodes) == ((), "warn", (Address("a", 1),))


NEEDS_TLS = "needs TLS to subscribers: accepted with -tlsEnabled or -tls-subscribers on"
OFF = "file FILE: kubernetes off contradicts file FILE: "


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("log-level = ", "file FILE, line 1: not valid TOML: Invalid value"),
        ("log-level = 'loud'", "file FILE: log-level: 'loud' is wrong: accepted is debug, info, warn or error"),
        ("log-levle = 'debug'", "file FILE: unknown key 'log-levle': did you mean log-level?"),
        ("kubernetes = 'off'\nnamespace = 'x'", OFF + "namespace x: accepted is one of them"),
        ("tls-allow = ['siem']", f"file FILE: tls-allow siem {NEEDS_TLS}"),
    ],
)  # fmt: skip
def test_a_wrong_file_changes_nothing(file: Path, content: str, error: str) -> None:
    process = Process(file, "nodes = 'a:1'")
    before = process.running
    assert process.reload(content) == Reloaded(before, error=error.replace("FILE", str(file)), file=str(file))


def test_a_file_that_is_gone_changes_nothing(file: Path) -> None:
    process = Process(file, "nodes = 'a:1'")
    file.unlink()
    reloaded = reload_settings(process.sources, process.running, process.sinks)
    assert reloaded.settings is process.running
    assert reloaded.error == f"file {file} cannot be read: No such file or directory"


def test_what_is_right_only_after_a_restart_changes_nothing_now(file: Path) -> None:
    """Nodes are given up for a cluster; until the restart nothing would be left to read from."""
    process = Process(file, "kubernetes = 'off'\nnodes = 'a:1'")
    reloaded = process.reload("kubernetes = 'auto'\nlog-level = 'debug'")
    assert reloaded.error == (
        "only a restart can take this over: -kubernetes off leaves nothing to read from: "
        "give -nodes as well, or leave it out"
    )
    assert (process.running.nodes, process.running.log_level) == ((Address("a", 1),), "info")


def test_without_a_file_there_is_nothing_to_read() -> None:
    sources = make_sources([], {"RELAY_NODES": "a:1"})
    running, sinks, _ = load_sources(sources)
    reloaded = reload_settings(sources, running, sinks)
    assert reloaded == Reloaded(running)
    (line,) = reloaded.lines()
    assert (line.level, line.text[:18], line.values) == (logging.INFO, "nothing to reload:", {})


def test_the_log_is_told_each_change(file: Path) -> None:
    process = Process(file, "nodes = 'a:1'\ngRPCPort = 1")
    assert process.reload("nodes = 'b:2'\ngRPCPort = 2").lines() == [
        Line(logging.INFO, "settings reloaded", {"file": str(file), "changed": "1"}),
        Line(logging.INFO, "setting changed", {"setting": "nodes", "before": "a:1", "after": "b:2"}),
        Line(
            logging.WARNING, "setting needs a restart to change", {"setting": "gRPCPort", "before": "1", "after": "2"}
        ),
    ]


def test_the_log_is_told_why_nothing_changes(file: Path) -> None:
    process = Process(file, "")
    reloaded = process.reload("nodes = 1")
    assert reloaded.lines() == [
        Line(logging.ERROR, "settings not reloaded: the old ones stay", {"error": reloaded.error})
    ]
