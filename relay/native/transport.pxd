"""Bytes in and out of a connection's socket. Plain TCP today; what lies under HTTP/2 changes here alone."""

from libc.stdint cimport uint8_t
from libc.string cimport memset

from relay.native.model cimport Connection
from relay.native.posix cimport EAGAIN, EINTR, MSG_DONTWAIT, MSG_NOSIGNAL, errno, iovec, msghdr, recv, sendmsg

# Besides byte counts >= 0.
cdef enum:
    TRANSPORT_AGAIN = -1       # nothing can be moved now
    TRANSPORT_FAILED = -2      # errno says why


cdef inline ssize_t transport_read(Connection *connection, uint8_t *buffer, size_t size) noexcept nogil:
    """Bytes read, 0 at the end of the stream, TRANSPORT_AGAIN or TRANSPORT_FAILED."""
    cdef ssize_t got
    while True:
        got = recv(connection.fd, buffer, size, MSG_DONTWAIT)
        if got >= 0:
            return got
        if errno == EAGAIN:
            return TRANSPORT_AGAIN
        if errno != EINTR:
            return TRANSPORT_FAILED


cdef inline ssize_t transport_write(Connection *connection, iovec *pieces, size_t count) noexcept nogil:
    """Bytes that the kernel accepted, TRANSPORT_AGAIN or TRANSPORT_FAILED."""
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
