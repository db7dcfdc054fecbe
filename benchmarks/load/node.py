"""Nodes made for load: serve feeder.LogService and send events, one DATA frame each.

    python -m benchmarks.load.node --nodes 100

prints the ports it listens on, a line of numbers, and then obeys lines on standard input:

    wait STREAMS                answer "ready" when so many streams are open, all nodes together
    flat COUNT AHEAD            send COUNT events from each node on each feed, as fast as they are taken, but at
                                most AHEAD more than the last "got" said (0: no such bound)
    got COUNT                   the subscribers, the slowest of them, have received COUNT events of this "flat"
    pace RATE COUNT BURST       send COUNT events from each node on each feed at RATE a second, BURST in one
                                write, all of them stamped with the time

flat and pace answer with a line "sent COUNT NANOSECONDS" (all nodes together). It ends when standard input does.
Events go on the feeds that --feeds names (logs alone, if none), whatever a subscriber asks for.

What is sent flat out is made beforehand: the cost of an event is a memory copy in the kernel, so
that the source is never what a flat-out row measures. With --plain nothing but those bytes is
exchanged: no HTTP/2, for the bare pump. With --tls FOLDER a node speaks mTLS with the files of that folder.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import socket
import time
from pathlib import Path

from benchmarks.load import events, http2

CHUNK = 256 * 1024  # of one send
VARIETY = 331  # different events: as many as make a chunk
RESPONSE = http2.literal_headers([("content-type", "application/grpc")])
STATUS_200 = b"\x88"  # RFC 7541, static table, :status 200
TRAILERS = http2.literal_headers([("grpc-status", "0")])


class Connection:
    """One accepted connection: what it asked for, and how much it may be sent."""

    def __init__(self, sock: socket.socket, plain: bool, made: dict[str, list[bytes]]) -> None:
        from hpack import Decoder  # not needed, and not imported, where there is no HTTP/2

        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.plain = plain
        self.made = made
        self.frames = http2.Frames()
        self.decoder = Decoder()
        self.preface = 0 if plain else len(http2.PREFACE)
        self.first_window = http2.FIRST_WINDOW
        self.window = http2.LARGEST_WINDOW if plain else http2.FIRST_WINDOW
        self.windows: dict[int, int] = {}
        self.feeds = {0: events.LOGS_PATH} if plain else {}  # streams to which events go, and of which feed
        if plain:
            self.windows[0] = http2.LARGEST_WINDOW
        self.checks: set[int] = set()
        self.out = bytearray()
        self.writable = True
        if not plain:
            self.out += http2.settings({http2.MAX_CONCURRENT_STREAMS: 1000})
            self.flush()

    def flush(self) -> None:
        """Send what control frames there are; they go between the events, never into one."""
        while self.out:
            try:
                sent = self.sock.send(self.out)
            except BlockingIOError:
                select.select([], [self.sock], [])
                continue
            del self.out[:sent]

    def receive(self) -> bool:
        """Take what has come. False when the peer has gone."""
        try:
            data = self.sock.recv(65_536)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        if not data:
            return False
        if self.plain:
            return True
        skip = min(self.preface, len(data))
        self.preface -= skip
        for kind, flags, stream, payload in self.frames.feed(memoryview(data)[skip:]):
            self._take(kind, flags, stream, payload)
        return True

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == http2.WINDOW_UPDATE:
            size = int.from_bytes(payload, "big")
            if stream == 0:
                self.window += size
            elif stream in self.windows:
                self.windows[stream] += size
        elif kind == http2.SETTINGS and not flags & http2.ACK:
            for at in range(0, len(payload), 6):
                if int.from_bytes(payload[at : at + 2], "big") == http2.INITIAL_WINDOW_SIZE:
                    size = int.from_bytes(payload[at + 2 : at + 6], "big")
                    for known in self.windows:
                        self.windows[known] += size - self.first_window
                    self.first_window = size
            self.out += http2.pack(http2.SETTINGS, http2.ACK, 0)
        elif kind == http2.PING and not flags & http2.ACK:
            self.out += http2.pack(http2.PING, http2.ACK, 0, payload)
        elif kind == http2.HEADERS:
            self._request(stream, dict(self.decoder.decode(http2.block(flags, payload))))
        elif kind == http2.DATA:
            self.out += http2.window_update(0, len(payload)) if payload else b""
            if stream in self.checks and len(payload) >= 5:
                self.checks.discard(stream)
                self._reply(stream, payload)
        elif kind == http2.RST_STREAM:
            self.windows.pop(stream, None)
            self.feeds.pop(stream, None)

    def _request(self, stream: int, fields: dict[str, str]) -> None:
        path = fields[":path"]
        self.windows[stream] = self.first_window
        if path.endswith("/HealthCheck"):
            self.checks.add(stream)
            return
        self.out += http2.pack(http2.HEADERS, http2.END_HEADERS, stream, STATUS_200 + RESPONSE)
        if path in self.made:
            self.feeds[stream] = path

    def _reply(self, stream: int, request: bytes) -> None:
        """HealthCheck: the reply's field 1 is the request's field 1, so the message is the same bytes."""
        self.out += http2.pack(http2.HEADERS, http2.END_HEADERS, stream, STATUS_200 + RESPONSE)
        self.out += http2.pack(http2.DATA, 0, stream, request)
        self.out += http2.pack(http2.HEADERS, http2.END_HEADERS | http2.END_STREAM, stream, TRAILERS)
        self.windows.pop(stream, None)

    def data(self, stream: int) -> list[bytes]:
        """Events, each in its DATA frame; without HTTP/2 the same bytes, as a stand-in of the same length."""
        return [http2.pack(http2.DATA, 0, stream, events.frame(event)) for event in self.made[self.feeds[stream]]]


class Source:
    """All nodes of this process."""

    def __init__(self, nodes: int, plain: bool, made: dict[str, list[bytes]], tls: Path | None = None) -> None:
        self.plain = plain
        self.tls = tls
        self.made = made
        self.frame = len(next(iter(made.values()))[0]) + 5
        self.poll = select.epoll()
        self.listeners: dict[int, socket.socket] = {}
        self.connections: dict[int, Connection] = {}
        self.ports = []
        for _ in range(nodes):
            listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
            listener.setblocking(False)
            self.listeners[listener.fileno()] = listener
            self.poll.register(listener, select.EPOLLIN)
            self.ports.append(listener.getsockname()[1])
        self.poll.register(0, select.EPOLLIN)
        self.heard = b""  # the piece of a command that is not a whole line yet
        self.commands: list[list[str]] = []
        self.ended = False
        self.got = 0

    def turn(self, timeout: float) -> None:
        """Serve what is ready, and hear commands."""
        for fd, _ in self.poll.poll(timeout):
            if fd in self.listeners:
                sock, _peer = self.listeners[fd].accept()
                if self.tls:
                    from benchmarks.load import secure  # not needed, and not imported, without TLS

                    sock = secure.wrap(sock, self.tls, server=True)
                self.connections[sock.fileno()] = Connection(sock, self.plain, self.made)
                self.poll.register(sock, select.EPOLLIN)
            elif fd in self.connections:
                connection = self.connections[fd]
                if connection.receive():
                    connection.flush()
                else:
                    self.poll.unregister(fd)
                    del self.connections[fd]
                    connection.sock.close()
            else:
                self._hear()

    def _hear(self) -> None:
        data = os.read(0, 65_536)
        self.ended = not data
        *lines, self.heard = (self.heard + data).split(b"\n")
        for line in lines:
            words = line.decode().split()
            if words[0] == "got":
                self.got = int(words[1])
            else:
                self.commands.append(words)

    def flat(self, count: int, ahead: int) -> int:
        """Send `count` events on every stream, one connection after the other in chunks."""
        self.got = 0
        sent = 0
        work = []
        for connection in self.connections.values():
            for stream in list(connection.feeds):
                frames = connection.data(stream)
                size = len(frames[0])
                whole = [frames[i % len(frames)] for i in range(CHUNK // size)]
                work.append([connection, stream, memoryview(b"".join(whole)), size, count])
        while work:
            for item in list(work):
                connection, stream, chunk, size, left = item
                room = min(connection.window, connection.windows.get(stream, 0)) // self.frame
                if ahead:
                    room = min(room, ahead - (count - left - self.got))
                take = min(left, len(chunk) // size, room)
                if take <= 0 or not self._send(connection, chunk[: take * size]):
                    if connection.sock.fileno() < 0 or stream not in connection.windows or self.ended:
                        work.remove(item)  # the subscriber went away
                        continue
                    self.turn(0.05)
                    continue
                if ahead:
                    self.turn(0)
                if not self.plain:
                    connection.window -= take * self.frame
                    connection.windows[stream] -= take * self.frame
                    connection.receive()
                    connection.flush()
                sent += take
                item[4] -= take
                if not item[4]:
                    work.remove(item)
        return sent

    def _send(self, connection: Connection, data: memoryview) -> bool:
        """All of it, or nothing because the peer has gone: never half an event."""
        while data:
            try:
                data = data[connection.sock.send(data) :]
            except BlockingIOError:
                select.select([], [connection.sock], [], 1.0)
            except OSError:
                connection.windows.clear()
                return False
        return True

    def pace(self, rate: float, count: int, burst: int) -> int:
        """Send `count` events on every stream at `rate`; nodes begin at random places of their period."""
        places = random.Random(20_000)
        period = burst / rate
        lanes = []
        for connection in self.connections.values():
            for stream in list(connection.feeds):
                data = bytearray(b"".join((connection.data(stream) * burst)[:burst]))
                lanes.append((places.random() * period, connection, stream, data))
        lanes.sort(key=lambda lane: lane[0])
        size = self.frame * burst
        step = size // burst + http2.HEADER
        begin = time.perf_counter()
        sent = 0
        for tick in range(count // burst):
            for offset, connection, stream, data in lanes:
                due = begin + tick * period + offset
                while (now := time.perf_counter()) < due:
                    if due - now > 0.002:
                        self.turn(due - now - 0.001)  # there is time to hear the peers
                    else:
                        time.sleep(due - now)
                if not self.plain:
                    while min(connection.window, connection.windows.get(stream, 0)) < size:
                        if stream not in connection.windows:
                            return sent
                        self.turn(0.01)
                    connection.window -= size
                    connection.windows[stream] -= size
                moment = time.time_ns()
                for at in range(http2.HEADER, len(data), step):
                    events.stamp(data, at, moment)
                if not self._send(connection, memoryview(data)):
                    return sent
                sent += burst
            if tick % 16 == 0:
                self.turn(0)
        return sent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--feeds", type=int, nargs="+", default=[events.LOGS])
    parser.add_argument("--event-bytes", type=int, default=events.EVENT_BYTES)
    parser.add_argument("--layouts", type=int, default=VARIETY, help="different events, sent in turn")
    parser.add_argument("--plain", action="store_true", help="events' bytes alone, without HTTP/2")
    parser.add_argument("--tls", type=Path, help="folder of ca.crt, server.crt and server.key")
    options = parser.parse_args()
    made = {events.PATHS[feed]: events.varied(feed, options.event_bytes, options.layouts) for feed in options.feeds}
    source = Source(options.nodes, options.plain, made, options.tls)
    print(*source.ports, flush=True)
    while True:
        while not source.commands:
            if source.ended:
                return
            source.turn(-1)
        words = source.commands.pop(0)
        if words[0] == "wait":
            while sum(len(connection.feeds) for connection in source.connections.values()) < int(words[1]):
                source.turn(-1)
            print("ready", flush=True)
            continue
        begin = time.perf_counter_ns()
        if words[0] == "flat":
            sent = source.flat(int(words[1]), int(words[2]))
        else:
            sent = source.pace(float(words[1]), int(words[2]), int(words[3]))
        print("sent", sent, time.perf_counter_ns() - begin, flush=True)


if __name__ == "__main__":
    main()
