"""relay.show_config: every setting with its value, how it came about, and where it was given."""

import io
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from relay import cgroup
from relay.settings import MIB, Settings, flag_layers
from relay.show_config import ShowSettings, show_config
from relay.sink_settings import SECRETS
from relay.sources import KINDS, load_sources, make_sources


@pytest.fixture(autouse=True)
def limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "memory_limit", lambda: 128 * MIB)


def show(*words: str, as_json: bool = False, **environment: str) -> str:
    loaded = load_sources(make_sources(flag_layers(words, *KINDS), environment))
    output = io.StringIO()
    assert show_config(loaded, environment, ShowSettings(json=as_json), output) == 0
    return output.getvalue()


def lines(*words: str, **environment: str) -> dict[str, tuple[str, str]]:
    """Value and origin by setting."""
    shown = [[cell for cell in line.split("  ") if cell] for line in show(*words, **environment).splitlines()]
    return {name.strip(): (value.strip(), origin.strip()) for name, value, origin in shown}


def objects(*words: str, **environment: str) -> Any:
    return json.loads(show(*words, as_json=True, **environment))


def test_every_setting_is_shown_in_the_order_of_help() -> None:
    flags = [option.metadata["flag"] for kind in KINDS for option in fields(kind)]
    assert list(lines()) == flags
    assert list(objects()["settings"]) == flags


def test_defaults_are_shown_with_what_they_come_to() -> None:
    flags = {option.metadata["flag"] for option in fields(Settings)}
    assert {flag: shown for flag, shown in lines().items() if flag in flags} == {
        "gRPCPort": ("32767", "default"),
        "nodes": ('""', "default"),
        "kubernetes": ("auto", "default"),
        "kubeconfig": ('"" (the pod\'s service account, or ~/.kube/config)', "default"),
        "node-selector": ("kubearmor-app=kubearmor", "default"),
        "namespace": ('"" (all namespaces)', "default"),
        "node-port": ("32767 (that of gRPCPort)", "default"),
        "bind": ('"" (all addresses, IPv6 and IPv4)', "default"),
        "journal-bytes": ("33554432 (a quarter of the cgroup's memory limit of 128MiB)", "default"),
        "gather-us": ("500", "default"),
        "max-event-bytes": ("4194304 (4MiB)", "default"),
        "max-connections": ("256", "default"),
        "max-connections-per-address": ("64", "default"),
        "max-streams": ("100", "default"),
        "max-subscribers": ("512", "default"),
        "client-bytes": ("16777216 (16MiB)", "default"),
        "max-header-bytes": ("16384 (16KiB)", "default"),
        "max-request-bytes": ("65536 (64KiB)", "default"),
        "max-controls": ("10000", "default"),
        "handshake-timeout": ("10.0", "default"),
        "idle-timeout": ("300.0", "default"),
        "log-level": ("info", "default"),
        "log-format": ("auto", "default"),
        "tlsEnabled": ("false", "default"),
        "tlsCertPath": ("/var/lib/kubearmor/tls", "default"),
        "tlsCertProvider": ("external", "default"),
        "tls-nodes": ("auto (off, as tlsEnabled says)", "default"),
        "tls-subscribers": ("auto (off, as tlsEnabled says)", "default"),
        "tls-client-auth": ("require", "default"),
        "tls-allow": ('""', "default"),
        "tls-kernel": ("auto", "default"),
        "config": ('"" (no file)', "default"),
    }


def test_each_value_is_shown_with_where_it_was_given(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text("log-level = 'warn'\ngRPCPort = 1")
    shown = lines("-gRPCPort=7101", "-nodes=a:1,[::1]:2", RELAY_NAMESPACE="kubearmor", RELAY_CONFIG=str(file))
    assert shown["gRPCPort"] == ("7101", "flag -gRPCPort")
    assert shown["nodes"] == ("a:1,[::1]:2", "flag -nodes")
    assert shown["namespace"] == ("kubearmor", "environment RELAY_NAMESPACE")
    assert shown["log-level"] == ("warn", f"file {file}")
    assert shown["config"] == (str(file), "environment RELAY_CONFIG")
    assert shown["node-port"] == ("7101 (that of gRPCPort)", "default")


LEAST = "25190400 (the least for 6 events of -max-event-bytes; a quarter of the cgroup's memory limit of"


@pytest.mark.parametrize(
    ("limit", "words", "shown"),
    [
        (None, [], "67108864 (64MiB: there is no memory limit)"),
        (64 * MIB, [], f"{LEAST} 64MiB is less)"),
        (100_000_001, [], f"{LEAST} 100000001 is less)"),
        (64 * MIB, ["-journal-bytes=40MiB"], "41943040 (40MiB)"),
    ],
)  # fmt: skip
def test_the_journal_is_shown_with_how_its_size_came_about(
    monkeypatch: pytest.MonkeyPatch, limit: int | None, words: list[str], shown: str
) -> None:
    monkeypatch.setattr(cgroup, "memory_limit", lambda: limit)
    assert lines(*words)["journal-bytes"][0] == shown


def test_the_sides_of_tls_are_shown_with_what_they_come_to() -> None:
    shown = lines("-tlsEnabled", "-tls-subscribers=off")
    assert shown["tls-nodes"] == ("auto (on, as tlsEnabled says)", "default")
    assert shown["tls-subscribers"] == ("off", "flag -tls-subscribers")
    assert objects("-tlsEnabled", "-tls-allow=a,b")["settings"]["tls-allow"]["value"] == ["a", "b"]


def test_columns_are_aligned() -> None:
    shown = show("-nodes=a:1", RELAY_NAMESPACE="x").splitlines()
    values = {line.index(value) for line, value in zip(shown, ["32767", "a:1", "auto"], strict=False)}
    origins = {
        line.index(word) for line in shown for word in ("default", "flag -nodes", "environment R") if word in line
    }
    assert (len(values), len(origins)) == (1, 1)


def test_kubeconfig_tells_what_the_environment_says() -> None:
    assert lines(KUBECONFIG="/a:/b")["kubeconfig"] == ('"" (KUBECONFIG=/a:/b)', "default")
    assert lines("-kubeconfig=/c", KUBECONFIG="/a:/b")["kubeconfig"] == ("/c", "flag -kubeconfig")


def test_a_value_cannot_break_the_line() -> None:
    assert lines("-kubeconfig=/a\n\x1b[2J")["kubeconfig"][0] == "/a\\n\\x1b[2J"


def test_json_has_values_as_they_are_and_where_they_come_from() -> None:
    settings = objects("-nodes=a:1,b:2", "-tlsEnabled=false", RELAY_GRPC_PORT="7101")["settings"]
    assert settings["nodes"] == {
        "value": ["a:1", "b:2"],
        "source": "flag",
        "origin": "flag -nodes",
        "derived": "",
        "environment": "RELAY_NODES",
        "reloadable": True,
    }
    assert settings["gRPCPort"] == {
        "value": 7101,
        "source": "environment",
        "origin": "environment RELAY_GRPC_PORT",
        "derived": "",
        "environment": "RELAY_GRPC_PORT",
        "reloadable": False,
    }
    assert settings["tlsEnabled"]["value"] is False
    assert settings["journal-bytes"]["value"] == 32 * MIB
    assert settings["node-port"]["value"] == 7101
    assert settings["node-port"]["source"] == "default"
    assert "quarter" in settings["journal-bytes"]["derived"]


def test_defaults_of_sinks_are_shown() -> None:
    shown = lines()
    assert shown["stdout"] == shown["sink"] == shown["es-url"] == ('""', "default")
    assert shown["os-batch-bytes"] == ("1000000", "default")
    assert shown["es-batch-seconds"] == ("10.0", "default")


def test_variables_of_the_go_relay_are_listed_with_what_becomes_of_them() -> None:
    environment = {
        "ENABLE_STDOUT_LOGS": "True",
        "ENABLE_DASHBOARDS": "true",
        "ENABLE_OPENSEARCH_DASHBOARD": "TRUE",  # not on: the Go relay looks for lower case
        "ES_URL": "http://es:9200",
        "ES_USERNAME": "elastic",
        "OS_ALERTS_INDEX": "alerts-%Y",
        "KUBEARMOR_SERVICE": "kubearmor:32767",
        "PATH": "/bin",
    }
    told = {
        "ENABLE_STDOUT_LOGS": "on: adds logs to -stdout",
        "ENABLE_DASHBOARDS": "on: adds elasticsearch to -sink",
        "ENABLE_OPENSEARCH_DASHBOARD": "off",
        "ES_USERNAME": "set",
        "KUBEARMOR_SERVICE": "no effect: obsolete, in the Go relay as well",
    }
    assert objects(**environment)["variables"] == told
    shown = lines(**environment)
    assert {name: shown[name] for name in told} == {name: (text, "environment") for name, text in told.items()}
    assert shown["stdout"] == ("logs (with ENABLE_STDOUT_LOGS)", "default")
    assert shown["sink"] == ("elasticsearch (with ENABLE_DASHBOARDS)", "default")
    assert shown["es-url"] == ("http://es:9200", "environment ES_URL")
    assert shown["os-alerts-index"] == ("alerts-%Y", "environment OS_ALERTS_INDEX")
    assert objects(**environment)["settings"]["sink"]["value"] == ["elasticsearch"]


@pytest.mark.parametrize("as_json", [False, True])
def test_no_secret_is_shown(as_json: bool) -> None:
    environment = dict.fromkeys(SECRETS, "s3cret") | {
        "ENABLE_DASHBOARDS": "true",
        "ES_URL": "https://s3cret:s3cret@es:9200",
        "OS_URL": "s3cret@",
    }
    assert "s3cret" not in show(as_json=as_json, **environment)
