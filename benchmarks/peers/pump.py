"""The floor: what the kernel alone asks for moving these bytes.

    python -m benchmarks.peers.pump relay PORT NODE_PORT    read from the node, write to the subscriber
    python -m benchmarks.peers.pump write PORT COUNT        write made-up frames to COUNT subscribers, over and over

One thread, blocking calls, 256 KiB a call. The interpreter's share is two calls' overhead in that
many bytes, 330 events: about 2 ns an event (docs/benchmarks.md has the measurement).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
from collections.abc import Iterator

from benchmarks.load import events
from benchmarks.peers import process

BLOCK = 256 * 1024


def _accept(port: int, count: int) -> list[socket.socket]:
    with socket.create_server(("127.0.0.1", port), backlog=128) as listener:
        return [listener.accept()[0] for _ in range(count)]


def _relay(port: int, node_port: int) -> None:
    """Plain bytes from the node to one subscriber, until either has gone."""
    (subscriber,) = _accept(port, 1)
    node = socket.create_connection(("127.0.0.1", node_port))
    source, target, write, readv = node.fileno(), subscriber.fileno(), os.write, os.readv
    buffer = bytearray(BLOCK)
    buffers = [buffer]
    view = memoryview(buffer)
    while size := readv(source, buffers):
        sent = write(target, view[:size])
        while sent < size:
            sent += write(target, view[sent:size])


def _write(port: int, count: int) -> None:
    """The same frames to each subscriber in turn: one writev of header and payload pieces, 16 KiB each.

    Begins when a line comes on standard input.
    """
    accepted = _accept(port, count)
    subscribers = [s.fileno() for s in accepted]
    one = events.frame(events.event())
    payload = one * (16_384 // len(one))  # as many whole messages as one DATA frame takes
    pieces = [b"\0" * 9, payload] * (BLOCK // (len(payload) + 9))
    size = sum(map(len, pieces))
    joined = memoryview(b"".join(pieces))
    writev, write = os.writev, os.write
    sys.stdin.readline()
    while True:
        for target in subscribers:
            sent = writev(target, pieces)
            while sent < size:
                sent += write(target, joined[sent:])


@contextlib.contextmanager
def start(nodes: list[int]) -> Iterator[process.Contender]:
    """Needs a node and a subscriber that are plain: no HTTP/2."""
    with _start("relay", str(nodes[0])) as contender:
        yield contender


@contextlib.contextmanager
def start_writer(subscribers: int) -> Iterator[process.Contender]:
    """Writes without any node, from when a line is written to its standard input."""
    with _start("write", str(subscribers)) as contender:
        yield contender


@contextlib.contextmanager
def _start(work: str, argument: str) -> Iterator[process.Contender]:
    port = process.free_ports()[0]
    argv = [sys.executable, "-m", "benchmarks.peers.pump", work, str(port), argument]
    with (
        process.folder() as folder,
        process.program(argv, cpus=process.contender_cpus(), folder=folder, stdin=-1) as (child, log),
    ):
        process.wait_listening(port, child, log)
        yield process.Contender("pump" if work == "relay" else "writev", [port], child, log)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=["relay", "write"])
    parser.add_argument("port", type=int)
    parser.add_argument("number", type=int, help="the node's port, or how many subscribers")
    options = parser.parse_args()
    with contextlib.suppress(ConnectionError, KeyboardInterrupt):
        (_relay if options.work == "relay" else _write)(options.port, options.number)


if __name__ == "__main__":
    main()
