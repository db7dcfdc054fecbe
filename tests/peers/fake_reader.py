"""A journal of JSON lines in this process, and readers with the interface of a Cursor: the sinks' double."""

import contextlib
import os


class FakeJournal:
    """A feed's journal: events that are appended, and overwritten when a test says so."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.oldest = 0
        self.readers: list[FakeReader] = []

    def append(self, *documents: bytes) -> None:
        """Append events, as JSON without line ends."""
        self.lines += documents
        for reader in self.readers:
            reader.wake()

    def overwrite(self, oldest: int) -> None:
        """Forget the events before a sequence number."""
        self.oldest = max(self.oldest, oldest)

    def reader(self) -> "FakeReader":
        """A reader that begins at sequence 0."""
        self.readers.append(FakeReader(self))
        return self.readers[-1]


class FakeReader:
    """What `relay.sinks.protocol.Reader` says."""

    def __init__(self, journal: FakeJournal) -> None:
        self._journal = journal
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.sequence = 0
        self._lost = 0
        self.closed = False
        self.starved = 0  # how many times there is no memory, from now on

    def wake(self) -> None:
        if not self.closed:
            os.eventfd_write(self._wake, 1)

    def fileno(self) -> int:
        return self._wake

    @property
    def lost(self) -> int:
        return self._lost + max(0, self._journal.oldest - self.sequence)

    @property
    def behind(self) -> int:
        return len(self._journal.lines) - max(self._journal.oldest, self.sequence)

    def read_json(self, max_bytes: int, *, max_events: int, index: str | None = None) -> tuple[bytes, int, int] | None:
        assert max_events > 0
        if self.starved:
            self.starved -= 1
            raise MemoryError
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        self._lost += max(0, self._journal.oldest - self.sequence)
        self.sequence = max(self.sequence, self._journal.oldest)
        first, taken = self.sequence, b""
        while self.sequence < len(self._journal.lines) and self.sequence - first < max_events:
            line = self._journal.lines[self.sequence] + b"\n"
            if index is not None:
                line = b'{"index":{"_id":"%s%d"}}\n' % (index.encode(), self.sequence) + line
            if taken and len(taken) + len(line) > max_bytes:
                break
            taken += line
            self.sequence += 1
        return (taken, first, self.sequence - first) if taken else None

    def close(self) -> None:
        self.closed = True
        os.close(self._wake)
