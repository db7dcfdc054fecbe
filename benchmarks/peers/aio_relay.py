"""A relay on grpc.aio that passes events as bytes: what the same work costs without a native data plane.

    python -m benchmarks.peers.aio_relay PORT NODE_PORT…

One queue a subscriber, identity serializers, no message class anywhere: nothing an asyncio program
could still leave out.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterator

from benchmarks.peers import process

WATCH_LOGS = "/feeder.LogService/WatchLogs"
_QUEUE = 1024  # events a subscriber may be behind before the node is held up


@contextlib.contextmanager
def start(nodes: list[int]) -> Iterator[process.Contender]:
    try:
        import grpc.aio  # noqa: F401
    except ImportError as error:
        raise process.Missing(f"grpcio is not installed ({error})") from error
    port = process.free_ports()[0]
    argv = [sys.executable, "-m", "benchmarks.peers.aio_relay", str(port), *map(str, nodes)]
    with (
        process.folder() as folder,
        process.program(argv, cpus=process.contender_cpus(), folder=folder) as (child, log),
    ):
        process.wait_listening(port, child, log)
        yield process.Contender("grpc.aio", [port], child, log)


async def _serve(port: int, nodes: list[int]) -> None:
    import grpc
    import grpc.aio

    queues: set[asyncio.Queue[bytes]] = set()

    async def read(node: int) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{node}") as channel:
            call = channel.unary_stream(WATCH_LOGS)(b"\x0a\x06system")
            async for event in call:
                for queue in queues:
                    await queue.put(event)

    async def watch(_request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes] = asyncio.Queue(_QUEUE)
        queues.add(queue)
        try:
            await context.send_initial_metadata(())
            while True:
                yield await queue.get()
        finally:
            queues.discard(queue)

    class Service(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
            return grpc.unary_stream_rpc_method_handler(watch) if details.method == WATCH_LOGS else None

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Service(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await asyncio.gather(*map(read, nodes))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("nodes", type=int, nargs="+")
    options = parser.parse_args()
    asyncio.run(_serve(options.port, options.nodes))


if __name__ == "__main__":
    main()
