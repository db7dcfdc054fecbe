"""Listening sockets, and the open files that their connections need."""

from __future__ import annotations

import errno
import resource
import socket

from relay import log
from relay.settings import Address, SettingsError

logger = log.logger(__name__)

BACKLOG = 4096  # connections that wait to be accepted; the kernel caps it at net.core.somaxconn


def raise_file_limit() -> None:
    """Allow as many open files as the system lets us: each connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        logger.warning("cannot raise the limit on open files", extra=log.fields(error=str(error)))


def open_sockets(bind: str, port: int) -> list[socket.socket]:
    """Listen on one address, or on all of both families.

    Raises:
        SettingsError: the address is in use, not ours, or not permitted.
    """
    if bind:
        family = socket.AF_INET6 if ":" in bind else socket.AF_INET
        return [_listen(family, bind, port)]
    try:
        return [_listen(socket.AF_INET6, "::", port)]
    except _NoIPv6:
        return [_listen(socket.AF_INET, "0.0.0.0", port)]


class _NoIPv6(SettingsError):
    """This machine has no IPv6."""


def _listen(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    listener = None
    try:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
        return listener
    except OSError as error:
        if listener is not None:
            listener.close()
        kind = SettingsError
        if host == "::" and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            kind = _NoIPv6
        raise kind(
            f"cannot listen on {Address(host, port)}: {_LISTEN_HINTS.get(error.errno or 0)}"
            if error.errno in _LISTEN_HINTS
            else f"cannot listen on {Address(host, port)}: {error.strerror}"
        ) from None


_LISTEN_HINTS = {
    errno.EADDRINUSE: "the port is in use; choose another with -gRPCPort, or end its owner",
    errno.EADDRNOTAVAIL: "not an address of this machine; -bind takes one that is, or none for all",
    errno.EACCES: "not permitted; choose a port from 1024 up with -gRPCPort",
}
