"""A node: connect, HTTP/2, HealthCheck, the feeds' streams, signs of life.

What fails is reported; trying again is Python's business.

  IDLE --connect--> CONNECTING --socket writable, TLS agreed if set--> CHECKING --HealthCheck answered--> STREAMING
  any state but IDLE --the connection ends--> IDLE, with the reason
  STREAMING: a feed that ends alone is reported alone, and opened again on command
"""

from libc.stdint cimport UINT64_MAX, int32_t, uint32_t, uint64_t, uint8_t
from libc.stdio cimport snprintf
from libc.string cimport memcmp, memcpy, memset, strerror, strlen

from relay.native.connection cimport (
    connection_allocator, connection_dirty, connection_end, connection_new, connection_ready, connection_timer,
    connection_watch, peer_text, socket_option,
)
from relay.native.framing cimport framer_receive
from relay.native.grpc cimport (
    GRPC_OK, GRPC_UNAVAILABLE, GRPC_UNKNOWN, grpc_content_type_ok, grpc_message_decode, grpc_nonce_encode,
    grpc_prefix_write, grpc_reply_decode, grpc_status_of_http, grpc_status_of_http2, grpc_status_parse,
)
from relay.native.ingest cimport ingest, ingest_reset, ingest_unlock
from relay.native.mailbox cimport mailbox_forget, mailbox_node, mailbox_stream
from relay.native.memory cimport memory_release
from relay.native.model cimport (
    CONNECTION_NODE, CONNECTION_OPEN, CONNECTION_OPENING, FEEDS, FRAME_HEADER, RECEIVE_BYTES, NODE_CHECKING,
    NODE_CONNECTING, NODE_CONNECTION_WINDOW, NODE_IDLE, NODE_STREAMING, NODE_WINDOW, PREFIX, TEXT_BYTES,
    Connection, Node, NodeStream, Reactor,
)
from relay.native.nghttp2 cimport (
    NGHTTP2_DATA_FLAG_EOF, NGHTTP2_ERR_CALLBACK_FAILURE, NGHTTP2_ERR_NOMEM, NGHTTP2_FLAG_ACK, NGHTTP2_FLAG_NONE,
    NGHTTP2_GOAWAY, NGHTTP2_HEADERS, NGHTTP2_NO_ERROR, NGHTTP2_PING, NGHTTP2_SETTINGS_ENABLE_PUSH,
    NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, NGHTTP2_CANCEL,
    NGHTTP2_FLAG_END_STREAM, NGHTTP2_WINDOW_UPDATE, header_text, nghttp2_data_provider, nghttp2_data_source,
    nghttp2_frame, nghttp2_mem, nghttp2_nv, nghttp2_session, nghttp2_session_callbacks,
    nghttp2_session_callbacks_new, nghttp2_session_callbacks_set_on_data_chunk_recv_callback,
    nghttp2_session_callbacks_set_on_frame_recv_callback, nghttp2_session_callbacks_set_on_header_callback,
    nghttp2_session_callbacks_set_on_stream_close_callback, nghttp2_session_client_new3,
    nghttp2_session_set_local_window_size, nghttp2_session_want_write, nghttp2_settings_entry,
    nghttp2_submit_request, nghttp2_submit_rst_stream, nghttp2_submit_settings,
)
from relay.native.output cimport output_control
from relay.native.posix cimport (
    AF_INET, ECONNREFUSED, EHOSTUNREACH, EINPROGRESS, ENETUNREACH, ETIMEDOUT, IPPROTO_TCP, SOCK_CLOEXEC,
    SOCK_NONBLOCK, SOCK_STREAM, SOL_SOCKET, SO_ERROR, SO_KEEPALIVE, SO_RCVBUF, TCP_KEEPCNT, TCP_KEEPIDLE,
    TCP_KEEPINTVL, TCP_NODELAY, TCP_USER_TIMEOUT, GRND_NONBLOCK, close, connect, errno, getrandom, getsockopt,
    sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage, socket, socklen_t,
)
from relay.native.status cimport (
    STATUS_ENDED, STATUS_GOAWAY, STATUS_GRPC, STATUS_HTTP, STATUS_LIMIT, STATUS_NONCE, STATUS_NO_MEMORY,
    STATUS_NO_TRAILERS, STATUS_OK, STATUS_PROTOCOL, STATUS_REFUSED, STATUS_RESET, STATUS_SELF, STATUS_SILENT,
    STATUS_SYSTEM, STATUS_TIMEOUT, STATUS_UNREACHABLE, status_grpc, status_text,
)
from relay.native.tls cimport tls_begin, tls_forget, tls_keep, tls_name
from relay.native.tls_context cimport tls_context_take
from relay.native.transport cimport transport_left, transport_read, transport_rest

cdef extern from *:
    """
    static const char *const relay_feed_path[3] = {
        "/feeder.LogService/WatchMessages", "/feeder.LogService/WatchAlerts", "/feeder.LogService/WatchLogs",
    };
    static const char *const relay_check_path = "/feeder.LogService/HealthCheck";
    """
    const char **relay_feed_path
    const char *relay_check_path

cdef enum:
    NODE_KEEPALIVE_IDLE = 10          # s until TCP asks a quiet node, then
    NODE_KEEPALIVE_INTERVAL = 5       # every so many,
    NODE_KEEPALIVE_COUNT = 2          # so often: dead within 20 s
    LAST_READS = 4                    # of a node that is removed
    NODE_HEADER_BYTES = 65536         # of a header block, decoded; nothing but a status and a text is wanted of it
    NODE_HEADER_OVERHEAD = 32         # what a header counts besides its bytes (RFC 9113, 6.5.2)
    NODE_USER_TIMEOUT = 20000         # ms that sent bytes may stay unacknowledged


# Life -------------------------------------------------------------------------------------------

cdef inline Node *node_find(Reactor *reactor, int32_t number) noexcept nogil:
    cdef Node *node = reactor.nodes
    while node != NULL and (node.number != number or node.removing):
        node = node.next
    return node


cdef inline Node *node_new(
    Reactor *reactor, Node *node, void *block, int32_t number, uint32_t feeds
) noexcept nogil:
    """Make a node known, not connected, in zeroed memory that lies in `block`, which is the node's from now on."""
    cdef int feed
    node.block = block
    node.number = number
    node.feeds = feeds
    node.state = NODE_IDLE
    for feed in range(FEEDS):
        node.streams[feed].feed = feed
    node.next = reactor.nodes
    if reactor.nodes != NULL:
        reactor.nodes.previous = node
    reactor.nodes = node
    return node


cdef inline void node_free(Reactor *reactor, Node *node) noexcept nogil:
    mailbox_forget(reactor, node)
    tls_forget(node)
    if node.previous != NULL:
        node.previous.next = node.next
    else:
        reactor.nodes = node.next
    if node.next != NULL:
        node.next.previous = node.previous
    memory_release(&reactor.memory, node.block)


cdef inline void node_state(Reactor *reactor, Node *node, int state, int code, const char *text) noexcept nogil:
    node.state = <uint8_t> state
    mailbox_node(reactor, node, state, code, text)


cdef inline void node_fail(Reactor *reactor, Node *node, int status, const char *text) noexcept nogil:
    """End the connection for a reason that is known best here."""
    if node.state != NODE_IDLE:
        node_state(reactor, node, NODE_IDLE, status_grpc(status), text)
    if node.connection != NULL:
        connection_end(node.connection, status)


cdef inline void node_connect(
    Reactor *reactor, Node *node, const sockaddr_storage *address, const uint8_t *name, size_t name_size
) noexcept nogil:
    """Begin to connect. Under TLS its certificate is checked for the name, or without one for the address."""
    cdef int fd
    cdef Connection *connection
    cdef socklen_t size = sizeof(sockaddr_in) if address.ss_family == AF_INET else sizeof(sockaddr_in6)
    if node.state != NODE_IDLE or node.connection != NULL or node.removing:
        return
    fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if fd < 0:
        node_state(reactor, node, NODE_IDLE, GRPC_UNAVAILABLE, strerror(errno))
        return
    socket_option(fd, IPPROTO_TCP, TCP_NODELAY, 1)
    socket_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1)
    socket_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, NODE_KEEPALIVE_IDLE)
    socket_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, NODE_KEEPALIVE_INTERVAL)
    socket_option(fd, IPPROTO_TCP, TCP_KEEPCNT, NODE_KEEPALIVE_COUNT)
    socket_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, NODE_USER_TIMEOUT)
    if reactor.settings.receive_buffer:
        socket_option(fd, SOL_SOCKET, SO_RCVBUF, <int> reactor.settings.receive_buffer)
    if connect(fd, <const sockaddr *> address, size) != 0 and errno != EINPROGRESS:
        node_state(reactor, node, NODE_IDLE, GRPC_UNAVAILABLE, strerror(errno))
        close(fd)
        return
    connection = connection_new(reactor, CONNECTION_NODE, fd)
    if connection == NULL:
        close(fd)
        node_state(reactor, node, NODE_IDLE, status_grpc(STATUS_NO_MEMORY), status_text(STATUS_NO_MEMORY))
        return
    if not name_is(name, name_size, node.name):
        tls_forget(node)
        memcpy(node.name, name, name_size)
        node.name[name_size] = 0
    connection.node = node
    connection.tls_context = tls_context_take(reactor.client_tls)
    memcpy(&connection.peer, address, sizeof(sockaddr_storage))
    node.connection = connection
    node.pings = False
    node_state(reactor, node, NODE_CONNECTING, GRPC_OK, "")
    if connection_watch(connection) != STATUS_OK:
        node_fail(reactor, node, STATUS_SYSTEM, strerror(errno))
        return
    connection_timer(connection, reactor.now + reactor.settings.connect_timeout)


# Requests ---------------------------------------------------------------------------------------

cdef inline size_t node_request_message(Node *node, int32_t stream_id, uint8_t *out) noexcept nogil:
    """The request of a stream, as a frame of at most PREFIX + 18 bytes. Returns its size."""
    cdef size_t size
    cdef int feed
    if stream_id == node.check_stream:
        size = grpc_nonce_encode(node.nonce, out + PREFIX)
    else:
        size = 0
        for feed in range(FEEDS):
            if node.streams[feed].id == stream_id and node.filters[feed][0]:
                size = 2 + strlen(node.filters[feed])
                out[PREFIX] = 0x0a                    # field 1, length-delimited
                out[PREFIX + 1] = <uint8_t> (size - 2)
                memcpy(out + PREFIX + 2, node.filters[feed], size - 2)
    grpc_prefix_write(out, <uint32_t> size)
    return PREFIX + size


cdef inline ssize_t node_read_request(
    nghttp2_session *session, int32_t stream_id, uint8_t *buffer, size_t length, uint32_t *flags,
    nghttp2_data_source *source, void *user
) noexcept nogil:
    """nghttp2 asks for a request's DATA, as much of it as the node's window takes."""
    cdef uint8_t message[64]
    cdef Connection *connection = <Connection *> user
    cdef Node *node = connection.node
    cdef NodeStream *stream = node_stream(node, stream_id)
    cdef size_t *asked = &node.check_asked if stream == NULL else &stream.asked
    cdef size_t size = node_request_message(node, stream_id, message)
    cdef size_t count = size - asked[0]
    if count > length:
        count = length
    memcpy(buffer, message + asked[0], count)
    asked[0] += count
    if asked[0] == size:
        flags[0] |= NGHTTP2_DATA_FLAG_EOF
    return <ssize_t> count


cdef inline int32_t node_request(Connection *connection, const char *path) noexcept nogil:
    """Submit a call: its stream id, or nghttp2's error."""
    cdef nghttp2_nv headers[7]
    cdef nghttp2_data_provider provider
    cdef char authority[80]
    peer_text(connection, authority, sizeof(authority))
    header_text(&headers[0], ":method", "POST")
    header_text(&headers[1], ":scheme", "http" if connection.tls == NULL else "https")
    header_text(&headers[2], ":path", path)
    header_text(&headers[3], ":authority", authority)
    header_text(&headers[4], "content-type", "application/grpc")
    header_text(&headers[5], "te", "trailers")
    header_text(&headers[6], "user-agent", "kubearmor-relay")
    memset(&provider, 0, sizeof(provider))
    provider.read_callback = node_read_request
    return nghttp2_submit_request(connection.session, NULL, headers, 7, &provider, NULL)


cdef inline void node_open(Reactor *reactor, Node *node, int feed) noexcept nogil:
    """Open one feed's stream."""
    cdef NodeStream *stream = &node.streams[feed]
    if node.state != NODE_STREAMING or stream.id != 0 or node.connection.state != CONNECTION_OPEN:
        return
    stream.accepted = False
    stream.slow = False
    stream.grpc_seen = False
    stream.http_status = 0
    stream.grpc_status = -1
    stream.grpc_text[0] = 0
    stream.asked = 0
    stream.credit = 0
    stream.window_due = False
    stream.id = node_request(node.connection, relay_feed_path[feed])
    if stream.id < 0:
        stream.id = 0
        mailbox_stream(reactor, node, stream, GRPC_UNAVAILABLE, "the connection takes no more streams")
    connection_dirty(node.connection)


cdef inline int32_t node_nonce(Reactor *reactor) noexcept nogil:
    """A positive number that nobody can guess: who sends us ours, has it from us (`node_is_self`)."""
    cdef uint32_t random = 0
    if getrandom(&random, sizeof(random), GRND_NONBLOCK) != <ssize_t> sizeof(random):
        random = <uint32_t> (reactor.now >> 10)       # before the kernel has gathered any randomness
    return <int32_t> (random & 0x7fffffff) | 1


cdef inline bint node_is_self(Reactor *reactor, int32_t nonce) noexcept nogil:
    """Whether a client's nonce is one that we wait for the answer to: then that node is we ourselves.

    It would feed us our own events for ever. The node fails, so that the answer finds nobody.
    """
    cdef Node *node = reactor.nodes
    while node != NULL:
        if node.state == NODE_CHECKING and node.nonce == nonce:
            node_fail(reactor, node, STATUS_SELF, status_text(STATUS_SELF))
            return True
        node = node.next
    return False


cdef inline void node_connected(Reactor *reactor, Node *node) noexcept nogil:
    """The socket is connected: HTTP/2, then HealthCheck."""
    cdef Connection *connection = node.connection
    cdef nghttp2_settings_entry settings[3]
    cdef nghttp2_mem allocator
    cdef int error
    connection_allocator(connection, &allocator)
    error = nghttp2_session_client_new3(
        &connection.session, reactor.node_callbacks, connection, reactor.node_option, &allocator)
    if error != 0:
        connection.session = NULL
        node_fail(reactor, node, STATUS_NO_MEMORY, status_text(STATUS_NO_MEMORY))
        return
    settings[0].settings_id = NGHTTP2_SETTINGS_ENABLE_PUSH
    settings[0].value = 0
    settings[1].settings_id = NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE
    settings[1].value = NODE_WINDOW
    settings[2].settings_id = NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS
    settings[2].value = 0
    error = nghttp2_submit_settings(connection.session, NGHTTP2_FLAG_NONE, settings, 3)
    if error == 0:
        error = nghttp2_session_set_local_window_size(
            connection.session, NGHTTP2_FLAG_NONE, 0, NODE_CONNECTION_WINDOW)
    node.nonce = node_nonce(reactor)
    node.header_bytes = 0
    node.check_used = 0
    node.check_asked = 0
    node.check_text[0] = 0
    node.check_http = 0
    node.check_grpc = -1
    node.check_sent = reactor.now
    connection.state = CONNECTION_OPEN
    if error == 0:
        node.check_stream = node_request(connection, relay_check_path)
        if node.check_stream < 0:
            error = node.check_stream
    if error != 0:
        node_fail(reactor, node, STATUS_NO_MEMORY, status_text(STATUS_NO_MEMORY))
        return
    node_state(reactor, node, NODE_CHECKING, GRPC_OK, "")
    connection_timer(connection, reactor.now + reactor.settings.check_timeout)
    connection_dirty(connection)


cdef inline void node_reached(Reactor *reactor, Node *node) noexcept nogil:
    """The socket is connected: TLS if set, else HTTP/2 at once."""
    if node.connection.tls_context == NULL:
        node_connected(reactor, node)
    elif tls_begin(node.connection) != STATUS_OK:
        node_fail(reactor, node, STATUS_NO_MEMORY, status_text(STATUS_NO_MEMORY))
    else:
        tls_name(node.connection, node)
        # Its turn among the handshakes comes as if something had arrived.
        connection_ready(node.connection)


cdef inline void node_writable(Reactor *reactor, Node *node) noexcept nogil:
    """The connecting socket has become writable, or failed."""
    cdef int error = 0
    cdef socklen_t size = sizeof(error)
    cdef int status
    if node.connection.state != CONNECTION_OPENING or node.connection.tls != NULL:
        return
    getsockopt(node.connection.fd, SOL_SOCKET, SO_ERROR, &error, &size)
    if error == 0:
        node_reached(reactor, node)
        return
    if error == ECONNREFUSED:
        status = STATUS_REFUSED
    elif error == ETIMEDOUT:
        status = STATUS_TIMEOUT
    elif error == EHOSTUNREACH or error == ENETUNREACH:
        status = STATUS_UNREACHABLE
    else:
        status = STATUS_SYSTEM
    node_fail(reactor, node, status, strerror(error))


# What nghttp2 calls -----------------------------------------------------------------------------

cdef inline NodeStream *node_stream(Node *node, int32_t number) noexcept nogil:
    cdef int feed
    for feed in range(FEEDS):
        if node.streams[feed].id == number:
            return &node.streams[feed]
    return NULL


cdef inline bint name_is(const uint8_t *name, size_t size, const char *expected) noexcept nogil:
    return strlen(expected) == size and memcmp(name, expected, size) == 0


cdef inline int node_on_header(
    nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_size,
    const uint8_t *value, size_t value_size, uint8_t flags, void *user
) noexcept nogil:
    cdef Connection *connection = <Connection *> user
    cdef Node *node = connection.node
    cdef NodeStream *stream = node_stream(node, frame.hd.stream_id)
    cdef bint check = frame.hd.stream_id == node.check_stream
    cdef int http
    cdef char *text
    node.header_bytes += name_size + value_size + NODE_HEADER_OVERHEAD
    if node.header_bytes > NODE_HEADER_BYTES:
        node_fail(connection.reactor, node, STATUS_LIMIT, "its answer's headers are too large")
        return NGHTTP2_ERR_CALLBACK_FAILURE           # decoding would go on to the end of the block
    if stream == NULL and not check:
        return 0
    if name_is(name, name_size, ":status"):
        http = 0
        if value_size == 3:                           # nghttp2 has checked that these are digits
            http = (value[0] - 48) * 100 + (value[1] - 48) * 10 + (value[2] - 48)
        if check:
            node.check_http = http
        else:
            stream.http_status = http
    elif name_is(name, name_size, "grpc-status"):
        if check:
            node.check_grpc = grpc_status_parse(value, value_size)
        else:
            stream.grpc_status = grpc_status_parse(value, value_size)
    elif name_is(name, name_size, "grpc-message"):
        text = &node.check_text[0] if check else &stream.grpc_text[0]
        text[grpc_message_decode(value, value_size, <uint8_t *> text, TEXT_BYTES - 1)] = 0
    elif stream == NULL:
        return 0
    elif name_is(name, name_size, "content-type"):
        stream.grpc_seen = grpc_content_type_ok(value, value_size)
    elif name_is(name, name_size, "content-length"):
        stream.slow = True
    return 0


cdef inline int node_on_data(
    nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *data, size_t size, void *user
) noexcept nogil:
    """DATA that went through nghttp2: HealthCheck's answer, padded frames, a stream's last frame."""
    cdef Connection *connection = <Connection *> user
    cdef Node *node = connection.node
    cdef NodeStream *stream
    if stream_id == node.check_stream:
        if size > sizeof(node.check_reply) - node.check_used:
            size = sizeof(node.check_reply) - node.check_used
        memcpy(node.check_reply + node.check_used, data, size)
        node.check_used += size
        return 0
    stream = node_stream(node, stream_id)
    if stream != NULL and stream.accepted:
        ingest(connection.reactor, stream, data, size)
    return 0


cdef inline void node_goaway(Reactor *reactor, Node *node, const nghttp2_frame *frame) noexcept nogil:
    """The node takes no new streams. With an error, or without open streams, that is the end."""
    cdef char text[TEXT_BYTES]
    cdef size_t size = frame.goaway.opaque_data_len
    cdef int feed
    cdef bint streaming = False
    for feed in range(FEEDS):
        if node.streams[feed].id != 0 and node.streams[feed].id <= frame.goaway.last_stream_id:
            streaming = True
    if frame.goaway.error_code == NGHTTP2_NO_ERROR and streaming:
        node.connection.goaway = True
        return
    if size > 100:
        size = 100
    snprintf(text, sizeof(text), "GOAWAY, HTTP/2 error %u%s%.*s", frame.goaway.error_code,
             b": " if size else b"", <int> size, <const char *> frame.goaway.opaque_data)
    node_fail(reactor, node, STATUS_GOAWAY, text)


cdef inline int node_on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user) noexcept nogil:
    cdef Connection *connection = <Connection *> user
    cdef Node *node = connection.node
    cdef NodeStream *stream
    if frame.hd.type == NGHTTP2_HEADERS:
        node.header_bytes = 0
        stream = node_stream(node, frame.hd.stream_id)
        # An interim answer (RFC 9110, 15.2) says nothing of the one that follows.
        if stream != NULL and not stream.accepted and stream.http_status >= 200:
            stream.accepted = stream.http_status == 200 and stream.grpc_seen
            if not stream.accepted and not frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
                # Not gRPC: nothing of what follows is an event.
                nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream.id, NGHTTP2_CANCEL)
    elif frame.hd.type == NGHTTP2_PING:
        if not frame.hd.flags & NGHTTP2_FLAG_ACK:
            node.pings = True
            connection_timer(connection, connection.reactor.now + connection.reactor.settings.node_silence)
    elif frame.hd.type == NGHTTP2_GOAWAY:
        node_goaway(connection.reactor, node, frame)
    connection_dirty(connection)
    return 0


cdef inline void node_checked(Reactor *reactor, Node *node, uint32_t error) noexcept nogil:
    """HealthCheck has ended, well or not."""
    cdef char text[TEXT_BYTES]
    cdef int32_t value = 0
    cdef int feed
    cdef int status = node.check_grpc
    node.check_stream = 0
    if error != NGHTTP2_NO_ERROR and status < 0:
        snprintf(text, sizeof(text), "HealthCheck was reset with HTTP/2 error %u", error)
        node_fail(reactor, node, STATUS_RESET, text)
        return
    if node.check_http != 200:
        snprintf(text, sizeof(text), "HealthCheck was answered with HTTP status %d", node.check_http)
        node_fail(reactor, node, STATUS_HTTP, text)
        return
    if status < 0:
        node_fail(reactor, node, STATUS_NO_TRAILERS, "HealthCheck ended without a gRPC status")
        return
    if status != GRPC_OK:
        snprintf(text, sizeof(text), "HealthCheck ended with gRPC status %d: %.150s", status, node.check_text)
        node_state(reactor, node, NODE_IDLE, status, text)
        connection_end(node.connection, STATUS_GRPC)
        return
    if (node.check_used < PREFIX or node.check_reply[0] != 0
            or grpc_reply_decode(node.check_reply + PREFIX, node.check_used - PREFIX, &value) != STATUS_OK
            or value != node.nonce):
        # Without the numbers: they differ from try to try, and each reason is logged once a minute.
        node_fail(reactor, node, STATUS_NONCE, status_text(STATUS_NONCE))
        return
    node.connects += 1
    node_state(reactor, node, NODE_STREAMING, GRPC_OK, "")
    for feed in range(FEEDS):
        if node.feeds & (1u << feed):
            node_open(reactor, node, feed)


cdef inline void node_stream_over(Reactor *reactor, Node *node, NodeStream *stream, uint32_t error) noexcept nogil:
    """A feed's stream has ended: say why."""
    cdef char text[TEXT_BYTES]
    cdef int code = stream.grpc_status
    cdef const char *why = stream.grpc_text
    ingest_reset(reactor, stream)
    stream.id = 0
    stream.accepted = False
    # An answer that is not gRPC counts before the reset, which is then our own (`node_on_frame`).
    if code < 0 and stream.http_status > 200:
        code = grpc_status_of_http(stream.http_status)
        snprintf(text, sizeof(text), "HTTP status %d", stream.http_status)
        why = text
    elif code < 0 and stream.http_status == 200 and not stream.grpc_seen:
        code = GRPC_UNKNOWN
        why = "the answer's content type is not application/grpc"
    elif code < 0 and error != NGHTTP2_NO_ERROR:
        code = grpc_status_of_http2(error)
        snprintf(text, sizeof(text), "reset with HTTP/2 error %u", error)
        why = text
    elif code < 0:
        code = status_grpc(STATUS_NO_TRAILERS)
        why = status_text(STATUS_NO_TRAILERS)
    elif code == GRPC_OK and not why[0]:
        why = status_text(STATUS_ENDED)
    mailbox_stream(reactor, node, stream, code, why)


cdef inline int node_on_stream_close(
    nghttp2_session *session, int32_t stream_id, uint32_t error, void *user
) noexcept nogil:
    cdef Connection *connection = <Connection *> user
    cdef Node *node = connection.node
    cdef NodeStream *stream
    if stream_id == node.check_stream:
        node_checked(connection.reactor, node, error)
        return 0
    stream = node_stream(node, stream_id)
    if stream != NULL:
        node_stream_over(connection.reactor, node, stream, error)
    return 0


cdef inline int node_callbacks_new(nghttp2_session_callbacks **callbacks) noexcept nogil:
    if nghttp2_session_callbacks_new(callbacks) != 0:
        return STATUS_NO_MEMORY
    nghttp2_session_callbacks_set_on_header_callback(callbacks[0], node_on_header)
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks[0], node_on_data)
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks[0], node_on_frame)
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks[0], node_on_stream_close)
    return STATUS_OK


# What the reactor calls -------------------------------------------------------------------------

cdef inline void node_received(
    Reactor *reactor, Connection *connection, const uint8_t *data, size_t size
) noexcept nogil:
    """Bytes of one read."""
    cdef Node *node = connection.node
    cdef int error
    cdef int feed
    if connection.session == NULL:
        return
    error = framer_receive(reactor, connection, data, size)
    ingest_unlock(reactor)
    if error != 0:
        node_fail(reactor, node, STATUS_NO_MEMORY if error == NGHTTP2_ERR_NOMEM else STATUS_PROTOCOL,
                  status_text(STATUS_NO_MEMORY if error == NGHTTP2_ERR_NOMEM else STATUS_PROTOCOL))
        return
    if connection.framer.window_due or nghttp2_session_want_write(connection.session):
        connection_dirty(connection)
    for feed in range(FEEDS):
        if node.streams[feed].window_due:
            connection_dirty(connection)


cdef inline void _window_update(Reactor *reactor, int32_t stream_id, uint32_t credit) noexcept nogil:
    cdef uint8_t frame[FRAME_HEADER + 4]
    frame[0] = 0
    frame[1] = 0
    frame[2] = 4
    frame[3] = <uint8_t> NGHTTP2_WINDOW_UPDATE
    frame[4] = 0
    frame[5] = <uint8_t> (<uint32_t> stream_id >> 24)
    frame[6] = <uint8_t> (<uint32_t> stream_id >> 16)
    frame[7] = <uint8_t> (<uint32_t> stream_id >> 8)
    frame[8] = <uint8_t> stream_id
    frame[9] = <uint8_t> (credit >> 24)
    frame[10] = <uint8_t> (credit >> 16)
    frame[11] = <uint8_t> (credit >> 8)
    frame[12] = <uint8_t> credit
    output_control(reactor, frame, sizeof(frame))


cdef inline void node_windows(Reactor *reactor, Connection *connection) noexcept nogil:
    """Give back the credit for bytes that nghttp2 did not see."""
    cdef NodeStream *stream
    cdef int feed
    if connection.framer.window_due:
        _window_update(reactor, 0, connection.framer.credit)
        connection.framer.credit = 0
        connection.framer.window_due = False
    for feed in range(FEEDS):
        stream = &connection.node.streams[feed]
        if stream.window_due and stream.id != 0:
            _window_update(reactor, stream.id, stream.credit)
            stream.credit = 0
            stream.window_due = False


cdef inline void node_timer(Reactor *reactor, Connection *connection) noexcept nogil:
    """A deadline of the node's connection may have passed."""
    cdef Node *node = connection.node
    cdef char text[TEXT_BYTES]
    cdef uint64_t deadline = UINT64_MAX
    if node.state == NODE_CONNECTING:
        deadline = connection.opened + reactor.settings.connect_timeout
        if reactor.now >= deadline:
            snprintf(text, sizeof(text), "no connection within %.1f s" if connection.tls == NULL
                     else "no end of the TLS handshake within %.1f s",
                     <double> reactor.settings.connect_timeout / 1e9)
            node_fail(reactor, node, STATUS_TIMEOUT, text)
            return
    elif node.state == NODE_CHECKING:
        deadline = node.check_sent + reactor.settings.check_timeout
        if reactor.now >= deadline:
            snprintf(text, sizeof(text), "HealthCheck was not answered within %.1f s",
                     <double> reactor.settings.check_timeout / 1e9)
            node_fail(reactor, node, STATUS_TIMEOUT, text)
            return
    if node.pings:
        if reactor.now >= connection.heard + reactor.settings.node_silence:
            snprintf(text, sizeof(text), "no sign of life for %.1f s",
                     <double> reactor.settings.node_silence / 1e9)
            node_fail(reactor, node, STATUS_SILENT, text)
            return
        if connection.heard + reactor.settings.node_silence < deadline:
            deadline = connection.heard + reactor.settings.node_silence
    connection_timer(connection, deadline)


cdef inline void node_lost(Reactor *reactor, Connection *connection) noexcept nogil:
    """The connection is being freed: the node is idle again, unless it said so already."""
    cdef Node *node = connection.node
    cdef NodeStream *stream
    cdef const char *why = status_text(connection.failure)
    cdef int error = connection.failure_errno
    cdef int feed
    # A host that is gone resets nothing: TCP found out (NODE_KEEPALIVE_IDLE, NODE_USER_TIMEOUT).
    if connection.failure == STATUS_SYSTEM or (
            connection.failure == STATUS_RESET
            and (error == ETIMEDOUT or error == EHOSTUNREACH or error == ENETUNREACH)):
        why = strerror(error)
    for feed in range(FEEDS):
        stream = &node.streams[feed]
        ingest_reset(reactor, stream)
        stream.id = 0
        stream.accepted = False
    node.check_stream = 0
    tls_keep(connection, node)
    node.connection = NULL
    connection.node = NULL
    if node.removing:
        node_free(reactor, node)
    elif node.state != NODE_IDLE:
        node_state(reactor, node, NODE_IDLE, status_grpc(connection.failure), why)


cdef inline void node_read_rest(Reactor *reactor, Node *node) noexcept nogil:
    """Take what has arrived from a node that is let go, a bounded number of reads."""
    cdef Connection *connection = node.connection
    cdef ssize_t got
    cdef bint more
    cdef int _
    for _ in range(LAST_READS):
        if connection.state != CONNECTION_OPEN:
            return
        got = transport_read(connection, RECEIVE_BYTES, &more)
        while got > 0 and transport_left(connection):
            node_received(reactor, connection, reactor.receive, <size_t> got)
            got = transport_rest(connection, &more)
        if got <= 0:
            return
        node_received(reactor, connection, reactor.receive, <size_t> got)


cdef inline void node_remove(Reactor *reactor, Node *node, int status) noexcept nogil:
    """Close its connection and forget it, after what has arrived is in the journal."""
    node.removing = True
    if node.connection == NULL:
        node_free(reactor, node)
    else:
        node_read_rest(reactor, node)
        connection_end(node.connection, status)
