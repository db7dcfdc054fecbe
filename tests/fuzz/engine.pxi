# What the targets that fuzz the engine share: a reactor without a thread, and a peer at the other end of a socket pair.
#
# The first byte of an input says how it is served, bit by bit; the rest is what the peer sends.

from libc.stdint cimport int32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset, strcpy
from posix.unistd cimport close as close_fd

from relay.native.addresses cimport address_take
from relay.native.commands cimport shutdown_begin
from relay.native.connection cimport connection_new, connection_watch
from relay.native.ingest cimport ingest_frame, ingest_unlock
from relay.native.journal cimport (
    Place, place_advance, place_at_start, place_frame_size, place_settle, place_take, journal_floor,
)
from relay.native.memory cimport memory_fail_at, memory_failures, memory_take
from relay.native.model cimport FEEDS, PREFIX, SKIP_REASONS, Connection, Reactor
from relay.native.posix cimport sockaddr_storage
from relay.native.reactor cimport reactor_free, reactor_init, reactor_turn
from relay.native.scan cimport SCAN_OK, scan_event
from relay.native.server cimport server_client
from relay.native.status cimport STATUS_OK

cdef extern from *:
    """
    #include <errno.h>
    #include <string.h>
    #include <sys/socket.h>
    #include <unistd.h>

    /* An event of each feed, behind its prefix: {Timestamp: 1, UpdatedTime: "t"}. */
    static const uint8_t fuzz_frame[10] = {0, 0, 0, 0, 5, 8, 1, 18, 1, 't'};

    static int fuzz_pair(int *ours, int *theirs) {
        int ends[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) return -1;
        *ours = ends[0];
        *theirs = ends[1];
        return 0;
    }

    static void fuzz_send(int fd, const uint8_t *data, size_t size) {
        /* What does not fit is dropped: the relay has stopped reading. */
        ssize_t sent = send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        (void)sent;
    }

    static size_t fuzz_drain(int fd) {
        static uint8_t ignored[65536];
        size_t total = 0;
        ssize_t got;
        while ((got = recv(fd, ignored, sizeof(ignored), MSG_DONTWAIT)) > 0) total += (size_t)got;
        return total;
    }
    """
    const uint8_t fuzz_frame[10]
    int fuzz_pair(int *ours, int *theirs) noexcept nogil
    void fuzz_send(int fd, const uint8_t *data, size_t size) noexcept nogil
    size_t fuzz_drain(int fd) noexcept nogil

cdef enum:
    FUZZ_WHOLE = 0             # two lowest bits: how many bytes the peer sends at once
    FUZZ_BYTES = 1
    FUZZ_SMALL = 2
    FUZZ_LARGE = 3
    FUZZ_DEAF = 4              # the peer does not read
    FUZZ_PUBLISH = 8           # events arrive meanwhile
    FUZZ_STOP = 16             # a graceful shutdown begins at the end
    FUZZ_BARE = 32             # no help with the beginning: the peer's own preface, or its own everything
    FUZZ_SINGLE = 64           # one DATA frame an event
    FUZZ_TIGHT = 128           # tight budgets; and the next byte says which allocation fails, 0 none


cdef Reactor *fuzz_reactor(int how) noexcept nogil:
    """A reactor as an Engine makes it, with small limits."""
    cdef Reactor *reactor = <Reactor *> calloc(1, sizeof(Reactor))
    cdef uint64_t second = 1000000000
    fuzz_holds(reactor != NULL, "there is memory")
    reactor.settings.max_event_bytes = 4096
    reactor.settings.journal_bytes = 8 * journal_floor(4096)
    reactor.settings.max_connections = 16
    reactor.settings.max_address_connections = 16
    reactor.settings.max_streams = 8
    reactor.settings.max_subscribers = 12
    reactor.settings.client_bytes = 1 << 19 if how & FUZZ_TIGHT else 1 << 22
    reactor.settings.max_header_bytes = 4096
    reactor.settings.max_request_bytes = 4096
    reactor.settings.max_controls = 200
    reactor.settings.handshake_timeout = 10 * second
    reactor.settings.idle_timeout = 300 * second
    reactor.settings.ping_after = 5 * second
    reactor.settings.ping_timeout = 20 * second
    reactor.settings.connect_timeout = 10 * second
    reactor.settings.check_timeout = 5 * second
    reactor.settings.node_silence = 10 * second
    reactor.settings.unsent_bytes = 1 << 20
    reactor.settings.assembly_bytes = 2048 if how & FUZZ_TIGHT else 32768
    reactor.settings.remainder_bytes = 2048 if how & FUZZ_TIGHT else 32768
    reactor.settings.event_per_frame = how & FUZZ_SINGLE != 0
    fuzz_holds(reactor_init(reactor) == STATUS_OK, "a reactor can be made")
    # One method that Python would answer.
    reactor.paths = <char **> memory_take(&reactor.memory, sizeof(char *))
    reactor.paths[0] = <char *> memory_take(&reactor.memory, 8)
    strcpy(reactor.paths[0], "/p.S/M")
    reactor.path_count = 1
    return reactor


cdef Connection *fuzz_client(Reactor *reactor, int fd) noexcept nogil:
    """A client's connection, as when it is accepted; NULL without memory."""
    cdef sockaddr_storage peer
    memset(&peer, 0, sizeof(peer))
    return server_client(reactor, fd, address_take(reactor, &peer), &peer)


cdef void fuzz_publish(Reactor *reactor) noexcept nogil:
    cdef int feed
    for feed in range(FEEDS):
        if ingest_frame(reactor, feed, fuzz_frame, 10, &reactor.feeds[feed].repaired) == STATUS_OK:
            reactor.feeds[feed].published += 1
        else:
            fuzz_holds(memory_failures(&reactor.memory) > 0, "a valid event is taken, unless memory is out")
    ingest_unlock(reactor)


cdef void fuzz_converse(Reactor *reactor, int peer, int how, const uint8_t *data, size_t size) noexcept nogil:
    """Let the peer say its part, piece by piece, with a turn of the loop after each."""
    cdef size_t step = size
    cdef size_t at = 0
    cdef int i
    if how & FUZZ_TIGHT and size > 0:
        memory_fail_at(&reactor.memory, data[0])
        at = 1
    if how & 3 == FUZZ_BYTES:
        step = 1
    elif how & 3 == FUZZ_SMALL:
        step = 13
    elif how & 3 == FUZZ_LARGE:
        step = 300
    # A turn costs microseconds: long inputs go in larger pieces.
    if step * 512 < size:
        step = size // 512 + 1
    while at < size:
        if step > size - at:
            step = size - at
        fuzz_send(peer, data + at, step)
        at += step
        reactor_turn(reactor, 0)
        if how & FUZZ_PUBLISH:
            fuzz_publish(reactor)
        if not how & FUZZ_DEAF:
            fuzz_drain(peer)
    if how & FUZZ_STOP:
        shutdown_begin(reactor, 0, False)
    for i in range(4):
        reactor_turn(reactor, 0)
        if not how & FUZZ_DEAF:
            fuzz_drain(peer)


cdef void fuzz_check_feeds(Reactor *reactor) noexcept nogil:
    """Every event is counted once, and what a journal holds is valid."""
    cdef Place place
    cdef const uint8_t *start = NULL
    cdef size_t size = 0
    cdef int feed
    for feed in range(FEEDS):
        fuzz_holds(reactor.feeds[feed].journal.next == reactor.feeds[feed].received + reactor.feeds[feed].published,
                   "sequence numbers count what was received and published")
        place_at_start(&place)
        while True:
            place_settle(&reactor.feeds[feed].journal, &place)
            if place.sequence == reactor.feeds[feed].journal.next:
                break
            if place_take(&reactor.feeds[feed].journal, &place, 1, &start, &size) == 0:
                size = place_frame_size(&place)
                start = place.segment.data + place.offset
            fuzz_holds(scan_event(feed, start + PREFIX, size - PREFIX) == SCAN_OK, "what the journal holds is valid")
            place_advance(&place, size, 1)


cdef void fuzz_end(Reactor *reactor, int peer) noexcept nogil:
    """The peer goes: its connection must, too, and nothing may stay behind."""
    cdef int i
    memory_fail_at(&reactor.memory, 0)
    close_fd(peer)
    for i in range(4):
        reactor_turn(reactor, 0)
    fuzz_holds(reactor.connection_count == 0, "a peer that has gone leaves no connection behind")
    fuzz_holds(reactor.assembling == 0 and reactor.remaining == 0 and reactor.requesting == 0, "no budget stays taken")
    fuzz_check_feeds(reactor)
    fuzz_holds(reactor_free(reactor) == 0, "every block is given back")
    free(reactor)
