"""A client's request: its header block, its messages, and what each method does with them."""

from libc.stdint cimport UINT64_MAX, int32_t, uint32_t, uint64_t, uint8_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, memmove, strlen

from relay.native.connection cimport (
    block_bytes, connection_charge, connection_cut, connection_dirty, connection_spend,
)
from relay.native.grpc cimport (
    GRPC_FAILED_PRECONDITION, GRPC_INT32_MESSAGE_BYTES, GRPC_INTERNAL, GRPC_INVALID_ARGUMENT, GRPC_OK,
    GRPC_RESOURCE_EXHAUSTED, GRPC_UNAVAILABLE, GRPC_UNIMPLEMENTED, grpc_content_type_ok, grpc_filter_decode,
    grpc_nonce_decode, grpc_reply_encode, grpc_timeout_parse,
)
from relay.native.journal cimport relay_frame_length
from relay.native.mailbox cimport mailbox_report, report_new
from relay.native.memory cimport memory_resize
from relay.native.model cimport (
    FEED_ALERTS, FEED_LOGS, FEED_MESSAGES, LIMIT_ADDRESS, LIMIT_CALLS, LIMIT_HEADERS, LIMIT_MEMORY, LIMIT_REQUEST,
    LIMIT_SUBSCRIBERS,
    METHOD_HEALTH_CHECK, METHOD_MESSAGES, METHOD_PYTHON, METHOD_UNKNOWN, PREFIX, REFUSAL_CONTENT,
    REFUSAL_HEADERS, REFUSAL_METHOD, REFUSAL_NONE, REPORT_CALL, STREAM_ANSWER, STREAM_OVER,
    STREAM_REQUEST, TEXT_BYTES, Reactor, Report, Stream,
)
from relay.native.nghttp2 cimport (
    NGHTTP2_ENHANCE_YOUR_CALM, NGHTTP2_FLAG_NONE, NGHTTP2_INTERNAL_ERROR, header_text, nghttp2_data_provider,
    nghttp2_nv, nghttp2_submit_response, nghttp2_submit_rst_stream,
)
from relay.native.node cimport name_is, node_is_self, relay_check_path, relay_feed_path
from relay.native.status cimport STATUS_OK, STATUS_SELF, status_text
from relay.native.stream cimport (
    CALL_HALF_CLOSED, CALL_MESSAGE, stream_answer, stream_call_end, stream_end, stream_final, stream_finish,
    stream_request_free, stream_respond,
)
from relay.native.subscriber cimport subscriber_attach
from relay.native.timers cimport timers_clear, timers_set

cdef enum:
    # Stream.header_flags
    HEADER_POST = 1
    HEADER_GRPC = 2
    HEADER_ENCODED = 4         # grpc-encoding other than identity
    HEADER_BAD_TIMEOUT = 8
    HEADER_TIMEOUT = 16
    HEADER_TOO_LARGE = 32
    HEADER_COMPLETE = 64

    HEADER_OVERHEAD = 32       # what a header counts besides its bytes (RFC 9113, 6.5.2)
    REQUEST_LEAST = 64         # first size of a request's buffer
    # A block that comes to so many times the limit is an attack on whoever decodes it: its client is cut off.
    HEADER_BOMB = 4
    # Of max_controls: a message that Python has to answer, some ten times as dear as what is answered natively.
    CALL_COST = 10
    # Requests that are incomplete, all together: clients open as many as they like, and need not complete them.
    REQUESTS_BYTES = 4194304


cdef inline bint request_header_fits(
    Reactor *reactor, Stream *stream, size_t name_size, size_t value_size
) noexcept nogil:
    """Count a header of a block, used or not; whether the block is within its limit so far."""
    stream.header_bytes += <uint32_t> (name_size + value_size + HEADER_OVERHEAD)
    if stream.header_bytes <= reactor.settings.max_header_bytes:
        return True
    stream.header_flags |= HEADER_TOO_LARGE
    if stream.header_bytes // HEADER_BOMB > reactor.settings.max_header_bytes:
        connection_cut(stream.connection, LIMIT_HEADERS)
    return False


cdef inline void request_header(
    Reactor *reactor, Stream *stream, const uint8_t *name, size_t name_size, const uint8_t *value, size_t value_size
) noexcept nogil:
    """One header of the request's block."""
    cdef uint32_t i
    if not request_header_fits(reactor, stream, name_size, value_size):
        return
    if name_is(name, name_size, ":path"):
        stream.method = METHOD_UNKNOWN
        for i in range(3):
            if name_is(value, value_size, relay_feed_path[i]):
                stream.method = <uint8_t> (METHOD_MESSAGES + i)
        if name_is(value, value_size, relay_check_path):
            stream.method = METHOD_HEALTH_CHECK
        for i in range(reactor.path_count):
            if name_is(value, value_size, reactor.paths[i]):
                stream.method = METHOD_PYTHON
                stream.path = i
    elif name_is(name, name_size, ":method"):
        if name_is(value, value_size, "POST"):
            stream.header_flags |= HEADER_POST
    elif name_is(name, name_size, "content-type"):
        if grpc_content_type_ok(value, value_size):
            stream.header_flags |= HEADER_GRPC
    elif name_is(name, name_size, "grpc-encoding"):
        if not name_is(value, value_size, "identity"):
            stream.header_flags |= HEADER_ENCODED
    elif name_is(name, name_size, "grpc-timeout"):
        if grpc_timeout_parse(value, value_size, &stream.timeout) == STATUS_OK:
            stream.header_flags |= HEADER_TIMEOUT
        else:
            stream.header_flags |= HEADER_BAD_TIMEOUT


cdef inline void request_refuse(Reactor *reactor, Stream *stream, nghttp2_data_provider *provider) noexcept nogil:
    """Answer a client that does not speak gRPC in HTTP's terms, with a text for whoever reads it."""
    cdef nghttp2_nv headers[3]
    cdef size_t count = 2
    cdef const char *status = "415"
    cdef const char *text = "this is a gRPC service: the content type must be application/grpc\n"
    header_text(&headers[1], "content-type", "text/plain; charset=utf-8")
    if stream.refusal == REFUSAL_METHOD:
        status = "405"
        text = "this is a gRPC service: use POST\n"
        header_text(&headers[2], "allow", "POST")
        count = 3
    elif stream.refusal == REFUSAL_HEADERS:
        status = "431"
        text = "the request's headers are too large\n"
    header_text(&headers[0], ":status", status)
    stream.refusal = REFUSAL_NONE
    stream_request_free(reactor, stream)
    timers_clear(&reactor.deadlines, &stream.deadline)
    stream.kind = STREAM_ANSWER
    stream.plain = True
    stream.headers_sent = True
    if not stream_answer(reactor, stream, <const uint8_t *> text, strlen(text), False):
        reactor.limits[LIMIT_MEMORY] += 1
    stream_final(stream, GRPC_OK, "")
    if nghttp2_submit_response(stream.connection.session, stream.id, headers, count, provider) != 0:
        nghttp2_submit_rst_stream(
            stream.connection.session, NGHTTP2_FLAG_NONE, stream.id, NGHTTP2_INTERNAL_ERROR)


cdef inline void request_refuse_later(Reactor *reactor, Stream *stream, int refusal) noexcept nogil:
    """Refuse when the request has ended: until then its frames are still checked against HTTP/2's rules."""
    stream.refusal = <uint8_t> refusal
    if timers_set(&reactor.deadlines, &stream.deadline, reactor.now + reactor.settings.handshake_timeout) != STATUS_OK:
        reactor.limits[LIMIT_MEMORY] += 1


cdef inline void request_headers_done(Reactor *reactor, Stream *stream, nghttp2_data_provider *provider) noexcept nogil:
    """The header block is complete: refuse what can be refused by it."""
    cdef uint64_t deadline
    if stream.kind != STREAM_REQUEST or stream.header_flags & HEADER_COMPLETE:
        return
    stream.header_flags |= HEADER_COMPLETE
    if stream.header_flags & HEADER_TOO_LARGE:
        reactor.limits[LIMIT_HEADERS] += 1
        request_refuse_later(reactor, stream, REFUSAL_HEADERS)
    elif not stream.header_flags & HEADER_POST:
        request_refuse_later(reactor, stream, REFUSAL_METHOD)
    elif not stream.header_flags & HEADER_GRPC:
        request_refuse_later(reactor, stream, REFUSAL_CONTENT)
    elif stream.method == METHOD_UNKNOWN:
        stream_finish(reactor, stream, GRPC_UNIMPLEMENTED, "unknown service or method")
    elif stream.header_flags & HEADER_ENCODED:
        stream_finish(reactor, stream, GRPC_UNIMPLEMENTED, "compressed requests are not supported: use identity")
    elif stream.header_flags & HEADER_BAD_TIMEOUT:
        stream_finish(reactor, stream, GRPC_INTERNAL,
                      "malformed grpc-timeout: 1 to 8 digits and one of H M S m u n are accepted")
    elif reactor.stopping:
        stream_finish(reactor, stream, GRPC_UNAVAILABLE, "the relay is shutting down")
    elif stream.header_flags & HEADER_TIMEOUT:
        deadline = reactor.now + stream.timeout
        if deadline < reactor.now:
            deadline = UINT64_MAX
        if timers_set(&reactor.deadlines, &stream.deadline, deadline) != STATUS_OK:
            reactor.limits[LIMIT_MEMORY] += 1
            stream_finish(reactor, stream, GRPC_RESOURCE_EXHAUSTED, "out of memory")


cdef inline int filter_verdict(int feed, const uint8_t *filter, size_t size) noexcept nogil:
    """What a filter word means for a feed: 1 serve, 0 end with OK (a word of another feed), -1 not understood."""
    cdef bint policy = name_is(filter, size, "policy")
    cdef bint system = name_is(filter, size, "system")
    if size == 0 or name_is(filter, size, "all"):
        return 1
    if not policy and not system:
        return -1
    if feed == FEED_MESSAGES or (feed == FEED_ALERTS and policy) or (feed == FEED_LOGS and system):
        return 1
    return 0


cdef inline void request_watch(
    Reactor *reactor, Stream *stream, const uint8_t *message, size_t size, nghttp2_data_provider *provider
) noexcept nogil:
    """A subscriber's request is complete."""
    cdef const uint8_t *filter = NULL
    cdef size_t filter_size = 0
    cdef int feed = stream.method - METHOD_MESSAGES
    cdef int verdict
    if grpc_filter_decode(message, size, &filter, &filter_size) != STATUS_OK:
        stream_finish(reactor, stream, GRPC_INTERNAL, "the request is not a feeder.RequestMessage")
        return
    verdict = filter_verdict(feed, filter, filter_size)
    if verdict < 0:
        stream_finish(
            reactor, stream, GRPC_INVALID_ARGUMENT,
            "unknown filter: \"\" and \"all\" (everything), \"policy\" (alerts) and \"system\" (logs) are accepted")
        return
    if verdict == 0:
        stream_finish(reactor, stream, GRPC_OK, "")
        return
    if reactor.stopping:
        stream_finish(reactor, stream, GRPC_UNAVAILABLE, "the relay is shutting down")
        return
    if reactor.subscriber_count >= reactor.settings.max_subscribers:
        reactor.limits[LIMIT_SUBSCRIBERS] += 1
        stream_finish(reactor, stream, GRPC_RESOURCE_EXHAUSTED, "too many subscribers: max-subscribers of the relay")
        return
    if stream.connection.address.subscribers >= reactor.address_subscribers:
        reactor.limits[LIMIT_ADDRESS] += 1
        stream_finish(reactor, stream, GRPC_RESOURCE_EXHAUSTED,
                      "too many subscribers of one address: max-connections-per-address of the relay")
        return
    memcpy(stream.filter, filter, filter_size)
    stream.filter[filter_size] = 0
    reactor.numbers += 1
    stream.number = reactor.numbers
    subscriber_attach(reactor, stream, feed)
    stream_respond(reactor, stream, provider)


cdef inline void request_check(
    Reactor *reactor, Stream *stream, const uint8_t *message, size_t size, nghttp2_data_provider *provider
) noexcept nogil:
    """HealthCheck: echo the nonce, unless it is our own."""
    cdef int32_t nonce = 0
    cdef uint8_t reply[GRPC_INT32_MESSAGE_BYTES]
    if grpc_nonce_decode(message, size, &nonce) != STATUS_OK:
        stream_finish(reactor, stream, GRPC_INTERNAL, "the request is not a feeder.NonceMessage")
        return
    if node_is_self(reactor, nonce):
        stream_finish(reactor, stream, GRPC_FAILED_PRECONDITION, status_text(STATUS_SELF))
        return
    stream.kind = STREAM_ANSWER
    if not stream_answer(reactor, stream, reply, grpc_reply_encode(nonce, reply), True):
        stream_finish(reactor, stream, GRPC_RESOURCE_EXHAUSTED, "out of memory")
        return
    stream_final(stream, GRPC_OK, "")
    stream_respond(reactor, stream, provider)


cdef inline bint request_tell(
    Reactor *reactor, Stream *stream, int what, const uint8_t *message, size_t size
) noexcept nogil:
    """Hand something of a call to Python; False when the queue is full."""
    cdef Report *report = report_new(reactor, REPORT_CALL, size)
    if report == NULL:
        return False
    report.what = <uint8_t> what
    report.number = stream.number
    report.path = stream.path
    report.first = stream.messages == 1 and what == CALL_MESSAGE
    if size:
        memcpy(report.data, message, size)
    return mailbox_report(reactor, report, True) == STATUS_OK


cdef inline void request_call(
    Reactor *reactor, Stream *stream, const uint8_t *message, size_t size, nghttp2_data_provider *provider
) noexcept nogil:
    """A message for Python."""
    connection_spend(stream.connection, CALL_COST)
    if stream.kind == STREAM_REQUEST:
        stream.kind = STREAM_ANSWER
        stream.call = True
        reactor.numbers += 1
        stream.number = reactor.numbers
        stream.previous_call = NULL
        stream.next_call = reactor.calls
        if reactor.calls != NULL:
            reactor.calls.previous_call = stream
        reactor.calls = stream
    if not request_tell(reactor, stream, CALL_MESSAGE, message, size):
        reactor.limits[LIMIT_CALLS] += 1
        if stream.messages == 1:
            # Python has not heard of it, so its end is no news either; the queue must not grow by it.
            stream_call_end(reactor, stream, False)
        stream_end(reactor, stream, GRPC_RESOURCE_EXHAUSTED, "too many calls wait for an answer",
                   NGHTTP2_ENHANCE_YOUR_CALM)
        return
    stream_respond(reactor, stream, provider)


cdef inline void request_message(
    Reactor *reactor, Stream *stream, const uint8_t *message, size_t size, nghttp2_data_provider *provider
) noexcept nogil:
    """One whole request message."""
    stream.messages += 1
    if stream.method == METHOD_PYTHON:
        request_call(reactor, stream, message, size, provider)
    elif stream.messages > 1:
        if stream.split_left == 0:
            stream_finish(reactor, stream, GRPC_UNIMPLEMENTED, "the method takes exactly one request message")
    elif stream.method != METHOD_HEALTH_CHECK:
        request_watch(reactor, stream, message, size, provider)


cdef inline bint request_prefix_ok(Reactor *reactor, Stream *stream, const uint8_t *prefix) noexcept nogil:
    """Whether a request message may be received; else the stream has been ended."""
    cdef char text[TEXT_BYTES]
    if prefix[0] > 1:
        stream_end(reactor, stream, GRPC_INTERNAL, "the message's compressed flag is neither 0 nor 1",
                   NGHTTP2_INTERNAL_ERROR)
    elif prefix[0] == 1:
        stream_end(reactor, stream, GRPC_INTERNAL,
                   "the message is compressed, though grpc-encoding is identity", NGHTTP2_INTERNAL_ERROR)
    elif relay_frame_length(prefix) > reactor.settings.max_request_bytes:
        reactor.limits[LIMIT_REQUEST] += 1
        snprintf(text, sizeof(text), "request message of %u bytes, %u are accepted",
                 relay_frame_length(prefix), reactor.settings.max_request_bytes)
        stream_end(reactor, stream, GRPC_RESOURCE_EXHAUSTED, text, NGHTTP2_ENHANCE_YOUR_CALM)
    else:
        return True
    return False


cdef inline size_t request_budget(const Reactor *reactor) noexcept nogil:
    """Bytes that all requests together may take; two of the largest always fit."""
    cdef size_t two = 2 * (PREFIX + <size_t> reactor.settings.max_request_bytes)
    return two if two > REQUESTS_BYTES else REQUESTS_BYTES


cdef inline void request_data(
    Reactor *reactor, Stream *stream, const uint8_t *data, size_t size, nghttp2_data_provider *provider
) noexcept nogil:
    """Bytes of the request's body, cut anywhere."""
    cdef size_t length
    cdef size_t needed
    cdef size_t count
    cdef size_t capacity
    cdef size_t former
    cdef void *grown
    if stream.refusal:
        stream.request_used += size
        if stream.request_used > reactor.settings.max_request_bytes:
            request_refuse(reactor, stream, provider)
        return
    while size and stream.kind != STREAM_OVER and not stream.plain:
        # Gather the prefix, then as much as the prefix announces; the buffer grows with what has arrived.
        if stream.request_used < PREFIX:
            needed = PREFIX
        else:
            needed = PREFIX + relay_frame_length(stream.request)
        count = needed - stream.request_used
        if count > size:
            count = size
        if stream.request_used + count > stream.request_capacity:
            capacity = stream.request_capacity * 2 if stream.request_capacity else REQUEST_LEAST
            while capacity < stream.request_used + count:
                capacity *= 2
            if capacity > PREFIX + <size_t> reactor.settings.max_request_bytes:
                capacity = PREFIX + <size_t> reactor.settings.max_request_bytes
            # A small one always fits: nobody can keep others from subscribing.
            if (capacity > REQUEST_LEAST
                    and reactor.requesting + capacity - stream.request_capacity > request_budget(reactor)):
                reactor.limits[LIMIT_REQUEST] += 1
                stream_end(reactor, stream, GRPC_RESOURCE_EXHAUSTED, "too many large requests at a time",
                           NGHTTP2_ENHANCE_YOUR_CALM)
                return
            former = block_bytes(stream.request)
            grown = memory_resize(&reactor.memory, stream.request, capacity)
            if grown == NULL:
                reactor.limits[LIMIT_MEMORY] += 1
                stream_end(reactor, stream, GRPC_RESOURCE_EXHAUSTED, "out of memory", NGHTTP2_ENHANCE_YOUR_CALM)
                return
            reactor.requesting += capacity - stream.request_capacity
            connection_charge(stream.connection, block_bytes(grown) - former)
            stream.request = <uint8_t *> grown
            stream.request_capacity = capacity
        memcpy(stream.request + stream.request_used, data, count)
        stream.request_used += count
        data += count
        size -= count
        if stream.request_used == PREFIX and needed == PREFIX:
            if not request_prefix_ok(reactor, stream, stream.request):
                return
            needed = PREFIX + relay_frame_length(stream.request)
        if stream.request_used == needed:
            if stream.method == METHOD_HEALTH_CHECK and stream.messages == 0:
                stream.messages = 1                   # kept until the client has half-closed
                stream.request_used = 0
                length = needed - PREFIX
                stream.check_size = length
                if length:
                    memmove(stream.request, stream.request + PREFIX, length)
                stream.check = stream.request
                stream.request = NULL
                stream.request_capacity = 0
                continue
            length = needed - PREFIX
            stream.request_used = 0
            request_message(reactor, stream, stream.request + PREFIX, length, provider)
    connection_dirty(stream.connection)


cdef inline void request_half_closed(Reactor *reactor, Stream *stream, nghttp2_data_provider *provider) noexcept nogil:
    """The client has sent all it will send."""
    if stream.half_closed:
        return
    stream.half_closed = True
    if stream.refusal:
        request_refuse(reactor, stream, provider)
    if stream.kind == STREAM_OVER or stream.plain or stream.split_left:
        return
    if stream.request_used:
        stream_end(reactor, stream, GRPC_INTERNAL, "the request ended in the middle of a message",
                   NGHTTP2_INTERNAL_ERROR)
    elif stream.messages == 0:
        stream_finish(reactor, stream, GRPC_UNIMPLEMENTED, "the method takes exactly one request message")
    elif stream.method == METHOD_HEALTH_CHECK and stream.kind == STREAM_REQUEST:
        request_check(reactor, stream, stream.check, stream.check_size, provider)
    elif stream.call:
        if not request_tell(reactor, stream, CALL_HALF_CLOSED, NULL, 0):
            reactor.limits[LIMIT_CALLS] += 1
            stream_end(reactor, stream, GRPC_RESOURCE_EXHAUSTED, "too many calls wait for an answer",
                       NGHTTP2_ENHANCE_YOUR_CALM)
    stream_request_free(reactor, stream)
