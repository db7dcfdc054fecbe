"""Events as Go prints them: protobuf's own decoder, generated structs, and encoding/json."""

import struct
import subprocess
from typing import NamedTuple

from . import binaries
from .go_tool import environment

HEAD = struct.Struct(">cI")


class Said(NamedTuple):
    """What Go makes of an event."""

    verdict: bytes  # b"j": printed; b"u": printed, but refused for strings that are not UTF-8; b"m": malformed
    text: bytes  # JSON, or the error


class Printer:
    """The program, running; it answers one event at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [str(binaries.path("json"))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
        )

    def event(self, feed: int, data: bytes) -> Said:
        """What Go makes of an event of that feed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(struct.pack(">BI", feed, len(data)) + data)
        self._process.stdin.flush()
        verdict, size = HEAD.unpack(self._process.stdout.read(HEAD.size))
        return Said(verdict, self._process.stdout.read(size))

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
