"""A door before the API server: TLS ends here and begins again, so that a test can shut it, and change requests."""

import asyncio
import contextlib
import re
import ssl
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from .command import HOST

CHUNK = 1 << 16
WAIT = 30.0


class Door:
    """A loopback port that leads to the API server's.

    Args:
        folder: the cluster's, with its certificates.
        inner: the API server's port.
        watch_seconds: how long the API server is asked to keep a watch, whatever the client asks for.
    """

    def __init__(self, folder: Path, inner: int, watch_seconds: int | None = None) -> None:
        self.port = 0
        # The first lines of all requests, without the protocol: "GET /api/v1/pods?limit=100".
        self.requests: list[str] = []
        self._inner = inner
        self._watch_seconds = watch_seconds
        self._held = ""
        self._reached = threading.Event()
        self._released = asyncio.Event()
        self._outside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._outside.load_cert_chain(folder / "server.crt", folder / "server.key")
        self._inside = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.open()

    def open(self) -> None:
        """Let everybody in, on the port that it had before; an open door stays open."""
        if self._server is None:
            self._run(self._listen())

    def shut(self) -> None:
        """Break all connections, and refuse new ones."""
        self._run(self._refuse())
        self._run(self._break())

    def drop(self) -> None:
        """Break all connections; new ones are welcome."""
        self._run(self._break())

    def hold(self, pattern: str) -> None:
        """Let no request through whose first line has a part that matches, until `release`."""
        self._reached.clear()
        self._released.clear()
        self._held = pattern

    def wait_held(self) -> None:
        """Wait until there is such a request."""
        assert self._reached.wait(WAIT), f"no request with {self._held}"

    def release(self) -> None:
        """Let through what was held."""
        self._held = ""
        self._loop.call_soon_threadsafe(self._released.set)

    def watches(self, what: str) -> list[str]:
        """The requests for a watch of "pods" or "services" so far."""
        return [line for line in self.requests if f"/{what}?" in line and "watch=" in line]

    def lists(self, what: str) -> list[str]:
        """The requests for the first page of a list of "pods" or "services" so far."""
        found = [line for line in self.requests if f"/{what}?" in line and "watch=" not in line]
        return [line for line in found if "continue=" not in line]

    def close(self) -> None:
        self.shut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT)
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, work: "asyncio.Future[None] | object") -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT)  # type: ignore[arg-type]

    async def _listen(self) -> None:
        # Without TLS at first: a connection in its handshake would be nobody's, and nobody could break it.
        self._server = await asyncio.start_server(self._accepted, HOST, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def _break(self) -> None:
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        for _ in range(3):
            await asyncio.sleep(0)  # in which the loop closes the sockets of those

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._join(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        # Here, because a task that is cancelled before it has begun never does anything.
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Whatever fails is the end of this connection only.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await writer.start_tls(self._outside)
            inner_reader, inner_writer = await asyncio.open_connection(HOST, self._inner, ssl=self._inside)
            try:
                await self._forward(reader, writer, inner_reader, inner_writer)
            finally:
                inner_writer.transport.abort()

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        inner_reader: asyncio.StreamReader,
        inner_writer: asyncio.StreamWriter,
    ) -> None:
        """Both ways, until one of them ends."""
        both = [
            asyncio.ensure_future(_copy(inner_reader, writer)),
            asyncio.ensure_future(self._requests(reader, inner_writer)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Requests on their way in. They have no bodies, so one ends with an empty line."""
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(head.split(b" HTTP/")[0].decode())
            if self._held and re.search(self._held, self.requests[-1]):
                self._reached.set()
                await self._released.wait()
            if self._watch_seconds is not None:
                head = re.sub(rb"timeoutSeconds=\d+", b"timeoutSeconds=%d" % self._watch_seconds, head, count=1)
            writer.write(head)
            await writer.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
