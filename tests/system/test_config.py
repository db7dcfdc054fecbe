"""The installed command and its settings: `relay config`, files and variables as an operator gives them."""

import json
import signal
import subprocess
from pathlib import Path

import pytest
from peers.command import Command, Relay, finished, free_port

# What the Go relay's own manifest sets, and what Kubernetes adds for a service that is called relay.
STOCK = {
    "ENABLE_DASHBOARDS": "false",
    "ENABLE_STDOUT_LOGS": "false",
    "ENABLE_STDOUT_ALERTS": "false",
    "ENABLE_STDOUT_MSGS": "false",
    "ES_URL": "http://elasticsearch:9200",
    "ES_USERNAME": "elastic",
    "ES_PASSWORD": "s3cret",
    "KUBEARMOR_SERVICE": "kubearmor:32767",
    "RELAY_PORT": "tcp://10.96.0.7:32767",
    "RELAY_PORT_32767_TCP": "tcp://10.96.0.7:32767",
    "RELAY_PORT_32767_TCP_ADDR": "10.96.0.7",
    "RELAY_PORT_32767_TCP_PORT": "32767",
    "RELAY_PORT_32767_TCP_PROTO": "tcp",
    "RELAY_SERVICE_HOST": "10.96.0.7",
    "RELAY_SERVICE_PORT": "32767",
    "RELAY_SERVICE_PORT_GRPC": "32767",
}


def refused(run: subprocess.CompletedProcess[str]) -> str:
    """The one line of a command that refused what it was told."""
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("relay: ")
    assert run.stderr.count("\n") == 1
    return run.stderr.removeprefix("relay: ").removesuffix("\n")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "relay.toml"


# --- relay config -------------------------------------------------------------------------


def test_config_prints_every_setting_with_its_origin(file: Path) -> None:
    file.write_text('log-level = "warn"\n')
    run = finished("config", "-gRPCPort=7101", RELAY_CONFIG=str(file), RELAY_NODES="a:1", **STOCK)
    assert (run.returncode, run.stderr) == (0, "")
    shown = {line.split()[0]: line for line in run.stdout.splitlines()}
    assert shown["gRPCPort"].split() == ["gRPCPort", "7101", "flag", "-gRPCPort"]
    assert shown["nodes"].split() == ["nodes", "a:1", "environment", "RELAY_NODES"]
    assert shown["log-level"].split() == ["log-level", "warn", "file", str(file)]
    assert shown["gather-us"].split() == ["gather-us", "500", "default"]
    assert "obsolete" in shown["KUBEARMOR_SERVICE"]
    assert "s3cret" not in run.stdout


def test_config_prints_json_for_programs(file: Path) -> None:
    file.write_text("gRPCPort = 7101")
    run = finished("config", "--json", "-config", str(file))
    assert (run.returncode, run.stderr) == (0, "")
    settings = json.loads(run.stdout)["settings"]
    assert settings["gRPCPort"]["value"] == 7101
    assert settings["gRPCPort"]["origin"] == f"file {file}"
    assert settings["journal-bytes"]["source"] == "default"
    assert settings["journal-bytes"]["value"] > 0


def test_config_says_the_same_each_time(file: Path) -> None:
    file.write_text("gRPCPort = 7101\nnodes = ['a:1', 'b:2']")
    one, two = (finished("config", "-config", str(file), **STOCK).stdout for _ in range(2))
    assert one == two


NOTHING = "leaves nothing to read from: give -nodes as well, or leave it out"
NEEDS_TLS = "needs TLS to subscribers: accepted with -tlsEnabled or -tls-subscribers on"
LEVELS = "accepted is debug, info, warn or error"
ONE = "accepted is one of them"
SELECTOR = (
    "accepted is a label selector, as in app=kubearmor,tier!=test,zone in (a, b),!old; a comma is missing before 'b'"
)


@pytest.mark.parametrize(
    ("arguments", "content", "variables", "text"),
    [
        (["-kubernetes=off"], "", {}, f"-kubernetes off {NOTHING}"),
        (["-kubernetes=off"], "namespace = 'x'", {}, f"-kubernetes off contradicts file FILE: namespace x: {ONE}"),
        (["-tls-allow=siem"], "", {}, f"-tls-allow siem {NEEDS_TLS}"),
        ([], "tls-allow = ['siem', 'otel']", {}, f"file FILE: tls-allow siem,otel {NEEDS_TLS}"),
        ([], "nodes = ['a:1'", {}, "file FILE, line 1: not valid TOML: Unclosed array"),
        ([], "\nlog_level = 'warn'", {}, "file FILE: unknown key 'log_level': did you mean log-level?"),
        (["-log-level=warn"], "log-level = 1", {}, "file FILE: log-level: 1 is wrong: accepted is a text in quotes"),
        ([], "", {"RELAY_LOGLEVEL": "warn"}, "unknown variable RELAY_LOGLEVEL: did you mean RELAY_LOG_LEVEL?"),
        ([], "", {"RELAY_LOG_LEVEL": "loud"}, f"RELAY_LOG_LEVEL: 'loud' is wrong: {LEVELS}"),
        (["-node-selector=a b"], "", {}, f"flag -node-selector: 'a b' is wrong: {SELECTOR}"),
    ],
)  # fmt: skip
def test_config_and_a_start_refuse_alike(
    file: Path, arguments: list[str], content: str, variables: dict[str, str], text: str
) -> None:
    file.write_text(content)
    for command in ([], ["config"]):
        run = finished(*command, *arguments, "-config", str(file), **variables)
        assert refused(run) == text.replace("FILE", str(file))


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    assert refused(finished("config", f"-config={tmp_path}")) == f"file {tmp_path} cannot be read: not a regular file"
    missing = tmp_path / "missing"
    assert refused(finished(RELAY_CONFIG=str(missing))) == f"file {missing} cannot be read: No such file or directory"


# --- serving ------------------------------------------------------------------------------


def test_a_relay_serves_with_the_settings_of_a_file(file: Path) -> None:
    port = free_port()
    file.write_text(f"gRPCPort = {port}\nnodes = ['127.0.0.1:1']\nbind = '127.0.0.1'\nkubernetes = 'off'\n")
    with Command("-config", str(file)) as relay:
        assert relay.line("serving")["address"] == f"127.0.0.1:{port}"
        assert relay.end() == 0


def test_the_stock_environment_is_served_and_what_may_not_be_meant_is_told() -> None:
    variables = {**STOCK, "ENABLE_DASHBOARDS": "True"}
    with Relay("-kubernetes=off", nodes=(free_port(),), **variables) as relay:
        assert relay.end() == 0
        warned = [line for line in map(json.loads, relay.log) if "ENABLE_" in line.get("msg", "")]
        assert [(line["level"], line["msg"]) for line in warned] == [
            ("warn", "ENABLE_DASHBOARDS=True does not switch Elasticsearch on: accepted is true, in lower case")
        ]
        assert "s3cret" not in "\n".join(relay.log)


@pytest.mark.parametrize(("form", "is_json"), [("json", True), ("text", False), ("auto", True)])
def test_the_form_of_the_log_is_a_setting(form: str, is_json: bool) -> None:
    with Command("-kubernetes=off", "-nodes=127.0.0.1:1", f"-gRPCPort={free_port()}", f"-log-format={form}") as relay:
        line = relay.line(lambda line: "serving" in (line.get("msg") or line["text"]))
        assert ("msg" in line) is is_json
        assert relay.end() == 0


# --- reload -------------------------------------------------------------------------------


def test_sighup_takes_over_what_can_change_and_says_what_cannot(file: Path) -> None:
    one, two, port = free_port(), free_port(), free_port()
    common = f"kubernetes = 'off'\ngRPCPort = {port}\n"
    file.write_text(common + f"nodes = ['127.0.0.1:{one}']")
    with Command("-config", str(file)) as relay:
        relay.line("serving")
        file.write_text(common.replace(str(port), "1") + f"nodes = ['127.0.0.1:{two}']\nlog-level = 'debug'")
        relay.send(signal.SIGHUP)
        assert relay.line("settings reloaded")["changed"] == "2"
        changes = [relay.line("setting changed") for _ in range(2)]
        assert {(line["setting"], line["before"], line["after"]) for line in changes} == {
            ("nodes", f"127.0.0.1:{one}", f"127.0.0.1:{two}"),
            ("log-level", "info", "debug"),
        }
        waiting = relay.line("setting needs a restart to change")
        assert (waiting["setting"], waiting["before"], waiting["after"]) == ("gRPCPort", str(port), "1")
        assert [node["node"] for node in relay.counters()["nodes"]] == [f"127.0.0.1:{two}"]
        assert relay.end() == 0


def test_sighup_with_a_broken_file_keeps_the_old_settings(file: Path) -> None:
    node = free_port()
    content = f"kubernetes = 'off'\ngRPCPort = {free_port()}\nnodes = ['127.0.0.1:{node}']\n"
    file.write_text(content)
    with Command("-config", str(file)) as relay:
        relay.line("serving")
        file.write_text(content + "log-level = ")
        relay.send(signal.SIGHUP)
        line = relay.line("settings not reloaded: the old ones stay")
        assert line["error"] == f"file {file}, line 4: not valid TOML: Invalid value"
        assert [known["node"] for known in relay.counters()["nodes"]] == [f"127.0.0.1:{node}"]
        assert relay.end() == 0


def test_sighup_without_a_file_ends_nothing() -> None:
    with Relay("-kubernetes=off", nodes=(free_port(),)) as relay:
        relay.send(signal.SIGHUP)
        relay.line(lambda line: line.get("msg", "").startswith("nothing to reload"))
        assert relay.end() == 0
