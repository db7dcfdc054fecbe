"""What OpenSSL reads from and writes to: bytes that the reactor has received, and its scratch for bytes to be sent.

OpenSSL would ask the socket twice a record, and write once a record. So the reactor reads and writes for it, many
records at a time, as it does for connections without TLS.

Where the kernel encrypts (kTLS; linux/tls.h), OpenSSL hands it the keys through a socket BIO of its own, which stands
behind the one for writing. From then on what is gathered goes to the socket as it is, and OpenSSL's own words through
that BIO. Decryption stays here: it is done for many records after one read.
"""

from libc.limits cimport INT_MAX
from libc.string cimport memcpy

from relay.native.model cimport TLS_SEALED_BYTES, Reactor, TlsContext, TlsLink
from relay.native.openssl cimport (
    BIO, BIO_CTRL_FLUSH, BIO_METHOD, BIO_TYPE_SOURCE_SINK, BIO_clear_retry_flags, BIO_ctrl, BIO_get_data,
    BIO_get_ktls_send, BIO_meth_new, BIO_meth_set_ctrl, BIO_meth_set_read, BIO_meth_set_write, BIO_set_retry_read,
    BIO_set_retry_write, BIO_should_retry, BIO_write,
)
from relay.native.posix cimport (
    AF_INET, ENOTCONN, IPPROTO_TCP, MSG_DONTWAIT, MSG_NOSIGNAL, SOCK_CLOEXEC, SOCK_STREAM, TCP_NOTSENT_LOWAT, TCP_ULP,
    close, errno, send, setsockopt, socket,
)


cdef inline int tls_bio_read(BIO *bio, char *data, int size) noexcept nogil:
    cdef TlsLink *link = <TlsLink *> BIO_get_data(bio)
    cdef size_t count = link.received_size
    BIO_clear_retry_flags(bio)
    if size <= 0 or count == 0:
        BIO_set_retry_read(bio)
        return -1
    if count > <size_t> size:
        count = <size_t> size
    memcpy(data, link.received, count)
    link.received += count
    link.received_size -= count
    return <int> count


cdef inline int tls_bio_write(BIO *bio, const char *data, int size) noexcept nogil:
    """Room for all of a gathering is there; what would exceed it is an error."""
    cdef TlsLink *link = <TlsLink *> BIO_get_data(bio)
    cdef Reactor *reactor = link.connection.reactor
    cdef int sent
    BIO_clear_retry_flags(bio)
    if tls_kernel_writes(link):
        sent = BIO_write(link.kernel, data, size)
        if sent <= 0 and BIO_should_retry(link.kernel):
            BIO_set_retry_write(bio)
        return sent
    if size < 0 or <size_t> size > TLS_SEALED_BYTES - reactor.sealed_used:
        return -1
    memcpy(reactor.sealed + reactor.sealed_used, data, <size_t> size)
    reactor.sealed_used += <size_t> size
    return size


cdef inline long tls_bio_read_ctrl(BIO *bio, int what, long number, void *pointer) noexcept nogil:
    return 0


cdef inline long _bio_flush(TlsLink *link) noexcept nogil:
    """What was written so far has to reach the socket before the kernel encrypts what follows; else it never will."""
    cdef Reactor *reactor = link.connection.reactor
    if link.kernel == NULL or reactor.sealed_used == 0:
        return 1
    if link.connection.tail != NULL:
        return 0
    if send(link.connection.fd, reactor.sealed, reactor.sealed_used,
            MSG_DONTWAIT | MSG_NOSIGNAL) != <ssize_t> reactor.sealed_used:
        # A part may have left: nothing can follow it but its rest. So early the socket's buffer is empty.
        link.broken = True
        return 0
    reactor.sealed_used = 0
    return 1


cdef inline long tls_bio_write_ctrl(BIO *bio, int what, long number, void *pointer) noexcept nogil:
    cdef TlsLink *link = <TlsLink *> BIO_get_data(bio)
    if what == BIO_CTRL_FLUSH:
        return _bio_flush(link)
    # The keys, and the kinds of records that are not data.
    return 0 if link.kernel == NULL else BIO_ctrl(link.kernel, what, number, pointer)


cdef inline bint tls_kernel_writes(const TlsLink *link) noexcept nogil:
    """Whether the kernel encrypts what this connection writes."""
    return link.kernel != NULL and BIO_get_ktls_send(link.kernel)


cdef inline void tls_kernel_push(const TlsLink *link) noexcept nogil:
    """Have the kernel hand over to TCP what it has accepted so far, with what is written next.

    A record that meets the bound of what waits unsent stays with it in part, and is forgotten when our side is closed.
    """
    cdef int most = INT_MAX
    setsockopt(link.connection.fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &most, sizeof(most))


cdef inline bint tls_kernel_offered() noexcept nogil:
    """Whether the kernel has TLS. It refuses it to a socket without a peer, and says otherwise if it knows none."""
    cdef int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)
    cdef bint offered
    if fd < 0:
        return False
    offered = setsockopt(fd, IPPROTO_TCP, TCP_ULP, b"tls", 4) != 0 and errno == ENOTCONN
    close(fd)
    return offered


cdef inline bint tls_bio_methods(TlsContext *context) noexcept nogil:
    """False without memory."""
    context.reads = BIO_meth_new(BIO_TYPE_SOURCE_SINK, b"received")
    context.writes = BIO_meth_new(BIO_TYPE_SOURCE_SINK, b"sealed")
    if context.reads == NULL or context.writes == NULL:
        return False
    BIO_meth_set_read(context.reads, tls_bio_read)
    BIO_meth_set_ctrl(context.reads, tls_bio_read_ctrl)
    BIO_meth_set_write(context.writes, tls_bio_write)
    BIO_meth_set_ctrl(context.writes, tls_bio_write_ctrl)
    return True
