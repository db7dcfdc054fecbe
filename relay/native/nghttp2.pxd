"""The part of libnghttp2's interface that the engine uses (nghttp2/nghttp2.h, 1.52 and later)."""

from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.string cimport strlen


cdef extern from "nghttp2/nghttp2.h" nogil:
    ctypedef struct nghttp2_session:
        pass
    ctypedef struct nghttp2_session_callbacks:
        pass
    ctypedef struct nghttp2_option:
        pass

    ctypedef struct nghttp2_mem:
        void *mem_user_data
        void *(*malloc)(size_t size, void *user) noexcept nogil
        void (*free)(void *block, void *user) noexcept nogil
        void *(*calloc)(size_t count, size_t size, void *user) noexcept nogil
        void *(*realloc)(void *block, size_t size, void *user) noexcept nogil

    ctypedef struct nghttp2_nv:
        uint8_t *name
        uint8_t *value
        size_t namelen
        size_t valuelen
        uint8_t flags

    ctypedef struct nghttp2_settings_entry:
        int32_t settings_id
        uint32_t value

    ctypedef struct nghttp2_frame_hd:
        size_t length
        int32_t stream_id
        uint8_t type
        uint8_t flags

    ctypedef struct nghttp2_data:
        nghttp2_frame_hd hd
        size_t padlen

    ctypedef struct nghttp2_headers:
        nghttp2_frame_hd hd
        int cat

    ctypedef struct nghttp2_rst_stream:
        nghttp2_frame_hd hd
        uint32_t error_code

    ctypedef struct nghttp2_ping:
        nghttp2_frame_hd hd

    ctypedef struct nghttp2_goaway:
        nghttp2_frame_hd hd
        int32_t last_stream_id
        uint32_t error_code
        uint8_t *opaque_data
        size_t opaque_data_len

    ctypedef struct nghttp2_window_update:
        nghttp2_frame_hd hd
        int32_t window_size_increment

    ctypedef union nghttp2_frame:
        nghttp2_frame_hd hd
        nghttp2_data data
        nghttp2_headers headers
        nghttp2_rst_stream rst_stream
        nghttp2_ping ping
        nghttp2_goaway goaway
        nghttp2_window_update window_update

    ctypedef union nghttp2_data_source:
        int fd
        void *ptr

    ctypedef ssize_t (*nghttp2_data_source_read_callback)(
        nghttp2_session *session, int32_t stream_id, uint8_t *buf, size_t length,
        uint32_t *data_flags, nghttp2_data_source *source, void *user_data) noexcept nogil

    ctypedef struct nghttp2_data_provider:
        nghttp2_data_source source
        nghttp2_data_source_read_callback read_callback

    ctypedef int (*nghttp2_send_data_callback)(
        nghttp2_session *session, nghttp2_frame *frame, const uint8_t *framehd, size_t length,
        nghttp2_data_source *source, void *user_data) noexcept nogil
    ctypedef int (*nghttp2_on_begin_frame_callback)(
        nghttp2_session *session, const nghttp2_frame_hd *hd, void *user_data) noexcept nogil
    ctypedef int (*nghttp2_on_frame_recv_callback)(
        nghttp2_session *session, const nghttp2_frame *frame, void *user_data) noexcept nogil
    ctypedef int (*nghttp2_on_frame_send_callback)(
        nghttp2_session *session, const nghttp2_frame *frame, void *user_data) noexcept nogil
    ctypedef int (*nghttp2_on_invalid_frame_recv_callback)(
        nghttp2_session *session, const nghttp2_frame *frame, int error, void *user_data) noexcept nogil
    ctypedef int (*nghttp2_on_data_chunk_recv_callback)(
        nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *data,
        size_t length, void *user_data) noexcept nogil
    ctypedef int (*nghttp2_on_stream_close_callback)(
        nghttp2_session *session, int32_t stream_id, uint32_t error_code, void *user_data) noexcept nogil
    ctypedef int (*nghttp2_on_begin_headers_callback)(
        nghttp2_session *session, const nghttp2_frame *frame, void *user_data) noexcept nogil
    ctypedef int (*nghttp2_on_header_callback)(
        nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t namelen,
        const uint8_t *value, size_t valuelen, uint8_t flags, void *user_data) noexcept nogil

    int nghttp2_session_callbacks_new(nghttp2_session_callbacks **callbacks)
    void nghttp2_session_callbacks_del(nghttp2_session_callbacks *callbacks)
    void nghttp2_session_callbacks_set_send_data_callback(
        nghttp2_session_callbacks *, nghttp2_send_data_callback)
    void nghttp2_session_callbacks_set_on_begin_frame_callback(
        nghttp2_session_callbacks *, nghttp2_on_begin_frame_callback)
    void nghttp2_session_callbacks_set_on_frame_recv_callback(
        nghttp2_session_callbacks *, nghttp2_on_frame_recv_callback)
    void nghttp2_session_callbacks_set_on_frame_send_callback(
        nghttp2_session_callbacks *, nghttp2_on_frame_send_callback)
    void nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(
        nghttp2_session_callbacks *, nghttp2_on_invalid_frame_recv_callback)
    void nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
        nghttp2_session_callbacks *, nghttp2_on_data_chunk_recv_callback)
    void nghttp2_session_callbacks_set_on_stream_close_callback(
        nghttp2_session_callbacks *, nghttp2_on_stream_close_callback)
    void nghttp2_session_callbacks_set_on_begin_headers_callback(
        nghttp2_session_callbacks *, nghttp2_on_begin_headers_callback)
    void nghttp2_session_callbacks_set_on_header_callback(
        nghttp2_session_callbacks *, nghttp2_on_header_callback)
    void nghttp2_session_callbacks_set_on_invalid_header_callback(
        nghttp2_session_callbacks *, nghttp2_on_header_callback)

    int nghttp2_option_new(nghttp2_option **option)
    void nghttp2_option_del(nghttp2_option *option)
    void nghttp2_option_set_max_send_header_block_length(nghttp2_option *, size_t)
    void nghttp2_option_set_max_deflate_dynamic_table_size(nghttp2_option *, size_t)
    void nghttp2_option_set_no_closed_streams(nghttp2_option *, int)
    void nghttp2_option_set_max_outbound_ack(nghttp2_option *, size_t)
    void nghttp2_option_set_max_settings(nghttp2_option *, size_t)
    void nghttp2_option_set_peer_max_concurrent_streams(nghttp2_option *, uint32_t)

    int nghttp2_session_server_new3(
        nghttp2_session **, const nghttp2_session_callbacks *, void *user_data,
        const nghttp2_option *, nghttp2_mem *)
    int nghttp2_session_client_new3(
        nghttp2_session **, const nghttp2_session_callbacks *, void *user_data,
        const nghttp2_option *, nghttp2_mem *)
    void nghttp2_session_del(nghttp2_session *)
    ssize_t nghttp2_session_mem_recv(nghttp2_session *, const uint8_t *, size_t)
    ssize_t nghttp2_session_mem_send(nghttp2_session *, const uint8_t **)
    int nghttp2_session_want_read(nghttp2_session *)
    int nghttp2_session_want_write(nghttp2_session *)
    int nghttp2_session_resume_data(nghttp2_session *, int32_t stream_id)
    void *nghttp2_session_get_stream_user_data(nghttp2_session *, int32_t stream_id)
    int nghttp2_session_set_stream_user_data(nghttp2_session *, int32_t stream_id, void *)
    int nghttp2_session_set_local_window_size(
        nghttp2_session *, uint8_t flags, int32_t stream_id, int32_t window_size)
    int nghttp2_session_get_last_proc_stream_id(nghttp2_session *)
    int nghttp2_session_terminate_session(nghttp2_session *, uint32_t error_code)
    int nghttp2_submit_settings(
        nghttp2_session *, uint8_t flags, const nghttp2_settings_entry *, size_t)
    int nghttp2_submit_response(
        nghttp2_session *, int32_t stream_id, const nghttp2_nv *, size_t,
        const nghttp2_data_provider *)
    int32_t nghttp2_submit_request(
        nghttp2_session *, const void *priority, const nghttp2_nv *, size_t,
        const nghttp2_data_provider *, void *stream_user_data)
    int nghttp2_submit_trailer(nghttp2_session *, int32_t stream_id, const nghttp2_nv *, size_t)
    int nghttp2_submit_rst_stream(nghttp2_session *, uint8_t flags, int32_t stream_id, uint32_t code)
    int nghttp2_submit_ping(nghttp2_session *, uint8_t flags, const uint8_t *)
    int nghttp2_submit_goaway(
        nghttp2_session *, uint8_t flags, int32_t last_stream_id, uint32_t error_code,
        const uint8_t *, size_t)
    int nghttp2_is_fatal(int code)
    size_t nghttp2_session_get_outbound_queue_size(nghttp2_session *)

    int NGHTTP2_DATA, NGHTTP2_HEADERS, NGHTTP2_PRIORITY, NGHTTP2_RST_STREAM, NGHTTP2_SETTINGS
    int NGHTTP2_PUSH_PROMISE, NGHTTP2_PING, NGHTTP2_GOAWAY, NGHTTP2_WINDOW_UPDATE, NGHTTP2_CONTINUATION
    int NGHTTP2_FLAG_NONE, NGHTTP2_FLAG_END_STREAM, NGHTTP2_FLAG_END_HEADERS, NGHTTP2_FLAG_ACK
    int NGHTTP2_FLAG_PADDED
    int NGHTTP2_NV_FLAG_NONE, NGHTTP2_NV_FLAG_NO_COPY_NAME, NGHTTP2_NV_FLAG_NO_COPY_VALUE
    int NGHTTP2_DATA_FLAG_EOF, NGHTTP2_DATA_FLAG_NO_END_STREAM, NGHTTP2_DATA_FLAG_NO_COPY
    int NGHTTP2_HCAT_REQUEST, NGHTTP2_HCAT_RESPONSE, NGHTTP2_HCAT_HEADERS
    int NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE
    int NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, NGHTTP2_SETTINGS_MAX_FRAME_SIZE
    int NGHTTP2_SETTINGS_ENABLE_PUSH, NGHTTP2_SETTINGS_HEADER_TABLE_SIZE
    int NGHTTP2_NO_ERROR, NGHTTP2_PROTOCOL_ERROR, NGHTTP2_INTERNAL_ERROR, NGHTTP2_FLOW_CONTROL_ERROR
    int NGHTTP2_REFUSED_STREAM, NGHTTP2_CANCEL, NGHTTP2_ENHANCE_YOUR_CALM
    int NGHTTP2_ERR_DEFERRED, NGHTTP2_ERR_PAUSE, NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE
    int NGHTTP2_ERR_CALLBACK_FAILURE, NGHTTP2_ERR_NOMEM, NGHTTP2_ERR_FLOODED


cdef extern from * nogil:
    """
    /* What only some builds of the library offer, found by setup.py's probes, not by version. */
    #ifndef RELAY_HAVE_STREAM_RESET_RATE_LIMIT
    #define RELAY_HAVE_STREAM_RESET_RATE_LIMIT 0
    #endif
    #ifndef RELAY_HAVE_MAX_CONTINUATIONS
    #define RELAY_HAVE_MAX_CONTINUATIONS 0
    #endif
    static inline void relay_option_reset_rate(nghttp2_option *option, uint64_t burst, uint64_t rate)
    {
    #if RELAY_HAVE_STREAM_RESET_RATE_LIMIT
        nghttp2_option_set_stream_reset_rate_limit(option, burst, rate);
    #else
        (void)option; (void)burst; (void)rate;
    #endif
    }
    static inline void relay_option_continuations(nghttp2_option *option, size_t most)
    {
    #if RELAY_HAVE_MAX_CONTINUATIONS
        nghttp2_option_set_max_continuations(option, most);
    #else
        (void)option; (void)most;
    #endif
    }
    """
    void relay_option_reset_rate(nghttp2_option *option, unsigned long burst, unsigned long rate)
    void relay_option_continuations(nghttp2_option *option, size_t most)


cdef inline void header_set(nghttp2_nv *header, const char *name, const char *value, size_t size) noexcept nogil:
    """A header of `size` bytes, which nghttp2 copies when it is submitted."""
    header.name = <uint8_t *> name
    header.namelen = strlen(name)
    header.value = <uint8_t *> value
    header.valuelen = size
    header.flags = <uint8_t> NGHTTP2_NV_FLAG_NONE


cdef inline void header_text(nghttp2_nv *header, const char *name, const char *value) noexcept nogil:
    """A header whose value is a C string."""
    header_set(header, name, value, strlen(value))
