"""What Go's TLS makes of a certificate: a handshake between its holder and somebody who trusts the root."""

import json
import subprocess
from typing import NamedTuple

from . import binaries
from .closing import Closing
from .go_tool import environment


class Verdict(NamedTuple):
    """Whether the certificate is taken, and if not, why."""

    accepted: bool
    reason: str


class Judge(Closing):
    """The program, running; it answers one question at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [str(binaries.path("judge"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def ask(self, *, root: bytes, certificate: bytes, key: bytes, purpose: str, name: str = "") -> Verdict:
        """The verdict on a certificate.

        Args:
            root: PEM; the first certificate is the root.
            certificate: PEM: the leaf, then what it is sent with.
            key: PEM.
            purpose: of the certificate's holder: "server" or "client".
            name: DNS name or IP that a server's certificate must be good for.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        question = {
            "root": root.decode(),
            "certificate": certificate.decode(),
            "key": key.decode(),
            "purpose": purpose,
            "name": name,
        }
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return Verdict(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
