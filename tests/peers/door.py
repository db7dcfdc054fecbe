"""A door before the API server: TLS ends here and begins again, so that a test can shut it, and change requests."""

import contextlib
import re
import select
import socket
import ssl
import threading
from pathlib import Path

from .closing import Closing
from .command import HOST

CHUNK = 1 << 16
WAIT = 30.0


class Door(Closing):
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
        self.inner = inner
        self.outside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.outside.load_cert_chain(folder / "server.crt", folder / "server.key")
        self.inside = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        self._watch_seconds = watch_seconds
        self._changed = threading.Condition()
        self._held = ""
        self._reached = False
        self._listener: socket.socket | None = None
        self._porter: threading.Thread | None = None
        self._passages: list[Passage] = []
        self.open()

    def open(self) -> None:
        """Let everybody in, on the port that it had before; an open door stays open."""
        if self._listener is None:
            self._listener = socket.create_server((HOST, self.port), backlog=128)
            self.port = self._listener.getsockname()[1]
            self._porter = threading.Thread(target=self._let_in, args=(self._listener,), daemon=True)
            self._porter.start()

    def shut(self) -> None:
        """Break all connections, and refuse new ones."""
        if self._listener is not None:
            assert self._porter is not None
            self._listener.shutdown(socket.SHUT_RDWR)  # ends the porter's accept
            self._porter.join(WAIT)
            self._listener.close()
            self._listener = None
        self.drop()

    def drop(self) -> None:
        """Break all connections; new ones are welcome."""
        with self._changed:
            passages, self._passages = self._passages, []
            for passage in passages:
                passage.cut()
            self._changed.notify_all()
        for passage in passages:
            passage.join()

    def hold(self, pattern: str) -> None:
        """Let no request through whose first line has a part that matches, until `release`."""
        with self._changed:
            self._held = pattern
            self._reached = False

    def wait_held(self) -> None:
        """Wait until there is such a request."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._reached, WAIT), f"no request with {self._held}"

    def release(self) -> None:
        """Let through what was held."""
        with self._changed:
            self._held = ""
            self._changed.notify_all()

    def watches(self, what: str) -> list[str]:
        """The requests for a watch of "pods" or "services" so far."""
        return [line for line in self.requests if f"/{what}?" in line and "watch=" in line]

    def lists(self, what: str) -> list[str]:
        """The requests for the first page of a list of "pods" or "services" so far."""
        found = [line for line in self.requests if f"/{what}?" in line and "watch=" not in line]
        return [line for line in found if "continue=" not in line]

    def close(self) -> None:
        self.shut()

    def passed(self, passage: "Passage", head: bytes) -> bytes:
        """A request's head on its way in, as it is to go on; waits while it is held."""
        line = head.split(b" HTTP/")[0].decode()
        with self._changed:
            self.requests.append(line)
            if self._held and re.search(self._held, line):
                self._reached = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: not self._held or passage.is_cut)
        if self._watch_seconds is None:
            return head
        return re.sub(rb"timeoutSeconds=\d+", b"timeoutSeconds=%d" % self._watch_seconds, head, count=1)

    def _let_in(self, listener: socket.socket) -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return  # shut
            with self._changed:
                self._passages.append(Passage(self, accepted))


class Passage:
    """One connection through the door, on a thread of its own."""

    def __init__(self, door: Door, accepted: socket.socket) -> None:
        self.is_cut = False
        self._door = door
        # Wrapping takes the socket itself away, and another thread must not touch what is wrapped.
        self._handle = accepted.dup()
        self._thread = threading.Thread(target=self._run, args=(accepted,), daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Break it; does not wait."""
        self.is_cut = True
        with contextlib.suppress(OSError):
            self._handle.shutdown(socket.SHUT_RDWR)

    def join(self) -> None:
        """Wait until nothing of it is left."""
        self._thread.join(WAIT)
        self._handle.close()

    def _run(self, accepted: socket.socket) -> None:
        # Whatever fails is the end of this connection only.
        with contextlib.suppress(OSError), accepted:
            accepted.settimeout(WAIT)
            # Who has gone already is met here: wrapping would fail, and leave what it has made open.
            accepted.getpeername()
            with (
                self._door.outside.wrap_socket(accepted, server_side=True) as outer,
                socket.create_connection((HOST, self._door.inner), WAIT) as plain,
                self._door.inside.wrap_socket(plain, server_hostname=HOST) as inner,
            ):
                self._forward(outer, inner)
        # Whoever is on the other side learns of it now, also where the handle is still open.
        self.cut()

    def _forward(self, outer: ssl.SSLSocket, inner: ssl.SSLSocket) -> None:
        """Both ways, until one of them ends."""
        waiting = select.poll()
        waiting.register(outer, select.POLLIN)
        waiting.register(inner, select.POLLIN)
        request = b""
        while not self.is_cut:
            ready = {descriptor for descriptor, _ in waiting.poll()}
            if outer.fileno() in ready:
                data = _received(outer)
                if data is None:
                    return
                # Requests have no bodies, so one ends with an empty line.
                *heads, request = (request + data).split(b"\r\n\r\n")
                for head in heads:
                    _send(inner, self._door.passed(self, head + b"\r\n\r\n"))
            if inner.fileno() in ready:
                data = _received(inner)
                if data is None:
                    return
                _send(outer, data)


def _received(connection: ssl.SSLSocket) -> bytes | None:
    """What has arrived, perhaps nothing: TLS has messages of its own. None at the end."""
    connection.settimeout(0)
    data = b""
    while True:
        try:
            more = connection.recv(CHUNK)
        except ssl.SSLWantReadError:
            return data
        if not more:
            return data or None
        data += more
        if not connection.pending():
            return data


def _send(connection: ssl.SSLSocket, data: bytes) -> None:
    connection.settimeout(WAIT)
    connection.sendall(data)
