"""The life of a connection on the reactor's side: lists, descriptor, timer, end. What it speaks is elsewhere.

A connection that ends is closed at once, but freed only at the end of the turn, so that whoever is
in the middle of it finds CONNECTION_CLOSED and stops.

What clients make the engine hold is counted, by connection and by address, under one budget (`client_bytes`). Half of
it is set aside: each connection has its part of that, so nobody can keep others from a session and a few streams; a
connection for which there is no part is not accepted. What connections hold beyond their parts, their excess, comes
from the other half, of which no connection and no address gets more than a share.
"""

from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from relay.native.address cimport address_text
from relay.native.addresses cimport address_drop
from relay.native.debug cimport relay_assert
from relay.native.memory cimport (
    memory_nghttp2_calloc, memory_nghttp2_free, memory_nghttp2_malloc, memory_nghttp2_realloc, memory_release,
    memory_size, memory_take_zeroed,
)
from relay.native.model cimport (
    CONNECTION_CLIENT, CONNECTION_CLOSED, CONNECTION_LISTENER, CONNECTION_OPENING, LIMIT_CONTROLS, Address, Connection,
    Reactor,
)
from relay.native.nghttp2 cimport nghttp2_mem
from relay.native.posix cimport (
    EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLL_CTL_ADD, EPOLL_CTL_DEL, close, epoll_ctl, epoll_event, errno,
    setsockopt,
)
from relay.native.status cimport STATUS_NO_MEMORY, STATUS_OK, STATUS_SYSTEM
from relay.native.timers cimport timer_init, timers_clear, timers_reserve, timers_set


cdef enum:
    # What a block takes besides the bytes that were asked for: our header (memory.pxd), and malloc's own.
    BLOCK_OVERHEAD = 32
    # The least part of a connection: a session and a few streams that are served. Measured: 28 KiB, and 1.2 a stream.
    PART_LEAST = 32768
    # Of what connections hold beyond their parts, the most that one of them may have. An address: addresses.pxd.
    EXCESS_CONNECTION = 8
    # Of max_controls: PING and what is acknowledged count one, a request REQUEST_COST, other frames that carry nothing
    # and TLS's messages about keys this. grpc-go pings once a round trip while data flows, to learn the bandwidth: some
    # thousand a second on a fast network are a client's good right.
    CONTROL_COST = 10
    TLS_HELD = 25600           # what OpenSSL holds for one of TLS, measured


cdef inline Connection *connection_new(Reactor *reactor, int kind, int fd) noexcept nogil:
    """A connection that owns `fd`, on the list but not in epoll yet. NULL without memory (`fd` stays the caller's)."""
    cdef Connection *connection
    if timers_reserve(&reactor.timers, reactor.timers.count + 2) != STATUS_OK:
        return NULL
    connection = <Connection *> memory_take_zeroed(&reactor.memory, sizeof(Connection))
    if connection == NULL:
        return NULL
    connection.kind = <unsigned char> kind
    connection.state = CONNECTION_OPENING
    connection.fd = fd
    connection.reactor = reactor
    connection.writable = True
    connection.opened = reactor.now
    connection.heard = reactor.now
    connection.idle_since = reactor.now
    timer_init(&connection.timer, connection)
    connection.next = reactor.connections
    if reactor.connections != NULL:
        reactor.connections.previous = connection
    reactor.connections = connection
    if kind != CONNECTION_LISTENER:
        reactor.connection_count += 1
    if kind == CONNECTION_CLIENT:
        reactor.client_count += 1
    return connection


# What clients take ------------------------------------------------------------------------------

cdef inline size_t block_bytes(const void *body) noexcept nogil:
    """What a block takes; nothing for NULL."""
    return memory_size(body) + BLOCK_OVERHEAD if body != NULL else 0


cdef inline size_t connection_excess(const Connection *connection) noexcept nogil:
    """What it holds beyond its part."""
    return connection.charged - connection.part if connection.charged > connection.part else 0


cdef inline void _connection_account(Connection *connection, size_t bytes, size_t part) noexcept nogil:
    """Add to what it holds, and to its part; both may be negative, since unsigned arithmetic wraps."""
    cdef Reactor *reactor = connection.reactor
    cdef size_t excess = connection_excess(connection)
    connection.charged += bytes
    connection.part += part
    reactor.client_parts += part
    if connection.address == NULL:
        return                                        # a node's: counted, but under no budget
    excess = connection_excess(connection) - excess
    reactor.client_bytes += bytes
    reactor.client_excess += excess
    connection.address.bytes += bytes
    connection.address.excess += excess


cdef inline void connection_charge(Connection *connection, size_t bytes) noexcept nogil:
    """Its client makes us hold so many bytes more. Whether that is too much is asked later: `connection_over`."""
    _connection_account(connection, bytes, 0)


cdef inline void connection_discharge(Connection *connection, size_t bytes) noexcept nogil:
    """They have been given back."""
    _connection_account(connection, 0 - bytes, 0)


cdef inline size_t _secure_part(const Reactor *reactor) noexcept nogil:
    """What TLS adds to the part of a connection: as much as it takes beyond what is needed without."""
    if reactor.client_part >= <size_t> PART_LEAST + TLS_HELD:
        return 0
    return <size_t> PART_LEAST + TLS_HELD - reactor.client_part


cdef inline void connection_secured(Connection *connection) noexcept nogil:
    """It speaks TLS, and holds what that takes for as long as it lives. `connection_free` gives it back."""
    connection.founded += TLS_HELD
    _connection_account(connection, TLS_HELD, _secure_part(connection.reactor))


cdef inline void connection_of(Connection *connection, Address *address) noexcept nogil:
    """Whose it is: from here on its bytes count. `connection_free` gives the address back."""
    connection.address = address
    connection.founded = block_bytes(connection)
    _connection_account(connection, connection.founded, connection.reactor.client_part)


cdef inline bint connection_fits(const Reactor *reactor) noexcept nogil:
    """Whether there is a part for one connection more."""
    cdef size_t part = reactor.client_part
    if reactor.server_tls != NULL:
        part += _secure_part(reactor)
    return reactor.client_parts + part <= reactor.excess_most


cdef inline bint connection_over(const Connection *connection) noexcept nogil:
    """Whether it holds more than its part while all there is for that, or its share of it, is used up."""
    cdef const Reactor *reactor = connection.reactor
    cdef size_t excess = connection_excess(connection)
    if excess == 0:
        return False
    return (
        excess > reactor.excess_most // EXCESS_CONNECTION or connection.address.excess > reactor.address_excess
        or reactor.client_excess > reactor.excess_most
    )


cdef inline void connection_cut(Connection *connection, int limit) noexcept nogil:
    """Its client is over a limit: the connection ends when what was received has been looked at. Counted once."""
    if connection.cut == 0:
        connection.cut = <uint8_t> (limit + 1)
        connection.reactor.limits[limit] += 1
        connection.opened = connection.reactor.now    # what is left of its time counts from here
        connection_dirty(connection)


cdef inline void connection_spend(Connection *connection, uint32_t cost) noexcept nogil:
    """Something that costs us more than its client: so much of it a second, and it is cut off."""
    cdef uint64_t second = connection.reactor.now // 1000000000
    if connection.second != second:
        connection.second = second
        connection.controls = 0
    connection.controls += cost
    if connection.controls > connection.reactor.settings.max_controls:
        connection_cut(connection, LIMIT_CONTROLS)


# Lists and events -------------------------------------------------------------------------------

cdef inline int connection_watch(Connection *connection) noexcept nogil:
    """Put it into epoll: edge-triggered, both directions, once; a listener level-triggered."""
    cdef epoll_event event
    memset(&event, 0, sizeof(event))
    event.data.ptr = connection
    if connection.kind == CONNECTION_LISTENER:
        event.events = EPOLLIN
    else:
        event.events = <uint32_t> (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)
    if epoll_ctl(connection.reactor.epoll, EPOLL_CTL_ADD, connection.fd, &event) != 0:
        return STATUS_SYSTEM
    return STATUS_OK


cdef inline void connection_dirty(Connection *connection) noexcept nogil:
    """It may have something to write: look at the end of the turn."""
    cdef Reactor *reactor = connection.reactor
    if connection.dirty or connection.state == CONNECTION_CLOSED:
        return
    connection.dirty = True
    connection.next_dirty = reactor.dirty
    reactor.dirty = connection


cdef inline void connection_ready(Connection *connection) noexcept nogil:
    """It may have something to read."""
    cdef Reactor *reactor = connection.reactor
    if connection.ready or connection.state == CONNECTION_CLOSED:
        return
    connection.ready = True
    connection.next_ready = NULL
    if reactor.ready == NULL:
        reactor.ready = connection
    else:
        reactor.last_ready.next_ready = connection
    reactor.last_ready = connection


cdef inline void connection_timer(Connection *connection, uint64_t deadline) noexcept nogil:
    """Look at the connection again at `deadline`, if not earlier."""
    cdef Reactor *reactor = connection.reactor
    if deadline == UINT64_MAX or connection.state == CONNECTION_CLOSED:
        return
    if deadline <= reactor.now:
        # Due again at once would keep the loop among the timers for ever.
        deadline = reactor.now + 1
    if connection.timer.index != 0 and connection.timer.deadline <= deadline:
        return
    if timers_set(&reactor.timers, &connection.timer, deadline) != STATUS_OK:
        connection_end(connection, STATUS_NO_MEMORY)


cdef inline void connection_end(Connection *connection, int status) noexcept nogil:
    """Close the socket now; the rest is freed at the end of the turn. The first status counts."""
    cdef Reactor *reactor = connection.reactor
    if connection.state == CONNECTION_CLOSED:
        return
    connection.failure = status
    connection.failure_errno = errno
    connection.state = CONNECTION_CLOSED
    timers_clear(&reactor.timers, &connection.timer)
    if connection.fd >= 0:
        # Explicitly: a duplicate of the descriptor elsewhere would keep it in epoll.
        if connection.leisurely:
            connection.leisurely = False
            reactor.leisurely -= 1
            epoll_ctl(reactor.leisure, EPOLL_CTL_DEL, connection.fd, NULL)
        else:
            epoll_ctl(reactor.epoll, EPOLL_CTL_DEL, connection.fd, NULL)
        close(connection.fd)
        connection.fd = -1
    connection.next_closed = reactor.closed
    reactor.closed = connection


cdef inline void connection_free(Connection *connection) noexcept nogil:
    """Unlink and free a closed connection. Its session, streams and tail are gone already."""
    cdef Reactor *reactor = connection.reactor
    relay_assert(connection.session == NULL and connection.streams == NULL and connection.tail == NULL
                 and connection.tls == NULL, "a connection is freed empty")
    if connection.previous != NULL:
        connection.previous.next = connection.next
    else:
        reactor.connections = connection.next
    if connection.next != NULL:
        connection.next.previous = connection.previous
    if connection.kind != CONNECTION_LISTENER:
        reactor.connection_count -= 1
    if connection.kind == CONNECTION_CLIENT:
        reactor.client_count -= 1
    _connection_account(connection, 0 - connection.founded, 0 - connection.part)
    relay_assert(connection.charged == 0, "what a connection held has been given back")
    if connection.address != NULL:
        address_drop(reactor, connection.address)
    memory_release(&reactor.memory, connection)


# What the connection's session allocates. Not every failure comes back from nghttp2 as an error (its GOAWAY may be
# dropped in silence), and after some a stream would wait for ever: so each marks the connection, which then ends.

cdef inline void *connection_took(Connection *connection, void *body) noexcept nogil:
    if body == NULL:
        connection.starved = True
        connection_dirty(connection)
    connection_charge(connection, block_bytes(body))
    return body


cdef inline void *connection_malloc(size_t size, void *user) noexcept nogil:
    cdef Connection *connection = <Connection *> user
    return connection_took(connection, memory_nghttp2_malloc(size, &connection.reactor.memory))


cdef inline void connection_release(void *body, void *user) noexcept nogil:
    cdef Connection *connection = <Connection *> user
    connection_discharge(connection, block_bytes(body))
    memory_nghttp2_free(body, &connection.reactor.memory)


cdef inline void *connection_calloc(size_t count, size_t size, void *user) noexcept nogil:
    cdef Connection *connection = <Connection *> user
    return connection_took(connection, memory_nghttp2_calloc(count, size, &connection.reactor.memory))


cdef inline void *connection_realloc(void *body, size_t size, void *user) noexcept nogil:
    cdef Connection *connection = <Connection *> user
    cdef size_t former = block_bytes(body)
    cdef void *moved = connection_took(connection, memory_nghttp2_realloc(body, size, &connection.reactor.memory))
    if moved != NULL:
        connection_discharge(connection, former)
    return moved


cdef inline void connection_allocator(Connection *connection, nghttp2_mem *allocator) noexcept nogil:
    """What a session is made with; nghttp2 copies it."""
    allocator.mem_user_data = connection
    allocator.malloc = connection_malloc
    allocator.free = connection_release
    allocator.calloc = connection_calloc
    allocator.realloc = connection_realloc


cdef inline void socket_option(int fd, int level, int name, int value) noexcept nogil:
    """Set an option; one that the kernel refuses is left as it was."""
    setsockopt(fd, level, name, &value, sizeof(value))


cdef inline void peer_text(const Connection *connection, char *text, size_t size) noexcept nogil:
    """Address and port of the peer."""
    address_text(&connection.peer, text, size)
