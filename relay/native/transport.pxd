"""Bytes in and out of a connection's socket: what lies under HTTP/2, with TLS or without."""

from libc.stdint cimport uint8_t
from libc.string cimport memset

from relay.native.model cimport CONNECTION_CLOSED, TLS_PART_BYTES, Connection, Reactor
from relay.native.posix cimport EAGAIN, EINTR, MSG_DONTWAIT, MSG_NOSIGNAL, errno, iovec, msghdr, recv, sendmsg
from relay.native.tls cimport tls_decrypt

# Besides byte counts >= 0.
cdef enum:
    TRANSPORT_AGAIN = -1       # nothing can be moved now
    TRANSPORT_FAILED = -2      # errno says why
    TRANSPORT_BROKEN = -3      # TLS: what came cannot be decrypted


cdef inline ssize_t transport_receive(int fd, uint8_t *buffer, size_t size) noexcept nogil:
    """Bytes as they came, 0 at the end of the stream, TRANSPORT_AGAIN or TRANSPORT_FAILED."""
    cdef ssize_t got
    while True:
        got = recv(fd, buffer, size, MSG_DONTWAIT)
        if got >= 0:
            return got
        if errno == EAGAIN:
            return TRANSPORT_AGAIN
        if errno != EINTR:
            return TRANSPORT_FAILED


cdef inline ssize_t transport_rest(Connection *connection, bint *more) noexcept nogil:
    """Under TLS: the next part of what one read has brought, in the reactor's `receive`; as `transport_read`.

    A part is decrypted, looked at and copied to its place before the next one, so that it stays in the core's caches.
    """
    cdef size_t total
    # What OpenSSL had to say about the part before has been sent.
    connection.reactor.sealed_used = 0
    total = tls_decrypt(connection, connection.reactor.receive, TLS_PART_BYTES)
    if connection.tls.over or connection.tls.broken:
        # Its end is told by the next read.
        more[0] = True
    return <ssize_t> total if total else TRANSPORT_AGAIN


cdef inline ssize_t _read_tls(Connection *connection, size_t size, bint *more) noexcept nogil:
    cdef Reactor *reactor = connection.reactor
    cdef ssize_t got
    reactor.sealed_used = 0
    if connection.tls.broken:
        return TRANSPORT_BROKEN
    if connection.tls.over:
        return 0
    got = transport_receive(connection.fd, reactor.cipher, size)
    if got <= 0:
        return got
    # Bytes that complete no record look like none; that the peer has closed behind them is not told again.
    more[0] = <size_t> got == size or connection.hung_up
    connection.tls.received = reactor.cipher
    connection.tls.received_size = <size_t> got
    return transport_rest(connection, more)


cdef inline ssize_t transport_read(Connection *connection, size_t size, bint *more) noexcept nogil:
    """One read of at most `size` bytes into the reactor's `receive`.

    Returns the bytes that came, 0 at the end of the stream, or a negative number of those above. `more` tells that
    there may be more at once. With TLS `sealed` may hold an answer of OpenSSL's, and while `transport_left` there is
    more to be had by `transport_rest`, which has to be taken before another connection is read.
    """
    cdef ssize_t got
    more[0] = False
    if connection.tls != NULL:
        return _read_tls(connection, size, more)
    got = transport_receive(connection.fd, connection.reactor.receive, size)
    more[0] = got == <ssize_t> size
    return got


cdef inline bint transport_left(const Connection *connection) noexcept nogil:
    """Whether bytes of this read wait to be decrypted."""
    return (connection.tls != NULL and connection.tls.received_size != 0
            and connection.state != CONNECTION_CLOSED)


cdef inline ssize_t transport_write(Connection *connection, iovec *pieces, size_t count) noexcept nogil:
    """Bytes, encrypted where they have to be, that the kernel accepted; TRANSPORT_AGAIN or TRANSPORT_FAILED."""
    cdef msghdr message
    cdef ssize_t sent
    memset(&message, 0, sizeof(msghdr))
    message.msg_iov = pieces
    message.msg_iovlen = count
    while True:
        sent = sendmsg(connection.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL)
        if sent >= 0:
            return sent
        if errno == EAGAIN:
            return TRANSPORT_AGAIN
        if errno != EINTR:
            return TRANSPORT_FAILED
