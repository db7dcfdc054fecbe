"""Shows journal.pxd, timers.pxd and grpc.pxd to pytest."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

cimport relay.native.grpc as leaf_grpc
cimport relay.native.journal as leaf_journal
cimport relay.native.memory as leaf_memory
cimport relay.native.reader as leaf_reader
cimport relay.native.status as leaf_status
cimport relay.native.timers as leaf_timers

SEGMENT_HEADER = sizeof(leaf_journal.Segment)
SEGMENT_BYTES = <size_t>leaf_journal.JOURNAL_SEGMENT_BYTES
LEAST_SHARE = <size_t>leaf_journal.JOURNAL_LEAST_SHARE
LEAST_SEGMENT = <size_t>leaf_journal.JOURNAL_LEAST_SEGMENT
TIMER_NEVER = <uint64_t>-1


cdef class ShownPin:
    """A pinned segment, and the readable bytes of it as they were when it was pinned."""
    cdef leaf_journal.Segment *segment
    cdef const uint8_t *start
    cdef size_t size
    cdef readonly uint32_t frames

    def bytes(self):
        return PyBytes_FromStringAndSize(<const char *>self.start, <Py_ssize_t>self.size)


cdef void shown_recycling(
    void *context, leaf_journal.Journal *journal, leaf_journal.Segment *segment
) noexcept nogil:
    """Remember the last call's segment, and what the journal looked like during it."""
    cdef uint64_t *seen = <uint64_t *>context
    seen[0] += 1
    seen[1] = segment.number
    seen[2] = journal.oldest.number
    seen[3] = journal.first


cdef class ShownJournal:
    cdef leaf_memory.Memory memory
    cdef leaf_journal.Journal journal
    cdef uint64_t seen[4]
    cdef bint alive

    def __cinit__(self, size_t share, size_t segment_bytes):
        leaf_memory.memory_init(&self.memory)
        memset(self.seen, 0, sizeof(self.seen))
        cdef int status = leaf_journal.journal_init(&self.journal, &self.memory, share, segment_bytes)
        if status != leaf_status.STATUS_OK:
            raise ValueError(leaf_status.status_name(status).decode())
        self.alive = True

    def __dealloc__(self):
        if self.alive:
            leaf_journal.journal_free(&self.journal)

    def watch_recycling(self):
        self.journal.recycling = shown_recycling
        self.journal.recycling_context = self.seen

    def reserve(self, size_t frame_size):
        """Whether there was room; nothing is committed."""
        cdef uint8_t *room
        with nogil:
            leaf_journal.journal_lock(&self.journal)
            room = leaf_journal.journal_reserve(&self.journal, frame_size)
            if room != NULL:
                memset(room, 0xEE, frame_size)
            leaf_journal.journal_unlock(&self.journal)
        return room != NULL

    def append(self, bytes frame not None):
        """Reserve, write and commit; False when there was no room."""
        cdef size_t size = <size_t>len(frame)
        cdef const char *data = PyBytes_AS_STRING(frame)
        cdef uint8_t *room
        with nogil:
            leaf_journal.journal_lock(&self.journal)
            room = leaf_journal.journal_reserve(&self.journal, size)
            if room != NULL:
                memcpy(room, data, size)
                leaf_journal.journal_commit(&self.journal, size)
            leaf_journal.journal_unlock(&self.journal)
        return room != NULL

    def fail_at(self, uint64_t count):
        leaf_memory.memory_fail_at(&self.memory, count)

    def unpin(self, ShownPin pin not None):
        with nogil:
            leaf_journal.journal_unpin(&self.journal, pin.segment)
        pin.segment = NULL

    def free(self):
        """Bytes still pinned."""
        self.alive = leaf_journal.journal_free(&self.journal) != 0
        return self.journal.held

    def segments_held(self):
        """The listed segments, oldest first: (number, first, frames, used, size, pins)."""
        held = []
        cdef leaf_journal.Segment *segment = self.journal.oldest
        while segment != NULL:
            held.append((segment.number, segment.first, segment.frames, segment.used, segment.size, segment.pins))
            segment = segment.next
        return held

    @property
    def spare(self):
        return self.journal.spare != NULL

    @property
    def held(self):
        return self.journal.held

    @property
    def first(self):
        return self.journal.first

    @property
    def next(self):
        return self.journal.next

    @property
    def segments(self):
        return self.journal.segments

    @property
    def recycled(self):
        return self.journal.recycled

    @property
    def memory_bytes(self):
        return leaf_memory.memory_bytes(&self.memory)

    @property
    def memory_taken(self):
        return leaf_memory.memory_taken(&self.memory)

    @property
    def recycling_seen(self):
        """(calls, number of the last segment, oldest number and first sequence during that call)"""
        return tuple(self.seen)


cdef class ShownPlace:
    cdef ShownJournal owner
    cdef leaf_journal.Place place

    def __cinit__(self, ShownJournal owner not None, str where not None):
        self.owner = owner
        if where == "start":
            leaf_journal.place_at_start(&self.place)
        else:
            leaf_journal.place_at_head(&owner.journal, &self.place)

    def settle(self):
        return leaf_journal.place_settle(&self.owner.journal, &self.place)

    def take(self, size_t limit):
        """(frames, bytes), or (0, None) when there is nothing to read."""
        cdef const uint8_t *start = NULL
        cdef size_t size = 0
        cdef uint32_t frames = leaf_journal.place_take(&self.owner.journal, &self.place, limit, &start, &size)
        if start == NULL:
            return frames, None
        return frames, PyBytes_FromStringAndSize(<const char *>start, <Py_ssize_t>size)

    def frame_size(self):
        return leaf_journal.place_frame_size(&self.place)

    def frame(self):
        """The frame at a settled place that has one."""
        cdef size_t size = leaf_journal.place_frame_size(&self.place)
        assert size <= self.place.end - self.place.offset
        return PyBytes_FromStringAndSize(
            <const char *>self.place.segment.data + self.place.offset, <Py_ssize_t>size
        )

    def advance(self, size_t size, uint32_t frames):
        leaf_journal.place_advance(&self.place, size, frames)

    def pin(self, size_t limit):
        """A ShownPin with the run that `take` gives, or None when there is nothing to read."""
        cdef ShownPin pin = ShownPin()
        with nogil:
            pin.segment = leaf_journal.journal_pin(&self.owner.journal, &self.place)
        if pin.segment == NULL:
            return None
        pin.frames = leaf_journal.place_take(&self.owner.journal, &self.place, limit, &pin.start, &pin.size)
        return pin

    @property
    def sequence(self):
        return self.place.sequence

    @property
    def lost(self):
        return self.place.lost


def shown_journal_shares(size_t total, size_t max_event_bytes):
    """(status, messages, alerts, logs, smallest total)"""
    cdef size_t shares[3]
    cdef size_t smallest = 0
    memset(shares, 0, sizeof(shares))
    cdef int status = leaf_journal.journal_shares(total, max_event_bytes, shares, &smallest)
    return leaf_status.status_name(status).decode(), shares[0], shares[1], shares[2], smallest


def shown_journal_segment_bytes(size_t share):
    return leaf_journal.journal_segment_bytes(share)


def shown_journal_append_many(ShownJournal owner not None, bytes frame not None, uint64_t count):
    """For benchmarks: append one frame many times, as the reactor does. The sequence number after it."""
    cdef size_t size = <size_t>len(frame)
    cdef const char *data = PyBytes_AS_STRING(frame)
    cdef uint64_t i
    cdef uint8_t *room
    with nogil:
        leaf_journal.journal_lock(&owner.journal)
        for i in range(count):
            room = leaf_journal.journal_reserve(&owner.journal, size)
            if room == NULL:
                break
            memcpy(room, data, size)
            leaf_journal.journal_commit(&owner.journal, size)
        leaf_journal.journal_unlock(&owner.journal)
    return owner.journal.next


def shown_journal_read_all(ShownPlace reader not None, size_t limit):
    """For benchmarks: take everything there is, in runs of at most `limit` bytes. (frames, bytes, runs)"""
    cdef const uint8_t *start = NULL
    cdef size_t size = 0
    cdef uint32_t frames
    cdef uint64_t all_frames = 0
    cdef uint64_t all_bytes = 0
    cdef uint64_t runs = 0
    with nogil:
        while True:
            leaf_journal.place_settle(&reader.owner.journal, &reader.place)
            frames = leaf_journal.place_take(&reader.owner.journal, &reader.place, limit, &start, &size)
            if frames == 0:
                if start == NULL:
                    break
                size = leaf_journal.place_frame_size(&reader.place)
                frames = 1
            leaf_journal.place_advance(&reader.place, size, frames)
            all_frames += frames
            all_bytes += size
            runs += 1
    return all_frames, all_bytes, runs


def shown_journal_walk(ShownPlace reader not None, uint64_t count):
    """For benchmarks: pass `count` frames one at a time, looking only at their prefixes. The bytes passed."""
    cdef uint64_t i
    cdef size_t size
    cdef uint64_t total = 0
    with nogil:
        for i in range(count):
            leaf_journal.place_settle(&reader.owner.journal, &reader.place)
            size = leaf_journal.place_frame_size(&reader.place)
            leaf_journal.place_advance(&reader.place, size, 1)
            total += size
    return total


cdef class ShownTimers:
    """A heap with `count` timers of its own, called by number."""
    cdef leaf_memory.Memory memory
    cdef leaf_timers.Timers timers
    cdef leaf_timers.Timer *all
    cdef size_t count

    def __cinit__(self, uint32_t count):
        cdef size_t i
        leaf_memory.memory_init(&self.memory)
        leaf_timers.timers_init(&self.timers, &self.memory)
        self.all = <leaf_timers.Timer *>calloc(count, sizeof(leaf_timers.Timer))
        if self.all == NULL:
            raise MemoryError
        self.count = count
        for i in range(count):
            leaf_timers.timer_init(&self.all[i], <void *>i)

    def __dealloc__(self):
        leaf_timers.timers_free(&self.timers)
        free(self.all)

    def reserve(self, size_t count):
        return leaf_status.status_name(leaf_timers.timers_reserve(&self.timers, count)).decode()

    def set(self, size_t number, uint64_t deadline):
        assert number < self.count
        cdef int status = leaf_timers.timers_set(&self.timers, &self.all[number], deadline)
        return leaf_status.status_name(status).decode()

    def clear(self, size_t number):
        assert number < self.count
        leaf_timers.timers_clear(&self.timers, &self.all[number])

    def is_set(self, size_t number):
        assert number < self.count
        return self.all[number].index != 0

    def first(self):
        return leaf_timers.timers_first(&self.timers)

    def pop_due(self, uint64_t now):
        """(number, its deadline), or None."""
        cdef leaf_timers.Timer *timer = leaf_timers.timers_pop_due(&self.timers, now)
        if timer == NULL:
            return None
        return <size_t>timer.owner, timer.deadline

    def well_formed(self):
        """No parent is due after its child, and every timer knows its place."""
        cdef size_t index
        for index in range(1, self.timers.count + 1):
            if self.timers.heap[index - 1].index != index:
                return False
            if index > 1 and self.timers.heap[index // 2 - 1].deadline > self.timers.heap[index - 1].deadline:
                return False
        return True

    def free(self):
        leaf_timers.timers_free(&self.timers)

    def fail_at(self, uint64_t count):
        leaf_memory.memory_fail_at(&self.memory, count)

    @property
    def set_count(self):
        return self.timers.count

    @property
    def memory_bytes(self):
        return leaf_memory.memory_bytes(&self.memory)

    @property
    def memory_taken(self):
        return leaf_memory.memory_taken(&self.memory)


def shown_timers_churn(ShownTimers owner not None, uint64_t rounds):
    """For benchmarks: set every timer again, later each round. The number of sets."""
    cdef uint64_t turn
    cdef size_t i
    with nogil:
        for turn in range(rounds):
            for i in range(owner.count):
                leaf_timers.timers_set(&owner.timers, &owner.all[i], turn * 1000 + (i * 7919) % 1000)
    return rounds * owner.count


# Each function gets its input in a block of exactly that size, so that the sanitizers see a read past its end.

cdef uint8_t *shown_copy(bytes data) except NULL:
    cdef uint8_t *copy = <uint8_t *>calloc(1, <size_t>len(data) or 1)
    if copy == NULL:
        raise MemoryError
    memcpy(copy, PyBytes_AS_STRING(data), <size_t>len(data))
    return copy


def shown_grpc_decimal(uint64_t value):
    cdef uint8_t out[leaf_grpc.GRPC_DECIMAL_BYTES]
    cdef size_t size = leaf_grpc.grpc_decimal_print(value, out)
    return PyBytes_FromStringAndSize(<const char *>out, <Py_ssize_t>size)


def shown_grpc_timeout(bytes text not None):
    """Nanoseconds, or None when malformed."""
    cdef uint64_t nanoseconds = 12345
    cdef uint8_t *copy = shown_copy(text)
    cdef int status = leaf_grpc.grpc_timeout_parse(copy, <size_t>len(text), &nanoseconds)
    free(copy)
    if status != leaf_status.STATUS_OK:
        assert status == leaf_status.STATUS_MALFORMED
        assert nanoseconds == 12345
        return None
    return nanoseconds


def shown_grpc_status(bytes text not None):
    cdef uint8_t *copy = shown_copy(text)
    cdef int status = leaf_grpc.grpc_status_parse(copy, <size_t>len(text))
    free(copy)
    return status


def shown_grpc_message_encode(bytes text not None, size_t room):
    cdef uint8_t *copy = shown_copy(text)
    cdef uint8_t *out = <uint8_t *>calloc(1, room or 1)
    cdef size_t size = leaf_grpc.grpc_message_encode(copy, <size_t>len(text), out, room)
    assert size <= room
    encoded = PyBytes_FromStringAndSize(<const char *>out, <Py_ssize_t>size)
    free(copy)
    free(out)
    return encoded


def shown_grpc_message_decode(bytes text not None, size_t room, bint in_place=False):
    cdef uint8_t *copy = shown_copy(text)
    cdef uint8_t *out = <uint8_t *>calloc(1, room or 1)
    cdef size_t size = leaf_grpc.grpc_message_decode(copy, <size_t>len(text), copy if in_place else out, room)
    assert size <= room
    decoded = PyBytes_FromStringAndSize(<const char *>(copy if in_place else out), <Py_ssize_t>size)
    free(copy)
    free(out)
    return decoded


def shown_grpc_content_type(bytes text not None):
    cdef uint8_t *copy = shown_copy(text)
    cdef bint ok = leaf_grpc.grpc_content_type_ok(copy, <size_t>len(text))
    free(copy)
    return bool(ok)


def shown_grpc_prefix_write(uint32_t size):
    cdef uint8_t out[leaf_grpc.GRPC_PREFIX_BYTES]
    leaf_grpc.grpc_prefix_write(out, size)
    return PyBytes_FromStringAndSize(<const char *>out, leaf_grpc.GRPC_PREFIX_BYTES)


def shown_grpc_filter(bytes message not None):
    """RequestMessage.Filter as bytes, or None when malformed."""
    cdef const uint8_t *found = NULL
    cdef size_t size = 0
    cdef uint8_t *copy = shown_copy(message)
    cdef int status = leaf_grpc.grpc_filter_decode(copy, <size_t>len(message), &found, &size)
    text = PyBytes_FromStringAndSize(<const char *>found, <Py_ssize_t>size)
    free(copy)
    if status != leaf_status.STATUS_OK:
        assert status == leaf_status.STATUS_MALFORMED
        assert text == b""
        return None
    return text


def shown_grpc_nonce_decode(bytes message not None):
    """NonceMessage.nonce, or None when malformed."""
    cdef int32_t nonce = 0
    cdef uint8_t *copy = shown_copy(message)
    cdef int status = leaf_grpc.grpc_nonce_decode(copy, <size_t>len(message), &nonce)
    free(copy)
    return nonce if status == leaf_status.STATUS_OK else None


def shown_grpc_reply_decode(bytes message not None):
    """ReplyMessage.Retval, or None when malformed."""
    cdef int32_t retval = 0
    cdef uint8_t *copy = shown_copy(message)
    cdef int status = leaf_grpc.grpc_reply_decode(copy, <size_t>len(message), &retval)
    free(copy)
    return retval if status == leaf_status.STATUS_OK else None


def shown_grpc_nonce_encode(int32_t nonce):
    cdef uint8_t out[leaf_grpc.GRPC_INT32_MESSAGE_BYTES]
    cdef size_t size = leaf_grpc.grpc_nonce_encode(nonce, out)
    return PyBytes_FromStringAndSize(<const char *>out, <Py_ssize_t>size)


def shown_grpc_reply_encode(int32_t retval):
    cdef uint8_t out[leaf_grpc.GRPC_INT32_MESSAGE_BYTES]
    cdef size_t size = leaf_grpc.grpc_reply_encode(retval, out)
    return PyBytes_FromStringAndSize(<const char *>out, <Py_ssize_t>size)


def shown_grpc_status_of_http(int http):
    return leaf_grpc.grpc_status_of_http(http)


def shown_grpc_status_of_http2(uint32_t error):
    return leaf_grpc.grpc_status_of_http2(error)


def shown_grpc_filter_many(bytes message not None, uint64_t count):
    """For benchmarks: decode one request message many times. The bytes of filter seen."""
    cdef const uint8_t *found = NULL
    cdef size_t size = 0
    cdef uint64_t i
    cdef uint64_t total = 0
    cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(message)
    cdef size_t length = <size_t>len(message)
    with nogil:
        for i in range(count):
            leaf_grpc.grpc_filter_decode(data, length, &found, &size)
            total += size
    return total


# A writer and readers that run without the GIL, so that they meet in the journal.
# An event carries its own sequence number, and a length and filling that follow from it.

cdef inline size_t shown_numbered_size(uint64_t sequence) noexcept nogil:
    return 8 + <size_t>(sequence * 37 % 701)


def shown_journal_write_numbered(ShownJournal owner not None, uint64_t count, uint32_t chunk):
    """Append events until `count` are there, taking the lock once per `chunk`. Whether all found room."""
    cdef uint64_t sequence
    cdef uint32_t i
    cdef size_t size
    cdef uint8_t *room = NULL
    cdef bint ok = True
    with nogil:
        while ok and owner.journal.next < count:
            leaf_journal.journal_lock(&owner.journal)
            for i in range(chunk):
                sequence = owner.journal.next
                if sequence == count:
                    break
                size = shown_numbered_size(sequence)
                room = leaf_journal.journal_reserve(&owner.journal, leaf_grpc.GRPC_PREFIX_BYTES + size)
                if room == NULL:
                    ok = False
                    break
                leaf_grpc.grpc_prefix_write(room, <uint32_t>size)
                memset(room + leaf_grpc.GRPC_PREFIX_BYTES, <int>(sequence & 0xFF), size)
                memcpy(room + leaf_grpc.GRPC_PREFIX_BYTES, &sequence, sizeof(sequence))
                leaf_journal.journal_commit(&owner.journal, leaf_grpc.GRPC_PREFIX_BYTES + size)
            leaf_journal.journal_unlock(&owner.journal)
    return ok


cdef bint shown_numbered_right(const uint8_t *frame, size_t size, uint64_t sequence) noexcept nogil:
    cdef uint64_t number
    cdef size_t i
    if size != leaf_grpc.GRPC_PREFIX_BYTES + shown_numbered_size(sequence):
        return False
    memcpy(&number, frame + leaf_grpc.GRPC_PREFIX_BYTES, sizeof(number))
    for i in range(leaf_grpc.GRPC_PREFIX_BYTES + sizeof(number), size):
        if frame[i] != <uint8_t>sequence:
            return False
    return number == sequence


def shown_journal_read_numbered(ShownPlace reader not None, uint64_t count, size_t limit):
    """Read as a sink does until `count` events have been passed. (delivered, lost, wrong)"""
    cdef leaf_journal.Journal *journal = &reader.owner.journal
    cdef leaf_journal.Segment *segment
    cdef const uint8_t *start
    cdef size_t size
    cdef size_t frame_size
    cdef uint32_t frames
    cdef uint32_t i
    cdef uint64_t delivered = 0
    cdef uint64_t wrong = 0
    with nogil:
        while reader.place.sequence < count:
            segment = leaf_journal.journal_pin(journal, &reader.place)
            if segment == NULL:
                continue
            frames = leaf_journal.place_take(journal, &reader.place, limit, &start, &size)
            if frames == 0:
                frames = 1
            for i in range(frames):
                frame_size = leaf_journal.place_frame_size(&reader.place)
                if not shown_numbered_right(
                    reader.place.segment.data + reader.place.offset, frame_size, reader.place.sequence
                ):
                    wrong += 1
                leaf_journal.place_advance(&reader.place, frame_size, 1)
            delivered += frames
            leaf_journal.journal_unpin(journal, segment)
    return delivered, reader.place.lost, wrong
