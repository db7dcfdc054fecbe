"""Doors between plain TCP and TLS, so that every peer of the tests can meet a relay that speaks TLS.

A client that knows nothing of TLS comes in, and leaves towards the relay in TLS; or the relay comes in in TLS, and a
node hears it in plain. What ends on one side ends alike on the other: with a word (close_notify, end of file), or
without one (a reset).
"""

import contextlib
import select
import socket
import ssl
import threading

from .closing import Closing

HOST = "127.0.0.1"
WAIT = 30.0
CHUNK = 1 << 14  # little is held here, so that the relay feels what a peer does not read
HELD = 1 << 17  # nor in the kernel
RESET = b"\x01\0\0\0\0\0\0\0"  # SO_LINGER: closing sends a RST segment


class Passage:
    """One connection: bytes of `plain` become TLS on `secure`, and the reverse.

    Args:
        name: of the server, where this is a client of TLS.
        piece: bytes of each write to `secure`; 0 is no such bound.
    """

    def __init__(
        self,
        plain: socket.socket,
        secure: socket.socket,
        context: ssl.SSLContext,
        *,
        server: bool,
        name: str,
        piece: int,
    ) -> None:
        self._plain = plain
        self._secure = secure
        self._piece = piece
        self._received, self._sealed = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._received, self._sealed, server, None if server else name or HOST)
        self._shaken = False
        self._said_all = False  # `plain` has ended
        self._heard = bytearray()  # decrypted, not yet with `plain`
        self._leaving = bytearray()  # encrypted, not yet with `secure`
        self.notified = False  # the other side has said that it ends
        self.error = ""  # what TLS had against it
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """End it without a word."""
        for sock in (self._plain, self._secure):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join(WAIT)

    def _run(self) -> None:
        for sock in (self._plain, self._secure):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, HELD)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, HELD)
            sock.setblocking(False)
        try:
            self._shake()
            while self._turn():
                pass
        except ssl.SSLError as error:
            self.error = str(error)
            with contextlib.suppress(OSError):
                self._send_sealed()  # the alert that says so
            self._abandon(self._plain)
        except OSError:
            self._abandon(self._plain, self._secure)
        finally:
            self._plain.close()
            self._secure.close()

    def _turn(self) -> bool:
        """Move what can be moved. False at the end."""
        listening = self._shaken and not self._leaving and not self._said_all
        waiting = select.poll()
        for sock, reading, writing in (
            (self._secure, not self._heard, self._leaving),
            (self._plain, listening, self._heard),
        ):
            # One of which nothing is wanted now is not asked whether it has ended: it would say so again and again.
            if reading or writing:
                waiting.register(sock, (select.POLLIN if reading else 0) | (select.POLLOUT if writing else 0))
        ready = dict(waiting.poll())
        secure, plain = ready.get(self._secure.fileno(), 0), ready.get(self._plain.fileno(), 0)
        if secure & select.POLLOUT:
            self._send_sealed()
        if plain & select.POLLOUT:
            del self._heard[: self._plain.send(self._heard)]
        if secure & (select.POLLIN | select.POLLHUP | select.POLLERR) and not self._heard:
            data = self._secure.recv(CHUNK)
            if not data or not self._hear(data):
                self._part()
                return False
        if plain & (select.POLLIN | select.POLLHUP | select.POLLERR) and listening:
            data = self._plain.recv(CHUNK)
            if data:
                self._tls.write(data)
            else:
                self._said_all = True
                with contextlib.suppress(ssl.SSLWantReadError):  # the other side's word
                    self._tls.unwrap()
            self._leaving += self._sealed.read()
        return True

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
            self._shaken = True
        except ssl.SSLWantReadError:
            pass
        finally:
            self._leaving += self._sealed.read()

    def _hear(self, data: bytes) -> bool:
        """Bytes of `secure`. False when the other side has said that it ends."""
        self._received.write(data)
        if not self._shaken:
            self._shake()
        with contextlib.suppress(ssl.SSLWantReadError):
            while self._shaken:
                try:
                    read = self._tls.read(CHUNK)
                except ssl.SSLZeroReturnError:  # after our own word; before it, an empty read
                    read = b""
                if not read:
                    self.notified = True
                    return False
                self._heard += read
        self._leaving += self._sealed.read()
        return True

    def _send_sealed(self) -> None:
        self._leaving += self._sealed.read()
        with contextlib.suppress(BlockingIOError):
            del self._leaving[: self._secure.send(self._leaving[: self._piece or None])]
        if self._said_all and not self._leaving:
            self._secure.shutdown(socket.SHUT_WR)

    def _part(self) -> None:
        """The secure side has ended: hand over what it said, and let the plain one finish."""
        self._plain.settimeout(WAIT)
        self._plain.sendall(self._heard)
        self._plain.shutdown(socket.SHUT_WR)
        while self._plain.recv(CHUNK):
            pass

    @staticmethod
    def _abandon(*sockets: socket.socket) -> None:
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


class Door(Closing):
    """A loopback port that leads to another one.

    Args:
        inner: port, and host, of what is behind it.
        context: of the side that speaks TLS.
        secure_outside: whether TLS is spoken before it rather than behind it.
        name: of the server behind it, as its certificate has it; 127.0.0.1 when empty.
        piece: bytes of each write in TLS; 0 is no such bound.
    """

    def __init__(
        self,
        inner: int,
        context: ssl.SSLContext,
        *,
        secure_outside: bool = False,
        host: str = HOST,
        name: str = "",
        piece: int = 0,
    ) -> None:
        self.passages: list[Passage] = []
        self.behind: dict[tuple[str, int], tuple[str, int]] = {}  # where who came in from comes out from
        self._inner = (host, inner)
        self._context = context
        self._secure_outside = secure_outside
        self._name = name
        self._piece = piece
        self._listener = socket.create_server((HOST, 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        self._porter = threading.Thread(target=self._let_in, daemon=True)
        self._porter.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # ends the porter's accept
        self._porter.join(WAIT)
        self._listener.close()
        for passage in self.passages:
            passage.cut()
        for passage in self.passages:
            passage.join()

    def _let_in(self) -> None:
        while True:
            try:
                outside, address = self._listener.accept()
            except OSError:
                return
            try:
                inside = socket.create_connection(self._inner, WAIT)
            except OSError:
                outside.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                outside.close()
                continue
            self.behind[address] = inside.getsockname()
            secure, plain = (outside, inside) if self._secure_outside else (inside, outside)
            self.passages.append(
                Passage(plain, secure, self._context, server=self._secure_outside, name=self._name, piece=self._piece)
            )
