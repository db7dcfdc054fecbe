"""A way to a server that a test can cut, in the middle of a request too, or slow down."""

import asyncio
import contextlib

from .command import HOST
from .port import Port

CHUNK = 1 << 14


class Cutter(Port):
    """A port that leads to another."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        self._inner = inner
        self.cut_after = 0  # bytes of requests after which a connection breaks; 0 never
        self.cut_answers = 0  # how many answers are swallowed, with the connection, from now on
        self.delay = 0.0  # s before an answer's first byte
        self.delayed = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(HOST, self._inner)
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
            await _end(writer)

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
