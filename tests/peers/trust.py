"""A relay and its peers that trust each other: one CA, and a certificate that is good for all of them."""

import functools
import socket
import ssl
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc

from relay import _fastpath

from .certificates import Authority, Leaf, authority, operator_authority, write_folder

NAME = "relay.test"
WAIT = 30.0
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"  # and empty SETTINGS
NAMES = ("127.0.0.1", "::1", "localhost", NAME)


@dataclass(frozen=True)
class Trust:
    """Who trusts whom: everybody the CA, and everybody shows the leaf.

    Args:
        kernel: whether the kernel encrypts for a relay, where it can.
    """

    ca: Authority
    leaf: Leaf
    kernel: bool = True

    def server(self, **rules: Any) -> _fastpath.Tls:
        """What a relay speaks with subscribers; `rules` are client_auth and allow."""
        return self._side(True, **rules)

    def client(self) -> _fastpath.Tls:
        """What a relay speaks with nodes."""
        return self._side(False)

    def context(self, *, server: bool, leaf: Leaf | None = None) -> ssl.SSLContext:
        """A peer's side, by Python and so by OpenSSL: mTLS and h2, and nothing else.

        Args:
            leaf: another certificate than everybody's.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self.ca.pem.decode())
        context.set_alpn_protocols(["h2"])
        load(context, leaf or self.leaf)
        return context

    def channel(self) -> grpc.ChannelCredentials:
        """A subscriber's side, by grpcio and so by BoringSSL."""
        return grpc.ssl_channel_credentials(self.ca.pem, self.leaf.key_pem, self.leaf.certificate_pem)

    def node(self) -> grpc.ServerCredentials:
        """A node's side, by the same."""
        pair = (self.leaf.key_pem, self.leaf.certificate_pem)
        return grpc.ssl_server_credentials([pair], self.ca.pem, require_client_auth=True)

    def write(self, folder: Path) -> Path:
        """The files that everybody takes from a folder."""
        return write_folder(folder, self.ca, server=self.leaf, client=self.leaf)

    def _side(self, server: bool, **rules: Any) -> _fastpath.Tls:
        return _fastpath.Tls(
            server=server,
            certificate=self.leaf.certificate_pem,
            key=self.leaf.key_pem,
            root=self.ca.pem,
            kernel=self.kernel,
            **rules,
        )


def load(context: ssl.SSLContext, leaf: Leaf) -> None:
    """Show this certificate. (Python reads it from files only.)"""
    with tempfile.TemporaryDirectory(prefix="relay-leaf-") as name:
        folder = write_folder(Path(name), Authority(b"", b""), server=leaf)
        context.load_cert_chain(folder / "server.crt", folder / "server.key")


def knock(port: int, context: ssl.SSLContext) -> str:
    """What becomes of a client's handshake: "" when HTTP/2 follows, else the reason that OpenSSL has for it here.

    In TLS 1.3 a client knows only from what follows whether its certificate is good.
    """
    try:
        with (
            socket.create_connection((NAMES[0], port), WAIT) as sock,
            context.wrap_socket(sock, server_hostname=NAMES[0]) as secure,
        ):
            secure.sendall(PREFACE)
            return "" if secure.recv(9) else "the end"
    except ssl.SSLError as error:
        return error.reason or str(error)
    except ConnectionError as error:
        return type(error).__name__


def trust(operator: bool = False, kernel: bool = True) -> Trust:
    """The same one for all tests.

    Args:
        operator: with certificates as the KubeArmor operator makes them, which Python's own side does not accept.
        kernel: whether the kernel encrypts for a relay, where it can.
    """
    return replace(_made(operator), kernel=kernel)


@functools.cache
def _made(operator: bool) -> Trust:
    """Keys take their time."""
    ca = operator_authority() if operator else authority()
    return Trust(ca, ca.issue(*NAMES))
