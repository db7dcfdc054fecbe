"""What the sinks are told, in the Go relay's variables and in ours."""

from dataclasses import fields
from pathlib import Path

import pytest

from relay.settings import SettingsError, as_text
from relay.sink_settings import (
    Secrets,
    SinkSettings,
    Url,
    credentials,
    environment_warnings,
    parse_index,
    parse_sinks,
)
from relay.sinks.build import plan
from relay.sources import KINDS, load_sources, make_sources

pytestmark = pytest.mark.unit

ES = {"ENABLE_DASHBOARDS": "true", "ES_URL": "http://es:9200"}
OS = {"ENABLE_OPENSEARCH_DASHBOARD": "true", "OS_ALERTS_INDEX": "alerts"}


def told(**environment: str) -> SinkSettings:
    return load_sources(make_sources([], environment)).sinks


def planned(**environment: str) -> list[str]:
    settings = told(**environment)
    return [f"{each.sink.name} {each.feeds}" for each in plan(settings, credentials(environment), "boot")]


def test_switches_of_the_go_relay() -> None:
    assert planned() == []
    assert planned(**ES) == ["elasticsearch (1,)"]
    assert planned(**OS) == ["opensearch (1, 2)"]
    assert planned(**ES, **OS) == ["elasticsearch (1,)", "opensearch (1, 2)"]
    assert planned(**ES, RELAY_SINK="file:events,elasticsearch") == ["file:events (2, 1, 0)", "elasticsearch (1,)"]


@pytest.mark.parametrize("value", ["True", "TRUE", "1", "yes", ""])
def test_switches_of_search_engines_count_in_lower_case_only(value: str) -> None:
    environment = {"ENABLE_DASHBOARDS": value, "ENABLE_OPENSEARCH_DASHBOARD": value}
    assert told(**environment).sink == ()
    assert environment_warnings(environment) == (
        [
            f"{name}={value} does not switch {engine} on: accepted is true, in lower case"
            for name, engine in (("ENABLE_DASHBOARDS", "Elasticsearch"), ("ENABLE_OPENSEARCH_DASHBOARD", "OpenSearch"))
        ]
        if value
        else []
    )


@pytest.mark.parametrize("value", ["true", "TRUE", "tRue"])
def test_switches_of_standard_output_count_in_any_case(value: str) -> None:
    assert told(ENABLE_STDOUT_LOGS=value).stdout == ("logs",)
    assert told(ENABLE_STDOUT_ALERTS=value).stdout == ("alerts",)
    assert told(ENABLE_STDOUT_MSGS=value).stdout == ("messages",)
    assert told(ENABLE_STDOUT_MSGS=value, RELAY_STDOUT="messages,logs").stdout == ("messages", "logs")
    assert environment_warnings({"ENABLE_STDOUT_LOGS": value}) == []


@pytest.mark.parametrize("value", ["1", "yes", "false", "off", " true", ""])
def test_standard_output_is_switched_on_by_no_other_word(value: str) -> None:
    environment = {"ENABLE_STDOUT_LOGS": value}
    assert told(**environment).stdout == ()
    warned = [f"ENABLE_STDOUT_LOGS={value} does not switch standard output on: accepted is true"]
    assert environment_warnings(environment) == (warned if value in ("1", "yes", " true") else [])


def test_feeds_of_standard_output() -> None:
    assert told(RELAY_STDOUT="logs, alerts,messages").stdout == ("logs", "alerts", "messages")
    for wrong in ("all", "logs,logs", "Logs"):
        with pytest.raises(SettingsError, match=r"RELAY_STDOUT: .* is wrong: accepted is logs, alerts or messages"):
            told(RELAY_STDOUT=wrong)


@pytest.mark.parametrize("prefix", ["ES", "OS"])
@pytest.mark.parametrize(("one", "other"), [("USERNAME", "PASSWORD"), ("PASSWORD", "USERNAME")])
def test_half_of_the_credentials_is_told_without_its_value(prefix: str, one: str, other: str) -> None:
    environment = {f"{prefix}_{one}": "s3cret"}
    assert environment_warnings(environment) == [
        f"{prefix}_{one} is not used: accepted are {prefix}_USERNAME and {prefix}_PASSWORD, both or none"
    ]
    assert environment_warnings(environment | {f"{prefix}_{other}": "x"}) == []


def test_settings_classes_share_no_name() -> None:
    options = [option for kind in KINDS for option in fields(kind)]
    for names in (
        [option.name for option in options],
        [option.metadata["flag"] for option in options],
        [option.metadata["environment"] for option in options],
    ):
        assert len(set(names)) == len(names)


def test_defaults_are_the_go_relays() -> None:
    settings = told(**ES)
    assert (settings.es_alerts_index, str(settings.os_url)) == ("kubearmor-alerts", "http://localhost:9200")
    assert (settings.es_batch_bytes, settings.es_batch_seconds) == (1_000_000, 10)
    assert (settings.os_batch_events, settings.os_batch_seconds) == (500, 10)


@pytest.mark.parametrize("value", ["true", "false", "0"])
def test_any_text_turns_elasticsearchs_certificate_check_off_and_true_opensearchs(value: str) -> None:
    settings = told(**ES, **OS, ES_ALLOW_INSECURE_TLS=value, OS_ALLOW_INSECURE_TLS=value)
    assert settings.es_allow_insecure_tls
    assert settings.os_allow_insecure_tls is (value == "true")
    assert len(settings.warnings()) == 1 + (value == "true")


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"ENABLE_DASHBOARDS": "true"}, "ES_URL is not set, nor is -es-url"),
        ({"ENABLE_OPENSEARCH_DASHBOARD": "true"}, "OS_ALERTS_INDEX is not set, nor is -os-alerts-index"),
        (ES | {"ES_URL": "es:9200"}, "ES_URL: 'es:9200' is wrong"),
        (ES | {"ES_ALERTS_INDEX": "Alerts"}, "ES_ALERTS_INDEX: 'Alerts' is wrong"),
        (ES | {"ES_CA_CERT_PATH": "/nonexistent"}, "ES_CA_CERT_PATH: '/nonexistent' is wrong (No such file"),
        (ES | {"RELAY_ES_BATCH_BYTES": "10"}, "RELAY_ES_BATCH_BYTES 10 is out of range"),
        ({"RELAY_SINK": "file:/nonexistent/events"}, "accepted is a file in a folder that exists"),
    ],
)
def test_what_is_missing_or_wrong_is_said_in_a_line(environment: dict[str, str], text: str) -> None:
    with pytest.raises(SettingsError) as raised:
        told(**environment)
    assert text in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_ca_file_without_a_certificate(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("nothing")
    with pytest.raises(SettingsError, match="accepted is a file of PEM certificates"):
        told(**ES, ES_CA_CERT_PATH=str(tmp_path / "ca.crt"))
    told(**ES, ES_CA_CERT_PATH=str(tmp_path / "ca.crt"), ES_ALLOW_INSECURE_TLS="x")


def test_what_is_told_to_a_sink_that_is_off_is_not_looked_at() -> None:
    told(ES_URL="nonsense", ES_ALERTS_INDEX="A B", OS_CA_CERT_PATH="/nonexistent")


def test_credentials_need_both() -> None:
    assert credentials({"ES_USERNAME": "me"}).elasticsearch == Secrets()
    assert credentials({"OS_PASSWORD": "word"}).opensearch == Secrets()
    assert credentials({"ES_USERNAME": "me", "ES_PASSWORD": "word"}).elasticsearch == Secrets("me", "word")


def test_secrets_are_never_shown() -> None:
    environment = ES | {"ES_URL": "https://me:hunter2@es:9200/x/", "ES_USERNAME": "you", "ES_PASSWORD": "hunter2"}
    settings = told(**environment)
    shown = repr(settings) + repr(credentials(environment)) + as_text(settings.es_url)
    assert "hunter2" not in shown
    assert "https://…@es:9200/x/" in shown
    assert settings.es_url.parts() == ("https://es:9200/x", Secrets("me", "hunter2"))
    with pytest.raises(SettingsError) as raised:
        told(**environment | {"ES_URL": "htp://me:hunter2@es"})
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("text", ["alerts", "a-%Y.%m.%d", "x%j", "1"])
def test_names_of_indices(text: str) -> None:
    assert parse_index(text) == text


@pytest.mark.parametrize(
    "text", ["", "A", "-a", "_a", "a b", "a/b", "a*", "%", "a%", "a-%B", "a-%Q", "..", "a" * 256, "a,b"]
)
def test_no_names_of_indices(text: str) -> None:
    with pytest.raises(ValueError, match="index name"):
        parse_index(text)


@pytest.mark.parametrize("text", ["kafka", "file:", "elasticsearch,elasticsearch"])
def test_no_sinks(text: str) -> None:
    with pytest.raises(ValueError, match=r"sink|elasticsearch"):
        parse_sinks(text)


@pytest.mark.parametrize("text", ["", "es:9200", "ftp://es", "http://", "http://es:0", "http://es:x", "http://es?x=1"])
def test_no_urls(text: str) -> None:
    with pytest.raises(ValueError, match="http"):
        Url(text).parts()
