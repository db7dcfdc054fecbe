"""The reactor: one thread, one loop, every socket.

A turn: wait; read once from each ready socket; run commands; wake the readers of feeds that grew; write once for
each connection that has something to say; go on with handshakes; run timers; free what ended.
"""

from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t, uint8_t
from libc.string cimport memset

from relay.native.addresses cimport addresses_free, addresses_init
from relay.native.commands cimport commands_run, drains_check, shutdown_expire
from relay.native.connection cimport (
    PART_LEAST, connection_dirty, connection_end, connection_free, connection_ready,
)
from relay.native.flush cimport connection_flush
from relay.native.handshake cimport (
    handshake_answer, handshake_broken, handshake_over, handshake_queue, handshakes_next, handshakes_run,
    handshakes_unlist,
)
from relay.native.journal cimport (
    journal_free, journal_init, journal_lock, journal_segment_bytes, journal_shares, journal_unlock,
)
from relay.native.leisure cimport LEISURE, LEISURE_MS, leisure_turn
from relay.native.mailbox cimport (
    command_free, eventfd_clear, eventfd_raise, mailbox_free, mailbox_init, mailbox_report, mailbox_take, report_new,
    text_copy,
)
from relay.native.memory cimport memory_blocks, memory_init, memory_release, memory_take
from relay.native.model cimport (
    CONNECTION_CLIENT, CONNECTION_CLOSED, CONNECTION_ENDING, CONNECTION_LISTENER, CONNECTION_NODE,
    CONNECTION_LEISURE, CONNECTION_OPENING, CONNECTION_WAKE, COMMAND_LISTEN, Command, EVENTS_A_WAIT, FEEDS,
    OUTPUT_PIECES, OUTPUT_SCRATCH, RECEIVE_BEHIND, RECEIVE_BYTES, REPORT_STOPPED, REQUEST_READ_BYTES,
    TLS_PLAIN, TLS_SEALED_BYTES, TLS_SEALS, Connection, Feed, Node, Reactor, Reader, Record, Report,
    Seal, Stream,
)
from relay.native.nghttp2 cimport (
    nghttp2_option_del, nghttp2_option_new, nghttp2_option_set_max_outbound_ack,
    nghttp2_option_set_no_closed_streams, nghttp2_session_callbacks_del, nghttp2_session_del,
    relay_option_continuations, relay_option_reset_rate,
)
from relay.native.node cimport (
    node_callbacks_new, node_fail, node_free, node_lost, node_received, node_timer, node_writable,
)
from relay.native.output cimport tail_abandon
from relay.native.posix cimport (
    CLOCK_MONOTONIC, EINTR, EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLL_CLOEXEC, EPOLL_CTL_ADD,
    O_CLOEXEC, O_RDONLY, RLIMIT_NOFILE, TIMER_ABSTIME, clock_nanosleep, close, epoll_create1, epoll_ctl,
    epoll_event, epoll_wait, errno, getrlimit, iovec, monotonic, open, pthread_cond_broadcast,
    pthread_mutex_lock, pthread_mutex_unlock, rlimit, timespec,
)
from relay.native.server cimport (
    server_accept, server_callbacks_new, server_cut, server_listen_again, server_lost, server_received, server_timer,
    stream_deadline,
)
from relay.native.shape cimport shapes_free
from relay.native.status cimport STATUS_CLOSED, STATUS_LIMIT, STATUS_NO_MEMORY, STATUS_OK, STATUS_RESET, STATUS_SYSTEM
from relay.native.subscriber cimport feed_recycling, feed_tick, feed_wake, remainders_free
from relay.native.timers cimport Timer, timers_first, timers_free, timers_init, timers_pop_due
from relay.native.tls cimport tls_end
from relay.native.tls_context cimport tls_context_release
from relay.native.transport cimport (
    TRANSPORT_AGAIN, TRANSPORT_BROKEN, transport_left, transport_read, transport_rest,
)

cdef enum:
    TICK = 1000000000          # ns between two looks at all subscribers' losses
    WINDOW = 10000000          # ns over which the loop judges whether gathering pays
    GATHER_NODES = 4           # so many different nodes must have been read in a window
    GATHER_READS = 3           # and so many reads be expected while it waits
    FLUSH_GRACE = 250000000    # ns after the shutdown's deadline in which last frames leave
    LEISURE_EVENTS = 256
    DESCRIPTORS_KEPT = 16
    # ns a turn for reading clients' sockets; those that are left come first in the next turn. However many clients ask
    # however much, nodes are read and subscribers served in between.
    CLIENTS_A_TURN = 1000000
    PAUSE_LEAST = 20000        # ns: a shorter sleep than this is not worth its system call


# Making and unmaking ----------------------------------------------------------------------------

cdef inline int reactor_options(Reactor *reactor) noexcept nogil:
    if nghttp2_option_new(&reactor.server_option) != 0 or nghttp2_option_new(&reactor.node_option) != 0:
        return STATUS_NO_MEMORY
    # A server remembers closed streams to tell a late frame from a forbidden one (RFC 9113, 5.1); of nodes it does
    # not matter.
    nghttp2_option_set_no_closed_streams(reactor.node_option, 1)
    # As many as one read can bring: more than that wait only behind a client that does not read its answers.
    nghttp2_option_set_max_outbound_ack(reactor.server_option, REQUEST_READ_BYTES // 9)
    # The count of resets a second is ours (max_controls); the library's own limit would end the connection first.
    relay_option_reset_rate(reactor.server_option, 1000000, 1000000)
    relay_option_continuations(reactor.server_option, 8)
    relay_option_continuations(reactor.node_option, 8)
    if node_callbacks_new(&reactor.node_callbacks) != STATUS_OK:
        return STATUS_NO_MEMORY
    return server_callbacks_new(&reactor.server_callbacks)


cdef inline int reactor_scratch(Reactor *reactor) noexcept nogil:
    reactor.receive = <uint8_t *> memory_take(&reactor.memory, RECEIVE_BYTES)
    reactor.scratch = <uint8_t *> memory_take(&reactor.memory, OUTPUT_SCRATCH)
    reactor.pieces = <iovec *> memory_take(&reactor.memory, OUTPUT_PIECES * sizeof(iovec))
    # A DATA frame makes two records, of which the first joins a control record before it.
    reactor.records = <Record *> memory_take(&reactor.memory, (2 * OUTPUT_PIECES + 2) * sizeof(Record))
    # Without TLS these are never touched, and so cost no memory.
    reactor.cipher = <uint8_t *> memory_take(&reactor.memory, RECEIVE_BYTES)
    reactor.stage = <uint8_t *> memory_take(&reactor.memory, TLS_PLAIN)
    reactor.sealed = <uint8_t *> memory_take(&reactor.memory, TLS_SEALED_BYTES)
    reactor.seals = <Seal *> memory_take(&reactor.memory, TLS_SEALS * sizeof(Seal))
    reactor.events = <epoll_event *> memory_take(&reactor.memory, EVENTS_A_WAIT * sizeof(epoll_event))
    reactor.farewell = report_new(reactor, REPORT_STOPPED, 0)
    if (reactor.receive == NULL or reactor.scratch == NULL or reactor.pieces == NULL or reactor.records == NULL
            or reactor.cipher == NULL or reactor.stage == NULL or reactor.sealed == NULL or reactor.seals == NULL
            or reactor.events == NULL or reactor.farewell == NULL):
        return STATUS_NO_MEMORY
    return STATUS_OK


cdef inline int reactor_journals(Reactor *reactor) noexcept nogil:
    cdef size_t shares[FEEDS]
    cdef size_t smallest
    cdef Feed *feed
    cdef int number
    cdef int status = journal_shares(
        reactor.settings.journal_bytes, reactor.settings.max_event_bytes, shares, &smallest)
    if status != STATUS_OK:
        return status
    for number in range(FEEDS):
        feed = &reactor.feeds[number]
        feed.reactor = reactor
        feed.number = number
        status = journal_init(
            &feed.journal, &reactor.memory, shares[number], journal_segment_bytes(shares[number]))
        if status != STATUS_OK:
            return status
        feed.journal.recycling = feed_recycling
        feed.journal.recycling_context = feed
    return STATUS_OK


cdef inline int reactor_limits(Reactor *reactor) noexcept nogil:
    """What each client may make the engine hold, of what all may together: connection.pxd says how."""
    reactor.excess_most = reactor.settings.client_bytes // 2
    reactor.client_part = reactor.excess_most // reactor.settings.max_connections
    if reactor.client_part < PART_LEAST:
        reactor.client_part = PART_LEAST
    return addresses_init(reactor)


cdef inline int reactor_init(Reactor *reactor) noexcept nogil:
    """Make everything but the thread, from a zeroed struct with `settings`. What fails is undone by `reactor_free`."""
    cdef epoll_event event
    cdef int status
    memory_init(&reactor.memory)
    timers_init(&reactor.timers, &reactor.memory)
    timers_init(&reactor.deadlines, &reactor.memory)
    reactor.now = monotonic()
    reactor.epoll = epoll_create1(EPOLL_CLOEXEC)
    reactor.leisure = epoll_create1(EPOLL_CLOEXEC)
    reactor.leisure_wake.kind = CONNECTION_LEISURE
    reactor.leisure_wake.reactor = reactor
    reactor.spare_fd = open(b"/dev/null", O_RDONLY | O_CLOEXEC)
    status = mailbox_init(&reactor.mailbox)
    if status != STATUS_OK:
        return status
    if reactor.epoll < 0 or reactor.leisure < 0 or reactor.spare_fd < 0:
        return STATUS_SYSTEM
    status = reactor_options(reactor)
    if status == STATUS_OK:
        status = reactor_scratch(reactor)
    if status == STATUS_OK:
        status = reactor_journals(reactor)
    if status == STATUS_OK:
        status = reactor_limits(reactor)
    if status != STATUS_OK:
        return status
    reactor.wake.kind = CONNECTION_WAKE
    reactor.wake.reactor = reactor
    reactor.wake.fd = reactor.mailbox.wake
    memset(&event, 0, sizeof(event))
    event.events = EPOLLIN
    event.data.ptr = &reactor.wake
    if epoll_ctl(reactor.epoll, EPOLL_CTL_ADD, reactor.wake.fd, &event) != 0:
        return STATUS_SYSTEM
    reactor.mailbox.running = True
    return STATUS_OK


cdef inline void reactor_reap(Reactor *reactor) noexcept nogil:
    """Free the connections that ended in this turn."""
    cdef Connection *connection
    while reactor.closed != NULL:
        connection = reactor.closed
        reactor.closed = connection.next_closed
        tail_abandon(reactor, connection)
        if connection.kind == CONNECTION_NODE and connection.node != NULL:
            node_lost(reactor, connection)
        elif connection.kind == CONNECTION_CLIENT:
            server_lost(reactor, connection)
        if connection.session != NULL:
            nghttp2_session_del(connection.session)
            connection.session = NULL
        handshake_over(connection)
        tls_end(connection)
        connection_free(connection)


cdef inline void reactor_clear(Reactor *reactor) noexcept nogil:
    """End every connection and node."""
    cdef Connection *connection
    cdef Connection *following
    # Nothing that is on these lists outlives this.
    reactor.ready = NULL
    reactor.last_ready = NULL
    reactor.dirty = NULL
    memset(&reactor.going, 0, sizeof(reactor.going))
    memset(&reactor.coming, 0, sizeof(reactor.coming))
    connection = reactor.connections
    while connection != NULL:
        following = connection.next
        connection_end(connection, STATUS_CLOSED)
        connection = following
    reactor_reap(reactor)
    remainders_free(reactor)
    while reactor.nodes != NULL:
        node_free(reactor, reactor.nodes)


cdef inline uint64_t reactor_free(Reactor *reactor) noexcept nogil:
    """Undo `reactor_init`. Returns the blocks that are still held: 0, unless a cursor has a segment pinned."""
    cdef uint32_t i
    cdef int number
    cdef Command *command
    cdef Command *following
    reactor_clear(reactor)
    command = mailbox_take(reactor)
    while command != NULL:
        following = command.next
        if command.kind == COMMAND_LISTEN:
            close(command.fd)
        command_free(reactor, command)
        command = following
    while reactor.drains != NULL:
        command = reactor.drains
        reactor.drains = command.next
        memory_release(&reactor.memory, command)
    memory_release(&reactor.memory, reactor.farewell)
    mailbox_free(reactor)
    for i in range(reactor.path_count):
        memory_release(&reactor.memory, reactor.paths[i])
    memory_release(&reactor.memory, reactor.paths)
    for number in range(FEEDS):
        if reactor.feeds[number].journal.memory != NULL:
            journal_free(&reactor.feeds[number].journal)
        shapes_free(&reactor.feeds[number].shapes, &reactor.memory)
        memory_release(&reactor.memory, reactor.feeds[number].names)
    nghttp2_session_callbacks_del(reactor.server_callbacks)
    nghttp2_session_callbacks_del(reactor.node_callbacks)
    nghttp2_option_del(reactor.server_option)
    nghttp2_option_del(reactor.node_option)
    addresses_free(reactor)
    memory_release(&reactor.memory, reactor.receive)
    memory_release(&reactor.memory, reactor.scratch)
    memory_release(&reactor.memory, reactor.pieces)
    memory_release(&reactor.memory, reactor.records)
    memory_release(&reactor.memory, reactor.cipher)
    memory_release(&reactor.memory, reactor.stage)
    memory_release(&reactor.memory, reactor.sealed)
    memory_release(&reactor.memory, reactor.seals)
    memory_release(&reactor.memory, reactor.events)
    tls_context_release(reactor.server_tls)
    tls_context_release(reactor.client_tls)
    timers_free(&reactor.timers)
    timers_free(&reactor.deadlines)
    if reactor.epoll >= 0:
        close(reactor.epoll)
    if reactor.leisure >= 0:
        close(reactor.leisure)
    if reactor.spare_fd >= 0:
        close(reactor.spare_fd)
    return memory_blocks(&reactor.memory)


# A turn -----------------------------------------------------------------------------------------

cdef inline void reactor_gather_count(Reactor *reactor, Node *node) noexcept nogil:
    """Note that a node was read, and judge once a window whether waiting for others would pay."""
    cdef uint64_t window = reactor.now // WINDOW
    cdef uint64_t expected
    if window != reactor.window:
        expected = reactor.window_reads * reactor.settings.gather // WINDOW
        reactor.gathering = (
            window == reactor.window + 1 and reactor.window_nodes >= GATHER_NODES and expected >= GATHER_READS
        )
        reactor.window = window
        reactor.window_reads = 0
        reactor.window_nodes = 0
    reactor.window_reads += 1
    if node.last_window != window:
        node.last_window = window
        reactor.window_nodes += 1


cdef inline void reactor_gather(Reactor *reactor) noexcept nogil:
    """With many nodes at moderate rates: wait until the gather time has passed since the last turn began."""
    cdef timespec until
    cdef uint64_t now
    cdef uint64_t deadline = reactor.turn_began + reactor.settings.gather
    if not reactor.gathering or reactor.ready != NULL or reactor.dirty != NULL or reactor.stopping:
        return
    now = monotonic()
    if now // WINDOW > reactor.window + 1:
        reactor.gathering = False
        return
    if now + PAUSE_LEAST >= deadline:
        return
    until.tv_sec = <long> (deadline // 1000000000)
    until.tv_nsec = <long> (deadline % 1000000000)
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL)
    reactor.gathers += 1


cdef inline int reactor_timeout(Reactor *reactor, uint64_t tick) noexcept nogil:
    """Milliseconds that the wait may take; -1 for ever."""
    cdef uint64_t first = timers_first(&reactor.timers)
    cdef uint64_t other = timers_first(&reactor.deadlines)
    cdef uint64_t now = reactor.now
    if reactor.ready != NULL or reactor.dirty != NULL:
        return 0
    if other < first:
        first = other
    if tick < first:
        first = tick
    if handshakes_next(reactor) < first:
        first = handshakes_next(reactor)
    if reactor.leisurely and not reactor.armed and now + <uint64_t> LEISURE < first:
        return LEISURE_MS
    if reactor.stopping and reactor.stop_deadline < first:
        first = reactor.stop_deadline
    if first == UINT64_MAX:
        return -1
    if first <= now:
        return 0
    # Rounded up: a wait that ends before the deadline would only wait again.
    first = (first - now + 999999) // 1000000
    return <int> first if first < 60000 else 60000


cdef inline void reactor_leisure(Reactor *reactor) noexcept nogil:
    """Ask the second epoll, without waiting. Its events have a buffer of their own: the first's are being walked."""
    cdef epoll_event events[LEISURE_EVENTS]
    cdef int count = epoll_wait(reactor.leisure, events, LEISURE_EVENTS, 0)
    cdef int i
    for i in range(count):
        reactor_event(reactor, &events[i])


cdef inline void reactor_event(Reactor *reactor, epoll_event *event) noexcept nogil:
    """Sort out what epoll says of one descriptor."""
    cdef Connection *connection = <Connection *> event.data.ptr
    if connection.kind == CONNECTION_WAKE:
        eventfd_clear(connection.fd)
        reactor.commanded = True
        return
    if connection.kind == CONNECTION_LEISURE:
        reactor_leisure(reactor)
        return
    if connection.state == CONNECTION_CLOSED:
        return
    if connection.kind == CONNECTION_LISTENER:
        server_accept(reactor, connection)
        return
    if event.events & (EPOLLOUT | EPOLLERR | EPOLLHUP):
        if connection.kind == CONNECTION_NODE and connection.state == CONNECTION_OPENING:
            node_writable(reactor, connection.node)
        if not connection.writable:
            connection.writable = True
            connection_dirty(connection)
    if event.events & (EPOLLRDHUP | EPOLLERR | EPOLLHUP):
        connection.hung_up = True
    if event.events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP):
        connection_ready(connection)


cdef inline void reactor_cut(Reactor *reactor, Connection *connection) noexcept nogil:
    """End a connection for messages of TLS, which HTTP/2 does not see."""
    if connection.kind == CONNECTION_NODE:
        node_fail(reactor, connection.node, STATUS_LIMIT, "TLS: it changes its keys, or gives tickets, all the time")
    else:
        server_cut(reactor, connection)


cdef inline void reactor_take(Reactor *reactor, Connection *connection, ssize_t got, bint more) noexcept nogil:
    """What a read of a socket, or a part of one, has brought: `got` and `more` are transport_read's."""
    if connection.tls != NULL and not handshake_answer(connection):
        return
    # A short read means that the socket is empty, and epoll will tell of more; unless the peer has closed, which it
    # told already.
    if more or (connection.hung_up and got > 0):
        connection_ready(connection)
    if got == TRANSPORT_AGAIN:
        if connection.cut and connection.state != CONNECTION_ENDING:
            reactor_cut(reactor, connection)
        return
    if got == TRANSPORT_BROKEN:
        handshake_broken(connection)
        return
    if got <= 0:
        connection_end(connection, STATUS_CLOSED if got == 0 else STATUS_RESET)
        return
    connection.heard = reactor.now
    if connection.state == CONNECTION_ENDING:
        return
    if connection.kind == CONNECTION_NODE:
        node_received(reactor, connection, reactor.receive, <size_t> got)
        if connection.cut:
            reactor_cut(reactor, connection)
    else:
        server_received(reactor, connection, reactor.receive, <size_t> got)


cdef inline void reactor_read(Reactor *reactor, Connection *connection) noexcept nogil:
    """One read of one ready socket."""
    cdef size_t room = REQUEST_READ_BYTES
    cdef ssize_t got
    cdef bint more
    if connection.tls_context != NULL and (connection.tls == NULL or not connection.tls.open):
        if connection.kind == CONNECTION_CLIENT or connection.tls != NULL:
            handshake_queue(connection)
        return
    if connection.kind == CONNECTION_NODE and connection.state == CONNECTION_OPENING:
        return
    if connection.kind == CONNECTION_NODE:
        room = RECEIVE_BYTES if reactor.tails == 0 else RECEIVE_BEHIND
    reactor.reads += 1
    got = transport_read(connection, room, &more)
    if got > 0 and connection.kind == CONNECTION_NODE:
        reactor_gather_count(reactor, connection.node)
    reactor_take(reactor, connection, got, more)
    while transport_left(connection):
        got = transport_rest(connection, &more)
        reactor_take(reactor, connection, got, more)


cdef inline void reactor_reads(Reactor *reactor) noexcept nogil:
    """Each socket that is ready now, once; what becomes ready meanwhile waits for the next turn."""
    cdef Connection *connection = reactor.ready
    cdef Connection *following
    cdef uint64_t clients = 0
    cdef uint64_t began
    reactor.ready = NULL
    reactor.last_ready = NULL
    while connection != NULL:
        following = connection.next_ready
        connection.ready = False
        connection.next_ready = NULL
        if connection.state == CONNECTION_CLOSED:
            pass
        elif connection.kind != CONNECTION_CLIENT:
            reactor_read(reactor, connection)
        elif clients >= CLIENTS_A_TURN:
            connection_ready(connection)
        else:
            began = monotonic()
            reactor_read(reactor, connection)
            clients += monotonic() - began
        connection = following


cdef inline void reactor_wake_sinks(Reactor *reactor, int number) noexcept nogil:
    """Tell the cursors of other threads that wait for this feed."""
    cdef Reader *reader
    journal_lock(&reactor.feeds[number].journal)
    reader = reactor.feeds[number].sinks
    while reader != NULL:
        if reader.waiting:
            reader.waiting = False
            eventfd_raise(reader.wake)
        reader = reader.next
    journal_unlock(&reactor.feeds[number].journal)


cdef inline void reactor_wakes(Reactor *reactor) noexcept nogil:
    cdef Feed *feed
    cdef int number
    for number in range(FEEDS):
        feed = &reactor.feeds[number]
        if feed.woken != feed.journal.next:
            feed.woken = feed.journal.next
            reactor.grown = reactor.now
            feed_wake(reactor, number)
            reactor_wake_sinks(reactor, number)


cdef inline void reactor_writes(Reactor *reactor) noexcept nogil:
    """Each connection that has something to say now."""
    cdef Connection *connection = reactor.dirty
    cdef Connection *following
    reactor.dirty = NULL
    while connection != NULL:
        following = connection.next_dirty
        connection.dirty = False
        connection.next_dirty = NULL
        connection_flush(reactor, connection)
        connection = following


cdef inline void reactor_timers(Reactor *reactor) noexcept nogil:
    cdef Timer *timer
    cdef Connection *connection
    while True:
        timer = timers_pop_due(&reactor.timers, reactor.now)
        if timer == NULL:
            break
        connection = <Connection *> timer.owner
        if connection.kind == CONNECTION_NODE:
            node_timer(reactor, connection)
        elif connection.kind == CONNECTION_CLIENT:
            server_timer(reactor, connection)
        elif connection.kind == CONNECTION_LISTENER:
            server_listen_again(reactor, connection)
    while True:
        timer = timers_pop_due(&reactor.deadlines, reactor.now)
        if timer == NULL:
            break
        stream_deadline(reactor, <Stream *> timer.owner)


cdef inline void reactor_stop_check(Reactor *reactor) noexcept nogil:
    """While shutting down: is everybody gone, or the time over?"""
    cdef Connection *connection = reactor.connections
    if not reactor.stopping:
        return
    while connection != NULL and connection.state == CONNECTION_CLOSED:
        connection = connection.next
    if connection == NULL:
        reactor.stopped = True
    elif reactor.now >= reactor.stop_deadline:
        if reactor.stop_code == 0:
            reactor.stop_code = 1
            shutdown_expire(reactor)
            reactor.stop_deadline = reactor.now + FLUSH_GRACE
        else:
            reactor.stopped = True


cdef inline void reactor_turn(Reactor *reactor, uint64_t tick) noexcept nogil:
    cdef int count
    cdef int i
    reactor_gather(reactor)
    count = epoll_wait(reactor.epoll, reactor.events, EVENTS_A_WAIT, reactor_timeout(reactor, tick))
    reactor.now = monotonic()
    if reactor.leisurely:
        leisure_turn(reactor, count == 0, reactor.now - reactor.turn_began)
    reactor.turn_began = reactor.now
    reactor.turns += 1
    if count < 0:
        if errno != EINTR:
            reactor.stop_code = STATUS_SYSTEM
            reactor.stopped = True
        count = 0
    for i in range(count):
        reactor_event(reactor, &reactor.events[i])
    if reactor.leisurely and not reactor.armed:
        reactor_leisure(reactor)
    reactor_reads(reactor)
    if reactor.commanded:
        reactor.commanded = False
        commands_run(reactor)
    reactor_wakes(reactor)
    reactor_writes(reactor)
    remainders_free(reactor)
    handshakes_run(reactor)
    reactor_timers(reactor)
    if reactor.drains != NULL:
        drains_check(reactor)
    reactor_stop_check(reactor)
    if reactor.closed != NULL:
        # A dying connection may still be on the lists; they are walked whole in each turn, so let one more pass.
        reactor_unlist(reactor)
        reactor_reap(reactor)


cdef inline void reactor_unlist(Reactor *reactor) noexcept nogil:
    """Take closed connections off the lists of those to be read, written, and gone on with."""
    cdef Connection *connection = reactor.ready
    cdef Connection *following
    cdef Connection *dirty = reactor.dirty
    reactor.ready = NULL
    reactor.last_ready = NULL
    while connection != NULL:
        following = connection.next_ready
        connection.ready = False
        connection_ready(connection)
        connection = following
    reactor.dirty = NULL
    while dirty != NULL:
        following = dirty.next_dirty
        dirty.dirty = False
        connection_dirty(dirty)
        dirty = following
    handshakes_unlist(reactor)


cdef inline void reactor_descriptors(Reactor *reactor) noexcept nogil:
    """How many descriptors clients may use up: the process keeps some for nodes, files, the resolver."""
    cdef rlimit limit
    reactor.descriptors = UINT64_MAX
    if getrlimit(RLIMIT_NOFILE, &limit) == 0 and limit.rlim_cur > 2 * DESCRIPTORS_KEPT:
        reactor.descriptors = limit.rlim_cur - DESCRIPTORS_KEPT


cdef inline void reactor_run(Reactor *reactor) noexcept nogil:
    """The thread's whole life. The caller has released the GIL."""
    cdef uint64_t tick
    cdef int number
    cdef Report *report
    reactor.now = monotonic()
    reactor_descriptors(reactor)
    tick = reactor.now + TICK
    while not reactor.stopped:
        reactor_turn(reactor, tick)
        if reactor.now >= tick:
            for number in range(FEEDS):
                feed_tick(reactor, number)
            tick = reactor.now + TICK
    reactor_clear(reactor)
    # From now on nobody answers: release those who wait for a snapshot, refuse new commands.
    pthread_mutex_lock(&reactor.mailbox.lock)
    reactor.mailbox.running = False
    pthread_cond_broadcast(&reactor.mailbox.answered)
    pthread_mutex_unlock(&reactor.mailbox.lock)
    report = reactor.farewell
    reactor.farewell = NULL
    report.code = STATUS_SYSTEM if reactor.stop_code == STATUS_SYSTEM else 0
    text_copy(report.text, b"the deadline passed first" if reactor.stop_code == 1 else b"")
    mailbox_report(reactor, report, False)
