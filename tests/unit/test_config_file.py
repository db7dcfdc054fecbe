"""relay.config_file: TOML values as settings, and the text of each error."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from relay.config_file import LARGEST_BYTES, file_layer
from relay.settings import Settings, SettingsError, Source


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "relay.toml"


def texts(path: Path) -> dict[str, str]:
    """What the file gives, by field."""
    layer = file_layer([Settings], str(path))
    assert {(given.source, given.file) for given in layer.values()} <= {(Source.FILE, str(path))}
    return {name: given.text for name, given in layer.items()}


def refusal(path: Path) -> str:
    """The error, with FILE for the path."""
    with pytest.raises(SettingsError) as caught:
        file_layer([Settings], str(path))
    text = str(caught.value)
    assert text.isprintable()
    return text.replace(str(path), "FILE")


def test_keys_are_the_names_of_the_flags_and_values_have_their_types(file: Path) -> None:
    file.write_text(
        """\
        # what an operator may write
        gRPCPort = 7101
        "nodes" = ["a:1", "[::1]:2"]
        journal-bytes = "64MiB"
        max-event-bytes = 4_194_304
        gather-us = 0
        log-level = 'debug'
        namespace = ""
        node-port = 7102
        tlsEnabled = false
        tlsCertPath = "/etc/tls"
        """
    )
    assert texts(file) == {
        "port": "7101",
        "nodes": "a:1,[::1]:2",
        "journal_bytes": "64MiB",
        "max_event_bytes": "4194304",
        "gather_us": "0",
        "log_level": "debug",
        "namespace": "",
        "node_port": "7102",
        "tls_enabled": "false",
        "tls_cert_path": "/etc/tls",
    }


@pytest.mark.parametrize(
    ("line", "text"),
    [("nodes = 'a:1,b:2'", "a:1,b:2"), ("nodes = []", ""), ("nodes = ''", ""), ("nodes=['a:1']", "a:1")],
)
def test_nodes_are_a_list_or_a_text(file: Path, line: str, text: str) -> None:
    file.write_text(line)
    assert texts(file) == {"nodes": text}


def test_an_empty_file_gives_nothing(file: Path) -> None:
    file.write_text("")
    assert texts(file) == {}


SIZE = "a whole number, without quotes, or a text in quotes"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        # unknown keys
        ("port = 1", "unknown key 'port': did you mean gRPCPort?"),
        ("journal_bytes = 1", "unknown key 'journal_bytes': did you mean journal-bytes?"),
        ("colour = 1", "unknown key 'colour': keys are the names of the flags, see relay --help"),
        ("confg = 'a'", "unknown key 'confg': did you mean kubeconfig?"),  # not config, which is no key
        ("[relay]\nnodes = []", "unknown key 'relay': keys are the names of the flags, see relay --help"),
        ('"a\\nb" = 1', "unknown key 'a\\nb': keys are the names of the flags, see relay --help"),
        ("config = 'a'", "config: accepted are -config and RELAY_CONFIG, not a key in the file"),
        # wrong types
        ("gRPCPort = '7101'", "gRPCPort: '7101' is wrong: accepted is a whole number, without quotes"),
        ("gRPCPort = true", "gRPCPort: true is wrong: accepted is a whole number, without quotes"),
        ("gather-us = 1.5", "gather-us: 1.5 is wrong: accepted is a whole number, without quotes"),
        ("journal-bytes = 1.5", f"journal-bytes: 1.5 is wrong: accepted is {SIZE}"),
        ("nodes = 1", "nodes: 1 is wrong: accepted is a text in quotes, or a list of texts"),
        ("nodes = [1]", "nodes: 1 is wrong: accepted is a text for each of the list"),
        ("nodes = ['a:1,b:2']", "nodes: 'a:1,b:2' is wrong: accepted is a text for each of the list"),
        ("nodes = ['']", "nodes: '' is wrong: accepted is a text for each of the list"),
        ("nodes = [['a:1']]", "nodes: ['a:1'] is wrong: accepted is a text for each of the list"),
        ("nodes.a = 1", "nodes: a table is wrong: accepted is a text in quotes, or a list of texts"),
        ("tlsEnabled = 'false'", "tlsEnabled: 'false' is wrong: accepted is true or false, without quotes"),
        ("tlsEnabled = 0", "tlsEnabled: 0 is wrong: accepted is true or false, without quotes"),
        ("namespace = 2026-11-23", "namespace: 2026-11-23 is wrong: accepted is a text in quotes"),
        (f"namespace = [{'1,' * 99}]", f"namespace: {str([1] * 99)[:60]}… is wrong: accepted is a text in quotes"),
    ],
)  # fmt: skip
def test_a_wrong_key_or_type_is_refused_in_one_line(file: Path, line: str, text: str) -> None:
    file.write_text(line)
    assert refusal(file) == f"file FILE: {text}"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"gRPCPort = 1\nnodes\n", "line 2: not valid TOML: Expected '=' after a key in a key/value pair (column 6)"),
        (b"\n\ngRPCPort = ", "line 3: not valid TOML: Invalid value"),
        (b"\ngRPCPort = 1\ngRPCPort = 2\n", "line 3: not valid TOML: Cannot overwrite a value (column 13)"),
        (b"# \xff", "line 1: not valid TOML: not UTF-8"),
        (b"\n# ok\n\xc3", "line 3: not valid TOML: not UTF-8"),
    ],
)
def test_what_is_not_toml_is_refused_with_the_line(file: Path, content: bytes, text: str) -> None:
    file.write_bytes(content)
    assert refusal(file) == f"file FILE, {text}"


@pytest.mark.parametrize(
    "content", ["nodes = " + "[" * 50_000, "nodes" + ".a" * 2_000 + " = 1", "gather-us = " + "9" * 5000]
)
def test_what_exhausts_the_parser_is_refused(file: Path, content: str) -> None:
    file.write_text(content)
    refusal(file)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == "file FILE cannot be read: No such file or directory"
    assert refusal(tmp_path) == "file FILE cannot be read: not a regular file"
    with pytest.raises(SettingsError, match="cannot be read: embedded null byte"):
        file_layer([Settings], "a\0b")


def test_a_pipe_is_refused_rather_than_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe") == "file FILE cannot be read: not a regular file"


def test_a_file_larger_than_any_use_is_refused(file: Path) -> None:
    file.write_text("#" * LARGEST_BYTES)
    assert texts(file) == {}
    file.write_text("#" * (LARGEST_BYTES + 1))
    assert refusal(file) == f"file FILE is too large: accepted are up to {LARGEST_BYTES} bytes"


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary() | st.text("nodes=[]\"'{}.,#1 \n\\").map(str.encode))
def test_any_content_is_taken_or_refused_in_one_line(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    error = ""
    try:
        file_layer([Settings], str(file))
    except SettingsError as refused:
        error = str(refused)
    assert error.isprintable()
