"""A Kubernetes API server of which the test is the script: real sockets, answers byte by byte.

The test takes each request as it comes, looks at it, and answers as it likes.
"""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from relay.kube_config import Loaded

WAIT = 30.0  # a bound for a busy machine
REASONS = {200: "OK", 401: "Unauthorized", 403: "Forbidden", 410: "Gone", 429: "Too Many Requests"}

Object = dict[str, Any]


class Request:
    """A request, and the means to answer it."""

    def __init__(self, head: str, transport: asyncio.Transport, gone: asyncio.Event) -> None:
        first, *fields = head.splitlines()
        self.method, target, _ = first.split(" ")
        split = urlsplit(target)
        self.path = split.path
        self.query = dict(parse_qsl(split.query))
        self.headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        self.port: int = transport.get_extra_info("peername")[1]
        self._transport = transport
        self._gone = gone

    @property
    def watches(self) -> bool:
        return self.query.get("watch") == "true"

    def answer(self, body: Object | bytes = b"", code: int = 200, **headers: str) -> None:
        """A whole answer; in the names of headers _ stands for -."""
        encoded = json.dumps(body).encode() if isinstance(body, dict) else body
        self._head(code, {"Content-Length": str(len(encoded)), **headers})
        self._transport.write(encoded)

    def begin(self, **headers: str) -> Self:
        """The head of an answer in chunks."""
        self._head(200, {"Transfer-Encoding": "chunked", **headers})
        return self

    async def send(self, data: bytes, size: int = 1 << 30) -> None:
        """Part of the body, in chunks of at most `size` bytes, which arrive one by one."""
        for at in range(0, len(data), size):
            part = data[at : at + size]
            self.write(b"%x\r\n%s\r\n" % (len(part), part))
            await asyncio.sleep(0)

    async def event(self, kind: str, value: Object, size: int = 1 << 30) -> None:
        """A line of a watch."""
        await self.send(line(kind, value), size)

    def write(self, data: bytes) -> None:
        """Bytes of the connection itself."""
        self._transport.write(data)

    def end(self) -> None:
        """The end of an answer in chunks; the connection goes on."""
        self.write(b"0\r\n\r\n")

    def cut(self) -> None:
        """Close the connection, in the middle of whatever it is."""
        self._transport.close()

    async def closed(self) -> None:
        """Until the client has closed the connection."""
        async with asyncio.timeout(WAIT):
            await self._gone.wait()

    def _head(self, code: int, headers: dict[str, str]) -> None:
        fields = {"Content-Type": "application/json", **{name.replace("_", "-"): headers[name] for name in headers}}
        lines = [f"HTTP/1.1 {code} {REASONS.get(code, 'Whatever')}", *(f"{k}: {v}" for k, v in fields.items())]
        self.write("\r\n".join([*lines, "", ""]).encode())


class Server:
    """The server. `next` gives the requests in the order in which they came."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.host = ""
        self.always: Callable[[Request], None] | None = None  # answers all requests from now on
        self._waiting: asyncio.Queue[Request] = asyncio.Queue()
        self._idle = asyncio.Event()
        self._idle.set()

    async def next(self) -> Request:
        async with asyncio.timeout(WAIT):
            return await self._waiting.get()

    async def without_connections(self) -> None:
        """Until no client is connected."""
        async with asyncio.timeout(WAIT):
            await self._idle.wait()

    def asked(self, request: Request) -> None:
        self.requests.append(request)
        if self.always:
            self.always(request)
        else:
            self._waiting.put_nowait(request)

    def count(self, more: int) -> None:
        self.connections += more
        (self._idle.clear if self.connections else self._idle.set)()


class _Connection(asyncio.Protocol):
    def __init__(self, server: Server) -> None:
        self._server = server
        self._received = b""
        self._gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.count(1)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            self._server.asked(Request(head.decode(), self._transport, self._gone))

    def connection_lost(self, error: Exception | None) -> None:
        self._server.count(-1)
        self._gone.set()


@contextlib.asynccontextmanager
async def serve(context: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[Server]:
    """A server, on a port of its own unless told; at the end no client may be connected."""
    made = Server()
    listener = await asyncio.get_running_loop().create_server(lambda: _Connection(made), "127.0.0.1", port, ssl=context)
    made.host = f"{'https' if context else 'http'}://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with listener:
        yield made
        await made.without_connections()


class Configuration:
    """What the client library's own would hold."""

    def __init__(self, host: str, **others: Any) -> None:
        from relay.kube_config import _parts

        self.made: Any = _parts().configuration.Configuration()
        self.made.host = host
        for name, value in others.items():
            setattr(self.made, name, value)

    def token(self, token: str) -> Self:
        self.made.api_key["BearerToken"] = f"Bearer {token}"
        return self

    def loaded(self) -> Loaded:
        return Loaded(self.made, None)


def pod(name: str, *ips: str, version: int = 1, **status: Any) -> Object:
    """A pod as the API server prints it, as far as it is looked at."""
    listed = {"podIP": ips[0], "podIPs": [{"ip": ip} for ip in ips]} if ips else {}
    return {
        "metadata": {"name": name, "namespace": "default", "resourceVersion": str(version)},
        "spec": {"nodeName": f"node-of-{name}"},
        "status": {"phase": "Running", **listed, **status},
    }


def page(*objects: Object, version: int = 1, more: str = "") -> Object:
    """A page of a list."""
    return {"metadata": {"resourceVersion": str(version), "continue": more}, "items": list(objects)}


def status(code: int, reason: str = "", message: str = "") -> Object:
    """The API server's word on a failure."""
    return {"kind": "Status", "code": code, "reason": reason, "message": message}


def line(kind: str, value: Object) -> bytes:
    """A line of a watch."""
    return json.dumps({"type": kind, "object": value}).encode() + b"\n"


def bookmark(version: int) -> Object:
    """The object of a bookmark."""
    return {"kind": "Pod", "metadata": {"resourceVersion": str(version)}}
