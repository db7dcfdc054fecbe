"""Two hosts of our own: network namespaces with a virtual cable between them that can be unplugged.

Both are beside the machine's own network, which is left alone.
"""

import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

CLONE_NEWNET = 0x40000000


def missing() -> str:
    """Why namespaces cannot be made here, or "" when they can."""
    if os.geteuid() != 0:
        return "a network namespace needs root"
    if shutil.which("ip") is None:
        return "a network namespace needs the ip command"
    try:
        with Cable():
            return ""
    except subprocess.CalledProcessError as error:
        return f"no network namespace here: {error.stderr.strip()}"


class Host:
    """One of the two."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address

    def program(self, program: str) -> tuple[str, ...]:
        """A command that runs there."""
        return ("ip", "netns", "exec", self.name, program)

    def socket(self, make: "Callable[[], socket.socket]") -> "socket.socket":
        """A socket of that host: `make` is called on a thread that lives there."""
        made: list[socket.socket] = []
        thread = threading.Thread(target=lambda: made.append(self._made(make)))
        thread.start()
        thread.join()
        return made[0]

    def _made(self, make: "Callable[[], socket.socket]") -> "socket.socket":
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        try:
            if libc.setns(descriptor, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(descriptor)
        return make()


class Cable:
    """The two hosts and what joins them."""

    def __init__(self) -> None:
        # Addresses of TEST-NET-1 (RFC 5737): nobody's, and within the namespaces only.
        self.near = Host(f"relay-near-{os.getpid()}", "192.0.2.1")
        self.far = Host(f"relay-far-{os.getpid()}", "192.0.2.2")

    def __enter__(self) -> Self:
        near, far = self.near, self.far
        try:
            for host in (near, far):
                _ip("netns", "add", host.name)
                _ip("-n", host.name, "link", "set", "lo", "up")
            _ip("-n", near.name, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", far.name)
            for host in (near, far):
                _ip("-n", host.name, "address", "add", f"{host.address}/30", "dev", "cable")
                _ip("-n", host.name, "link", "set", "cable", "up")
        except subprocess.CalledProcessError:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for host in (self.near, self.far):
            subprocess.run(["ip", "netns", "delete", host.name], capture_output=True, check=False)

    def unplug(self) -> None:
        """From now on nothing gets through, and nobody is told."""
        _ip("-n", self.far.name, "link", "set", "cable", "down")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)
