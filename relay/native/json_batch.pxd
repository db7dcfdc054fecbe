"""From a journal to lines of JSON: what sinks take, on threads of their own."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from relay.native.debug cimport relay_assert
from relay.native.journal cimport (
    JOURNAL_PREFIX, Journal, Place, Segment, journal_lock, journal_pin, journal_unlock, journal_unpin, place_advance,
    place_at_head, place_at_start, place_frame_size, place_settle, relay_frame_length,
)
from relay.native.json cimport Json, JsonBuffer, json_event, json_reserve
from relay.native.json_text cimport relay_json_unsigned
from relay.native.status cimport STATUS_MALFORMED, STATUS_NO_MEMORY, STATUS_OK, STATUS_OVERSIZE

cdef enum:
    # Behind the id's prefix: digits of the sequence number, "}} and the line's end.
    JSON_ACTION_END = 24


# What a batch is to have, and what it has got.
cdef struct JsonBatch:
    size_t most_bytes          # of the buffer in all; one event is taken in any case
    uint64_t most_events
    uint64_t stop_at           # no event from this sequence number on
    const uint8_t *action      # the action line up to the sequence number; NULL without
    size_t action_size
    uint64_t first             # sequence number of the first event
    uint64_t events


cdef inline int _json_line(
    Json *json, int feed, const uint8_t *frame, size_t size, uint64_t sequence, const JsonBatch *batch, JsonBuffer *out
) noexcept nogil:
    """Append one event's line, behind its action line where there is one."""
    cdef size_t former = out.used
    cdef uint8_t *to
    cdef int status
    if batch.action != NULL:
        if not json_reserve(out, batch.action_size + JSON_ACTION_END):
            return STATUS_NO_MEMORY
        to = out.data + out.used
        memcpy(to, batch.action, batch.action_size)
        to = relay_json_unsigned(to + batch.action_size, sequence)
        memcpy(to, b"\"}}\n", 4)
        out.used = <size_t> (to + 4 - out.data)
    status = json_event(json, feed, frame + JOURNAL_PREFIX, size - JOURNAL_PREFIX, out)
    if status != STATUS_OK:
        out.used = former
        return status
    # The event's bound has left room behind it.
    out.data[out.used] = 10
    out.used += 1
    return STATUS_OK


cdef inline int json_batch(
    Journal *journal, int feed, Place *place, Json *json, JsonBuffer *out, JsonBatch *batch
) noexcept nogil:
    """Append events from a place on, and move it past them. They are consecutive: a gap ends the batch.

    STATUS_OK when the batch is as full as may be, or nothing is left to read. STATUS_NO_MEMORY: the
    place is before the event that there was no memory for. The segment being read is pinned meanwhile.
    """
    cdef Segment *segment
    cdef const uint8_t *frame
    cdef uint64_t sequence
    cdef uint64_t unreadable
    cdef size_t taken, size, former
    cdef uint32_t frames
    cdef int status = STATUS_OK
    cdef bint full = False
    batch.events = 0
    while not full:
        segment = journal_pin(journal, place)
        if segment == NULL:
            break
        frame = segment.data + place.offset
        sequence = place.sequence
        if batch.events == 0:
            batch.first = sequence
        full = sequence != batch.first + batch.events
        taken = 0
        frames = 0
        unreadable = 0
        while not full and unreadable == 0 and taken < place.end - place.offset:
            if batch.events == batch.most_events or sequence >= batch.stop_at:
                full = True
                break
            size = <size_t> JOURNAL_PREFIX + relay_frame_length(frame)
            former = out.used
            status = _json_line(json, feed, frame, size, sequence, batch, out)
            if status == STATUS_MALFORMED or status == STATUS_OVERSIZE:
                # It must not be in the way for ever, so it counts as lost. The scanner has seen what is malformed.
                relay_assert(status == STATUS_OVERSIZE, "an event in the journal is malformed")
                unreadable = 1
                status = STATUS_OK
                full = batch.events > 0
            elif status != STATUS_OK:
                full = True
                break
            elif out.used > batch.most_bytes and batch.events > 0:
                out.used = former
                full = True
                break
            else:
                batch.events += 1
            taken += size
            frame += size
            frames += 1
            sequence += 1
        journal_lock(journal)
        place_advance(place, taken, frames)
        place.lost += unreadable
        journal_unlock(journal)
        journal_unpin(journal, segment)
        full = full or out.used >= batch.most_bytes
    return STATUS_OK if batch.events > 0 else status


cdef inline void place_seek(Journal *journal, Place *place, uint64_t sequence, uint64_t lost) noexcept nogil:
    """Put a place before a frame that was written already, with what it had lost up to there; with the lock held.

    When the frame is gone the place is at the oldest one, and the difference is lost.
    """
    cdef Segment *segment = journal.oldest
    relay_assert(sequence <= journal.next, "a place is set ahead of its journal")
    if sequence == journal.next:
        place_at_head(journal, place)
        place.lost = lost
        return
    place_at_start(place)
    place.sequence = sequence
    place.lost = lost
    if sequence >= journal.first:
        while segment.first + segment.frames <= sequence:
            segment = segment.next
        place.segment = segment
        place.number = segment.number
        place.sequence = segment.first
        while place.sequence < sequence:
            place.offset += place_frame_size(place)
            place.sequence += 1
    place_settle(journal, place)
