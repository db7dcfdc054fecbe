"""TLS where the kernel encrypts what is sent (kTLS). `make kernel-tls` has a kernel that does, wherever it runs."""

import contextlib
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import pytest
from peers import client, events, h2_client, h2_wire
from peers.engine import Engine, Sink
from peers.events import LOGS
from peers.openssl_client import OpensslClient, OpensslServer
from peers.tls_door import Door
from peers.trust import trust

from relay import _fastpath, feeds

Start = Callable[..., Engine]
SUBSCRIBER, ENDED = _fastpath.REPORT_SUBSCRIBER, _fastpath.SUBSCRIBER_ENDED
UNAVAILABLE = 14
LONG = 3600.0
SIZES = (80, 780, 16_370, 16_384, 100_000, 3_000_000)
SETTINGS_FRAME = bytes([0, 0, 0, h2_wire.SETTINGS, 0, 0, 0, 0, 0])


@pytest.fixture(scope="module", autouse=True)
def kernel() -> None:
    if not trust().server().kernel:
        pytest.skip("this kernel does not encrypt (Linux with CONFIG_TLS: modprobe tls)")


def count(relay: Engine) -> int:
    """Connections of which the kernel encrypts what is sent."""
    number: int = relay.counters()["process"]["tls"]["kernel"]
    return number


def context(version: str = "", cipher: str = "") -> ssl.SSLContext:
    """A subscriber's side, of TLS 1.3 or of another version, with OpenSSL's ciphers or with one alone."""
    made = trust().context(server=False)
    if version == "1.2":
        made.maximum_version = ssl.TLSVersion.TLSv1_2
        made.set_ciphers(cipher)
    return made


# Ciphers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "cipher", "encrypts"),
    [
        ("1.3", "", 1),
        ("1.2", "ECDHE-RSA-AES128-GCM-SHA256", 1),
        ("1.2", "ECDHE-RSA-AES256-GCM-SHA384", 1),
        ("1.2", "ECDHE-RSA-CHACHA20-POLY1305", 1),
        ("1.2", "ECDHE-RSA-AES128-SHA256", 0),
    ],
)
def test_events_arrive_unchanged(engine: Start, version: str, cipher: str, encrypts: int) -> None:
    """With a cipher, too, that the kernel does not know: then it is done here."""
    relay = engine(tls=trust())
    with Door(relay.port, context(version, cipher)) as door, client.channel(door.port) as channel:
        subscriber = client.Subscriber(channel, LOGS).ready()
        assert count(relay) == encrypts
        for size in SIZES:
            sent = events.events(LOGS, max(3, 200_000 // size), size)
            relay.publish(LOGS, *sent)
            assert subscriber.take(len(sent)) == sent
    relay.wait_counters(lambda now: now["process"]["clients"] == 0, "the end of the connection")
    assert count(relay) == 0


@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"])
def test_suites_of_tls_1_3(engine: Start, watch: Callable[..., "Watching"], suite: str) -> None:
    relay = engine(tls=trust())
    peer = watch(relay, "-tls1_3", "-ciphersuites", suite)
    assert count(relay) == 1
    relay.publish(LOGS, *events.events(LOGS, 100, 5000))
    peer.wait_event(99)


def test_both_sides_of_a_relay(engine: Start) -> None:
    node, relay, reader = (engine(tls=trust(), event_per_frame=number == 0) for number in range(3))
    relay.connect(node)
    reader.connect(relay)
    relay.wait_subscribers(3)
    assert [count(each) for each in (node, relay, reader)] == [1, 2, 1]
    with Sink(reader, LOGS) as sink:
        for size in SIZES:
            sent = events.events(LOGS, max(3, 1_000_000 // size), size)
            node.publish(LOGS, *sent)
            assert sink.take(len(sent)) == sent


def test_the_kernel_can_be_kept_out(engine: Start) -> None:
    relay = engine(tls=trust(kernel=False))
    with Door(relay.port, context()) as door, client.channel(door.port) as channel:
        client.check(channel, 1)
        assert count(relay) == 0


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_session_is_resumed(engine: Start, version: str) -> None:
    relay = engine(tls=trust())
    peer = context(version, "ECDHE-RSA-AES128-GCM-SHA256")
    session = None
    for resumed in (False, True):
        with (
            h2_client.connect(relay.port) as sock,
            peer.wrap_socket(sock, server_hostname="127.0.0.1", session=session) as secure,
        ):
            secure.sendall(h2_wire.PREFACE + SETTINGS_FRAME)
            assert secure.recv(h2_wire.HEADER)  # with TLS 1.3 the ticket has come before it
            session = secure.session
            assert secure.session_reused == resumed
            assert count(relay) == 1
        relay.wait_counters(lambda now: now["process"]["clients"] == 0, "the end of the connection")
    assert relay.counters()["process"]["tls"]["resumed"] == 1


# The end ----------------------------------------------------------------------------------------------


class Telling:
    """A socket of TLS that tells whether its end was announced (close_notify)."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock
        self.cut = ""

    def recv(self, size: int) -> bytes:
        try:
            return self._sock.recv(size)
        except OSError as error:
            self.cut = str(error)
            return b""

    def __getattr__(self, name: str) -> object:
        return getattr(self._sock, name)


@pytest.mark.parametrize("kilobytes", range(100, 300, 4))
def test_what_the_kernel_has_accepted_arrives_before_the_end(engine: Start, kilobytes: int) -> None:
    """Of what a subscriber does not read yet, TCP may have the last record in part. That depends on the size."""
    relay = engine(tls=trust(), unsent_bytes=1 << 16)
    sock = h2_client.connect(relay.port, receive_buffer=4096)
    secure = Telling(
        context().wrap_socket(sock, server_hostname="127.0.0.1", suppress_ragged_eofs=False),
    )
    with h2_client.Client(0, sock=secure, read=False, settings={"initial_window_size": 1 << 30}) as wire:
        wire.window(1 << 30)
        stream = wire.call(feeds.METHODS[LOGS], events.request())
        relay.wait_subscribers(1)
        sent = events.events(LOGS, kilobytes, 1000)
        relay.publish(LOGS, *sent)
        relay.native.shutdown(LONG)
        wrote = -1

        def settled(now: dict[str, Any]) -> bool:
            nonlocal wrote
            before, wrote = wrote, now["process"]["writes"]
            return not now["subscribers"] or wrote == before

        relay.wait_counters(settled, "the kernel to have all, or as much as it takes")
        wire.resume()
        wire.wait_closed()
        assert (wire.streams[stream].messages, wire.streams[stream].status[0]) == (sent, UNAVAILABLE)
        assert secure.cut == ""


def test_a_reader_that_resets_the_connection(engine: Start) -> None:
    relay = engine(tls=trust())
    with Door(relay.port, context()) as door, client.channel(door.port) as channel:
        other = client.Subscriber(channel, LOGS).ready()
        sock = context().wrap_socket(h2_client.connect(relay.port, 4096), server_hostname="127.0.0.1")
        wire = h2_client.Client(0, sock=sock, read=False, settings={"initial_window_size": 1 << 30})
        wire.call(feeds.METHODS[LOGS], events.request())
        relay.wait_subscribers(2)
        sent = events.events(LOGS, 100, 50_000)
        relay.publish(LOGS, *sent)
        wire.vanish()
        relay.wait_subscribers(1)
        assert other.take(100) == sent
        assert count(relay) == 1


# New keys ---------------------------------------------------------------------------------------------


class Watching(OpensslClient):
    """A subscriber by `openssl s_client`, which prints events as they come: their numbers are in its output."""

    def watch(self) -> None:
        """Subscribe."""
        said = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        said.initiate_connection()
        said.increment_flow_control_window(1 << 24)
        headers = {":method": "POST", ":scheme": "https", ":path": feeds.METHODS[LOGS], ":authority": "relay"}
        said.send_headers(1, [*headers.items(), *h2_client.GRPC_HEADERS])
        said.increment_flow_control_window(1 << 24, 1)
        said.send_data(1, events.frame(events.request()), end_stream=True)
        assert self._process.stdin is not None
        self._process.stdin.write(said.data_to_send())
        self._process.stdin.flush()

    def wait_event(self, number: int) -> None:
        """Wait for an event by its number."""
        self.wait(f"{number:020d}")


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Callable[..., Watching]]:
    """Starts a subscriber by `openssl s_client`, with more flags."""
    folder = trust().write(tmp_path)
    files = ("-CAfile", folder / "ca.crt", "-cert", folder / "client.crt", "-key", folder / "client.key")
    with contextlib.ExitStack() as running:

        def start(relay: Engine, *flags: str) -> Watching:
            peer = running.enter_context(Watching(relay.port, *map(str, files), "-alpn", "h2", *flags))
            peer.watch()
            relay.wait_subscribers(1)
            return peer

        yield start


def test_a_peer_may_change_its_keys(engine: Start, watch: Callable[..., Watching]) -> None:
    relay = engine(tls=trust())
    peer = watch(relay, "-tls1_3")
    for number in range(3):
        peer.say("k")
        relay.publish(LOGS, events.event(LOGS, number))
        peer.wait_event(number)
    assert count(relay) == 1


def test_a_peer_that_wants_ours_changed_is_let_go(engine: Start, watch: Callable[..., Watching]) -> None:
    """The kernel cannot change them. The peer has read whatever was said before, and nothing that it cannot decrypt."""
    relay = engine(tls=trust(), ping_after=LONG)
    peer = watch(relay, "-tls1_3")
    relay.publish(LOGS, events.event(LOGS, 1))
    peer.wait_event(1)
    peer.say("K")
    ended = relay.wait_report(SUBSCRIBER, what=ENDED)
    assert (ended.delivered, ended.lost) == (1, 0)
    said = peer.end()
    assert "KEYUPDATE" in said
    assert "bad record mac" not in said
    assert count(relay) == 0


def test_a_node_that_wants_ours_changed_is_told_of(engine: Start, tmp_path: Path) -> None:
    relay = engine(tls=trust())
    folder = trust().write(tmp_path)
    files = ("-cert", folder / "server.crt", "-key", folder / "server.key")
    with OpensslServer(*map(str, files), "-alpn", "h2") as peer:
        number = relay.add(peer)
        peer.wait("PRI * HTTP/2.0")
        assert count(relay) == 1
        peer.say("K")
        said = relay.wait_failure(number).text
    assert said == "TLS: the peer asks for new keys, and the kernel, which encrypts, cannot change them"
