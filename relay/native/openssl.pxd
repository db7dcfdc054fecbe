"""The part of OpenSSL's interface that the engine uses (libssl and libcrypto, 3.0 and later)."""

from libc.stdint cimport uint32_t, uint64_t


cdef extern from "<time.h>" nogil:
    struct tm:
        pass
    long timegm(tm *when)


cdef extern from "<openssl/err.h>" nogil:
    unsigned long ERR_peek_last_error()
    void ERR_clear_error()
    const char *ERR_reason_error_string(unsigned long error)
    int ERR_GET_REASON(unsigned long error)


cdef extern from "<openssl/bio.h>" nogil:
    ctypedef struct BIO:
        pass
    ctypedef struct BIO_METHOD:
        pass
    enum:
        BIO_CTRL_FLUSH
        BIO_NOCLOSE
        BIO_TYPE_SOURCE_SINK
    BIO_METHOD *BIO_meth_new(int kind, const char *name)
    void BIO_meth_free(BIO_METHOD *method)
    int BIO_meth_set_write(BIO_METHOD *method, int (*write)(BIO *bio, const char *data, int size) noexcept nogil)
    int BIO_meth_set_read(BIO_METHOD *method, int (*read)(BIO *bio, char *data, int size) noexcept nogil)
    int BIO_meth_set_ctrl(
        BIO_METHOD *method, long (*ctrl)(BIO *bio, int what, long number, void *pointer) noexcept nogil)
    BIO *BIO_new(const BIO_METHOD *method)
    BIO *BIO_new_mem_buf(const void *data, int size)
    BIO *BIO_new_socket(int fd, int close)
    int BIO_free(BIO *bio)
    int BIO_write(BIO *bio, const void *data, int size)
    long BIO_ctrl(BIO *bio, int what, long number, void *pointer)
    bint BIO_get_ktls_send(BIO *bio)
    void BIO_set_data(BIO *bio, void *data)
    void *BIO_get_data(BIO *bio)
    void BIO_set_init(BIO *bio, int init)
    void BIO_set_retry_read(BIO *bio)
    void BIO_set_retry_write(BIO *bio)
    bint BIO_should_retry(const BIO *bio)
    void BIO_clear_retry_flags(BIO *bio)


cdef extern from "<openssl/x509v3.h>" nogil:
    ctypedef struct X509:
        pass
    ctypedef struct X509_NAME:
        pass
    ctypedef struct X509_STORE:
        pass
    ctypedef struct X509_STORE_CTX:
        pass
    ctypedef struct EVP_PKEY:
        pass
    ctypedef struct ASN1_TIME:
        pass
    ctypedef int (*pem_password_cb)(char *buffer, int size, int writing, void *user) noexcept nogil
    enum:
        X509_V_OK
        X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT
        X509_V_ERR_CERT_SIGNATURE_FAILURE
        X509_V_ERR_CERT_NOT_YET_VALID
        X509_V_ERR_CERT_HAS_EXPIRED
        X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT
        X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN
        X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
        X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE
        X509_V_ERR_INVALID_PURPOSE
        X509_V_ERR_UNHANDLED_CRITICAL_EXTENSION
        X509_V_ERR_INVALID_EXTENSION
        X509_V_ERR_APPLICATION_VERIFICATION
        X509_V_ERR_HOSTNAME_MISMATCH
        X509_V_ERR_IP_ADDRESS_MISMATCH
        X509_V_ERR_EE_KEY_TOO_SMALL
        X509_V_ERR_CA_MD_TOO_WEAK
        X509_V_FLAG_PARTIAL_CHAIN
        X509_CHECK_FLAG_NEVER_CHECK_SUBJECT
        X509_CHECK_FLAG_ALWAYS_CHECK_SUBJECT
        X509_CHECK_FLAG_NO_WILDCARDS
        EXFLAG_CRITICAL
        EXFLAG_INVALID
        EXFLAG_CA
        EXFLAG_BCONS
        EXFLAG_V1
        KU_KEY_CERT_SIGN
        XKU_SSL_SERVER
        XKU_SSL_CLIENT
        XKU_ANYEKU
        NID_name_constraints
    void X509_free(X509 *certificate)
    int X509_NAME_cmp(const X509_NAME *one, const X509_NAME *other)
    X509_NAME *X509_get_issuer_name(const X509 *certificate)
    X509_NAME *X509_get_subject_name(const X509 *certificate)
    int X509_verify(X509 *certificate, EVP_PKEY *key)
    EVP_PKEY *X509_get0_pubkey(const X509 *certificate)
    const ASN1_TIME *X509_get0_notBefore(const X509 *certificate)
    const ASN1_TIME *X509_get0_notAfter(const X509 *certificate)
    int X509_cmp_current_time(const ASN1_TIME *when)
    int ASN1_TIME_to_tm(const ASN1_TIME *when, tm *broken)
    int X509_get_signature_info(X509 *certificate, int *digest, int *key, int *bits, uint32_t *flags)
    uint32_t X509_get_extension_flags(X509 *certificate)
    uint32_t X509_get_key_usage(X509 *certificate)
    uint32_t X509_get_extended_key_usage(X509 *certificate)
    int X509_get_ext_by_NID(const X509 *certificate, int nid, int last)
    int X509_check_host(X509 *certificate, const char *name, size_t size, unsigned int flags, char **matched)
    int X509_check_ip(X509 *certificate, const unsigned char *address, size_t size, unsigned int flags)
    int EVP_PKEY_get_security_bits(const EVP_PKEY *key)
    void EVP_PKEY_free(EVP_PKEY *key)
    X509_STORE *X509_STORE_new()
    void X509_STORE_free(X509_STORE *store)
    int X509_STORE_add_cert(X509_STORE *store, X509 *certificate)
    int X509_STORE_set_flags(X509_STORE *store, unsigned long flags)
    int X509_verify_cert(X509_STORE_CTX *context)
    X509 *X509_STORE_CTX_get0_cert(const X509_STORE_CTX *context)
    int X509_STORE_CTX_get_error(const X509_STORE_CTX *context)
    void X509_STORE_CTX_set_error(X509_STORE_CTX *context, int error)
    void *X509_STORE_CTX_get_ex_data(const X509_STORE_CTX *context, int index)
    const char *X509_verify_cert_error_string(long error)


cdef extern from "<openssl/pem.h>" nogil:
    enum:
        PEM_R_NO_START_LINE
    X509 *PEM_read_bio_X509(BIO *bio, X509 **certificate, pem_password_cb password, void *user)
    EVP_PKEY *PEM_read_bio_PrivateKey(BIO *bio, EVP_PKEY **key, pem_password_cb password, void *user)


cdef extern from "<openssl/ssl.h>" nogil:
    ctypedef struct SSL:
        pass
    ctypedef struct SSL_CTX:
        pass
    ctypedef struct SSL_METHOD:
        pass
    ctypedef struct SSL_SESSION:
        pass
    ctypedef int (*SSL_client_hello_cb_fn)(SSL *ssl, int *alert, void *user) noexcept nogil
    ctypedef int (*SSL_CTX_alpn_select_cb_func)(
        SSL *ssl, const unsigned char **chosen, unsigned char *size, const unsigned char *offered, unsigned int count,
        void *user) noexcept nogil
    enum:
        SSL_ERROR_WANT_READ
        SSL_ERROR_ZERO_RETURN
        SSL_VERIFY_NONE
        SSL_VERIFY_PEER
        SSL_VERIFY_FAIL_IF_NO_PEER_CERT
        SSL_SESS_CACHE_OFF
        SSL_SESS_CACHE_CLIENT
        SSL_SESS_CACHE_NO_INTERNAL
        SSL_SENT_SHUTDOWN
        SSL_RECEIVED_SHUTDOWN
        SSL3_MT_KEY_UPDATE
        SSL3_RT_HANDSHAKE
        SSL_TLSEXT_ERR_OK
        SSL_TLSEXT_ERR_ALERT_FATAL
        SSL_CLIENT_HELLO_SUCCESS
        SSL_CLIENT_HELLO_ERROR
        SSL_AD_NO_APPLICATION_PROTOCOL
        SSL_AD_REASON_OFFSET
        TLSEXT_TYPE_application_layer_protocol_negotiation
        TLS1_2_VERSION
    uint64_t SSL_OP_ENABLE_KTLS
    uint64_t SSL_OP_NO_RENEGOTIATION
    uint64_t SSL_OP_NO_COMPRESSION
    const SSL_METHOD *TLS_server_method()
    const SSL_METHOD *TLS_client_method()
    SSL_CTX *SSL_CTX_new(const SSL_METHOD *method)
    void SSL_CTX_free(SSL_CTX *context)
    long SSL_CTX_set_max_cert_list(SSL_CTX *context, long bytes)
    int SSL_CTX_set_min_proto_version(SSL_CTX *context, int version)
    uint64_t SSL_CTX_set_options(SSL_CTX *context, uint64_t options)
    void SSL_CTX_set_security_level(SSL_CTX *context, int level)
    long SSL_CTX_set_session_cache_mode(SSL_CTX *context, long mode)
    int SSL_CTX_set_num_tickets(SSL_CTX *context, size_t count)
    int SSL_CTX_set_session_id_context(SSL_CTX *context, const unsigned char *identity, unsigned int size)
    int SSL_CTX_use_certificate(SSL_CTX *context, X509 *certificate)
    int SSL_CTX_add1_chain_cert(SSL_CTX *context, X509 *certificate)
    int SSL_CTX_use_PrivateKey(SSL_CTX *context, EVP_PKEY *key)
    int SSL_CTX_check_private_key(const SSL_CTX *context)
    void SSL_CTX_set_cert_store(SSL_CTX *context, X509_STORE *store)
    int SSL_CTX_add_client_CA(SSL_CTX *context, X509 *certificate)
    void SSL_CTX_set_verify(SSL_CTX *context, int mode, void *callback)
    void SSL_CTX_set_cert_verify_callback(
        SSL_CTX *context, int (*verify)(X509_STORE_CTX *store, void *user) noexcept nogil, void *user)
    void SSL_CTX_set_client_hello_cb(SSL_CTX *context, SSL_client_hello_cb_fn callback, void *user)
    void SSL_CTX_set_alpn_select_cb(SSL_CTX *context, SSL_CTX_alpn_select_cb_func callback, void *user)
    void SSL_CTX_set_msg_callback(
        SSL_CTX *context, void (*callback)(
            int written, int version, int kind, const void *body, size_t size, SSL *ssl, void *user) noexcept nogil)
    int SSL_CTX_set_alpn_protos(SSL_CTX *context, const unsigned char *protocols, unsigned int size)
    SSL *SSL_new(SSL_CTX *context)
    void SSL_free(SSL *ssl)
    void SSL_set_bio(SSL *ssl, BIO *reads, BIO *writes)
    long SSL_set_app_data(SSL *ssl, void *data)
    void *SSL_get_app_data(const SSL *ssl)
    int SSL_get_ex_data_X509_STORE_CTX_idx()
    void SSL_set_accept_state(SSL *ssl)
    void SSL_set_connect_state(SSL *ssl)
    long SSL_set_tlsext_host_name(SSL *ssl, const char *name)
    int SSL_do_handshake(SSL *ssl)
    int SSL_read(SSL *ssl, void *data, int size)
    int SSL_write(SSL *ssl, const void *data, int size)
    int SSL_free_buffers(SSL *ssl)
    const char *SSL_rstate_string(const SSL *ssl)
    int SSL_shutdown(SSL *ssl)
    void SSL_set_shutdown(SSL *ssl, int mode)
    int SSL_get_error(const SSL *ssl, int result)
    long SSL_get_verify_result(const SSL *ssl)
    bint SSL_session_reused(const SSL *ssl)
    X509 *SSL_get0_peer_certificate(const SSL *ssl)
    void SSL_get0_alpn_selected(const SSL *ssl, const unsigned char **chosen, unsigned int *size)
    int SSL_client_hello_get0_ext(SSL *ssl, unsigned int kind, const unsigned char **data, size_t *size)
    SSL_SESSION *SSL_get1_session(SSL *ssl)
    int SSL_is_init_finished(const SSL *ssl)
    int SSL_set_session(SSL *ssl, SSL_SESSION *session)
    X509 *SSL_SESSION_get0_peer(SSL_SESSION *session)
    bint SSL_SESSION_is_resumable(const SSL_SESSION *session)
    void SSL_SESSION_free(SSL_SESSION *session)
