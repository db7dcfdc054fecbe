"""The journal: segments, recycling, places, pins; each step against `oracle_journal`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)
from shown import (
    LEAST_SEGMENT,
    LEAST_SHARE,
    SEGMENT_BYTES,
    SEGMENT_HEADER,
    ShownJournal,
    ShownPlace,
    shown_journal_read_numbered,
    shown_journal_segment_bytes,
    shown_journal_shares,
    shown_journal_write_numbered,
)
from unit.oracle_journal import PREFIX, JournalModel, PlaceModel, SegmentModel, frame_of, shares

STANDARD = 200  # bytes of frames in a standard segment of these tests
SHARE = 5 * (SEGMENT_HEADER + STANDARD)
EVENT = 35
FRAME = PREFIX + EVENT  # five of these fill a standard segment


def make(share: int = SHARE, standard: int = STANDARD) -> ShownJournal:
    return ShownJournal(share, SEGMENT_HEADER + standard)


def event_of(sequence: int, size: int = EVENT) -> bytes:
    """Bytes by which an event can be told from its neighbours."""
    return bytes((sequence * 31 + i) & 0xFF for i in range(size))


def fill(journal: ShownJournal, count: int, size: int = EVENT) -> None:
    for _ in range(count):
        assert journal.append(frame_of(event_of(journal.next, size)))


class JournalMachine(RuleBasedStateMachine):
    """Any order of appends, reads, pins and failures leaves the journal as the model says."""

    places = Bundle("places")
    pins = Bundle("pins")

    @initialize(standard=st.integers(PREFIX, 160), segments=st.integers(1, 6), odd=st.integers(0, 90))
    def begin(self, standard: int, segments: int, odd: int) -> None:
        segment_bytes = SEGMENT_HEADER + standard
        share = segments * segment_bytes + odd
        self.native = ShownJournal(share, segment_bytes)
        self.model = JournalModel(share, segment_bytes, SEGMENT_HEADER)
        self.readers: list[tuple[ShownPlace, PlaceModel]] = []
        self.held_pins = 0
        self.native.watch_recycling()

    def teardown(self) -> None:
        if not hasattr(self, "native"):
            return
        pinned = self.model.pinned + sum(
            SEGMENT_HEADER + segment.capacity for segment in self.model.listed if segment.pins
        )
        assert self.native.free() == pinned
        for pin, _, expected in list(getattr(self, "pinned", [])):
            assert pin.bytes() == expected
            self.native.unpin(pin)
        assert self.native.free() == 0
        assert self.native.memory_bytes == 0

    def sizes(self, data: st.DataObject) -> int:
        """Sizes of frames, most often those at an edge."""
        model = self.model
        edges = [
            model.room,
            model.room + 1,
            model.segment_bytes - SEGMENT_HEADER,
            model.segment_bytes - SEGMENT_HEADER + 1,
            model.share - SEGMENT_HEADER,
            model.share - SEGMENT_HEADER + 1,
            model.share - model.pinned - SEGMENT_HEADER,
            PREFIX,
        ]
        edge = st.sampled_from(sorted({size for size in edges if size >= PREFIX}))
        size = data.draw(st.one_of(st.integers(PREFIX, 40), edge, st.integers(PREFIX, model.share)), label="frame size")
        return int(size)

    def append_one(self, size: int, *, memory: bool = True) -> None:
        frame = frame_of(event_of(self.model.next, size - PREFIX))
        assert self.native.append(frame) == self.model.append(frame, memory=memory)

    @rule(data=st.data())
    def append(self, data: st.DataObject) -> None:
        self.append_one(self.sizes(data))

    @rule(count=st.integers(2, 40), size=st.integers(PREFIX, 60))
    def append_many(self, count: int, size: int) -> None:
        for _ in range(count):
            self.append_one(size)

    @rule(data=st.data())
    def reserve_without_commit(self, data: st.DataObject) -> None:
        size = self.sizes(data)
        assert self.native.reserve(size) == self.model.reserve(size)

    @rule(sizes=st.lists(st.integers(100, 400), min_size=2, max_size=4).map(sorted))
    def reserve_ever_more(self, sizes: list[int]) -> None:
        """Leaves segments without a frame behind."""
        for size in sizes:
            assert self.native.reserve(size) == self.model.reserve(size)
        self.append_one(sizes[-1] + 1)

    @rule(data=st.data())
    def append_without_memory(self, data: st.DataObject) -> None:
        size = self.sizes(data)
        self.native.fail_at(1)
        self.append_one(size, memory=False)
        self.native.fail_at(0)

    @rule(target=places, where=st.sampled_from(["start", "head"]))
    def place(self, where: str) -> tuple[ShownPlace, PlaceModel]:
        reader = ShownPlace(self.native, where), PlaceModel(self.model, where)
        self.readers.append(reader)
        return reader

    def take(self, native: ShownPlace, model: PlaceModel, limit: int) -> list[bytes] | None:
        """Settle and take on both; the frames."""
        assert native.settle() == model.settle()
        frames = model.run(limit)
        expected = None if frames is None else b"".join(frames)
        assert native.take(limit) == (len(frames or ()), expected)
        return frames

    @rule(reader=places, limit=st.one_of(st.integers(0, 300), st.just(1 << 40)), part=st.floats(0, 1))
    def read(self, reader: tuple[ShownPlace, PlaceModel], limit: int, part: float) -> None:
        native, model = reader
        frames = self.take(native, model, limit)
        if frames is None:
            return
        if not frames:  # the first alone is larger than the limit
            (frame, *_) = model.run(1 << 40) or []
            assert native.frame_size() == len(frame) > limit
            assert native.frame() == frame
            native.advance(len(frame), 1)
            model.advance(1)
            return
        count = max(1, round(part * len(frames)))
        native.advance(sum(map(len, frames[:count])), count)
        model.advance(count)

    @rule(reader=places, limit=st.integers(20, 300))
    def read_to_the_head(self, reader: tuple[ShownPlace, PlaceModel], limit: int) -> None:
        native, model = reader
        while (frames := self.take(native, model, limit)) is not None:
            size = sum(map(len, frames)) or native.frame_size()
            native.advance(size, len(frames) or 1)
            model.advance(len(frames) or 1)
        assert native.sequence == self.native.next

    @rule(target=pins, reader=places, limit=st.one_of(st.integers(0, 300), st.just(1 << 40)))
    def pin(self, reader: tuple[ShownPlace, PlaceModel], limit: int):
        native, model = reader
        model.settle()
        frames = model.run(limit)
        pin = native.pin(limit)
        if frames is None:
            assert pin is None
            return multiple()
        assert pin.frames == len(frames)
        native.advance(sum(map(len, frames)), len(frames))
        segment = self.model.pin(model.sequence)
        model.advance(len(frames))
        held = (pin, segment, b"".join(frames))
        self.pinned = [*getattr(self, "pinned", []), held]
        return held

    @rule(held=consumes(pins))
    def unpin(self, held: tuple[object, SegmentModel, bytes]) -> None:
        pin, segment, expected = held
        assert pin.bytes() == expected  # whatever has happened since
        self.native.unpin(pin)
        self.model.unpin(segment)
        self.pinned = [other for other in self.pinned if other is not held]

    @invariant()
    @precondition(lambda self: hasattr(self, "native"))
    def same(self) -> None:
        native, model = self.native, self.model
        assert (native.first, native.next) == (model.first, model.next)
        assert (native.segments, native.recycled, native.spare) == (model.segments, model.recycled, model.spare)
        assert native.held == model.held == native.memory_bytes
        assert native.segments_held() == [
            (segment.number, segment.first, len(segment.frames), segment.used, segment.capacity, segment.pins)
            for segment in model.listed
        ]

    @invariant()
    @precondition(lambda self: hasattr(self, "native"))
    def bounded(self) -> None:
        """Over the share only by what is pinned, and then by one segment."""
        newest = self.model.listed[-1].capacity + SEGMENT_HEADER if self.model.listed else 0
        assert self.native.held <= max(self.model.share, self.model.pinned + newest)

    @invariant()
    @precondition(lambda self: hasattr(self, "native"))
    def nothing_lost_in_silence(self) -> None:
        for native, model in self.readers:
            assert (native.sequence, native.lost) == (model.sequence, model.lost)
            assert model.delivered + native.lost == native.sequence - model.start


TestJournalMachine = JournalMachine.TestCase
TestJournalMachine.settings = settings(max_examples=300, stateful_step_count=60)


# What the machine finds, said once more for readers --------------------------------------------


def test_frames_lie_back_to_back_and_do_not_cross_a_segment() -> None:
    journal = make()
    fill(journal, 7)
    assert [(number, first, frames, used) for number, first, frames, used, _, _ in journal.segments_held()] == [
        (0, 0, 5, 5 * FRAME),
        (1, 5, 2, 2 * FRAME),
    ]


def test_frame_larger_than_a_segment_gets_one_of_its_own() -> None:
    journal = make()
    large = frame_of(event_of(0, 600))
    assert journal.append(large)
    fill(journal, 1)
    assert [size for *_, size, _ in journal.segments_held()] == [len(large), STANDARD]
    place = ShownPlace(journal, "start")
    place.settle()
    assert place.take(16384) == (1, large)


@pytest.mark.parametrize(("over", "room"), [(0, True), (1, False)])
def test_frame_must_fit_into_the_share_with_its_header(over: int, room: bool) -> None:
    journal = make()
    fill(journal, 5)
    assert journal.append(frame_of(bytes(SHARE - SEGMENT_HEADER - PREFIX + over))) is room
    assert journal.first == (5 if room else 0)


def test_steady_state_allocates_nothing() -> None:
    journal = make()
    fill(journal, 40)
    taken = journal.memory_taken
    fill(journal, 1000)
    assert journal.memory_taken == taken
    assert journal.held == SHARE


def test_reader_that_was_overtaken_goes_on_at_the_oldest_frame() -> None:
    journal = make()
    place = ShownPlace(journal, "start")
    fill(journal, 40)  # 5 segments of 5 frames are held
    assert journal.first == 15
    assert place.settle() == 15
    assert (place.sequence, place.lost) == (15, 15)
    assert place.take(FRAME) == (1, frame_of(event_of(15)))
    assert place.settle() == 0


def test_reader_at_the_end_of_a_recycled_segment_has_lost_nothing() -> None:
    journal = make()
    fill(journal, 5)
    place = ShownPlace(journal, "start")
    place.settle()
    place.advance(5 * FRAME, 5)
    fill(journal, 25)
    assert journal.first == 5
    assert place.settle() == 0
    assert place.take(FRAME) == (1, frame_of(event_of(5)))


@pytest.mark.parametrize("where", ["start", "head"])
def test_place_in_an_empty_journal_reads_the_first_frame(where: str) -> None:
    journal = make()
    place = ShownPlace(journal, where)
    assert place.settle() == 0
    assert place.take(1000) == (0, None)
    fill(journal, 1)
    assert place.settle() == 0
    assert place.take(1000) == (1, frame_of(event_of(0)))


def test_place_in_a_journal_emptied_by_one_frame_of_its_whole_share() -> None:
    journal = make()
    fill(journal, 3)
    place = ShownPlace(journal, "start")
    whole = frame_of(event_of(3, SHARE - SEGMENT_HEADER - PREFIX))
    assert journal.reserve(len(whole))
    assert journal.first == journal.next == 3
    assert place.settle() == 3
    assert place.take(1 << 20) == (0, None)
    assert journal.append(whole)
    assert place.settle() == 0
    assert place.take(1 << 20) == (1, whole)


def test_segments_without_a_frame_are_passed_over() -> None:
    journal = make()
    fill(journal, 5)
    place = ShownPlace(journal, "start")
    place.settle()
    place.advance(5 * FRAME, 5)
    assert journal.reserve(STANDARD + 1)
    assert journal.reserve(STANDARD + 2)
    large = frame_of(event_of(5, STANDARD))
    assert journal.append(large)
    assert [frames for _, _, frames, *_ in journal.segments_held()] == [5, 0, 0, 1]
    assert place.settle() == 0
    assert place.take(1 << 20) == (1, large)


def test_take_ends_at_a_frame_and_tells_when_the_first_is_too_large() -> None:
    journal = make()
    fill(journal, 5)
    place = ShownPlace(journal, "start")
    place.settle()
    assert place.take(3 * FRAME - 1)[0] == 2
    assert place.take(3 * FRAME)[0] == 3
    assert place.take(3 * FRAME + 1)[0] == 3
    assert place.take(FRAME - 1) == (0, b"")
    assert place.take(0) == (0, b"")
    assert place.frame_size() == FRAME


def test_pinned_segment_outlives_its_recycling_and_counts_until_then() -> None:
    journal = make()
    fill(journal, 5)
    place = ShownPlace(journal, "start")
    pin = place.pin(1 << 20)
    fill(journal, 50)
    assert journal.first > 5
    assert pin.bytes() == b"".join(frame_of(event_of(i)) for i in range(5))
    assert journal.held == SHARE  # four segments in the list, and the pinned one
    assert len(journal.segments_held()) == 4
    journal.unpin(pin)
    assert journal.spare
    assert journal.held == SHARE


def test_frames_are_not_refused_when_readers_have_everything_pinned() -> None:
    journal = make()
    fill(journal, 25)
    readers = []
    for i in range(5):
        place = ShownPlace(journal, "start")
        place.settle()
        for _ in range(i):
            place.advance(5 * FRAME, 5)
            place.settle()
        readers.append(place.pin(1 << 20))
    assert [pins for *_, pins in journal.segments_held()] == [1] * 5
    fill(journal, 50)
    assert journal.held == SHARE + SEGMENT_HEADER + STANDARD
    assert len(journal.segments_held()) == 1
    for pin in readers:
        journal.unpin(pin)
    assert journal.held == 2 * (SEGMENT_HEADER + STANDARD)  # the newest and the spare
    assert journal.free() == 0
    assert journal.memory_bytes == 0


def test_freed_journal_waits_for_its_readers() -> None:
    journal = make()
    fill(journal, 10)
    pin = ShownPlace(journal, "start").pin(1 << 20)
    assert journal.free() == SEGMENT_HEADER + STANDARD
    assert pin.bytes() == b"".join(frame_of(event_of(i)) for i in range(5))
    journal.unpin(pin)
    assert journal.free() == 0
    assert journal.memory_bytes == 0


def test_recycling_is_told_while_the_segment_is_still_in_place() -> None:
    journal = make()
    journal.watch_recycling()
    fill(journal, 25)
    assert journal.recycling_seen == (0, 0, 0, 0)
    fill(journal, 6)
    assert journal.recycling_seen == (2, 1, 1, 5)


@pytest.mark.parametrize(
    ("share", "segment_bytes"),
    [(4096, SEGMENT_HEADER + PREFIX - 1), (SEGMENT_HEADER + PREFIX, SEGMENT_HEADER + PREFIX + 1), (0, 0)],
)
def test_impossible_sizes_are_refused(share: int, segment_bytes: int) -> None:
    with pytest.raises(ValueError, match="STATUS_LIMIT"):
        ShownJournal(share, segment_bytes)


# Readers on other threads ----------------------------------------------------------------------------


@pytest.mark.parametrize("share", [16 * 1024, 1024 * 1024])
def test_readers_on_other_threads_get_every_event_whole_or_know_it_lost(share: int) -> None:
    count, limits = 60_000, (0, 900, 1 << 20)
    journal = ShownJournal(share, 2048)
    places = [ShownPlace(journal, "start") for _ in limits]
    with ThreadPoolExecutor(len(limits)) as pool:
        readers = [
            pool.submit(shown_journal_read_numbered, place, count, limit)
            for place, limit in zip(places, limits, strict=True)
        ]
        wrote_all = shown_journal_write_numbered(journal, count, 16)
        assert wrote_all
        for reader, place in zip(readers, places, strict=True):
            delivered, lost, wrong = reader.result()
            assert wrong == 0
            assert delivered + lost == count
            assert lost == place.lost
    assert journal.free() == 0
    assert journal.memory_bytes == 0


# The split of the budget ---------------------------------------------------------------------------------


@given(total=st.integers(0, 1 << 40), event=st.one_of(st.integers(0, 1 << 26), st.integers(0, (1 << 64) - 1)))
def test_shares(total: int, event: int) -> None:
    expected = shares(total, SEGMENT_HEADER + PREFIX + event, LEAST_SHARE)
    status, *found, smallest = shown_journal_shares(total, event)
    if expected is None:
        assert status == "STATUS_LIMIT"
        assert smallest > total
    else:
        assert (status, tuple(found)) == ("STATUS_OK", expected)
        assert sum(found) == total
        assert min(found) >= 2 * (SEGMENT_HEADER + PREFIX + event)


@given(event=st.integers(0, 1 << 60))
def test_smallest_total_is_the_smallest(event: int) -> None:
    *_, smallest = shown_journal_shares(0, event)
    status, *found, _ = shown_journal_shares(smallest, event)
    assert status == "STATUS_OK"
    assert len(set(found)) == 1
    assert shown_journal_shares(smallest - 1, event)[0] == "STATUS_LIMIT"


def test_shares_have_the_ratio_where_no_floor_is_above_it() -> None:
    assert shown_journal_shares(64 << 20, 64 << 10)[:4] == ("STATUS_OK", 4 << 20, 12 << 20, 48 << 20)


def test_what_the_default_budget_lacks_for_messages_comes_from_logs() -> None:
    floor = 2 * (SEGMENT_HEADER + PREFIX + (4 << 20))
    assert shown_journal_shares(64 << 20, 4 << 20) == (
        "STATUS_OK",
        floor,
        12 << 20,
        (52 << 20) - floor,
        3 * floor,
    )


@given(share=st.integers(LEAST_SHARE, 1 << 40))
def test_segments_are_standard_unless_the_share_is_small(share: int) -> None:
    size = shown_journal_segment_bytes(share)
    assert LEAST_SEGMENT <= size <= SEGMENT_BYTES
    assert size == SEGMENT_BYTES or size * 8 <= share
    assert ShownJournal(share, size).held == 0
