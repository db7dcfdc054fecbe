"""A server that reads requests, and answers with whatever bytes a test wants."""

import asyncio
from collections.abc import Awaitable, Callable

from .command import HOST
from .port import Port

# What follows a request: bytes that go out, and whether the connection stays.
Answer = Callable[[bytes, bytes], Awaitable[tuple[bytes, bool]]]


def http(status: str, body: bytes = b"", **headers: str) -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Answers(Port):
    """A port for HTTP.

    Args:
        answer: given the head and the body of a request.
        where: the address to listen on.
    """

    def __init__(self, answer: Answer, where: str = HOST) -> None:
        super().__init__(where)
        self._answer = answer
        self.requests: list[tuple[bytes, bytes]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stays = True
        while stays:
            head = await reader.readuntil(b"\r\n\r\n")
            lengths = [line for line in head.splitlines() if line.lower().startswith(b"content-length:")]
            body = await reader.readexactly(int(lengths[0].split(b":")[1])) if lengths else b""
            self.requests.append((head, body))
            data, stays = await self._answer(head, body)
            writer.write(data)
            await writer.drain()
