"""What OpenSSL reads from and writes to: bytes that the reactor has received, and its scratch for bytes to be sent.

OpenSSL would ask the socket twice a record, and write once a record. So the reactor reads and writes for it, many
records at a time, as it does for connections without TLS.
"""

from libc.string cimport memcpy

from relay.native.model cimport TLS_SEALED_BYTES, Reactor, TlsLink
from relay.native.openssl cimport (
    BIO, BIO_CTRL_FLUSH, BIO_METHOD, BIO_TYPE_SOURCE_SINK, BIO_clear_retry_flags, BIO_get_data,
    BIO_meth_new, BIO_meth_set_ctrl, BIO_meth_set_read, BIO_meth_set_write, BIO_set_retry_read,
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
    BIO_clear_retry_flags(bio)
    if size < 0 or <size_t> size > TLS_SEALED_BYTES - reactor.sealed_used:
        return -1
    memcpy(reactor.sealed + reactor.sealed_used, data, <size_t> size)
    reactor.sealed_used += <size_t> size
    return size


cdef inline long tls_bio_ctrl(BIO *bio, int what, long number, void *pointer) noexcept nogil:
    return 1 if what == BIO_CTRL_FLUSH else 0


cdef inline BIO_METHOD *tls_bio_method() noexcept nogil:
    """NULL without memory."""
    cdef BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, b"relay")
    if method != NULL:
        BIO_meth_set_read(method, tls_bio_read)
        BIO_meth_set_write(method, tls_bio_write)
        BIO_meth_set_ctrl(method, tls_bio_ctrl)
    return method
