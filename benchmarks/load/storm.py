"""A storm of TLS handshakes: connections that all begin theirs at once, with nothing left to do but that.

    python -m benchmarks.load.storm PORT COUNT FOLDER

connects COUNT times, makes what each would say first, prints "ready", and lets go when a line comes on standard
input. It prints "shaken DONE NANOSECONDS" when all handshakes are over, and holds the connections until standard
input ends.
"""

from __future__ import annotations

import argparse
import contextlib
import select
import socket
import ssl
import sys
import time
from pathlib import Path

from benchmarks.load import secure

READ = 65_536


class Handshake:
    """One connection; what it will say is in memory until it may."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setblocking(False)
        self.heard, self.said = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.heard, self.said, server_hostname=secure.NAME)
        self.over = self.done = False
        self.step()

    def step(self) -> None:
        """As far as it goes with what was heard."""
        try:
            self.tls.do_handshake()
            self.over = self.done = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self.over = True

    def speak(self) -> None:
        """Less than a socket holds, so it goes at once."""
        with contextlib.suppress(OSError):
            self.sock.send(self.said.read())

    def hear(self) -> None:
        try:
            data = self.sock.recv(READ)
        except OSError:
            data = b""
        if not data:
            self.over = True
            return
        self.heard.write(data)
        self.step()
        self.speak()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    context = secure.client_context(options.folder)
    waiting = {}
    poll = select.epoll()
    for _ in range(options.count):
        handshake = Handshake(options.port, context)
        waiting[handshake.sock.fileno()] = handshake
    shaken = list(waiting.values())
    print("ready", flush=True)
    sys.stdin.readline()
    begin = time.perf_counter_ns()
    for handshake in shaken:
        handshake.speak()
        poll.register(handshake.sock, select.EPOLLIN)
    while waiting:
        for fd, _ in poll.poll():
            waiting[fd].hear()
            if waiting[fd].over:
                poll.unregister(fd)
                del waiting[fd]
    print("shaken", sum(handshake.done for handshake in shaken), time.perf_counter_ns() - begin, flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
