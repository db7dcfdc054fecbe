"""A connection's output: gathered from the journal and from control frames, written at once, settled by record.

One connection's output is gathered at a time, in the reactor's scratch. DATA payloads are pointed
to where they lie; control frames and frame headers are copied. Whatever the kernel does not accept
is copied into the connection's tail, so that no pointer into a journal outlives the gathering.

Under TLS what was gathered is encrypted first (tls.pxd), and what is left is kept so. A piece counts as accepted when
the record of TLS has left whole in which it ends: before that nobody can decrypt it.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from relay.native.debug cimport relay_assert
from relay.native.journal cimport JOURNAL_PREFIX, relay_frame_length
from relay.native.memory cimport memory_release, memory_take
from relay.native.model cimport (
    FRAME_HEADER, FRAME_PAYLOAD, OUTPUT_PIECES, OUTPUT_SCRATCH, WRITE_BYTES, Connection, Reactor,
    Record, Seal, Stream, Tail,
)
from relay.native.posix cimport MSG_DONTWAIT, MSG_NOSIGNAL, iovec, send
from relay.native.tls cimport tls_seal, tls_seal_last, tls_seals
from relay.native.transport cimport TRANSPORT_AGAIN, TRANSPORT_FAILED, transport_write

cdef enum:
    SAID_MOST = 65536          # bytes of TLS's own that wait for a peer that does not read

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
    if connection.unsent and connection.unsent // 3 < reactor.write_bytes:
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


cdef inline Tail *tail_new(Reactor *reactor, size_t size, uint32_t records, uint32_t seals) noexcept nogil:
    """A tail of `size` bytes, with room for records and seals; NULL without memory."""
    cdef Tail *tail = <Tail *> memory_take(
        &reactor.memory, sizeof(Tail) + records * sizeof(Record) + seals * sizeof(Seal) + size)
    if tail == NULL:
        return NULL
    tail.size = size
    tail.sent = 0
    tail.accepted = 0
    tail.records = records
    tail.settled = 0
    tail.settled_bytes = 0
    tail.seals = seals
    tail.unsealed = 0
    tail.unsealed_bytes = 0
    tail.record = <Record *> (tail + 1)
    tail.seal = <Seal *> (tail.record + records)
    tail.data = <uint8_t *> (tail.seal + seals)
    reactor.tails += size
    return tail


cdef inline void tail_advance(Tail *tail, size_t sent) noexcept nogil:
    """The kernel has accepted `sent` more bytes."""
    tail.sent += sent
    if tail.seals == 0:
        tail.accepted = tail.sent
        return
    while tail.unsealed < tail.seals and tail.unsealed_bytes + tail.seal[tail.unsealed].cipher <= tail.sent:
        tail.unsealed_bytes += tail.seal[tail.unsealed].cipher
        tail.accepted += tail.seal[tail.unsealed].plain
        tail.unsealed += 1


cdef inline int output_keep(
    Reactor *reactor, Connection *connection, uint32_t first, size_t before, size_t accepted
) noexcept nogil:
    """Copy what was gathered from record `first` on (its first byte is byte `before`) into a new tail."""
    cdef uint32_t records = reactor.record_count - first
    cdef Tail *tail = tail_new(reactor, reactor.piece_bytes - before, records, 0)
    cdef uint32_t i
    cdef size_t skip = before
    cdef size_t count
    cdef uint8_t *to
    if tail == NULL:
        return OUTPUT_NO_MEMORY
    tail_advance(tail, accepted - before)
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
    connection.tail = tail
    return OUTPUT_SHORT


cdef inline int output_keep_sealed(
    Reactor *reactor, Connection *connection, uint32_t first, size_t before, size_t accepted, uint32_t seal,
    size_t gone, size_t sent
) noexcept nogil:
    """Keep what was sealed from seal `seal` on (its first byte is byte `gone`), `sent` bytes of all having left.

    It holds the rest of the records from `first` on, whose first byte is byte `before` of those gathered, of which
    `accepted` have left in whole seals.
    """
    cdef uint32_t records = reactor.record_count - first
    cdef uint32_t seals = reactor.seal_count - seal
    cdef Tail *tail = tail_new(reactor, reactor.sealed_used - gone, records, seals)
    if tail == NULL:
        return OUTPUT_NO_MEMORY
    tail.accepted = accepted - before
    memcpy(tail.record, &reactor.records[first], records * sizeof(Record))
    memcpy(tail.seal, &reactor.seals[seal], seals * sizeof(Seal))
    memcpy(tail.data, reactor.sealed + gone, tail.size)
    tail_advance(tail, sent - gone)
    connection.tail = tail
    return OUTPUT_SHORT


cdef inline ssize_t output_send(Reactor *reactor, Connection *connection) noexcept nogil:
    """Write what was gathered, or what it has become under TLS, once: bytes, or TRANSPORT_FAILED."""
    cdef ssize_t sent
    cdef iovec piece
    reactor.writes += 1
    if not tls_seals(connection):
        sent = transport_write(connection, reactor.pieces, reactor.piece_count)
    else:
        piece.iov_base = reactor.sealed
        piece.iov_len = reactor.sealed_used
        sent = transport_write(connection, &piece, 1)
    return 0 if sent == TRANSPORT_AGAIN else sent


cdef inline int output_write(
    Reactor *reactor, Connection *connection, void (*finish)(Reactor *, Stream *) noexcept nogil
) noexcept nogil:
    """Write what was gathered. `finish` is called for closed streams of which nothing is pending any more."""
    cdef ssize_t sent
    cdef size_t accepted
    cdef size_t before = 0
    cdef size_t gone = 0
    cdef uint32_t seal = 0
    cdef uint32_t i = 0
    cdef int result
    cdef Record *record
    cdef bint seals = tls_seals(connection)
    if seals and not tls_seal(reactor, connection):
        output_drop(reactor, 0)
        return OUTPUT_FAILED
    sent = output_send(reactor, connection)
    if sent == TRANSPORT_FAILED:
        output_drop(reactor, 0)
        return OUTPUT_FAILED
    accepted = <size_t> sent
    if seals:
        accepted = 0
        while seal < reactor.seal_count and gone + reactor.seals[seal].cipher <= <size_t> sent:
            gone += reactor.seals[seal].cipher
            accepted += reactor.seals[seal].plain
            seal += 1
    while i < reactor.record_count and before + reactor.records[i].size <= accepted:
        record = &reactor.records[i]
        before += record.size
        i += 1
        if record_settle(record):
            finish(reactor, record.stream)
    if i == reactor.record_count:
        return OUTPUT_ALL
    connection.writable = False
    if seals:
        result = output_keep_sealed(reactor, connection, i, before, accepted, seal, gone, <size_t> sent)
    else:
        result = output_keep(reactor, connection, i, before, accepted)
    if result == OUTPUT_NO_MEMORY:
        output_drop(reactor, i)
    return result


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
    tail_advance(tail, <size_t> sent)
    while tail.settled < tail.records:
        record = &tail.record[tail.settled]
        if tail.settled_bytes + record.size > tail.accepted:
            break
        tail.settled_bytes += record.size
        tail.settled += 1
        if record_settle(record):
            finish(reactor, record.stream)
    if tail.sent == tail.size:
        if connection.tls != NULL:
            connection.tls.said = 0
        tail_free(reactor, connection)
        return OUTPUT_ALL
    connection.writable = False
    return OUTPUT_SHORT


# TLS's own words --------------------------------------------------------------------------------

cdef inline int _tail_append(Reactor *reactor, Connection *connection) noexcept nogil:
    """Put what is in `sealed` behind the tail. It belongs to no record, so it is one more seal that carries nothing."""
    cdef Tail *former = connection.tail
    cdef Tail *tail = tail_new(reactor, former.size + reactor.sealed_used, former.records, former.seals + 1)
    if tail == NULL:
        return OUTPUT_NO_MEMORY
    memcpy(tail.record, former.record, former.records * sizeof(Record))
    memcpy(tail.seal, former.seal, former.seals * sizeof(Seal))
    memcpy(tail.data, former.data, former.size)
    memcpy(tail.data + former.size, reactor.sealed, reactor.sealed_used)
    tail.seal[former.seals].plain = 0
    tail.seal[former.seals].cipher = <uint32_t> reactor.sealed_used
    tail.sent = former.sent
    tail.accepted = former.accepted
    tail.settled = former.settled
    tail.settled_bytes = former.settled_bytes
    tail.unsealed = former.unsealed
    tail.unsealed_bytes = former.unsealed_bytes
    tail_free(reactor, connection)
    connection.tail = tail
    return OUTPUT_SHORT


cdef inline int output_sealed(Reactor *reactor, Connection *connection) noexcept nogil:
    """Send what OpenSSL has written by itself: a handshake's messages, tickets, answers to a change of keys."""
    cdef ssize_t sent = 0
    if reactor.sealed_used == 0:
        return OUTPUT_ALL
    reactor.piece_bytes = 0
    reactor.record_count = 0
    reactor.seal_count = 1
    reactor.seals[0].plain = 0
    reactor.seals[0].cipher = <uint32_t> reactor.sealed_used
    if connection.tail != NULL:
        connection.tls.said += reactor.sealed_used
        # Whoever makes us speak and does not listen is cut off.
        return OUTPUT_FAILED if connection.tls.said > SAID_MOST else _tail_append(reactor, connection)
    if connection.writable:
        sent = output_send(reactor, connection)
        if sent == TRANSPORT_FAILED:
            return OUTPUT_FAILED
    if <size_t> sent == reactor.sealed_used:
        return OUTPUT_ALL
    connection.writable = False
    return output_keep_sealed(reactor, connection, 0, 0, 0, 0, 0, <size_t> sent)


cdef inline void output_last(Reactor *reactor, Connection *connection, const uint8_t *data, size_t size) noexcept nogil:
    """Say something past HTTP/2's session, and under TLS that it was the last, as far as the kernel takes it at once.

    Only where the output is at a frame's end: without a tail.
    """
    if connection.tls == NULL:
        if size:
            send(connection.fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL)
    elif tls_seal_last(connection, data, size):
        send(connection.fd, reactor.sealed, reactor.sealed_used, MSG_DONTWAIT | MSG_NOSIGNAL)


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
        if i == tail.settled and tail.seals == 0:
            record.stream.delivered += record_frames_within(
                record, tail.data + tail.settled_bytes, tail.sent - tail.settled_bytes)
        record.stream.pending -= 1
    tail_free(reactor, connection)
