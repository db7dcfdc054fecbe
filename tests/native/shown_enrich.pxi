# Shows addresses, the table of names, and enrichment as ingest does it: events go into a journal and are read back.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

cimport relay.native.enrich as native_enrich
cimport relay.native.framing as native_framing
cimport relay.native.ingest as native_ingest
cimport relay.native.ip as native_ip
cimport relay.native.journal as enrich_journal
cimport relay.native.names as native_names
from relay.native.memory cimport (
    Memory as EnrichMemory, memory_blocks as enrich_blocks, memory_bytes as enrich_bytes,
    memory_fail_at as enrich_fail_at, memory_init as enrich_memory_init, memory_release as enrich_release,
)
from relay.native.model cimport (
    CONNECTION_OPEN as ENRICH_OPEN, FEEDS as ENRICH_FEEDS, PREFIX as ENRICH_PREFIX, Connection as EnrichConnection,
    Feed as EnrichFeed, Node as EnrichNode, Reactor as EnrichReactor,
)
from relay.native.shape cimport shapes_free as enrich_shapes_free

NAMES_TEXT = <int>native_names.NAMES_TEXT


cdef uint64_t enrich_clock() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t>now.tv_sec * 1000000000 + <uint64_t>now.tv_nsec


def ip_parse(const uint8_t[:] text not None):
    """The sixteen bytes of an address, or None."""
    cdef uint8_t first[native_ip.IP_BYTES]
    cdef uint8_t second[native_ip.IP_BYTES]
    cdef bint found = native_ip.ip_parse(guard_start(text), text.shape[0], first)
    assert native_ip.ip_parse(guard_end(text), text.shape[0], second) == found
    if not found:
        return None
    assert first[:native_ip.IP_BYTES] == second[:native_ip.IP_BYTES]
    return first[:native_ip.IP_BYTES]


def names_hash(uint64_t key0, uint64_t key1, bytes address):
    cdef uint64_t key[2]
    key[0] = key0
    key[1] = key1
    return native_names.names_hash(key, <const uint8_t *>address)


cdef class NameTable:
    """A table of names, from [(address of 16 bytes, name)]; `outcomes` says what became of each."""

    cdef native_names.Names *names
    cdef EnrichMemory memory
    cdef readonly list outcomes

    def __init__(self, list entries, uint64_t key0=0, uint64_t key1=0):
        enrich_memory_init(&self.memory)
        self.names = native_names.names_new(
            &self.memory, len(entries), sum([len(name) for _, name in entries]), key0, key1)
        self.outcomes = [
            native_names.names_add(self.names, <const uint8_t *><bytes>address, <const uint8_t *><bytes>name, len(name))
            for address, name in entries
        ]

    def __dealloc__(self):
        enrich_release(&self.memory, self.names)

    def find(self, bytes address):
        """The address' name, or None."""
        cdef const uint8_t *text = NULL
        cdef size_t size = native_names.names_find(self.names, <const uint8_t *>address, &text)
        return text[:size] if size else None

    @property
    def bytes(self):
        return enrich_bytes(&self.memory)

    def find_time(self, list addresses, int rounds):
        """Nanoseconds to look up each of the addresses `rounds` times; and how many were found."""
        cdef bytes joined = b"".join(addresses)
        cdef const uint8_t *start = <const uint8_t *>joined
        cdef const uint8_t *text = NULL
        cdef size_t count = len(addresses)
        cdef size_t found = 0
        cdef size_t index
        cdef int round
        cdef uint64_t began
        with nogil:
            began = enrich_clock()
            for round in range(rounds):
                for index in range(count):
                    # The next look-up waits for this one, as it does between two events.
                    found += native_names.names_find(
                        self.names, start + native_ip.IP_BYTES * index + (found & 0), &text) != 0
            began = enrich_clock() - began
        return began, found


def tcp_within(const uint8_t[:] data not None, size_t size):
    """Whether `tcp_` is in the first `size` bytes, of which all of `data` is there to be read."""
    cdef native_enrich.ScanString string
    cdef bint result
    string.size = size
    string.body = guard_start(data)
    result = native_enrich.enrich_concerned(string, string.body + data.shape[0])
    string.body = guard_end(data)
    assert native_enrich.enrich_concerned(string, string.body + data.shape[0]) == result
    return result


cdef class Ingest:
    """Journals that events are appended to as if a node had sent them, without a reactor."""

    cdef EnrichReactor *reactor
    cdef enrich_journal.Place place

    def __init__(self, list names=None, size_t max_event_bytes=1 << 22):
        """`names` is [(address of 16 bytes, name)]; None: no enrichment."""
        cdef native_names.Names *table
        cdef int feed
        self.reactor = <EnrichReactor *>calloc(1, sizeof(EnrichReactor))
        if self.reactor == NULL:
            raise MemoryError
        enrich_memory_init(&self.reactor.memory)
        self.reactor.settings.max_event_bytes = max_event_bytes
        for feed in range(ENRICH_FEEDS):
            if enrich_journal.journal_init(
                    &self.reactor.feeds[feed].journal, &self.reactor.memory, 3 * (max_event_bytes + SEGMENT_BYTES),
                    SEGMENT_BYTES):
                raise MemoryError
        if names is not None:
            table = native_names.names_new(
                &self.reactor.memory, len(names), sum([len(name) for _, name in names]), 1, 2)
            for address, name in names:
                native_names.names_add(table, <const uint8_t *><bytes>address, <const uint8_t *><bytes>name, len(name))
            self.reactor.feeds[2].names = table

    def __dealloc__(self):
        cdef int feed
        if self.reactor == NULL:
            return
        for feed in range(ENRICH_FEEDS):
            enrich_journal.journal_free(&self.reactor.feeds[feed].journal)
            enrich_shapes_free(&self.reactor.feeds[feed].shapes, &self.reactor.memory)
            enrich_release(&self.reactor.memory, self.reactor.feeds[feed].names)
        if enrich_blocks(&self.reactor.memory):
            raise AssertionError("memory was not given back")
        free(self.reactor)

    def fail_at(self, uint64_t count):
        enrich_fail_at(&self.reactor.memory, count)

    def take(self, int number, bytes event):
        """What the journal has of an event; or, negative, why it has not (SkipReason + 1)."""
        cdef EnrichFeed *feed = &self.reactor.feeds[number]
        cdef uint64_t repaired = 0
        cdef const uint8_t *start
        cdef size_t size
        cdef int reason
        cdef bytes frame = b"\0" + len(event).to_bytes(4, "big") + event
        enrich_journal.place_at_head(&feed.journal, &self.place)
        reason = native_ingest.ingest_frame(self.reactor, number, guard_end(frame), len(frame), &repaired)
        native_ingest.ingest_unlock(self.reactor)
        if reason:
            return -reason
        enrich_journal.place_settle(&feed.journal, &self.place)
        size = enrich_journal.place_frame_size(&self.place)
        start = self.place.segment.data + self.place.offset
        assert start[0] == 0
        return start[ENRICH_PREFIX:size]

    def enriched(self, int number):
        return self.reactor.feeds[number].enriched

    def repaired(self, int number):
        return self.reactor.feeds[number].repaired

    def shapes_free(self, int number):
        """Forget the shapes, so that the next event is scanned."""
        enrich_shapes_free(&self.reactor.feeds[number].shapes, &self.reactor.memory)

    def time(self, int number, list events, int rounds):
        """Nanoseconds to take each of the events `rounds` times."""
        cdef EnrichFeed *feed = &self.reactor.feeds[number]
        cdef bytes joined = b"".join([b"\0" + len(event).to_bytes(4, "big") + event for event in events])
        cdef const uint8_t *start = <const uint8_t *>joined
        cdef const uint8_t *at
        cdef const uint8_t *end = start + len(joined)
        cdef uint64_t repaired = 0
        cdef uint64_t began
        cdef size_t size
        cdef int round
        cdef int failed = 0
        with nogil:
            began = enrich_clock()
            for round in range(rounds):
                at = start
                while at < end:
                    size = ENRICH_PREFIX + enrich_journal.relay_frame_length(at)
                    failed += native_ingest.ingest_frame(self.reactor, number, at, size, &repaired) != 0
                    at += size
                native_ingest.ingest_unlock(self.reactor)
            began = enrich_clock() - began
        if failed:
            raise ValueError(f"{failed} events were not taken")
        return began

    def receive_time(self, int number, list events, int rounds):
        """Nanoseconds to take all the events `rounds` times, each in a DATA frame, as they come out of one read."""
        cdef EnrichConnection connection
        cdef EnrichNode node
        cdef bytes joined = b"".join([
            (ENRICH_PREFIX + len(event)).to_bytes(3, "big") + b"\0\0\0\0\0\1\0" + len(event).to_bytes(4, "big") + event
            for event in events
        ])
        cdef const uint8_t *start = <const uint8_t *>joined
        cdef size_t size = len(joined)
        cdef uint64_t before = self.reactor.feeds[number].received
        cdef uint64_t began
        cdef int round
        cdef int error = 0
        memset(&connection, 0, sizeof(connection))
        memset(&node, 0, sizeof(node))
        connection.state = ENRICH_OPEN
        connection.node = &node
        node.streams[number].feed = number
        node.streams[number].id = 1
        node.streams[number].accepted = True
        with nogil:
            began = enrich_clock()
            for round in range(rounds):
                error |= native_framing.framer_receive(self.reactor, &connection, start, size)
                native_ingest.ingest_unlock(self.reactor)
            began = enrich_clock() - began
        taken = self.reactor.feeds[number].received - before
        if error or taken != <uint64_t>(rounds * len(events)):
            raise ValueError(f"{taken} events were taken, error {error}")
        return began
