"""What the reactor does with each command from Python."""

from libc.stdint cimport uint64_t, uint8_t
from libc.string cimport memcpy

from relay.native.connection cimport connection_end, connection_new, connection_watch
from relay.native.counters cimport snapshot_fill
from relay.native.grpc cimport GRPC_RESOURCE_EXHAUSTED, GRPC_UNAVAILABLE
from relay.native.ingest cimport ingest_frame, ingest_unlock
from relay.native.journal cimport journal_lock, journal_unlock, relay_frame_length
from relay.native.mailbox cimport mailbox_report, mailbox_take, report_new
from relay.native.memory cimport memory_release
from relay.native.model cimport (
    COMMAND_ANSWER, COMMAND_DRAIN, COMMAND_LISTEN, COMMAND_NAMES, COMMAND_NODE_ADD, COMMAND_NODE_CONNECT,
    COMMAND_NODE_OPEN, COMMAND_NODE_REMOVE, COMMAND_PUBLISH, COMMAND_SHUTDOWN, COMMAND_SNAPSHOT, COMMAND_TLS,
    CONNECTION_CLIENT, CONNECTION_LISTENER, CONNECTION_OPEN, FEED_LOGS, FEEDS, LIMIT_CALLS, PREFIX,
    REPORT_DRAINED, SKIP_OVERSIZE, STREAM_FEED, STREAM_REQUEST, Command, Connection, Feed, Node, Reactor, Reader,
    Report, Stream,
)
from relay.native.nghttp2 cimport NGHTTP2_REFUSED_STREAM
from relay.native.node cimport node_connect, node_find, node_new, node_open, node_read_rest, node_remove
from relay.native.posix cimport close, pthread_cond_broadcast, pthread_mutex_lock, pthread_mutex_unlock
from relay.native.server cimport server_goaway
from relay.native.status cimport STATUS_OK, STATUS_REMOVED, STATUS_SHUTDOWN, STATUS_SYSTEM
from relay.native.stream cimport stream_answer, stream_end, stream_final, stream_finish
from relay.native.subscriber cimport subscriber_in_flight, subscriber_settle
from relay.native.tls cimport tls_forget
from relay.native.tls_context cimport tls_context_release


cdef inline void command_listen(Reactor *reactor, Command *command) noexcept nogil:
    cdef Connection *listener
    if reactor.stopping:
        close(command.fd)
        return
    listener = connection_new(reactor, CONNECTION_LISTENER, command.fd)
    if listener == NULL:
        close(command.fd)
        return
    listener.state = CONNECTION_OPEN
    if connection_watch(listener) != STATUS_OK:
        connection_end(listener, STATUS_SYSTEM)


cdef inline bint command_node_add(Reactor *reactor, Command *command) noexcept nogil:
    """True when the command's memory has become the node's: making a node known cannot fail here, unheard."""
    cdef Node *node
    if node_find(reactor, command.node) != NULL or reactor.stopping:
        return False
    node = node_new(reactor, <Node *> command.data, command, command.node, command.mask)
    memcpy(node.filters, command.filters, sizeof(node.filters))
    return True


cdef inline void command_publish(Reactor *reactor, Command *command) noexcept nogil:
    """Append frames that Python has checked to be whole."""
    cdef Feed *feed = &reactor.feeds[command.feed]
    cdef const uint8_t *at = command.data
    cdef const uint8_t *end = at + command.size
    cdef uint64_t repaired = 0
    cdef size_t size
    cdef int reason
    while at < end:
        size = PREFIX + <size_t> relay_frame_length(at)
        if size - PREFIX > reactor.settings.max_event_bytes:
            reason = SKIP_OVERSIZE + 1
        else:
            reason = ingest_frame(reactor, command.feed, at, size, &repaired)
        if reason == STATUS_OK:
            feed.published += 1
        else:
            feed.skipped[reason - 1] += 1
        at += size
    ingest_unlock(reactor)


cdef inline void command_names(Reactor *reactor, Command *command) noexcept nogil:
    """Logs are enriched with another table from now on."""
    cdef Feed *feed = &reactor.feeds[FEED_LOGS]
    memory_release(&reactor.memory, feed.names)
    feed.names = command.names
    command.names = NULL


cdef inline void command_tls(Reactor *reactor, Command *command) noexcept nogil:
    """What new connections speak from now on; those that are open go on as they are."""
    cdef Node *node = reactor.nodes
    tls_context_release(reactor.server_tls)
    tls_context_release(reactor.client_tls)
    reactor.server_tls = command.tls[0]
    reactor.client_tls = command.tls[1]
    command.tls[0] = NULL
    command.tls[1] = NULL
    while node != NULL:
        # A session would go on with what was verified by the former rules.
        tls_forget(node)
        node = node.next


cdef inline Stream *command_call(Reactor *reactor, uint64_t number) noexcept nogil:
    cdef Stream *stream = reactor.calls
    while stream != NULL and stream.number != number:
        stream = stream.next_call
    return stream


cdef inline void command_answer(Reactor *reactor, Command *command) noexcept nogil:
    cdef Stream *stream = command_call(reactor, command.number)
    if stream == NULL or stream.final_status >= 0:
        return
    if command.has_message and not stream_answer(reactor, stream, command.data, command.size, True):
        reactor.limits[LIMIT_CALLS] += 1
        stream_end(reactor, stream, GRPC_RESOURCE_EXHAUSTED, "the client does not read its answers",
                   NGHTTP2_REFUSED_STREAM)
        return
    if command.status >= 0:
        stream_final(stream, command.status, command.text)


# Drains -----------------------------------------------------------------------------------------

cdef inline uint64_t feed_taken(Reactor *reactor, int number) noexcept nogil:
    """The sequence number up to which every reader of the feed has taken its events."""
    cdef Feed *feed = &reactor.feeds[number]
    cdef uint64_t least = feed.journal.next
    cdef uint64_t at
    cdef Stream *stream = feed.readers
    cdef Reader *reader
    while stream != NULL:
        at = stream.place.sequence - subscriber_in_flight(stream)
        if at < least:
            least = at
        stream = stream.next_reader
    journal_lock(&feed.journal)
    reader = feed.sinks
    while reader != NULL:
        if reader.place.sequence < least:
            least = reader.place.sequence
        reader = reader.next
    journal_unlock(&feed.journal)
    return least


cdef inline void drains_check(Reactor *reactor) noexcept nogil:
    """Report the drains that are done."""
    cdef Command **link = &reactor.drains
    cdef Command *drain
    cdef Report *report
    cdef uint64_t taken[FEEDS]
    cdef int feed
    if reactor.drains == NULL:
        return
    for feed in range(FEEDS):
        taken[feed] = feed_taken(reactor, feed)
    while link[0] != NULL:
        drain = link[0]
        if taken[drain.feed] < drain.sequence and not reactor.stopping:
            link = &drain.next
            continue
        report = report_new(reactor, REPORT_DRAINED, 0)
        if report == NULL:
            return
        report.number = drain.number
        mailbox_report(reactor, report, False)
        link[0] = drain.next
        memory_release(&reactor.memory, drain)


cdef inline void command_drain(Reactor *reactor, Command *command) noexcept nogil:
    """Keep the command until everybody has read what the feed holds now."""
    command.sequence = reactor.feeds[command.feed].journal.next
    command.next = reactor.drains
    reactor.drains = command


# Shutdown ---------------------------------------------------------------------------------------

cdef inline void shutdown_stream(Reactor *reactor, Stream *stream) noexcept nogil:
    """Let a subscriber run to the head, end it there; others are ended when they are answered."""
    cdef Feed *feed
    if stream.kind == STREAM_REQUEST:
        stream_finish(reactor, stream, GRPC_UNAVAILABLE, "the relay is shutting down")
    if stream.kind != STREAM_FEED:
        return
    feed = &reactor.feeds[stream.feed]
    stream.stopping = True
    stream.stop_at = feed.journal.next
    subscriber_settle(reactor, stream)
    if stream.place.sequence >= stream.stop_at and stream.split_left == 0:
        stream_finish(reactor, stream, GRPC_UNAVAILABLE, "the relay is shutting down")


cdef inline void shutdown_begin(Reactor *reactor, uint64_t seconds, bint at_once) noexcept nogil:
    """GOAWAY to clients, no more accepting, nodes let go, subscribers run to where their feeds are now."""
    cdef Connection *connection
    cdef Stream *stream
    cdef Stream *following
    cdef Node *node = reactor.nodes
    reactor.stop_deadline = reactor.now + seconds
    if at_once:
        reactor.stopped = True
    if reactor.stopping:
        return
    reactor.stopping = True
    while node != NULL:
        node.removing = True
        if node.connection != NULL:
            node_read_rest(reactor, node)
            connection_end(node.connection, STATUS_SHUTDOWN)
        node = node.next
    connection = reactor.connections
    while connection != NULL:
        if connection.kind == CONNECTION_LISTENER:
            connection_end(connection, STATUS_SHUTDOWN)
        elif connection.kind == CONNECTION_CLIENT:
            if connection.state == CONNECTION_OPEN:
                server_goaway(reactor, connection)
                stream = connection.streams
                while stream != NULL:
                    following = stream.next_in_connection
                    shutdown_stream(reactor, stream)
                    stream = following
            else:
                connection_end(connection, STATUS_SHUTDOWN)
        connection = connection.next


cdef inline void shutdown_expire(Reactor *reactor) noexcept nogil:
    """The deadline has passed: end every stream now; what its subscriber was owed is lost, and said so."""
    cdef Connection *connection = reactor.connections
    cdef Stream *stream
    cdef Stream *following
    cdef uint64_t owed
    while connection != NULL:
        if connection.kind == CONNECTION_CLIENT and connection.state == CONNECTION_OPEN:
            stream = connection.streams
            while stream != NULL:
                following = stream.next_in_connection
                if stream.kind == STREAM_FEED:
                    subscriber_settle(reactor, stream)
                    if stream.stopping and stream.place.sequence < stream.stop_at:
                        owed = stream.stop_at - stream.place.sequence
                        stream.place.lost += owed
                        stream.place.sequence += owed
                stream_end(reactor, stream, GRPC_UNAVAILABLE, "the relay is shutting down", NGHTTP2_REFUSED_STREAM)
                stream = following
        connection = connection.next


# All of them --------------------------------------------------------------------------------------

cdef inline bint command_run(Reactor *reactor, Command *command) noexcept nogil:
    """True when the command is kept: its memory is in use."""
    cdef Node *node
    if command.kind == COMMAND_LISTEN:
        command_listen(reactor, command)
    elif command.kind == COMMAND_NODE_ADD:
        return command_node_add(reactor, command)
    elif command.kind == COMMAND_PUBLISH:
        command_publish(reactor, command)
    elif command.kind == COMMAND_DRAIN:
        command_drain(reactor, command)
        return True
    elif command.kind == COMMAND_ANSWER:
        command_answer(reactor, command)
    elif command.kind == COMMAND_NAMES:
        command_names(reactor, command)
    elif command.kind == COMMAND_TLS:
        command_tls(reactor, command)
    elif command.kind == COMMAND_SHUTDOWN:
        shutdown_begin(reactor, command.time, command.mask != 0)
    elif command.kind == COMMAND_SNAPSHOT:
        snapshot_fill(reactor, command.snapshot)
        pthread_mutex_lock(&reactor.mailbox.lock)
        command.snapshot.done = True
        pthread_cond_broadcast(&reactor.mailbox.answered)
        pthread_mutex_unlock(&reactor.mailbox.lock)
    else:
        node = node_find(reactor, command.node)
        if node == NULL or node.removing:
            return False
        if command.kind == COMMAND_NODE_CONNECT:
            node_connect(reactor, node, &command.address, command.data, command.size)
        elif command.kind == COMMAND_NODE_OPEN:
            node_open(reactor, node, command.feed)
        elif command.kind == COMMAND_NODE_REMOVE:
            node_remove(reactor, node, STATUS_REMOVED)
    return False


cdef inline void commands_run(Reactor *reactor) noexcept nogil:
    """Everything that waits, oldest first."""
    cdef Command *command = mailbox_take(reactor)
    cdef Command *following
    while command != NULL:
        following = command.next
        if not command_run(reactor, command):
            memory_release(&reactor.memory, command)
        command = following
