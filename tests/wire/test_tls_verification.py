"""Whose certificates are taken, on either side: as Go takes them, with the reason where they are not.

The matrix: every certificate of peers/certificates.py, by CAs of both kinds, before the relay and before Go's TLS.
"""

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from peers import binaries, client, events, h2_node, node
from peers.certificates import (
    CLIENT,
    NEAR_MISSES,
    SERVER,
    Authority,
    Leaf,
    authority,
    client_only,
    ec_key,
    operator_authority,
    rsa_key,
    server_only,
)
from peers.engine import At, Engine
from peers.events import LOGS
from peers.go_judge import Judge
from peers.go_peers import GoClient, GoNode, tls_flags
from peers.tls_door import Door
from peers.trust import NAME, Trust, knock, load, trust

from relay import _fastpath

Start = Callable[..., Engine]
HOST = "127.0.0.1"
LEAFS: dict[str, Callable[[Authority], Leaf]] = {
    "good": lambda ca: ca.issue(HOST),
    "of a curve": lambda ca: ca.issue(HOST, key=ec_key()),
    "of any use": lambda ca: ca.issue(HOST, usages=None),
    "of an intermediate": lambda ca: ca.intermediate().issue(HOST),
    "of a CA": lambda ca: ca.issue(HOST, ca=True),
    "with more names": lambda ca: ca.issue("10.0.0.1", "example.org", HOST, "::1"),
    "server only": lambda ca: server_only(ca, (HOST,)),
    "client only": lambda ca: client_only(ca, (HOST,)),
    "another address": lambda ca: ca.issue("127.0.0.2"),
    "no address": lambda ca: ca.issue(),
    "the address as a name": lambda ca: ca.issue("localhost", common_name=HOST),
    **{name: lambda ca, make=make: make(ca, (HOST,)) for name, make in NEAR_MISSES.items()},
}
# Here the relay is stricter than Go: OpenSSL's security level 2 wants RSA keys of 2,048 bits, Go from 1,024 on.
STRICTER = {"a short key": lambda ca: ca.issue(HOST, key=rsa_key(1024))}


@pytest.fixture(scope="module", params=[False, True], ids=["well-formed", "operator"])
def whom(request: pytest.FixtureRequest) -> Trust:
    return trust(operator=request.param)


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    if binaries.missing():
        pytest.skip(binaries.missing())
    with Judge() as asked:
        yield asked


def showing(leaf: Leaf) -> ssl.SSLContext:
    """A client that shows this, and takes whatever the relay shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    load(context, leaf)
    return context


def node_showing(leaf: Leaf) -> ssl.SSLContext:
    """A node that shows this, and takes any client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2"])
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    load(context, leaf)
    return context


def reached(relay: Engine, leaf: Leaf, name: str = "") -> str:
    """What becomes of a node with that certificate: "" when it is spoken with, else what its report says."""
    with h2_node.Node() as peer, Door(peer.port, node_showing(leaf), secure_outside=True) as door:
        number = relay.next_node()
        relay.native.add_node(number)
        relay.native.connect_node(number, HOST, door.port, name)
        report = relay.wait(
            lambda engine: next(
                (
                    each
                    for each in engine.history
                    if each.kind == _fastpath.REPORT_NODE
                    and each.node == number
                    and each.state in (_fastpath.NODE_IDLE, _fastpath.NODE_CHECKING, _fastpath.NODE_STREAMING)
                ),
                None,
            ),
            "the end of the handshake",
        )
        return "" if report.state != _fastpath.NODE_IDLE else str(report.text)


# The matrix ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LEAFS)
def test_the_relay_takes_what_go_takes(engine: Start, judge: Judge, whom: Trust, kind: str) -> None:
    if whom.ca.odd and kind == "of an intermediate":
        pytest.skip("KubeArmor's operator makes none; the relay takes its leafs as the root's own alone")
    leaf = LEAFS[kind](whom.ca)
    relay = engine(tls=whom)
    asked = {"root": whom.ca.pem, "certificate": leaf.certificate_pem, "key": leaf.key_pem}
    said = {purpose: judge.ask(**asked, purpose=purpose, name=HOST) for purpose in ("client", "server")}
    ours = {"client": knock(relay.port, showing(leaf)), "server": reached(relay, leaf)}
    verdicts = {purpose: (not ours[purpose], said[purpose].accepted) for purpose in ours}
    assert all(mine == theirs for mine, theirs in verdicts.values()), (ours, said)


@pytest.mark.parametrize("kind", STRICTER)
def test_the_relay_is_stricter_with_weak_keys(engine: Start, judge: Judge, whom: Trust, kind: str) -> None:
    leaf = STRICTER[kind](whom.ca)
    relay = engine(tls=whom)
    asked = {"root": whom.ca.pem, "certificate": leaf.certificate_pem, "key": leaf.key_pem}
    assert judge.ask(**asked, purpose="client").accepted
    assert knock(relay.port, showing(leaf))
    assert "key too small" in reached(relay, leaf) or "weak" in reached(relay, leaf)


# Reasons ------------------------------------------------------------------------------------------------

# By what is wrong with it: the alert that a client gets (RFC 8446, 6.2), and what a node's report says.
REASONS = {
    "signed by another key": ("ALERT_DECRYPT_ERROR", "certificate signature failure"),
    "another CA": ("ALERT_UNKNOWN_CA", "unable to get local issuer certificate"),
    "expired": ("ALERT_CERTIFICATE_EXPIRED", "certificate has expired"),
    "not yet valid": ("ALERT_BAD_CERTIFICATE", "certificate is not yet valid"),
    "wrong use": ("ALERT_UNSUPPORTED_CERTIFICATE", "unsuitable certificate purpose"),
}


@pytest.mark.parametrize("kind", REASONS)
def test_a_certificate_is_refused_with_the_reason(engine: Start, whom: Trust, kind: str) -> None:
    relay = engine(tls=whom)
    leaf = LEAFS[kind](whom.ca)
    alert, text = REASONS[kind]
    assert alert in knock(relay.port, showing(leaf))
    assert relay.wait_report(_fastpath.REPORT_TLS).text == f"TLS: the peer's certificate: {text}"
    assert reached(relay, leaf) == f"TLS: the peer's certificate: {text}"
    now = relay.wait_counters(lambda now: now["process"]["tls"]["failed"] == 2)
    assert (now["process"]["limits"]["tls"], now["process"]["tls"]["waiting"]) == (1, 0)


def test_a_node_with_another_address_is_refused(engine: Start, whom: Trust) -> None:
    relay = engine(tls=whom)
    assert "IP address mismatch" in reached(relay, whom.ca.issue("127.0.0.2"))
    assert "IP address mismatch" in reached(relay, whom.ca.issue("localhost"))


def test_a_node_that_was_reached_by_a_name_must_have_that(engine: Start, whom: Trust) -> None:
    relay = engine(tls=whom)
    assert reached(relay, whom.leaf, NAME) == ""
    assert "hostname mismatch" in reached(relay, whom.leaf, "other.test").lower()
    assert "hostname mismatch" in reached(relay, whom.ca.issue(HOST), NAME).lower()


# Clients without --------------------------------------------------------------------------------------------


def without_certificate() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


@pytest.mark.parametrize(
    ("rule", "none", "wrong"),
    [
        ("require", "ALERT_CERTIFICATE_REQUIRED", "ALERT_CERTIFICATE_EXPIRED"),
        ("request", "", "ALERT_CERTIFICATE_EXPIRED"),
        ("none", "", ""),
    ],
)
def test_what_is_wanted_of_clients(engine: Start, whom: Trust, rule: str, none: str, wrong: str) -> None:
    """A certificate that is asked for, and given, is verified."""
    relay = engine()
    relay.set_tls(server=whom.server(client_auth=rule), client=None)
    expired = LEAFS["expired"](whom.ca)
    for context, refused in ((showing(whom.leaf), ""), (without_certificate(), none), (showing(expired), wrong)):
        said = knock(relay.port, context)
        assert refused in said
        assert bool(refused) == bool(said)


def test_a_server_without_a_root_asks_for_nothing(engine: Start, whom: Trust) -> None:
    relay = engine()
    own = whom.leaf
    side = _fastpath.Tls(server=True, certificate=own.certificate_pem, key=own.key_pem, client_auth="none")
    relay.set_tls(server=side, client=None)
    assert knock(relay.port, without_certificate()) == ""


# Names that clients must carry --------------------------------------------------------------------------

WANTED = ("reader.example", "collector")


@pytest.mark.parametrize(
    ("names", "common_name", "taken"),
    [
        (("reader.example",), "x", True),
        (("other.example", "READER.example"), "x", True),
        ((), "collector", True),
        (("other.example",), "collector", True),
        ((HOST,), "reader.example", True),
        ((HOST,), "x", False),
        (("reader.example.org",), "reader", False),
        (("a.reader.example",), "xcollector", False),
        (("*.example",), "x", False),
        ((HOST,), "collector\\0", False),
    ],
)
def test_names_that_clients_must_carry(engine: Start, names: tuple[str, ...], common_name: str, taken: bool) -> None:
    """As a DNS name or as the common name, whole."""
    whom = trust()
    relay = engine()
    relay.set_tls(server=whom.server(allow=WANTED), client=None)
    said = knock(relay.port, showing(whom.ca.issue(*names, common_name=common_name)))
    assert (said == "") == taken
    if not taken:
        assert "ALERT_HANDSHAKE_FAILURE" in said


# Real peers -----------------------------------------------------------------------------------------------


def test_grpcio_on_both_sides(engine: Start, whom: Trust) -> None:
    relay = engine(tls=whom)
    with node.Node(credentials=whom.node()) as peer, client.channel(relay.port, whom.channel()) as channel:
        relay.connect(peer)
        assert client.check(channel, 7) == 7
        subscriber = client.Subscriber(channel, LOGS).ready()
        sent = events.events(LOGS, 500, 700)
        peer.send(LOGS, *sent)
        assert subscriber.take(500) == sent


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_grpc_go_on_both_sides(
    engine: Start, go_node: GoNode, go_client: GoClient, tmp_path: Path, whom: Trust, version: str
) -> None:
    folder = whom.write(tmp_path)
    spoken = ("-tls-version", version)
    relay = engine(tls=whom)
    peer = go_node("-gate", "-count", "2000", *spoken, *tls_flags(folder, "server"))
    relay.connect(At(peer.ports[0]))
    server = ("-server", f"{HOST}:{relay.port}", "-count", "2000")
    reader = go_client(*server, *spoken, *tls_flags(folder, "client"))
    reader.wait_subscribed()
    peer.tell()
    said = reader.result()
    assert (said["events"], said["missing"], said["disordered"], said["code"]) == (2000, 0, 0, "OK")
    now = relay.counters()["process"]["tls"]
    assert (now["handshakes"], now["failed"], now["waiting"]) == (2, 0, 0)


def test_a_node_that_does_not_take_our_certificate_says_why(engine: Start, go_node: GoNode, tmp_path: Path) -> None:
    """KubeArmor's node verifies us."""
    whom = trust()
    folder = whom.write(tmp_path)
    peer = At(go_node(*tls_flags(folder, "server")).ports[0])
    relay = engine()

    def refused() -> str:
        text: str = relay.wait_failure(relay.add(peer)).text
        # It closes with our request unread, so its alert may be lost to a reset on the way.
        return "" if text == "reset by the peer" else text.removeprefix("TLS: the peer refuses: ")

    for leaf, alert in ((authority().issue(HOST), "unknown ca"), (server_only(whom.ca, (HOST,)), "bad certificate")):
        ours = _fastpath.Tls(server=False, certificate=leaf.certificate_pem, key=leaf.key_pem, root=whom.ca.pem)
        relay.set_tls(server=None, client=ours)
        assert refused() in ("", f"tlsv1 alert {alert}", f"sslv3 alert {alert}")
    relay.set_tls(server=None, client=_fastpath.Tls(server=False, root=whom.ca.pem))
    assert refused() in ("", "tlsv13 alert certificate required")


def test_the_operators_certificates_as_it_gives_them_out(
    engine: Start, go_node: GoNode, go_client: GoClient, tmp_path: Path
) -> None:
    """One for each purpose and with the names of the field; a second relay with another operator's is a stranger."""
    ca = operator_authority()
    served = ca.issue(
        "kubearmor.kubearmor", "kubearmor.kubearmor.svc.cluster.local", "localhost", HOST, usages=(SERVER,)
    )
    shown = ca.issue(usages=(CLIENT,))
    for side, leaf in (("server", served), ("client", shown)):
        Trust(ca, leaf).write(tmp_path / side)
    relay = engine()
    relay.set_tls(server=Trust(ca, served).server(), client=Trust(ca, shown).client())
    peer = go_node("-count", "1", *tls_flags(tmp_path / "server", "server"))
    relay.connect(At(peer.ports[0]))
    relay.wait_received(LOGS, 1)
    flags = ("-server", f"{HOST}:{relay.port}", "-tls-name", "kubearmor.kubearmor")
    reader = go_client(*flags, "-count", "1", *tls_flags(tmp_path / "client", "client"))
    reader.wait_subscribed()
    relay.publish(LOGS, events.event(LOGS))
    assert reader.result()["code"] == "OK"
    stranger = Trust(operator_authority(), shown).write(tmp_path / "other")
    assert "certificate signed by unknown authority" in go_client(*flags, *tls_flags(stranger, "client")).failure()
