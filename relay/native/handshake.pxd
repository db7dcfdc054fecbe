"""Handshakes of TLS, a bounded part of each turn.

One costs a millisecond of CPU, most of it in a single step. So they wait in a queue, and are gone on with when the
turn's events have left: for SHAKE_BUDGET at most, though at least one step, and, while events flow, in a SHAKE_SHARE-th
part of the thread's time. An event thus waits for one or two steps at the worst, however many clients come at once.
What handshakes of clients hold is bounded, too: SHAKE_MOST of them are under way at a time. Those that can go on do so
before others begin, SHAKE_ROW of them, and one that is not over after SHAKE_PATIENCE is given up when another waits to
begin.
"""

from libc.stdint cimport UINT64_MAX, uint8_t, uint64_t

from relay.native.connection cimport connection_end, connection_ready, peer_text
from relay.native.mailbox cimport mailbox_report, report_new, text_copy
from relay.native.model cimport (
    CONNECTION_CLOSED, CONNECTION_NODE, CONNECTION_OPEN, CONNECTION_OPENING, LIMIT_HANDSHAKE, LIMIT_MEMORY, LIMIT_TLS,
    RECEIVE_BYTES, REPORT_TLS, REQUEST_READ_BYTES, TEXT_BYTES, Connection, Reactor, Report, Steps, TLS_PLAIN,
)
from relay.native.node cimport node_connected, node_fail, node_received
from relay.native.openssl cimport SSL_session_reused
from relay.native.output cimport OUTPUT_FAILED, OUTPUT_NO_MEMORY, output_sealed
from relay.native.posix cimport monotonic
from relay.native.server cimport server_linger, server_not_tls, server_received
from relay.native.status cimport STATUS_CLOSED, STATUS_LIMIT, STATUS_NO_MEMORY, STATUS_OK, STATUS_RESET, STATUS_TLS
from relay.native.tls cimport (
    TLS_HANDSHAKE, TLS_STEP_AGAIN, TLS_STEP_FAILED, tls_begin, tls_decrypt, tls_is_h2, tls_peer_in_time, tls_reason,
    tls_step,
)
from relay.native.transport cimport TRANSPORT_AGAIN, transport_receive

cdef enum:
    SHAKE_BUDGET = 500000      # ns of a turn
    SHAKE_SHARE = 8
    SHAKE_FLOW = 10000000      # ns since a feed has grown in which events flow
    # Handshakes of clients. Each holds 44 KiB, and 175 as soon as its client announces the largest hello that OpenSSL
    # takes, measured.
    SHAKE_MOST = 96
    # Those that crumble their messages could go on for ever, and none would begin.
    SHAKE_ROW = 8
    SHAKE_PATIENCE = 2000000000  # ns
    SHAKE_TOLD = 1000000000    # ns between two reports of clients that were refused


cdef inline void _append(Steps *queue, Connection *connection) noexcept nogil:
    connection.stepping = True
    connection.next_step = NULL
    if queue.first == NULL:
        queue.first = connection
    else:
        queue.last.next_step = connection
    queue.last = connection


cdef inline Connection *_pop(Steps *queue) noexcept nogil:
    cdef Connection *connection = queue.first
    queue.first = connection.next_step
    connection.stepping = False
    return connection


cdef inline void handshake_queue(Connection *connection) noexcept nogil:
    """Its handshake may go on, or begin."""
    cdef Reactor *reactor = connection.reactor
    if not connection.stepping and connection.state != CONNECTION_CLOSED:
        _append(&reactor.coming if connection.tls == NULL else &reactor.going, connection)


# Clients under way ------------------------------------------------------------------------------

cdef inline uint64_t _room_at(const Reactor *reactor) noexcept nogil:
    """When one more client's handshake may begin: 0 for now."""
    if reactor.shaking < SHAKE_MOST:
        return 0
    return reactor.first_shaking.tls.began + <uint64_t> SHAKE_PATIENCE


cdef inline void _under_way(Reactor *reactor, Connection *connection) noexcept nogil:
    """A client's handshake begins to hold memory; the oldest may have to go for it."""
    cdef Connection *oldest = reactor.first_shaking
    if reactor.shaking >= SHAKE_MOST:
        reactor.limits[LIMIT_HANDSHAKE] += 1
        handshake_over(oldest)
        connection_end(oldest, STATUS_LIMIT)
    connection.tls.shaking = True
    connection.tls.began = reactor.now
    connection.tls.next_shaking = NULL
    connection.tls.previous_shaking = reactor.last_shaking
    if reactor.last_shaking == NULL:
        reactor.first_shaking = connection
    else:
        reactor.last_shaking.tls.next_shaking = connection
    reactor.last_shaking = connection
    reactor.shaking += 1


cdef inline void handshake_over(Connection *connection) noexcept nogil:
    """It is no more under way: it succeeded, or its connection ends."""
    cdef Reactor *reactor = connection.reactor
    if connection.tls == NULL or not connection.tls.shaking:
        return
    connection.tls.shaking = False
    if connection.tls.previous_shaking != NULL:
        connection.tls.previous_shaking.tls.next_shaking = connection.tls.next_shaking
    else:
        reactor.first_shaking = connection.tls.next_shaking
    if connection.tls.next_shaking != NULL:
        connection.tls.next_shaking.tls.previous_shaking = connection.tls.previous_shaking
    else:
        reactor.last_shaking = connection.tls.previous_shaking
    reactor.shaking -= 1


# A step -----------------------------------------------------------------------------------------

cdef inline void _refused(Reactor *reactor, Connection *connection, const char *text) noexcept nogil:
    """A client's handshake has failed: count it, and tell Python of some, since the counter tells of all."""
    cdef Report *report
    cdef char peer[64]
    reactor.limits[LIMIT_TLS] += 1
    if reactor.tls_told and reactor.now < reactor.tls_told + SHAKE_TOLD:
        return
    report = report_new(reactor, REPORT_TLS, sizeof(peer))
    if report == NULL:
        return
    reactor.tls_told = reactor.now
    text_copy(report.text, text)
    peer_text(connection, <char *> report.data, sizeof(peer))
    mailbox_report(reactor, report, True)


cdef inline void _fail(Reactor *reactor, Connection *connection, const char *text) noexcept nogil:
    """End a handshake that has failed, with the alert that OpenSSL has written."""
    reactor.tls.failed += 1
    handshake_over(connection)
    output_sealed(reactor, connection)
    if connection.kind == CONNECTION_NODE:
        node_fail(reactor, connection.node, STATUS_TLS, text)
    else:
        _refused(reactor, connection, text)
        server_linger(reactor, connection)


cdef inline bint handshake_answer(Connection *connection) noexcept nogil:
    """Send what OpenSSL has written meanwhile, if anything. False when the connection has ended for it."""
    cdef int result = output_sealed(connection.reactor, connection)
    if result == OUTPUT_FAILED or result == OUTPUT_NO_MEMORY:
        connection_end(connection, STATUS_RESET if result == OUTPUT_FAILED else STATUS_NO_MEMORY)
        return False
    return True


cdef inline void handshake_broken(Connection *connection) noexcept nogil:
    """What came on a connection that was open could not be taken: say why where somebody reads it.

    With TLS 1.3 a server tells a client only now that it does not take its certificate.
    """
    cdef char text[TEXT_BYTES]
    tls_reason(connection.tls, text, sizeof(text))
    if connection.kind == CONNECTION_NODE:
        node_fail(connection.reactor, connection.node, STATUS_TLS, text)
    else:
        connection_end(connection, STATUS_TLS)


cdef inline void _done(Reactor *reactor, Connection *connection) noexcept nogil:
    """The handshake is over: HTTP/2 begins, maybe with bytes that came along."""
    cdef size_t got
    handshake_over(connection)
    if not tls_is_h2(connection.tls):
        _fail(reactor, connection, "TLS: no HTTP/2 (the peer does not offer the protocol h2 by ALPN)")
        return
    if not tls_peer_in_time(connection.tls):
        _fail(reactor, connection, "TLS: the peer's certificate has expired since its session began")
        return
    reactor.tls.handshakes += 1
    if SSL_session_reused(connection.tls.ssl):
        reactor.tls.resumed += 1
    got = tls_decrypt(connection, reactor.receive, RECEIVE_BYTES - TLS_PLAIN)
    if not handshake_answer(connection):
        return
    if connection.kind == CONNECTION_NODE:
        node_connected(reactor, connection.node)
        if got and connection.state == CONNECTION_OPEN:
            node_received(reactor, connection, reactor.receive, got)
    elif got:
        server_received(reactor, connection, reactor.receive, got)
    if connection.tls != NULL and (connection.tls.over or connection.tls.broken):
        connection_ready(connection)


cdef inline bint _first_byte(Reactor *reactor, Connection *connection, uint8_t byte) noexcept nogil:
    """A client's first byte: whether a handshake begins."""
    if byte != TLS_HANDSHAKE:
        server_not_tls(reactor, connection)
        return False
    if tls_begin(connection) != STATUS_OK:
        reactor.limits[LIMIT_MEMORY] += 1
        connection_end(connection, STATUS_NO_MEMORY)
        return False
    _under_way(reactor, connection)
    return True


cdef inline void handshake_step(Reactor *reactor, Connection *connection) noexcept nogil:
    """Read once, and go as far as that leads."""
    cdef char text[TEXT_BYTES]
    cdef ssize_t got = transport_receive(connection.fd, reactor.cipher, REQUEST_READ_BYTES)
    cdef int step
    reactor.reads += 1
    if got == TRANSPORT_AGAIN:
        # We begin with a node; a client begins with us.
        if connection.kind != CONNECTION_NODE or connection.heard != connection.opened:
            return
        got = 0
    elif got <= 0:
        if connection.kind == CONNECTION_NODE:
            reactor.tls.failed += 1
            node_fail(reactor, connection.node, STATUS_TLS,
                      "TLS: the node closed the connection during the handshake (does it speak TLS?)")
        else:
            connection_end(connection, STATUS_CLOSED if got == 0 else STATUS_RESET)
        return
    else:
        connection.heard = reactor.now
        if got == REQUEST_READ_BYTES or connection.hung_up:
            connection_ready(connection)
    if connection.tls == NULL and not _first_byte(reactor, connection, reactor.cipher[0]):
        return
    step = tls_step(connection, reactor.cipher, <size_t> got)
    if step == TLS_STEP_FAILED:
        tls_reason(connection.tls, text, sizeof(text))
        _fail(reactor, connection, text)
    elif step == TLS_STEP_AGAIN:
        handshake_answer(connection)
    else:
        _done(reactor, connection)


# The queues -------------------------------------------------------------------------------------

cdef inline uint64_t handshakes_next(const Reactor *reactor) noexcept nogil:
    """When there is something to do, ns; UINT64_MAX with nothing."""
    cdef uint64_t room
    if reactor.going.first != NULL:
        return reactor.next_step
    if reactor.coming.first == NULL:
        return UINT64_MAX
    room = _room_at(reactor)
    return room if room > reactor.next_step else reactor.next_step


cdef inline Connection *_next(Reactor *reactor) noexcept nogil:
    """Take the one whose turn it is off its queue; `handshakes_next` has said that there is one."""
    if reactor.going.first == NULL or (
            reactor.step_row >= SHAKE_ROW and reactor.coming.first != NULL and _room_at(reactor) <= reactor.now):
        reactor.step_row = 0
        return _pop(&reactor.coming)
    reactor.step_row += 1
    return _pop(&reactor.going)


cdef inline void handshakes_run(Reactor *reactor) noexcept nogil:
    """Go on with those that wait, as far as the turn's budget goes."""
    cdef Connection *connection
    cdef uint64_t began = 0
    cdef uint64_t spent = 0
    while spent < SHAKE_BUDGET and handshakes_next(reactor) <= reactor.now:
        connection = _next(reactor)
        if connection.state == CONNECTION_OPENING:
            if began == 0:
                began = monotonic()
            handshake_step(reactor, connection)
            spent = monotonic() - began
    if spent:
        reactor.next_step = reactor.now + SHAKE_SHARE * spent if reactor.now < reactor.grown + SHAKE_FLOW else 0


cdef inline void _unlist(Steps *queue) noexcept nogil:
    cdef Connection *connection = queue.first
    cdef Connection *following
    queue.first = NULL
    while connection != NULL:
        following = connection.next_step
        connection.stepping = False
        if connection.state != CONNECTION_CLOSED:
            _append(queue, connection)
        connection = following


cdef inline void handshakes_unlist(Reactor *reactor) noexcept nogil:
    """Take connections that have ended off the queues."""
    _unlist(&reactor.going)
    _unlist(&reactor.coming)
