"""Events as JSON lines in a file, which is rotated by its size: the example of a sink."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from relay.detached import run_detached
from relay.sinks.protocol import Batch, Unavailable, Written


@dataclass(frozen=True, slots=True)
class Destination:
    """A file, when it is rotated (bytes; 0 never), how many old ones stay, and when it is synced."""

    path: Path
    rotate_bytes: int
    keep: int
    fsync: bool


class FileSink:
    """Appends to PATH; PATH.1 is the youngest of the files that were full."""

    in_flight = 1  # lines stay in the order of the feed

    def __init__(self, destination: Destination) -> None:
        self.name = f"file:{destination.path}"
        self._to = destination
        self._file: int | None = None
        self._size = 0  # of whole lines
        self._torn = False  # whether there may be more in it: part of a batch
        # A write that is given up goes on in its thread; its descriptor must not be another's by then.
        self._lock = threading.Lock()

    def action(self, feed: int) -> None:
        """Bare lines."""

    async def open(self) -> None:
        """Open the file, which may hold lines from earlier."""
        await self._in_thread(self._open)

    async def write(self, batch: Batch) -> Written:
        """Append whole lines."""
        await self._in_thread(lambda: self._append(batch.lines))
        return Written(batch.events)

    async def acknowledge(self, _feed: int, _sequence: int) -> None:
        """What is settled is on the disk, if that was asked for."""
        if self._to.fsync:
            await self._in_thread(self._sync)

    async def close(self) -> None:
        """Close the file."""
        await self._in_thread(self._close)

    async def _in_thread(self, work: Callable[[], object]) -> None:
        """A disk may be slow, or hang, and the loop has other things to do."""

        def locked() -> None:
            with self._lock:
                work()

        try:
            await run_detached(locked, "sink")
        except OSError as error:
            raise Unavailable(f"{error.strerror or error}: {self._to.path}") from None

    def _open(self) -> int:
        # A pipe without a reader would keep this thread for ever, and with one it could not be put right.
        file = os.open(self._to.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o640)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise OSError("Not a regular file")
            size = status.st_size
            if size and os.pread(file, 1, size - 1) != b"\n":
                # A relay that was killed has left part of a line: the next one must not be glued to it.
                size += os.write(file, b"\n")
        except OSError:
            os.close(file)
            raise
        self._file = file
        self._size = size
        return file

    def _append(self, lines: bytes) -> None:
        self._mend()
        self._look()
        if self._to.rotate_bytes and self._size and self._size + len(lines) > self._to.rotate_bytes:
            self._rotate()
        file = self._open() if self._file is None else self._file
        rest = memoryview(lines)
        self._torn = True
        try:
            while rest:
                rest = rest[os.write(file, rest) :]
        except OSError:
            # The disk is full: the batch comes again, so what was cut must not stay.
            self._mend()
            raise
        self._torn = False
        self._size += len(lines)

    def _mend(self) -> None:
        if self._torn and self._file is not None:
            os.ftruncate(self._file, self._size)
            self._torn = False

    def _look(self) -> None:
        """Somebody else may have moved the file away, or cut it: what is written must be found under its name."""
        if self._file is None:
            return
        status = os.fstat(self._file)
        try:
            is_there = os.path.samestat(status, self._to.path.stat())
        except FileNotFoundError:
            is_there = False
        if is_there:
            self._size = status.st_size
        else:
            self._close()
            self._size = 0

    def _rotate(self) -> None:
        path, keep = self._to.path, self._to.keep
        if self._to.fsync:
            self._sync()
        self._close()
        names = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, keep + 1))]
        for older, newer in reversed(list(zip(names[1:], names[:-1], strict=True))):
            if newer.exists():
                newer.replace(older)
        if not keep:
            path.unlink(missing_ok=True)
        self._size = 0

    def _sync(self) -> None:
        if self._file is not None:
            os.fsync(self._file)

    def _close(self) -> None:
        descriptor, self._file = self._file, None
        if descriptor is not None:
            os.close(descriptor)
