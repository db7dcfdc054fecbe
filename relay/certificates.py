"""Where certificates and keys come from: the files of a folder, or a process that makes them from the folder's CA.

Everything here may wait for a disk: a serving relay does it on a thread (relay.rotation).
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple, Protocol

from relay.settings import KIB, SettingsError

ROOT = "ca.crt"
# A hundred certificates; whatever is larger is something else.
LARGEST_BYTES = 256 * KIB
# A folder that is just being changed may give some old files and some new ones; it is read again so often.
READS = 5
ISSUE_SECONDS = 60.0  # it takes less than one, on a busy machine with half a core some more
SAID_MOST = 500  # characters of what a process says of its failure, the last ones

ACCEPTED = {
    "ca.crt": "the PEM certificate of a CA",
    "server.crt": "a PEM certificate for serverAuth, then its intermediates",
    "server.key": "the PEM key of server.crt, unencrypted, as PKCS#1, PKCS#8 or SEC1",
    "client.crt": "a PEM certificate for clientAuth, then its intermediates",
    "client.key": "the PEM key of client.crt, unencrypted, as PKCS#1, PKCS#8 or SEC1",
}

# A file's identity and state, or why it has none.
Seen = tuple[tuple[int, ...], ...]


class Pair(NamedTuple):
    """A certificate with its chain, and its key: PEM."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "Pair(…)"  # the key is nobody's business


class Span(NamedTuple):
    """When certificates are to be made anew: at `until`, or before `begins`. Seconds since the epoch."""

    begins: float
    until: float


@dataclass(frozen=True, slots=True)
class Material:
    """Certificates and keys that belong together."""

    root: bytes = b""
    server: Pair | None = None
    client: Pair | None = None
    # None where time alone is no reason to get others.
    fresh: Span | None = None

    def digest(self) -> bytes:
        """Equal where all of it is."""
        parts = [self.root, *(self.server or (b"", b"")), *(self.client or (b"", b""))]
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()


class Provider(Protocol):
    """Gives certificates, again and again."""

    folder: Path

    def look(self) -> Seen:
        """What its files look like now: different from before where others are to be had."""

    def obtain(self) -> Material:
        """Certificates as they are to be had now.

        Raises:
            SettingsError: they are not, in one line that says which file and what is accepted.
        """


class External:
    """Certificates that others put into a folder."""

    def __init__(self, folder: Path, *, server: bool, client: bool, root: bool) -> None:
        """What is wanted of them: a server's, a client's, what the other side is verified with."""
        self.folder = folder
        self._server = server
        self._client = client
        self._names = [ROOT] if root else []
        for side, wanted in (("server", server), ("client", client)):
            self._names += [f"{side}.crt", f"{side}.key"] if wanted else []

    def look(self) -> Seen:
        """Identity, size and times of each file."""
        return _look(self.folder, self._names)

    def obtain(self) -> Material:
        """The files' content, all of one moment."""
        for _ in range(READS):
            before = self.look()
            content = {name: _read(self.folder / name) for name in self._names}
            if self.look() == before:
                break
        else:
            raise SettingsError(f"{self.folder} changes while it is read: accepted are files that belong together")

        def pair(side: str) -> Pair:
            return Pair(content[f"{side}.crt"], content[f"{side}.key"])

        return Material(
            content.get(ROOT, b""),
            pair("server") if self._server else None,
            pair("client") if self._client else None,
        )


class Self:
    """Certificates made from ca.crt and ca.key of a folder, by a process of its own (relay.issue)."""

    def __init__(
        self,
        folder: Path,
        names: Callable[[], Sequence[str]],
        *,
        server: bool,
        client: bool,
        command: Sequence[str] = (sys.executable, "-P", "-m", "relay.issue"),
    ) -> None:
        """`names` tells what the certificates are for; `server` and `client` which are wanted."""
        self.folder = folder
        self._names = names
        self._uses = [use for use, wanted in (("server", server), ("client", client)) if wanted]
        self._command = command

    def look(self) -> Seen:
        """Identity, size and times of the CA's files."""
        return _look(self.folder, [ROOT, "ca.key"])

    def obtain(self) -> Material:
        """Freshly made certificates, good for a year or as long as the CA is."""
        made = self._issue()

        def pair(use: str) -> Pair | None:
            return Pair(made[use]["certificate"].encode(), made[use]["key"].encode()) if use in made else None

        begins, ends = made["begins"], made["ends"]
        # What ends with its CA would be no better the second time.
        until = begins + (ends - begins) * 2 / 3 if ends < made["root_ends"] else float("inf")
        return Material(made["root"].encode(), pair("server"), pair("client"), Span(begins, until))

    def _issue(self) -> dict[str, Any]:
        try:
            ended = subprocess.run(
                [*self._command, str(self.folder), ",".join(self._uses), *self._names()],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=ISSUE_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise SettingsError(f"certificates were not made within {ISSUE_SECONDS:.0f} s") from None
        except (OSError, ValueError) as error:
            raise SettingsError(f"certificates cannot be made: {error}") from None
        if ended.returncode:
            lines = ended.stderr.decode(errors="replace").split("\n")
            said = next((line for line in reversed(lines) if line.strip()), f"exit code {ended.returncode}")
            raise SettingsError(f"certificates cannot be made: {said[-SAID_MOST:]}")
        made: dict[str, Any] = json.loads(ended.stdout)
        return made


def _look(folder: Path, names: Sequence[str]) -> Seen:
    return tuple(_state(folder / name) for name in names)


def _state(file: Path) -> tuple[int, ...]:
    try:
        status = file.stat()
    except OSError as error:
        return (error.errno or 0,)
    except ValueError:  # a path with a zero byte
        return ()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _read(file: Path) -> bytes:
    try:
        # Without O_NONBLOCK a pipe would keep us for ever.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            is_regular = S_ISREG(os.fstat(descriptor).st_mode)
            content = _first_bytes(descriptor) if is_regular else b""
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise unusable(file, f"cannot be read ({reason})") from None
    if not is_regular:
        raise unusable(file, "not a regular file")
    if len(content) > LARGEST_BYTES:
        raise unusable(file, f"more than {LARGEST_BYTES} bytes")
    return content


def _first_bytes(descriptor: int) -> bytes:
    with open(descriptor, "rb", closefd=False) as file:
        return file.read(LARGEST_BYTES + 1)


def unusable(file: Path, reason: str) -> SettingsError:
    """The error that names a file, what is wrong with it, and what is accepted."""
    return SettingsError(f"{file}: {reason}: accepted is {ACCEPTED[file.name]}")
