"""A way to a server that a test can cut, in the middle of a request too, or slow down."""

import asyncio
import contextlib
from types import TracebackType
from typing import Self

from .command import HOST

CHUNK = 1 << 14


class Cutter:
    """A loopback port that leads to another. Lives in the running loop."""

    def __init__(self, inner: int) -> None:
        self._inner = inner
        self.port = 0
        self.connections = 0
        self.cut_after = 0  # bytes of requests after which a connection breaks; 0 never
        self.cut_answers = 0  # how many answers are swallowed, with the connection, from now on
        self.delay = 0.0  # s before an answer's first byte
        self.delayed = 0
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._join(reader, writer)
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            self._connections.discard(task)
            await _end(writer)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection(HOST, self._inner)
        except OSError:
            return
        tasks = [
            asyncio.ensure_future(self._requests(reader, inner_writer)),
            asyncio.ensure_future(self._answers(inner_reader, writer)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await _end(inner_writer)

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen = 0
        while data := await reader.read(CHUNK):
            seen += len(data)
            if self.cut_after and seen > self.cut_after:
                return
            writer.write(data)
            await writer.drain()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            if self.cut_answers:
                self.cut_answers -= 1
                return
            if self.delay:
                self.delayed += 1
                await asyncio.sleep(self.delay)
            writer.write(data)
            await writer.drain()


async def _end(writer: asyncio.StreamWriter) -> None:
    """Break a connection, and wait until the loop has forgotten it."""
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
