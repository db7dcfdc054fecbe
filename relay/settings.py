"""Settings: what a run can be told, how each value is read, and which layer wins.

A layer is a mapping from a setting's field name to the text given for it and where it was
given: the command line (here), the environment (relay.environment), a file (relay.config_file).
Layers are merged by `load`, the first one that names a field winning. Each field carries its
flag, its reader and its description; help, errors and the other layers are made from them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from enum import StrEnum
from ipaddress import ip_address
from typing import Any, NamedTuple, TypeVar, cast

from relay import cgroup
from relay.flags import FlagError, parse_bool, parse_flags
from relay.printable import printable
from relay.selector import parse_namespace, parse_selector

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

DEFAULT_PORT = 32767
DEFAULT_MAX_EVENT_BYTES = 4 * MIB  # gRPC's own default limit on a received message
JOURNAL_BYTES_WITHOUT_LIMIT = 64 * MIB
# Each of the three feeds holds at least two of the largest events, each in a segment of its own.
JOURNAL_FLOOR_EVENTS = 3 * 2
JOURNAL_OVERHEAD = 4 * KIB  # of a segment, well over what the engine needs
DEFAULT_NODE_SELECTOR = "kubearmor-app=kubearmor"
DEFAULT_TLS_CERT_PATH = "/var/lib/kubearmor/tls"
LOG_LEVELS = ("debug", "info", "warn", "error")

_T = TypeVar("_T")
_SIZE = re.compile(r"([0-9]{1,19})(|KiB|MiB|GiB)")
_UNITS = {"": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB}
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
# No name of a host does (RFC 1123, 2.1), so it can only be an address, and 10.0.0.256 is none.
_ENDS_IN_NUMBER = re.compile(r"(^|\.)[0-9]+\.?$")


class SettingsError(ValueError):
    """A setting that cannot be used; the text is one line that says what is accepted."""

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))


class Address(NamedTuple):
    """A host (name, IPv4 or IPv6 address) and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Source(StrEnum):
    """What can give a setting, the stronger first."""

    WORD = "word"
    FLAG = "flag"
    ENVIRONMENT = "environment"
    FILE = "file"
    DEFAULT = "default"


class Given(NamedTuple):
    """The text given for a setting, and where."""

    text: str
    source: Source
    name: str  # of the flag, variable or key; for a word of the command line what it stands for
    file: str = ""

    @property
    def origin(self) -> str:
        """Where it was given: "flag -gRPCPort", "environment RELAY_NODES", "file /etc/relay.toml"."""
        if self.source is Source.FILE:
            return f"file {self.file}"
        return f"{self.source} -{self.name}" if self.source is Source.FLAG else f"{self.source} {self.name}"

    @property
    def place(self) -> str:
        """What an error begins with: "flag -gRPCPort", "RELAY_NODES", "file /etc/relay.toml: nodes"."""
        if self.source is Source.FILE:
            return f"file {self.file}: {self.name}"
        return f"flag -{self.name}" if self.source is Source.FLAG else self.name


Layer = Mapping[str, Given]


# --- readers: text to value; the ValueError's text says what is accepted ------------------


def parse_word(text: str) -> str:
    """Any text."""
    return text


def parse_port(text: str) -> int:
    """A TCP port."""
    if not re.fullmatch("[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise ValueError("a TCP port from 1 to 65535")
    return int(text)


def parse_address(text: str) -> Address:
    """`host:port`, an IPv6 address in brackets."""
    accepted = "host:port, an IPv6 address in brackets ([::1]:32767)"
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(accepted)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host or not is_ip(host):
            raise ValueError(accepted)
    elif not _HOST_NAME.fullmatch(host) or len(host) > 253 or (_ENDS_IN_NUMBER.search(host) and not is_ip(host)):
        raise ValueError(accepted)
    try:
        return Address(host, parse_port(port))
    except ValueError:
        raise ValueError(accepted + " and a port from 1 to 65535") from None


def parse_addresses(text: str) -> tuple[Address, ...]:
    """`host:port[,host:port…]`; an empty text is an empty list."""
    if not text.strip():
        return ()
    addresses = tuple(parse_address(part.strip()) for part in text.split(","))
    for at, address in enumerate(addresses):
        if address in addresses[:at]:
            raise ValueError(f"each node once ({address} is there twice)")
    return addresses


def parse_bind(text: str) -> str:
    """A numeric IPv4 or IPv6 address, brackets allowed; an empty text means all addresses."""
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if host and not is_ip(host):
        raise ValueError("a numeric IPv4 or IPv6 address, or nothing for all addresses")
    return host


def parse_size(text: str) -> int:
    """A number of bytes, with KiB, MiB or GiB behind it if wanted."""
    match = _SIZE.fullmatch(text)
    if match is None or (size := int(match[1]) * _UNITS[match[2]]) >= 2**63:
        raise ValueError("a number of bytes, as in 67108864, 65536KiB, 64MiB or 1GiB")
    return size


def parse_integer(minimum: int, maximum: int) -> Callable[[str], int]:
    """A reader of whole numbers within bounds, both included."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,19}", text) or not minimum <= int(text) <= maximum:
            raise ValueError(f"a whole number from {minimum} to {maximum}")
        return int(text)

    return parse


def parse_number(minimum: float, maximum: float) -> Callable[[str], float]:
    """A reader of decimal numbers within bounds, both included."""

    def parse(text: str) -> float:
        if re.fullmatch(r"[0-9]{1,19}(\.[0-9]{1,9})?", text) and minimum <= float(text) <= maximum:
            return float(text)
        raise ValueError(f"a number from {minimum:.10g} to {maximum:.10g}")

    return parse


def parse_names(text: str) -> tuple[str, ...]:
    """Names that a certificate may carry, with commas between; an empty text is an empty list."""
    if not text.strip():
        return ()
    names = tuple(part.strip() for part in text.split(","))
    for at, name in enumerate(names):
        if not name or not name.isprintable() or name.startswith(".") or "*" in name:
            raise ValueError("a common name or DNS name, or several with commas between, each whole")
        if name in names[:at]:
            raise ValueError(f"each name once ({name} is there twice)")
    return names


def parse_choice(*choices: str) -> Callable[[str], str]:
    """A reader of one of a few words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(", ".join(choices[:-1]) + " or " + choices[-1])
        return text

    return parse


def is_ip(text: str) -> bool:
    """Whether a text is a numeric address, IPv4 or IPv6, without a zone (fe80::1%eth0), which nothing here takes."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text


# --- the settings ---------------------------------------------------------------------


def setting(
    parse: Callable[[str], Any],
    *,
    flag: str,
    doc: str,
    value: str = "",
    environment: str | None = None,
    in_file: tuple[type, ...] | None = None,
    reload: bool = False,
    default: Any = None,
    default_text: str | None = None,
) -> Any:
    """A dataclass field that can be given as text.

    Args:
        parse: reads the text; its ValueError says what is accepted.
        flag: the command line's name for it; empty for a word without a dash.
        doc: one sentence for help and documentation, with the unit.
        value: what stands for the value in help; empty for a boolean flag.
        environment: the environment variable that gives it, if there is one.
        in_file: types that a value may have in a TOML file; by default text, or bool for a boolean.
        reload: whether it can change while the relay serves.
        default: the value when no layer names it.
        default_text: how help names the default; made from `default` when None, "" for none.
    """
    metadata = {
        "parse": parse,
        "flag": flag,
        "doc": doc,
        "value": value,
        "environment": environment,
        "in_file": ((bool,) if parse is parse_bool else (str,)) if in_file is None else in_file,
        "reload": reload,
        "default_text": str(default) if default_text is None else default_text,
    }
    return field(default=default, metadata=metadata)


def file_setting(flag: str, doc: str) -> Any:
    """A dataclass field for the path of a file; empty without one."""
    return setting(parse_word, flag=flag, value="FILE", default="", default_text="", doc=doc)


def default_journal_bytes(max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES) -> int:
    """A quarter of the memory limit, never under the floor that the journal needs to work."""
    return derive_journal_bytes(max_event_bytes)[0]


def derive_journal_bytes(max_event_bytes: int) -> tuple[int, str]:
    """The journals' default size in bytes, and how it came about."""
    limit = cgroup.memory_limit()
    if limit is None:
        share, how = JOURNAL_BYTES_WITHOUT_LIMIT, f"{as_size(JOURNAL_BYTES_WITHOUT_LIMIT)}: there is no memory limit"
    else:
        share, how = limit // 4, f"a quarter of the cgroup's memory limit of {as_size(limit)}"
    floor = journal_floor(max_event_bytes)
    if share < floor:
        return floor, f"the least for {JOURNAL_FLOOR_EVENTS} events of -max-event-bytes; {how} is less"
    return share, how


def journal_floor(max_event_bytes: int) -> int:
    """The least that `journal_bytes` may be, in bytes."""
    return JOURNAL_FLOOR_EVENTS * (max_event_bytes + JOURNAL_OVERHEAD)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a serving relay is told. Sizes are bytes, times seconds unless the name says otherwise."""

    port: int = setting(
        parse_port,
        flag="gRPCPort",
        value="PORT",
        environment="RELAY_GRPC_PORT",
        in_file=(int,),
        default=DEFAULT_PORT,
        doc="TCP port that subscribers connect to.",
    )
    nodes: tuple[Address, ...] = setting(
        parse_addresses,
        flag="nodes",
        value="HOST:PORT[,…]",
        environment="RELAY_NODES",
        in_file=(str, list),
        reload=True,
        default=(),
        default_text="none",
        doc="KubeArmor nodes to read from, beside those found in Kubernetes.",
    )
    kubernetes: str = setting(
        parse_choice("auto", "off"),
        flag="kubernetes",
        value="MODE",
        environment="RELAY_KUBERNETES",
        default="auto",
        doc="auto: find nodes and names in the cluster where a configuration is found; off: -nodes alone.",
    )
    kubeconfig: str = setting(
        parse_word,
        flag="kubeconfig",
        value="PATH[:…]",
        environment="RELAY_KUBECONFIG",
        reload=True,
        default="",
        default_text="KUBECONFIG, the pod's service account, or ~/.kube/config",
        doc="Kubernetes client configuration, one file or several.",
    )
    node_selector: str = setting(
        parse_selector,
        flag="node-selector",
        value="SELECTOR",
        environment="RELAY_NODE_SELECTOR",
        reload=True,
        default=DEFAULT_NODE_SELECTOR,
        doc="Label selector of the pods that are nodes.",
    )
    namespace: str = setting(
        parse_namespace,
        flag="namespace",
        value="NAME",
        environment="RELAY_NAMESPACE",
        reload=True,
        default="",
        default_text="all",
        doc="Namespace in which nodes are looked for.",
    )
    node_port: int | None = setting(
        parse_port,
        flag="node-port",
        value="PORT",
        environment="RELAY_NODE_PORT",
        in_file=(int,),
        reload=True,
        default_text="the value of gRPCPort",
        doc="TCP port at which nodes found in Kubernetes are reached.",
    )
    bind: str = setting(
        parse_bind,
        flag="bind",
        value="ADDRESS",
        environment="RELAY_BIND",
        default="",
        default_text="all addresses, IPv6 and IPv4",
        doc="Address to listen on.",
    )
    journal_bytes: int | None = setting(
        parse_size,
        flag="journal-bytes",
        value="BYTES",
        environment="RELAY_JOURNAL_BYTES",
        in_file=(int, str),
        default_text="a quarter of the cgroup's memory limit, 64MiB without one",
        doc="Memory for events of all feeds together; KiB, MiB and GiB may follow the number.",
    )
    gather_us: int = setting(
        parse_integer(0, 1_000_000),
        flag="gather-us",
        value="MICROSECONDS",
        environment="RELAY_GATHER_US",
        in_file=(int,),
        default=500,
        doc="Longest wait for events of further nodes before a turn; 0 turns gathering off.",
    )
    max_event_bytes: int = setting(
        parse_size,
        flag="max-event-bytes",
        value="BYTES",
        environment="RELAY_MAX_EVENT_BYTES",
        in_file=(int, str),
        default=DEFAULT_MAX_EVENT_BYTES,
        default_text="4MiB",
        doc="Largest event accepted from a node; a larger one is skipped and counted.",
    )
    max_connections: int = setting(
        parse_integer(1, 1_048_576),
        flag="max-connections",
        value="COUNT",
        environment="RELAY_MAX_CONNECTIONS",
        in_file=(int,),
        default=256,
        doc="Most connections of subscribers at a time.",
    )
    max_connections_per_address: int = setting(
        parse_integer(1, 1_048_576),
        flag="max-connections-per-address",
        value="COUNT",
        environment="RELAY_MAX_CONNECTIONS_PER_ADDRESS",
        in_file=(int,),
        default=64,
        doc="Most of them from one IPv4 address or IPv6 /64.",
    )
    max_streams: int = setting(
        parse_integer(1, 1_048_576),
        flag="max-streams",
        value="COUNT",
        environment="RELAY_MAX_STREAMS",
        in_file=(int,),
        default=100,
        doc="Most calls at a time on one connection.",
    )
    max_subscribers: int = setting(
        parse_integer(1, 1_048_576),
        flag="max-subscribers",
        value="COUNT",
        environment="RELAY_MAX_SUBSCRIBERS",
        in_file=(int,),
        default=512,
        doc="Most calls that follow a feed, on all connections together.",
    )
    client_bytes: int = setting(
        parse_size,
        flag="client-bytes",
        value="BYTES",
        environment="RELAY_CLIENT_BYTES",
        in_file=(int, str),
        default=16 * MIB,
        default_text="16MiB",
        doc="Memory for what all subscribers make the relay hold: sessions, calls, requests, answers.",
    )
    max_header_bytes: int = setting(
        parse_size,
        flag="max-header-bytes",
        value="BYTES",
        environment="RELAY_MAX_HEADER_BYTES",
        in_file=(int, str),
        default=16 * KIB,
        default_text="16KiB",
        doc="Largest header block of a request, decoded.",
    )
    max_request_bytes: int = setting(
        parse_size,
        flag="max-request-bytes",
        value="BYTES",
        environment="RELAY_MAX_REQUEST_BYTES",
        in_file=(int, str),
        default=64 * KIB,
        default_text="64KiB",
        doc="Largest message of a request.",
    )
    max_controls: int = setting(
        parse_integer(1, 1_073_741_824),
        flag="max-controls",
        value="COUNT",
        environment="RELAY_MAX_CONTROLS",
        in_file=(int,),
        default=10_000,
        doc="Points a second on one connection: 1 a ping, 5 a call, 10 a reset and whatever else carries nothing.",
    )
    handshake_timeout: float = setting(
        parse_number(0.001, 31_536_000),
        flag="handshake-timeout",
        value="SECONDS",
        environment="RELAY_HANDSHAKE_TIMEOUT",
        in_file=(int, float),
        default=10.0,
        default_text="10",
        doc="Time in which a new connection has to say what it is.",
    )
    idle_timeout: float = setting(
        parse_number(0.001, 31_536_000),
        flag="idle-timeout",
        value="SECONDS",
        environment="RELAY_IDLE_TIMEOUT",
        in_file=(int, float),
        default=300.0,
        default_text="300",
        doc="Time after which a connection without a call is ended.",
    )
    log_level: str = setting(
        parse_choice(*LOG_LEVELS),
        flag="log-level",
        value="LEVEL",
        environment="RELAY_LOG_LEVEL",
        reload=True,
        default="info",
        doc="Least severe line that is logged: debug, info, warn or error.",
    )
    log_format: str = setting(
        parse_choice("auto", "json", "text"),
        flag="log-format",
        value="FORMAT",
        environment="RELAY_LOG_FORMAT",
        reload=True,
        default="auto",
        doc="Form of log lines: json, text, or auto: text on a terminal, else json.",
    )
    tls_enabled: bool = setting(
        parse_bool,
        flag="tlsEnabled",
        environment="RELAY_TLS_ENABLED",
        default=False,
        doc="Mutual TLS to nodes and subscribers.",
    )
    tls_cert_path: str = setting(
        parse_word,
        flag="tlsCertPath",
        value="FOLDER",
        environment="RELAY_TLS_CERT_PATH",
        default=DEFAULT_TLS_CERT_PATH,
        doc="Folder of the certificates and keys.",
    )
    tls_cert_provider: str = setting(
        parse_choice("external", "self"),
        flag="tlsCertProvider",
        value="PROVIDER",
        environment="RELAY_TLS_CERT_PROVIDER",
        default="external",
        doc="external: certificates are files of the folder; self: they are made from its CA.",
    )
    tls_nodes: str = setting(
        parse_choice("auto", "on", "off"),
        flag="tls-nodes",
        value="MODE",
        environment="RELAY_TLS_NODES",
        default="auto",
        doc="TLS to nodes: on, off, or auto: as -tlsEnabled says.",
    )
    tls_subscribers: str = setting(
        parse_choice("auto", "on", "off"),
        flag="tls-subscribers",
        value="MODE",
        environment="RELAY_TLS_SUBSCRIBERS",
        default="auto",
        doc="TLS to subscribers: on, off, or auto: as -tlsEnabled says.",
    )
    tls_client_auth: str = setting(
        parse_choice("none", "request", "require"),
        flag="tls-client-auth",
        value="MODE",
        environment="RELAY_TLS_CLIENT_AUTH",
        default="require",
        doc="Certificates of subscribers: none is asked for, one is verified if given (request), or each needs one.",
    )
    tls_allow: tuple[str, ...] = setting(
        parse_names,
        flag="tls-allow",
        value="NAME[,…]",
        environment="RELAY_TLS_ALLOW",
        in_file=(str, list),
        default=(),
        default_text="any",
        doc="Names of which a subscriber's certificate must carry one, as DNS name or common name.",
    )
    tls_kernel: str = setting(
        parse_choice("auto", "off"),
        flag="tls-kernel",
        value="MODE",
        environment="RELAY_TLS_KERNEL",
        default="auto",
        doc="auto: the kernel encrypts what is sent, where it can; off: it never does.",
    )
    config: str = setting(
        parse_word,
        flag="config",
        value="FILE",
        environment="RELAY_CONFIG",
        in_file=(),
        default="",
        default_text="none",
        doc="TOML file with settings; its keys are the names of the flags.",
    )

    @property
    def discovered_port(self) -> int:
        """The TCP port at which nodes found in Kubernetes are reached."""
        return self.port if self.node_port is None else self.node_port

    @property
    def is_tls_to_nodes(self) -> bool:
        """Whether connections to nodes are TLS."""
        return self.tls_nodes == "on" or (self.tls_nodes == "auto" and self.tls_enabled)

    @property
    def is_tls_to_subscribers(self) -> bool:
        """Whether connections of subscribers are TLS."""
        return self.tls_subscribers == "on" or (self.tls_subscribers == "auto" and self.tls_enabled)

    @property
    def journal_budget(self) -> int:
        """Bytes for the journals: what was asked for, or the default for this machine."""
        if self.journal_bytes is None:
            return default_journal_bytes(self.max_event_bytes)
        return self.journal_bytes

    def check(self, given: Layer | None = None) -> None:
        """Refuse values that are right alone and wrong together.

        Args:
            given: where each value was given, for the text of the error, and to see what contradicts
                though it equals the default.
        Raises:
            SettingsError: says which.
        """
        given = given or {}
        self._check_sizes(given)
        self._check_tls(given)
        if self.kubernetes == "off":
            self._check_without_kubernetes(given)

    def _check_sizes(self, given: Layer) -> None:
        floor = journal_floor(self.max_event_bytes)
        if not KIB <= self.max_event_bytes <= GIB:
            place = _place("max_event_bytes", given)
            raise SettingsError(f"{place} {self.max_event_bytes} is out of range: accepted is 1KiB to 1GiB")
        for name, least, most in (
            ("client_bytes", MIB, 2**46),
            ("max_header_bytes", 512, 64 * KIB),
            ("max_request_bytes", 16, 64 * MIB),
        ):
            size = getattr(self, name)
            if not least <= size <= most:
                raise SettingsError(
                    f"{_place(name, given)} {size} is out of range: accepted is {as_size(least)} to {as_size(most)}"
                )
        if self.journal_bytes is not None and self.journal_bytes < floor:
            raise SettingsError(
                f"{_place('journal_bytes', given)} {self.journal_bytes} is too small: accepted is {floor} or more "
                f"(room for {JOURNAL_FLOOR_EVENTS} events of {_place('max_event_bytes', given)} {self.max_event_bytes})"
            )

    def _check_tls(self, given: Layer) -> None:
        if self.tls_enabled and not self.is_tls_to_nodes and not self.is_tls_to_subscribers:
            raise SettingsError(
                f"{_place('tls_enabled', given)} true contradicts {_place('tls_nodes', given)} off with "
                f"{_place('tls_subscribers', given)} off: accepted is true with one of them, or false"
            )
        if not self.is_tls_to_subscribers:
            # Who says which clients may come must not be left with a port that takes all of them.
            for name, value in (("tls_client_auth", self.tls_client_auth), ("tls_allow", self.tls_allow)):
                if name in given and given[name].text:
                    raise SettingsError(
                        f"{_place(name, given)} {as_text(value)} needs TLS to subscribers: "
                        "accepted with -tlsEnabled or -tls-subscribers on"
                    )
        elif self.tls_allow and self.tls_client_auth != "require":
            raise SettingsError(
                f"{_place('tls_client_auth', given)} {self.tls_client_auth} lets in clients without a certificate, and "
                f"{_place('tls_allow', given)} {as_text(self.tls_allow)} wants names in it: accepted is require, or no "
                "names"
            )

    def _check_without_kubernetes(self, given: Layer) -> None:
        off = f"{_place('kubernetes', given)} off"
        for name in ("kubeconfig", "node_selector", "namespace", "node_port"):
            # An empty text takes back what a weaker source gave.
            if name in given and given[name].text:
                raise SettingsError(
                    f"{off} contradicts {_place(name, given)} {given[name].text}: accepted is one of them"
                )
        if not self.nodes:
            raise SettingsError(f"{off} leaves nothing to read from: give -nodes as well, or leave it out")


def _place(name: str, given: Layer) -> str:
    """How an error names a setting: by where it was given, else by its flag."""
    if name in given and given[name].source is not Source.FLAG:
        return given[name].place
    return f"-{flag_of(Settings, name)}"


def flag_of(kind: type[Any], name: str) -> str:
    """The flag of a settings class's field."""
    return next(str(option.metadata["flag"]) for option in fields(kind) if option.name == name)


# --- layers ---------------------------------------------------------------------------


def flag_layers(words: Sequence[str], *kinds: type[Any]) -> list[Layer]:
    """Read a command line for one or more settings classes that share it.

    A setting whose flag is empty is a word of its own, before, between or behind the flags.

    Returns:
        A layer for each class.
    Raises:
        SettingsError: an unknown or malformed flag, or a word too many.
    """
    options = [(at, option) for at, kind in enumerate(kinds) for option in fields(kind)]
    named = {option.metadata["flag"]: (at, option) for at, option in options if option.metadata["flag"]}
    positions = [(at, option) for at, option in options if not option.metadata["flag"]]
    booleans = {flag: _is_boolean(option) for flag, (_, option) in named.items()}
    layers: list[dict[str, Given]] = [{} for _ in kinds]
    rest = list(words)
    while rest:
        try:
            given, rest = parse_flags(rest, booleans)
        except FlagError as error:
            raise SettingsError(str(error)) from None
        for flag, text in given.items():
            at, option = named[flag]
            layers[at][option.name] = Given(text, Source.FLAG, flag)
        if rest:
            if not positions:
                raise SettingsError(f"unexpected word {rest[0]!r}: accepted are flags, see relay --help")
            at, option = positions.pop(0)
            layers[at][option.name] = Given(rest.pop(0), Source.WORD, option.name)
    return list(layers)


def load(kind: type[_T], layers: Sequence[Layer]) -> _T:
    """Make a settings object: for each field, the first layer that names it wins.

    Args:
        kind: the settings class.
        layers: the stronger first; they may name fields of other classes, too.
    Raises:
        SettingsError: a text that its reader refuses, also in a layer that another one hides.
    """
    options = {option.name: option for option in fields(cast(Any, kind))}
    values: dict[str, Any] = {}
    for layer in reversed(layers):
        for name, given in layer.items():
            if name in options:
                values[name] = _read(options[name], given)
    return kind(**values)


def _read(option: Field[Any], given: Given) -> Any:
    try:
        return option.metadata["parse"](given.text)
    except ValueError as error:
        raise SettingsError(f"{given.place}: {given.text!r} is wrong: accepted is {error}") from None


def winners(layers: Sequence[Layer]) -> dict[str, Given]:
    """What `load` takes for each field that a layer names."""
    return {name: given for layer in reversed(layers) for name, given in layer.items()}


def as_text(value: Any) -> str:
    """A setting's value as it could be given; "default" where only the running process knows it."""
    if value is None:
        return "default"
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, tuple) and not isinstance(value, Address) else str(value)


def as_size(size: int) -> str:
    """A number of bytes with the largest unit that divides it: 64MiB."""
    for unit in ("GiB", "MiB", "KiB"):
        if size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)


def _is_boolean(option: Field[Any]) -> bool:
    return option.metadata["parse"] is parse_bool


def describe(kind: type[Any]) -> str:
    """The flags of a settings class for help, two lines each."""
    lines = []
    for option in fields(kind):
        about = option.metadata
        name = f"-{about['flag']}" if about["flag"] else option.name
        value = f" {about['value']}" if about["value"] else ""
        notes = []
        if not _is_boolean(option) and about["default_text"]:
            notes.append(f"default {about['default_text']}")
        if about["environment"]:
            notes.append(f"also {about['environment']}")
        note = f" ({'; '.join(notes)})" if notes else ""
        lines += [f"  {name}{value}", f"      {about['doc']}{note}"]
    return "\n".join(lines)
