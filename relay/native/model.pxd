"""The structs that the reactor owns. Functions on them live in the files named after what they do.

Everything here belongs to the reactor thread, save what lies in `Mailbox` (under its lock), the
journals' segments (journal.pxd says how) and `Memory`'s counters.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from relay.native.journal cimport Journal, Place, Segment
from relay.native.memory cimport Memory
from relay.native.names cimport Names
from relay.native.nghttp2 cimport nghttp2_option, nghttp2_session, nghttp2_session_callbacks
from relay.native.openssl cimport BIO, BIO_METHOD, SSL, SSL_CTX, SSL_SESSION, X509
from relay.native.posix cimport epoll_event, iovec, pthread_cond_t, pthread_mutex_t, sockaddr_storage
from relay.native.shape cimport Shapes
from relay.native.timers cimport Timer, Timers


cdef enum:
    FEEDS = 3
    FEED_MESSAGES = 0
    FEED_ALERTS = 1
    FEED_LOGS = 2
    PREFIX = 5                 # bytes of a gRPC Length-Prefixed-Message's prefix
    FRAME_HEADER = 9           # bytes of an HTTP/2 frame header (RFC 9113, 4.1)
    FRAME_PAYLOAD = 16384      # the payload limit we advertise (the default) and send
    PREFACE = 24               # bytes of the client's connection preface (RFC 9113, 3.4)

    # One read of at most this per ready socket and turn. Measured flat out, beside HAProxy in the same rounds: 256 KiB
    # 1.02x its CPU, 1 MiB 0.80x, 2 MiB 0.83x. But reads must not outrun the sockets of subscribers: while one of them
    # has a tail, RECEIVE_BEHIND. (1 MiB always lost a third of the events in two of four runs with an unbounded node.)
    RECEIVE_BYTES = 1048576
    RECEIVE_BEHIND = 262144
    # The same for subscribers' sockets, which send requests, not events: some 400 requests, a millisecond, at most.
    REQUEST_READ_BYTES = 8192
    # One writev gathers about this much at most, so that a full read leaves in one (measured: two in its place cost
    # 0.08 us an event more); what the kernel does not accept of it is copied.
    WRITE_BYTES = 1048576
    WRITE_ROUNDS = 4           # writevs for one subscriber a turn, while the kernel takes all of it
    OUTPUT_PIECES = 1000        # iovecs of one writev (IOV_MAX is 1024)
    OUTPUT_SCRATCH = 65536     # control frames and DATA headers of one writev
    EVENTS_A_WAIT = 512

    NODE_WINDOW = 8388608             # flow-control window of each feed's stream
    NODE_CONNECTION_WINDOW = 16777216

    TEXT_BYTES = 200           # texts that reports carry, cut to this
    NAME_BYTES = 256           # a DNS name and its NUL

    TLS_PLAIN = 16384          # most bytes that one record of TLS carries (RFC 8446, 5.1)
    # Of a read decrypted before it is looked at: so much stays in a core's own caches. (Reads and writes themselves are
    # as large as without TLS; measured flat out, beside nginx: 0.92x its CPU, with 256 KiB each 1.03x.)
    TLS_PART_BYTES = 32768
    # What a gathering becomes, and what OpenSSL may have to say besides. Two records in a row carry more than
    # TLS_PLAIN, and one record adds at most 90 bytes.
    TLS_SEALS = 2 * WRITE_BYTES // TLS_PLAIN + 16
    TLS_SEALED_BYTES = WRITE_BYTES + 2 * TLS_PLAIN + TLS_SEALS * 90 + 65536

# What a descriptor in epoll belongs to.
cdef enum:  # ConnectionKind
    CONNECTION_LISTENER
    CONNECTION_CLIENT          # somebody connected to us
    CONNECTION_NODE            # we connected to a KubeArmor daemon
    CONNECTION_WAKE            # the eventfd of the command queue
    CONNECTION_LEISURE         # the second epoll, leisure.pxd

cdef enum:  # ConnectionState
    CONNECTION_OPENING         # node: connect() under way; client: preface not complete
    CONNECTION_OPEN            # HTTP/2 session lives
    CONNECTION_ENDING          # GOAWAY sent, or our last bytes are on their way: flush, then close
    CONNECTION_CLOSED          # descriptor closed; freed at the end of the turn

# Why an event of a node did not reach the journal.
cdef enum:  # SkipReason
    SKIP_MALFORMED             # not a protobuf message of its feed
    SKIP_OVERSIZE              # larger than max_event_bytes
    SKIP_COMPRESSED            # compressed flag set, though we never advertise a compression
    SKIP_TRUNCATED             # the stream ended in the middle of it
    SKIP_BUDGET                # no room to assemble it
    SKIP_MEMORY                # no memory
    SKIP_REASONS

# Why somebody was refused or cut off.
cdef enum:  # Limit
    LIMIT_CONNECTIONS
    LIMIT_DESCRIPTORS
    LIMIT_HANDSHAKE            # preface not complete in time
    LIMIT_IDLE                 # connection without a stream for too long
    LIMIT_CONTROLS             # resets, pings, settings or empty frames a second, and TLS's messages about keys
    LIMIT_HEADERS              # header bytes of a request
    LIMIT_REQUEST              # bytes of a request message
    LIMIT_KEEPALIVE            # did not answer PING, or stopped acknowledging
    LIMIT_REMAINDERS           # budget for rests of split messages
    LIMIT_CALLS                # queue of calls to Python full
    LIMIT_MEMORY               # an allocation failed
    LIMIT_PROTOCOL             # HTTP/2 protocol errors
    LIMIT_TLS                  # clients refused by TLS: plaintext, no ALPN, a certificate that is not trusted
    LIMIT_ADDRESS              # connections or subscribers of one address
    LIMIT_STREAMS              # streams of a connection
    LIMIT_SUBSCRIBERS
    LIMIT_BUDGET               # bytes that clients make us hold
    LIMITS

cdef enum:  # NodeState
    NODE_IDLE
    NODE_CONNECTING
    NODE_CHECKING
    NODE_STREAMING

cdef enum:  # StreamKind
    STREAM_REQUEST             # request not complete yet
    STREAM_FEED                # a subscriber
    STREAM_ANSWER              # queued answers, then the end: HealthCheck, texts for HTTP clients, Python's calls
    STREAM_OVER                # final answer submitted; what still arrives is ignored

cdef enum:  # Method
    METHOD_UNKNOWN
    METHOD_MESSAGES            # METHOD_MESSAGES + feed
    METHOD_ALERTS
    METHOD_LOGS
    METHOD_HEALTH_CHECK
    METHOD_PYTHON

cdef enum:  # Refusal
    REFUSAL_NONE
    REFUSAL_METHOD             # 405
    REFUSAL_CONTENT            # 415
    REFUSAL_HEADERS            # 431

cdef struct Settings:
    size_t journal_bytes
    size_t max_event_bytes
    uint64_t gather            # ns
    uint32_t max_connections
    uint32_t max_address_connections
    uint32_t max_streams
    uint32_t max_subscribers
    size_t client_bytes        # that clients make us hold, journals and tails apart
    uint32_t max_header_bytes
    uint32_t max_request_bytes
    uint32_t max_controls
    uint64_t handshake_timeout  # ns, as all times here
    uint64_t idle_timeout
    uint64_t ping_after
    uint64_t ping_timeout
    uint64_t connect_timeout
    uint64_t check_timeout
    uint64_t node_silence
    uint32_t send_buffer
    size_t unsent_bytes        # in the kernel, all subscribers together
    uint32_t receive_buffer
    size_t assembly_bytes
    size_t remainder_bytes
    bint event_per_frame

# The rest of a message whose first part has been framed for somebody; shared by all streams that
# stopped in the middle of the same message when its segment was recycled.
cdef struct Remainder:
    Remainder *next            # on the reactor's list of spent ones
    uint32_t users
    uint64_t sequence
    size_t size
    uint8_t *data              # the whole frame, behind this struct

# What one queued answer of Python carries.
cdef struct Answer:
    Answer *next
    size_t size
    uint8_t *data              # whole frame, behind this struct

cdef struct Stream:
    int32_t id
    uint8_t kind               # StreamKind
    uint8_t method             # Method
    int feed                   # STREAM_FEED
    Connection *connection
    Stream *next_in_connection
    Stream *previous_in_connection
    uint64_t number            # subscriber's or call's number
    Timer deadline             # grpc-timeout

    # the request
    uint8_t header_flags       # what has been seen of the header block, request.pxd
    uint32_t header_bytes
    uint32_t path              # index of a Python path, METHOD_PYTHON
    uint64_t timeout           # ns, 0 without
    uint8_t *request
    size_t request_used
    size_t request_capacity
    uint32_t messages          # request messages seen
    uint8_t *check             # HealthCheck's message, kept until the client has half-closed
    size_t check_size
    uint8_t refusal            # Refusal: answered in HTTP's terms when the request is complete
    bint half_closed
    bint headers_sent
    bint deferred              # nghttp2 waits for resume_data

    # a subscriber
    Place place
    uint64_t start             # sequence where it began
    uint64_t framed            # events completely framed: delivered + those in flight
    uint64_t delivered
    uint64_t filtered
    uint64_t stop_at           # shutdown: run to this sequence
    bint stopping
    bint waiting               # on its feed's list of readers that have read everything
    Stream *next_waiting
    Stream *previous_waiting
    Stream *next_reader        # all subscribers of the feed
    Stream *previous_reader
    char filter[16]
    # a message that was framed in part; the place has moved past it
    size_t split_left          # bytes of it still to be framed
    const uint8_t *split_at    # where they are
    Segment *split_segment     # in the journal, or
    Remainder *remainder       # copied, since that segment was recycled
    bint split                 # on the feed's list of streams split in the journal
    Stream *next_split
    Stream *previous_split
    # loss reports
    uint64_t lost_at           # when it last lost, ns
    bint losing
    uint32_t pending           # records of output not settled yet
    bint closed                # nghttp2 has forgotten it; freed when nothing is pending
    int ended                  # gRPC status it ended with, -1 while it lives

    # offered to nghttp2 by the read callback, taken by the send callback that follows
    const uint8_t *offer
    size_t offer_size
    uint32_t offer_frames      # messages that end in it
    size_t offer_lead          # bytes of its start that belong to a message begun earlier
    size_t offer_whole         # size of a message that it only begins, else 0

    # STREAM_ANSWER
    bint plain                 # a text for an HTTP client: no prefix, no trailers
    bint call                  # Python answers it: on the reactor's list of calls
    Stream *next_call
    Stream *previous_call
    Answer *answers
    Answer *last_answer
    size_t answers_bytes
    size_t answer_sent
    int final_status           # -1 until the answer's end is known
    char final_text[TEXT_BYTES]

# A piece of a connection's output that belongs to a stream, in order; frames are settled by it.
cdef struct Record:
    Stream *stream             # NULL: control bytes, or a stream that is gone
    uint32_t size
    uint32_t frames            # messages that end in this piece
    uint32_t lead              # bytes of its start that belong to a message begun earlier

# One record of TLS: what it carries, and what it has become.
cdef struct Seal:
    uint32_t plain
    uint32_t cipher

# What a short write left behind: the bytes from the first record not wholly accepted; under TLS those of the first
# record of TLS that has not left whole.
cdef struct Tail:
    size_t size
    size_t sent                # of `size`, accepted by the kernel
    size_t accepted            # of the records' bytes: `sent`; under TLS what has left in whole records of TLS
    uint32_t records
    uint32_t settled           # records wholly accepted
    size_t settled_bytes       # and their bytes
    uint32_t seals             # 0 without TLS
    uint32_t unsealed          # of them those that have left whole
    size_t unsealed_bytes      # and their bytes
    Record *record
    Seal *seal
    uint8_t *data

# Who is connected, address.pxd.
cdef struct Address:
    Address *next              # in its bucket
    uint8_t key[16]            # an IPv4 address as IPv6, or the first half of an IPv6 address
    uint32_t connections
    uint32_t subscribers
    size_t bytes               # of Connection.charged, all its connections
    size_t excess              # of those, the bytes beyond its connections' parts

# Frame scanner of a node's connection (framing.pxd).
cdef struct Framer:
    uint8_t state
    uint8_t header[FRAME_HEADER]
    uint8_t header_used
    bint in_headers            # a header block is open: only CONTINUATION may follow
    uint32_t left              # payload bytes of the current frame still to come
    int feed                   # of the DATA frame under way
    int32_t stream             # and its stream, which may be over before the frame is
    uint32_t credit            # bytes taken past nghttp2, not yet given back to the connection's window
    bint window_due

# What one side of TLS is made of (tls_context.pxd); shared by all connections that began with it.
cdef struct TlsContext:
    uint32_t users             # atomic
    SSL_CTX *ctx
    BIO_METHOD *reads
    BIO_METHOD *writes
    X509 *root                 # NULL: no peer's certificate is trusted
    bint server                # our part
    bint kernel                # the kernel may encrypt
    char *allow                # names of which a client must carry one, each with a NUL, the last empty; or NULL
    int64_t expires            # the first end among own certificates and root, seconds since the epoch
    uint32_t roots             # certificates that came with the root

# A connection's TLS (tls.pxd), from its first bytes on.
cdef struct TlsLink:
    Connection *connection
    SSL *ssl
    const uint8_t *received    # bytes of this read that OpenSSL has not taken yet
    size_t received_size
    BIO *kernel                # through which the kernel gets keys and OpenSSL's own words; NULL: it does not encrypt
    bint open                  # the handshake is over
    bint over                  # the peer has said that it sends no more
    bint broken                # what it sent cannot be decrypted, or it has told of an error
    bint stale                 # the peer asks for keys that the kernel cannot change to
    unsigned long error        # OpenSSL's, of a handshake that failed or of what broke
    size_t said                # bytes that OpenSSL had to say by itself since a tail was last empty
    bint shaking               # a client's, on the reactor's list of handshakes under way
    uint64_t began             # when it was put there, ns
    Connection *next_shaking
    Connection *previous_shaking

cdef struct Connection:
    uint8_t kind               # ConnectionKind
    uint8_t state              # ConnectionState
    int fd
    Reactor *reactor
    nghttp2_session *session
    Connection *next
    Connection *previous
    bint ready                 # has something to read, on the ready list
    Connection *next_ready
    bint hung_up               # peer closed its side: read to the end
    bint dirty                 # has something to write, on the dirty list
    Connection *next_dirty
    uint32_t unsent            # TCP_NOTSENT_LOWAT as set
    bint writable              # the kernel has not refused bytes since it last said so
    bint goaway                # GOAWAY sent
    bint starved               # an allocation of its session failed
    int failure                # status it ended with
    int failure_errno
    Connection *next_closed
    Tail *tail
    Timer timer
    uint64_t opened            # ns
    uint64_t heard             # when bytes last arrived
    uint64_t pinged            # when our unanswered PING was sent, 0 without
    uint64_t idle_since        # without a stream since, 0 with one
    Stream *streams
    uint32_t stream_count
    uint32_t readers           # of them subscribers
    uint32_t waiting_readers   # of those, such that have read everything
    bint leisurely             # watched by the second epoll
    uint8_t settled            # flushes in a row that left nothing
    int32_t last_opened        # ids of the last stream its client opened,
    int32_t opened_before      # and of the one before
    Address *address           # CONNECTION_CLIENT, from its acceptance on
    size_t charged             # bytes that it makes us hold,
    size_t founded             # of them those that it holds from its first moment to its last;
    size_t part                # up to here they are its good right
    bint invalid               # nghttp2 has told us of a wrong frame
    uint8_t cut                # its client is over a limit: Limit + 1
    uint64_t second            # controls are counted by second
    uint32_t controls
    uint8_t preface[PREFACE]
    uint8_t preface_used
    sockaddr_storage peer
    Node *node                 # CONNECTION_NODE
    Framer framer
    TlsContext *tls_context    # what it speaks TLS with; NULL: plaintext
    TlsLink *tls               # NULL before its first bytes, and when it has said all
    bint stepping              # on one of the reactor's queues of handshakes
    Connection *next_step

cdef struct NodeStream:
    int32_t id                 # 0: not open
    int feed
    bint accepted              # response headers said 200 and gRPC
    bint slow                  # content-length given: nghttp2 must see every byte
    bint grpc_seen
    int http_status
    int grpc_status            # -1 until trailers
    char grpc_text[TEXT_BYTES]
    size_t asked               # bytes of the request framed so far
    uint32_t credit            # bytes taken past nghttp2, not yet given back to the stream's window
    bint window_due
    # the message under way
    uint8_t prefix[PREFIX]
    uint8_t prefix_used
    bint body                  # prefix complete
    bint discard               # its bytes are skipped
    uint32_t left              # bytes of it still to come
    uint8_t *part
    size_t part_used
    size_t part_capacity
    # counters
    uint64_t received
    uint64_t bytes
    uint64_t repaired
    uint64_t skipped[SKIP_REASONS]
    # report slot
    bint reported
    int report_code
    char report_text[TEXT_BYTES]

cdef struct Node:
    int32_t number
    uint8_t state
    uint32_t feeds
    char filters[FEEDS][16]
    Connection *connection
    NodeStream streams[FEEDS]
    int32_t check_stream
    int32_t nonce
    size_t header_bytes        # of the header block under way, decoded
    uint8_t check_reply[32]
    size_t check_used
    int check_http
    int check_grpc
    char check_text[TEXT_BYTES]
    size_t check_asked         # bytes of the request framed so far
    bint pings                 # it was heard to ping
    uint64_t check_sent
    uint64_t connects
    uint64_t last_window       # gather: the 10 ms window it was last read in
    bint removing
    # TLS
    char name[NAME_BYTES]      # what its certificate is checked for; empty: the address
    SSL_SESSION *session       # of the last connection, to be resumed
    sockaddr_storage session_peer
    # report slot, under the mailbox' lock
    bint dirty
    Node *next_dirty
    bint state_changed
    uint8_t report_state
    int report_code
    char report_text[TEXT_BYTES]
    Node *next
    Node *previous
    void *block                # what it was allocated in: the command that made it known

cdef enum:  # CommandKind
    COMMAND_LISTEN
    COMMAND_NODE_ADD
    COMMAND_NODE_CONNECT
    COMMAND_NODE_OPEN
    COMMAND_NODE_REMOVE
    COMMAND_PUBLISH
    COMMAND_DRAIN
    COMMAND_ANSWER
    COMMAND_SNAPSHOT
    COMMAND_NAMES
    COMMAND_TLS
    COMMAND_SHUTDOWN

cdef struct Command:
    Command *next
    uint8_t kind
    int32_t node
    int feed
    uint32_t mask
    int fd
    uint64_t number            # call or ticket
    uint64_t time              # ns
    uint64_t sequence          # COMMAND_DRAIN
    int status
    bint has_message
    sockaddr_storage address
    char text[TEXT_BYTES]
    char filters[FEEDS][16]
    Snapshot *snapshot
    Names *names               # COMMAND_NAMES: the table, or NULL for none
    TlsContext *tls[2]         # COMMAND_TLS: with subscribers, with nodes; NULL: plaintext
    size_t size
    uint8_t *data              # behind this struct

cdef enum:  # ReportKind
    REPORT_NODE
    REPORT_STREAM
    REPORT_CALL
    REPORT_SUBSCRIBER
    REPORT_DRAINED
    REPORT_TLS
    REPORT_STOPPED

cdef struct Report:
    Report *next
    uint8_t kind
    uint8_t what               # CALL_* or SUBSCRIBER_*
    int feed
    uint64_t number
    uint64_t delivered
    uint64_t lost
    int code
    uint32_t path
    bint first
    char text[TEXT_BYTES]
    size_t size
    uint8_t *data              # behind this struct

# A reader on another thread. All of it under its journal's lock.
cdef struct Reader:
    Reader *next
    Reader *previous
    int feed
    Place place
    int wake                   # eventfd
    bint waiting

cdef struct NodeCount:
    int32_t number
    uint8_t state
    bint pings
    uint64_t connects
    uint64_t received[FEEDS]
    uint64_t bytes[FEEDS]
    uint64_t repaired[FEEDS]
    uint64_t skipped[SKIP_REASONS]

cdef struct SubscriberCount:
    uint64_t number
    int feed
    uint64_t delivered
    uint64_t filtered
    uint64_t lost
    uint64_t in_flight
    uint64_t passed
    uint64_t behind
    char filter[16]
    char peer[64]

cdef struct FeedCount:
    uint64_t received
    uint64_t bytes
    uint64_t published
    uint64_t repaired
    uint64_t enriched
    uint64_t skipped[SKIP_REASONS]
    uint64_t first
    uint64_t next
    uint64_t held
    uint64_t segments
    uint64_t share
    uint64_t ended_delivered
    uint64_t ended_lost

cdef struct TlsCount:
    uint64_t handshakes        # that succeeded
    uint64_t resumed           # of those, with a session of before
    uint64_t failed
    uint64_t waiting           # under way
    uint64_t kernel            # connections for which the kernel encrypts

cdef struct Snapshot:
    bint done
    bint failed
    uint64_t subscribers
    uint64_t nodes
    NodeCount *node
    SubscriberCount *subscriber
    FeedCount feed[FEEDS]
    uint64_t limits[LIMITS]
    uint64_t connections
    uint64_t clients
    uint64_t accepted
    uint64_t turns
    uint64_t reads
    uint64_t writes
    uint64_t gathers
    uint64_t memory_bytes
    uint64_t memory_blocks
    uint64_t memory_failures
    uint64_t assembly_bytes
    uint64_t remainder_bytes
    uint64_t tail_bytes
    uint64_t client_bytes
    uint64_t addresses
    uint64_t reports_dropped
    uint64_t calls
    TlsCount tls

# What Python threads and the reactor share, under `lock`.
cdef struct Mailbox:
    pthread_mutex_t lock
    pthread_cond_t answered    # snapshots
    Command *first
    Command *last
    uint32_t commands
    size_t command_bytes
    Command *naming            # of the commands that wait, the one with a table of names
    int wake                   # eventfd: commands wait
    Report *first_report
    Report *last_report
    uint32_t reports           # of them REPORT_CALL and REPORT_SUBSCRIBER, which are bounded
    size_t report_bytes        # that they carry
    Node *dirty_nodes
    int told                   # eventfd: reports wait
    bint reporting             # `told` is written
    uint64_t dropped           # subscriber reports that found no room
    bint running               # the reactor takes commands

cdef struct Feed:
    Journal journal
    Shapes shapes
    Names *names               # what events are enriched with; NULL: nothing
    Reactor *reactor
    int number
    Stream *readers
    Stream *waiting
    Stream *split
    uint64_t received          # from nodes
    uint64_t bytes
    uint64_t published
    uint64_t repaired
    uint64_t enriched
    uint64_t skipped[SKIP_REASONS]
    uint64_t ended_delivered
    uint64_t ended_lost
    uint64_t woken             # journal.next when the waiting were last woken
    Reader *sinks              # readers on other threads, under the journal's lock

# A queue of connections, by `next_step`.
cdef struct Steps:
    Connection *first
    Connection *last

cdef struct Reactor:
    Settings settings
    Memory memory
    nghttp2_session_callbacks *server_callbacks
    nghttp2_session_callbacks *node_callbacks
    nghttp2_option *server_option
    nghttp2_option *node_option
    Feed feeds[FEEDS]
    uint32_t locked            # journals whose lock the reactor holds, by bit
    Mailbox mailbox
    int epoll
    uint64_t descriptors       # one with this number or above is not for clients
    int spare_fd               # given up to refuse a connection when descriptors are used up
    Connection wake            # CONNECTION_WAKE
    int leisure                # the second epoll
    Connection leisure_wake    # CONNECTION_LEISURE
    bint armed                 # the second epoll is in the first
    uint32_t leisurely         # connections watched by it
    uint32_t brisk_turns
    uint32_t quiet_waits
    Connection *connections
    Connection *closed         # to be freed at the end of the turn
    Connection *ready
    Connection *last_ready
    Connection *dirty
    Address **addresses        # buckets
    uint64_t address_mask
    uint64_t address_count
    uint64_t address_key[2]
    size_t client_part         # of client_bytes, for each connection
    size_t client_parts        # Connection.part, all clients
    size_t excess_most         # for what connections hold beyond their parts, all together
    size_t address_excess      # of it, for one address
    uint32_t address_subscribers  # of max_subscribers, for one address
    Timers timers              # of connections
    Timers deadlines           # of streams: grpc-timeout
    Node *nodes
    Stream *calls
    Command *drains            # COMMAND_DRAIN that wait until everybody has read so far
    Report *farewell           # REPORT_STOPPED, made at the start, so that the end needs no memory
    char **paths               # methods that Python answers
    uint32_t path_count
    uint64_t now               # ns, read once a turn
    uint64_t numbers           # subscribers and calls so far
    bint commanded             # commands may wait
    bint stopping
    bint stopped
    uint64_t stop_deadline
    int stop_code
    # counters
    uint64_t connection_count  # all sockets but listeners
    uint64_t client_count
    uint64_t accepted
    uint64_t limits[LIMITS]
    TlsCount tls
    uint64_t turns
    uint64_t reads
    uint64_t writes
    uint64_t gathers
    size_t assembling          # bytes of NodeStream.part, all nodes
    size_t remaining           # bytes of Remainder, all streams
    size_t client_bytes        # of Connection.charged, all clients
    size_t client_excess       # of those, the bytes beyond their parts
    uint64_t subscriber_count
    size_t requesting          # bytes of Stream.request and .check, all streams
    Remainder *spent           # framed whole: freed at the end of the turn, when no write points to them
    size_t tails
    # gather
    uint64_t window            # number of the current 10 ms window
    uint32_t window_reads
    uint32_t window_nodes
    bint gathering
    uint64_t turn_began
    # TLS
    TlsContext *server_tls     # with subscribers
    TlsContext *client_tls     # with nodes
    Steps going                # handshakes that can go on
    Steps coming               # clients whose handshake can begin
    uint32_t step_row          # steps in a row that were of `going`
    uint64_t next_step         # when the next step may be
    uint64_t grown             # when a feed last grew
    Connection *first_shaking  # handshakes of clients under way, the oldest first
    Connection *last_shaking
    uint32_t shaking
    uint64_t tls_told          # when a client's failure was last reported
    # scratch
    uint8_t *receive
    uint8_t *cipher            # TLS: a read
    uint8_t *stage             # one record of TLS, put together
    uint8_t *sealed            # what OpenSSL has written, for the connection that is at it
    size_t sealed_used
    Seal *seals
    uint32_t seal_count
    uint8_t *scratch
    size_t scratch_used
    iovec *pieces
    uint32_t piece_count
    size_t piece_bytes
    size_t write_bytes         # where the gathering stops
    Record *records
    uint32_t record_count
    Connection *output         # whose output is being gathered
    epoll_event *events
