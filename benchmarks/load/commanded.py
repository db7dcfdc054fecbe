"""A load process that obeys lines on its standard input and answers with lines."""

from __future__ import annotations

import contextlib
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Commanded:
    """A running one."""

    child: subprocess.Popen[str]
    log: Path

    def say(self, line: str) -> None:
        assert self.child.stdin
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()

    def wait_line(self, begin: str, timeout: float = 20.0) -> str:
        """The last line that it printed, once that begins so."""
        end = time.monotonic() + timeout
        while True:
            text = self.log.read_text()
            last = text.splitlines()[-1] if text.endswith("\n") else ""
            if last and last.startswith(begin):
                return last
            if self.child.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.child.args!r} did not say {begin!r}: {text[-1000:]}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(0.01)
