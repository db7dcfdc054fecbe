"""A connection's TLS: the handshake, what was received decrypted, what was gathered encrypted.

OpenSSL never sees the socket (tls_bio.pxd). What it writes is in the reactor's `sealed`; whoever called one of these
functions sends it before the next call for another connection.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdio cimport snprintf
from libc.string cimport memcmp, memcpy

from relay.native.certificate cimport certificate_in_time
from relay.native.debug cimport relay_assert
from relay.native.memory cimport memory_release, memory_take_zeroed
from relay.native.model cimport TLS_PLAIN, TLS_SEALS, Connection, Node, Reactor, Seal, TlsContext, TlsLink
from relay.native.openssl cimport (
    BIO, BIO_NOCLOSE, BIO_free, BIO_new, BIO_new_socket, BIO_set_data, BIO_set_init, ERR_GET_REASON, ERR_clear_error,
    ERR_peek_last_error, ERR_reason_error_string, SSL_AD_REASON_OFFSET, SSL_ERROR_WANT_READ, SSL_ERROR_ZERO_RETURN,
    SSL_RECEIVED_SHUTDOWN, SSL_SENT_SHUTDOWN, SSL_SESSION, SSL_SESSION_free, SSL_SESSION_get0_peer,
    SSL_SESSION_is_resumable, SSL_do_handshake, SSL_free, SSL_free_buffers, SSL_get0_alpn_selected,
    SSL_get0_peer_certificate, SSL_get1_session, SSL_get_error, SSL_get_verify_result, SSL_is_init_finished, SSL_new,
    SSL_read, SSL_rstate_string, SSL_set_accept_state, SSL_set_app_data, SSL_set_bio, SSL_set_connect_state,
    SSL_set_session, SSL_set_shutdown, SSL_set_tlsext_host_name, SSL_shutdown, SSL_write, X509, X509_V_OK,
    X509_verify_cert_error_string,
)
from relay.native.posix cimport iovec, sockaddr_storage
from relay.native.status cimport STATUS_NO_MEMORY, STATUS_OK
from relay.native.tls_bio cimport tls_kernel_push, tls_kernel_writes
from relay.native.tls_context cimport tls_context_release

cdef enum:
    READ_HEADER = 72           # 'H' of "RH": OpenSSL waits for a record to begin
    TLS_HANDSHAKE = 0x16       # first byte of a record that begins a handshake (RFC 8446, 5.1)

cdef enum:  # TlsStep: how far a handshake has come
    TLS_STEP_AGAIN             # it waits for the peer
    TLS_STEP_DONE
    TLS_STEP_FAILED            # `tls_reason` says why


# Life -------------------------------------------------------------------------------------------

cdef inline bint _bios(TlsLink *link, const TlsContext *context) noexcept nogil:
    """Give OpenSSL its ends; False without memory."""
    cdef BIO *reads = BIO_new(context.reads)
    cdef BIO *writes = BIO_new(context.writes)
    if reads == NULL or writes == NULL:
        BIO_free(reads)
        BIO_free(writes)
        return False
    BIO_set_data(reads, link)
    BIO_set_init(reads, 1)
    BIO_set_data(writes, link)
    BIO_set_init(writes, 1)
    SSL_set_bio(link.ssl, reads, writes)
    if context.kernel:
        # Without memory for it we encrypt ourselves.
        link.kernel = BIO_new_socket(link.connection.fd, BIO_NOCLOSE)
    return True


cdef inline int tls_begin(Connection *connection) noexcept nogil:
    """Make what a handshake needs, by the connection's context."""
    cdef Reactor *reactor = connection.reactor
    cdef TlsLink *link = <TlsLink *> memory_take_zeroed(&reactor.memory, sizeof(TlsLink))
    if link == NULL:
        return STATUS_NO_MEMORY
    link.connection = connection
    link.ssl = SSL_new(connection.tls_context.ctx)
    if link.ssl == NULL or not _bios(link, connection.tls_context):
        SSL_free(link.ssl)
        memory_release(&reactor.memory, link)
        ERR_clear_error()
        return STATUS_NO_MEMORY
    SSL_set_app_data(link.ssl, link)
    if connection.tls_context.server:
        SSL_set_accept_state(link.ssl)
    else:
        SSL_set_connect_state(link.ssl)
    connection.tls = link
    reactor.tls.waiting += 1
    return STATUS_OK


cdef inline void tls_end(Connection *connection) noexcept nogil:
    """Free it. NULL is fine; whether the peer has heard of the end is another matter."""
    cdef Reactor *reactor = connection.reactor
    cdef TlsLink *link = connection.tls
    if link != NULL:
        if not link.open:
            reactor.tls.waiting -= 1
        elif tls_kernel_writes(link):
            reactor.tls.kernel -= 1
        SSL_free(link.ssl)
        BIO_free(link.kernel)
        memory_release(&reactor.memory, link)
        connection.tls = NULL
    tls_context_release(connection.tls_context)
    connection.tls_context = NULL


cdef inline void tls_forget(Node *node) noexcept nogil:
    """The node's session is not resumed."""
    SSL_SESSION_free(node.session)
    node.session = NULL


cdef inline void tls_name(Connection *connection, Node *node) noexcept nogil:
    """Tell the server which name is meant, and which session of before could go on; a session is tried once."""
    if node.name[0]:
        SSL_set_tlsext_host_name(connection.tls.ssl, node.name)
    if (node.session != NULL and certificate_in_time(SSL_SESSION_get0_peer(node.session)) == X509_V_OK
            and memcmp(&node.session_peer, &connection.peer, sizeof(sockaddr_storage)) == 0):
        SSL_set_session(connection.tls.ssl, node.session)
    tls_forget(node)


cdef inline void tls_keep(Connection *connection, Node *node) noexcept nogil:
    """Keep the session of a node's connection that is about to be freed, for the next one to the same address."""
    cdef TlsLink *link = connection.tls
    cdef SSL_SESSION *session
    if link == NULL or not link.open or link.broken or connection.session == NULL:
        return
    if connection.tls_context != connection.reactor.client_tls:
        # It was verified by former rules.
        return
    # OpenSSL forgets the session of a connection that ends without a word.
    SSL_set_shutdown(link.ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN)
    session = SSL_get1_session(link.ssl)
    if session == NULL:
        return
    if not SSL_SESSION_is_resumable(session):
        SSL_SESSION_free(session)
        return
    tls_forget(node)
    node.session = session
    memcpy(&node.session_peer, &connection.peer, sizeof(sockaddr_storage))


# Handshake --------------------------------------------------------------------------------------

cdef inline bint tls_is_h2(const TlsLink *link) noexcept nogil:
    """Whether both sides have agreed on HTTP/2 (RFC 7301)."""
    cdef const unsigned char *chosen = NULL
    cdef unsigned int size = 0
    SSL_get0_alpn_selected(link.ssl, &chosen, &size)
    return size == 2 and chosen[0] == 104 and chosen[1] == 50


cdef inline bint tls_peer_in_time(const TlsLink *link) noexcept nogil:
    """Whether the peer's certificate holds still: a session that goes on was not verified anew."""
    cdef X509 *peer = SSL_get0_peer_certificate(link.ssl)
    return peer == NULL or certificate_in_time(peer) == X509_V_OK


cdef inline int tls_step(Connection *connection, const uint8_t *data, size_t size) noexcept nogil:
    """Go on with a handshake, with what was received: a TlsStep. It may leave bytes of what follows to be decrypted."""
    cdef TlsLink *link = connection.tls
    cdef int result
    link.received = data
    link.received_size = size
    connection.reactor.sealed_used = 0
    ERR_clear_error()
    result = SSL_do_handshake(link.ssl)
    if result == 1:
        link.open = True
        connection.reactor.tls.waiting -= 1
        if tls_kernel_writes(link):
            connection.reactor.tls.kernel += 1
        else:
            # It does not know the cipher, and is not asked again.
            BIO_free(link.kernel)
            link.kernel = NULL
        return TLS_STEP_DONE
    if SSL_get_error(link.ssl, result) == SSL_ERROR_WANT_READ:
        return TLS_STEP_AGAIN
    _failed(link)
    return TLS_STEP_FAILED


cdef inline void tls_reason(const TlsLink *link, char *text, size_t size) noexcept nogil:
    """Why a handshake has failed, or what came could not be taken, for people."""
    cdef long verdict = SSL_get_verify_result(link.ssl)
    cdef const char *reason = ERR_reason_error_string(link.error)
    if verdict != X509_V_OK:
        snprintf(text, size, "TLS: the peer's certificate: %s", X509_verify_cert_error_string(verdict))
    elif link.stale:
        snprintf(text, size, "TLS: the peer asks for new keys, and the kernel, which encrypts, cannot change them")
    elif reason == NULL:
        snprintf(text, size, "TLS: broken off")
    elif ERR_GET_REASON(link.error) > SSL_AD_REASON_OFFSET:
        # An alert of the peer's (RFC 8446, 6), which OpenSSL names among its own errors.
        snprintf(text, size, "TLS: the peer refuses: %s", reason)
    else:
        snprintf(text, size, "TLS: %s", reason)


cdef inline void _failed(TlsLink *link) noexcept nogil:
    """Remember why, and empty OpenSSL's queue of errors."""
    link.error = ERR_peek_last_error()
    ERR_clear_error()


# Bytes ------------------------------------------------------------------------------------------

cdef inline void _give_back(TlsLink *link) noexcept nogil:
    """Free OpenSSL's buffers, once a turn: a quiet connection holds 34 KiB less, and a busy one gets them again.

    Not in the middle of a record: the library refuses that itself only since CVE-2024-4741.
    """
    if SSL_rstate_string(link.ssl)[1] == READ_HEADER:
        SSL_free_buffers(link.ssl)


cdef inline size_t tls_decrypt(Connection *connection, uint8_t *buffer, size_t most) noexcept nogil:
    """Decrypt what was received, until there are `most` bytes or it is used up: bytes, 0 when no record is complete.

    `buffer` has room for `most` and a record of TLS besides. The link's `received_size` tells whether to go on.
    """
    cdef TlsLink *link = connection.tls
    cdef size_t total = 0
    cdef int got
    cdef int error
    ERR_clear_error()
    while total < most and not (link.over or link.broken):
        got = SSL_read(link.ssl, buffer + total, TLS_PLAIN)
        if got > 0:
            total += <size_t> got
            continue
        error = SSL_get_error(link.ssl, got)
        if error == SSL_ERROR_WANT_READ:
            break
        link.over = error == SSL_ERROR_ZERO_RETURN
        link.broken = not link.over
        link.received_size = 0
        _failed(link)
    if link.received_size == 0:
        _give_back(link)
    return total


cdef inline bint _seal(Reactor *reactor, Connection *connection, const uint8_t *data, size_t size) noexcept nogil:
    """Encrypt bytes as one record of TLS."""
    cdef size_t before = reactor.sealed_used
    cdef Seal *seal
    if reactor.seal_count == TLS_SEALS or SSL_write(connection.tls.ssl, data, <int> size) != <int> size:
        connection.tls.broken = True
        _failed(connection.tls)
        return False
    seal = &reactor.seals[reactor.seal_count]
    reactor.seal_count += 1
    seal.plain = <uint32_t> size
    seal.cipher = <uint32_t> (reactor.sealed_used - before)
    return True


cdef inline bint _seal_pieces(
    Reactor *reactor, Connection *connection, uint32_t *piece, size_t *offset, size_t size
) noexcept nogil:
    """Encrypt the next `size` bytes of the pieces as one record of TLS, put together where they lie apart."""
    cdef iovec *at = &reactor.pieces[piece[0]]
    cdef size_t staged = 0
    cdef size_t count
    cdef const uint8_t *data = <const uint8_t *> at.iov_base + offset[0]
    if at.iov_len - offset[0] >= size:
        offset[0] += size
    else:
        data = reactor.stage
        while staged < size:
            at = &reactor.pieces[piece[0]]
            count = at.iov_len - offset[0]
            if count > size - staged:
                count = size - staged
            memcpy(reactor.stage + staged, <const uint8_t *> at.iov_base + offset[0], count)
            staged += count
            offset[0] += count
            if offset[0] == at.iov_len:
                piece[0] += 1
                offset[0] = 0
    while piece[0] < reactor.piece_count and offset[0] == reactor.pieces[piece[0]].iov_len:
        piece[0] += 1
        offset[0] = 0
    return _seal(reactor, connection, data, size)


cdef inline bint tls_seals(const Connection *connection) noexcept nogil:
    """Whether what it writes is encrypted here."""
    return connection.tls != NULL and not tls_kernel_writes(connection.tls)


cdef inline bint tls_seal(Reactor *reactor, Connection *connection) noexcept nogil:
    """Encrypt what was gathered into `sealed` and `seals`. False when the connection is broken.

    A record of TLS carries whole records of output, as many as it holds, so that a piece that belongs to a stream has
    left when one record of TLS has. (One that alone is larger is control bytes, which nobody counts.)
    """
    cdef uint32_t piece = 0
    cdef size_t offset = 0
    cdef uint32_t i = 0
    cdef size_t size
    cdef size_t count
    reactor.sealed_used = 0
    reactor.seal_count = 0
    ERR_clear_error()
    while i < reactor.record_count:
        size = 0
        while i < reactor.record_count and (size == 0 or size + reactor.records[i].size <= TLS_PLAIN):
            size += reactor.records[i].size
            i += 1
        relay_assert(size <= TLS_PLAIN or reactor.records[i - 1].stream == NULL, "a stream's piece is not cut")
        while size:
            count = size if size < TLS_PLAIN else <size_t> TLS_PLAIN
            if not _seal_pieces(reactor, connection, &piece, &offset, count):
                return False
            size -= count
    _give_back(connection.tls)
    return True


cdef inline bint tls_seal_last(Connection *connection, const uint8_t *data, size_t size) noexcept nogil:
    """Encrypt last words, if any, and the end (close_notify; RFC 8446, 6.1) into `sealed`.

    The kernel, where it encrypts, takes them at once.
    """
    cdef Reactor *reactor = connection.reactor
    reactor.sealed_used = 0
    reactor.seal_count = 0
    if connection.tls.broken or not SSL_is_init_finished(connection.tls.ssl):
        return False
    ERR_clear_error()
    if tls_kernel_writes(connection.tls):
        tls_kernel_push(connection.tls)
    if size and not _seal(reactor, connection, data, size):
        return False
    SSL_shutdown(connection.tls.ssl)
    ERR_clear_error()
    return True
