# Delivery: two clients that subscribe, reset, stop reading and close windows, while small journals turn over and
# memory runs out.
#
# An input is a script: each pair of bytes is one step, see `fuzz_step`. Unlike the other targets, this one knows
# what must arrive: each event carries its sequence number, and a pattern made from it, through every place where
# an event can lie on its way: journal, remainder, tail, kernel.

from libc.stdint cimport uint32_t

from relay.native.commands cimport command_answer, command_call, shutdown_expire
from relay.native.counters cimport snapshot_fill, snapshot_free
from relay.native.mailbox cimport command_new
from relay.native.memory cimport memory_release
from relay.native.model cimport (
    COMMAND_ANSWER, CONNECTION_OPEN, STREAM_FEED, Command, Report, Snapshot, Stream,
)
from relay.native.subscriber cimport feed_tick, subscriber_in_flight

cdef extern from *:
    """
    enum { FUZZ_PEERS = 2, FUZZ_STREAMS = 32 };

    typedef struct {
        int32_t id;
        int over;                /* HEADERS with END_STREAM, or RST_STREAM, has come */
        int feed;                /* -1: not a subscription */
        size_t used;             /* bytes of the message under way, prefix included */
        size_t size;             /* of it, once the prefix is complete */
        uint32_t sequence;
        uint64_t messages;
        int any;
        uint32_t last;
    } FuzzStream;

    typedef struct {
        int fd;                  /* -1: the peer is gone */
        int32_t opened;          /* ids of streams so far */
        uint8_t header[9];
        size_t header_used;
        size_t left;             /* bytes of the frame under way */
        int gone;                /* the relay has closed */
        void *connection;        /* the relay's; may dangle once it is gone */
        FuzzStream streams[FUZZ_STREAMS];
    } FuzzPeer;

    static FuzzStream *fuzz_stream_of(FuzzPeer *peer, uint32_t id) {
        for (int i = 0; i < FUZZ_STREAMS; i++) {
            if (id != 0 && (uint32_t)peer->streams[i].id == id) return &peer->streams[i];
        }
        return NULL;
    }

    /* One byte of a subscription's DATA: events are {1: sequence, 2: a text of one letter, repeated}. */
    static void fuzz_expect(FuzzStream *stream, uint8_t byte) {
        size_t at = stream->used++;
        if (at == 0) { fuzz_holds(byte == 0, "no message is compressed"); stream->size = 0; return; }
        if (at < 5) { stream->size = stream->size << 8 | byte; return; }
        switch (at - 5) {
        case 0: fuzz_holds(byte == 0x08, "an event begins with its sequence number"); break;
        case 1: stream->sequence = byte & 0x7f; break;
        case 2: stream->sequence |= (uint32_t)(byte & 0x7f) << 7; break;
        case 3: stream->sequence |= (uint32_t)(byte & 0x7f) << 14; break;
        case 4: fuzz_holds(byte == 0x12, "then comes its text"); break;
        case 5: fuzz_holds((byte & 0x7f) == ((stream->size - 7) & 0x7f), "of the length that it had"); break;
        case 6: fuzz_holds(byte == (stream->size - 7) >> 7, "of the length it had"); break;
        default: fuzz_holds(byte == 'a' + stream->sequence % 26, "with the letters that it had");
        }
        if (stream->used == stream->size + 5) {
            fuzz_holds(!stream->any || stream->sequence > stream->last, "events arrive in order, none twice");
            stream->any = 1;
            stream->last = stream->sequence;
            stream->messages++;
            stream->used = 0;
        }
    }

    static uint32_t fuzz_number(const uint8_t *at) {
        return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
    }

    static void fuzz_hear(FuzzPeer *peer, const uint8_t *data, size_t size) {
        for (const uint8_t *end = data + size; data < end; data++) {
            uint32_t id;
            FuzzStream *stream;
            if (peer->header_used < 9) {
                peer->header[peer->header_used++] = *data;
                if (peer->header_used < 9) continue;
                peer->left = (size_t)peer->header[0] << 16 | (size_t)peer->header[1] << 8 | peer->header[2];
                id = fuzz_number(peer->header + 5);
                fuzz_holds(peer->left <= 16384 && peer->header[3] <= 9, "the relay speaks HTTP/2");
                stream = fuzz_stream_of(peer, id);
                if (peer->header[3] == 0 || peer->header[3] == 1) {
                    fuzz_holds(stream != NULL, "the relay answers on streams that were opened");
                    fuzz_holds(!stream->over, "nothing follows a stream's end");
                    if (peer->header[4] & 1) {
                        fuzz_holds(peer->left == 0 || peer->header[3] == 1 || stream->feed < 0,
                                   "a subscription ends with trailers");
                        fuzz_holds(stream->used == 0, "trailers do not follow half a message");
                        stream->over = 1;
                    }
                } else if (peer->header[3] == 3 && stream != NULL) {
                    stream->over = 1;
                }
            } else {
                id = fuzz_number(peer->header + 5);
                stream = fuzz_stream_of(peer, id);
                if (peer->header[3] == 0 && stream != NULL && stream->feed >= 0) fuzz_expect(stream, *data);
                peer->left--;
            }
            if (peer->left == 0) peer->header_used = 0;
        }
    }

    /* Read at most so many bytes. */
    static size_t fuzz_listen(FuzzPeer *peer, size_t most) {
        static uint8_t heard[65536];
        size_t total = 0;
        while (peer->fd >= 0 && most > 0) {
            ssize_t got = recv(peer->fd, heard, most < sizeof(heard) ? most : sizeof(heard), MSG_DONTWAIT);
            if (got == 0 || (got < 0 && errno != EAGAIN)) peer->gone = 1;
            if (got <= 0) break;
            fuzz_hear(peer, heard, (size_t)got);
            most -= (size_t)got;
            total += (size_t)got;
        }
        return total;
    }

    static void fuzz_frame_send(FuzzPeer *peer, int type, int flags, uint32_t id, const uint8_t *payload, size_t size) {
        uint8_t frame[9 + 256] = {0, (uint8_t)(size >> 8), (uint8_t)size, (uint8_t)type, (uint8_t)flags,
                                  (uint8_t)(id >> 24), (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id};
        if (peer->fd < 0 || size > 256) return;
        memcpy(frame + 9, payload, size);
        fuzz_send(peer->fd, frame, 9 + size);
    }

    static void fuzz_number_write(uint8_t *at, uint32_t number) {
        for (int i = 0; i < 4; i++) at[i] = (uint8_t)(number >> (24 - 8 * i));
    }

    static void fuzz_number_send(FuzzPeer *peer, int type, uint32_t id, uint32_t number) {
        uint8_t payload[4];
        fuzz_number_write(payload, number);
        fuzz_frame_send(peer, type, 0, id, payload, 4);
    }

    static void fuzz_window_send(FuzzPeer *peer, uint32_t window) {
        uint8_t payload[6] = {0, 4};
        fuzz_number_write(payload + 2, window);
        fuzz_frame_send(peer, 4, 0, 0, payload, 6);
    }

    static size_t fuzz_literal(uint8_t *out, const char *name, const char *value) {
        size_t name_size = strlen(name), value_size = strlen(value);
        out[0] = 0;
        out[1] = (uint8_t)name_size;
        memcpy(out + 2, name, name_size);
        out[2 + name_size] = (uint8_t)value_size;
        memcpy(out + 3 + name_size, value, value_size);
        return 3 + name_size + value_size;
    }

    /* The headers of a call; what: 0 to 2 a feed, 3 HealthCheck, 4 a method of Python's. */
    static void fuzz_call(FuzzPeer *peer, int what, int hurried) {
        static const char *const paths[] = {
            "/feeder.LogService/WatchMessages", "/feeder.LogService/WatchAlerts", "/feeder.LogService/WatchLogs",
            "/feeder.LogService/HealthCheck", "/p.S/M",
        };
        uint8_t block[256] = {0x83, 0x86, 0x01, 1, 'r'};   /* :method POST, :scheme http, :authority r */
        size_t size = 5;
        FuzzStream *stream;
        if (peer->opened == FUZZ_STREAMS) return;
        stream = &peer->streams[peer->opened];
        stream->id = 1 + 2 * peer->opened++;
        stream->feed = what < 3 ? what : -1;
        size += fuzz_literal(block + size, ":path", paths[what]);
        size += fuzz_literal(block + size, "content-type", "application/grpc");
        if (hurried) size += fuzz_literal(block + size, "grpc-timeout", "1n");
        fuzz_frame_send(peer, 1, 4, (uint32_t)stream->id, block, size);
    }

    static void fuzz_small_buffer(int fd) {
        int size = 1;
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    }
    """
    enum:
        FUZZ_PEERS
        FUZZ_STREAMS
    ctypedef struct FuzzStream:
        int32_t id
        bint over
        int feed
        size_t used
        uint64_t messages
    ctypedef struct FuzzPeer:
        int fd
        int32_t opened
        bint gone
        void *connection
        FuzzStream streams[32]
    FuzzStream *fuzz_stream_of(FuzzPeer *peer, uint32_t id) noexcept nogil
    size_t fuzz_listen(FuzzPeer *peer, size_t most) noexcept nogil
    void fuzz_frame_send(
        FuzzPeer *peer, int type, int flags, uint32_t id, const uint8_t *payload, size_t size) noexcept nogil
    void fuzz_number_send(FuzzPeer *peer, int type, uint32_t id, uint32_t number) noexcept nogil
    void fuzz_window_send(FuzzPeer *peer, uint32_t window) noexcept nogil
    void fuzz_call(FuzzPeer *peer, int what, int hurried) noexcept nogil
    void fuzz_small_buffer(int fd) noexcept nogil


cdef void fuzz_connect(Reactor *reactor, FuzzPeer *peer, uint32_t window) noexcept nogil:
    """A client in place of one that is gone; its connection may be refused for want of memory."""
    cdef Connection *connection
    cdef int ours = -1
    memset(peer, 0, sizeof(FuzzPeer))
    fuzz_holds(fuzz_pair(&ours, &peer.fd) == 0, "there are descriptors")
    fuzz_small_buffer(ours)
    connection = fuzz_client(reactor, ours)
    if connection == NULL:
        close_fd(ours)
    else:
        fuzz_holds(connection_watch(connection) == STATUS_OK, "epoll takes it")
        peer.connection = connection
    fuzz_send(peer.fd, <const uint8_t *> b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 33)
    fuzz_window_send(peer, window)


cdef void fuzz_event(Reactor *reactor, int feed, size_t letters) noexcept nogil:
    """Publish the feed's next event, if there is memory."""
    cdef uint8_t frame[5 + 7 + 4096]
    cdef uint64_t number = reactor.feeds[feed].journal.next
    cdef size_t size = 7 + letters
    cdef uint64_t repaired = 0
    frame[0] = 0
    frame[1] = 0
    frame[2] = 0
    frame[3] = <uint8_t> (size >> 8)
    frame[4] = <uint8_t> size
    frame[5] = 0x08
    frame[6] = <uint8_t> (number | 0x80)
    frame[7] = <uint8_t> (number >> 7 | 0x80)
    frame[8] = <uint8_t> (number >> 14 & 0x7f)
    frame[9] = 0x12
    frame[10] = <uint8_t> (letters | 0x80)
    frame[11] = <uint8_t> (letters >> 7)
    memset(frame + 12, <int> (97 + number % 26), letters)
    if ingest_frame(reactor, feed, frame, 5 + size, &repaired) == STATUS_OK:
        reactor.feeds[feed].published += 1
    ingest_unlock(reactor)


cdef void fuzz_answer(Reactor *reactor, int how) noexcept nogil:
    """Python answers the newest call."""
    cdef Command *command
    if reactor.calls == NULL:
        return
    command = command_new(reactor, COMMAND_ANSWER, 16 * <size_t> (how >> 2))
    if command == NULL:
        return
    command.number = reactor.calls.number
    command.has_message = how & 1
    command.status = 0 if how & 2 else -1
    memset(command.data, 0, command.size)
    command_answer(reactor, command)
    memory_release(&reactor.memory, command)


cdef void fuzz_lists(Reactor *reactor) noexcept nogil:
    """The lists and the counters that say the same in two places, and invariant 2."""
    cdef Stream *stream
    cdef Connection *connection
    cdef uint32_t readers = 0
    cdef uint32_t waiting = 0
    cdef size_t kept = 0
    cdef int feed
    cdef Snapshot snapshot
    cdef uint64_t i
    for feed in range(FEEDS):
        stream = reactor.feeds[feed].readers
        while stream != NULL:
            fuzz_holds(stream.kind == STREAM_FEED and stream.feed == feed, "readers read their feed")
            fuzz_holds(stream.delivered <= stream.framed, "what was delivered was framed")
            fuzz_holds(stream.framed + (1 if stream.split_left else 0) + stream.filtered + stream.place.lost
                       == stream.place.sequence - stream.start, "every event that was passed is accounted for")
            fuzz_holds((stream.split_left > 0) == (stream.split or stream.remainder != NULL), "a rest is somewhere")
            readers += 1
            stream = stream.next_reader
        stream = reactor.feeds[feed].waiting
        while stream != NULL:
            fuzz_holds(stream.waiting and stream.kind == STREAM_FEED, "those who wait are readers")
            waiting += 1
            stream = stream.next_waiting
        stream = reactor.feeds[feed].split
        while stream != NULL:
            fuzz_holds(stream.split and stream.split_left > 0, "those in the middle of a message have a rest")
            stream = stream.next_split
        fuzz_holds(reactor.feeds[feed].journal.held <= reactor.feeds[feed].journal.share,
                   "a journal keeps to its share")
    connection = reactor.connections
    while connection != NULL:
        readers -= connection.readers
        waiting -= connection.waiting_readers
        if connection.tail != NULL:
            kept += connection.tail.size
        connection = connection.next
    fuzz_holds(readers == 0 and waiting == 0, "connections know their readers")
    fuzz_holds(kept == reactor.tails, "tails are counted")
    fuzz_holds(reactor.remaining <= reactor.settings.remainder_bytes, "rests keep to their budget")
    memset(&snapshot, 0, sizeof(snapshot))
    snapshot_fill(reactor, &snapshot)
    for i in range(snapshot.subscribers):
        fuzz_holds(
            snapshot.subscriber[i].delivered + snapshot.subscriber[i].filtered + snapshot.subscriber[i].lost
            + snapshot.subscriber[i].in_flight == snapshot.subscriber[i].passed, "invariant 2")
    snapshot_free(reactor, &snapshot)


cdef void fuzz_reports(Reactor *reactor) noexcept nogil:
    """Take the reports, as Python would."""
    cdef Report *report = reactor.mailbox.first_report
    cdef Report *following
    reactor.mailbox.first_report = NULL
    reactor.mailbox.last_report = NULL
    reactor.mailbox.reports = 0
    reactor.mailbox.reporting = False
    while report != NULL:
        following = report.next
        memory_release(&reactor.memory, report)
        report = following


cdef void fuzz_step(Reactor *reactor, FuzzPeer *peers, int what, int how) noexcept nogil:
    """Four bits choose what is done, the fifth by whom, the others to which stream; `how` says how much."""
    cdef FuzzPeer *peer = &peers[what >> 4 & 1]
    cdef uint32_t stream = 0
    cdef uint8_t request[32]
    memset(request, 0, sizeof(request))
    # Counted from the newest, so that the interesting ones are reached; frames for idle ones would end the connection.
    if peer.opened:
        stream = <uint32_t> (2 * (peer.opened - (what >> 5) % peer.opened) - 1)
    what &= 15
    if stream == 0 and (what == 3 or what == 4 or what == 6 or what == 10):
        return
    if what == 0:
        fuzz_event(reactor, how % FEEDS, <size_t> how // 3)
    elif what == 1:
        fuzz_event(reactor, how % FEEDS, 16 * <size_t> how)
    elif what == 2:
        fuzz_call(peer, how % 5, how >= 240)
        # A frame of an empty message, and the end of the request; some say too much, some only half of it.
        request[4] = 1 if how % 7 == 0 else 0
        request[5] = 2 if how % 11 == 0 else 0
        fuzz_frame_send(peer, 0, how & 1, <uint32_t> peer.streams[peer.opened - 1].id, request, 5 + (how >> 6))
    elif what == 3:
        fuzz_number_send(peer, 8, stream, <uint32_t> how + 1)
    elif what == 4:
        fuzz_number_send(peer, 8, stream, 256 * <uint32_t> how + 1)
    elif what == 5:
        fuzz_number_send(peer, 8, 0, 64 * <uint32_t> how + 1)
    elif what == 6:
        fuzz_number_send(peer, 3, stream, 8)
    elif what == 7:
        fuzz_listen(peer, 8 * <size_t> how)
    elif what == 8:
        fuzz_listen(peer, <size_t> -1)
    elif what == 9:
        fuzz_window_send(peer, <uint32_t> how * <uint32_t> how)
    elif what == 10:
        # More of a request that was complete, or its end.
        request[0] = 1 if how & 16 else 0
        fuzz_frame_send(peer, 0, how >> 5 & 1, stream, request, how & 15)
    elif what == 11:
        memory_fail_at(&reactor.memory, <uint64_t> (how & 63) + 1)
    elif what == 12:
        fuzz_answer(reactor, how)
    elif what == 13:
        if how < 64:
            close_fd(peer.fd)
            fuzz_connect(reactor, peer, <uint32_t> how * 16)
        elif how < 128:
            fuzz_frame_send(peer, 6, 0, 0, request, 8)
        elif how == 255 and not reactor.stopping:
            # By the clock the deadline never comes: what it does is done by hand below.
            shutdown_begin(reactor, <uint64_t> 3600 * 1000000000, False)
        elif how == 254 and reactor.stopping and reactor.stop_code == 0:
            reactor.stop_code = 1
            shutdown_expire(reactor)
        else:
            feed_tick(reactor, how % FEEDS)
    elif what == 14:
        fuzz_reports(reactor)
    else:
        reactor_turn(reactor, 0)
        fuzz_lists(reactor)


cdef bint fuzz_quiet(Reactor *reactor, FuzzPeer *peers) noexcept nogil:
    """One more turn with everybody reading; True when nothing was said in it."""
    cdef int i
    cdef size_t heard = 0
    reactor_turn(reactor, 0)
    for i in range(FUZZ_PEERS):
        heard += fuzz_listen(&peers[i], <size_t> -1)
    return heard == 0 and reactor.dirty == NULL and reactor.ready == NULL


cdef void fuzz_settled(Reactor *reactor, FuzzPeer *peers) noexcept nogil:
    """With open windows and clients that read, everybody has everything, and the counters tell what each client saw."""
    cdef FuzzPeer *peer
    cdef FuzzStream *heard
    cdef Connection *connection
    cdef Stream *stream
    cdef int quiet = 0
    cdef int turns = 0
    cdef int i
    cdef int j
    memory_fail_at(&reactor.memory, 0)
    for i in range(FUZZ_PEERS):
        peer = &peers[i]
        fuzz_number_send(peer, 8, 0, 1 << 20)
        for j in range(peer.opened):
            # An idle stream must not be named; one that is over may.
            fuzz_number_send(peer, 8, <uint32_t> peer.streams[j].id, 1 << 20)
    while quiet < 3:
        quiet = quiet + 1 if fuzz_quiet(reactor, peers) else 0
        turns += 1
        fuzz_holds(turns < 10000, "it comes to rest")
    fuzz_lists(reactor)
    connection = reactor.connections
    while connection != NULL:
        if connection.state == CONNECTION_OPEN:
            fuzz_holds(connection.tail == NULL, "everything is written")
            peer = NULL
            for i in range(FUZZ_PEERS):
                if peers[i].connection == <void *> connection and not peers[i].gone:
                    peer = &peers[i]
            fuzz_holds(peer != NULL, "each connection has its peer")
            stream = connection.streams
            while stream != NULL:
                if stream.kind == STREAM_FEED and not stream.closed:
                    fuzz_holds(stream.split_left == 0, "no message is left in the middle")
                    fuzz_holds(stream.place.sequence == reactor.feeds[stream.feed].journal.next,
                               "a client that reads has everything")
                    fuzz_holds(subscriber_in_flight(stream) == 0, "nothing is in flight")
                    heard = fuzz_stream_of(peer, <uint32_t> stream.id)
                    fuzz_holds(heard != NULL and heard.messages == stream.delivered, "what was delivered was heard")
                stream = stream.next_in_connection
        connection = connection.next


cdef int fuzz_delivery(const uint8_t *data, size_t size) noexcept nogil:
    cdef FuzzPeer peers[2]
    cdef Reactor *reactor
    cdef size_t i = 2
    cdef int j
    if size < 2:
        return 0
    reactor = fuzz_reactor(data[0])
    reactor.settings.max_controls = 1 << 20
    for j in range(FUZZ_PEERS):
        fuzz_connect(reactor, &peers[j], 65535 if data[1] == 255 else 8 * <uint32_t> data[1])
    while i + 1 < size and i < 2000:
        fuzz_step(reactor, peers, data[i], data[i + 1])
        i += 2
    fuzz_settled(reactor, peers)
    close_fd(peers[0].fd)
    fuzz_end(reactor, peers[1].fd)
    return 0
