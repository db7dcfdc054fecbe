"""A client's connection: preface, HTTP/2 session, what nghttp2 calls, keepalive and limits."""

from libc.stdint cimport UINT64_MAX, int32_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memcmp, memcpy, memset, strlen

from relay.native.addresses cimport address_drop, address_take
from relay.native.connection cimport (
    CONTROL_COST, connection_allocator, connection_cut, connection_dirty, connection_end, connection_fits,
    connection_new, connection_of, connection_over, connection_secured, connection_spend, connection_timer,
    connection_watch, socket_option,
)
from relay.native.grpc cimport GRPC_DEADLINE_EXCEEDED, GRPC_UNAVAILABLE
from relay.native.model cimport (
    CONNECTION_CLIENT, CONNECTION_CLOSED, CONNECTION_ENDING, CONNECTION_OPEN, CONNECTION_OPENING,
    FRAME_HEADER, LIMIT_ADDRESS, LIMIT_BUDGET, LIMIT_CONNECTIONS, LIMIT_CONTROLS, LIMIT_DESCRIPTORS, LIMIT_HANDSHAKE,
    LIMIT_HEADERS, LIMIT_IDLE, LIMIT_KEEPALIVE, LIMIT_MEMORY, LIMIT_PROTOCOL, LIMIT_STREAMS, LIMIT_TLS, PREFACE,
    STREAM_ANSWER, STREAM_FEED, TLS_PLAIN, Address, Answer, Connection, Reactor, Stream,
)
from relay.native.nghttp2 cimport (
    NGHTTP2_CANCEL, NGHTTP2_DATA, NGHTTP2_DATA_FLAG_EOF, NGHTTP2_DATA_FLAG_NO_COPY, NGHTTP2_ENHANCE_YOUR_CALM,
    NGHTTP2_ERR_CALLBACK_FAILURE, NGHTTP2_ERR_DEFERRED, NGHTTP2_ERR_FLOODED, NGHTTP2_ERR_NOMEM, NGHTTP2_ERR_PAUSE,
    NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE, NGHTTP2_FLAG_ACK, NGHTTP2_FLAG_END_STREAM, NGHTTP2_FLAG_NONE,
    NGHTTP2_GOAWAY, NGHTTP2_HCAT_REQUEST, NGHTTP2_HEADERS, NGHTTP2_NO_ERROR, NGHTTP2_PING, NGHTTP2_PROTOCOL_ERROR,
    NGHTTP2_SETTINGS, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE,
    NGHTTP2_WINDOW_UPDATE, nghttp2_data_provider, nghttp2_data_source, nghttp2_frame, nghttp2_frame_hd,
    nghttp2_mem, nghttp2_session, nghttp2_session_callbacks,
    nghttp2_session_callbacks_new, nghttp2_session_callbacks_set_on_begin_frame_callback,
    nghttp2_session_callbacks_set_on_begin_headers_callback,
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback,
    nghttp2_session_callbacks_set_on_frame_recv_callback, nghttp2_session_callbacks_set_on_frame_send_callback,
    nghttp2_session_callbacks_set_on_header_callback,
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback,
    nghttp2_session_callbacks_set_on_invalid_header_callback,
    nghttp2_session_callbacks_set_on_stream_close_callback, nghttp2_session_callbacks_set_send_data_callback,
    nghttp2_session_get_last_proc_stream_id, nghttp2_session_get_outbound_queue_size,
    nghttp2_session_get_stream_user_data, nghttp2_session_mem_recv, nghttp2_session_server_new3,
    nghttp2_session_set_stream_user_data, nghttp2_session_terminate_session, nghttp2_settings_entry,
    nghttp2_submit_goaway, nghttp2_submit_ping, nghttp2_submit_rst_stream, nghttp2_submit_settings,
)
from relay.native.output cimport output_data, output_has_room, output_last
from relay.native.posix cimport (
    ECONNABORTED, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPOLL_CTL_DEL, IPPROTO_TCP, MSG_DONTWAIT,
    MSG_NOSIGNAL, O_CLOEXEC, O_RDONLY, SHUT_WR, SOCK_CLOEXEC, SOCK_NONBLOCK, SOL_SOCKET, SO_KEEPALIVE,
    SO_SNDBUF, TCP_INFO, TCP_NODELAY, TCP_NOTSENT_LOWAT, accept4, close, epoll_ctl, errno, getsockopt, open,
    send, shutdown, sockaddr, sockaddr_storage, socklen_t, tcp_info,
)
from relay.native.request cimport (
    request_data, request_half_closed, request_header, request_header_fits, request_headers_done, request_refuse,
)
from relay.native.status cimport (
    STATUS_CLOSED, STATUS_LIMIT, STATUS_NO_MEMORY, STATUS_OK, STATUS_SILENT,
)
from relay.native.stream cimport (
    stream_answer_free, stream_closed, stream_end, stream_finish, stream_free, stream_new,
)
from relay.native.subscriber cimport subscriber_offer, subscriber_take, subscriber_wait
from relay.native.tls cimport TLS_HANDSHAKE, tls_end, tls_seals
from relay.native.tls_context cimport tls_context_take

cdef enum:
    ACCEPTS_A_TURN = 64
    REST = 100000000           # ns that a listener is left alone when nothing can be accepted
    LINGER = 1000000000        # ns that a closing connection waits for its peer to read our last words
    VANISHED = 9000000000      # ns without an acknowledgement of sent bytes: the peer's host is gone
    KEEPALIVE_STEP = 1000000000
    UNREAD_MOST = 1024         # frames that may wait, besides two a stream, while a client does not read
    UNSENT_MOST = 2097152      # bytes in the kernel for one subscriber
    UNSENT_LEAST = 65536       # max_connections times this is unsent_bytes, by default
    REQUEST_COST = 5           # of max_controls
    # The same for each half of the connection's window, 32 KiB, that a client has used up: requests are small, and
    # 3 MB of them a second are none.
    UPLOAD_COST = 100
    # Credit for less than this makes DATA frames that cost more than they carry. It counts one: whoever takes events
    # of a hundred bytes, one at a time, gives it back as slowly.
    CREDIT_LEAST = 256
    REFUSAL_BYTES = 26         # of relay_refusal
    REFUSAL_LENGTH = 11        # where the low byte of its GOAWAY's length is
    REFUSAL_TEXT = 64

cdef extern from *:
    """
    static const char relay_preface[25] = "PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n";
    /* For those who are refused before a session exists, or whose session nghttp2 has given up: empty SETTINGS, since
       nothing may come before them, then GOAWAY(ENHANCE_YOUR_CALM). */
    static const uint8_t relay_refusal[26] = {
        0, 0, 0, 4, 0, 0, 0, 0, 0,
        0, 0, 8, 7, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 11,
    };
    /* Whether the first four bytes begin a request of HTTP/1 (RFC 9110, 9.3). */
    static inline int relay_http1_method(const uint8_t *start) {
        static const char methods[][5] = {
            "GET ", "HEAD", "POST", "PUT ", "DELE", "CONN", "OPTI", "TRAC", "PATC",
        };
        for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
            if (memcmp(start, methods[i], 4) == 0) {
                return 1;
            }
        }
        return 0;
    }
    static const char relay_http1_answer[] =
        "HTTP/1.1 426 Upgrade Required\\r\\nUpgrade: h2c\\r\\nConnection: close\\r\\nContent-Type: text/plain\\r\\n"
        "Content-Length: 41\\r\\n\\r\\nthis is a gRPC service: it speaks HTTP/2\\n";
    static const char relay_plain_answer[] =
        "HTTP/1.1 400 Bad Request\\r\\nConnection: close\\r\\nContent-Type: text/plain\\r\\n"
        "Content-Length: 28\\r\\n\\r\\nthis port speaks without TLS\\n";
    static const char relay_secure_answer[] =
        "HTTP/1.1 400 Bad Request\\r\\nConnection: close\\r\\nContent-Type: text/plain\\r\\n"
        "Content-Length: 21\\r\\n\\r\\nthis port speaks TLS\\n";
    /* A fatal alert, internal_error (RFC 8446, 6). */
    static const uint8_t relay_alert[] = {21, 3, 1, 0, 2, 2, 80};
    """
    const char *relay_preface
    const uint8_t relay_refusal[26]
    const char *relay_http1_answer
    const char *relay_plain_answer
    const char *relay_secure_answer
    const uint8_t relay_alert[7]
    bint relay_http1_method(const uint8_t *start) noexcept nogil


# Refusing ---------------------------------------------------------------------------------------

cdef inline void server_refuse(Reactor *reactor, int fd, int limit, const char *text) noexcept nogil:
    """Say why, as far as the socket takes it at once, and close; the text is at most REFUSAL_TEXT bytes."""
    cdef uint8_t refusal[REFUSAL_BYTES + REFUSAL_TEXT]
    cdef size_t size = strlen(text)
    reactor.limits[limit] += 1
    memcpy(refusal, relay_refusal, REFUSAL_BYTES)
    memcpy(refusal + REFUSAL_BYTES, text, size)
    refusal[REFUSAL_LENGTH] += <uint8_t> size
    if reactor.server_tls == NULL:
        send(fd, refusal, REFUSAL_BYTES + size, MSG_DONTWAIT | MSG_NOSIGNAL)
    else:
        # TLS has no better word for it before the handshake than an alert, internal_error.
        send(fd, relay_alert, sizeof(relay_alert), MSG_DONTWAIT | MSG_NOSIGNAL)
    close(fd)


# Ending -----------------------------------------------------------------------------------------

cdef inline void server_linger(Reactor *reactor, Connection *connection) noexcept nogil:
    """Everything is said: close our side, and give the peer a moment to read it before the descriptor goes.

    Closing at once with unread bytes in the socket would make the kernel send RST, and the peer might never see
    our GOAWAY.
    """
    cdef bint here = connection.tls == NULL or tls_seals(connection)
    if connection.state == CONNECTION_CLOSED or connection.state == CONNECTION_ENDING:
        return
    if connection.tls != NULL and connection.tail == NULL:
        output_last(reactor, connection, NULL, 0)
    # What still comes is not looked at.
    tls_end(connection)
    connection.state = CONNECTION_ENDING
    # Where the kernel encrypts, it would forget what it still holds of that; the peer knows the end from close_notify.
    if here:
        shutdown(connection.fd, SHUT_WR)
    connection.opened = reactor.now
    connection_timer(connection, reactor.now + LINGER)


cdef inline void server_terminate(Reactor *reactor, Connection *connection, uint32_t error) noexcept nogil:
    """GOAWAY with an error; the connection closes when it is written."""
    if connection.state != CONNECTION_OPEN or connection.goaway:
        return
    connection.goaway = True
    nghttp2_session_terminate_session(connection.session, error)
    connection_dirty(connection)


cdef inline void server_goaway(Reactor *reactor, Connection *connection) noexcept nogil:
    """GOAWAY without an error: open streams go on, new ones do not begin."""
    if connection.state != CONNECTION_OPEN or connection.goaway:
        return
    connection.goaway = True
    nghttp2_submit_goaway(
        connection.session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(connection.session),
        NGHTTP2_NO_ERROR, NULL, 0)
    connection_dirty(connection)


# What nghttp2 calls -----------------------------------------------------------------------------

cdef inline ssize_t server_read_answer(
    Reactor *reactor, Stream *stream, uint8_t *buffer, size_t length, uint32_t *flags
) noexcept nogil:
    """The next bytes of queued answers, or the end."""
    cdef Answer *answer = stream.answers
    cdef size_t count
    if answer == NULL:
        if stream.plain:
            # There was no memory for the text.
            flags[0] |= NGHTTP2_DATA_FLAG_EOF
            return 0
        if stream.final_status >= 0:
            stream_finish(reactor, stream, stream.final_status, stream.final_text)
        stream.deferred = True
        return NGHTTP2_ERR_DEFERRED
    count = answer.size - stream.answer_sent
    if count > length:
        count = length
    memcpy(buffer, answer.data + stream.answer_sent, count)
    stream.answer_sent += count
    if stream.answer_sent == answer.size:
        stream.answer_sent = 0
        stream.answers_bytes -= answer.size
        stream.answers = answer.next
        if stream.answers == NULL:
            stream.last_answer = NULL
            if stream.plain:
                flags[0] |= NGHTTP2_DATA_FLAG_EOF
        stream_answer_free(reactor, stream, answer)
    return <ssize_t> count


cdef inline ssize_t server_read(
    nghttp2_session *session, int32_t stream_id, uint8_t *buffer, size_t length, uint32_t *flags,
    nghttp2_data_source *source, void *user
) noexcept nogil:
    """nghttp2 asks what the next DATA frame of a stream carries."""
    cdef Connection *connection = <Connection *> user
    cdef Reactor *reactor = connection.reactor
    cdef Stream *stream = <Stream *> source.ptr
    if tls_seals(connection) and length > TLS_PLAIN - FRAME_HEADER:
        # A frame and its header leave as one record of TLS.
        length = TLS_PLAIN - FRAME_HEADER
    if stream.kind == STREAM_FEED:
        if subscriber_offer(reactor, stream, length):
            flags[0] |= NGHTTP2_DATA_FLAG_NO_COPY
            return <ssize_t> stream.offer_size
        if stream.stopping:
            stream_finish(reactor, stream, GRPC_UNAVAILABLE, "the relay is shutting down")
        else:
            subscriber_wait(reactor, stream)
    elif stream.kind == STREAM_ANSWER:
        return server_read_answer(reactor, stream, buffer, length, flags)
    stream.deferred = True
    return NGHTTP2_ERR_DEFERRED


cdef inline int server_send_data(
    nghttp2_session *session, nghttp2_frame *frame, const uint8_t *header, size_t length,
    nghttp2_data_source *source, void *user
) noexcept nogil:
    """nghttp2 has framed what `server_read` offered without copying."""
    cdef Connection *connection = <Connection *> user
    cdef Reactor *reactor = connection.reactor
    cdef Stream *stream = <Stream *> source.ptr
    output_data(reactor, stream, header, stream.offer, length, stream.offer_frames, stream.offer_lead)
    subscriber_take(reactor, stream)
    # The frame is taken either way; PAUSE ends this round of framing.
    return 0 if output_has_room(reactor) else NGHTTP2_ERR_PAUSE


cdef inline int server_on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *hd, void *user) noexcept nogil:
    """Count the frames that cost us more than they cost their sender."""
    cdef Connection *connection = <Connection *> user
    cdef Reactor *reactor = connection.reactor
    cdef uint32_t cost = CONTROL_COST
    if hd.type == NGHTTP2_HEADERS and connection.opened_before < hd.stream_id < connection.last_opened:
        # Opening a stream closes all idle ones below it (RFC 9113, 5.1.1). nghttp2 lets this pass, as it may be a late
        # frame of a stream that it has forgotten; between the last two that were opened there never was one.
        server_terminate(reactor, connection, NGHTTP2_PROTOCOL_ERROR)
        return 0
    if hd.type == NGHTTP2_WINDOW_UPDATE or (hd.type == NGHTTP2_DATA and hd.length != 0):
        return 0                                      # server_on_frame knows what they bring
    if hd.type == NGHTTP2_DATA and hd.flags & NGHTTP2_FLAG_END_STREAM:
        return 0
    if hd.type == NGHTTP2_HEADERS:
        cost = REQUEST_COST
    elif hd.type == NGHTTP2_PING or (hd.type == NGHTTP2_SETTINGS and hd.flags & NGHTTP2_FLAG_ACK):
        cost = 1
    connection_spend(connection, cost)
    return 0


cdef inline void server_weigh(Connection *connection, const nghttp2_frame *frame) noexcept nogil:
    """Count the frames that turn out to bring next to nothing."""
    if frame.hd.type == NGHTTP2_WINDOW_UPDATE:
        if frame.window_update.window_size_increment < CREDIT_LEAST:
            connection_spend(connection, 1)
    elif frame.hd.type == NGHTTP2_DATA and frame.hd.length != 0 and frame.hd.length == frame.data.padlen:
        connection_spend(connection, CONTROL_COST)


cdef inline int server_on_begin_headers(
    nghttp2_session *session, const nghttp2_frame *frame, void *user
) noexcept nogil:
    cdef Connection *connection = <Connection *> user
    cdef Reactor *reactor = connection.reactor
    cdef Stream *stream
    if frame.headers.cat != NGHTTP2_HCAT_REQUEST:
        return 0
    if connection_over(connection):
        # gRPC reads this code as RESOURCE_EXHAUSTED.
        reactor.limits[LIMIT_BUDGET] += 1
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame.hd.stream_id, NGHTTP2_ENHANCE_YOUR_CALM)
        return 0
    stream = stream_new(connection, frame.hd.stream_id)
    if stream == NULL:
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE
    nghttp2_session_set_stream_user_data(session, frame.hd.stream_id, stream)
    connection.opened_before = connection.last_opened
    connection.last_opened = frame.hd.stream_id
    return 0


cdef inline int server_on_header(
    nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_size,
    const uint8_t *value, size_t value_size, uint8_t flags, void *user
) noexcept nogil:
    cdef Connection *connection = <Connection *> user
    cdef Stream *stream = <Stream *> nghttp2_session_get_stream_user_data(session, frame.hd.stream_id)
    if stream != NULL and frame.headers.cat == NGHTTP2_HCAT_REQUEST:
        request_header(connection.reactor, stream, name, name_size, value, value_size)
    # Decoding goes on to the end of the block, unless it is stopped here.
    return NGHTTP2_ERR_CALLBACK_FAILURE if connection.cut else 0


cdef inline int server_on_invalid_header(
    nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_size,
    const uint8_t *value, size_t value_size, uint8_t flags, void *user
) noexcept nogil:
    """A header that HTTP/2 forbids and nghttp2 leaves out: it has been decoded all the same."""
    cdef Connection *connection = <Connection *> user
    cdef Stream *stream = <Stream *> nghttp2_session_get_stream_user_data(session, frame.hd.stream_id)
    if stream != NULL:
        request_header_fits(connection.reactor, stream, name_size, value_size)
    return NGHTTP2_ERR_CALLBACK_FAILURE if connection.cut else 0


cdef inline void _provider(nghttp2_data_provider *provider, Stream *stream) noexcept nogil:
    memset(provider, 0, sizeof(nghttp2_data_provider))
    provider.source.ptr = stream
    provider.read_callback = server_read


cdef inline int server_on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user) noexcept nogil:
    cdef Connection *connection = <Connection *> user
    cdef Stream *stream
    cdef nghttp2_data_provider provider
    connection_dirty(connection)
    server_weigh(connection, frame)
    if frame.hd.type != NGHTTP2_HEADERS and frame.hd.type != NGHTTP2_DATA:
        return 0
    stream = <Stream *> nghttp2_session_get_stream_user_data(session, frame.hd.stream_id)
    if stream == NULL:
        return 0
    _provider(&provider, stream)
    if frame.hd.type == NGHTTP2_HEADERS:
        request_headers_done(connection.reactor, stream, &provider)
    if frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
        request_half_closed(connection.reactor, stream, &provider)
    return 0


cdef inline int server_on_data(
    nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *data, size_t size, void *user
) noexcept nogil:
    cdef Connection *connection = <Connection *> user
    cdef Stream *stream = <Stream *> nghttp2_session_get_stream_user_data(session, stream_id)
    cdef nghttp2_data_provider provider
    if stream != NULL:
        _provider(&provider, stream)
        request_data(connection.reactor, stream, data, size, &provider)
    return 0


cdef inline int server_on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *user) noexcept nogil:
    """Our answer is complete before the client's request is: tell it that the rest is not needed (RFC 9113, 8.1).

    And count what nothing else tells of: the errors that nghttp2 has found, and how much the client uploads, also on
    streams that are over.
    """
    cdef Connection *connection = <Connection *> user
    cdef Stream *stream
    if frame.hd.type == NGHTTP2_GOAWAY:
        if not connection.goaway and not connection.invalid and frame.goaway.error_code != NGHTTP2_NO_ERROR:
            connection.reactor.limits[LIMIT_PROTOCOL] += 1
    elif frame.hd.type == NGHTTP2_WINDOW_UPDATE:
        if frame.hd.stream_id == 0:
            connection_spend(connection, UPLOAD_COST)
    elif ((frame.hd.type == NGHTTP2_HEADERS or frame.hd.type == NGHTTP2_DATA)
            and frame.hd.flags & NGHTTP2_FLAG_END_STREAM):
        stream = <Stream *> nghttp2_session_get_stream_user_data(session, frame.hd.stream_id)
        if stream != NULL and not stream.half_closed:
            nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame.hd.stream_id, NGHTTP2_NO_ERROR)
    return 0


cdef inline int server_on_invalid_frame(
    nghttp2_session *session, const nghttp2_frame *frame, int error, void *user
) noexcept nogil:
    cdef Connection *connection = <Connection *> user
    cdef bint more = (frame.hd.type == NGHTTP2_HEADERS
                      and connection.stream_count >= connection.reactor.settings.max_streams)
    connection.reactor.limits[LIMIT_STREAMS if more else LIMIT_PROTOCOL] += 1
    connection.invalid = True
    return 0


cdef inline int server_on_stream_close(
    nghttp2_session *session, int32_t stream_id, uint32_t error, void *user
) noexcept nogil:
    cdef Connection *connection = <Connection *> user
    cdef Stream *stream = <Stream *> nghttp2_session_get_stream_user_data(session, stream_id)
    if stream != NULL:
        nghttp2_session_set_stream_user_data(session, stream_id, NULL)
        stream_closed(connection.reactor, stream)
        if connection.streams == NULL:
            connection_timer(connection, connection.reactor.now + connection.reactor.settings.idle_timeout)
    return 0


cdef inline int server_callbacks_new(nghttp2_session_callbacks **callbacks) noexcept nogil:
    if nghttp2_session_callbacks_new(callbacks) != 0:
        return STATUS_NO_MEMORY
    nghttp2_session_callbacks_set_send_data_callback(callbacks[0], server_send_data)
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks[0], server_on_begin_frame)
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks[0], server_on_begin_headers)
    nghttp2_session_callbacks_set_on_header_callback(callbacks[0], server_on_header)
    nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks[0], server_on_invalid_header)
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks[0], server_on_frame)
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks[0], server_on_frame_send)
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks[0], server_on_data)
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks[0], server_on_invalid_frame)
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks[0], server_on_stream_close)
    return STATUS_OK


# What the reactor calls -------------------------------------------------------------------------

cdef inline Connection *server_client(
    Reactor *reactor, int fd, Address *home, const sockaddr_storage *peer
) noexcept nogil:
    """A client's connection that owns `fd`; NULL without memory, also where `home` is NULL for want of it."""
    cdef Connection *connection = NULL
    if home != NULL:
        connection = connection_new(reactor, CONNECTION_CLIENT, fd)
    if connection == NULL:
        reactor.limits[LIMIT_MEMORY] += 1
        if home != NULL:
            address_drop(reactor, home)
        return NULL
    connection_of(connection, home)
    memcpy(&connection.peer, peer, sizeof(sockaddr_storage))
    return connection


cdef inline void server_accept(Reactor *reactor, Connection *listener) noexcept nogil:
    """Take new connections, a bounded number a turn."""
    cdef Connection *connection
    cdef sockaddr_storage address
    cdef Address *home
    cdef socklen_t size
    cdef int fd
    cdef int _
    for _ in range(ACCEPTS_A_TURN):
        size = sizeof(address)
        fd = accept4(listener.fd, <sockaddr *> &address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if fd < 0:
            if errno == EINTR or errno == ECONNABORTED:
                continue
            if (errno == EMFILE or errno == ENFILE) and reactor.spare_fd >= 0:
                # Left in the backlog it would keep the listener readable for ever: take it and refuse it.
                close(reactor.spare_fd)
                fd = accept4(listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
                if fd >= 0:
                    server_refuse(reactor, fd, LIMIT_DESCRIPTORS, "too many connections: no more descriptors")
                reactor.spare_fd = open(b"/dev/null", O_RDONLY | O_CLOEXEC)
                continue
            if errno == EMFILE or errno == ENFILE or errno == ENOBUFS or errno == ENOMEM:
                # Nothing can be taken, and the listener stays readable: look again in a moment, not all the time.
                epoll_ctl(reactor.epoll, EPOLL_CTL_DEL, listener.fd, NULL)
                connection_timer(listener, reactor.now + REST)
            return
        if <uint64_t> fd >= reactor.descriptors:
            server_refuse(reactor, fd, LIMIT_DESCRIPTORS, "too many connections: no more descriptors")
            continue
        if reactor.client_count >= reactor.settings.max_connections:
            server_refuse(reactor, fd, LIMIT_CONNECTIONS, "too many connections: max-connections")
            continue
        if not connection_fits(reactor):
            server_refuse(reactor, fd, LIMIT_BUDGET, "no memory for more connections: client-bytes")
            continue
        home = address_take(reactor, &address)
        if home != NULL and home.connections > reactor.settings.max_address_connections:
            address_drop(reactor, home)
            server_refuse(reactor, fd, LIMIT_ADDRESS, "too many connections: max-connections-per-address")
            continue
        socket_option(fd, IPPROTO_TCP, TCP_NODELAY, 1)
        socket_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1)
        if reactor.settings.send_buffer:
            socket_option(fd, SOL_SOCKET, SO_SNDBUF, <int> reactor.settings.send_buffer)
        connection = server_client(reactor, fd, home, &address)
        if connection == NULL:
            close(fd)
            continue
        connection.tls_context = tls_context_take(reactor.server_tls)
        if connection.tls_context != NULL:
            connection_secured(connection)
        reactor.accepted += 1
        if connection_watch(connection) != STATUS_OK:
            connection_end(connection, STATUS_NO_MEMORY)
            continue
        connection_timer(connection, reactor.now + reactor.settings.handshake_timeout)


cdef inline void server_listen_again(Reactor *reactor, Connection *listener) noexcept nogil:
    """A listener has had its rest."""
    if reactor.spare_fd < 0:
        reactor.spare_fd = open(b"/dev/null", O_RDONLY | O_CLOEXEC)
    if connection_watch(listener) != STATUS_OK:
        connection_timer(listener, reactor.now + REST)


cdef inline void server_unsent(Reactor *reactor, Connection *connection) noexcept nogil:
    """Bound what waits in the kernel for a subscriber that does not read, by its part of `unsent_bytes`.

    TCP_NOTSENT_LOWAT leaves alone what is on its way, so a long fat path keeps its throughput. Measured: SO_SNDBUF
    of 128 KiB bounds as much, but a reader that is scheduled late then falls behind for good.
    """
    cdef size_t part = reactor.settings.unsent_bytes // reactor.client_count
    if part > UNSENT_MOST:
        part = UNSENT_MOST
    elif part < UNSENT_LEAST:
        part = UNSENT_LEAST
    # A part that has changed by less than half is not worth a system call.
    if part >= connection.unsent // 2 and part <= connection.unsent + connection.unsent // 2:
        return
    connection.unsent = <uint32_t> part
    socket_option(connection.fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, <int> part)


cdef inline void server_open(Reactor *reactor, Connection *connection) noexcept nogil:
    """The preface is complete: make the session."""
    cdef nghttp2_settings_entry settings[2]
    cdef nghttp2_mem allocator
    connection_allocator(connection, &allocator)
    if nghttp2_session_server_new3(
            &connection.session, reactor.server_callbacks, connection, reactor.server_option, &allocator) != 0:
        connection.session = NULL
        reactor.limits[LIMIT_MEMORY] += 1
        connection_end(connection, STATUS_NO_MEMORY)
        return
    connection.state = CONNECTION_OPEN
    settings[0].settings_id = NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS
    settings[0].value = reactor.settings.max_streams
    settings[1].settings_id = NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE
    settings[1].value = reactor.settings.max_header_bytes
    if (nghttp2_submit_settings(connection.session, NGHTTP2_FLAG_NONE, settings, 2) != 0
            or nghttp2_session_mem_recv(connection.session, connection.preface, PREFACE) < 0):
        reactor.limits[LIMIT_MEMORY] += 1
        connection_end(connection, STATUS_NO_MEMORY)
        return
    connection_timer(connection, reactor.now + reactor.settings.ping_after)
    connection_dirty(connection)


cdef inline void server_not_http2(Reactor *reactor, Connection *connection) noexcept nogil:
    """The first bytes are not the preface. Whoever speaks HTTP/1 gets an answer it understands."""
    reactor.limits[LIMIT_PROTOCOL] += 1
    if connection.preface_used >= 4 and relay_http1_method(connection.preface):
        output_last(reactor, connection, <const uint8_t *> relay_http1_answer, strlen(relay_http1_answer))
    elif connection.tls == NULL and connection.preface[0] == TLS_HANDSHAKE:
        # Nothing that looks like TLS: their libraries say then that it is none ("wrong version number", "first record
        # does not look like a TLS handshake").
        output_last(reactor, connection, <const uint8_t *> relay_plain_answer, strlen(relay_plain_answer))
    server_linger(reactor, connection)


cdef inline void server_not_tls(Reactor *reactor, Connection *connection) noexcept nogil:
    """The first bytes begin no handshake of TLS.

    The answer is one of HTTP/1 to whoever it is. gRPC's libraries tell of it, and try again as after any failure; after
    SETTINGS and GOAWAY, which would be HTTP/2's words, they had a connection, and try again at once, without end.
    """
    reactor.limits[LIMIT_TLS] += 1
    output_last(reactor, connection, <const uint8_t *> relay_secure_answer, strlen(relay_secure_answer))
    server_linger(reactor, connection)


cdef inline void server_cut(Reactor *reactor, Connection *connection) noexcept nogil:
    """Its client is over a limit. Nothing that still comes is looked at; it has a moment to read why."""
    if connection.state != CONNECTION_OPEN:
        connection_end(connection, STATUS_LIMIT)
        return
    server_terminate(reactor, connection, NGHTTP2_ENHANCE_YOUR_CALM)
    connection_timer(connection, connection.opened + LINGER)


cdef inline void server_received(
    Reactor *reactor, Connection *connection, const uint8_t *data, size_t size
) noexcept nogil:
    """Bytes of one read."""
    cdef size_t count
    cdef ssize_t taken
    if connection.state == CONNECTION_OPENING:
        count = PREFACE - connection.preface_used
        if count > size:
            count = size
        memcpy(connection.preface + connection.preface_used, data, count)
        connection.preface_used += <uint8_t> count
        if memcmp(connection.preface, relay_preface, connection.preface_used) != 0:
            server_not_http2(reactor, connection)
            return
        if connection.preface_used < PREFACE:
            return
        server_open(reactor, connection)
        data += count
        size -= count
    if connection.state != CONNECTION_OPEN or size == 0:
        return
    if connection.cut:
        server_cut(reactor, connection)
        return
    connection.pinged = 0
    taken = nghttp2_session_mem_recv(connection.session, data, size)
    if taken == NGHTTP2_ERR_NOMEM:
        reactor.limits[LIMIT_MEMORY] += 1
        connection_end(connection, STATUS_NO_MEMORY)
        return
    if taken < 0:
        # Acknowledgements by the thousand that it does not read; or, unless it was we who stopped, CONTINUATION frames
        # without an end. The session is lost: say why in a frame of our own, where the output is at a frame's end.
        connection_cut(connection, LIMIT_CONTROLS if taken == NGHTTP2_ERR_FLOODED else LIMIT_HEADERS)
        if connection.tail == NULL:
            output_last(reactor, connection, relay_refusal, REFUSAL_BYTES)
        server_linger(reactor, connection)
        return
    if connection_over(connection):
        connection_cut(connection, LIMIT_BUDGET)
    if connection.cut:
        server_cut(reactor, connection)
        return
    if (not connection.writable and nghttp2_session_get_outbound_queue_size(connection.session)
            > UNREAD_MOST + 2 * <size_t> reactor.settings.max_streams):
        # Answers wait even after their streams were reset: without a limit whoever does not read them fills our memory.
        reactor.limits[LIMIT_CONTROLS] += 1
        connection_end(connection, STATUS_LIMIT)
        return
    connection_dirty(connection)


cdef inline bint server_vanished(Reactor *reactor, Connection *connection) noexcept nogil:
    """Whether sent bytes have gone unacknowledged so long that the peer's host must be gone.

    TCP_USER_TIMEOUT would say so, too, but also of a peer that lives and does not read.
    """
    cdef tcp_info info
    cdef socklen_t size = sizeof(info)
    memset(&info, 0, sizeof(info))
    if getsockopt(connection.fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0:
        return False
    return (
        (info.tcpi_unacked > 0 or info.tcpi_probes > 0)
        and <uint64_t> info.tcpi_last_ack_recv * 1000000 >= <uint64_t> VANISHED
    )


cdef inline void server_timer(Reactor *reactor, Connection *connection) noexcept nogil:
    """A deadline of the client's connection may have passed."""
    cdef uint64_t deadline = UINT64_MAX
    cdef uint64_t at
    if connection.state == CONNECTION_ENDING or (connection.state == CONNECTION_OPEN and connection.cut):
        # The timer may be one that was set before: our last words have their time all the same.
        if reactor.now >= connection.opened + LINGER:
            connection_end(connection, STATUS_LIMIT if connection.cut else STATUS_CLOSED)
        else:
            connection_timer(connection, connection.opened + LINGER)
        return
    if connection.state == CONNECTION_OPENING:
        deadline = connection.opened + reactor.settings.handshake_timeout
        if reactor.now >= deadline:
            reactor.limits[LIMIT_HANDSHAKE] += 1
            connection_end(connection, STATUS_LIMIT)
            return
        connection_timer(connection, deadline)
        return
    if connection.streams == NULL:
        deadline = connection.idle_since + reactor.settings.idle_timeout
        if reactor.now >= deadline:
            reactor.limits[LIMIT_IDLE] += 1
            server_terminate(reactor, connection, NGHTTP2_NO_ERROR)
            deadline = reactor.now + LINGER
            if connection.goaway and reactor.now >= connection.idle_since + reactor.settings.idle_timeout + LINGER:
                connection_end(connection, STATUS_LIMIT)
                return
    if connection.pinged == 0:
        at = connection.heard + reactor.settings.ping_after
        if reactor.now >= at:
            nghttp2_submit_ping(connection.session, NGHTTP2_FLAG_NONE, NULL)
            connection.pinged = reactor.now
            connection_dirty(connection)
    if connection.pinged != 0:
        at = connection.pinged + reactor.settings.ping_timeout
        if reactor.now >= at or server_vanished(reactor, connection):
            reactor.limits[LIMIT_KEEPALIVE] += 1
            connection_end(connection, STATUS_SILENT)
            return
        if at > reactor.now + KEEPALIVE_STEP:
            at = reactor.now + KEEPALIVE_STEP
    if at < deadline:
        deadline = at
    connection_timer(connection, deadline)


cdef inline void stream_deadline(Reactor *reactor, Stream *stream) noexcept nogil:
    """grpc-timeout has passed, or the time that a refused request has to end."""
    cdef nghttp2_data_provider provider
    if stream.refusal:
        _provider(&provider, stream)
        request_refuse(reactor, stream, &provider)
        return
    stream_end(reactor, stream, GRPC_DEADLINE_EXCEEDED, "deadline exceeded", NGHTTP2_CANCEL)


cdef inline void server_lost(Reactor *reactor, Connection *connection) noexcept nogil:
    """The connection is being freed: so are its streams."""
    cdef Stream *stream
    while connection.streams != NULL:
        stream = connection.streams
        stream.pending = 0
        if stream.closed:
            stream_free(reactor, stream)
        else:
            stream_closed(reactor, stream)
