"""What a journal and its places do, said plainly: lists, no pointers, sizes added up anew each time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

PREFIX = 5


def frame_of(event: bytes) -> bytes:
    """An event behind its gRPC prefix."""
    return b"\0" + len(event).to_bytes(4, "big") + event


@dataclass
class SegmentModel:
    """A run of frames that share one allocation."""

    number: int
    first: int
    capacity: int
    frames: list[bytes] = field(default_factory=list)
    pins: int = 0
    unlinked: bool = False

    @property
    def used(self) -> int:
        return sum(map(len, self.frames))


class JournalModel:
    """A feed's memory: `share` bytes in segments of `segment_bytes`, each with a header of `header` bytes."""

    def __init__(self, share: int, segment_bytes: int, header: int) -> None:
        self.share = share
        self.segment_bytes = segment_bytes
        self.header = header
        self.listed: deque[SegmentModel] = deque()
        self.unlinked: list[SegmentModel] = []  # recycled, but pinned
        self.spare = False
        self.next = 0
        self.segments = 0
        self.recycled = 0

    @property
    def held(self) -> int:
        segments = [*self.listed, *self.unlinked]
        return sum(self.header + segment.capacity for segment in segments) + self.spare * self.segment_bytes

    @property
    def pinned(self) -> int:
        """Bytes of segments that only their readers keep."""
        return sum(self.header + segment.capacity for segment in self.unlinked)

    @property
    def first(self) -> int:
        return self.next - sum(len(segment.frames) for segment in self.listed)

    @property
    def room(self) -> int:
        """Bytes left in the newest segment."""
        return self.listed[-1].capacity - self.listed[-1].used if self.listed else 0

    def is_standard(self, segment: SegmentModel) -> bool:
        return self.header + segment.capacity == self.segment_bytes

    def retire(self, segment: SegmentModel) -> None:
        """A segment, already out of the lists, becomes the spare if it may."""
        if not self.spare and self.is_standard(segment) and self.held + self.segment_bytes <= self.share:
            self.spare = True

    def recycle_oldest(self) -> None:
        segment = self.listed.popleft()
        self.recycled += 1
        if segment.pins:
            segment.unlinked = True
            self.unlinked.append(segment)
        else:
            self.retire(segment)

    def reserve(self, size: int, *, memory: bool = True) -> bool:
        """Make room for a frame. `memory` False: an allocation would fail."""
        if self.listed and size <= self.room:
            return True
        capacity = max(size, self.segment_bytes - self.header)
        needed = self.header + capacity
        standard = needed == self.segment_bytes
        if needed > self.share:
            return False
        if not standard and self.held + needed > self.share:
            self.spare = False
        while self.held + needed > self.share and not (standard and self.spare) and self.listed:
            self.recycle_oldest()
            if not standard and self.held + needed > self.share:
                self.spare = False
        if standard and self.spare:
            self.spare = False
        elif not memory:
            return False
        self.listed.append(SegmentModel(self.segments, self.next, capacity))
        self.segments += 1
        return True

    def append(self, frame: bytes, *, memory: bool = True) -> bool:
        if not self.reserve(len(frame), memory=memory):
            return False
        self.listed[-1].frames.append(frame)
        self.next += 1
        return True

    def segment_at(self, sequence: int) -> SegmentModel:
        """The listed segment that holds a frame."""
        return next(
            segment for segment in self.listed if segment.first <= sequence < segment.first + len(segment.frames)
        )

    def pin(self, sequence: int) -> SegmentModel:
        segment = self.segment_at(sequence)
        segment.pins += 1
        return segment

    def unpin(self, segment: SegmentModel) -> None:
        segment.pins -= 1
        if segment.unlinked and not segment.pins:
            self.unlinked.remove(segment)
            self.retire(segment)


class PlaceModel:
    """A reader: where it started, what it was given, what it lost."""

    def __init__(self, journal: JournalModel, where: str) -> None:
        self.journal = journal
        self.start = {"start": 0, "head": journal.next}[where]
        self.sequence = self.start
        self.lost = 0
        self.delivered = 0

    def settle(self) -> int:
        """The frames lost since last time."""
        lost = max(0, self.journal.first - self.sequence)
        self.sequence += lost
        self.lost += lost
        return lost

    def run(self, limit: int) -> list[bytes] | None:
        """The frames from here to the end of their segment that fit into `limit` bytes; None when there are none."""
        if self.sequence == self.journal.next:
            return None
        segment = self.journal.segment_at(self.sequence)
        taken: list[bytes] = []
        for frame in segment.frames[self.sequence - segment.first :]:
            if sum(map(len, taken)) + len(frame) > limit:
                break
            taken.append(frame)
        return taken

    def advance(self, frames: int) -> None:
        self.sequence += frames
        self.delivered += frames


def shares(total: int, largest_frame: int, least: int) -> tuple[int, int, int] | None:
    """Bytes for messages, alerts and logs, or None when `total` is too small."""
    floor = max(2 * largest_frame, least)
    if total < 3 * floor:
        return None
    messages = max(total // 16, floor)
    alerts = max(total // 16 * 3, floor)
    return messages, alerts, total - messages - alerts
