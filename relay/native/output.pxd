"""A connection's output: gathered from the journal and from control frames, written at once, settled by record.

One connection's output is gathered at a time, in the reactor's scratch. DATA payloads are pointed
to where they lie; control frames and frame headers are copied. Whatever the kernel does not accept
is copied into the connection's tail, so that no pointer into a journal outlives the gathering.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from relay.native.debug cimport relay_assert
from relay.native.journal cimport JOURNAL_PREFIX, relay_frame_length
from relay.native.memory cimport memory_release, memory_take
from relay.native.model cimport (
    FRAME_HEADER, FRAME_PAYLOAD, OUTPUT_PIECES, OUTPUT_SCRATCH, WRITE_BYTES, Connection, Reactor, Record,
    Stream, Tail,
)
from relay.native.posix cimport iovec
from relay.native.transport cimport TRANSPORT_AGAIN, TRANSPORT_FAILED, transport_write

# How a write ended.
cdef enum:  # OutputResult
    OUTPUT_ALL                 # the kernel accepted everything
    OUTPUT_SHORT               # the rest is in the tail: wait until the socket is writable
    OUTPUT_FAILED              # the connection is broken
    OUTPUT_NO_MEMORY           # no room for the tail


cdef inline void output_begin(Reactor *reactor, Connection *connection) noexcept nogil:
    reactor.output = connection
    reactor.scratch_used = 0
    reactor.piece_count = 0
    reactor.piece_bytes = 0
    reactor.record_count = 0
    # A tail is at most one write: keep it to a third of what may wait in the kernel, which shrinks with many
    # subscribers.
    reactor.write_bytes = WRITE_BYTES
    if connection.unsent and connection.unsent // 3 < WRITE_BYTES:
        reactor.write_bytes = connection.unsent // 3


cdef inline bint output_has_room(const Reactor *reactor) noexcept nogil:
    """Whether one more frame of any kind fits, and the write is not large enough already."""
    return (
        reactor.piece_bytes < reactor.write_bytes
        and reactor.piece_count + 2 <= OUTPUT_PIECES
        and reactor.scratch_used + FRAME_HEADER + FRAME_PAYLOAD <= OUTPUT_SCRATCH
    )


cdef inline void output_piece(Reactor *reactor, const uint8_t *data, size_t size) noexcept nogil:
    cdef iovec *last
    if reactor.piece_count:
        last = &reactor.pieces[reactor.piece_count - 1]
        if <const uint8_t *> last.iov_base + last.iov_len == data:
            last.iov_len += size
            reactor.piece_bytes += size
            return
    reactor.pieces[reactor.piece_count].iov_base = <void *> data
    reactor.pieces[reactor.piece_count].iov_len = size
    reactor.piece_count += 1
    reactor.piece_bytes += size


cdef inline void output_control(Reactor *reactor, const uint8_t *data, size_t size) noexcept nogil:
    """Append bytes that belong to no stream; the caller has checked for room."""
    cdef uint8_t *copy = reactor.scratch + reactor.scratch_used
    cdef Record *record
    relay_assert(reactor.scratch_used + size <= OUTPUT_SCRATCH, "control bytes fit into the scratch")
    memcpy(copy, data, size)
    reactor.scratch_used += size
    output_piece(reactor, copy, size)
    if reactor.record_count and reactor.records[reactor.record_count - 1].stream == NULL:
        reactor.records[reactor.record_count - 1].size += <uint32_t> size
        return
    record = &reactor.records[reactor.record_count]
    reactor.record_count += 1
    record.stream = NULL
    record.size = <uint32_t> size
    record.frames = 0
    record.lead = 0


cdef inline void output_data(
    Reactor *reactor, Stream *stream, const uint8_t *header, const uint8_t *data, size_t size,
    uint32_t frames, size_t lead
) noexcept nogil:
    """Append one DATA frame whose payload stays where it is until the write."""
    cdef Record *record
    output_control(reactor, header, FRAME_HEADER)
    if size == 0:
        return
    output_piece(reactor, data, size)
    record = &reactor.records[reactor.record_count]
    reactor.record_count += 1
    record.stream = stream
    record.size = <uint32_t> size
    record.frames = frames
    record.lead = <uint32_t> lead
    stream.pending += 1


cdef inline uint32_t record_frames_within(const Record *record, const uint8_t *data, size_t size) noexcept nogil:
    """How many messages end within the first `size` bytes of a record whose bytes are at `data`."""
    cdef uint32_t frames = 0
    cdef size_t at = record.lead
    if record.frames == 0 or size < at:
        return 0
    if at:
        frames = 1
    while frames < record.frames:
        # `record.frames` says that one more message ends in the record, so its prefix lies in it.
        at += <size_t> JOURNAL_PREFIX + relay_frame_length(data + at)
        if at > size:
            break
        frames += 1
    return frames


cdef inline bint record_settle(Record *record) noexcept nogil:
    """Count a record that the kernel has accepted. True when its stream is closed and waited for this."""
    cdef Stream *stream = record.stream
    if stream == NULL:
        return False
    stream.delivered += record.frames
    stream.pending -= 1
    relay_assert(stream.delivered <= stream.framed, "delivered is never more than framed")
    return stream.closed and stream.pending == 0


cdef inline void tail_free(Reactor *reactor, Connection *connection) noexcept nogil:
    if connection.tail != NULL:
        reactor.tails -= connection.tail.size
        memory_release(&reactor.memory, connection.tail)
        connection.tail = NULL


cdef inline int output_keep(
    Reactor *reactor, Connection *connection, uint32_t first, size_t before, size_t accepted
) noexcept nogil:
    """Copy what was gathered from record `first` on (its first byte is byte `before`) into a new tail."""
    cdef size_t size = reactor.piece_bytes - before
    cdef uint32_t records = reactor.record_count - first
    cdef Tail *tail = <Tail *> memory_take(
        &reactor.memory, sizeof(Tail) + records * sizeof(Record) + size)
    cdef uint32_t i
    cdef size_t skip = before
    cdef size_t count
    cdef uint8_t *to
    if tail == NULL:
        return OUTPUT_NO_MEMORY
    tail.size = size
    tail.sent = accepted - before
    tail.records = records
    tail.settled = 0
    tail.settled_bytes = 0
    tail.record = <Record *> (tail + 1)
    tail.data = <uint8_t *> (tail.record + records)
    memcpy(tail.record, &reactor.records[first], records * sizeof(Record))
    to = tail.data
    for i in range(reactor.piece_count):
        count = reactor.pieces[i].iov_len
        if skip >= count:
            skip -= count
            continue
        memcpy(to, <const uint8_t *> reactor.pieces[i].iov_base + skip, count - skip)
        to += count - skip
        skip = 0
    reactor.tails += size
    connection.tail = tail
    return OUTPUT_SHORT


cdef inline int output_write(
    Reactor *reactor, Connection *connection, void (*finish)(Reactor *, Stream *) noexcept nogil
) noexcept nogil:
    """Write what was gathered. `finish` is called for closed streams of which nothing is pending any more."""
    cdef ssize_t sent
    cdef size_t before = 0
    cdef uint32_t i = 0
    cdef Record *record
    reactor.writes += 1
    sent = transport_write(connection, reactor.pieces, reactor.piece_count)
    if sent == TRANSPORT_AGAIN:
        sent = 0
    elif sent == TRANSPORT_FAILED:
        # Nothing of this was accepted; the closing of the connection settles it.
        sent = 0
        if output_keep(reactor, connection, 0, 0, 0) == OUTPUT_NO_MEMORY:
            output_drop(reactor, 0)
        return OUTPUT_FAILED
    while i < reactor.record_count and before + reactor.records[i].size <= <size_t> sent:
        record = &reactor.records[i]
        before += record.size
        i += 1
        if record_settle(record):
            finish(reactor, record.stream)
    if i == reactor.record_count:
        return OUTPUT_ALL
    connection.writable = False
    if output_keep(reactor, connection, i, before, <size_t> sent) == OUTPUT_NO_MEMORY:
        output_drop(reactor, i)
        return OUTPUT_NO_MEMORY
    return OUTPUT_SHORT


cdef inline void output_drop(Reactor *reactor, uint32_t first) noexcept nogil:
    """Forget gathered records that will never be written: their connection is about to close."""
    cdef uint32_t i
    for i in range(first, reactor.record_count):
        if reactor.records[i].stream != NULL:
            reactor.records[i].stream.pending -= 1


cdef inline int tail_write(
    Reactor *reactor, Connection *connection, void (*finish)(Reactor *, Stream *) noexcept nogil
) noexcept nogil:
    """Write what an earlier write left."""
    cdef Tail *tail = connection.tail
    cdef iovec piece
    cdef ssize_t sent
    cdef Record *record
    piece.iov_base = tail.data + tail.sent
    piece.iov_len = tail.size - tail.sent
    reactor.writes += 1
    sent = transport_write(connection, &piece, 1)
    if sent == TRANSPORT_AGAIN:
        connection.writable = False
        return OUTPUT_SHORT
    if sent == TRANSPORT_FAILED:
        return OUTPUT_FAILED
    tail.sent += <size_t> sent
    while tail.settled < tail.records:
        record = &tail.record[tail.settled]
        if tail.settled_bytes + record.size > tail.sent:
            break
        tail.settled_bytes += record.size
        tail.settled += 1
        if record_settle(record):
            finish(reactor, record.stream)
    if tail.sent == tail.size:
        tail_free(reactor, connection)
        return OUTPUT_ALL
    connection.writable = False
    return OUTPUT_SHORT


cdef inline void tail_abandon(Reactor *reactor, Connection *connection) noexcept nogil:
    """The connection is gone: count what of the tail was accepted, message by message, and free it."""
    cdef Tail *tail = connection.tail
    cdef Record *record
    cdef uint32_t i
    if tail == NULL:
        return
    for i in range(tail.settled, tail.records):
        record = &tail.record[i]
        if record.stream == NULL:
            continue
        if i == tail.settled:
            record.stream.delivered += record_frames_within(
                record, tail.data + tail.settled_bytes, tail.sent - tail.settled_bytes)
        record.stream.pending -= 1
    tail_free(reactor, connection)
