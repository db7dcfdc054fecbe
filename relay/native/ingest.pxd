"""From a node's DATA payload to the journal: gRPC messages are cut out, scanned, enriched, copied once, counted."""

from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.string cimport memcpy

from relay.native.debug cimport relay_assert, relay_likely, relay_unlikely
from relay.native.enrich cimport Enrichment, enrich_concerned, enrich_plan, enrich_write
from relay.native.journal cimport journal_commit, journal_lock, journal_reserve, journal_unlock, relay_frame_length
from relay.native.grpc cimport grpc_prefix_write
from relay.native.memory cimport memory_release, memory_resize
from relay.native.model cimport (
    FEEDS, PREFIX, SKIP_BUDGET, SKIP_COMPRESSED, SKIP_MALFORMED, SKIP_MEMORY, SKIP_OVERSIZE, SKIP_TRUNCATED,
    Feed, NodeStream, Reactor,
)
from relay.native.repair cimport repair_event
from relay.native.scan cimport (
    SCAN_MALFORMED, SCAN_OK, SCHEMA_LOG_DATA, SCHEMA_LOG_RESOURCE, ScanNotes, scan_event_noting, scan_string,
)
from relay.native.shape cimport Shape, shape_learn, shape_notes, shape_recognised
from relay.native.status cimport STATUS_OK

cdef enum:
    PART_LEAST = 1024          # first size of the buffer for a message that arrives in pieces
    # A message up to this size always finds room: nodes that stall in large ones do not take it from the others.
    PART_ALWAYS = 4096


cdef inline void ingest_lock(Reactor *reactor, int feed) noexcept nogil:
    """Hold the feed's journal until `ingest_unlock`: once per received chunk."""
    if not reactor.locked & (1u << feed):
        reactor.locked |= 1u << feed
        journal_lock(&reactor.feeds[feed].journal)


cdef inline void ingest_unlock(Reactor *reactor) noexcept nogil:
    cdef int feed
    if reactor.locked:
        for feed in range(FEEDS):
            if reactor.locked & (1u << feed):
                journal_unlock(&reactor.feeds[feed].journal)
        reactor.locked = 0


cdef inline int ingest_append(Reactor *reactor, int number, const uint8_t *frame, size_t size) noexcept nogil:
    """Copy one whole frame into the journal: STATUS_OK, or the reason in `SkipReason` + 1."""
    cdef Feed *feed = &reactor.feeds[number]
    cdef uint8_t *place
    ingest_lock(reactor, number)
    place = journal_reserve(&feed.journal, size)
    if relay_unlikely(place == NULL):
        return SKIP_MEMORY + 1
    memcpy(place, frame, size)
    journal_commit(&feed.journal, size)
    return STATUS_OK


cdef inline int ingest_put(Reactor *reactor, int number, const uint8_t *event, size_t size) noexcept nogil:
    """As `ingest_append`, with an event that has no prefix."""
    cdef Feed *feed = &reactor.feeds[number]
    cdef uint8_t *place
    ingest_lock(reactor, number)
    place = journal_reserve(&feed.journal, PREFIX + size)
    if relay_unlikely(place == NULL):
        return SKIP_MEMORY + 1
    grpc_prefix_write(place, <uint32_t> size)
    memcpy(place + PREFIX, event, size)
    journal_commit(&feed.journal, PREFIX + size)
    return STATUS_OK


cdef inline int ingest_enrich(
    Reactor *reactor, int number, const uint8_t *event, size_t size, const uint8_t *resource
) noexcept nogil:
    """Append an event that is concerned, enriched at its place in the journal where its Resource gives cause.

    One that would become too large for the limit, or for the memory there is, stays as it is.
    """
    cdef Feed *feed = &reactor.feeds[number]
    cdef Enrichment plan
    cdef uint8_t *place
    if not enrich_plan(feed.names, size, scan_string(resource), &plan) or plan.size > reactor.settings.max_event_bytes:
        return ingest_put(reactor, number, event, size)
    ingest_lock(reactor, number)
    place = journal_reserve(&feed.journal, PREFIX + plan.size)
    if relay_unlikely(place == NULL):
        return ingest_put(reactor, number, event, size)
    grpc_prefix_write(place, <uint32_t> plan.size)
    enrich_write(event, size, &plan, place + PREFIX)
    journal_commit(&feed.journal, PREFIX + plan.size)
    feed.enriched += 1
    return STATUS_OK


cdef inline int ingest_repair(
    Reactor *reactor, int number, const uint8_t *frame, size_t size, uint64_t *repaired
) noexcept nogil:
    """Append a frame whose strings are not all UTF-8, repaired."""
    cdef Feed *feed = &reactor.feeds[number]
    cdef ScanNotes notes
    cdef uint8_t *event = NULL
    cdef size_t event_size = 0
    cdef uint64_t bytes_repaired = 0
    cdef int result
    if repair_event(&reactor.memory, number, frame + PREFIX, size - PREFIX, &event, &event_size,
                    &bytes_repaired) != STATUS_OK:
        return SKIP_MEMORY + 1
    if event_size > reactor.settings.max_event_bytes:
        result = SKIP_OVERSIZE + 1
    else:
        if (feed.names != NULL and scan_event_noting(number, event, event_size, &notes) == SCAN_OK
                and enrich_concerned(scan_string(notes.bodies[SCHEMA_LOG_DATA]), event + event_size)):
            result = ingest_enrich(reactor, number, event, event_size, notes.bodies[SCHEMA_LOG_RESOURCE])
        else:
            result = ingest_put(reactor, number, event, event_size)
        if result == STATUS_OK:
            repaired[0] += 1
            feed.repaired += 1
    memory_release(&reactor.memory, event)
    return result


cdef inline int ingest_frame(
    Reactor *reactor, int number, const uint8_t *frame, size_t size, uint64_t *repaired
) noexcept nogil:
    """Scan and append one whole, uncompressed frame: STATUS_OK, or `SkipReason` + 1."""
    cdef Feed *feed = &reactor.feeds[number]
    cdef const uint8_t *event = frame + PREFIX
    cdef const Shape *shape = shape_recognised(&feed.shapes, event, size - PREFIX)
    cdef ScanNotes notes
    cdef int verdict
    if shape != NULL:
        if feed.names != NULL:
            shape_notes(shape, event, &notes)
            if enrich_concerned(scan_string(notes.bodies[SCHEMA_LOG_DATA]), frame + size):
                return ingest_enrich(reactor, number, event, size - PREFIX, notes.bodies[SCHEMA_LOG_RESOURCE])
        return ingest_append(reactor, number, frame, size)
    verdict = scan_event_noting(number, event, size - PREFIX, &notes if feed.names != NULL else NULL)
    if relay_likely(verdict == SCAN_OK):
        shape_learn(&feed.shapes, &reactor.memory, number, event, size - PREFIX)
        if feed.names != NULL and enrich_concerned(scan_string(notes.bodies[SCHEMA_LOG_DATA]), frame + size):
            return ingest_enrich(reactor, number, event, size - PREFIX, notes.bodies[SCHEMA_LOG_RESOURCE])
        return ingest_append(reactor, number, frame, size)
    if verdict == SCAN_MALFORMED:
        return SKIP_MALFORMED + 1
    return ingest_repair(reactor, number, frame, size, repaired)


cdef inline void ingest_skip(Reactor *reactor, NodeStream *stream, int reason) noexcept nogil:
    stream.skipped[reason] += 1
    reactor.feeds[stream.feed].skipped[reason] += 1


cdef inline void ingest_event(Reactor *reactor, NodeStream *stream, const uint8_t *frame, size_t size) noexcept nogil:
    """One whole frame of a node."""
    cdef Feed *feed = &reactor.feeds[stream.feed]
    cdef int reason = ingest_frame(reactor, stream.feed, frame, size, &stream.repaired)
    if relay_unlikely(reason != STATUS_OK):
        ingest_skip(reactor, stream, reason - 1)
        return
    stream.received += 1
    stream.bytes += size - PREFIX
    feed.received += 1
    feed.bytes += size - PREFIX


cdef inline void ingest_part_free(Reactor *reactor, NodeStream *stream) noexcept nogil:
    if stream.part != NULL:
        reactor.assembling -= stream.part_capacity
        memory_release(&reactor.memory, stream.part)
        stream.part = NULL
        stream.part_capacity = 0
    stream.part_used = 0


cdef inline bint ingest_part_grow(Reactor *reactor, NodeStream *stream, size_t needed) noexcept nogil:
    """Make room for `needed` bytes of the message under way, which have been received."""
    cdef size_t capacity = stream.part_capacity
    cdef void *grown
    if needed <= capacity:
        return True
    if capacity == 0:
        capacity = PART_LEAST
    while capacity < needed:
        capacity *= 2
    if (capacity > PART_ALWAYS
            and reactor.assembling - stream.part_capacity + capacity > reactor.settings.assembly_bytes):
        ingest_skip(reactor, stream, SKIP_BUDGET)
        return False
    grown = memory_resize(&reactor.memory, stream.part, capacity)
    if grown == NULL:
        ingest_skip(reactor, stream, SKIP_MEMORY)
        return False
    reactor.assembling += capacity - stream.part_capacity
    stream.part = <uint8_t *> grown
    stream.part_capacity = capacity
    return True


cdef inline void ingest_begin(Reactor *reactor, NodeStream *stream) noexcept nogil:
    """The prefix is complete: decide whether the message is kept."""
    cdef size_t size = relay_frame_length(stream.prefix)
    stream.body = True
    stream.left = <uint32_t> size
    stream.discard = False
    if stream.prefix[0] != 0:
        stream.discard = True
        ingest_skip(reactor, stream, SKIP_COMPRESSED)
    elif size > reactor.settings.max_event_bytes:
        stream.discard = True
        ingest_skip(reactor, stream, SKIP_OVERSIZE)


cdef inline void ingest_reset(Reactor *reactor, NodeStream *stream) noexcept nogil:
    """The stream is over: what is under way will not be completed."""
    if (stream.prefix_used or stream.body) and not stream.discard:
        ingest_skip(reactor, stream, SKIP_TRUNCATED)
    ingest_part_free(reactor, stream)
    stream.prefix_used = 0
    stream.body = False
    stream.discard = False
    stream.left = 0


cdef inline void ingest_pieces(
    Reactor *reactor, NodeStream *stream, const uint8_t **at, const uint8_t *end
) noexcept nogil:
    """Go on with a message that is not whole in the received bytes, up to its end or theirs."""
    cdef size_t count
    if not stream.body:
        while stream.prefix_used < PREFIX and at[0] < end:
            stream.prefix[stream.prefix_used] = at[0][0]
            stream.prefix_used += 1
            at[0] += 1
        if stream.prefix_used < PREFIX:
            return
        ingest_begin(reactor, stream)
    count = <size_t> (end - at[0])
    if count > stream.left:
        count = stream.left
    if not stream.discard:
        if ingest_part_grow(reactor, stream, PREFIX + stream.part_used + count):
            if stream.part_used == 0:
                memcpy(stream.part, stream.prefix, PREFIX)
            memcpy(stream.part + PREFIX + stream.part_used, at[0], count)
            stream.part_used += count
        else:
            stream.discard = True
            ingest_part_free(reactor, stream)
    at[0] += count
    stream.left -= <uint32_t> count
    if stream.left == 0:
        if not stream.discard:
            ingest_event(reactor, stream, stream.part, PREFIX + stream.part_used)
        ingest_part_free(reactor, stream)
        stream.prefix_used = 0
        stream.body = False
        stream.discard = False


cdef inline void ingest(Reactor *reactor, NodeStream *stream, const uint8_t *data, size_t size) noexcept nogil:
    """Payload bytes of a feed, in order, cut anywhere."""
    cdef const uint8_t *at = data
    cdef const uint8_t *end = data + size
    cdef size_t length
    while at < end:
        if relay_likely(stream.prefix_used == 0 and end - at >= PREFIX and at[0] == 0):
            length = relay_frame_length(at)
            if relay_likely(length <= <size_t> (end - at) - PREFIX and length <= reactor.settings.max_event_bytes):
                ingest_event(reactor, stream, at, PREFIX + length)
                at += PREFIX + length
                continue
        ingest_pieces(reactor, stream, &at, end)
    relay_assert(at == end, "every received byte is consumed, none twice")
