# Enrichment: any bytes, as an event of the logs, in a journal, with a table and without.

from libc.stdint cimport uint64_t
from libc.string cimport memcmp, strlen

from relay.native.enrich cimport Enrichment, enrich_concerned, enrich_plan
from relay.native.ingest cimport ingest_frame, ingest_unlock
from relay.native.ip cimport IP_BYTES, ip_parse
from relay.native.journal cimport (
    Place as EnrichPlace, journal_free as enrich_journal_free, journal_init as enrich_journal_init,
    place_at_head as enrich_at_head, place_frame_size as enrich_frame_size, place_settle as enrich_settle,
)
from relay.native.memory cimport memory_blocks as enrich_blocks, memory_init as enrich_memory_init
from relay.native.memory cimport memory_release as enrich_release, memory_take as enrich_take
from relay.native.model cimport FEED_LOGS, PREFIX as ENRICH_PREFIX, Feed as EnrichFeed, Reactor as EnrichReactor
from relay.native.names cimport NAMES_ADDED, names_add, names_new
from relay.native.scan cimport (
    SCAN_MALFORMED, SCAN_OK, SCAN_REPAIR, SCHEMA_LOG_DATA, SCHEMA_LOG_RESOURCE, ScanNotes, scan_event_noting,
    scan_string,
)
from relay.native.shape cimport shapes_free
from relay.native.status cimport STATUS_OK

cdef extern from *:
    """
    static const char *const fuzz_hosts[] = {"10.1.2.3", "::1", "fd00::1", "255.255.255.255", "::", "1:2:3:4:5:6:7::"};
    enum { FUZZ_HOSTS = 6, FUZZ_ENRICH_LIMIT = 8192 };
    """
    const char **fuzz_hosts
    enum:
        FUZZ_HOSTS
        FUZZ_ENRICH_LIMIT


cdef bint fuzz_ingest(EnrichReactor *reactor, const uint8_t *frame, size_t size, EnrichPlace *place) noexcept nogil:
    """Append a frame; `place` is then at it. False when it was skipped."""
    cdef EnrichFeed *feed = &reactor.feeds[FEED_LOGS]
    cdef uint64_t repaired = 0
    cdef bint taken
    enrich_at_head(&feed.journal, place)
    taken = ingest_frame(reactor, FEED_LOGS, frame, size, &repaired) == STATUS_OK
    ingest_unlock(reactor)
    if taken:
        enrich_settle(&feed.journal, place)
    return taken


cdef void fuzz_enriched(
    EnrichReactor *reactor, const uint8_t *before, size_t before_size, const uint8_t *after, size_t after_size
) noexcept nogil:
    """What the journal has of a valid event is the event, or the event with one Resource grown."""
    cdef ScanNotes notes
    cdef ScanNotes grown
    cdef Enrichment plan
    cdef size_t same
    cdef bint expected
    fuzz_holds(scan_event_noting(FEED_LOGS, before, before_size, &notes) == SCAN_OK, "it was a valid event")
    fuzz_holds(scan_event_noting(FEED_LOGS, after, after_size, &grown) == SCAN_OK, "an enriched event is valid")
    expected = (
        enrich_concerned(scan_string(notes.bodies[SCHEMA_LOG_DATA]), before + before_size)
        and enrich_plan(reactor.feeds[FEED_LOGS].names, before_size,
                        scan_string(notes.bodies[SCHEMA_LOG_RESOURCE]), &plan)
        and plan.size <= FUZZ_ENRICH_LIMIT
    )
    if not expected:
        fuzz_holds(after_size == before_size and memcmp(after, before, before_size) == 0, "others stay as they are")
        return
    fuzz_holds(after_size == plan.size, "an enriched event has the size that was planned")
    same = <size_t> (plan.length - before)
    fuzz_holds(memcmp(after, before, same) == 0, "what comes before Resource stays")
    same = <size_t> (before + before_size - plan.body) - plan.body_size
    fuzz_holds(memcmp(after + after_size - same, before + before_size - same, same) == 0, "what comes after it stays")
    fuzz_holds(scan_string(grown.bodies[SCHEMA_LOG_RESOURCE]).size == plan.body_size + 12 + plan.name_size,
               "Resource has grown by a host and its name")
    fuzz_holds(memcmp(grown.bodies[SCHEMA_LOG_RESOURCE], plan.body, plan.body_size) == 0, "what it said it still says")


cdef int fuzz_enrich(const uint8_t *data, size_t size) noexcept nogil:
    """The first byte is the size of the names, the rest is the event."""
    cdef EnrichReactor *reactor
    cdef EnrichFeed *feed
    cdef EnrichPlace place
    cdef uint8_t address[IP_BYTES]
    cdef uint8_t name[255]
    cdef uint8_t *frame
    cdef uint8_t *former
    cdef const uint8_t *found
    cdef size_t found_size
    cdef size_t former_size
    cdef size_t number
    cdef int verdict
    cdef ScanNotes notes
    if size == 0 or size > FUZZ_ENRICH_LIMIT:
        return 0
    # As text alone, it is an address or not, and nothing is read beyond it.
    ip_parse(data + 1, size - 1, address)
    verdict = scan_event_noting(FEED_LOGS, data + 1, size - 1, &notes)
    reactor = <EnrichReactor *> calloc(1, sizeof(EnrichReactor))
    fuzz_holds(reactor != NULL, "there is memory")
    enrich_memory_init(&reactor.memory)
    reactor.settings.max_event_bytes = FUZZ_ENRICH_LIMIT
    feed = &reactor.feeds[FEED_LOGS]
    fuzz_holds(enrich_journal_init(&feed.journal, &reactor.memory, 1 << 17, 1 << 16) == STATUS_OK, "a journal is made")
    frame = <uint8_t *> enrich_take(&reactor.memory, ENRICH_PREFIX + size - 1)
    fuzz_holds(frame != NULL, "there is memory")
    frame[0] = 0
    frame[1] = 0
    frame[2] = 0
    frame[3] = <uint8_t> ((size - 1) >> 8)
    frame[4] = <uint8_t> (size - 1)
    memcpy(frame + ENRICH_PREFIX, data + 1, size - 1)
    # Without a table: what is valid stays, what is not UTF-8 is repaired.
    former = NULL
    former_size = 0
    if fuzz_ingest(reactor, frame, ENRICH_PREFIX + size - 1, &place):
        former_size = enrich_frame_size(&place)
        former = <uint8_t *> enrich_take(&reactor.memory, former_size)
        fuzz_holds(former != NULL, "there is memory")
        memcpy(former, place.segment.data + place.offset, former_size)
    fuzz_holds((former == NULL) == (verdict == SCAN_MALFORMED) or verdict == SCAN_REPAIR, "malformed is skipped")
    # With one: the same, enriched, first by a scan and then, maybe, by its shape.
    memset(name, 0x6E, sizeof(name))
    feed.names = names_new(&reactor.memory, FUZZ_HOSTS, FUZZ_HOSTS * (1 + <size_t> (data[0] % 255)), 1, 2)
    fuzz_holds(feed.names != NULL, "there is memory")
    for number in range(<size_t> FUZZ_HOSTS):
        fuzz_holds(ip_parse(<const uint8_t *> fuzz_hosts[number], strlen(fuzz_hosts[number]), address), "an address")
        fuzz_holds(names_add(feed.names, address, name, 1 + data[0] % 255) == NAMES_ADDED, "a name of its own")
    shapes_free(&feed.shapes, &reactor.memory)
    for number in range(2):
        if fuzz_ingest(reactor, frame, ENRICH_PREFIX + size - 1, &place):
            fuzz_holds(former != NULL, "enrichment takes no event that was skipped")
            found = place.segment.data + place.offset
            found_size = enrich_frame_size(&place)
            fuzz_enriched(reactor, former + ENRICH_PREFIX, former_size - ENRICH_PREFIX,
                          found + ENRICH_PREFIX, found_size - ENRICH_PREFIX)
        else:
            fuzz_holds(former == NULL, "enrichment loses no event")
    enrich_release(&reactor.memory, frame)
    enrich_release(&reactor.memory, former)
    enrich_release(&reactor.memory, feed.names)
    shapes_free(&feed.shapes, &reactor.memory)
    enrich_journal_free(&feed.journal)
    fuzz_holds(enrich_blocks(&reactor.memory) == 0, "every block is given back")
    free(reactor)
    return 0
