"""The journal: a feed's bounded, append-only memory of frames.

A journal is a list of segments, oldest first. Frames lie back to back in a segment and never
cross its end; a frame larger than a standard segment gets one of its own. Every frame has a
sequence number, from 0. When a new segment would pass the journal's share of bytes, the oldest
are recycled, whoever has not read them: a place that was overtaken learns so when it settles.

One thread writes: the reactor. It holds the journal's lock while it appends (once per received chunk, so
that a frame costs no lock), and reads through its own places without it. Readers
on other threads settle and pin under the lock, and read the pinned bytes without it: bytes
below a place's `end` never change again.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from relay.native.debug cimport relay_assert
from relay.native.memory cimport Memory, memory_release, memory_take
from relay.native.posix cimport (
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock,
)
from relay.native.status cimport STATUS_LIMIT, STATUS_NO_MEMORY, STATUS_OK

cdef extern from *:
    """
    #include <stdint.h>
    #ifndef RELAY_FRAME_LENGTH
    #define RELAY_FRAME_LENGTH
    /* The length in a frame's prefix: four bytes, big-endian, after the compression flag. */
    static inline uint32_t relay_frame_length(const uint8_t *frame) {
        return (uint32_t)frame[1] << 24 | (uint32_t)frame[2] << 16 | (uint32_t)frame[3] << 8 | frame[4];
    }
    #endif
    """
    uint32_t relay_frame_length(const uint8_t *frame) noexcept nogil

cdef enum:
    JOURNAL_FEEDS = 3           # 0 messages, 1 alerts, 2 logs
    JOURNAL_PREFIX = 5          # bytes of a frame before the event
    JOURNAL_SEGMENT_BYTES = 262144
    # A share holds at least this many standard segments, so that recycling one forgets little.
    JOURNAL_SEGMENTS_PER_SHARE = 8
    JOURNAL_LEAST_SEGMENT = 1024
    JOURNAL_LEAST_SHARE = 8192


cdef struct Segment:            # header and data are one allocation
    Segment *next               # the next newer one
    uint64_t number             # ordinal in its journal, from 0; never used twice
    uint64_t first              # sequence number of its first frame
    uint32_t frames
    uint32_t pins
    bint unlinked               # recycled while pinned: freed at its last unpin
    size_t size                 # capacity of data
    size_t used
    uint8_t *data               # behind this header

cdef struct Journal:
    Memory *memory
    size_t share                # bytes this journal may hold
    size_t segment_bytes        # of a standard segment, its header included
    size_t held                 # bytes of all segments, headers, the spare and those unlinked while pinned included
    Segment *oldest
    Segment *newest
    Segment *spare              # a standard segment kept for reuse, so that a steady state allocates nothing
    uint64_t first              # sequence number of the oldest frame held; `next` when none is
    uint64_t next               # sequence number of the next frame to be written
    uint64_t segments           # made so far
    uint64_t recycled           # fallen off the end so far
    # Called with the lock held before the oldest segment is recycled, while it is still in place.
    # May be NULL. Must not append or pin.
    void (*recycling)(void *context, Journal *journal, Segment *segment) noexcept nogil
    void *recycling_context
    pthread_mutex_t lock

cdef struct Place:              # where a reader is in a journal
    uint64_t sequence           # of the next frame to read
    uint64_t lost               # frames overwritten before this reader read them
    Segment *segment            # may dangle: followed only while number >= journal.oldest.number
    uint64_t number             # of that segment
    size_t offset               # of the next frame in it
    # What the segment held when the place was settled: `place_take` looks no further.
    size_t end
    uint64_t end_sequence


# The share of each feed ---------------------------------------------------------------------

cdef inline size_t journal_floor(size_t max_event_bytes) noexcept nogil:
    """The least share of a feed: two segments that hold one largest event each; 0 when that overflows."""
    cdef size_t around = sizeof(Segment) + JOURNAL_PREFIX
    cdef size_t floor
    if max_event_bytes > (<size_t>-1) // 8 - around:
        return 0
    floor = 2 * (max_event_bytes + around)
    return floor if floor > JOURNAL_LEAST_SHARE else JOURNAL_LEAST_SHARE


cdef inline int journal_shares(size_t total, size_t max_event_bytes, size_t *shares, size_t *smallest) noexcept nogil:
    """Split a byte budget: logs 3/4, alerts 3/16, messages 1/16, none below its floor.

    What raises a share to its floor comes out of the largest, the logs'. The shares' sum is `total`.
    `smallest` becomes the least total accepted (the largest size_t when none is); STATUS_LIMIT below it.
    """
    cdef size_t floor = journal_floor(max_event_bytes)
    if floor == 0:
        smallest[0] = <size_t>-1
        return STATUS_LIMIT
    smallest[0] = JOURNAL_FEEDS * floor
    if total < smallest[0]:
        return STATUS_LIMIT
    shares[0] = total // 16
    if shares[0] < floor:
        shares[0] = floor
    shares[1] = total // 16 * 3
    if shares[1] < floor:
        shares[1] = floor
    # Cannot fall below the floor: if messages alone were raised it is more than 3 floors, if both, at least one.
    shares[2] = total - shares[0] - shares[1]
    return STATUS_OK


cdef inline size_t journal_segment_bytes(size_t share) noexcept nogil:
    """The size of a standard segment for a journal with this share."""
    cdef size_t size = share // JOURNAL_SEGMENTS_PER_SHARE
    if size > JOURNAL_SEGMENT_BYTES:
        return JOURNAL_SEGMENT_BYTES
    return size if size > JOURNAL_LEAST_SEGMENT else JOURNAL_LEAST_SEGMENT


# Life and lock --------------------------------------------------------------------------------

cdef inline int journal_init(Journal *journal, Memory *memory, size_t share, size_t segment_bytes) noexcept nogil:
    """Make an empty journal.

    `segment_bytes` includes a segment's header; STATUS_LIMIT when it has no room for a prefix, or the
    share none for a segment.
    """
    if segment_bytes < sizeof(Segment) + JOURNAL_PREFIX or segment_bytes > share:
        return STATUS_LIMIT
    journal.memory = memory
    journal.share = share
    journal.segment_bytes = segment_bytes
    journal.held = 0
    journal.oldest = NULL
    journal.newest = NULL
    journal.spare = NULL
    journal.first = 0
    journal.next = 0
    journal.segments = 0
    journal.recycled = 0
    journal.recycling = NULL
    journal.recycling_context = NULL
    if pthread_mutex_init(&journal.lock, NULL) != 0:
        return STATUS_NO_MEMORY
    return STATUS_OK


cdef inline void journal_lock(Journal *journal) noexcept nogil:
    pthread_mutex_lock(&journal.lock)


cdef inline void journal_unlock(Journal *journal) noexcept nogil:
    pthread_mutex_unlock(&journal.lock)


cdef inline void segment_free(Journal *journal, Segment *segment) noexcept nogil:
    cdef size_t size = sizeof(Segment) + segment.size
    journal.held -= size
    memory_release(journal.memory, segment)


cdef inline void segment_retire(Journal *journal, Segment *segment) noexcept nogil:
    """Keep a segment that nobody needs any more as the spare, or free it.

    While pins hold the journal above its share, none is kept.
    """
    cdef bint standard = sizeof(Segment) + segment.size == journal.segment_bytes
    if standard and journal.spare == NULL and journal.held <= journal.share:
        journal.spare = segment
    else:
        segment_free(journal, segment)


cdef inline void journal_unlink_oldest(Journal *journal) noexcept nogil:
    """Take the oldest segment off the list; unless a reader has it pinned, retire it."""
    cdef Segment *segment = journal.oldest
    if journal.recycling != NULL:
        journal.recycling(journal.recycling_context, journal, segment)
    journal.oldest = segment.next
    if journal.oldest == NULL:
        journal.newest = NULL
    journal.first += segment.frames
    journal.recycled += 1
    if segment.pins > 0:
        segment.unlinked = True
    else:
        segment_retire(journal, segment)


cdef inline size_t journal_free(Journal *journal) noexcept nogil:
    """Free every segment that no reader has pinned. Returns the bytes that are.

    While that is not 0 the Journal must live on; once all are unpinned, free it again.
    """
    cdef size_t held
    journal_lock(journal)
    journal.recycling = NULL
    while journal.oldest != NULL:
        journal_unlink_oldest(journal)
    if journal.spare != NULL:
        segment_free(journal, journal.spare)
        journal.spare = NULL
    held = journal.held
    journal_unlock(journal)
    if held == 0:
        pthread_mutex_destroy(&journal.lock)
    return held


# Writing: the reactor, with the lock held -------------------------------------------------------

cdef inline uint8_t *journal_extend(Journal *journal, size_t frame_size) noexcept nogil:
    """The slow half of `journal_reserve`: make a new newest segment, recycling as many old ones as it takes."""
    cdef size_t capacity = journal.segment_bytes - sizeof(Segment)
    cdef bint standard = frame_size <= capacity
    cdef Segment *segment = NULL
    cdef size_t needed
    if not standard:
        capacity = frame_size
    if capacity > journal.share - sizeof(Segment):
        return NULL
    needed = sizeof(Segment) + capacity
    while not (standard and journal.spare != NULL) and journal.held > journal.share - needed:
        if journal.spare != NULL:
            segment_free(journal, journal.spare)
            journal.spare = NULL
        elif journal.oldest != NULL:
            journal_unlink_oldest(journal)
        else:
            break               # the rest is pinned: go over the share by this one segment
    if standard and journal.spare != NULL:
        segment = journal.spare
        journal.spare = NULL
    else:
        segment = <Segment *>memory_take(journal.memory, needed)
        if segment == NULL:
            return NULL
        journal.held += needed
        segment.size = capacity
        segment.data = <uint8_t *>segment + sizeof(Segment)
    segment.next = NULL
    segment.number = journal.segments
    segment.first = journal.next
    segment.frames = 0
    segment.pins = 0
    segment.unlinked = False
    segment.used = 0
    journal.segments += 1
    if journal.newest != NULL:
        journal.newest.next = segment
    else:
        journal.oldest = segment
    journal.newest = segment
    return segment.data


cdef inline uint8_t *journal_reserve(Journal *journal, size_t frame_size) noexcept nogil:
    """Room for one frame, prefix included, where it will stay.

    NULL when memory is out, or when the frame and a segment's header are more than the share.
    Without `journal_commit` nothing has happened, except that old segments may have been recycled.
    A frame is never refused because readers have too much pinned: with nothing left to recycle the journal
    takes the one segment anyway, so `held` is at most the share, or the pinned bytes and that segment.
    """
    cdef Segment *newest = journal.newest
    if newest != NULL and frame_size <= newest.size - newest.used:
        return newest.data + newest.used
    return journal_extend(journal, frame_size)


cdef inline void journal_commit(Journal *journal, size_t frame_size) noexcept nogil:
    """The frame last reserved is complete, and not larger than it was reserved."""
    cdef Segment *newest = journal.newest
    relay_assert(newest != NULL and frame_size <= newest.size - newest.used, "a frame outgrew what was reserved")
    relay_assert(
        frame_size == <size_t>JOURNAL_PREFIX + relay_frame_length(newest.data + newest.used),
        "a frame's prefix tells another size than was committed",
    )
    newest.used += frame_size
    newest.frames += 1
    journal.next += 1


# Reading ----------------------------------------------------------------------------------------

cdef inline void place_at_start(Place *place) noexcept nogil:
    """Before the first frame there ever was: whatever has fallen off since counts as lost."""
    place.sequence = 0
    place.lost = 0
    place.segment = NULL
    place.number = 0
    place.offset = 0
    place.end = 0
    place.end_sequence = 0


cdef inline void place_at_head(Journal *journal, Place *place) noexcept nogil:
    place_at_start(place)
    place.sequence = journal.next
    place.segment = journal.newest
    if place.segment != NULL:
        place.number = place.segment.number
        place.offset = place.segment.used
        place.end = place.segment.used


cdef inline uint64_t place_settle(Journal *journal, Place *place) noexcept nogil:
    """Bring a place up to date, before it is read. Returns the frames found lost, now counted in `place.lost`.

    Afterwards either `sequence` is the journal's `next`, and there is nothing to read, or the place
    is at a whole frame.
    """
    cdef uint64_t lost
    cdef Segment *segment
    if place.sequence == journal.next:
        # Its segment may be gone by now, but had nothing more to say.
        relay_assert(place.end == place.offset, "a place at the head has bytes to read")
        return 0
    relay_assert(place.sequence < journal.next, "a place is ahead of its journal")
    lost = 0
    segment = journal.oldest
    if segment != NULL and place.segment != NULL and place.number >= segment.number:
        segment = place.segment
    else:
        # No segment yet, or it is gone: everything it held has been read or is lost, so the oldest frame is next.
        lost = journal.first - place.sequence
        place.lost += lost
        place.sequence = journal.first
        place.offset = 0
    while segment != NULL and place.offset == segment.used and segment.next != NULL:
        segment = segment.next
        place.offset = 0
    place.segment = segment
    if segment == NULL:
        place.end = 0
        place.end_sequence = place.sequence
        place.offset = 0
    else:
        place.number = segment.number
        place.end = segment.used
        place.end_sequence = segment.first + segment.frames
    return lost


cdef inline size_t place_frame_size(const Place *place) noexcept nogil:
    """Size of the frame at a place that has one, prefix included."""
    return <size_t>JOURNAL_PREFIX + relay_frame_length(place.segment.data + place.offset)


cdef inline uint32_t place_take(
    Journal *journal, const Place *place, size_t limit, const uint8_t **start, size_t *size
) noexcept nogil:
    """The longest run of whole frames at a settled place that lies together and has at most `limit` bytes.

    Returns the number of frames. 0 with `start` set: the first frame alone is larger than the limit;
    0 with `start` NULL: nothing to read. Does not move the place, and reads nothing but it and the
    bytes below its `end`: on a pinned segment it needs no lock.
    """
    cdef size_t available = place.end - place.offset
    cdef size_t taken = 0
    cdef size_t frame_size
    cdef uint32_t frames = 0
    cdef const uint8_t *data
    size[0] = 0
    if available == 0:
        start[0] = NULL
        return 0
    data = place.segment.data + place.offset
    start[0] = data
    if available <= limit:
        size[0] = available
        return <uint32_t>(place.end_sequence - place.sequence)
    # Here the frames below `limit` end before `available` does, so no prefix is read past the end.
    while limit - taken >= JOURNAL_PREFIX:
        frame_size = <size_t>JOURNAL_PREFIX + relay_frame_length(data + taken)
        if frame_size > limit - taken:
            break
        taken += frame_size
        frames += 1
    size[0] = taken
    return frames


cdef inline void place_advance(Place *place, size_t size, uint32_t frames) noexcept nogil:
    """Move past frames that were taken, all in this segment."""
    relay_assert(size <= place.end - place.offset, "a place moved past what it was settled to")
    relay_assert(frames <= place.end_sequence - place.sequence, "a place passed more frames than there were")
    place.offset += size
    place.sequence += frames


cdef inline Segment *journal_pin(Journal *journal, Place *place) noexcept nogil:
    """Settle a place and pin the segment it is in, for a reader on another thread; NULL when there is nothing to read.

    Takes the lock. A reader pins one segment at a time, only while it encodes.
    """
    cdef Segment *segment = NULL
    journal_lock(journal)
    place_settle(journal, place)
    if place.sequence != journal.next:
        segment = place.segment
        segment.pins += 1
    journal_unlock(journal)
    return segment


cdef inline void journal_unpin(Journal *journal, Segment *segment) noexcept nogil:
    """Let go of a pinned segment; the last reader of one that was recycled meanwhile frees it. Takes the lock."""
    journal_lock(journal)
    relay_assert(segment.pins > 0, "a segment was unpinned more often than pinned")
    segment.pins -= 1
    if segment.pins == 0 and segment.unlinked:
        segment_retire(journal, segment)
    journal_unlock(journal)
