"""TLS of load nodes and sinks, and what holds every contender to the same of it.

Ciphers differ in what they cost, and client and server have a say in which it is. So all programs of a row run
under a configuration of OpenSSL (OPENSSL_CONF) that leaves one version and one cipher, and load nodes and sinks
look at what came of it.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers import process

VERSION = "TLSv1.3"
CIPHER = "TLS_AES_128_GCM_SHA256"  # what grpc-go, which is on both sides of a relay in the field, prefers
NAME = "localhost"  # what every server's certificate is good for, besides 127.0.0.1
OVERHEAD = 5 + 1 + 16  # bytes of a record besides what it carries: header, content type, tag (RFC 8446, 5.2)
_CONFIGURATION = f"""\
openssl_conf = openssl
[openssl]
ssl_conf = ssl
[ssl]
system_default = defaults
[defaults]
MinProtocol = {VERSION}
Ciphersuites = {CIPHER}
"""


class Socket(ssl.SSLSocket):
    """A TLS socket that says "not now" as a plain one does, and lets the kernel drop what was not decrypted."""

    def send(self, data: Any, flags: int = 0) -> int:
        try:
            return super().send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        try:
            return super().recv(buflen)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        if flags & socket.MSG_TRUNC:
            # Records that nobody will ask for: a session that only writes from now on does not miss them.
            return socket.socket.recv_into(self, buffer, nbytes or 0, flags)
        try:
            return super().recv_into(buffer, nbytes)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None


@dataclass(frozen=True)
class Secured:
    """What a row with TLS has in common: files as the relay takes them, and the environment of all programs."""

    folder: Path
    environment: dict[str, str]


@contextlib.contextmanager
def secured() -> Iterator[Secured]:
    """Certificates and the configuration, as long as the row runs."""
    from tests.peers import certificates

    with process.folder() as folder:
        ca = certificates.authority()
        leaf = ca.issue("127.0.0.1", NAME)
        certificates.write_folder(folder, ca, server=leaf, client=leaf)
        path = folder / "openssl.cnf"
        path.write_text(_CONFIGURATION)
        yield Secured(folder, {"OPENSSL_CONF": str(path)})


def client_context(folder: Path) -> ssl.SSLContext:
    return _context(folder, "client", ssl.PROTOCOL_TLS_CLIENT)


def _context(folder: Path, own: str, protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(folder / "ca.crt")
    context.load_cert_chain(folder / f"{own}.crt", folder / f"{own}.key")
    context.set_alpn_protocols(["h2"])
    context.sslsocket_class = Socket
    return context


def wrap(sock: socket.socket, folder: Path, *, server: bool) -> Socket:
    """mTLS on a connected socket, with the files that the relay itself takes from a folder; does not block afterwards.

    Raises:
        ValueError: it came to another version or cipher than all contenders shall have.
    """
    context = _context(folder, "server", ssl.PROTOCOL_TLS_SERVER) if server else client_context(folder)
    sock.setblocking(True)
    made = context.wrap_socket(sock, server_side=server, server_hostname=None if server else NAME)
    assert isinstance(made, Socket)
    made.setblocking(False)
    cipher = made.cipher()
    if (made.version(), cipher and cipher[0]) != (VERSION, CIPHER):
        raise ValueError(f"{made.version()} with {cipher and cipher[0]}, not {VERSION} with {CIPHER}")
    return made
