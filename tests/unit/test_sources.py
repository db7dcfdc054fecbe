"""relay.sources and the contradictions of relay.settings: which source wins, and what each error names."""

from pathlib import Path

import pytest

from relay.settings import Address, Settings, SettingsError, flag_layers
from relay.sink_settings import SinkSettings
from relay.sources import KINDS, Loaded, load_sources, make_sources


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "relay.toml"


def loaded(*words: str, **environment: str) -> Loaded:
    return load_sources(make_sources(flag_layers(words, *KINDS), environment))


def refusal(*words: str, **environment: str) -> str:
    with pytest.raises(SettingsError) as caught:
        loaded(*words, **environment)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_without_any_source_all_are_defaults() -> None:
    assert loaded() == (Settings(), SinkSettings(), {})


def test_flags_win_over_environment_over_file_over_defaults(file: Path) -> None:
    file.write_text("gRPCPort = 1\nnode-port = 1\nbind = '::1'\n")
    settings, _, given = loaded(
        "-gRPCPort=3", f"-config={file}", RELAY_GRPC_PORT="2", RELAY_NODE_PORT="2", RELAY_NODES="a:1"
    )
    assert (settings.port, settings.node_port, settings.bind, settings.gather_us) == (3, 2, "::1", 500)
    assert {name: where.origin for name, where in given.items()} == {
        "port": "flag -gRPCPort",
        "node_port": "environment RELAY_NODE_PORT",
        "nodes": "environment RELAY_NODES",
        "bind": f"file {file}",
        "config": "flag -config",
    }


def test_the_file_may_be_named_by_the_environment_and_taken_back_by_a_flag(file: Path) -> None:
    file.write_text("gRPCPort = 7101")
    assert loaded(RELAY_CONFIG=str(file)).settings.port == 7101
    assert loaded("-config=", RELAY_CONFIG=str(file)).settings.port == 32767


def test_every_value_is_checked_also_where_another_hides_it(file: Path) -> None:
    port = "a TCP port from 1 to 65535"
    file.write_text("gRPCPort = 0")
    words = (f"-config={file}", "-gRPCPort=1")
    assert refusal(*words) == f"file {file}: gRPCPort: '0' is wrong: accepted is {port}"
    file.write_text("")
    assert refusal(*words, RELAY_GRPC_PORT="x") == f"RELAY_GRPC_PORT: 'x' is wrong: accepted is {port}"


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert refusal(RELAY_CONFIG=f"{tmp_path}/a\nb") == (
        f"file {tmp_path}/a\\nb cannot be read: No such file or directory"
    )


def test_an_unknown_variable_is_refused() -> None:
    assert refusal(RELAY_NODDES="a:1") == "unknown variable RELAY_NODDES: did you mean RELAY_NODES?"


# --- values that are right alone and wrong together -----------------------------------

SMALL = "is too small: accepted is"
ROOM = "room for 6 events of"


NEEDS_TLS = "needs TLS to subscribers: accepted with -tlsEnabled or -tls-subscribers on"


@pytest.mark.parametrize(
    ("words", "environment", "text"),
    [
        (
            ["-kubernetes=off"],
            {},
            "-kubernetes off leaves nothing to read from: give -nodes as well, or leave it out",
        ),
        (
            ["-nodes="],
            {"RELAY_KUBERNETES": "off"},
            "RELAY_KUBERNETES off leaves nothing to read from: give -nodes as well, or leave it out",
        ),
        (
            ["-kubernetes=off", "-nodes=a:1", "-kubeconfig=/k"],
            {},
            "-kubernetes off contradicts -kubeconfig /k: accepted is one of them",
        ),
        (
            ["-kubernetes=off", "-nodes=a:1"],
            {"RELAY_NODE_SELECTOR": "a=b"},
            "-kubernetes off contradicts RELAY_NODE_SELECTOR a=b: accepted is one of them",
        ),
        (
            ["-kubernetes=off", "-nodes=a:1"],
            # the default, but somebody meant it
            {"RELAY_NODE_SELECTOR": "kubearmor-app=kubearmor"},
            "-kubernetes off contradicts RELAY_NODE_SELECTOR kubearmor-app=kubearmor: accepted is one of them",
        ),
        (
            ["-nodes=a:1", "-namespace=x"],
            {"RELAY_KUBERNETES": "off"},
            "RELAY_KUBERNETES off contradicts -namespace x: accepted is one of them",
        ),
        (
            ["-kubernetes=off", "-nodes=a:1", "-node-port=5"],
            {},
            "-kubernetes off contradicts -node-port 5: accepted is one of them",
        ),
        (
            ["-tlsEnabled", "-tls-nodes=off"],
            {"RELAY_TLS_SUBSCRIBERS": "off"},
            (
                "-tlsEnabled true contradicts -tls-nodes off with RELAY_TLS_SUBSCRIBERS off: "
                "accepted is true with one of them, or false"
            ),
        ),
        (["-tls-allow=siem"], {}, f"-tls-allow siem {NEEDS_TLS}"),
        (["-tlsEnabled", "-tls-subscribers=off"], {"RELAY_TLS_ALLOW": "a,b"}, f"RELAY_TLS_ALLOW a,b {NEEDS_TLS}"),
        # the default, but somebody relies on it
        (["-tls-client-auth=require"], {}, f"-tls-client-auth require {NEEDS_TLS}"),
        (["-tls-nodes=on"], {"RELAY_TLS_CLIENT_AUTH": "none"}, f"RELAY_TLS_CLIENT_AUTH none {NEEDS_TLS}"),
        (
            ["-tlsEnabled", "-tls-client-auth=none", "-tls-allow=siem"],
            {},
            (
                "-tls-client-auth none lets in clients without a certificate, and -tls-allow siem wants names in it: "
                "accepted is require, or no names"
            ),
        ),
        (
            ["-tls-subscribers=on", "-tls-client-auth=request"],
            {"RELAY_TLS_ALLOW": "siem, otel"},
            (
                "-tls-client-auth request lets in clients without a certificate, and RELAY_TLS_ALLOW siem,otel wants "
                "names in it: accepted is require, or no names"
            ),
        ),
        (
            [],
            {"RELAY_JOURNAL_BYTES": "1MiB"},
            f"RELAY_JOURNAL_BYTES 1048576 {SMALL} 25190400 or more ({ROOM} -max-event-bytes 4194304)",
        ),
        (
            ["-journal-bytes=1MiB"],
            {"RELAY_MAX_EVENT_BYTES": "1MiB"},
            f"-journal-bytes 1048576 {SMALL} 6316032 or more ({ROOM} RELAY_MAX_EVENT_BYTES 1048576)",
        ),
        (
            [],
            {"RELAY_MAX_EVENT_BYTES": "1"},
            "RELAY_MAX_EVENT_BYTES 1 is out of range: accepted is 1KiB to 1GiB",
        ),
        (
            ["-tlsCertProvider=vault"],
            {},
            "flag -tlsCertProvider: 'vault' is wrong: accepted is external or self",
        ),
    ],
)
def test_contradictions_are_refused_with_where_each_was_given(
    words: list[str], environment: dict[str, str], text: str
) -> None:
    assert refusal(*words, **environment) == text


def test_a_contradiction_names_the_file_and_its_key(file: Path) -> None:
    file.write_text("kubernetes = 'off'\nnodes = ['a:1']\nnode-port = 5")
    assert refusal(f"-config={file}") == (
        f"file {file}: kubernetes off contradicts file {file}: node-port 5: accepted is one of them"
    )


def test_an_empty_value_takes_back_what_would_contradict() -> None:
    settings = loaded("-kubernetes=off", "-nodes=a:1", "-namespace=", RELAY_NAMESPACE="x").settings
    assert (settings.kubernetes, settings.namespace, settings.nodes) == ("off", "", (Address("a", 1),))


@pytest.mark.parametrize(
    ("words", "nodes", "subscribers"),
    [
        (["-tlsEnabled"], True, True),
        (["-tlsEnabled", "-tls-subscribers=off"], True, False),
        (["-tlsEnabled", "-tls-nodes=off", "-tls-allow=siem", "-tls-client-auth=require"], False, True),
        (["-tlsEnabled=false", "-tls-nodes=on"], True, False),
        (["-tls-subscribers=on", "-tls-client-auth=none"], False, True),
        (["-tls-allow="], False, False),
    ],
)
def test_tls_can_be_had_on_one_side_alone(words: list[str], nodes: bool, subscribers: bool) -> None:
    settings = loaded(*words).settings
    assert (settings.is_tls_to_nodes, settings.is_tls_to_subscribers) == (nodes, subscribers)


def test_certificates_may_be_named_without_tls() -> None:
    settings = loaded("-tlsEnabled=false", "-tlsCertPath=/tls", "-tlsCertProvider=self").settings
    assert (settings.tls_enabled, settings.tls_cert_path, settings.tls_cert_provider) == (False, "/tls", "self")


def test_found_nodes_are_reached_at_the_relays_own_port_unless_told_otherwise() -> None:
    assert loaded("-gRPCPort=7").settings.discovered_port == 7
    assert loaded("-gRPCPort=7", "-node-port=8").settings.discovered_port == 8
