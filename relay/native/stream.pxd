"""A stream of a client's connection: made with its headers, answered, ended, freed when its last byte is settled."""

from libc.stdint cimport int32_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memcpy, strlen

from relay.native.connection cimport (
    block_bytes, connection_charge, connection_dirty, connection_discharge, connection_over,
)
from relay.native.debug cimport relay_assert
from relay.native.grpc cimport (
    GRPC_CANCELLED, GRPC_DECIMAL_BYTES, GRPC_OK, grpc_decimal_print, grpc_message_encode, grpc_prefix_write,
)
from relay.native.mailbox cimport mailbox_report, report_new, text_copy
from relay.native.memory cimport memory_release, memory_size, memory_take, memory_take_zeroed
from relay.native.model cimport (
    LIMIT_BUDGET, LIMIT_MEMORY, PREFIX, REPORT_CALL, STREAM_FEED, STREAM_OVER, STREAM_REQUEST, TEXT_BYTES, Answer,
    Connection, Reactor, Report, Stream,
)
from relay.native.nghttp2 cimport (
    NGHTTP2_CANCEL, NGHTTP2_FLAG_NONE, header_set, header_text, nghttp2_data_provider, nghttp2_nv,
    nghttp2_session_resume_data, nghttp2_submit_response, nghttp2_submit_rst_stream, nghttp2_submit_trailer,
)
from relay.native.subscriber cimport SUBSCRIBER_ENDED, subscriber_cut, subscriber_detach, subscriber_report
from relay.native.timers cimport timer_init, timers_clear

cdef enum:
    CALL_MESSAGE = 0
    CALL_HALF_CLOSED = 1
    CALL_CANCELLED = 2
    CALL_ANSWERS_BYTES = 8388608      # answers of one call that may wait for its client


cdef inline Stream *stream_new(Connection *connection, int32_t number) noexcept nogil:
    """A stream on its connection's list; NULL without memory."""
    cdef Reactor *reactor = connection.reactor
    cdef Stream *stream = <Stream *> memory_take_zeroed(&reactor.memory, sizeof(Stream))
    if stream == NULL:
        reactor.limits[LIMIT_MEMORY] += 1
        return NULL
    connection_charge(connection, block_bytes(stream))
    stream.id = number
    stream.kind = STREAM_REQUEST
    stream.connection = connection
    stream.ended = -1
    stream.final_status = -1
    timer_init(&stream.deadline, stream)
    stream.next_in_connection = connection.streams
    if connection.streams != NULL:
        connection.streams.previous_in_connection = stream
    connection.streams = stream
    connection.stream_count += 1
    connection.idle_since = 0
    return stream


cdef inline void stream_free(Reactor *reactor, Stream *stream) noexcept nogil:
    """The last of a closed stream. Also the `finish` of output_write."""
    cdef Connection *connection = stream.connection
    relay_assert(stream.pending == 0 and stream.closed, "a stream is freed when nothing is pending")
    if stream.number and not stream.call:
        reactor.feeds[stream.feed].ended_delivered += stream.delivered
        reactor.feeds[stream.feed].ended_lost += stream.place.lost
        subscriber_report(reactor, stream, SUBSCRIBER_ENDED)
    if stream.previous_in_connection != NULL:
        stream.previous_in_connection.next_in_connection = stream.next_in_connection
    else:
        connection.streams = stream.next_in_connection
    if stream.next_in_connection != NULL:
        stream.next_in_connection.previous_in_connection = stream.previous_in_connection
    connection.stream_count -= 1
    if connection.streams == NULL:
        connection.idle_since = reactor.now
    connection_discharge(connection, block_bytes(stream))
    memory_release(&reactor.memory, stream)


cdef inline void stream_request_free(Reactor *reactor, Stream *stream) noexcept nogil:
    if stream.request != NULL:
        reactor.requesting -= memory_size(stream.request)
    if stream.check != NULL:
        reactor.requesting -= memory_size(stream.check)
    connection_discharge(stream.connection, block_bytes(stream.request) + block_bytes(stream.check))
    memory_release(&reactor.memory, stream.request)
    stream.request = NULL
    stream.request_used = 0
    stream.request_capacity = 0
    memory_release(&reactor.memory, stream.check)
    stream.check = NULL


cdef inline void stream_call_end(Reactor *reactor, Stream *stream, bint tell) noexcept nogil:
    """Python need not answer any more."""
    cdef Report *report
    if not stream.call:
        return
    stream.call = False
    if stream.previous_call != NULL:
        stream.previous_call.next_call = stream.next_call
    else:
        reactor.calls = stream.next_call
    if stream.next_call != NULL:
        stream.next_call.previous_call = stream.previous_call
    if tell:
        report = report_new(reactor, REPORT_CALL, 0)
        if report != NULL:
            report.what = CALL_CANCELLED
            report.number = stream.number
            mailbox_report(reactor, report, False)
    stream.number = 0


cdef inline void stream_answer_free(Reactor *reactor, Stream *stream, Answer *answer) noexcept nogil:
    connection_discharge(stream.connection, block_bytes(answer))
    memory_release(&reactor.memory, answer)


cdef inline void stream_answers_free(Reactor *reactor, Stream *stream) noexcept nogil:
    cdef Answer *answer = stream.answers
    cdef Answer *following
    while answer != NULL:
        following = answer.next
        stream_answer_free(reactor, stream, answer)
        answer = following
    stream.answers = NULL
    stream.last_answer = NULL
    stream.answers_bytes = 0


cdef inline void stream_closed(Reactor *reactor, Stream *stream) noexcept nogil:
    """nghttp2 has forgotten the stream: take it off all lists, free it when its last record is settled."""
    if stream.closed:
        return
    if stream.ended < 0:
        stream.ended = GRPC_CANCELLED
    subscriber_detach(reactor, stream)
    stream_call_end(reactor, stream, True)
    stream_answers_free(reactor, stream)
    stream_request_free(reactor, stream)
    timers_clear(&reactor.deadlines, &stream.deadline)
    stream.closed = True
    if stream.pending == 0:
        stream_free(reactor, stream)


cdef inline size_t _trailers(Stream *stream, nghttp2_nv *headers, int code, const char *text,
                             char *status, char *encoded, char *lost) noexcept nogil:
    """grpc-status, grpc-message, relay-lost, into caller's buffers. Returns how many."""
    cdef size_t count = 1
    cdef size_t size = strlen(text)
    header_set(&headers[0], "grpc-status", status, grpc_decimal_print(<uint64_t> code, <uint8_t *> status))
    if size:
        size = grpc_message_encode(<const uint8_t *> text, size, <uint8_t *> encoded, 3 * TEXT_BYTES)
        header_set(&headers[count], "grpc-message", encoded, size)
        count += 1
    if stream.number and not stream.call and code != GRPC_OK:
        header_set(&headers[count], "relay-lost", lost,
                   grpc_decimal_print(stream.place.lost, <uint8_t *> lost))
        count += 1
    return count


cdef inline void stream_finish(Reactor *reactor, Stream *stream, int code, const char *text) noexcept nogil:
    """End a stream with a gRPC status, now: what is not framed yet is not sent.

    Not in the middle of a message: that is for `stream_abort`.
    """
    cdef nghttp2_nv headers[6]
    cdef char status[GRPC_DECIMAL_BYTES]
    cdef char lost[GRPC_DECIMAL_BYTES]
    cdef char encoded[3 * TEXT_BYTES]
    cdef size_t count
    if stream.kind == STREAM_OVER or stream.closed:
        return
    relay_assert(stream.split_left == 0, "trailers do not follow half a message")
    stream.ended = code
    subscriber_detach(reactor, stream)
    stream.kind = STREAM_OVER
    if stream.headers_sent:
        count = _trailers(stream, headers, code, text, status, encoded, lost)
        nghttp2_submit_trailer(stream.connection.session, stream.id, headers, count)
    else:
        header_text(&headers[0], ":status", "200")
        header_text(&headers[1], "content-type", "application/grpc")
        count = 2 + _trailers(stream, &headers[2], code, text, status, encoded, lost)
        nghttp2_submit_response(stream.connection.session, stream.id, headers, count, NULL)
        stream.headers_sent = True
    # Python knows of an end that it gave itself.
    stream_call_end(reactor, stream, stream.final_status < 0)
    stream_answers_free(reactor, stream)
    timers_clear(&reactor.deadlines, &stream.deadline)
    connection_dirty(stream.connection)


cdef inline void stream_abort(Reactor *reactor, Stream *stream, uint32_t error, int code) noexcept nogil:
    """End a stream with RST_STREAM."""
    if stream.kind == STREAM_OVER or stream.closed:
        return
    if stream.kind == STREAM_FEED:
        subscriber_cut(reactor, stream, error, code)
        return
    nghttp2_submit_rst_stream(stream.connection.session, NGHTTP2_FLAG_NONE, stream.id, error)
    stream.ended = code
    stream.kind = STREAM_OVER
    stream_call_end(reactor, stream, True)
    stream_answers_free(reactor, stream)
    timers_clear(&reactor.deadlines, &stream.deadline)
    connection_dirty(stream.connection)


cdef inline void stream_end(
    Reactor *reactor, Stream *stream, int code, const char *text, uint32_t error
) noexcept nogil:
    """End a stream with trailers where they can be sent, else with RST_STREAM(`error`)."""
    if stream.split_left or stream.answer_sent:
        stream_abort(reactor, stream, error, code)
    else:
        stream_finish(reactor, stream, code, text)


cdef inline void stream_respond(Reactor *reactor, Stream *stream, nghttp2_data_provider *provider) noexcept nogil:
    """Response headers of a gRPC answer, at once; its messages come through the provider."""
    cdef nghttp2_nv headers[2]
    if stream.headers_sent:
        return
    header_text(&headers[0], ":status", "200")
    header_text(&headers[1], "content-type", "application/grpc")
    stream.headers_sent = True
    if nghttp2_submit_response(stream.connection.session, stream.id, headers, 2, provider) != 0:
        nghttp2_submit_rst_stream(stream.connection.session, NGHTTP2_FLAG_NONE, stream.id, NGHTTP2_CANCEL)
    connection_dirty(stream.connection)


cdef inline bint stream_answer(
    Reactor *reactor, Stream *stream, const uint8_t *message, size_t size, bint prefixed
) noexcept nogil:
    """Queue one answer; False without memory, or with too much waiting that its client does not read."""
    cdef size_t before = PREFIX if prefixed else 0
    cdef Answer *answer
    if size > <uint32_t> -1 - PREFIX or stream.answers_bytes + size > CALL_ANSWERS_BYTES:
        return False
    if stream.answers != NULL and connection_over(stream.connection):
        reactor.limits[LIMIT_BUDGET] += 1
        return False
    answer = <Answer *> memory_take(&reactor.memory, sizeof(Answer) + before + size)
    if answer == NULL:
        return False
    connection_charge(stream.connection, block_bytes(answer))
    answer.next = NULL
    answer.size = before + size
    answer.data = <uint8_t *> (answer + 1)
    if prefixed:
        grpc_prefix_write(answer.data, <uint32_t> size)
    if size:
        memcpy(answer.data + before, message, size)
    if stream.last_answer != NULL:
        stream.last_answer.next = answer
    else:
        stream.answers = answer
    stream.last_answer = answer
    stream.answers_bytes += answer.size
    if stream.deferred:
        stream.deferred = False
        nghttp2_session_resume_data(stream.connection.session, stream.id)
    connection_dirty(stream.connection)
    return True


cdef inline void stream_final(Stream *stream, int code, const char *text) noexcept nogil:
    """The status that follows the queued answers."""
    stream.final_status = code
    text_copy(stream.final_text, text)
    if stream.deferred:
        stream.deferred = False
        nghttp2_session_resume_data(stream.connection.session, stream.id)
    connection_dirty(stream.connection)
