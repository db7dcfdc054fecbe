"""relay.environment: RELAY_* variables, those that only look like ours, and the Go relay's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.environment import BUILD_VARIABLES, check_names, environment_layer
from relay.settings import Given, Settings, SettingsError, Source

# What the kubelet sets for services of these names (one with a named port, one with two protocols).
OF_SERVICES = {
    "RELAY_SERVICE_HOST": "10.96.0.7",
    "RELAY_SERVICE_PORT": "32767",
    "RELAY_SERVICE_PORT_GRPC": "32767",
    "RELAY_PORT": "tcp://10.96.0.7:32767",
    "RELAY_PORT_32767_TCP": "tcp://10.96.0.7:32767",
    "RELAY_PORT_32767_TCP_PROTO": "tcp",
    "RELAY_PORT_32767_TCP_PORT": "32767",
    "RELAY_PORT_32767_TCP_ADDR": "10.96.0.7",
    # relay-grpc and relay-node: their links are called like our settings
    "RELAY_GRPC_SERVICE_HOST": "fd00::7",
    "RELAY_GRPC_SERVICE_PORT": "32767",
    "RELAY_GRPC_PORT": "tcp://[fd00::7]:32767",
    "RELAY_GRPC_PORT_32767_TCP_ADDR": "fd00::7",
    "RELAY_NODE_PORT": "udp://10.96.0.8:53",
    "RELAY_NODE_PORT_53_UDP": "udp://10.96.0.8:53",
    "RELAY_NODE_PORT_53_SCTP_PROTO": "sctp",
}


def test_variables_are_read_by_the_name_of_their_setting() -> None:
    environment = {"RELAY_GRPC_PORT": "7101", "RELAY_NAMESPACE": "kubearmor", "RELAY_TLS_ENABLED": "", "PATH": "/bin"}
    assert environment_layer(Settings, environment) == {
        "port": Given("7101", Source.ENVIRONMENT, "RELAY_GRPC_PORT"),
        "namespace": Given("kubearmor", Source.ENVIRONMENT, "RELAY_NAMESPACE"),
    }


def test_what_kubernetes_sets_for_services_is_passed_over() -> None:
    check_names([Settings], OF_SERVICES)
    assert environment_layer(Settings, OF_SERVICES) == {}


def test_what_chooses_a_build_is_passed_over() -> None:
    check_names([Settings], dict.fromkeys(BUILD_VARIABLES, "1"))


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("RELAY_NODE", "a:1", "unknown variable RELAY_NODE: did you mean RELAY_NODES?"),
        ("RELAY_GRPCPORT", "1", "unknown variable RELAY_GRPCPORT: did you mean RELAY_GRPC_PORT?"),
        ("RELAY_LOGLEVEL", "", "unknown variable RELAY_LOGLEVEL: did you mean RELAY_LOG_LEVEL?"),
        ("RELAY_PORT", "7101", "unknown variable RELAY_PORT: did you mean RELAY_GRPC_PORT?"),
        ("RELAY_COLOUR_OF_THE_SKY", "", "unknown variable RELAY_COLOUR_OF_THE_SKY: see relay --help"),
        ("RELAY_A\nB", "", "unknown variable RELAY_A\\nB: see relay --help"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest_name(name: str, value: str, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_names([Settings], {"RELAY_NODES": "a:1", name: value})
    assert str(caught.value) == text


def test_names_of_others_are_left_alone() -> None:
    check_names([Settings], {"relay_nodes": "", "RELAYED": "", "KUBECONFIG": "", "MY_RELAY_NODES": ""})


@given(st.dictionaries(st.builds("RELAY_{}".format, st.text()), st.text()))
def test_any_environment_is_taken_or_refused_in_one_line(environment: dict[str, str]) -> None:
    error = ""
    try:
        check_names([Settings], environment)
    except SettingsError as refused:
        error = str(refused)
    assert error.isprintable()
