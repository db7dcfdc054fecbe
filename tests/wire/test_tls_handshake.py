"""Handshakes that come to nothing, or to a session of before; and ports that speak what the peer does not."""

import contextlib
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from peers import client, events, h2_client, h2_node, node
from peers.engine import At, Engine
from peers.events import LOGS
from peers.go_peers import GoClient, GoNode, tls_flags
from peers.openssl_client import OpensslClient
from peers.trust import knock, trust

from relay import _fastpath

Start = Callable[..., Engine]
HANDSHAKE = 0x16
WORDS = "this port speaks TLS\n"
NO_HTTP2 = "TLS: no HTTP/2 (the peer does not offer the protocol h2 by ALPN)"


def hello() -> bytes:
    """The first flight of a client."""
    heard, said = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = trust().context(server=False).wrap_bio(heard, said, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return said.read()


def rest(sock: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    sock.settimeout(20)
    said = b""
    while data := sock.recv(4096):
        said += data
    return said


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    """Flags of `openssl s_client`: all that the relay wants of a client."""
    trust().write(tmp_path)
    names = ("-CAfile", "ca.crt"), ("-cert", "client.crt"), ("-key", "client.key")
    return (*(word for flag, name in names for word in (flag, str(tmp_path / name))), "-alpn", "h2")


# What openssl's client sees ---------------------------------------------------------------------------


@pytest.mark.parametrize(("flag", "version"), [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")])
def test_what_is_agreed_on(engine: Start, files: tuple[str, ...], flag: str, version: str) -> None:
    relay = engine(tls=trust())
    with OpensslClient(relay.port, *files, flag, "-verify_return_error") as peer:
        peer.wait("Verify return code")
        assert f"New, {version}, Cipher is" in peer.output or f"Protocol  : {version}" in peer.output
        assert "ALPN protocol: h2" in peer.output
        assert "Compression: NONE" in peer.output
        assert "Verify return code: 0 (ok)" in peer.output
    relay.wait_counters(lambda now: now["process"]["tls"]["handshakes"] == 1, "the handshake")


@pytest.mark.parametrize("flag", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("offer", [(), ("-alpn", "http/1.1")])
def test_a_client_that_does_not_offer_http2_is_refused(
    engine: Start, files: tuple[str, ...], flag: str, offer: tuple[str, ...]
) -> None:
    relay = engine(tls=trust())
    with OpensslClient(relay.port, *files[:-2], *offer, flag) as peer:
        assert "no application protocol" in peer.end()
    assert relay.wait_counters(lambda now: now["process"]["limits"]["tls"] == 1)["process"]["tls"]["handshakes"] == 0


@pytest.mark.parametrize("flag", ["-tls1", "-tls1_1"])
def test_old_versions_are_refused(engine: Start, files: tuple[str, ...], flag: str) -> None:
    relay = engine(tls=trust())
    with OpensslClient(relay.port, *files, flag, "-cipher", "ALL:@SECLEVEL=0") as peer:
        assert "alert protocol version" in peer.end()
    assert "unsupported protocol" in relay.wait_report(_fastpath.REPORT_TLS).text


def test_renegotiation_is_refused(engine: Start, files: tuple[str, ...]) -> None:
    relay = engine(tls=trust())
    with OpensslClient(relay.port, *files, "-tls1_2") as peer:
        peer.wait("Verify return code")
        peer.say("R")
        assert "no renegotiation" in peer.end()


@pytest.mark.parametrize(("flag", "arrived"), [("-tls1_2", "Session-ID: "), ("-tls1_3", "New Session Ticket arrived")])
def test_a_session_is_resumed(engine: Start, files: tuple[str, ...], tmp_path: Path, flag: str, arrived: str) -> None:
    relay = engine(tls=trust())
    kept = str(tmp_path / "session")
    with OpensslClient(relay.port, *files, flag, "-sess_out", kept) as peer:
        peer.wait(arrived)
        assert "New, TLSv1." in peer.output
        peer.end()
    with OpensslClient(relay.port, *files, flag, "-sess_in", kept) as peer:
        peer.wait("Verify return code")
        assert "Reused, TLSv1." in peer.output
    now = relay.wait_counters(lambda now: now["process"]["tls"]["handshakes"] == 2, "the second handshake")
    assert now["process"]["tls"]["resumed"] == 1


def test_a_session_of_other_certificates_is_not_resumed(engine: Start, files: tuple[str, ...], tmp_path: Path) -> None:
    """What was verified by former rules is verified anew."""
    relay = engine(tls=trust())
    kept = str(tmp_path / "session")
    with OpensslClient(relay.port, *files, "-sess_out", kept) as peer:
        peer.wait("New Session Ticket arrived")
        peer.end()
    relay.set_tls(server=trust().server(), client=None)
    with OpensslClient(relay.port, *files, "-sess_in", kept) as peer:
        peer.wait("Verify return code")
        assert "New, TLSv1." in peer.output
    assert relay.counters()["process"]["tls"]["resumed"] == 0


def test_a_node_is_met_again_with_the_session_of_before(engine: Start) -> None:
    """grpcio's server, which gives tickets."""
    relay = engine(tls=trust())
    with node.Node(credentials=trust().node()) as peer:
        number = relay.connect(peer)
        port = peer.port
    relay.wait_failure(number)
    with node.Node(port=port, credentials=trust().node()):
        relay.reach(number, port)
        relay.wait_state(number, _fastpath.NODE_STREAMING)
    assert relay.counters()["process"]["tls"]["handshakes"] == 2


# Time ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [0, 1, 100])
def test_a_client_that_falls_silent_is_let_go(engine: Start, said: int) -> None:
    relay = engine(tls=trust(), handshake_timeout=0.3)
    with h2_client.connect(relay.port) as sock:
        sock.sendall(hello()[:said])
        assert rest(sock) == b""
    now = relay.wait_counters(lambda now: now["process"]["clients"] == 0, "the end of the connection")
    assert now["process"]["limits"]["handshake"] == 1
    assert now["process"]["tls"]["waiting"] == 0


def test_a_client_that_says_hello_and_no_more_is_let_go(engine: Start) -> None:
    relay = engine(tls=trust(), handshake_timeout=0.3)
    with h2_client.connect(relay.port) as sock:
        sock.sendall(hello())
        answer = rest(sock)
        assert answer[0] == HANDSHAKE
    assert relay.counters()["process"]["limits"]["handshake"] == 1


def test_a_slow_handshake_has_no_more_time_than_others(engine: Start) -> None:
    """Each byte is a sign of life, and none of them buys time."""
    relay = engine(tls=trust(), handshake_timeout=0.5)
    with h2_client.connect(relay.port) as sock:
        sock.settimeout(0.02)
        said, over = iter(hello()), False
        while not over:
            sock.sendall(bytes([next(said)]))
            with contextlib.suppress(TimeoutError):
                over = not sock.recv(1)
    assert relay.wait_counters(lambda now: now["process"]["limits"]["handshake"] == 1)


def test_a_node_that_is_silent_in_the_handshake_fails(engine: Start) -> None:
    relay = engine(tls=trust(), connect_timeout=0.3)
    with h2_node.Node() as peer:
        number = relay.add(peer)
        with peer.accept_socket():
            said = relay.wait_failure(number)
    assert "handshake" in said.text


# Ports that speak something else ---------------------------------------------------------------------


def test_a_plaintext_grpcio_client_is_told_at_once(engine: Start) -> None:
    relay = engine(tls=trust())
    with client.channel(relay.port) as channel, pytest.raises(grpc.RpcError) as refused:
        client.check(channel, 1)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "Trying to connect an http1.x server (HTTP status 400)" in refused.value.details()
    assert relay.counters()["process"]["limits"]["tls"] == 1


def test_a_plaintext_grpc_go_client_is_told_at_once(engine: Start, go_client: GoClient) -> None:
    """In words that karmor does not take for a server that is not there."""
    relay = engine(tls=trust())
    said = go_client("-server", f"127.0.0.1:{relay.port}").failure()
    assert "error reading server preface" in said
    assert "the frame header looked like an HTTP/1.1 header" in said
    assert "Error while dialing" not in said
    # It did not try again and again meanwhile.
    assert relay.counters()["process"]["limits"]["tls"] == 1


def test_karmor_finds_its_way(engine: Start, go_client: GoClient, tmp_path: Path) -> None:
    """Plaintext first, and TLS when that is refused: to either port, and to none that nobody listens on."""
    folder = trust().write(tmp_path)
    flags = ("-fallback", "-count", "1", *tls_flags(folder, "client"))
    for tls, refusals in ((trust(), 1), (None, 0)):
        relay = engine(tls=tls)
        reader = go_client("-server", f"127.0.0.1:{relay.port}", *flags)
        reader.wait_subscribed()
        relay.publish(LOGS, events.event(LOGS))
        said = reader.result()
        assert (said["events"], said["code"], len(said["refusals"])) == (1, "OK", refusals)
    assert "Error while dialing" in go_client("-server", "127.0.0.1:1", *flags).failure()


@pytest.mark.parametrize("flag", ["--http1.1", "--http2-prior-knowledge"])
def test_a_plaintext_curl_is_told_at_once(engine: Start, flag: str) -> None:
    relay = engine(tls=trust())
    command = ["curl", "-sS", "--noproxy", "*", "--max-time", "20", flag, f"http://127.0.0.1:{relay.port}/"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if flag == "--http1.1":
        assert (done.returncode, done.stdout) == (0, WORDS)
    else:
        assert done.returncode not in (0, 28)  # 28: it had to wait


@pytest.mark.parametrize("said", [b"\0" * 24, b"\x16", b"PRI", b"GET", b"\x15\x03\x01\0\2\2\x28"])
def test_any_other_beginning_is_refused(engine: Start, said: bytes) -> None:
    """Or waited for, where it may still become something."""
    relay = engine(tls=trust(), handshake_timeout=0.5)
    with h2_client.connect(relay.port) as sock:
        sock.sendall(said)
        rest(sock)
    relay.wait_counters(lambda now: now["process"]["clients"] == 0, "the end of the connection")


def test_a_grpcio_client_with_tls_is_refused_at_a_plaintext_port(engine: Start) -> None:
    relay = engine()
    with client.channel(relay.port, trust().channel()) as channel, pytest.raises(grpc.RpcError) as refused:
        client.check(channel, 1)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "WRONG_VERSION_NUMBER" in refused.value.details()


def test_other_clients_with_tls_are_refused_at_a_plaintext_port(
    engine: Start, go_client: GoClient, files: tuple[str, ...], tmp_path: Path
) -> None:
    relay = engine()
    with OpensslClient(relay.port, *files) as peer:
        assert "wrong version number" in peer.end()
    said = go_client("-server", f"127.0.0.1:{relay.port}", *tls_flags(tmp_path, "client")).failure()
    assert "first record does not look like a TLS handshake" in said
    command = ["curl", "-sS", "--noproxy", "*", "--max-time", "20", f"https://127.0.0.1:{relay.port}/"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "wrong version number" in done.stderr
    assert relay.counters()["process"]["limits"]["protocol"] == 3


def test_a_node_that_speaks_no_tls(engine: Start) -> None:
    relay = engine(tls=trust())
    with h2_node.Node() as peer:
        number = relay.add(peer)
        with peer.accept_socket() as sock:
            # As nginx answers what it does not understand.
            assert sock.recv(1)[0] == HANDSHAKE
            sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            assert relay.wait_failure(number).text == "TLS: wrong version number"


@pytest.mark.parametrize("go", [False, True])
def test_a_real_node_that_speaks_no_tls(engine: Start, go_node: GoNode, go: bool) -> None:
    relay = engine(tls=trust())
    with node.Node() as peer:
        number = relay.add(At(go_node().ports[0]) if go else peer)
        assert relay.wait_failure(number).text.startswith("TLS: ")


def test_a_node_that_wants_tls_of_a_relay_without(engine: Start, go_node: GoNode, tmp_path: Path) -> None:
    relay = engine()
    folder = trust().write(tmp_path)
    with node.Node(credentials=trust().node()) as peer:
        for each in (peer, At(go_node(*tls_flags(folder, "server")).ports[0])):
            assert relay.wait_failure(relay.add(each)).text


@pytest.mark.parametrize("protocols", [[], ["http/1.1"]])
def test_a_node_without_http2_is_refused(engine: Start, protocols: list[str]) -> None:
    relay = engine(tls=trust())
    context = trust().context(server=True)
    context.set_alpn_protocols(protocols or ["nothing"])
    with h2_node.Node() as peer:
        number = relay.add(peer)
        with contextlib.suppress(OSError), context.wrap_socket(peer.accept_socket(), server_side=True) as secure:
            while secure.recv(100):
                pass
        assert relay.wait_failure(number).text == NO_HTTP2


# The end ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["silent", "hello", "node silent", "node hello"])
def test_close_in_the_middle_of_a_handshake(engine: Start, state: str) -> None:
    """What is left behind, `close` raises for."""
    relay = engine(tls=trust())
    with h2_client.connect(relay.port) as sock, h2_node.Node() as peer:
        if state == "hello":
            sock.sendall(hello())
            assert sock.recv(1)[0] == HANDSHAKE
        if state.startswith("node"):
            relay.add(peer)
            theirs = peer.accept_socket()
            assert theirs.recv(1)[0] == HANDSHAKE
            if state == "node hello":
                theirs.sendall(b"\x16\x03\x03\x01\x00")
        relay.close()
        if state.startswith("node"):
            theirs.close()


def test_what_is_set_holds_for_new_connections_alone(engine: Start) -> None:
    relay = engine()
    with client.channel(relay.port) as plain, client.channel(relay.port, trust().channel()) as secure:
        before = client.Subscriber(plain, LOGS).ready()
        relay.set_tls(server=trust().server(), client=None)
        after = client.Subscriber(secure, LOGS).ready()
        relay.set_tls(server=None, client=None)
        assert knock(relay.port, trust().context(server=False)) == "WRONG_VERSION_NUMBER"
        sent = events.events(LOGS, 3)
        relay.publish(LOGS, *sent)
        assert before.take(3) == after.take(3) == sent
