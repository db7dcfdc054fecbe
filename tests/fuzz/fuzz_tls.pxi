# The relay's TLS against OpenSSL at the other end, whose bytes the input cuts, withholds, and may spoil.
#
# The first byte says who is what, see below; then come pairs: what happens, and how much of it. As long as nothing was
# spoilt, neither side may find fault with the other, and what arrives is what was sent, to the last byte.

from libc.stdint cimport uint16_t
from libc.string cimport memmove

from relay.native.connection cimport connection_secured
from relay.native.model cimport CONNECTION_NODE, NODE_CHECKING, NODE_CONNECTING, NODE_STREAMING, Node, TlsContext
from relay.native.memory cimport memory_take_zeroed
from relay.native.node cimport node_new
from relay.native.posix cimport AF_INET, SHUT_WR, shutdown, sockaddr_in
from relay.native.tls_context cimport TLS_FAULT_NONE, tls_context_load, tls_context_new, tls_context_take

cdef extern from *:
    """
    #include <arpa/inet.h>
    #include <openssl/bio.h>
    #include <openssl/err.h>
    #include <openssl/evp.h>
    #include <openssl/pem.h>
    #include <openssl/ssl.h>
    #include <openssl/x509v3.h>

    /* Certificates: the same keys each time, and signatures of the same size: an input cuts at the same places. */

    static EVP_PKEY *fuzz_key(uint8_t number) {
        uint8_t seed[32];
        memset(seed, number, sizeof(seed));
        return EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, sizeof(seed));
    }

    static X509 *fuzz_certificate(
            const char *name, EVP_PKEY *key, const char *issuer, EVP_PKEY *signer, int authority) {
        X509 *made = X509_new();
        X509_EXTENSION *extension;
        X509_NAME *field;
        X509_set_version(made, 2);
        ASN1_INTEGER_set(X509_get_serialNumber(made), 1);
        X509_gmtime_adj(X509_getm_notBefore(made), -86400);
        X509_gmtime_adj(X509_getm_notAfter(made), 86400);
        field = X509_get_subject_name(made);
        X509_NAME_add_entry_by_txt(field, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
        field = X509_get_issuer_name(made);
        X509_NAME_add_entry_by_txt(field, "CN", MBSTRING_ASC, (const unsigned char *)issuer, -1, -1, 0);
        X509_set_pubkey(made, key);
        extension = X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, authority ? "critical,CA:TRUE" : "CA:FALSE");
        X509_add_ext(made, extension, -1);
        X509_EXTENSION_free(extension);
        if (!authority) {
            extension = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "IP:127.0.0.1");
            X509_add_ext(made, extension, -1);
            X509_EXTENSION_free(extension);
        }
        X509_sign(made, signer, NULL);
        return made;
    }

    typedef struct { uint8_t root[4096], certificate[4096], key[4096]; int sizes[3]; } FuzzFiles;

    static int fuzz_text(BIO *bio, uint8_t *text, int size) {
        int got = BIO_read(bio, text, size);
        BIO_free(bio);
        return got;
    }

    static const FuzzFiles *fuzz_files(void) {
        static FuzzFiles files;
        if (!files.sizes[0]) {
            EVP_PKEY *root_key = fuzz_key(1), *key = fuzz_key(2);
            X509 *root = fuzz_certificate("root", root_key, "root", root_key, 1);
            X509 *leaf = fuzz_certificate("leaf", key, "root", root_key, 0);
            BIO *bio = BIO_new(BIO_s_mem());
            PEM_write_bio_X509(bio, root);
            files.sizes[0] = fuzz_text(bio, files.root, sizeof(files.root));
            bio = BIO_new(BIO_s_mem());
            PEM_write_bio_X509(bio, leaf);
            files.sizes[1] = fuzz_text(bio, files.certificate, sizeof(files.certificate));
            bio = BIO_new(BIO_s_mem());
            PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL);
            files.sizes[2] = fuzz_text(bio, files.key, sizeof(files.key));
            X509_free(root);
            X509_free(leaf);
            EVP_PKEY_free(root_key);
            EVP_PKEY_free(key);
        }
        return &files;
    }

    /* The peer. */

    enum { FUZZ_WAITING = 1 << 17 };

    typedef struct {
        SSL *ssl;
        BIO *heard, *said;         /* owned by ssl */
        int shaken;                /* the handshake is over; a change of keys is another thing */
        int broken;                /* it has found fault with what it heard */
        uint8_t waiting[FUZZ_WAITING];
        size_t size;               /* what it said and nobody has been given */
        uint8_t plain[1 << 15];    /* what it read last */
    } FuzzTls;

    static int fuzz_alpn(SSL *ssl, const unsigned char **chosen, unsigned char *size, const unsigned char *offered,
                         unsigned int count, void *user) {
        (void)ssl; (void)user;
        if (count < 3) return SSL_TLSEXT_ERR_ALERT_FATAL;
        *chosen = offered + 1;
        *size = 2;
        return SSL_TLSEXT_ERR_OK;
    }

    static SSL_CTX *fuzz_peer_context(int server) {
        static SSL_CTX *contexts[2];
        if (contexts[server] == NULL) {
            const FuzzFiles *files = fuzz_files();
            SSL_CTX *context = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
            BIO *bio = BIO_new_mem_buf(files->certificate, files->sizes[1]);
            X509 *leaf = PEM_read_bio_X509(bio, NULL, NULL, NULL);
            EVP_PKEY *key = fuzz_key(2);
            BIO_free(bio);
            SSL_CTX_use_certificate(context, leaf);
            SSL_CTX_use_PrivateKey(context, key);
            X509_free(leaf);
            EVP_PKEY_free(key);
            SSL_CTX_set_alpn_protos(context, (const unsigned char *)"\\2h2", 3);
            SSL_CTX_set_alpn_select_cb(context, fuzz_alpn, NULL);
            contexts[server] = context;
        }
        return contexts[server];
    }

    static FuzzTls *fuzz_peer_new(int server, int old) {
        FuzzTls *peer = calloc(1, sizeof(FuzzTls));
        peer->ssl = SSL_new(fuzz_peer_context(server));
        if (old) SSL_set_max_proto_version(peer->ssl, TLS1_2_VERSION);
        peer->heard = BIO_new(BIO_s_mem());
        peer->said = BIO_new(BIO_s_mem());
        SSL_set_bio(peer->ssl, peer->heard, peer->said);
        if (server) SSL_set_accept_state(peer->ssl); else SSL_set_connect_state(peer->ssl);
        return peer;
    }

    static void fuzz_peer_free(FuzzTls *peer) {
        SSL_free(peer->ssl);
        free(peer);
    }

    static void fuzz_peer_gather(FuzzTls *peer) {
        int got;
        while ((got = BIO_read(peer->said, peer->waiting + peer->size, (int)(FUZZ_WAITING - peer->size))) > 0)
            peer->size += (size_t)got;
    }

    static int fuzz_peer_fault(FuzzTls *peer, int result) {
        int error = SSL_get_error(peer->ssl, result);
        if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_ZERO_RETURN) peer->broken = 1;
        ERR_clear_error();
        return peer->broken;
    }

    static int fuzz_peer_open(FuzzTls *peer) {
        return peer->shaken && !peer->broken;
    }

    static void fuzz_peer_shake(FuzzTls *peer) {
        int result;
        if (peer->broken || peer->shaken) return;
        result = SSL_do_handshake(peer->ssl);
        if (result == 1) peer->shaken = 1; else fuzz_peer_fault(peer, result);
        fuzz_peer_gather(peer);
    }

    /* What it reads next goes to `plain`; 0: nothing more. */
    static int fuzz_peer_read(FuzzTls *peer) {
        int got;
        if (!fuzz_peer_open(peer)) return 0;
        got = SSL_read(peer->ssl, peer->plain, sizeof(peer->plain));
        if (got <= 0) fuzz_peer_fault(peer, got);
        fuzz_peer_gather(peer);
        return got > 0 ? got : 0;
    }

    static int fuzz_peer_say(FuzzTls *peer, const uint8_t *data, size_t size) {
        /* What was not given yet has its bound, or an input could fill the memory. */
        if (!fuzz_peer_open(peer) || peer->size + size + 1024 > FUZZ_WAITING) return 0;
        if (SSL_get_shutdown(peer->ssl) & SSL_SENT_SHUTDOWN) return 0;
        if (SSL_write(peer->ssl, data, (int)size) != (int)size) { peer->broken = 1; return 0; }
        fuzz_peer_gather(peer);
        return 1;
    }

    static void fuzz_peer_rekey(FuzzTls *peer, int both) {
        static const uint8_t ping[17] = {0, 0, 8, 6};
        if (!fuzz_peer_open(peer) || SSL_version(peer->ssl) != TLS1_3_VERSION) return;
        SSL_key_update(peer->ssl, both ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED);
        fuzz_peer_say(peer, ping, sizeof(ping));
    }

    static void fuzz_peer_leave(FuzzTls *peer) {
        if (fuzz_peer_open(peer)) SSL_shutdown(peer->ssl);
        ERR_clear_error();
        fuzz_peer_gather(peer);
    }

    static void fuzz_narrow(int fd) {
        int bytes = 1;  /* the kernel makes it its least, 4,608 */
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    }

    /* Up to `size` of what waits; returns how many bytes the socket took. */
    static size_t fuzz_peer_give(FuzzTls *peer, int fd, size_t size) {
        ssize_t sent;
        if (size > peer->size) size = peer->size;
        if (size == 0) return 0;
        sent = send(fd, peer->waiting, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent <= 0) return 0;
        peer->size -= (size_t)sent;
        memmove(peer->waiting, peer->waiting + sent, peer->size);
        return (size_t)sent;
    }

    /* Up to `size` bytes of the socket; returns how many. */
    static size_t fuzz_peer_take(FuzzTls *peer, int fd, size_t size) {
        static uint8_t buffer[1 << 16];
        ssize_t got = recv(fd, buffer, size > sizeof(buffer) ? sizeof(buffer) : size, MSG_DONTWAIT);
        if (got <= 0) return 0;
        BIO_write(peer->heard, buffer, (int)got);
        return (size_t)got;
    }

    static uint32_t fuzz_loopback(void) { return htonl(INADDR_LOOPBACK); }

    static const char fuzz_watch[] = "/feeder.LogService/WatchLogs";
    """
    ctypedef struct FuzzFiles:
        uint8_t *root
        uint8_t *certificate
        uint8_t *key
        int *sizes
    ctypedef struct FuzzTls:
        bint broken
        uint8_t *waiting
        size_t size
        uint8_t *plain
    const FuzzFiles *fuzz_files() noexcept nogil
    FuzzTls *fuzz_peer_new(bint server, bint old) noexcept nogil
    void fuzz_peer_free(FuzzTls *peer) noexcept nogil
    bint fuzz_peer_open(FuzzTls *peer) noexcept nogil
    void fuzz_peer_shake(FuzzTls *peer) noexcept nogil
    int fuzz_peer_read(FuzzTls *peer) noexcept nogil
    bint fuzz_peer_say(FuzzTls *peer, const uint8_t *data, size_t size) noexcept nogil
    void fuzz_peer_rekey(FuzzTls *peer, bint both) noexcept nogil
    void fuzz_peer_leave(FuzzTls *peer) noexcept nogil
    void fuzz_narrow(int fd) noexcept nogil
    size_t fuzz_peer_give(FuzzTls *peer, int fd, size_t size) noexcept nogil
    size_t fuzz_peer_take(FuzzTls *peer, int fd, size_t size) noexcept nogil
    uint32_t fuzz_loopback() noexcept nogil
    const uint8_t fuzz_watch[29]

cdef enum:  # bits of the first byte; FUZZ_SINGLE and FUZZ_TIGHT as in engine.pxi
    TLS_NODE = 1               # the peer is a node, and so TLS's server
    TLS_OLD = 2                # TLS 1.2
    TLS_ANYBODY = 4            # no client certificate is wanted
    TLS_NARROW = 8             # the relay's socket holds little: writes are partial

cdef enum:  # what happens, by the first byte of a pair modulo 16
    TLS_GIVE                   # the relay gets bytes of what the peer has said: one more than the second byte says
    TLS_GIVE_MORE              # 64 times as many
    TLS_GIVE_ALL
    TLS_TURN
    TLS_TAKE                   # the peer gets bytes of what the relay has sent: as above
    TLS_TAKE_ALL
    TLS_SAY                    # the peer says something
    TLS_PUBLISH                # events arrive, a client's peer; or the node sends some
    TLS_FLIP                   # a bit of what waits is turned over
    TLS_INJECT                 # the next bytes of the input are put before what waits
    TLS_CUT_OUT                # what waits loses its first bytes
    TLS_REKEY
    TLS_LEAVE                  # close_notify
    TLS_STOP                   # the relay ends
    TLS_HANG_UP                # the peer's direction of the socket ends
    TLS_WAIT                   # several turns


cdef struct FuzzTalk:
    # One run.
    Reactor *reactor
    FuzzTls *peer
    int fd
    bint node
    bint spoilt                # what is heard need not make sense any more
    bint over                  # somebody has said that it ends
    uint8_t header[9]          # of the frame that the peer reads
    uint32_t header_size
    uint32_t left              # payload bytes of it to come
    uint64_t data[128]         # bytes of events that a client has read, by stream
    uint64_t read              # all that the peer has read
    uint64_t sent              # events that a node has sent
    bint accepted              # the node has answered the request for logs
    uint32_t stream            # the next one of a client


cdef TlsContext *fuzz_contexts[4]


cdef TlsContext *fuzz_tls_context(bint server, bint anybody) noexcept nogil:
    """The relay's side; made once, since keys do not change."""
    cdef const FuzzFiles *files = fuzz_files()
    cdef TlsContext **kept = &fuzz_contexts[2 * server + anybody]
    if kept[0] == NULL:
        kept[0] = tls_context_new(server, not anybody, server and not anybody, False)
        fuzz_holds(kept[0] != NULL, "there is memory")
        fuzz_holds(tls_context_load(kept[0], files.certificate, files.sizes[1], files.key, files.sizes[2], files.root,
                                    files.sizes[0]) == TLS_FAULT_NONE, "the certificates are good")
    return tls_context_take(kept[0])


cdef void fuzz_tls_frames(FuzzTalk *talk, const uint8_t *data, size_t size) noexcept nogil:
    """What a client reads: frames, and in those of DATA nothing but the one event there is."""
    cdef uint64_t *event
    cdef size_t i
    for i in range(size):
        if talk.left == 0 and talk.header_size < 9:
            talk.header[talk.header_size] = data[i]
            talk.header_size += 1
            if talk.header_size == 9:
                talk.left = <uint32_t> talk.header[0] << 16 | <uint32_t> talk.header[1] << 8 | talk.header[2]
                fuzz_holds(talk.left <= 16384, "a frame has the size it may have")
                if talk.left == 0:
                    talk.header_size = 0
                if talk.header[3] == 3 or talk.header[3] == 7:
                    talk.over = True   # RST_STREAM, GOAWAY
            continue
        if talk.header[3] == 0:
            event = &talk.data[talk.header[8] >> 1]
            fuzz_holds(data[i] == fuzz_frame[event[0] % 10], "an event arrives as it is")
            event[0] += 1
        talk.left -= 1
        if talk.left == 0:
            talk.header_size = 0


cdef void fuzz_tls_hear(FuzzTalk *talk, size_t size) noexcept nogil:
    """The peer gets bytes of what the relay has sent, and goes on."""
    cdef int got
    if fuzz_peer_take(talk.peer, talk.fd, size) == 0:
        return
    fuzz_peer_shake(talk.peer)
    got = fuzz_peer_read(talk.peer)
    while got > 0:
        talk.read += <uint64_t> got
        if not talk.node:
            fuzz_tls_frames(talk, talk.peer.plain, <size_t> got)
        got = fuzz_peer_read(talk.peer)
    fuzz_holds(talk.spoilt or not talk.peer.broken, "the relay says nothing that OpenSSL finds fault with")


cdef void fuzz_tls_turn(FuzzTalk *talk) noexcept nogil:
    # Handshakes wait beside events by the clock, which an input knows nothing of.
    talk.reactor.next_step = 0
    reactor_turn(talk.reactor, 0)


cdef void fuzz_tls_subscribe(FuzzTalk *talk) noexcept nogil:
    """A client's request for logs, without a body that asks for anything else than all of them."""
    cdef uint8_t said[256]
    cdef size_t at = 9
    cdef size_t i
    memset(said, 0, sizeof(said))
    if talk.stream == 1:
        # Preface; SETTINGS with the largest window; WINDOW_UPDATE with as much.
        fuzz_peer_say(talk.peer, <const uint8_t *> (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            b"\0\0\6\4\0\0\0\0\0\0\4\x7f\xff\xff\xff\0\0\4\x08\0\0\0\0\0\x7f\xff\0\0"), 52)
    # ":method: POST", ":scheme: https", then literals without indexing (RFC 7541, 6.2.2).
    memcpy(said + at, b"\x83\x87\x01\x05relay\x04\x1c", 11)
    at += 11
    memcpy(said + at, fuzz_watch, 28)
    at += 28
    said[at] = 0x0f
    said[at + 1] = 0x10        # content-type, 31
    said[at + 2] = 16
    memcpy(said + at + 3, b"application/grpc", 16)
    at += 19
    memcpy(said + at, b"\0\2te\x08trailers", 13)
    at += 13
    said[2] = <uint8_t> (at - 9)
    said[3] = 1
    said[4] = 4
    said[8] = <uint8_t> talk.stream
    for i in range(14):
        said[at + i] = 0
    said[at + 2] = 5           # DATA with one empty message, and the end of the request
    said[at + 4] = 1
    said[at + 8] = <uint8_t> talk.stream
    if fuzz_peer_say(talk.peer, said, at + 14) and talk.stream < 255:
        talk.stream += 2


cdef void fuzz_tls_say(FuzzTalk *talk, uint8_t what) noexcept nogil:
    if not talk.node:
        fuzz_tls_subscribe(talk)
    elif talk.reactor.nodes != NULL and talk.reactor.nodes.state == NODE_CHECKING:
        talk.reactor.nodes.nonce = 42
        fuzz_peer_say(talk.peer, fuzz_healthy, 87)
    elif what & 1:
        fuzz_peer_say(talk.peer, <const uint8_t *> b"\0\0\x08\6\0\0\0\0\0pingping", 17)


cdef void fuzz_tls_events(FuzzTalk *talk, uint8_t count) noexcept nogil:
    """Events, from elsewhere for a client, from itself for a node: as many in one frame."""
    cdef uint8_t said[9 + 2560]
    cdef uint16_t size = <uint16_t> (10 * count)
    cdef int i
    if not talk.node:
        for i in range(count):
            fuzz_publish(talk.reactor)
        return
    if count == 0 or talk.reactor.nodes == NULL or talk.reactor.nodes.state != NODE_STREAMING:
        return
    if not talk.accepted:
        # Response headers of the logs' stream: ":status: 200", "content-type: application/grpc".
        talk.accepted = fuzz_peer_say(talk.peer, <const uint8_t *> (
            b"\0\0\x14\1\4\0\0\0\7\x88\x0f\x10\x10application/grpc"), 29)
        if not talk.accepted:
            return
    memset(said, 0, 9)
    said[1] = <uint8_t> (size >> 8)
    said[2] = <uint8_t> size
    said[8] = 7
    for i in range(count):
        memcpy(said + 9 + 10 * i, fuzz_frame, 10)
    if fuzz_peer_say(talk.peer, said, 9 + size):
        talk.sent += count


cdef void fuzz_tls_step(FuzzTalk *talk, uint8_t what, uint8_t much, const uint8_t *rest, size_t size) noexcept nogil:
    """One pair of the input; `rest` is what follows it."""
    cdef FuzzTls *peer = talk.peer
    cdef size_t count = <size_t> much + 1
    cdef int i
    if what == TLS_GIVE or what == TLS_GIVE_MORE or what == TLS_GIVE_ALL:
        fuzz_peer_give(peer, talk.fd, count if what == TLS_GIVE else 64 * count if what == TLS_GIVE_MORE else peer.size)
        fuzz_tls_turn(talk)
    elif what == TLS_TURN:
        fuzz_tls_turn(talk)
    elif what == TLS_TAKE:
        fuzz_tls_hear(talk, count)
    elif what == TLS_TAKE_ALL:
        fuzz_tls_hear(talk, 1 << 16)
    elif what == TLS_SAY:
        fuzz_tls_say(talk, much)
    elif what == TLS_PUBLISH:
        fuzz_tls_events(talk, much)
    elif what == TLS_FLIP and peer.size:
        peer.waiting[much % peer.size] ^= <uint8_t> (1 << (much & 7))
        talk.spoilt = True
    elif what == TLS_INJECT:
        if count > size:
            count = size
        fuzz_send(talk.fd, rest, count)
        talk.spoilt = True
        fuzz_tls_turn(talk)
    elif what == TLS_CUT_OUT and peer.size:
        if count > peer.size:
            count = peer.size
        peer.size -= count
        memmove(peer.waiting, peer.waiting + count, peer.size)
        talk.spoilt = True
    elif what == TLS_REKEY:
        fuzz_peer_rekey(peer, much & 1)
    elif what == TLS_LEAVE:
        fuzz_peer_leave(peer)
        talk.over = True
    elif what == TLS_STOP:
        shutdown_begin(talk.reactor, 0, False)
        talk.over = True
    elif what == TLS_HANG_UP:
        shutdown(talk.fd, SHUT_WR)
        talk.over = True
        talk.spoilt = True
    elif what == TLS_WAIT:
        for i in range(much & 7):
            fuzz_tls_turn(talk)


cdef void fuzz_tls_finish(FuzzTalk *talk) noexcept nogil:
    """Nothing is withheld any more: all that was said arrives."""
    cdef int quiet = 0
    cdef int i
    cdef uint64_t before
    for i in range(4096):
        before = talk.peer.size + talk.read
        fuzz_peer_give(talk.peer, talk.fd, talk.peer.size)
        fuzz_tls_turn(talk)
        fuzz_tls_hear(talk, 1 << 16)
        if talk.node and not talk.over:
            fuzz_tls_say(talk, 0)
        quiet = quiet + 1 if talk.peer.size + talk.read == before else 0
        if quiet == 8:
            break
    if talk.spoilt or talk.over:
        return
    fuzz_holds(fuzz_peer_open(talk.peer), "a handshake that nobody disturbs succeeds")
    if talk.node:
        fuzz_holds(talk.reactor.feeds[2].received == talk.sent, "all that a node said has arrived")
    else:
        fuzz_holds(talk.left == 0 and talk.header_size == 0, "a client has whole frames")
        for i in range(128):
            fuzz_holds(talk.data[i] % 10 == 0, "a client has whole events")


cdef void fuzz_tls_connect(FuzzTalk *talk, int how, int ours) noexcept nogil:
    """The relay's end: a client's connection, or one to a node."""
    cdef Reactor *reactor = talk.reactor
    cdef Connection *connection
    cdef sockaddr_in *address
    cdef Node *node
    if not talk.node:
        reactor.server_tls = fuzz_tls_context(True, how & TLS_ANYBODY != 0)
        connection = fuzz_client(reactor, ours)
        fuzz_holds(connection != NULL, "there is memory")
        connection.tls_context = tls_context_take(reactor.server_tls)
        connection_secured(connection)
        fuzz_holds(connection_watch(connection) == STATUS_OK, "epoll takes it")
        return
    reactor.client_tls = fuzz_tls_context(False, False)
    node = <Node *> memory_take_zeroed(&reactor.memory, sizeof(Node))
    connection = connection_new(reactor, CONNECTION_NODE, ours)
    fuzz_holds(node != NULL and connection != NULL, "there is memory")
    node_new(reactor, node, node, 1, 7)
    address = <sockaddr_in *> &connection.peer
    address.sin_family = AF_INET
    address.sin_addr.s_addr = fuzz_loopback()
    connection.tls_context = tls_context_take(reactor.client_tls)
    connection.node = node
    node.connection = connection
    node.state = NODE_CONNECTING
    fuzz_holds(connection_watch(connection) == STATUS_OK, "epoll takes it")


cdef int fuzz_tls(const uint8_t *data, size_t size) noexcept nogil:
    """A conversation in TLS, as the input has it."""
    cdef FuzzTalk talk
    cdef int ours = -1
    cdef size_t at = 1
    if size < 2:
        return 0
    memset(&talk, 0, sizeof(talk))
    talk.reactor = fuzz_reactor(data[0] & (FUZZ_SINGLE | FUZZ_TIGHT))
    talk.node = data[0] & TLS_NODE
    talk.stream = 1
    talk.peer = fuzz_peer_new(talk.node, data[0] & TLS_OLD)
    fuzz_holds(fuzz_pair(&ours, &talk.fd) == 0, "there are descriptors")
    if data[0] & TLS_NARROW:
        fuzz_narrow(ours)
    fuzz_tls_connect(&talk, data[0], ours)
    if data[0] & FUZZ_TIGHT:
        memory_fail_at(&talk.reactor.memory, data[1])
        talk.spoilt = True
        at = 2
    fuzz_peer_shake(talk.peer)
    fuzz_tls_turn(&talk)
    while at + 2 <= size:
        fuzz_tls_step(&talk, data[at] & 15, data[at + 1], data + at + 2, size - at - 2)
        at += 2
        if data[at - 2] & 15 == TLS_INJECT:
            at += <size_t> data[at - 1] + 1
    fuzz_tls_finish(&talk)
    fuzz_peer_free(talk.peer)
    fuzz_end(talk.reactor, talk.fd)
    return 0
