"""The Kubernetes API: pages of a list, and the lines of a watch, as bytes.

HTTP, TLS, proxies and credentials are the `kubernetes` package's. Credentials that have expired, or
that the server refuses, are loaded anew with the next request.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from relay.kube_config import ConfigError, Loaded, rest_client
from relay.objects import Status, status

CONNECT_SECONDS = 15.0  # TCP and TLS
LIST_SECONDS = 60.0  # a page
ANSWER_SECONDS = 60.0  # until the server has begun to answer, with a watch, too
# The server ends a watch after about so long; a random part keeps watches from ending together.
WATCH_SECONDS = (240, 300)
WATCH_SILENCE = 30.0  # how much longer than that a watch may stay without a word
RETRY_AFTER_MOST = 120.0  # seconds that the server can make us wait
RELOAD_SECONDS = 60.0  # between two loads of the configuration because nothing answers
LINE_BYTES = 16 << 20  # an object has at most about 1.5 MiB
READ_BUFFER = 256 << 10


class ApiError(Exception):
    """The API could not be used; the text is one line."""


class Unreachable(ApiError):
    """No answer: no credentials, no connection, or one that broke."""


class Refused(ApiError):
    """An answer, and a failure. `code` is HTTP's, `retry_after` seconds that the server asked to wait."""

    def __init__(self, code: int, reason: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(f"{code} {reason}: {message}" if message else f"{code} {reason}")
        self.code = code
        self.retry_after = retry_after

    @property
    def unauthorized(self) -> bool:
        """The credentials are not good (any more)."""
        return self.code == 401

    @property
    def forbidden(self) -> bool:
        """The credentials are good, but lack a right."""
        return self.code == 403

    @property
    def gone(self) -> bool:
        """The version, or the page, that was asked for is too old."""
        return self.code == 410

    @property
    def busy(self) -> bool:
        """The server has too much to do."""
        return self.code in (429, 503)


@dataclass(frozen=True, slots=True)
class Resource:
    """A collection of objects of the core API."""

    name: str  # plural, as in a role's rules
    namespace: str = ""  # all when empty
    selector: str = ""  # of labels

    @property
    def path(self) -> str:
        """Its path on the server."""
        place = f"namespaces/{quote(self.namespace, safe='')}/" if self.namespace else ""
        return f"/api/v1/{place}{self.name}"

    def __str__(self) -> str:
        where = f"namespace {self.namespace}" if self.namespace else "all namespaces"
        return f"{self.name} in {where}"


class _Session(NamedTuple):
    """A loaded configuration and its connections."""

    loaded: Loaded
    client: Any  # kubernetes.aio.client.rest.RESTClientObject
    since: float


class Api:
    """One API server. Every method runs on the loop's thread."""

    def __init__(self, load: Callable[[], Awaitable[Loaded]], clock: Callable[[], float] = time.monotonic) -> None:
        self._load = load
        self._clock = clock
        self._session: _Session | None = None
        self._users: dict[int, int] = {}  # requests under way, by the identity of their client
        self._loading = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    async def page(self, resource: Resource, continuation: str, limit: int) -> bytes:
        """A page of at most `limit` objects, as JSON; `continuation` is "" for the first.

        Raises:
            ApiError: the server cannot be reached, or refuses.
        """
        query = {"limit": str(limit), "continue": continuation, "labelSelector": resource.selector}
        async with self._get(resource.path, query, LIST_SECONDS, LIST_SECONDS) as response:
            body: bytes = await response.read()
            return body

    async def watch(self, resource: Resource, version: str) -> AsyncGenerator[bytes, None]:
        """The lines of a watch from a version on, until the server ends it.

        An empty line comes first: the server has begun to answer.

        Raises:
            ApiError: the server cannot be reached, refuses, or goes away.
        """
        seconds = random.randint(*WATCH_SECONDS)  # noqa: S311 - not a secret
        query = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
            "labelSelector": resource.selector,
        }
        async with self._get(resource.path, query, None, seconds + WATCH_SILENCE) as response:
            yield b""
            rest = bytearray()
            async for chunk in response.content.iter_any():
                *lines, last = chunk.split(b"\n")
                if lines:
                    yield bytes(rest + lines[0])
                    rest.clear()
                    for line in lines[1:]:
                        yield line
                rest += last
                if len(rest) > LINE_BYTES:
                    raise Unreachable(f"the watch sent a line of more than {LINE_BYTES} bytes")

    def forget_credentials(self) -> None:
        """Load the configuration anew with the next request; requests under way go on."""
        session, self._session = self._session, None
        if session is not None and not self._users.get(id(session.client)):
            self._close_later(session)

    async def close(self) -> None:
        """Let go of the connections; call it when no request is under way any more."""
        session, self._session = self._session, None
        if session is not None:
            self._close_later(session)
        await asyncio.gather(*self._closing)

    @contextlib.asynccontextmanager
    async def _get(self, path: str, query: dict[str, str], total: float | None, silence: float) -> AsyncIterator[Any]:
        """A response with status 200."""
        import aiohttp
        from yarl import URL

        session = await self._open()
        self._users[id(session.client)] = self._users.get(id(session.client), 0) + 1
        response = None
        try:
            headers = {**_HEADERS, **await session.loaded.headers()}
            filled = urlencode({name: value for name, value in query.items() if value})
            url = URL(f"{session.loaded.configuration.host}{path}?{filled}", encoded=True)
            timeout = aiohttp.ClientTimeout(total=total, connect=CONNECT_SECONDS, sock_read=silence)
            async with asyncio.timeout(ANSWER_SECONDS):
                response = (await session.client.request("GET", url, headers, _request_timeout=timeout)).response
                if response.status != 200:
                    raise await _refusal(response)
            yield response
        except Refused as error:
            if error.unauthorized:
                self._drop(session)
            raise
        except ConfigError as error:
            self._drop(session)
            raise Unreachable(str(error)) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            if isinstance(error, aiohttp.ClientSSLError) or self._clock() - session.since >= RELOAD_SECONDS:
                self._drop(session)  # its certificates, or the server's address, may have changed
            broken = isinstance(error, aiohttp.ClientPayloadError)
            raise Unreachable("the connection broke" if broken else _text(error)) from None
        finally:
            if response is not None:
                response.close()
            self._users[id(session.client)] -= 1
            if not self._users[id(session.client)]:
                del self._users[id(session.client)]
                if session is not self._session:
                    self._close_later(session)

    async def _open(self) -> _Session:
        """The session, made anew where it is missing or its credentials have expired."""
        async with self._loading:
            if self._session is not None and self._session.loaded.expired():
                self.forget_credentials()
            if self._session is None:
                try:
                    loaded = await self._load()
                    self._session = _Session(loaded, _client(loaded.configuration), self._clock())
                except ConfigError as error:
                    raise Unreachable(str(error)) from None
                except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
                    raise Unreachable(f"the configuration cannot be used: {_text(error)}") from None
            return self._session

    def _drop(self, session: _Session) -> None:
        if session is self._session:
            self.forget_credentials()

    def _close_later(self, session: _Session) -> None:
        task = asyncio.get_running_loop().create_task(session.client.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "kubearmor-relay"}


def _client(configuration: Any) -> Any:
    """The library's HTTP client, on connections that notice when the other side is gone."""
    import aiohttp

    client = rest_client().RESTClientObject(configuration)
    client.proxy = client.proxy or _proxy(configuration.host)
    client.pool_manager = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=client.ssl_context, limit=0, socket_factory=_socket),
        read_bufsize=READ_BUFFER,
        # Not trust_env: it would look for ~/.netrc, in a thread, at each request, and refuse to send a token
        # to a server that is in there.
    )
    return client


def _proxy(server: str) -> str | None:
    """The proxy that the environment names for a server, as Go reads it: NO_PROXY may hold networks."""
    from urllib.request import getproxies, proxy_bypass

    from yarl import URL

    url = URL(server)
    host = url.host or ""
    proxies = getproxies()
    proxy = proxies.get(url.scheme)
    if not proxy or proxy_bypass(host) or _in_networks(host, proxies.get("no", "").split(",")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _in_networks(host: str, networks: list[str]) -> bool:
    for network in networks:
        with contextlib.suppress(ValueError):  # a name
            if ip_address(host) in ip_network(network.strip(), strict=False):
                return True
    return False


def _socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket whose silent peer is found out within about half a minute."""
    family, kind, protocol = address[:3]
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
    return made


async def _refusal(response: Any) -> Refused:
    """What the server says of a failure, in its Status object or otherwise."""
    try:
        said = status(await response.read())
    except Exception:  # not from an API server, or cut off: its status line has to do
        said = Status()
    message = " ".join((said.message or "").split())
    wait = response.headers.get("Retry-After", "")
    seconds = min(float(wait), RETRY_AFTER_MOST) if wait.isdecimal() else 0.0
    return Refused(response.status, response.reason or said.reason, message, seconds)


def _text(error: BaseException) -> str:
    return " ".join(str(error).split()) or ("no answer in time" if isinstance(error, TimeoutError) else repr(error))
