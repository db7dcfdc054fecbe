"""What may come in place of a bulk answer, from proxies, dying servers and worse: nothing of it settles an event."""

import asyncio
import gzip
import json
import socket
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peers.answers import Answers, http

from relay.sinks.bulk import ANSWER_BYTES, MAX_RETRY_AFTER, BulkSink, Target
from relay.sinks.protocol import Batch, Unavailable, Written

pytestmark = pytest.mark.unit

WAIT = 60.0
NOW = datetime(2026, 1, 2, tzinfo=UTC)
TAKEN = json.dumps({"items": [{"index": {"status": 201}}] * 3}).encode()
PAGE = b"<html><body>Bad\nGateway</body></html>"
TOO_MUCH = ANSWER_BYTES + 3 * (1 << 10) + (1 << 12)


def batch(count: int = 3) -> Batch:
    lines = b"".join(b'{"index":{"_id":"%d"}}\n{"n":%d}\n' % (number, number) for number in range(count))
    return Batch(1, lines, count, NOW)


def target(port: int, **changes: object) -> Target:
    values: dict[str, object] = {"name": "elasticsearch", "url": f"http://127.0.0.1:{port}", "index": "alerts"}
    return Target(**(values | {"timeout": WAIT} | changes))  # type: ignore[arg-type]


async def within(work: Awaitable[Written]) -> Written:
    async with asyncio.timeout(WAIT):
        return await work


def written(data: bytes, *, stays: bool = False, **changes: object) -> tuple[Written | Unavailable, Answers]:
    """What the sink makes of an answer, and the server that gave it."""

    async def run() -> tuple[Written | Unavailable, Answers]:
        async def answer(_head: bytes, _body: bytes) -> tuple[bytes, bool]:
            return data, stays

        async with Answers(answer) as server:
            sink = BulkSink(target(server.port, **changes), "boot")
            try:
                return await within(sink.write(batch())), server
            except Unavailable as error:
                return error, server
            finally:
                await sink.close()

    return asyncio.run(run())


def refused(data: bytes, *, stays: bool = False, **changes: object) -> Unavailable:
    result, server = written(data, stays=stays, **changes)
    assert isinstance(result, Unavailable)
    assert len(server.requests) == 1
    return result


@pytest.mark.parametrize(
    "data",
    [
        http("200 OK", TAKEN),
        http("200 OK", gzip.compress(TAKEN), Content_Encoding="gzip"),
        b"HTTP/1.1 100 Continue\r\n\r\n" + http("200 OK", TAKEN),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(TAKEN), TAKEN),
        b"HTTP/1.0 200 OK\r\n\r\n" + TAKEN,
    ],
    ids=["plain", "gzip", "continue", "chunked", "to the end"],
)
def test_an_answer_is_read_however_it_comes(data: bytes) -> None:
    assert written(data)[0] == Written(3)


@pytest.mark.parametrize("compressed", [True, False])
def test_a_request_is_what_the_bulk_api_wants(compressed: bool) -> None:
    _, server = written(http("200 OK", TAKEN), gzip=compressed, username="me", password="pass:w\udcff")
    ((head, body),) = server.requests
    assert head.startswith(b"POST /alerts/_bulk?filter_path=items.*.status,")
    assert b"\r\nContent-Type: application/x-ndjson\r\n" in head
    assert b"\r\nAuthorization: Basic bWU6cGFzczp3/w==\r\n" in head
    assert (b"\r\nContent-Encoding: gzip\r\n" in head) == compressed
    assert (gzip.decompress(body) if compressed else body) == batch().lines


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (http("502 Bad Gateway", PAGE), "HTTP status 502", r"<html><body>Bad\nGateway</body></html>"),
        (http("200 OK", PAGE), "an answer that is not the bulk API's", r"<html><body>Bad\nGateway</body></html>"),
        (http("204 No Content"), "HTTP status 204", ""),
        (http("201 Created", TAKEN), "HTTP status 201", TAKEN.decode()),
        (http("200 OK", TAKEN[:-1]), "an answer that is not the bulk API's", TAKEN[:-1].decode()),
        (http("200 OK", b'{"errors":false,"items":[]}'), "an answer that is not the bulk API's", "about 0 of 3"),
        (http("401 Unauthorized"), "HTTP status 401, wrong user name or password", ""),
        (
            http("429 Too Many", b'{"error":{"type":"busy","reason":"7 bytes"}}'),
            "HTTP status 429",
            "busy: 7 bytes",
        ),
        (http("500 Oops", b"[" * 100_000), "HTTP status 500", "[[["),
        (http("503 Wait\xfe"), "HTTP status 503", ""),
        (b"", "the connection broke", ""),
        (b"SSH-2.0-OpenSSH\r\n", "the connection broke", ""),
        (http("200 OK", TAKEN)[:-1], "the connection broke", ""),
        (http("200 OK", TAKEN, Content_Encoding="gzip"), "the connection broke", ""),
        (http("200 OK", gzip.compress(TAKEN)[:-12], Content_Encoding="gzip"), "", ""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "the connection broke", ""),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000 + b"\r\n", "the connection broke", ""),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n", "the connection broke", ""),
        (http("200 OK", b" " * TOO_MUCH), "the connection broke", "an answer of more than"),
        (http("200 OK", gzip.compress(bytes(TOO_MUCH)), Content_Encoding="gzip"), "the connection broke", ""),
    ],
    ids=range(20),
)
def test_anything_else_settles_nothing(data: bytes, reason: str, detail: str) -> None:
    error = refused(data)
    assert error.reason == reason or not reason
    assert detail in error.detail
    assert str(error).isprintable()


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 Temporary", "308 Permanent"])
def test_a_redirect_is_not_followed(status: str) -> None:
    """It would be followed with GET, or with the password to another server."""
    error = refused(http(status, Location="/elsewhere"), stays=True)
    assert error.reason == f"HTTP status {status[:3]}, redirects are not followed: is the URL right?"
    assert error.detail == "to /elsewhere"


IN_30_SECONDS = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
TOMORROW = format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True)


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("7", 7, 7),
        ("0", 0, 0),
        ("9" * 400, MAX_RETRY_AFTER, MAX_RETRY_AFTER),
        ("-1", 0, 0),
        ("1.5", 0, 0),
        ("soon", 0, 0),
        ("\u00b2", 0, 0),
        (TOMORROW, MAX_RETRY_AFTER, MAX_RETRY_AFTER),
        (TOMORROW.replace(" GMT", ""), MAX_RETRY_AFTER, MAX_RETRY_AFTER),
        (IN_30_SECONDS, 0, 30),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
        ("Wed, 21 Oct 2015 07:28:00 +99999999999999", 0, 0),
    ],
)
def test_when_to_come_again(text: str, least: float, most: float) -> None:
    assert least <= refused(http("503 Wait", Retry_After=text)).retry_after <= most


def test_the_date_of_an_index_is_that_of_the_batch() -> None:
    """So it is the same when a batch comes again on the other side of midnight."""

    async def run() -> list[bytes]:
        async def answer(_head: bytes, _body: bytes) -> tuple[bytes, bool]:
            return http("200 OK", TAKEN), True

        async with Answers(answer) as server:
            sink = BulkSink(target(server.port, index="alerts-%Y.%m.%d-%j"), "boot")
            last = datetime(2023, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
            for read_at in (last, last + timedelta(microseconds=1), last):
                await within(sink.write(Batch(1, batch().lines, 3, read_at)))
            await sink.close()
            return [head.split(b"/")[1] for head, _ in server.requests]

    assert asyncio.run(run()) == [b"alerts-2023.12.31-365", b"alerts-2024.01.01-001", b"alerts-2023.12.31-365"]


def test_a_server_that_does_not_answer_has_its_time() -> None:
    async def run() -> None:
        async def never(_head: bytes, _body: bytes) -> tuple[bytes, bool]:
            await asyncio.Event().wait()
            raise AssertionError

        async with Answers(never) as server:
            sink = BulkSink(target(server.port, timeout=0.05), "boot")
            with pytest.raises(Unavailable, match=r"^no answer in time$"):
                await within(sink.write(batch()))
            await sink.close()

    asyncio.run(run())


def test_nobody_listens() -> None:
    async def run(port: int) -> None:
        sink = BulkSink(target(port), "boot")
        with pytest.raises(Unavailable) as error:
            await within(sink.write(batch()))
        assert error.value.reason == "no connection"
        assert f"('127.0.0.1', {port})" in error.value.detail
        assert "ssl" not in error.value.detail
        await sink.close()

    with socket.socket() as taken:  # by nobody who listens
        taken.bind(("127.0.0.1", 0))
        asyncio.run(run(taken.getsockname()[1]))


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_name_is_looked_up(monkeypatch: pytest.MonkeyPatch, family: socket.AddressFamily) -> None:
    where = "127.0.0.1" if family == socket.AF_INET else "::1"

    def look_up(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        assert host == "search.example"
        return [(family, socket.SOCK_STREAM, 6, "", (where, port))]

    async def run() -> None:
        async def answer(_head: bytes, _body: bytes) -> tuple[bytes, bool]:
            return http("200 OK", TAKEN), False

        async with Answers(answer, where) as server:
            sink = BulkSink(target(server.port, url=f"http://search.example:{server.port}"), "boot")
            with monkeypatch.context() as patched:
                patched.setattr(socket, "getaddrinfo", look_up)
                assert await within(sink.write(batch())) == Written(3)
            await sink.close()
            assert b"\r\nHost: search.example:" in server.requests[0][0]

    asyncio.run(run())


def test_a_name_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        sink = BulkSink(target(1, url="http://search.invalid:9200"), "boot")
        with pytest.raises(Unavailable) as error:
            await within(sink.write(batch()))
        assert error.value.reason == "no connection"
        assert "search.invalid" in error.value.detail
        await sink.close()

    def look_up(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    asyncio.run(run())


def test_a_name_server_that_does_not_answer_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, gate = threading.Event(), threading.Event()

    def look_up(*_: object, **__: object) -> None:
        asked.set()
        gate.wait()
        raise socket.gaierror(-3, "late")

    async def run() -> None:
        sink = BulkSink(target(1, url="http://search.example:9200", timeout=0.05, gzip=False), "boot")
        with pytest.raises(Unavailable, match="no answer in time"):
            await within(sink.write(batch()))
        await sink.close()

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    # Ending a loop waits for its executor's threads.
    ends = threading.Thread(target=lambda: asyncio.run(run()))
    ends.start()
    try:
        ends.join(WAIT)
        assert asked.wait(WAIT)
        assert not ends.is_alive()
    finally:
        gate.set()
        ends.join()


def test_a_ca_file_that_cannot_be_read_is_read_again(tmp_path: Path) -> None:
    async def run() -> None:
        path = tmp_path / "ca.crt"
        sink = BulkSink(target(1, url="https://127.0.0.1:1", ca_cert_path=str(path)), "boot")
        for text in (None, "", "-----BEGIN CERTIFICATE-----"):
            if text is not None:
                path.write_text(text)
            with pytest.raises(Unavailable) as error:
                await within(sink.write(batch()))
            assert error.value.reason == "the CA's file"
            assert str(path) in error.value.detail
        await sink.close()

    asyncio.run(run())


def test_connections_are_kept() -> None:
    async def run() -> None:
        async def take(_head: bytes, _body: bytes) -> tuple[bytes, bool]:
            return http("200 OK", TAKEN), True

        async with Answers(take) as server:
            sink = BulkSink(target(server.port), "boot")
            for _ in range(5):
                await within(sink.write(batch()))
            await sink.close()
            assert (server.connections, len(server.requests)) == (1, 5)

    asyncio.run(run())


Front = Callable[[bytes], bytes]


def parted(count: int, front: Front) -> tuple[Written | Unavailable, list[int]]:
    """What comes of a batch that goes in parts, and how many documents each request had."""

    async def run() -> tuple[Written | Unavailable, list[int]]:
        sizes: list[int] = []

        async def answer(_head: bytes, body: bytes) -> tuple[bytes, bool]:
            documents = body.splitlines()[1::2]
            sizes.append(len(documents))
            return front(b" ".join(documents)), True

        async with Answers(answer) as server:
            sink = BulkSink(target(server.port, gzip=False), "boot")
            try:
                return await within(sink.write(batch(count))), sizes
            except Unavailable as error:
                return error, sizes
            finally:
                await sink.close()

    return asyncio.run(run())


def taken(documents: bytes) -> bytes:
    return http("200 OK", json.dumps({"items": [{"index": {"status": 201}}] * documents.count(b"{")}).encode())


def test_what_became_of_a_part_is_not_forgotten() -> None:
    def front(documents: bytes) -> bytes:
        if documents.count(b"{") > 2:
            return http("413 Too Large")
        return http("503 Wait", PAGE, Retry_After="9") if b'{"n":2}' in documents else taken(documents)

    result, sizes = parted(4, front)
    assert isinstance(result, Written)
    assert sizes == [4, 2, 2]
    assert result.taken == 2
    assert result.again is not None
    assert result.again.lines == b'{"index":{"_id":"2"}}\n{"n":2}\n{"index":{"_id":"3"}}\n{"n":3}\n'
    assert result.why is not None
    assert (result.why.reason, result.why.retry_after) == ("HTTP status 503", 9)


def test_the_first_part_that_is_not_taken_is_the_whole_batch_again() -> None:
    result, sizes = parted(4, lambda documents: http("413 No" if documents.count(b"{") > 2 else "503 Wait"))
    assert isinstance(result, Unavailable)
    assert sizes == [4, 2]


def test_one_document_that_is_too_large_is_refused() -> None:
    result, sizes = parted(4, lambda documents: http("413 No") if b'{"n":1}' in documents else taken(documents))
    assert isinstance(result, Written)
    assert sizes == [4, 2, 1, 1, 2]
    assert (result.taken, result.again) == (3, None)
    assert [(each.reason, each.events) for each in result.rejected] == [("request too large", 1)]


@settings(max_examples=50)
@given(st.data())
def test_random_answers_settle_nothing_that_was_not_taken(data: st.DataObject) -> None:
    """Bytes of real answers, with some of them wrong, missing or twice."""
    real = data.draw(
        st.sampled_from(
            [
                http("200 OK", TAKEN),
                http("200 OK", gzip.compress(TAKEN, mtime=0), Content_Encoding="gzip"),
                http("307 Away", Location="http://[::1"),
            ]
        )
    )
    start = data.draw(st.integers(0, len(real)))
    end = data.draw(st.integers(start, len(real)))
    spoilt = real[:start] + data.draw(st.binary(max_size=8)) + real[end:]
    result, _ = written(spoilt, timeout=5.0)
    if isinstance(result, Written):
        left = result.again.events if result.again else 0
        assert result.taken + sum(each.events for each in result.rejected) + left == 3
