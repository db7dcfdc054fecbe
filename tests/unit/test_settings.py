"""relay.settings and relay.flags: every flag, its good and bad values, and the text of each error."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import cgroup
from relay.environment import environment_layer
from relay.flags import FALSE_WORDS, TRUE_WORDS, FlagError, parse_bool, parse_flags
from relay.settings import (
    KIB,
    MIB,
    Address,
    Settings,
    SettingsError,
    as_size,
    as_text,
    describe,
    flag_layers,
    load,
    parse_address,
    parse_number,
    parse_size,
)

LIMITED = 128 * MIB


def read(*words: str, environment: dict[str, str] | None = None) -> Settings:
    layers = [*flag_layers(words, Settings), environment_layer(Settings, environment or {})]
    settings = load(Settings, layers)
    settings.check()
    return settings


def refusal(*words: str, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        read(*words, environment=environment)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_defaults() -> None:
    settings = read()
    assert (settings.port, settings.nodes, settings.bind, settings.gather_us) == (32767, (), "", 500)
    assert (settings.max_event_bytes, settings.journal_bytes, settings.log_level) == (4 * MIB, None, "info")


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["-gRPCPort", "7101"], "port", 7101),
        (["--gRPCPort", "7101"], "port", 7101),
        (["-gRPCPort=1"], "port", 1),
        (["--gRPCPort=65535"], "port", 65535),
        (["-gRPCPort=1", "-gRPCPort=2"], "port", 2),
        (["-nodes", "10.0.0.1:32767"], "nodes", (Address("10.0.0.1", 32767),)),
        (["-nodes=a:1,b.example:2"], "nodes", (Address("a", 1), Address("b.example", 2))),
        (["-nodes", "[2001:db8::1]:5, c:6"], "nodes", (Address("2001:db8::1", 5), Address("c", 6))),
        (["-nodes="], "nodes", ()),
        (["-bind", "127.0.0.1"], "bind", "127.0.0.1"),
        (["-bind=::1"], "bind", "::1"),
        (["-bind=[::1]"], "bind", "::1"),
        (["-bind="], "bind", ""),
        (["-journal-bytes", "67108864"], "journal_bytes", 64 * MIB),
        (["-journal-bytes=65536KiB"], "journal_bytes", 64 * MIB),
        (["-journal-bytes=64MiB"], "journal_bytes", 64 * MIB),
        (["-journal-bytes=1GiB"], "journal_bytes", 1024 * MIB),
        (["-gather-us", "0"], "gather_us", 0),
        (["-max-event-bytes=64KiB"], "max_event_bytes", 64 * KIB),
        (["-log-level", "debug"], "log_level", "debug"),
        (["-log-format=json"], "log_format", "json"),
        (["-nodes=a:1", "-kubernetes=off"], "kubernetes", "off"),
        (["-kubeconfig", "/a:/b"], "kubeconfig", "/a:/b"),
        (["-kubeconfig="], "kubeconfig", ""),
        (["-node-selector", " app in (a, b), !c "], "node_selector", "app in (a, b), !c"),
        (["-namespace=kubearmor"], "namespace", "kubearmor"),
        (["-node-port=7102"], "node_port", 7102),
        (["-tlsEnabled=f"], "tls_enabled", False),
        (["-tlsCertPath=/tls"], "tls_cert_path", "/tls"),
        (["-tlsCertProvider", "self"], "tls_cert_provider", "self"),
        (["-tlsEnabled"], "tls_enabled", True),
        (["-tls-nodes=on"], "tls_nodes", "on"),
        (["-tls-subscribers=off"], "tls_subscribers", "off"),
        (["-tlsEnabled", "-tls-client-auth=request"], "tls_client_auth", "request"),
        (["-tlsEnabled", "-tls-allow=siem, otel.example ,x"], "tls_allow", ("siem", "otel.example", "x")),
        (["-tls-allow="], "tls_allow", ()),
        (["--", ], "port", 32767),
    ],
)  # fmt: skip
def test_a_flag_is_read(words: list[str], field: str, value: Any) -> None:
    assert getattr(read(*words), field) == value


PORT = "a TCP port from 1 to 65535"
ADDRESS = "host:port, an IPv6 address in brackets ([::1]:32767)"
BIND = "a numeric IPv4 or IPv6 address, or nothing for all addresses"
SIZE = "a number of bytes, as in 67108864, 65536KiB, 64MiB or 1GiB"
NAMESPACE = "nothing, or a namespace: up to 63 of a-z, 0-9 and -, the first and last not -"
SELECTOR = "a label selector, as in app=kubearmor,tier!=test,zone in (a, b),!old; a comma is missing before 'b'"
NAMES = "a common name or DNS name, or several with commas between, each whole"
FLOOR = "accepted is 25190400 or more (room for 6 events of -max-event-bytes 4194304)"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["-gRPCport", "1"], "unknown flag -gRPCport: did you mean -gRPCPort?"),
        (["--node=a:1"], "unknown flag -node: did you mean -nodes?"),
        (["-journalbytes=1"], "unknown flag -journalbytes: did you mean -journal-bytes?"),
        (["-colour"], "unknown flag -colour: see relay --help"),
        (["-gRPCPort"], "flag -gRPCPort needs a value: accepted are -gRPCPort value and -gRPCPort=value"),
        (["---gRPCPort=1"], "malformed flag '---gRPCPort=1': accepted are -name value and -name=value"),
        (["-=1"], "malformed flag '-=1': accepted are -name value and -name=value"),
        (["serve"], "unexpected word 'serve': accepted are flags, see relay --help"),
        (["--", "-gRPCPort=1"], "unexpected word '-gRPCPort=1': accepted are flags, see relay --help"),
        (["-gRPCPort=0"], f"flag -gRPCPort: '0' is wrong: accepted is {PORT}"),
        (["-gRPCPort=65536"], f"flag -gRPCPort: '65536' is wrong: accepted is {PORT}"),
        (["-gRPCPort=-1"], f"flag -gRPCPort: '-1' is wrong: accepted is {PORT}"),
        (["-gRPCPort=a\nb"], f"flag -gRPCPort: 'a\\nb' is wrong: accepted is {PORT}"),
        (["-gRPCPort=٣"], f"flag -gRPCPort: '٣' is wrong: accepted is {PORT}"),
        (["-gRPCPort="], f"flag -gRPCPort: '' is wrong: accepted is {PORT}"),
        (["-nodes=a"], f"flag -nodes: 'a' is wrong: accepted is {ADDRESS}"),
        (["-nodes=a:1,"], f"flag -nodes: 'a:1,' is wrong: accepted is {ADDRESS}"),
        (["-nodes=::1:5"], f"flag -nodes: '::1:5' is wrong: accepted is {ADDRESS}"),
        (["-nodes=[a]:5"], f"flag -nodes: '[a]:5' is wrong: accepted is {ADDRESS}"),
        (["-nodes=a:x"], f"flag -nodes: 'a:x' is wrong: accepted is {ADDRESS} and a port from 1 to 65535"),
        (["-nodes=[fe80::1%eth0]:5"], f"flag -nodes: '[fe80::1%eth0]:5' is wrong: accepted is {ADDRESS}"),
        (["-nodes=10.0.0.256:1"], f"flag -nodes: '10.0.0.256:1' is wrong: accepted is {ADDRESS}"),
        (["-nodes=10.1:1"], f"flag -nodes: '10.1:1' is wrong: accepted is {ADDRESS}"),
        (["-nodes=relay.1.:1"], f"flag -nodes: 'relay.1.:1' is wrong: accepted is {ADDRESS}"),
        (["-nodes=a b:1"], f"flag -nodes: 'a b:1' is wrong: accepted is {ADDRESS}"),
        (["-nodes=a:1,a:1"], "flag -nodes: 'a:1,a:1' is wrong: accepted is each node once (a:1 is there twice)"),
        (["-bind=eth0"], f"flag -bind: 'eth0' is wrong: accepted is {BIND}"),
        (["-bind=fe80::1%eth0"], f"flag -bind: 'fe80::1%eth0' is wrong: accepted is {BIND}"),
        (["-journal-bytes=64MB"], f"flag -journal-bytes: '64MB' is wrong: accepted is {SIZE}"),
        (["-journal-bytes=-1"], f"flag -journal-bytes: '-1' is wrong: accepted is {SIZE}"),
        (["-journal-bytes=99999999999GiB"], f"flag -journal-bytes: '99999999999GiB' is wrong: accepted is {SIZE}"),
        (["-journal-bytes=1MiB"], f"-journal-bytes 1048576 is too small: {FLOOR}"),
        (["-gather-us=-1"], "flag -gather-us: '-1' is wrong: accepted is a whole number from 0 to 1000000"),
        (["-gather-us=1.5"], "flag -gather-us: '1.5' is wrong: accepted is a whole number from 0 to 1000000"),
        (["-max-event-bytes=1"], "-max-event-bytes 1 is out of range: accepted is 1KiB to 1GiB"),
        (["-kubernetes=on"], "flag -kubernetes: 'on' is wrong: accepted is auto or off"),
        (["-node-port=0"], f"flag -node-port: '0' is wrong: accepted is {PORT}"),
        (["-namespace=a.b"], f"flag -namespace: 'a.b' is wrong: accepted is {NAMESPACE}"),
        (["-node-selector=a b"], f"flag -node-selector: 'a b' is wrong: accepted is {SELECTOR}"),
        (["-tlsEnabled=yes"], "flag -tlsEnabled: 'yes' is wrong: accepted is true or false"),
        (["-tlsEnabled", "true"], "unexpected word 'true': accepted are flags, see relay --help"),
        (["-tlsCertProvider=vault"], "flag -tlsCertProvider: 'vault' is wrong: accepted is external or self"),
        (["-tls-nodes=true"], "flag -tls-nodes: 'true' is wrong: accepted is auto, on or off"),
        (["-tls-client-auth=maybe"], "flag -tls-client-auth: 'maybe' is wrong: accepted is none, request or require"),
        (["-tls-allow=a,,b"], f"flag -tls-allow: 'a,,b' is wrong: accepted is {NAMES}"),
        (["-tls-allow=.example"], f"flag -tls-allow: '.example' is wrong: accepted is {NAMES}"),
        (["-tls-allow=*.example"], f"flag -tls-allow: '*.example' is wrong: accepted is {NAMES}"),
        (["-tls-allow=a,b,a"], "flag -tls-allow: 'a,b,a' is wrong: accepted is each name once (a is there twice)"),
        (["-log-format=xml"], "flag -log-format: 'xml' is wrong: accepted is auto, json or text"),
        (["-a\nb"], "unknown flag -a\\nb: see relay --help"),
        (["-log-level=loud"], "flag -log-level: 'loud' is wrong: accepted is debug, info, warn or error"),
    ],
)  # fmt: skip
def test_a_bad_command_line_is_refused_in_one_line(words: list[str], text: str) -> None:
    assert refusal(*words) == text


def test_nodes_come_from_the_environment_unless_a_flag_says_otherwise() -> None:
    environment = {"RELAY_NODES": "a:1"}
    assert read(environment=environment).nodes == (Address("a", 1),)
    assert read("-nodes", "b:2", environment=environment).nodes == (Address("b", 2),)
    assert read("-nodes=", environment=environment).nodes == ()
    assert read(environment={"RELAY_NODES": ""}).nodes == ()


def test_a_bad_environment_variable_is_named_even_when_a_flag_hides_it() -> None:
    assert (
        refusal("-nodes=b:2", environment={"RELAY_NODES": "a"}) == f"RELAY_NODES: 'a' is wrong: accepted is {ADDRESS}"
    )


# --- Go's grammar -----------------------------------------------------------------------


@pytest.mark.parametrize("word", TRUE_WORDS)
def test_go_words_for_true(word: str) -> None:
    assert parse_bool(word) is True


@pytest.mark.parametrize("word", FALSE_WORDS)
def test_go_words_for_false(word: str) -> None:
    assert parse_bool(word) is False


@pytest.mark.parametrize("word", ["", "yes", "tRUE", "2", "on"])
def test_other_words_are_no_booleans(word: str) -> None:
    with pytest.raises(ValueError, match="true or false"):
        parse_bool(word)


@pytest.mark.parametrize(
    ("words", "given", "rest"),
    [
        (["-b", "-n", "1"], {"b": "true", "n": "1"}, []),
        (["-b=f", "--n=1"], {"b": "f", "n": "1"}, []),
        (["-b", "true"], {"b": "true"}, ["true"]),  # a boolean never takes the next word
        (["-n", "-b"], {"n": "-b"}, []),  # any other flag always does
        (["-n=a=b"], {"n": "a=b"}, []),
        (["-n", "1", "word", "-b"], {"n": "1"}, ["word", "-b"]),
        (["-", "-b"], {}, ["-", "-b"]),
        (["--", "-b"], {}, ["-b"]),
        ([], {}, []),
    ],
)
def test_go_flag_grammar(words: list[str], given: dict[str, str], rest: list[str]) -> None:
    assert parse_flags(words, {"b": True, "n": False}) == (given, rest)


@given(words=st.lists(st.text(max_size=8) | st.sampled_from(["-b", "--n", "-n=1", "--", "-", "---b"]), max_size=6))
def test_any_command_line_is_read_or_refused(words: list[str]) -> None:
    try:
        given, rest = parse_flags(words, {"b": True, "n": False})
    except FlagError:
        return
    assert set(given) <= {"b", "n"}
    assert not rest or rest == words[len(words) - len(rest) :]


# --- readers ----------------------------------------------------------------------------


@given(st.ip_addresses(), st.integers(1, 65535))
def test_an_address_is_written_as_it_is_read(ip: Any, port: int) -> None:
    address = Address(str(ip), port)
    assert parse_address(str(address)) == address


@given(st.integers(0, 2**50), st.sampled_from([("", 1), ("KiB", 1024), ("MiB", 1024**2), ("GiB", 1024**3)]))
def test_a_size_is_its_number_times_its_unit(number: int, unit: tuple[str, int]) -> None:
    text, factor = unit
    if number * factor < 2**63:
        assert parse_size(f"{number}{text}") == number * factor


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_refused(text: str) -> None:
    try:
        assert parse_size(text) >= 0
    except ValueError as error:
        assert str(error) == SIZE  # noqa: PT017


@pytest.mark.parametrize(("text", "number"), [("0", 0.0), ("0.25", 0.25), ("5", 5.0), ("10", 10.0)])
def test_a_decimal_number_is_read(text: str, number: float) -> None:
    assert parse_number(0, 10)(text) == number


@pytest.mark.parametrize("text", ["", "-1", "11", "nan", "inf", "1e1", "1.", ".5", "0x1"])
def test_other_decimal_numbers_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a number from 0 to 10"):
        parse_number(0, 10)(text)


def test_a_setting_is_called_alike_everywhere() -> None:
    for option in fields(Settings):
        flag = option.metadata["flag"]
        words = re.sub(r"(?<=[a-z])(?=[A-Z][a-z]|RPC)", "_", flag.replace("-", "_").replace("gRPC", "GRPC_"))
        assert option.metadata["environment"] == f"RELAY_{words.upper()}", flag


def test_help_names_every_flag_its_default_its_variable_and_its_meaning() -> None:
    shown = describe(Settings).splitlines()
    assert len(shown) == 2 * len(fields(Settings))
    for option, flag, meaning in zip(fields(Settings), shown[::2], shown[1::2], strict=True):
        about = option.metadata
        assert flag.split() == [f"-{about['flag']}", *about["value"].split()]
        default = "" if about["parse"] is parse_bool else f"default {about['default_text']}; "
        assert meaning == f"      {about['doc']} ({default}also {about['environment']})"


@given(st.integers(0, 2**62))
def test_a_size_is_written_as_it_is_read(size: int) -> None:
    assert parse_size(as_size(size)) == size


def test_a_value_is_written_as_it_is_read() -> None:
    settings = read("-nodes=a:1,[::1]:2", "-bind=::1", "-gRPCPort=1", "-node-selector=a=b")
    for option in fields(Settings):
        value = getattr(settings, option.name)
        assert value is None or option.metadata["parse"](as_text(value)) == value


# --- the default journal ----------------------------------------------------------------


def set_limit(monkeypatch: pytest.MonkeyPatch, limit: int | None) -> None:
    monkeypatch.setattr(cgroup, "memory_limit", lambda: limit)


@pytest.mark.parametrize(
    ("limit", "words", "budget"),
    [
        (None, [], 64 * MIB),
        (LIMITED, [], 32 * MIB),
        (64 * MIB, [], 24 * MIB + 24 * KIB),  # the floor: two of the largest events for each of three feeds
        (64 * MIB, ["-max-event-bytes=64KiB"], 16 * MIB),
        (LIMITED, ["-journal-bytes=40MiB"], 40 * MIB),
    ],
)
def test_the_journal_budget(monkeypatch: pytest.MonkeyPatch, limit: int | None, words: list[str], budget: int) -> None:
    set_limit(monkeypatch, limit)
    assert read(*words).journal_budget == budget


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "134217728\n"}, LIMITED),
        (
            {
                "proc/self/cgroup": "0::/pods/a\n",
                "sys/fs/cgroup/pods/memory.max": "134217728\n",
                "sys/fs/cgroup/pods/a/memory.max": "max\n",
            },
            LIMITED,
        ),
        (
            {
                "proc/self/cgroup": "0::/pods/a\n",
                "sys/fs/cgroup/pods/memory.max": "934217728\n",
                "sys/fs/cgroup/pods/a/memory.max": "134217728\n",
            },
            LIMITED,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu:/\n3:memory:/x\n",
                "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "134217728\n",
            },
            LIMITED,
        ),
        (  # in a container: the path is the host's, the mount shows the container's own group
            {"proc/self/cgroup": "3:memory:/x/y\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "134217728\n"},
            LIMITED,
        ),
        (
            {
                "proc/self/cgroup": "3:memory:/\n0::/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            None,
        ),
        ({"proc/self/cgroup": "nonsense\n\n:\n"}, None),
    ],
)
def test_the_memory_limit_of_the_control_group(tmp_path: Path, files: dict[str, str], limit: int | None) -> None:
    for name, text in files.items():
        write(tmp_path, name, text)
    assert cgroup.memory_limit(tmp_path) == limit
