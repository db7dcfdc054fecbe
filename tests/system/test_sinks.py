"""What a search engine's front says before any document is looked at: TLS and passwords, on a server in here."""

import asyncio
import base64
import logging
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web
from peers.fake_reader import FakeJournal

from relay import feeds
from relay.backoff import Backoff
from relay.sinks.bulk import BulkSink, Target
from relay.sinks.protocol import Batch
from relay.sinks.runner import Limits, Runner

pytestmark = pytest.mark.system

WAIT = 30.0
LIMITS = Limits(bytes=1_000_000, events=1000, seconds=0.1)


class Front:
    """Takes every document, in requests of at most `largest` documents, from whoever knows the password."""

    def __init__(self) -> None:
        self.password = ""
        self.largest = 0
        self.refused = 0
        self.ids: list[str] = []
        self.port = 0

    async def bulk(self, request: web.Request) -> web.Response:
        wanted = "Basic " + base64.b64encode(f"relay:{self.password}".encode()).decode()
        if self.password and request.headers.get("Authorization") != wanted:
            self.refused += 1
            return web.json_response({"error": {"type": "security_exception", "reason": "no"}}, status=401)
        lines = (await request.read()).splitlines()
        if self.largest and len(lines) > 2 * self.largest:
            self.refused += 1
            return web.Response(status=413)
        self.ids += [line.split(b'"')[5].decode() for line in lines[::2]]
        return web.json_response({"errors": False, "items": [{"index": {"status": 201}}] * (len(lines) // 2)})

    @asynccontextmanager
    async def serving(self, certificate: Path | None = None) -> AsyncIterator[None]:
        context = None
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        application = web.Application()
        application.router.add_post("/alerts/_bulk", self.bulk)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield
        finally:
            await runner.cleanup()


def certificate(folder: Path, name: str) -> Path:
    """A certificate of its own for 127.0.0.1."""
    path = folder / f"{name}.crt"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path.with_suffix(".key")), "-out", str(path)),
        ],
        check=True,
        capture_output=True,
    )
    return path


@asynccontextmanager
async def running(target: Target, documents: int) -> AsyncIterator[Runner]:
    journal = FakeJournal()
    runner = Runner(
        BulkSink(target, "boot"),
        {feeds.ALERTS: journal.reader()},
        LIMITS,
        backoff=lambda: Backoff(first=0.01, last=0.05),
    )
    failed: list[BaseException] = []
    runner.start(failed.append)
    journal.append(*[b"{}"] * documents)
    try:
        yield runner
    finally:
        await runner.stop(1.0)
    assert not failed


async def until(runner: Runner, counter: str, least: int) -> None:
    async with asyncio.timeout(WAIT):
        while runner.describe()[counter] < least:  # noqa: ASYNC110 - a counter has no event
            await asyncio.sleep(0.01)


def test_a_wrong_password_is_tried_again_and_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        front = Front()
        front.password = "rotated"
        async with front.serving():
            target = Target("elasticsearch", f"http://127.0.0.1:{front.port}", "alerts", "relay", "hunter2")
            async with running(target, 3) as runner:
                await until(runner, "retried", 6)
                assert front.ids == []
                front.password = "hunter2"  # an operator has put it right
                await until(runner, "sent", 3)
        assert front.ids == ["boot-alerts-0", "boot-alerts-1", "boot-alerts-2"]

    with caplog.at_level(logging.DEBUG):
        asyncio.run(run())
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [(record.relay_fields["reason"], record.relay_fields["detail"]) for record in warnings] == [  # type: ignore[attr-defined]
        ("HTTP status 401, wrong user name or password", "security_exception: no")
    ]
    assert "hunter2" not in caplog.text


def test_a_wrong_ca_is_tried_again_and_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    right, wrong, used = certificate(tmp_path, "right"), certificate(tmp_path, "wrong"), tmp_path / "ca.crt"
    used.write_bytes(wrong.read_bytes())

    async def run() -> None:
        front = Front()
        async with front.serving(right):
            url = f"https://127.0.0.1:{front.port}"
            async with running(Target("elasticsearch", url, "alerts", ca_cert_path=str(used)), 3) as runner:
                await until(runner, "retried", 6)
                assert front.ids == []
                used.write_bytes(right.read_bytes())
                await until(runner, "sent", 3)

    with caplog.at_level(logging.INFO):
        asyncio.run(run())
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.relay_fields["reason"] == "TLS"  # type: ignore[attr-defined]
    assert "CERTIFICATE_VERIFY_FAILED" in warning.relay_fields["detail"]  # type: ignore[attr-defined]


def test_an_unchecked_certificate(tmp_path: Path) -> None:
    async def run() -> None:
        front = Front()
        async with front.serving(certificate(tmp_path, "any")):
            url = f"https://127.0.0.1:{front.port}"
            async with running(Target("elasticsearch", url, "alerts", insecure=True), 3) as runner:
                await until(runner, "sent", 3)

    asyncio.run(run())


def test_a_request_that_is_too_large_goes_in_parts() -> None:
    async def run() -> None:
        front = Front()
        front.largest = 3
        async with front.serving():
            target = Target("opensearch", f"http://127.0.0.1:{front.port}", "alerts", gzip=False)
            async with running(target, 10) as runner:
                await until(runner, "sent", 10)
                assert runner.describe()["retried"] == 0
        assert front.ids == [f"boot-alerts-{number}" for number in range(10)]

    asyncio.run(run())


def test_a_document_that_is_too_large_is_refused() -> None:
    async def run() -> None:
        async def too_large(request: web.Request) -> web.Response:
            return web.Response(status=413)

        front = Front()
        front.bulk = too_large  # type: ignore[method-assign]
        async with front.serving():
            sink = BulkSink(Target("opensearch", f"http://127.0.0.1:{front.port}", "alerts"), "boot")
            lines = b'{"index":{"_id":"1"}}\n{}\n' * 2
            written = await sink.write(Batch(feeds.ALERTS, lines, 2, datetime.now(UTC)))
            await sink.close()
        assert written.taken == 0
        assert written.again is None
        assert sum(rejected.events for rejected in written.rejected) == 2

    asyncio.run(run())
