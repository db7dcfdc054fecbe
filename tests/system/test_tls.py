"""The installed command with TLS: what keeps it from starting, which side has it, certificates that change."""

import contextlib
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from peers import client, events
from peers.certificates import (
    DAY,
    HOUR,
    Authority,
    Leaf,
    authority,
    client_only,
    key_as_pem,
    operator_authority,
    rsa_key,
    server_only,
    swap_folder,
    write_folder,
)
from peers.client import Subscriber, channel
from peers.command import HOST, Command, Relay, finished, free_port
from peers.node import Node
from peers.trust import Trust, load

LOGS = events.LOGS
ALERTS = events.ALERTS
TAKEN = "certificates taken over"
REFUSED = "certificates not taken over: the old ones stay"
# The relay with looks so rare that whatever it takes over it was told to look for.
RARELY = (
    sys.executable,
    "-c",
    "import sys, relay.rotation, relay.cli; relay.rotation.LOOK_SECONDS = 3600; sys.exit(relay.cli.main())",
)
KINDS = {"well-formed": authority, "operator": operator_authority}


@pytest.fixture(scope="module")
def ca() -> Authority:
    return authority()


@dataclass
class Certified:
    """A CA, the folder of the relay that trusts it, and what the relay's peers have."""

    ca: Authority
    folder: Path
    leaf: Leaf

    @property
    def flags(self) -> tuple[str, ...]:
        return ("-tlsEnabled=true", f"-tlsCertPath={self.folder}")


def certified(folder: Path, ca: Authority) -> Certified:
    write_folder(folder, ca, ca.issue(HOST, "localhost"), ca.issue())
    return Certified(ca, folder, ca.issue(HOST, "localhost"))


@pytest.fixture
def made(tmp_path: Path, ca: Authority) -> Certified:
    return certified(tmp_path, ca)


def certificate_of(port: int, to: Certified) -> x509.Certificate:
    """What the relay shows to a client that comes now."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    load(context, to.leaf)
    with socket.create_connection((HOST, port)) as plain, context.wrap_socket(plain) as secure:
        der = secure.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der)


def serial(of: Leaf) -> int:
    return x509.load_pem_x509_certificate(of.certificate_pem).serial_number


@contextlib.contextmanager
def subscribed(port: int, to: Certified, leaf: Leaf | None = None) -> Iterator[Subscriber]:
    with channel(port, Trust(to.ca, leaf or to.leaf).channel()) as over, Subscriber(over, LOGS) as subscriber:
        yield subscriber.ready()


# --- what keeps it from starting ----------------------------------------------------------

CRT = "then its intermediates"
KEY = "unencrypted, as PKCS#1, PKCS#8 or SEC1"
ACCEPTED = {
    "ca.crt": "the PEM certificate of a CA",
    "server.crt": f"a PEM certificate for serverAuth, {CRT}",
    "server.key": f"the PEM key of server.crt, {KEY}",
    "client.crt": f"a PEM certificate for clientAuth, {CRT}",
    "client.key": f"the PEM key of client.crt, {KEY}",
}
Break = Callable[[Certified, Path], object]
NO_CERTIFICATE = "no certificate in PEM that can be read"
NO_KEY = "no private key in PEM without a password that can be read"


def issued(**changes: Any) -> Break:
    """Another certificate with its key in the place of the two."""

    def put(made: Certified, file: Path) -> None:
        leaf = made.ca.issue(HOST, **changes)
        file.with_suffix(".crt").write_bytes(leaf.certificate_pem)
        file.with_suffix(".key").write_bytes(leaf.key_pem)

    return put


def written(content: Callable[[Certified], bytes]) -> Break:
    return lambda made, file: file.write_bytes(content(made))


BROKEN: list[tuple[str, Break, str]] = [
    *((name, lambda _, file: file.unlink(), "cannot be read (No such file or directory)") for name in ACCEPTED),
    *((name, lambda _, file: os.truncate(file, 100), NO_CERTIFICATE) for name in ACCEPTED if name.endswith(".crt")),
    *((name, lambda _, file: os.truncate(file, 100), NO_KEY) for name in ACCEPTED if name.endswith(".key")),
    ("server.key", written(lambda _: key_as_pem(rsa_key(), password=b"secret")), NO_KEY),
    ("server.key", written(lambda made: made.leaf.key_pem), "not that of the certificate"),
    ("client.key", written(lambda made: made.leaf.key_pem), "not that of the certificate"),
    ("server.crt", issued(ends=-HOUR), "expired"),
    ("client.crt", issued(ends=-HOUR), "expired"),
    ("server.crt", issued(begins=HOUR), "not valid yet"),
    ("ca.crt", written(lambda _: authority(ends=-HOUR).pem), "expired"),
    ("ca.crt", written(lambda _: authority(begins=HOUR).pem), "not valid yet"),
    (
        "ca.crt",
        written(lambda made: made.leaf.certificate_pem),
        "not a certificate authority (basic constraints, key usage)",
    ),
]


@pytest.mark.parametrize(
    ("name", "break_", "reason"), [pytest.param(*each, id=f"{each[0]} {each[2]}") for each in BROKEN]
)
def test_a_file_of_no_use_is_said_in_one_line_with_exit_code_2(
    made: Certified, name: str, break_: Break, reason: str
) -> None:
    break_(made, made.folder / name)
    run = finished("-nodes=127.0.0.1:1", "-kubernetes=off", f"-gRPCPort={free_port()}", *made.flags)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == f"relay: {made.folder / name}: {reason}: accepted is {ACCEPTED[name]}\n"


def test_a_ca_without_its_key_is_said_in_one_line_with_exit_code_2(made: Certified) -> None:
    run = finished("-nodes=127.0.0.1:1", "-kubernetes=off", *made.flags, "-tlsCertProvider=self")
    assert (run.returncode, run.stdout) == (2, "")
    file = made.folder / "ca.key"
    assert run.stderr == (
        f"relay: certificates cannot be made: {file}: cannot be read (No such file or directory): accepted is the PEM "
        "key of ca.crt, RSA (2048 bits or more) or EC, unencrypted, as PKCS#1, PKCS#8 or SEC1\n"
    )


# --- both sides ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_events_pass_from_nodes_to_subscribers_with_mutual_tls(tmp_path: Path, kind: str) -> None:
    made = certified(tmp_path, KINDS[kind]())
    sent = events.events(LOGS, 3)
    node = Trust(made.ca, made.ca.issue(HOST)).node()
    with Node(credentials=node) as peer, Relay(*made.flags, nodes=(peer.port,)) as relay:
        assert relay.logged("serving")[0]["tls"] == "subscribers,nodes"
        relay.line("node connected")
        with subscribed(relay.port, made) as subscriber:
            peer.send(LOGS, *sent)
            assert subscriber.take(3) == sent
        counters = relay.counters()
        assert set(counters["tls"]["days"]) == {"ca", "server", "client"}
        assert counters["tls"]["taken"] == 1
        assert counters["process"]["tls"]["handshakes"] == 2
        assert relay.end() == 0


@pytest.mark.parametrize(
    ("rules", "who", "welcome"),
    [
        (["-tls-client-auth=none"], "nobody", True),
        (["-tls-client-auth=request"], "nobody", True),
        (["-tls-client-auth=request"], "client", True),
        (["-tls-client-auth=request"], "stranger", False),
        ([], "nobody", False),
        ([], "stranger", False),
        ([], "server", False),
        (["-tls-allow=otel,siem.example"], "client", False),
        (["-tls-allow=otel,siem.example"], "siem.example", True),
        (["-tls-allow=otel,siem.example"], "otel", True),
    ],
)
def test_who_may_subscribe_is_a_setting(made: Certified, rules: list[str], who: str, welcome: bool) -> None:
    leafs = {
        "nobody": lambda: None,
        "client": lambda: client_only(made.ca, ()),
        "server": lambda: server_only(made.ca, ()),
        "stranger": lambda: authority().issue(),
        "siem.example": lambda: made.ca.issue("siem.example"),
        "otel": lambda: made.ca.issue(common_name="otel"),
    }
    shown = leafs[who]()
    tls = Trust(made.ca, shown).channel() if shown else grpc.ssl_channel_credentials(made.ca.pem)
    with Relay(*made.flags, "-tls-nodes=off", *rules) as relay, channel(relay.port, tls) as over:
        if welcome:
            assert client.check(over, 5) == 5
        else:
            with pytest.raises(grpc.RpcError) as refused:
                client.check(over, 5)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            assert relay.line("TLS handshake failed")["error"]


@pytest.mark.parametrize(
    ("name", "host", "refused"),
    [
        (HOST, HOST, ""),
        ("localhost", "localhost", ""),
        ("localhost", HOST, "IP address mismatch"),
        (HOST, "localhost", "hostname mismatch"),
    ],
)
def test_a_nodes_certificate_is_checked_for_what_it_was_reached_by(
    made: Certified, name: str, host: str, refused: str
) -> None:
    with Node(credentials=Trust(made.ca, made.ca.issue(name)).node()) as peer:
        arguments = ("-kubernetes=off", f"-nodes={host}:{peer.port}", f"-gRPCPort={free_port()}", "-tls-nodes=on")
        with Command(*arguments, f"-tlsCertPath={made.folder}") as relay:
            if refused:
                assert refused in relay.line("node cannot be reached")["error"]
            else:
                relay.line("node connected")


# --- one side, and the other commands -----------------------------------------------------


def simulate(port: int, *flags: str) -> Command:
    simulated = Command("simulate", f"-port={port}", "-rate=1000", *flags)
    simulated.printed()
    return simulated


@pytest.mark.parametrize(
    ("flags", "to_nodes", "to_subscribers"),
    [
        (["-tlsEnabled"], True, True),
        (["-tlsEnabled", "-tls-subscribers=off"], True, False),
        (["-tls-nodes=on"], True, False),
        (["-tls-subscribers=on", "-tls-client-auth=none"], False, True),
        ([], False, False),
    ],
)
def test_each_side_has_tls_or_not(made: Certified, flags: list[str], to_nodes: bool, to_subscribers: bool) -> None:
    """With the commands' own TLS at the other ends."""
    folder, port = made.folder, free_port()
    ca = f"-tls-ca={folder / 'ca.crt'}"
    server = [f"-tls-cert={folder / 'server.crt'}", f"-tls-key={folder / 'server.key'}", ca]
    own = [f"-tls-cert={folder / 'client.crt'}", f"-tls-key={folder / 'client.key'}", ca]
    unneeded = {"client": not to_nodes, "server": not to_subscribers}
    with simulate(port, *(server if to_nodes else [])), contextlib.ExitStack() as kept:
        for side, missing in unneeded.items():
            for kind in ("crt", "key") if missing else ():
                file = folder / f"{side}.{kind}"
                file.rename(folder / f"unused.{side}.{kind}")
                kept.callback((folder / f"unused.{side}.{kind}").rename, file)
        with Relay(*flags, f"-tlsCertPath={folder}", nodes=(port,)) as relay:
            kept.close()
            relay.line("node connected")
            where = f"localhost:{relay.port}"
            with Command("observe", "-server", where, "-limit=2", *(own if to_subscribers else [])) as observer:
                assert observer.printed()
                assert observer.printed()
                assert observer.wait() == 0


def test_observe_tells_that_it_is_refused_and_tries_again(made: Certified) -> None:
    with Relay(*made.flags) as relay:
        flags = (f"-tls-ca={made.folder / 'ca.crt'}",)
        with Command("observe", "-server", f"localhost:{relay.port}", *flags) as observer:
            line = observer.line(lambda line: "trying again" in line.get("text", ""))
            assert "UNAVAILABLE" in line["text"]
            assert observer.end(signal.SIGINT) == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["observe", "-tls-cert=x", "-tls-key=y"], "flag -tls-ca is missing: "),
        (["observe", "-tls-ca=/nowhere"], "flag -tls-ca: cannot read /nowhere: No such file or directory"),
        (["simulate", "-tls-ca=x"], "flag -tls-cert is missing: "),
        (["simulate", "-tls-cert=/nowhere", "-tls-key=x"], "flag -tls-cert: cannot read /nowhere: No such"),
    ],
)
def test_the_other_commands_say_what_is_wrong_in_one_line(arguments: list[str], text: str) -> None:
    run = finished(*arguments)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith(f"relay: {text}")
    assert run.stderr.count("\n") == 1


# --- rotation -----------------------------------------------------------------------------


def replace_files(folder: Path, ca: Authority, server: Leaf, own: Leaf) -> None:
    """Each file is moved into its place."""
    write_folder(folder / "new", ca, server, own)
    for file in (folder / "new").iterdir():
        file.replace(folder / file.name)


@pytest.mark.parametrize("change", [replace_files, swap_folder])
def test_changed_certificates_serve_new_connections_and_open_ones_go_on(
    tmp_path: Path, ca: Authority, change: Callable[..., None]
) -> None:
    made = Certified(ca, tmp_path / "tls", ca.issue(HOST))
    change(made.folder, ca, ca.issue(HOST), ca.issue())
    new = Certified(authority("new CA"), made.folder, ca.issue(HOST))
    new.leaf = new.ca.issue(HOST)
    server, sent = new.ca.issue(HOST), events.events(LOGS, 2)
    with Node(credentials=Trust(ca, ca.issue(HOST)).node()) as peer, Relay(*made.flags, nodes=(peer.port,)) as relay:
        relay.line("node connected")
        with subscribed(relay.port, made) as old:
            change(made.folder, new.ca, server, new.ca.issue())
            assert relay.line(TAKEN)["days"]["server"] == 30.0
            assert certificate_of(relay.port, new).serial_number == serial(server)
            with subscribed(relay.port, new) as young:
                peer.send(LOGS, *sent)
                assert old.take(2) == young.take(2) == sent
            with channel(relay.port, Trust(ca, made.leaf).channel()) as over, pytest.raises(grpc.RpcError):
                client.check(over, 1)
        assert relay.counters()["tls"]["taken"] == 2
        # Both sides: a node that comes back is met with the new certificate and the new root.
        peer.stop()
        relay.line("node disconnected")
        with Node(port=peer.port, credentials=Trust(new.ca, new.ca.issue(HOST)).node()):
            relay.line("node connected")
            assert relay.end() == 0


def test_a_broken_set_is_refused_and_the_old_one_kept_until_it_is_whole(made: Certified) -> None:
    before, new = serial(Leaf((made.folder / "server.crt").read_bytes(), b"")), made.ca.issue(HOST)
    with Relay(*made.flags) as relay:
        (made.folder / "server.crt").write_bytes(new.certificate_pem)
        line = relay.line(REFUSED)
        reason = f"{made.folder / 'server.key'}: not that of the certificate: accepted is {ACCEPTED['server.key']}"
        assert (line["level"], line["error"]) == ("warn", reason)
        assert certificate_of(relay.port, made).serial_number == before
        counters = relay.counters()["tls"]
        assert (counters["taken"], counters["last_error"]) == (1, reason)
        (made.folder / "server.key").write_bytes(new.key_pem)
        relay.line(TAKEN)
        assert certificate_of(relay.port, made).serial_number == serial(new)
        assert relay.counters()["tls"]["last_error"] == ""
        assert relay.end() == 0
        assert len(relay.logged(REFUSED)) == 1


def test_sighup_looks_for_certificates_too(made: Certified) -> None:
    with Relay(*made.flags, program=RARELY) as relay:
        server = made.ca.issue(HOST)
        write_folder(made.folder, made.ca, server)
        relay.send(signal.SIGHUP)
        relay.line(TAKEN)
        assert certificate_of(relay.port, made).serial_number == serial(server)


def test_what_ends_soon_is_told(tmp_path: Path) -> None:
    ca = authority(ends=5 * DAY)
    made = certified(tmp_path, replace(ca, pem=ca.pem + authority("another").pem))
    with Relay(*made.flags) as relay:
        told = relay.line("certificate expires soon")
        assert (told["level"], told["certificate"], told["days"]) == ("warn", "ca", 5.0)
        assert relay.counters()["tls"]["days"]["ca"] == 5.0
        roots = "ca.crt holds several certificates: the first is the root, the others are ignored"
        assert [line["certificates"] for line in relay.logged(roots)] == [2]


# --- certificates of its own making -------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_certificates_that_the_relay_makes_are_good_for_a_stock_client_and_a_node(tmp_path: Path, kind: str) -> None:
    made = Certified(KINDS[kind](), tmp_path, Leaf(b"", b""))
    made.leaf = made.ca.issue(HOST)
    write_folder(tmp_path, made.ca)
    (tmp_path / "ca.key").write_bytes(made.ca.key_pem)
    sent = events.events(ALERTS, 3)
    tls = Trust(made.ca, made.leaf).channel()
    flags = (*made.flags, "-tlsCertProvider=self")
    with (
        Node(credentials=Trust(made.ca, made.leaf).node()) as peer,
        Relay(*flags, nodes=(peer.port,), POD_NAMESPACE="security") as relay,
        channel(relay.port, tls) as over,
    ):
        relay.line("node connected")
        got = Subscriber(over, ALERTS).ready()
        peer.send(ALERTS, *sent)
        assert got.take(3) == sent
        for name in ("localhost", "kubearmor", "kubearmor.security.svc", "::1", socket.gethostname()):
            with channel(relay.port, tls, ssl_target_name_override=name) as another:
                assert client.check(another, 7) == 7
        maps = Path(f"/proc/{relay.pid}/maps").read_text()
        assert "_fastpath" in maps
        assert "cryptography" not in maps  # in the process that has ended
        assert sorted(file.name for file in tmp_path.iterdir()) == ["ca.crt", "ca.key"]


def test_another_ca_makes_other_certificates_while_the_relay_serves(tmp_path: Path, ca: Authority) -> None:
    made = Certified(ca, tmp_path / "tls", ca.issue())
    write_folder(made.folder, ca)
    (made.folder / "ca.key").write_bytes(ca.key_pem)
    new = authority("new CA")
    with Relay(*made.flags, "-tlsCertProvider=self", "-tls-nodes=off") as relay:
        certificate_of(relay.port, made).verify_directly_issued_by(ca.certificate)
        (made.folder / "ca.key").write_bytes(new.key_pem)
        assert relay.line(REFUSED)["error"].startswith(f"certificates cannot be made: {made.folder / 'ca.key'}: not th")
        (made.folder / "ca.crt").write_bytes(new.pem)
        relay.line(TAKEN)
        made.leaf = new.issue()
        certificate_of(relay.port, made).verify_directly_issued_by(new.certificate)
