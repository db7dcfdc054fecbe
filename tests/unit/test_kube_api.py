"""relay.kube_api: what is asked of an API server, and what is made of every kind of answer."""

import asyncio
import contextlib
import gc
import gzip
import json
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from peers import kube_http
from peers.kube_http import Configuration, Request, Server, line, page, pod, status

from relay import kube_api
from relay.kube_api import Api, Refused, Resource, Unreachable
from relay.kube_config import ConfigError, Loaded

PODS = Resource("pods", selector="kubearmor-app=kubearmor")
WAIT = 30.0


@pytest.fixture(autouse=True)
def without_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a test; what is left open at the end is an error."""
    asyncio.run(work)
    gc.collect()  # warnings of what was not closed come with it


class Client:
    """An Api whose configurations the test makes."""

    def __init__(self, *configurations: Loaded | ConfigError) -> None:
        self.given = list(configurations)
        self.loads = 0
        self.now = 0.0
        self.api = Api(self._load, clock=lambda: self.now)

    async def _load(self) -> Loaded:
        given = self.given[min(self.loads, len(self.given) - 1)]
        self.loads += 1
        if isinstance(given, ConfigError):
            raise given
        return given

    async def lines(self, count: int = 1 << 30) -> list[bytes]:
        """The lines of a watch, without the empty one at the beginning."""
        found: list[bytes] = []
        async with contextlib.aclosing(self.api.watch(PODS, "7")) as lines:
            assert await anext(lines) == b""
            async for each in lines:
                found.append(each)
                if len(found) == count:
                    break
        return found


@contextlib.asynccontextmanager
async def connected(*tokens: str) -> AsyncIterator[tuple[Server, Client]]:
    """A server and a client, which has these tokens one after another."""
    async with kube_http.serve() as server:
        client = Client(*(Configuration(server.host).token(token).loaded() for token in tokens or ["first"]))
        try:
            yield server, client
        finally:
            await client.api.close()


def both(work: Callable[[Server, Client], Coroutine[Any, Any, None]], *tokens: str) -> None:
    async def main() -> None:
        async with connected(*tokens) as (server, client):
            await work(server, client)

    run(main())


def begin(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(work)


# --- what is asked ------------------------------------------------------------------------


def test_a_page_is_asked_for_as_the_api_wants_it() -> None:
    async def work(server: Server, client: Client) -> None:
        asked = begin(client.api.page(PODS, "a+/b=", 100))
        request = await server.next()
        request.answer(page(pod("web")))
        assert json.loads(await asked)["items"][0]["metadata"]["name"] == "web"
        assert (request.method, request.path) == ("GET", "/api/v1/pods")
        assert request.query == {"limit": "100", "continue": "a+/b=", "labelSelector": "kubearmor-app=kubearmor"}
        assert request.headers["authorization"] == "Bearer first"
        assert request.headers["accept-encoding"] == "identity"

    both(work)


def test_a_watch_is_asked_for_with_bookmarks_and_an_end() -> None:
    async def work(server: Server, client: Client) -> None:
        asked = begin(client.lines())
        request = (await server.next()).begin()
        request.end()
        await asked
        least, most = kube_api.WATCH_SECONDS
        assert least <= int(request.query.pop("timeoutSeconds")) <= most
        assert request.query == {
            "watch": "true",
            "resourceVersion": "7",
            "allowWatchBookmarks": "true",
            "labelSelector": "kubearmor-app=kubearmor",
        }

    both(work)


@pytest.mark.parametrize(
    ("namespace", "path"),
    [("", "/api/v1/pods"), ("web", "/api/v1/namespaces/web/pods"), ("a/../b", "/api/v1/namespaces/a%2F..%2Fb/pods")],
)
def test_a_namespace_is_part_of_the_path(namespace: str, path: str) -> None:
    assert Resource("pods", namespace).path == path


def test_a_server_below_a_path_is_asked_there() -> None:
    async def main() -> None:
        async with kube_http.serve() as server:
            client = Client(Configuration(server.host + "/k8s/clusters/c-1").loaded())
            asked = begin(client.api.page(Resource("services"), "", 5))
            request = await server.next()
            request.answer(page())
            await asked
            assert request.path == "/k8s/clusters/c-1/api/v1/services"
            assert "authorization" not in request.headers
            await client.api.close()

    run(main())


def test_pages_come_over_one_connection() -> None:
    async def work(server: Server, client: Client) -> None:
        ports = set()
        for _ in range(3):
            asked = begin(client.api.page(PODS, "", 100))
            request = await server.next()
            request.answer(page())
            await asked
            ports.add(request.port)
        assert len(ports) == 1

    both(work)


# --- lines of a watch ---------------------------------------------------------------------

EVENTS = [line("ADDED", pod("one")), line("MODIFIED", pod("two", "10.0.0.1")), line("DELETED", pod("drei-ä"))]


@pytest.mark.parametrize("size", [1, 2, 7, 1 << 30])
def test_lines_are_put_together_however_they_are_cut(size: int) -> None:
    async def work(server: Server, client: Client) -> None:
        asked = begin(client.lines())
        request = (await server.next()).begin()
        await request.send(b"".join(EVENTS) + b"\n\n" + EVENTS[0], size)
        request.end()
        assert await asked == [each.rstrip(b"\n") for each in [*EVENTS, b"", b"", EVENTS[0]]]

    both(work)


def test_the_watch_begins_before_its_first_line() -> None:
    async def work(server: Server, client: Client) -> None:
        async with contextlib.aclosing(client.api.watch(PODS, "7")) as lines:
            first = begin(anext(lines))  # type: ignore[arg-type]
            request = (await server.next()).begin()
            assert await first == b""
        await request.closed()

    both(work)


def test_a_last_line_without_its_end_is_not_told() -> None:
    async def work(server: Server, client: Client) -> None:
        asked = begin(client.lines())
        request = (await server.next()).begin()
        await request.send(EVENTS[0] + EVENTS[1][:-1])
        request.end()
        assert await asked == [EVENTS[0].rstrip()]

    both(work)


def test_a_watch_that_is_cut_in_the_middle_of_a_line_gives_the_lines_before() -> None:
    async def work(server: Server, client: Client) -> None:
        found: list[bytes] = []

        async def watch() -> None:
            async for each in client.api.watch(PODS, "7"):
                found.append(each)

        asked = begin(watch())
        request = (await server.next()).begin()
        await request.send(EVENTS[0] + EVENTS[1][:10])
        request.cut()
        with pytest.raises(Unreachable, match="the connection broke"):
            await asked
        assert found == [b"", EVENTS[0].rstrip()]

    both(work)


def test_a_line_without_an_end_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube_api, "LINE_BYTES", 100_000)

    async def work(server: Server, client: Client) -> None:
        asked = begin(client.lines())
        request = (await server.next()).begin()
        await request.send(b'"' + b"x" * 150_000, 10_000)
        with pytest.raises(Unreachable, match="a line of more than 100000 bytes"):
            await asked
        await request.closed()

    both(work)


def test_what_a_proxy_has_compressed_is_read_all_the_same() -> None:
    async def work(server: Server, client: Client) -> None:
        asked = begin(client.api.page(PODS, "", 1))
        body = json.dumps(page(pod("web"))).encode()
        (await server.next()).answer(gzip.compress(body), Content_Encoding="gzip")
        assert await asked == body

        asked = begin(client.lines())
        request = (await server.next()).begin(Content_Encoding="gzip")
        await request.send(gzip.compress(b"".join(EVENTS)), 11)
        request.end()
        assert await asked == [each.rstrip() for each in EVENTS]

    both(work)


# --- answers that are none ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "body", "text"),
    [
        (401, status(401, "Unauthorized", "Unauthorized"), "401 Unauthorized: Unauthorized"),
        (403, status(403, "Forbidden", "pods is forbidden:\n no"), "403 Forbidden: pods is forbidden: no"),
        (410, status(410, "Expired", "too old"), "410 Gone: too old"),
        (500, b"<html>oh no</html>", "500 Whatever"),
        (503, b"", "503 Whatever"),
        (502, {"message": None}, "502 Whatever"),
        (404, b"[1]", "404 Whatever"),
        (204, b"", "204 Whatever"),
    ],
)
def test_a_refusal_is_told_in_one_line(code: int, body: Any, text: str) -> None:
    async def work(server: Server, client: Client) -> None:
        for ask in (lambda: client.api.page(PODS, "", 1), client.lines):
            asked = begin(ask())
            request = await server.next()
            request.answer(body, code)
            with pytest.raises(Refused) as refused:
                await asked
            assert str(refused.value) == text
            said = (refused.value.unauthorized, refused.value.forbidden, refused.value.gone, refused.value.busy)
            assert said == (code == 401, code == 403, code == 410, code == 503)

    both(work)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("7", 7), ("0", 0), ("99999", 120), ("9" * 400, 120), ("", 0), ("-5", 0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0)],
)
def test_the_server_may_ask_for_time_within_bounds(said: str, seconds: float) -> None:
    async def work(server: Server, client: Client) -> None:
        asked = begin(client.api.page(PODS, "", 1))
        (await server.next()).answer(status(429), 429, Retry_After=said)
        with pytest.raises(Refused) as refused:
            await asked
        assert refused.value.retry_after == seconds

    both(work)


def test_a_redirect_is_followed_without_the_credentials_of_another_server() -> None:
    async def main() -> None:
        async with kube_http.serve() as other, connected() as (server, client):
            asked = begin(client.api.page(PODS, "", 1))
            (await server.next()).answer(b"", 307, Location=f"{other.host}/there")
            request = await other.next()
            assert request.path == "/there"
            assert "authorization" not in request.headers
            request.answer(page())
            await asked

    run(main())


def test_redirects_in_a_circle_are_a_failure() -> None:
    async def work(server: Server, client: Client) -> None:
        server.always = lambda request: request.answer(b"", 302, Location="/again")
        with pytest.raises(Unreachable):
            await client.api.page(PODS, "", 1)
        assert len(server.requests) < 20

    both(work)


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Encoding: gzip\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello",
        b"HTTP/1.1 999999 Whatever\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://[::1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: ftp://nowhere/\r\nContent-Length: 0\r\n\r\n",
        b"",
        b"\0" * 1000,
    ],
)
@pytest.mark.parametrize("watching", [False, True])
def test_what_is_no_http_is_a_failure_like_any_other(garbage: bytes, watching: bool) -> None:
    async def work(server: Server, client: Client) -> None:
        def answer(request: Request) -> None:
            request.write(garbage)
            request.cut()

        server.always = answer
        with pytest.raises(Unreachable) as failed:
            await (client.lines() if watching else client.api.page(PODS, "", 1))
        assert str(failed.value)
        assert "\n" not in str(failed.value)

    both(work)


def test_a_connection_refused_is_told() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        client = Client(Configuration(f"http://127.0.0.1:{port}").loaded())
        with pytest.raises(Unreachable, match=f"127.0.0.1:{port}"):
            await client.api.page(PODS, "", 1)
        await client.api.close()

    run(main())


@pytest.mark.parametrize("host", ["", "10.0.0.1:6443", "http://", "http://[::1", "ftp://10.0.0.1", "http://a b/"])
def test_a_server_that_cannot_be_one_is_told(host: str) -> None:
    async def main() -> None:
        client = Client(Configuration(host).loaded())
        with pytest.raises(Unreachable):
            await client.api.page(PODS, "", 1)
        await client.api.close()

    run(main())


# --- silence ------------------------------------------------------------------------------


@pytest.mark.parametrize("watching", [False, True])
def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch, watching: bool) -> None:
    monkeypatch.setattr(kube_api, "ANSWER_SECONDS", 0.05)

    async def work(server: Server, client: Client) -> None:
        asked = begin(client.lines() if watching else client.api.page(PODS, "", 1))
        request = await server.next()
        with pytest.raises(Unreachable, match="no answer in time"):
            await asked
        await request.closed()

    both(work)


def test_a_refusal_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube_api, "ANSWER_SECONDS", 0.05)

    async def work(server: Server, client: Client) -> None:
        asked = begin(client.lines())
        request = await server.next()
        request.write(b"HTTP/1.1 500 Whatever\r\nContent-Length: 1000\r\n\r\nhello")
        with pytest.raises(Unreachable, match="no answer in time"):
            await asked
        await request.closed()

    both(work)


def test_a_page_that_stops_in_the_middle_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube_api, "LIST_SECONDS", 0.05)

    async def work(server: Server, client: Client) -> None:
        asked = begin(client.api.page(PODS, "", 1))
        request = (await server.next()).begin()
        await request.send(b'{"items": [')
        with pytest.raises(Unreachable):
            await asked
        await request.closed()

    both(work)


def test_a_watch_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube_api, "WATCH_SECONDS", (0, 0))
    monkeypatch.setattr(kube_api, "WATCH_SILENCE", 0.05)

    async def work(server: Server, client: Client) -> None:
        asked = begin(client.lines())
        request = (await server.next()).begin()
        with pytest.raises(Unreachable):
            await asked
        await request.closed()

    both(work)


# --- credentials --------------------------------------------------------------------------


def test_credentials_that_the_server_refuses_are_loaded_anew() -> None:
    async def work(server: Server, client: Client) -> None:
        asked = begin(client.api.page(PODS, "", 1))
        (await server.next()).answer(status(401), 401)
        with pytest.raises(Refused):
            await asked
        asked = begin(client.api.page(PODS, "", 1))
        request = await server.next()
        assert request.headers["authorization"] == "Bearer second"
        request.answer(page())
        await asked
        assert client.loads == 2

    both(work, "first", "second")


@pytest.mark.parametrize("code", [403, 410, 429, 500])
def test_other_refusals_say_nothing_of_the_credentials(code: int) -> None:
    async def work(server: Server, client: Client) -> None:
        for _ in range(3):
            asked = begin(client.api.page(PODS, "", 1))
            (await server.next()).answer(status(code), code)
            with pytest.raises(Refused):
                await asked
        assert client.loads == 1

    both(work)


def test_requests_under_way_go_on_with_the_credentials_that_they_have() -> None:
    async def work(server: Server, client: Client) -> None:
        watching = begin(client.lines())
        watch = (await server.next()).begin()
        await watch.send(EVENTS[0])
        asked = begin(client.api.page(PODS, "", 1))
        (await server.next()).answer(status(401), 401)
        with pytest.raises(Refused):
            await asked
        asked = begin(client.api.page(PODS, "", 1))
        (await server.next()).answer(page())
        await asked
        await watch.send(EVENTS[1])
        watch.end()
        assert await watching == [each.rstrip() for each in EVENTS[:2]]
        await watch.closed()  # nobody uses the connections of the first credentials any more

    both(work, "first", "second")


def test_two_that_are_refused_at_once_load_once() -> None:
    async def work(server: Server, client: Client) -> None:
        asked = [begin(client.api.page(PODS, "", 1)) for _ in range(2)]
        for request in [await server.next(), await server.next()]:
            request.answer(status(401), 401)
        await asyncio.wait(asked)
        asked += [begin(client.api.page(PODS, "", 1)) for _ in range(2)]
        for request in [await server.next(), await server.next()]:
            request.answer(page())
        await asyncio.wait(asked)
        assert client.loads == 2
        assert [type(each.exception()) for each in asked] == [Refused, Refused, type(None), type(None)]

    both(work, "first", "second")


def test_credentials_are_loaded_anew_when_they_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(server: Server, client: Client) -> None:
        for loads, expired in ((1, False), (1, False), (2, True), (2, False)):
            monkeypatch.setattr(Loaded, "expired", lambda self, expired=expired: expired)
            asked = begin(client.api.page(PODS, "", 1))
            (await server.next()).answer(page())
            await asked
            assert client.loads == loads

    both(work)


def test_a_server_that_does_not_answer_may_have_moved() -> None:
    """The configuration is loaded anew then, but not more than once a minute."""

    async def work(server: Server, client: Client) -> None:
        server.always = Request.cut
        for now, loads in ((0.0, 1), (59.0, 1), (60.0, 1), (61.0, 2), (119.0, 2), (121.0, 2), (122.0, 3)):
            client.now = now
            with pytest.raises(Unreachable):
                await client.api.page(PODS, "", 1)
            assert client.loads == loads

    both(work)


def test_a_configuration_that_cannot_be_had_is_tried_again() -> None:
    async def main() -> None:
        async with kube_http.serve() as server:
            client = Client(ConfigError("kubeconfig x: exec: failed"), Configuration(server.host).loaded())
            with pytest.raises(Unreachable, match="kubeconfig x: exec: failed"):
                await client.api.page(PODS, "", 1)
            asked = begin(client.api.page(PODS, "", 1))
            (await server.next()).answer(page())
            await asked
            await client.api.close()

    run(main())


def test_credentials_that_cannot_be_read_any_more_are_a_failure() -> None:
    """As of a pod whose token is gone."""

    async def main() -> None:
        def gone(configuration: Any) -> None:
            raise FileNotFoundError("no token")

        loaded = Configuration("http://127.0.0.1:1", refresh_api_key_hook=gone).token("first").loaded()
        client = Client(loaded)
        for loads in (1, 2):
            with pytest.raises(Unreachable, match="no token"):
                await client.api.page(PODS, "", 1)
            assert client.loads == loads
        await client.api.close()

    run(main())


@pytest.mark.parametrize(
    "others", [{"ssl_ca_cert": "/nowhere/ca.crt"}, {"cert_file": "/nowhere/client.crt"}, {"ssl_ca_cert": __file__}]
)
def test_certificates_that_are_of_no_use_are_told(others: dict[str, str]) -> None:
    async def main() -> None:
        client = Client(Configuration("https://127.0.0.1:1", **others).loaded())
        with pytest.raises(Unreachable, match="the configuration cannot be used"):
            await client.api.page(PODS, "", 1)
        await client.api.close()

    run(main())


def test_a_token_with_a_newline_is_sent_without() -> None:
    async def work(server: Server, client: Client) -> None:
        asked = begin(client.api.page(PODS, "", 1))
        request = await server.next()
        request.answer(page())
        await asked
        assert request.headers["authorization"] == "Bearer from-a-file"

    both(work, "from-a-file\n")


@pytest.mark.parametrize("entry", ["default", "machine 127.0.0.1"])
def test_a_netrc_file_is_nobodys_business(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    (tmp_path / "netrc").write_text(f"{entry} login me password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    test_a_page_is_asked_for_as_the_api_wants_it()


# --- proxies ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exceptions", "direct"),
    [
        ("", False),
        ("127.0.0.1", True),
        ("example.org, 127.0.0.0/8", True),
        ("10.0.0.0/8,fd00::/8,kubernetes.default.svc", False),
        ("*", True),
    ],
)
@pytest.mark.parametrize("scheme", ["http://", ""])
def test_a_proxy_of_the_environment_is_used_as_go_would(
    monkeypatch: pytest.MonkeyPatch, exceptions: str, direct: bool, scheme: str
) -> None:
    async def main() -> None:
        async with kube_http.serve() as proxy, connected() as (server, client):
            monkeypatch.setenv("HTTP_PROXY", scheme + proxy.host.removeprefix("http://"))
            monkeypatch.setenv("NO_PROXY", exceptions)
            asked = begin(client.api.page(PODS, "", 1))
            (await (server if direct else proxy).next()).answer(page())
            await asked
            assert (len(server.requests), len(proxy.requests)) == ((1, 0) if direct else (0, 1))

    run(main())


def test_a_proxy_of_the_configuration_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with kube_http.serve() as proxy:
            monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
            client = Client(Configuration("http://kubernetes.example", proxy=proxy.host).loaded())
            asked = begin(client.api.page(PODS, "", 1))
            request = await proxy.next()
            request.answer(page())
            await asked
            assert request.headers["host"] == "kubernetes.example"
            await client.api.close()

    run(main())


# --- cancellation -------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["loading", "asked", "refused", "page", "watch", "line"])
def test_a_request_that_is_cancelled_leaves_nothing_behind(state: str) -> None:
    async def main() -> None:
        async with kube_http.serve() as server:
            client = Client(Configuration(server.host).loaded())
            loading = asyncio.Event()

            async def load() -> Loaded:
                loading.set()
                await asyncio.Event().wait()
                raise AssertionError

            if state == "loading":
                client.api = Api(load)
            asked = begin(client.lines() if state in ("watch", "line") else client.api.page(PODS, "", 1))
            if state == "loading":
                await loading.wait()
            else:
                request = await server.next()
                if state == "refused":
                    request.write(b"HTTP/1.1 500 Whatever\r\nContent-Length: 1000\r\n\r\nhello")
                elif state != "asked":
                    request.begin()
                    await request.send(b"" if state == "watch" else EVENTS[0][:-1])
                for _ in range(10):  # turns of the loop, for the client to get there
                    await asyncio.sleep(0)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            await client.api.close()
            await server.without_connections()
            assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


# --- TLS ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of its own for 127.0.0.1, in tls.crt and tls.key."""
    folder = tmp_path_factory.mktemp("keys")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=server"]
    files = ["-keyout", f"{folder}/tls.key", "-out", f"{folder}/tls.crt", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, *files], check=True, capture_output=True)
    return folder


def test_tls_is_checked_and_the_configuration_loaded_anew_where_it_fails(keys: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(keys / "tls.crt", keys / "tls.key")

    async def main() -> None:
        async with kube_http.serve(context) as server:
            strange = Configuration(server.host).loaded()
            known = Configuration(server.host, ssl_ca_cert=str(keys / "tls.crt")).token("first").loaded()
            client = Client(strange, known)
            with pytest.raises(Unreachable, match="certificate verify failed"):
                await client.api.page(PODS, "", 1)
            asked = begin(client.lines())
            request = (await server.next()).begin()
            await request.send(b"".join(EVENTS), 3)
            request.end()
            assert await asked == [each.rstrip() for each in EVENTS]
            assert client.loads == 2
            await client.api.close()

    run(main())
