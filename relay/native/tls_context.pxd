"""What one side of TLS is made of: certificate, key, root, rules. Made on Python's thread, used on the reactor's.

A context never changes; another set of files makes another context. It lives as long as its last user: the Python
object, the reactor, each connection that began with it.
"""

from libc.stdint cimport int64_t, uint32_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

from relay.native.certificate cimport (
    CERTIFICATE_SECURITY_LEVEL, certificate_carries, certificate_end, certificate_in_time, certificate_is_authority,
    certificate_named, certificate_verdict,
)
from relay.native.connection cimport CONTROL_COST, connection_spend
from relay.native.model cimport TlsContext, TlsLink
from relay.native.openssl cimport (
    BIO, BIO_free, BIO_meth_free, BIO_new_mem_buf, ERR_GET_REASON, ERR_clear_error, ERR_peek_last_error, EVP_PKEY,
    EVP_PKEY_free, PEM_R_NO_START_LINE, PEM_read_bio_PrivateKey, PEM_read_bio_X509, SSL, SSL3_MT_KEY_UPDATE,
    SSL3_RT_HANDSHAKE, SSL_AD_NO_APPLICATION_PROTOCOL, SSL_CLIENT_HELLO_ERROR, SSL_CLIENT_HELLO_SUCCESS,
    SSL_CTX_add1_chain_cert, SSL_CTX_add_client_CA, SSL_CTX_check_private_key, SSL_CTX_free, SSL_CTX_new,
    SSL_CTX_set_alpn_protos, SSL_CTX_set_alpn_select_cb, SSL_CTX_set_cert_store, SSL_CTX_set_cert_verify_callback,
    SSL_CTX_set_client_hello_cb, SSL_CTX_set_max_cert_list, SSL_CTX_set_min_proto_version, SSL_CTX_set_msg_callback,
    SSL_CTX_set_num_tickets, SSL_CTX_set_options, SSL_CTX_set_security_level, SSL_CTX_set_session_cache_mode,
    SSL_CTX_set_session_id_context, SSL_CTX_set_verify, SSL_CTX_use_PrivateKey, SSL_CTX_use_certificate,
    SSL_OP_ENABLE_KTLS, SSL_OP_NO_COMPRESSION, SSL_OP_NO_RENEGOTIATION, SSL_SESS_CACHE_CLIENT,
    SSL_SESS_CACHE_NO_INTERNAL, SSL_SESS_CACHE_OFF, SSL_TLSEXT_ERR_ALERT_FATAL, SSL_TLSEXT_ERR_OK,
    SSL_VERIFY_FAIL_IF_NO_PEER_CERT, SSL_VERIFY_NONE, SSL_VERIFY_PEER, SSL_client_hello_get0_ext, SSL_get_app_data,
    SSL_get_ex_data_X509_STORE_CTX_idx, TLS1_2_VERSION, TLSEXT_TYPE_application_layer_protocol_negotiation,
    TLS_client_method, TLS_server_method, X509, X509_STORE, X509_STORE_CTX, X509_STORE_CTX_get0_cert,
    X509_STORE_CTX_get_ex_data, X509_STORE_CTX_set_error, X509_STORE_add_cert, X509_STORE_free, X509_STORE_new,
    X509_STORE_set_flags, X509_V_ERR_APPLICATION_VERIFICATION, X509_V_ERR_CERT_NOT_YET_VALID,
    X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, X509_V_FLAG_PARTIAL_CHAIN, X509_V_OK, X509_free,
)
from relay.native.tls_bio cimport tls_bio_methods, tls_kernel_writes

cdef extern from *:
    """
    #define relay_users_add(users, count) __atomic_add_fetch((users), (count), __ATOMIC_ACQ_REL)
    static const unsigned char relay_alpn[3] = {2, 'h', '2'};
    """
    uint32_t relay_users_add(uint32_t *users, uint32_t count) noexcept nogil
    const unsigned char relay_alpn[3]

cdef enum:
    PEER_CHAIN_BYTES = 32768   # of a peer's certificates, which its connection holds; a chain of four has 6,000
    SESSION_TICKETS = 1        # a handshake: a client that comes back needs one, and each carries its certificate
    KEY_UPDATE = 5             # bytes of the message (RFC 8446, 4.6.3), the last of which says:
    KEY_UPDATE_REQUESTED = 1   # we are to change our keys, too

cdef enum:  # TlsFault: what is wrong with what a context was to be made of
    TLS_FAULT_NONE
    TLS_FAULT_MEMORY
    TLS_FAULT_CERTIFICATE_PEM
    TLS_FAULT_CHAIN_PEM
    TLS_FAULT_CERTIFICATE_EARLY
    TLS_FAULT_CERTIFICATE_LATE
    TLS_FAULT_CERTIFICATE_REFUSED      # by OpenSSL: too weak a key or digest
    TLS_FAULT_KEY_PEM
    TLS_FAULT_KEY_OTHER                # not the certificate's
    TLS_FAULT_ROOT_PEM
    TLS_FAULT_ROOT_EARLY
    TLS_FAULT_ROOT_LATE
    TLS_FAULT_ROOT_NO_AUTHORITY


# What OpenSSL calls -----------------------------------------------------------------------------

cdef inline int tls_no_password(char *buffer, int size, int writing, void *user) noexcept nogil:
    """A key that is encrypted is of no use here; without this OpenSSL would ask at the terminal."""
    return -1


cdef inline int tls_on_verify(X509_STORE_CTX *store, void *user) noexcept nogil:
    """Is the peer's certificate trusted, and does it carry one of the names that it must? 1 or 0."""
    cdef TlsContext *context = <TlsContext *> user
    cdef X509 *peer = X509_STORE_CTX_get0_cert(store)
    cdef int error = X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
    cdef TlsLink *link
    if context.root != NULL:
        error = certificate_verdict(store, context.root, not context.server)
    if error == X509_V_OK and context.allow != NULL and not certificate_carries(peer, context.allow):
        error = X509_V_ERR_APPLICATION_VERIFICATION
    if error == X509_V_OK and not context.server:
        link = <TlsLink *> SSL_get_app_data(
            <SSL *> X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()))
        error = certificate_named(peer, link.connection.node.name, &link.connection.peer)
    X509_STORE_CTX_set_error(store, error)
    return error == X509_V_OK


cdef inline int tls_on_hello(SSL *ssl, int *alert, void *user) noexcept nogil:
    """A client that names no protocol is refused as one that names others only (gRPC demands ALPN)."""
    cdef const unsigned char *protocols
    cdef size_t size
    if SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &protocols, &size) == 1:
        return SSL_CLIENT_HELLO_SUCCESS
    alert[0] = SSL_AD_NO_APPLICATION_PROTOCOL
    return SSL_CLIENT_HELLO_ERROR


cdef inline int tls_on_alpn(
    SSL *ssl, const unsigned char **chosen, unsigned char *size, const unsigned char *offered, unsigned int count,
    void *user
) noexcept nogil:
    """h2 if the client offers it (RFC 7301, 3.1: a list of names, each behind its length), else a fatal alert."""
    cdef unsigned int at = 0
    while at < count:
        if offered[at] == 2 and count - at >= 3 and memcmp(offered + at, relay_alpn, 3) == 0:
            chosen[0] = relay_alpn + 1
            size[0] = 2
            return SSL_TLSEXT_ERR_OK
        at += 1 + <unsigned int> offered[at]
    return SSL_TLSEXT_ERR_ALERT_FATAL


cdef inline void tls_on_message(
    int written, int version, int kind, const void *body, size_t size, SSL *ssl, void *user
) noexcept nogil:
    """A message about keys on a connection that is open costs us more than its sender, and may be answered.

    Where the kernel encrypts it cannot be, if it asks for keys of ours: that is the end of the connection.
    """
    cdef const uint8_t *message = <const uint8_t *> body
    cdef TlsLink *link = <TlsLink *> SSL_get_app_data(ssl)
    if written or kind != SSL3_RT_HANDSHAKE or link == NULL or not link.open:
        return
    if (size == KEY_UPDATE and message[0] == SSL3_MT_KEY_UPDATE and message[KEY_UPDATE - 1] == KEY_UPDATE_REQUESTED
            and tls_kernel_writes(link)):
        # OpenSSL would answer before its next words, and the kernel go on with the former keys: nobody could read that.
        link.stale = True
        link.broken = True
        link.received_size = 0
    connection_spend(link.connection, CONTROL_COST)
    if link.connection.cut:
        # The rest of what was received is not looked at.
        link.received_size = 0


# Life -------------------------------------------------------------------------------------------

cdef inline TlsContext *tls_context_take(TlsContext *context) noexcept nogil:
    """One more user. NULL stays NULL."""
    if context != NULL:
        relay_users_add(&context.users, 1)
    return context


cdef inline void tls_context_release(TlsContext *context) noexcept nogil:
    """One user less, on any thread; the last one frees it. NULL is fine."""
    if context == NULL or relay_users_add(&context.users, <uint32_t> -1) != 0:
        return
    SSL_CTX_free(context.ctx)
    X509_free(context.root)
    BIO_meth_free(context.reads)
    BIO_meth_free(context.writes)
    free(context.allow)
    free(context)


cdef inline void _end_at(TlsContext *context, X509 *certificate) noexcept nogil:
    cdef int64_t end = certificate_end(certificate)
    if context.expires == 0 or end < context.expires:
        context.expires = end


cdef inline int _certificate(TlsContext *context, const uint8_t *pem, int size) noexcept nogil:
    """Take the leaf, and what comes behind it as its chain."""
    cdef BIO *bio = BIO_new_mem_buf(pem, size)
    cdef X509 *certificate
    cdef int fault = TLS_FAULT_CERTIFICATE_PEM
    cdef int status
    if bio == NULL:
        return TLS_FAULT_MEMORY
    certificate = PEM_read_bio_X509(bio, NULL, tls_no_password, NULL)
    while certificate != NULL:
        status = certificate_in_time(certificate)
        if status != X509_V_OK:
            fault = (TLS_FAULT_CERTIFICATE_EARLY if status == X509_V_ERR_CERT_NOT_YET_VALID
                     else TLS_FAULT_CERTIFICATE_LATE)
        elif fault == TLS_FAULT_CERTIFICATE_PEM:
            fault = TLS_FAULT_NONE if SSL_CTX_use_certificate(context.ctx, certificate) == 1 \
                else TLS_FAULT_CERTIFICATE_REFUSED
        elif SSL_CTX_add1_chain_cert(context.ctx, certificate) != 1:
            fault = TLS_FAULT_CERTIFICATE_REFUSED
        _end_at(context, certificate)
        X509_free(certificate)
        if fault != TLS_FAULT_NONE:
            break
        certificate = PEM_read_bio_X509(bio, NULL, tls_no_password, NULL)
    BIO_free(bio)
    if fault == TLS_FAULT_NONE and ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE:
        # Not the end of the text, but one that cannot be read.
        return TLS_FAULT_CHAIN_PEM
    return fault


cdef inline int _key(TlsContext *context, const uint8_t *pem, int size) noexcept nogil:
    cdef BIO *bio = BIO_new_mem_buf(pem, size)
    cdef EVP_PKEY *key
    cdef int fault = TLS_FAULT_NONE
    if bio == NULL:
        return TLS_FAULT_MEMORY
    key = PEM_read_bio_PrivateKey(bio, NULL, tls_no_password, NULL)
    BIO_free(bio)
    if key == NULL:
        return TLS_FAULT_KEY_PEM
    if SSL_CTX_use_PrivateKey(context.ctx, key) != 1 or SSL_CTX_check_private_key(context.ctx) != 1:
        fault = TLS_FAULT_KEY_OTHER
    EVP_PKEY_free(key)
    return fault


cdef inline int _root(TlsContext *context, const uint8_t *pem, int size) noexcept nogil:
    """Take the first certificate as the one that is trusted, and count the others."""
    cdef BIO *bio = BIO_new_mem_buf(pem, size)
    cdef X509_STORE *store
    cdef X509 *other
    cdef int status
    if bio == NULL:
        return TLS_FAULT_MEMORY
    context.root = PEM_read_bio_X509(bio, NULL, tls_no_password, NULL)
    if context.root == NULL:
        BIO_free(bio)
        return TLS_FAULT_ROOT_PEM
    context.roots = 1
    while True:
        other = PEM_read_bio_X509(bio, NULL, tls_no_password, NULL)
        if other == NULL:
            break
        context.roots += 1
        X509_free(other)
    BIO_free(bio)
    status = certificate_in_time(context.root)
    if status != X509_V_OK:
        return TLS_FAULT_ROOT_EARLY if status == X509_V_ERR_CERT_NOT_YET_VALID else TLS_FAULT_ROOT_LATE
    if not certificate_is_authority(context.root):
        return TLS_FAULT_ROOT_NO_AUTHORITY
    _end_at(context, context.root)
    store = X509_STORE_new()
    # Partial chains: the root is trusted by its key, whoever signed it.
    if (store == NULL or X509_STORE_add_cert(store, context.root) != 1
            or X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN) != 1
            or (context.server and SSL_CTX_add_client_CA(context.ctx, context.root) != 1)):
        X509_STORE_free(store)
        return TLS_FAULT_MEMORY
    SSL_CTX_set_cert_store(context.ctx, store)
    return TLS_FAULT_NONE


cdef inline int tls_context_load(
    TlsContext *context, const uint8_t *certificate, int certificate_size, const uint8_t *key, int key_size,
    const uint8_t *root, int root_size
) noexcept nogil:
    """Fill a new context from PEM texts; each may be empty where the rules do without. Returns a TlsFault."""
    cdef int fault = TLS_FAULT_NONE
    ERR_clear_error()
    if certificate_size:
        fault = _certificate(context, certificate, certificate_size)
        if fault == TLS_FAULT_NONE:
            fault = _key(context, key, key_size)
    if fault == TLS_FAULT_NONE and root_size:
        fault = _root(context, root, root_size)
    return fault


cdef inline TlsContext *tls_context_new(bint server, bint ask, bint require, bint kernel) noexcept nogil:
    """A context without certificates; NULL without memory.

    `ask` a client for a certificate, `require` one; the `kernel` may encrypt.
    """
    cdef TlsContext *context = <TlsContext *> calloc(1, sizeof(TlsContext))
    cdef int verify = SSL_VERIFY_NONE
    if context == NULL:
        return NULL
    context.users = 1
    context.server = server
    context.ctx = SSL_CTX_new(TLS_server_method() if server else TLS_client_method())
    if (not tls_bio_methods(context) or context.ctx == NULL
            or SSL_CTX_set_min_proto_version(context.ctx, TLS1_2_VERSION) != 1):
        tls_context_release(context)
        return NULL
    SSL_CTX_set_security_level(context.ctx, CERTIFICATE_SECURITY_LEVEL)
    SSL_CTX_set_options(context.ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION)
    SSL_CTX_set_max_cert_list(context.ctx, PEER_CHAIN_BYTES)
    if kernel:
        SSL_CTX_set_options(context.ctx, SSL_OP_ENABLE_KTLS)
        context.kernel = True
    if ask:
        verify = SSL_VERIFY_PEER
    if require:
        verify = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT
    SSL_CTX_set_verify(context.ctx, verify, NULL)
    SSL_CTX_set_cert_verify_callback(context.ctx, tls_on_verify, context)
    SSL_CTX_set_msg_callback(context.ctx, tls_on_message)
    if server:
        SSL_CTX_set_client_hello_cb(context.ctx, tls_on_hello, NULL)
        SSL_CTX_set_alpn_select_cb(context.ctx, tls_on_alpn, NULL)
        # Sessions are resumed by tickets alone: nothing of them is kept here. Another context has other keys, so that
        # a certificate that was verified by former rules is verified anew.
        SSL_CTX_set_session_cache_mode(context.ctx, SSL_SESS_CACHE_OFF)
        SSL_CTX_set_num_tickets(context.ctx, SESSION_TICKETS)
        SSL_CTX_set_session_id_context(context.ctx, b"relay", 5)
    else:
        SSL_CTX_set_session_cache_mode(context.ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL)
        SSL_CTX_set_alpn_protos(context.ctx, relay_alpn, 3)
    return context
