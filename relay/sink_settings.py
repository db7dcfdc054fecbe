"""What an operator can tell the sinks: flags, RELAY_* variables, a file, and the Go relay's own variables.

User names and passwords come from the environment alone (`Secrets`): a command line and a file are read by too many.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from relay import feeds
from relay.flags import parse_bool
from relay.settings import (
    KIB,
    MIB,
    Layer,
    SettingsError,
    flag_of,
    parse_integer,
    parse_number,
    parse_size,
    parse_word,
    setting,
)

STDOUT = "stdout"
ELASTICSEARCH = "elasticsearch"
OPENSEARCH = "opensearch"
FILE = "file:"
DEFAULT_ALERTS_INDEX = "kubearmor-alerts"
DEFAULT_OPENSEARCH_URL = "http://localhost:9200"
BATCH_BYTES = 1_000_000  # of the Go relay, for Elasticsearch
BATCH_EVENTS = 500
MANY_EVENTS = 1_000_000  # where bytes alone are the limit

_NOT_IN_AN_INDEX = set('\\/*?"<>| ,#:')
_DATES = set("YmdHjGVuy%")  # of strftime: those that give digits and nothing else, and the per cent sign
_INDEX_BYTES = 255


class Secrets(NamedTuple):
    """A user name and a password; never printed."""

    username: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return "Secrets(…)" if self.username else "Secrets()"


# --- readers --------------------------------------------------------------------------


def parse_sinks(text: str) -> tuple[str, ...]:
    """`elasticsearch`, `opensearch` and `file:PATH`, with commas between."""
    sinks = tuple(part.strip() for part in text.split(",") if part.strip())
    for at, sink in enumerate(sinks):
        if sink not in (ELASTICSEARCH, OPENSEARCH) and not (sink.startswith(FILE) and sink != FILE):
            raise ValueError("elasticsearch, opensearch or file:PATH, or several with commas between")
        if sink in sinks[:at]:
            raise ValueError(f"each sink once ({sink} is there twice)")
    return sinks


def parse_feeds(text: str) -> tuple[str, ...]:
    """Names of feeds, with commas between; none in an empty text."""
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if not set(names) <= set(feeds.NAMES) or len(set(names)) < len(names):
        raise ValueError("logs, alerts or messages, or several with commas between, each once")
    return names


def parse_some_feeds(text: str) -> tuple[str, ...]:
    """Names of feeds, one at least."""
    names = parse_feeds(text)
    if not names:
        raise ValueError("logs, alerts or messages, or several with commas between, each once")
    return names


class Url:
    """A URL as it was given; it may hold a user name and a password, which are never shown.

    Any text makes one: what it must be is checked when its sink is on.
    """

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Url) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __str__(self) -> str:
        before, at, behind = self.text.rpartition("@")
        scheme, colon, _ = before.rpartition("://")
        return f"{scheme}{colon}…@{behind}" if at else self.text

    __repr__ = __str__

    def parts(self) -> tuple[str, Secrets]:
        """The URL without credentials and without a slash at its end, and its credentials.

        Raises:
            ValueError: it is not such a URL; the text says what is accepted.
        """
        accepted = "a URL as http://host:9200 or https://host:9200/path"
        try:
            parts = urlsplit(self.text)
            port_is_good = parts.port is None or parts.port > 0
        except ValueError:
            raise ValueError(accepted) from None
        if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_good:
            raise ValueError(accepted)
        if parts.query or parts.fragment or not self.text.isprintable() or " " in self.text:
            raise ValueError(accepted)
        secrets = Secrets(unquote(parts.username or ""), unquote(parts.password or ""))
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", "")), secrets


def parse_index(text: str) -> str:
    """The name of an index, which may hold dates as strftime writes them."""
    accepted = (
        'an index name in lower case, without spaces and any of \\/*?"<>|,#: and not beginning with - _ or +; '
        "dates in it as in alerts-%Y.%m.%d"
    )
    plain = re.sub("%.", lambda match: "0" if match[0][1] in _DATES - {"%"} else "\0", text)
    if not plain or "\0" in plain or "%" in plain or plain != plain.lower() or plain in (".", ".."):
        raise ValueError(accepted)
    if set(plain) & _NOT_IN_AN_INDEX or plain[0] in "-_+" or not plain.isprintable():
        raise ValueError(accepted)
    if len(text.encode()) > _INDEX_BYTES:
        raise ValueError(accepted + f", of at most {_INDEX_BYTES} bytes")
    return text


def parse_only_true(text: str) -> bool:
    """true in lower case; every other text is false, as the Go relay reads it."""
    return text == "true"


def parse_any_text(text: str) -> bool:
    """Any text is true, "false" as well: as the Go relay reads ES_ALLOW_INSECURE_TLS."""
    return bool(text)


_BATCH_BYTES = parse_size
_BATCH_EVENTS = parse_integer(1, MANY_EVENTS)
_BATCH_SECONDS = parse_number(0.1, 3600)
_IN_FLIGHT = parse_integer(1, 16)
_TIMEOUT = parse_number(1, 3600)


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """What sinks a serving relay has. Sizes are bytes, times seconds."""

    stdout: tuple[str, ...] = setting(
        parse_feeds,
        flag="stdout",
        value="FEED[,…]",
        environment="RELAY_STDOUT",
        in_file=(str, list),
        default=(),
        default_text="none",
        doc="Feeds that are printed on standard output as JSON: logs, alerts, messages.",
    )
    sink: tuple[str, ...] = setting(
        parse_sinks,
        flag="sink",
        value="SINK[,…]",
        environment="RELAY_SINK",
        in_file=(str, list),
        default=(),
        default_text="none",
        doc="Where events go beside subscribers: elasticsearch, opensearch, file:PATH.",
    )
    file_feeds: tuple[str, ...] = setting(
        parse_some_feeds,
        flag="file-feeds",
        value="FEED[,…]",
        environment="RELAY_FILE_FEEDS",
        in_file=(str, list),
        default=("logs", "alerts", "messages"),
        default_text="logs,alerts,messages",
        doc="Feeds that go to the files of -sink.",
    )
    file_rotate_bytes: int = setting(
        parse_size,
        flag="file-rotate-bytes",
        value="BYTES",
        environment="RELAY_FILE_ROTATE_BYTES",
        in_file=(int, str),
        default=100 * MIB,
        default_text="100MiB",
        doc="Size at which a file is set aside; 0 never.",
    )
    file_keep: int = setting(
        parse_integer(0, 1000),
        flag="file-keep",
        value="FILES",
        environment="RELAY_FILE_KEEP",
        in_file=(int,),
        default=4,
        doc="Files set aside that are kept, as PATH.1 (the youngest), PATH.2 and so on.",
    )
    file_fsync: bool = setting(
        parse_bool,
        flag="file-fsync",
        environment="RELAY_FILE_FSYNC",
        default=False,
        doc="Sync a file after each batch.",
    )
    file_batch_seconds: float = setting(
        _BATCH_SECONDS,
        flag="file-batch-seconds",
        value="SECONDS",
        environment="RELAY_FILE_BATCH_SECONDS",
        in_file=(int, float),
        default=1.0,
        default_text="1",
        doc="Longest time between an event and its line in the file.",
    )
    es_url: Url = setting(
        Url,
        flag="es-url",
        value="URL",
        environment="ES_URL",
        default=Url(""),
        default_text="none",
        doc="Elasticsearch; required for that sink.",
    )
    es_alerts_index: str = setting(
        parse_word,
        flag="es-alerts-index",
        value="INDEX",
        environment="ES_ALERTS_INDEX",
        default=DEFAULT_ALERTS_INDEX,
        doc="Index for alerts in Elasticsearch; dates as in alerts-%Y.%m.%d, in UTC.",
    )
    es_ca_cert_path: str = setting(
        parse_word,
        flag="es-ca-cert-path",
        value="PATH",
        environment="ES_CA_CERT_PATH",
        default="",
        default_text="the system's CAs",
        doc="CA certificates (PEM) that Elasticsearch's certificate is checked against.",
    )
    es_allow_insecure_tls: bool = setting(
        parse_any_text,
        flag="es-allow-insecure-tls",
        value="TEXT",
        environment="ES_ALLOW_INSECURE_TLS",
        in_file=(bool, str),
        default=False,
        default_text="false",
        doc="Any text: Elasticsearch's certificate is not checked.",
    )
    es_gzip: bool = setting(
        parse_bool,
        flag="es-gzip",
        environment="RELAY_ES_GZIP",
        default=True,
        doc="Send compressed requests to Elasticsearch.",
    )
    es_template: bool = setting(
        parse_bool,
        flag="es-template",
        environment="RELAY_ES_TEMPLATE",
        default=False,
        doc="Put an index template into Elasticsearch before the first document.",
    )
    es_batch_bytes: int = setting(
        _BATCH_BYTES,
        flag="es-batch-bytes",
        value="BYTES",
        environment="RELAY_ES_BATCH_BYTES",
        in_file=(int, str),
        default=BATCH_BYTES,
        doc="Size of a request to Elasticsearch, before compression.",
    )
    es_batch_events: int = setting(
        _BATCH_EVENTS,
        flag="es-batch-events",
        value="EVENTS",
        environment="RELAY_ES_BATCH_EVENTS",
        in_file=(int,),
        default=MANY_EVENTS,
        doc="Most documents in a request to Elasticsearch.",
    )
    es_batch_seconds: float = setting(
        _BATCH_SECONDS,
        flag="es-batch-seconds",
        value="SECONDS",
        environment="RELAY_ES_BATCH_SECONDS",
        in_file=(int, float),
        default=10.0,
        default_text="10",
        doc="Longest wait for a request to Elasticsearch to fill.",
    )
    es_in_flight: int = setting(
        _IN_FLIGHT,
        flag="es-in-flight",
        value="REQUESTS",
        environment="RELAY_ES_IN_FLIGHT",
        in_file=(int,),
        default=2,
        doc="Most requests to Elasticsearch at a time.",
    )
    es_timeout: float = setting(
        _TIMEOUT,
        flag="es-timeout",
        value="SECONDS",
        environment="RELAY_ES_TIMEOUT",
        in_file=(int, float),
        default=60.0,
        default_text="60",
        doc="Longest wait for Elasticsearch's answer.",
    )
    os_url: Url = setting(
        Url,
        flag="os-url",
        value="URL",
        environment="OS_URL",
        default=Url(DEFAULT_OPENSEARCH_URL),
        doc="OpenSearch.",
    )
    os_alerts_index: str = setting(
        parse_word,
        flag="os-alerts-index",
        value="INDEX",
        environment="OS_ALERTS_INDEX",
        default="",
        default_text="none",
        doc="Index for alerts and logs in OpenSearch; required for that sink.",
    )
    os_ca_cert_path: str = setting(
        parse_word,
        flag="os-ca-cert-path",
        value="PATH",
        environment="OS_CA_CERT_PATH",
        default="",
        default_text="the system's CAs",
        doc="CA certificates (PEM) that OpenSearch's certificate is checked against.",
    )
    os_allow_insecure_tls: bool = setting(
        parse_only_true,
        flag="os-allow-insecure-tls",
        value="TEXT",
        environment="OS_ALLOW_INSECURE_TLS",
        in_file=(bool, str),
        default=False,
        default_text="false",
        doc="true: OpenSearch's certificate is not checked.",
    )
    os_gzip: bool = setting(
        parse_bool,
        flag="os-gzip",
        environment="RELAY_OS_GZIP",
        default=True,
        doc="Send compressed requests to OpenSearch.",
    )
    os_template: bool = setting(
        parse_bool,
        flag="os-template",
        environment="RELAY_OS_TEMPLATE",
        default=False,
        doc="Put an index template into OpenSearch before the first document.",
    )
    os_batch_bytes: int = setting(
        _BATCH_BYTES,
        flag="os-batch-bytes",
        value="BYTES",
        environment="RELAY_OS_BATCH_BYTES",
        in_file=(int, str),
        default=BATCH_BYTES,
        doc="Size of a request to OpenSearch, before compression.",
    )
    os_batch_events: int = setting(
        _BATCH_EVENTS,
        flag="os-batch-events",
        value="EVENTS",
        environment="RELAY_OS_BATCH_EVENTS",
        in_file=(int,),
        default=BATCH_EVENTS,
        doc="Most documents in a request to OpenSearch.",
    )
    os_batch_seconds: float = setting(
        _BATCH_SECONDS,
        flag="os-batch-seconds",
        value="SECONDS",
        environment="RELAY_OS_BATCH_SECONDS",
        in_file=(int, float),
        default=10.0,
        default_text="10",
        doc="Longest wait for a request to OpenSearch to fill.",
    )
    os_in_flight: int = setting(
        _IN_FLIGHT,
        flag="os-in-flight",
        value="REQUESTS",
        environment="RELAY_OS_IN_FLIGHT",
        in_file=(int,),
        default=2,
        doc="Most requests to OpenSearch at a time.",
    )
    os_timeout: float = setting(
        _TIMEOUT,
        flag="os-timeout",
        value="SECONDS",
        environment="RELAY_OS_TIMEOUT",
        in_file=(int, float),
        default=60.0,
        default_text="60",
        doc="Longest wait for OpenSearch's answer.",
    )

    def check(self, given: Layer | None = None) -> None:
        """Refuse what a sink that is on cannot work with. What is told to one that is off is not looked at.

        Args:
            given: where each value was given, for the text of the error.
        Raises:
            SettingsError: one line that says what is accepted.
        """
        given = given or {}
        if ELASTICSEARCH in self.sink:
            self._check_search("es", "Elasticsearch", given, insecure=self.es_allow_insecure_tls)
        if OPENSEARCH in self.sink:
            self._check_search("os", "OpenSearch", given, insecure=self.os_allow_insecure_tls)
        for sink in self.sink:
            if sink.startswith(FILE) and not _can_be_file(Path(sink.removeprefix(FILE))):
                raise SettingsError(
                    f"{_place('sink', given)}: {sink!r} is wrong: accepted is a file in a folder that exists"
                )

    def _check_search(self, prefix: str, engine: str, given: Layer, *, insecure: bool) -> None:
        url: Url = getattr(self, f"{prefix}_url")
        index: str = getattr(self, f"{prefix}_alerts_index")
        ca_cert_path: str = getattr(self, f"{prefix}_ca_cert_path")
        size: int = getattr(self, f"{prefix}_batch_bytes")
        for name, value in (("url", url.text), ("alerts_index", index)):
            if not value:
                variable, flag = f"{prefix}_{name}".upper(), flag_of(SinkSettings, f"{prefix}_{name}")
                raise SettingsError(f"{engine} is switched on, and {variable} is not set, nor is -{flag}")
        for name, shown, check in (("url", str(url), url.parts), ("alerts_index", index, lambda: parse_index(index))):
            try:
                check()
            except ValueError as error:
                place = _place(f"{prefix}_{name}", given)
                raise SettingsError(f"{place}: {shown!r} is wrong: accepted is {error}") from None
        if ca_cert_path and not insecure:
            try:
                ssl.create_default_context(cafile=ca_cert_path)
            except OSError as error:
                place, why = _place(f"{prefix}_ca_cert_path", given), error.strerror or "no certificate in it"
                raise SettingsError(
                    f"{place}: {ca_cert_path!r} is wrong ({why}): accepted is a file of PEM certificates"
                ) from None
        if not KIB <= size <= 64 * MIB:
            place = _place(f"{prefix}_batch_bytes", given)
            raise SettingsError(f"{place} {size} is out of range: accepted is 1KiB to 64MiB")

    def warnings(self) -> list[str]:
        """What an operator may not have meant."""
        told = []
        if ELASTICSEARCH in self.sink and self.es_allow_insecure_tls:
            told.append("ES_ALLOW_INSECURE_TLS is set: Elasticsearch's certificate is not checked")
        if OPENSEARCH in self.sink and self.os_allow_insecure_tls:
            told.append("OS_ALLOW_INSECURE_TLS=true: OpenSearch's certificate is not checked")
        return told


def _can_be_file(path: Path) -> bool:
    """Whether there is a regular file, or nothing yet in a folder that is there."""
    return path.is_file() or (path.absolute().parent.is_dir() and not path.exists())


def _place(name: str, given: Layer) -> str:
    """How an error names a setting: by where it was given, else by its flag."""
    return given[name].place if name in given else f"-{flag_of(SinkSettings, name)}"


# --- the Go relay's switches ----------------------------------------------------------


class Switch(NamedTuple):
    """A variable of the Go relay that turns a sink on."""

    name: str
    # What it adds, and to which setting.
    setting: str
    adds: str
    destination: str  # for people
    any_case: bool  # else "true" counts in lower case only

    def is_on(self, environment: Mapping[str, str]) -> bool:
        """Whether the Go relay would take it as on: it knows the word true and no other."""
        value = environment.get(self.name, "")
        return (value.lower() if self.any_case else value) == "true"

    def seems_on(self, environment: Mapping[str, str]) -> bool:
        """Whether it is not on, and most likely was meant to be."""
        return environment.get(self.name, "").strip().lower() in MEANT_AS_TRUE and not self.is_on(environment)


# They stand in the environment alone, and their values are never shown.
SECRETS = ("ES_USERNAME", "ES_PASSWORD", "OS_USERNAME", "OS_PASSWORD")

MEANT_AS_TRUE = ("true", "1", "t", "yes", "y", "on")

SWITCHES = (
    Switch("ENABLE_STDOUT_LOGS", STDOUT, "logs", "standard output", any_case=True),
    Switch("ENABLE_STDOUT_ALERTS", STDOUT, "alerts", "standard output", any_case=True),
    Switch("ENABLE_STDOUT_MSGS", STDOUT, "messages", "standard output", any_case=True),
    Switch("ENABLE_DASHBOARDS", "sink", ELASTICSEARCH, "Elasticsearch", any_case=False),
    Switch("ENABLE_OPENSEARCH_DASHBOARD", "sink", OPENSEARCH, "OpenSearch", any_case=False),
)


def with_switches(settings: SinkSettings, on: Collection[Switch]) -> SinkSettings:
    """The settings with what switches that are on add to them."""
    for switch in on:
        told: tuple[str, ...] = getattr(settings, switch.setting)
        if switch.adds not in told:
            added: dict[str, Any] = {switch.setting: (*told, switch.adds)}
            settings = replace(settings, **added)
    return settings


def environment_warnings(environment: Mapping[str, str]) -> list[str]:
    """What the Go relay's variables say that is passed over, and may not be meant so; without secrets."""
    told = [
        f"{switch.name}={environment[switch.name]} does not switch {switch.destination} on: accepted is true"
        + ("" if switch.any_case else ", in lower case")
        for switch in SWITCHES
        if switch.seems_on(environment)
    ]
    for both in (SECRETS[:2], SECRETS[2:]):
        if len(one := [name for name in both if environment.get(name)]) == 1:
            told.append(f"{one[0]} is not used: accepted are {' and '.join(both)}, both or none")
    return told


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who the relay is to the search engines."""

    elasticsearch: Secrets = field(default_factory=Secrets)
    opensearch: Secrets = field(default_factory=Secrets)


def credentials(environment: Mapping[str, str]) -> Credentials:
    """User names and passwords, where both are set; one alone is not used, as in the Go relay."""

    def read(prefix: str) -> Secrets:
        both = Secrets(environment.get(f"{prefix}_USERNAME", ""), environment.get(f"{prefix}_PASSWORD", ""))
        return both if all(both) else Secrets()

    return Credentials(read("ES"), read("OS"))
