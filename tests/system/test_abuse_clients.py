"""Clients that mean harm beside a node and a subscriber that must not notice: each is cut off, and counted.

One relay, as installed and with its defaults, goes through all of it.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from peers import events, hostile
from peers.h2_wire import CONTINUATION, DATA, HEADERS, PING, PREFACE, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE
from peers.hostile import CHECK, WATCH, Attacker, Said, call, frame, headers, literal, long_block
from peers.scene import Scene

from relay import feeds

pytestmark = [pytest.mark.paced, pytest.mark.resident]

HANDSHAKE = 2  # s, so that a test need not wait for 10
PROTOCOL_ERROR, FLOW_CONTROL_ERROR, REFUSED_STREAM, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 1, 3, 7, 9, 11
RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = "8", "12", "13"
ODD = range(1, 1 << 31, 2)


@pytest.fixture(scope="module", autouse=True)
def descriptors() -> Iterator[None]:
    """Ten thousand sockets in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(12_000, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """The relay and its well-behaved peers."""
    with Scene(f"-handshake-timeout={HANDSHAKE}") as made:
        yield made


def each_cut_off(scene: Scene, data: bytes, error: int = ENHANCE_YOUR_CALM, **how: object) -> Callable[[], None]:
    """An attack: a connection says all of it, and is sent away with that error."""

    def act() -> None:
        with Attacker(scene.port, **how) as attacker:  # type: ignore[arg-type]
            attacker.say(data)
            said = attacker.last_words()
            assert said.goaway is not None, said
            assert said.goaway[0] == error

    return act


# Floods -------------------------------------------------------------------------------------------

# A stream with nothing wrong in it, on which frames can be.
OPEN = headers(1, WATCH)
FLOODS = {
    # CVE-2023-44487
    "rapid reset": b"".join(
        headers(stream, WATCH) + frame(RST_STREAM, stream=stream, payload=(8).to_bytes(4)) for stream in ODD[:2000]
    ),
    # CVE-2019-9512
    "pings": frame(PING, payload=bytes(8)) * 25_000,
    # CVE-2019-9515
    "settings": frame(SETTINGS) * 2_500,
    # CVE-2019-9514: each request is wrong, so that we reset it
    "requests that have to be reset": b"".join(headers(stream, literal(b":path", b"/")) for stream in ODD[:5000]),
    # CVE-2019-9518
    "empty DATA": OPEN + frame(DATA, stream=1) * 2_500,
    "DATA of padding": OPEN + frame(DATA, hostile.PADDED, 1, b"\0") * 2_500,
    # CVE-2019-9513
    "priority churn": b"".join(
        frame(PRIORITY, stream=stream, payload=(stream + 2).to_bytes(4) + b"\x10") for stream in ODD[:2500]
    ),
    # CVE-2019-9511: a byte of credit at a time
    "window dribble": call(1, WATCH) + frame(WINDOW_UPDATE, stream=1, payload=(1).to_bytes(4)) * 25_000,
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
def test_a_flood(scene: Scene, flood: bytes) -> None:
    """More than max-controls allows in two seconds, and so in one of them."""
    settings = b"\0\4\0\0\0\0"  # windows of nothing, for the dribble
    met = scene.attack(each_cut_off(scene, flood, settings=settings))
    assert set(met) - {"protocol", "streams"} == {"controls"}


def test_a_thousand_health_checks_a_second_each_from_ten_connections(scene: Scene) -> None:
    """Within the limits: they are answered."""
    checks = [
        b"".join(call(stream, CHECK, events.nonce(7)) for stream in ODD[at : at + 250]) for at in range(0, 10_000, 250)
    ]
    with contextlib.ExitStack() as stack:
        attackers = [stack.enter_context(Attacker(scene.port)) for _ in range(10)]
        turn = iter(range(len(checks)))

        def act() -> None:
            """A quarter of a second's worth; the responses are taken when they are there."""
            began = time.monotonic()
            more = checks[next(turn)]
            for attacker in attackers:
                assert attacker.say(more)
                attacker.listen()
            time.sleep(max(0, 0.25 - (time.monotonic() - began)))

        assert scene.attack(act, seconds=2) == {}
        asked = 250 * next(turn)
        for attacker in attackers:
            assert attacker.until(lambda said: said.statuses.total() == asked).statuses == {"0": asked}


def test_ten_thousand_health_checks_a_second(scene: Scene) -> None:
    """On one connection that is more than max-controls allows."""
    checks = b"".join(call(stream, CHECK, events.nonce(7)) for stream in ODD[:10_000])
    met = scene.attack(each_cut_off(scene, checks))
    assert set(met) == {"controls"}


def test_every_method_name(scene: Scene) -> None:
    """What there is not is UNIMPLEMENTED; who tries thousands of names is cut off."""
    names = [hostile.block(f"/feeder.LogService/Watch{number}") for number in range(10_000)]
    with Attacker(scene.port) as attacker:
        attacker.say(b"".join(call(stream, name) for stream, name in zip(ODD, names[:100], strict=False)))
        assert attacker.until(lambda said: said.statuses.total() == 100).statuses == {UNIMPLEMENTED: 100}
    tries = b"".join(call(stream, name) for stream, name in zip(ODD, names, strict=False))
    assert set(scene.attack(each_cut_off(scene, tries))) == {"controls"}


@pytest.mark.parametrize(
    "path", ["/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"]
)
def test_calls_that_python_answers(scene: Scene, path: str) -> None:
    """One stream can carry as many questions as it likes, so each of them counts."""
    questions = headers(1, hostile.block(path)) + frame(DATA, stream=1, payload=events.frame(b"") * 2500)

    def act() -> None:
        """Cut off, or refused where more wait for Python than may."""
        with Attacker(scene.port) as attacker:
            attacker.say(questions)
            said = attacker.until(lambda said: said.closed or said.statuses)
            assert said.statuses == {RESOURCE_EXHAUSTED: 1} or said.goaway == (ENHANCE_YOUR_CALM, ""), said

    met = scene.attack(act)
    assert "controls" in met
    assert met.keys() <= {"controls", "calls"}


# Header blocks ------------------------------------------------------------------------------------

# One entry of 4,000 bytes in the table (RFC 7541, 6.2.1), then a byte for each repetition (6.1).
INDEXED = WATCH + b"\x40\x01x\x7f\xa1\x1e" + b"y" * 4000 + b"\xbe" * 100_000
BLOCKS = {
    "indexed repeats": long_block(1, INDEXED),
    "zero-length headers": long_block(1, WATCH + literal(b"", b"") * 30_000),  # CVE-2019-9516
    "many small headers": long_block(1, WATCH + literal(b"a", b"") * 30_000),
}


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS.keys())
def test_a_header_bomb(scene: Scene, block: bytes) -> None:
    assert set(scene.attack(each_cut_off(scene, block))) == {"headers"}


def test_a_continuation_flood(scene: Scene) -> None:
    """CVE-2024-28182: a header block without an end, of frames that are empty or nearly so."""
    for part in (b"", literal(b"a", b"")):
        flood = frame(HEADERS, 0, 1, WATCH) + frame(CONTINUATION, 0, 1, part) * 2000
        assert set(scene.attack(each_cut_off(scene, flood), seconds=1)) <= {"controls", "headers"}


def test_a_huge_table(scene: Scene) -> None:
    """A table larger than we have announced; and, in SETTINGS, one for us to fill, which we need not."""
    grow = b"\x3f\xe1\xff\x03"  # to 65,536 bytes
    met = scene.attack(each_cut_off(scene, headers(1, grow + WATCH), COMPRESSION_ERROR), seconds=1)
    assert set(met) == {"protocol"}
    with Attacker(scene.port, settings=b"\0\1\xff\xff\xff\xff") as attacker:
        attacker.say(call(1, CHECK, events.nonce(7)))
        attacker.until(lambda said: said.statuses)
        assert scene.counters()["process"]["client_bytes"] < 4 * 32_768


def test_headers_beyond_the_limit(scene: Scene) -> None:
    """Not by much: the request is answered, and the connection stays."""
    large = hostile.block(
        feeds.HEALTH_CHECK, "application/grpc", *((f"x-{number}", "y" * 100) for number in range(150))
    )

    def act() -> None:
        with Attacker(scene.port) as attacker:
            attacker.say(b"".join(long_block(stream, large) for stream in ODD[:50]))
            attacker.say(b"".join(frame(DATA, hostile.END_STREAM, stream) for stream in ODD[:50]))
            assert attacker.until(lambda said: said.statuses.total() == 50).statuses == {"431": 50}

    assert set(scene.attack(act)) == {"headers"}


# Requests -----------------------------------------------------------------------------------------


def refused(scene: Scene, request: Callable[[int], bytes], statuses: dict[str, int]) -> Callable[[], None]:
    """An attack: fifty requests on a connection, all of them answered in the same way."""

    def act() -> None:
        with Attacker(scene.port) as attacker:
            attacker.say(b"".join(request(stream) for stream in ODD[:50]))
            assert attacker.until(lambda said: said.statuses.total() == 50).statuses == statuses

    return act


@pytest.mark.parametrize("size", [100_000_000, 0xFFFFFFFF], ids=["100 MB", "4 GB"])
def test_a_length_that_is_too_large(scene: Scene, size: int) -> None:
    """The announcement is enough."""
    begun = b"\0" + size.to_bytes(4) + bytes(1000)
    act = refused(
        scene, lambda stream: headers(stream, WATCH) + frame(DATA, 0, stream, begun), {RESOURCE_EXHAUSTED: 50}
    )
    assert set(scene.attack(act)) == {"request"}


def test_a_request_of_100_mb(scene: Scene) -> None:
    """Who does not stop at the refusal is cut off: it may go on with what was under way, and no further."""
    part = frame(DATA, 0, 1, bytes(16384))
    request = headers(1, WATCH) + frame(DATA, 0, 1, b"\0" + (100_000_000).to_bytes(4)) + part * 6200

    def act() -> None:
        with Attacker(scene.port) as attacker:
            attacker.say(request)
            said = attacker.last_words()
            assert said.statuses == {RESOURCE_EXHAUSTED: 1}
            assert said.goaway is not None
            assert said.goaway[0] == ENHANCE_YOUR_CALM

    assert set(scene.attack(act)) == {"request", "controls"}


@pytest.mark.parametrize("flag", [1, 2], ids=["compressed", "no flag"])
def test_a_compressed_bomb(scene: Scene, flag: int) -> None:
    """It is not looked into."""
    bomb = events.frame(b"\x1f\x8b\x08" + bytes(200), flag=flag)

    def request(stream: int) -> bytes:
        encoded = hostile.block(feeds.HEALTH_CHECK, "application/grpc", ("grpc-encoding", "gzip"))
        return headers(stream, encoded if flag == 1 else CHECK) + frame(DATA, hostile.END_STREAM, stream, bomb)

    assert scene.attack(refused(scene, request, {UNIMPLEMENTED if flag == 1 else INTERNAL: 50})) == {}


@pytest.mark.parametrize("kind", ["application/json", "text/html", "application/grpc-web"])
def test_a_wrong_content_type(scene: Scene, kind: str) -> None:
    other = hostile.block(feeds.METHODS[events.LOGS], kind)
    assert scene.attack(refused(scene, lambda stream: call(stream, other), {"415": 50})) == {}


# Connections and streams --------------------------------------------------------------------------


def test_a_thousand_streams_on_a_connection(scene: Scene) -> None:
    """As many as there may be are served; who knows the limit, having acknowledged it, is sent away for breaking it."""

    def act() -> None:
        with Attacker(scene.port) as attacker:
            attacker.say(b"".join(call(stream, WATCH) for stream in ODD[:1000]))
            assert attacker.until(lambda said: said.resets.total() == 900).resets == {REFUSED_STREAM: 900}
        with Attacker(scene.port) as attacker:
            attacker.until(lambda said: said.settings)
            attacker.say(frame(SETTINGS, 1) + b"".join(call(stream, WATCH) for stream in ODD[:1000]))
            said = attacker.last_words()
            assert said.goaway is not None
            assert said.goaway[0] == PROTOCOL_ERROR

    assert set(scene.attack(act)) == {"streams"}


def test_ten_thousand_connections_that_say_nothing(scene: Scene) -> None:
    """From as many addresses as it takes. Those that get in are closed when their time is over."""
    with contextlib.ExitStack() as stack:

        def act() -> None:
            stack.close()
            for number in range(10_000):
                sock = stack.enter_context(socket.socket())
                sock.bind((f"127.0.1.{1 + number % 200}", 0))
                sock.setblocking(False)
                sock.connect_ex(("127.0.0.1", scene.port))

        met = scene.attack(act, seconds=0.001)
        # How fast they are accepted is up to the machine: the last of them may be under way still.
        end = time.monotonic() + 30
        while scene.counters()["process"]["clients"] > 1 and time.monotonic() < end:
            time.sleep(0.1)
        limits = scene.limits()
    assert met.keys() <= {"connections", "handshake"}
    assert limits["connections"] > 5000
    assert limits["handshake"] >= 255


def test_connections_of_one_address(scene: Scene) -> None:
    """64 of them are served, the others are told why not; from elsewhere everybody is welcome."""
    with contextlib.ExitStack() as stack:
        inside = [stack.enter_context(Attacker(scene.port, "127.0.2.1")) for _ in range(64)]
        for attacker in inside:
            attacker.say(call(1, CHECK, events.nonce(7)))
        for attacker in inside:
            attacker.until(lambda said: said.statuses)

        def act() -> None:
            with Attacker(scene.port, "127.0.2.1") as attacker:
                said = attacker.last_words()
                assert said.goaway == (ENHANCE_YOUR_CALM, "too many connections: max-connections-per-address")

        assert set(scene.attack(act)) == {"address"}
        with Attacker(scene.port, "127.0.2.2") as attacker:
            attacker.say(call(1, CHECK, events.nonce(7)))
            attacker.until(lambda said: said.statuses)


def test_a_preface_at_one_byte_a_second(scene: Scene) -> None:
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(Attacker(scene.port, bare=True)) for _ in range(50)]
        said = iter(PREFACE)

        def act() -> None:
            byte = bytes([next(said)])
            for attacker in slow:
                attacker.say_blindly(byte)
            time.sleep(1)

        met = scene.attack(act, seconds=HANDSHAKE + 1)
        assert met == {"handshake": 50}
        assert all(attacker.last_words() == Said(closed=True) for attacker in slow)


def test_data_that_is_not_read(scene: Scene) -> None:
    """CVE-2019-9517: windows as wide as can be, and a socket that is never read. What it misses is its own loss."""
    with contextlib.ExitStack() as stack:
        deaf = [
            stack.enter_context(Attacker(scene.port, settings=hostile.open_windows(), receive_buffer=4096))
            for _ in range(60)
        ]

        def act() -> None:
            for attacker in deaf:
                # What makes answers is not read either; so it fills what may wait, and then that connection ends.
                attacker.say_blindly(hostile.widen() + call(1, WATCH) if attacker is not deaf[0] else b"")
                attacker.say_blindly(frame(PING, payload=bytes(8)) * 300)
            time.sleep(0.2)

        met = scene.attack(act)
        process = scene.counters()["process"]
        assert set(met) <= {"controls", "protocol", "budget"}
        assert process["tail_bytes"] < 16 << 20
