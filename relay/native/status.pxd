"""The one table of what can go wrong: status → gRPC status, kind of Python exception, text.

A status is what the engine's functions return. The gRPC status is what a peer is told, the
exception's kind what `_fastpath.pyx` raises, the text what both say. The numbers are internal and
may change between versions.
"""

cdef extern from *:
    """
    #define RELAY_STATUSES(row) \\
        /*  status       gRPC status  exception           text */ \\
        row(STATUS_OK,            0, EXCEPTION_NONE,     "no error") \\
        row(STATUS_NO_MEMORY,     8, EXCEPTION_MEMORY,   "out of memory") \\
        row(STATUS_MALFORMED,    13, EXCEPTION_VALUE,    "malformed protobuf message") \\
        row(STATUS_OVERSIZE,      8, EXCEPTION_VALUE,    "message is larger than the limit") \\
        row(STATUS_REFUSED,      14, EXCEPTION_RUNTIME,  "connection refused") \\
        row(STATUS_UNREACHABLE,  14, EXCEPTION_OS,       "host is unreachable") \\
        row(STATUS_TIMEOUT,       4, EXCEPTION_RUNTIME,  "deadline exceeded") \\
        row(STATUS_CLOSED,       14, EXCEPTION_RUNTIME,  "connection closed by the peer") \\
        row(STATUS_RESET,        14, EXCEPTION_RUNTIME,  "reset by the peer") \\
        row(STATUS_PROTOCOL,     13, EXCEPTION_RUNTIME,  "HTTP/2 protocol error") \\
        row(STATUS_GOAWAY,       14, EXCEPTION_RUNTIME,  "peer is going away") \\
        row(STATUS_NONCE,        14, EXCEPTION_RUNTIME,  "HealthCheck answered with another nonce") \\
        row(STATUS_SILENT,       14, EXCEPTION_RUNTIME,  "no sign of life") \\
        row(STATUS_HTTP,         14, EXCEPTION_RUNTIME,  "HTTP status is not 200") \\
        row(STATUS_GRPC,          2, EXCEPTION_RUNTIME,  "call ended with an error") \\
        row(STATUS_ENDED,         0, EXCEPTION_RUNTIME,  "stream ended") \\
        row(STATUS_NO_TRAILERS,  13, EXCEPTION_RUNTIME,  "stream ended without trailers") \\
        row(STATUS_FULL,          8, EXCEPTION_BLOCKING, "queue is full") \\
        row(STATUS_LIMIT,         8, EXCEPTION_RUNTIME,  "limit reached") \\
        row(STATUS_SHUTDOWN,     14, EXCEPTION_RUNTIME,  "relay is shutting down") \\
        row(STATUS_SYSTEM,       14, EXCEPTION_OS,       "system error") \\
        row(STATUS_REMOVED,      14, EXCEPTION_RUNTIME,  "node was removed") \\
        row(STATUS_SELF,          9, EXCEPTION_RUNTIME,  "this is the relay itself") \\
        row(STATUS_TLS,          14, EXCEPTION_RUNTIME,  "TLS error")

    /* Which exception the Python boundary raises. */
    typedef enum {
        EXCEPTION_NONE,        /* none: not an error */
        EXCEPTION_MEMORY,      /* MemoryError */
        EXCEPTION_VALUE,       /* ValueError */
        EXCEPTION_OS,          /* OSError, with errno where there is one */
        EXCEPTION_BLOCKING,    /* BlockingIOError */
        EXCEPTION_RUNTIME      /* RuntimeError */
    } ExceptionKind;

    typedef enum {
    #define relay_status_name(status, grpc, kind, text) status,
        RELAY_STATUSES(relay_status_name)
    #undef relay_status_name
        STATUS_COUNT
    } Status;

    typedef struct {
        const char *name;
        const char *text;
        int grpc;
        ExceptionKind kind;
    } RelayStatusRow;

    static inline const RelayStatusRow *relay_status_row(int status) {
        static const RelayStatusRow rows[] = {
    #define relay_status_entry(status, grpc, kind, text) {#status, text, grpc, kind},
            RELAY_STATUSES(relay_status_entry)
    #undef relay_status_entry
        };
        static const RelayStatusRow unknown = {"STATUS_UNKNOWN", "unknown status", 2, EXCEPTION_RUNTIME};
        return status >= 0 && status < STATUS_COUNT ? &rows[status] : &unknown;
    }
    """
    ctypedef enum ExceptionKind:
        EXCEPTION_NONE
        EXCEPTION_MEMORY
        EXCEPTION_VALUE
        EXCEPTION_OS
        EXCEPTION_BLOCKING
        EXCEPTION_RUNTIME

    ctypedef enum Status:
        STATUS_OK            # all went well
        STATUS_NO_MEMORY     # an allocation failed
        STATUS_MALFORMED     # bytes that no protobuf parser takes
        STATUS_OVERSIZE      # an event or a request above its limit
        STATUS_REFUSED       # ECONNREFUSED
        STATUS_UNREACHABLE   # no route to the host or network
        STATUS_TIMEOUT       # a deadline of ours passed
        STATUS_CLOSED        # end of file on the socket
        STATUS_RESET         # RST_STREAM or ECONNRESET
        STATUS_PROTOCOL      # nghttp2 refused what the peer sent
        STATUS_GOAWAY        # the peer sent GOAWAY
        STATUS_NONCE         # HealthCheck was answered, but not with our nonce
        STATUS_SILENT        # the peer has sent nothing for too long
        STATUS_HTTP          # response headers with a status other than 200
        STATUS_GRPC          # trailers with a grpc-status other than 0
        STATUS_ENDED         # trailers with grpc-status 0 on a stream that should go on
        STATUS_NO_TRAILERS   # a stream that ended without saying how
        STATUS_FULL          # a bounded queue has no room
        STATUS_LIMIT         # a setting forbids one more
        STATUS_SHUTDOWN      # we are ending
        STATUS_SYSTEM        # a system call failed; errno says how
        STATUS_REMOVED       # the control plane removed the node
        STATUS_SELF          # a node's address is one that we serve
        STATUS_TLS           # a handshake failed, or what came cannot be decrypted
        STATUS_COUNT         # how many there are; not a status

    ctypedef struct RelayStatusRow:
        const char *name
        const char *text
        int grpc
        ExceptionKind kind

    const RelayStatusRow *relay_status_row(int status) noexcept nogil


cdef inline int status_grpc(int status) noexcept nogil:
    """The gRPC status number to answer a peer with."""
    return relay_status_row(status).grpc


cdef inline ExceptionKind status_exception(int status) noexcept nogil:
    """The kind of Python exception to raise."""
    return relay_status_row(status).kind


cdef inline const char *status_text(int status) noexcept nogil:
    """What went wrong, for people: lower case, no full stop."""
    return relay_status_row(status).text


cdef inline const char *status_name(int status) noexcept nogil:
    """The name of the code itself, for logs and tests."""
    return relay_status_row(status).name
