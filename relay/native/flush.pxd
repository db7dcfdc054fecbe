"""Write what a connection has to say: frames from nghttp2 and from the journal, gathered, one writev after another."""

from libc.stdint cimport uint8_t

from relay.native.connection cimport connection_dirty, connection_end
from relay.native.leisure cimport leisure_judge, leisure_leave
from relay.native.model cimport (
    CONNECTION_CLIENT, CONNECTION_CLOSED, CONNECTION_NODE, CONNECTION_OPEN, CONNECTION_OPENING, LIMIT_MEMORY,
    WRITE_ROUNDS, Connection, Reactor,
)
from relay.native.nghttp2 cimport (
    NGHTTP2_ERR_NOMEM, nghttp2_session_mem_send, nghttp2_session_want_read, nghttp2_session_want_write,
)
from relay.native.node cimport node_windows
from relay.native.output cimport (
    OUTPUT_ALL, OUTPUT_FAILED, OUTPUT_NO_MEMORY, output_begin, output_control, output_drop, output_has_room,
    output_write, tail_write,
)
from relay.native.server cimport server_linger, server_unsent
from relay.native.status cimport STATUS_GOAWAY, STATUS_NO_MEMORY, STATUS_PROTOCOL, STATUS_RESET
from relay.native.stream cimport stream_free


cdef inline bint _gather(Reactor *reactor, Connection *connection) noexcept nogil:
    """Gather one writev's worth. True when there is more; the connection may have failed."""
    cdef const uint8_t *data
    cdef ssize_t size
    output_begin(reactor, connection)
    if connection.kind == CONNECTION_NODE:
        node_windows(reactor, connection)
    while output_has_room(reactor):
        size = nghttp2_session_mem_send(connection.session, &data)
        if size < 0:
            output_drop(reactor, 0)
            if size == NGHTTP2_ERR_NOMEM:
                reactor.limits[LIMIT_MEMORY] += 1
            connection_end(connection, STATUS_NO_MEMORY if size == NGHTTP2_ERR_NOMEM else STATUS_PROTOCOL)
            return False
        if size == 0:
            # Nothing more, or a pause after a DATA frame that filled the round.
            return not output_has_room(reactor)
        output_control(reactor, data, <size_t> size)
    return True


cdef inline bint _wrote(Reactor *reactor, Connection *connection, int result) noexcept nogil:
    """Whether the connection may go on writing."""
    if result == OUTPUT_ALL:
        return True
    if result == OUTPUT_FAILED:
        connection_end(connection, STATUS_RESET)
    elif result == OUTPUT_NO_MEMORY:
        reactor.limits[LIMIT_MEMORY] += 1
        connection_end(connection, STATUS_NO_MEMORY)
    return False


cdef inline void connection_flush(Reactor *reactor, Connection *connection) noexcept nogil:
    """Write until there is nothing more, the kernel takes no more, or it is others' turn."""
    cdef int rounds = 0
    cdef bint more = True
    if connection.starved and connection.state != CONNECTION_CLOSED:
        reactor.limits[LIMIT_MEMORY] += 1
        connection_end(connection, STATUS_NO_MEMORY)
    if connection.state != CONNECTION_OPEN and connection.state != CONNECTION_OPENING or not connection.writable:
        return
    if connection.kind == CONNECTION_CLIENT and connection.state == CONNECTION_OPEN:
        server_unsent(reactor, connection)
    if connection.tail != NULL:
        if not _wrote(reactor, connection, tail_write(reactor, connection, stream_free)):
            return
    if connection.state == CONNECTION_OPENING:
        # A handshake of TLS: there is no session yet.
        return
    while more:
        if rounds == WRITE_ROUNDS:
            connection_dirty(connection)
            return
        rounds += 1
        more = _gather(reactor, connection)
        if connection.state == CONNECTION_CLOSED:
            return
        if reactor.piece_count == 0:
            break
        if not _wrote(reactor, connection, output_write(reactor, connection, stream_free)):
            leisure_leave(connection)
            return
    if connection.kind == CONNECTION_CLIENT:
        leisure_judge(connection)
    if not nghttp2_session_want_read(connection.session) and not nghttp2_session_want_write(connection.session):
        if connection.kind == CONNECTION_CLIENT:
            server_linger(reactor, connection)
        else:
            connection_end(connection, STATUS_GOAWAY if connection.goaway else STATUS_PROTOCOL)
