"""What a sink is, and what it is given: the whole contract between a destination and the runner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol


class Reader(Protocol):
    """A place in one feed's journal: `relay._fastpath.Cursor`, or a double in tests."""

    def read_json(self, max_bytes: int, *, max_events: int, index: str | None = None) -> tuple[bytes, int, int] | None:
        """The next events: their lines, the sequence number of the first, how many; None when there are none.

        Raises:
            MemoryError: there is none for the next event, which stays the next.
        """

    def fileno(self) -> int:
        """A descriptor that becomes readable when events follow a read that gave None."""

    @property
    def sequence(self) -> int:
        """Sequence number of the next event to read."""

    @property
    def lost(self) -> int:
        """Events that were overwritten before they were read, up to now."""

    @property
    def behind(self) -> int:
        """Events that the journal holds and that were not read yet."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Batch:
    """Events of one feed on their way to a sink."""

    feed: int
    lines: bytes  # a line for each event; two, if the sink asked for action lines
    events: int
    # When it was read. A retry is the same batch, so a place that is named after the date stays the same.
    read_at: datetime


class Rejected(NamedTuple):
    """Events that the destination will never take, and why."""

    reason: str
    events: int
    example: str = ""  # what it said about one of them


class Unavailable(Exception):
    """The destination took nothing, and may take it later.

    Args:
        reason: one line, the same for every try that fails in the same way: each reason is logged once a minute.
        detail: one line with whatever else is known about this try.
        retry_after: how many seconds it asked to be left alone.
    """

    def __init__(self, reason: str, detail: str = "", retry_after: float = 0.0) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a batch. Events: `taken` + those of `rejected` + those of `again` are all it had."""

    taken: int
    rejected: Sequence[Rejected] = field(default=())
    again: Batch | None = None  # what the destination could not take now
    why: Unavailable | None = None  # it could not


class Sink(Protocol):
    """A destination. Every method runs on the loop's thread, and must not block it.

    The runner calls `open` until it succeeds, then `write`, several at a time if `in_flight` is more than 1,
    `acknowledge` in the order of the events, and `close` last, whatever happened before.
    """

    @property
    def name(self) -> str:
        """How logs and counters call it."""

    @property
    def in_flight(self) -> int:
        """How many batches it takes at a time."""

    def action(self, feed: int, /) -> str | None:
        """None for bare lines; else each line comes behind a bulk action with this prefix and the sequence as id."""

    async def open(self) -> None:
        """Make ready.

        Raises:
            Unavailable: not now; it is tried again.
        """

    async def write(self, batch: Batch) -> Written:
        """Carry a batch to its destination, and say what became of it.

        Raises:
            Unavailable: nothing was taken; the same batch comes again.
        """

    async def acknowledge(self, feed: int, sequence: int, /) -> None:
        """Every event of the feed before `sequence` is settled: taken, rejected or lost.

        Raises:
            Unavailable: what was taken cannot be made to last; it is tried again, and later batches wait.
        """

    async def close(self) -> None:
        """Let go of everything.

        Raises:
            Unavailable: not all could be let go of; it is logged.
        """
