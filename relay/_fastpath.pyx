"""The boundary between Python and the engine: Engine and Cursor, and nothing else.

relay/_fastpath.pyi says what each method takes and raises; relay/native holds what they do.
"""

import os
import threading
from json import dumps as json_dumps

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.math cimport isfinite
from libc.stdint cimport int32_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from relay.native.counters cimport snapshot_fill, snapshot_free
from relay.native.debug cimport RELAY_DEBUGGING
from relay.native.journal cimport (
    Journal, Place, Segment, journal_floor, journal_lock, journal_pin, journal_unlock, journal_unpin, place_advance,
    place_at_head, place_at_start, place_frame_size, place_take, relay_frame_length,
)
from relay.native.json cimport Json, JsonBuffer, json_buffer_free, json_buffer_init, json_free, json_init
from relay.native.json_batch cimport JsonBatch, json_batch, place_seek
from relay.native.mailbox cimport command_new, eventfd_clear, mailbox_command
from relay.native.memory cimport Memory, memory_fail_at, memory_init, memory_release, memory_take
from relay.native.model cimport (
    COMMAND_ANSWER, COMMAND_DRAIN, COMMAND_LISTEN, COMMAND_NAMES, COMMAND_NODE_ADD, COMMAND_NODE_CONNECT,
    COMMAND_NODE_OPEN, COMMAND_NODE_REMOVE, COMMAND_PUBLISH, COMMAND_SHUTDOWN, COMMAND_SNAPSHOT, COMMAND_TLS, Command,
    Feed, FeedCount, FEEDS, LIMITS, Mailbox, NAME_BYTES, Node, NodeCount, PREFIX, Reactor, Reader, Report,
    SKIP_REASONS, Settings, Snapshot, SubscriberCount, TEXT_BYTES, TlsContext,
)
from relay.native.ip cimport IP_BYTES, ip_map
from relay.native.names cimport NAMES_KEY, NAMES_MOST, NAMES_OTHER, NAMES_TEXT, Names, names_add, names_new
from relay.native cimport model, stream as streams, subscriber as subscribers
from relay.native.posix cimport (
    AF_INET, AF_INET6, EFD_CLOEXEC, EFD_NONBLOCK, F_DUPFD_CLOEXEC, F_GETFL, F_SETFL, O_NONBLOCK,
    close as close_fd, errno, eventfd, fcntl, htons, inet_pton, monotonic, pthread_cond_wait, pthread_mutex_lock,
    pthread_mutex_unlock, sockaddr_in, sockaddr_in6,
)
from relay.native.reactor cimport reactor_free, reactor_init, reactor_run
from relay.native.writer cimport (
    WriterCount, WriterState, writer_attach, writer_count, writer_ended, writer_free, writer_init, writer_never,
    writer_run, writer_stop, writer_unwritten, writer_wait,
)
from relay.native.openssl cimport ERR_clear_error
from relay.native.status cimport (
    EXCEPTION_BLOCKING, EXCEPTION_MEMORY, EXCEPTION_OS, EXCEPTION_VALUE, STATUS_COUNT, STATUS_OK,
    relay_status_row,
)
from relay.native.tls_bio cimport tls_kernel_offered
from relay.native.tls_context cimport (
    TLS_FAULT_MEMORY, tls_context_load, tls_context_new, tls_context_release, tls_context_take,
)

NODE_IDLE = model.NODE_IDLE
NODE_CONNECTING = model.NODE_CONNECTING
NODE_CHECKING = model.NODE_CHECKING
NODE_STREAMING = model.NODE_STREAMING

REPORT_NODE = model.REPORT_NODE
REPORT_STREAM = model.REPORT_STREAM
REPORT_CALL = model.REPORT_CALL
REPORT_SUBSCRIBER = model.REPORT_SUBSCRIBER
REPORT_DRAINED = model.REPORT_DRAINED
REPORT_TLS = model.REPORT_TLS
REPORT_STOPPED = model.REPORT_STOPPED

CALL_MESSAGE = streams.CALL_MESSAGE
CALL_HALF_CLOSED = streams.CALL_HALF_CLOSED
CALL_CANCELLED = streams.CALL_CANCELLED

SUBSCRIBER_STARTED = subscribers.SUBSCRIBER_STARTED
SUBSCRIBER_LOSING = subscribers.SUBSCRIBER_LOSING
SUBSCRIBER_RECOVERED = subscribers.SUBSCRIBER_RECOVERED
SUBSCRIBER_ENDED = subscribers.SUBSCRIBER_ENDED

STATUS_TEXT = {code: relay_status_row(code).text.decode() for code in range(STATUS_COUNT)}

DEFAULT_FILTERS = ("all", "policy", "system")
FEED_NAMES = ("messages", "alerts", "logs")
SKIP_NAMES = ("malformed", "oversize", "compressed", "truncated", "budget", "memory")
LIMIT_NAMES = (
    "connections", "descriptors", "handshake", "idle", "controls", "headers", "request", "keepalive", "remainders",
    "calls", "memory", "protocol", "tls", "address", "streams", "subscribers", "budget",
)
assert len(SKIP_NAMES) == SKIP_REASONS and len(LIMIT_NAMES) == LIMITS

cdef enum:
    CURSOR_GAPS = 64           # losses that a cursor can be set back over
    CURSOR_KEPT = 4194304      # of a larger buffer for JSON nothing is kept
    TLS_TEXT = 1048576         # bytes of a certificate's, key's or root's text
    NODE_NEWS = 16             # nodes whose slots are copied under one hold of the lock


# A node's slots, copied out under the lock, so that no Python object is made while it is held.
cdef struct News:
    int32_t number
    bint changed
    uint8_t state
    int code
    char text[TEXT_BYTES]
    bint ended[FEEDS]
    int ended_code[FEEDS]
    char ended_text[FEEDS][TEXT_BYTES]


cdef void raise_status(int code, str what) except *:
    """Raise the exception that the table names for a status."""
    cdef int kind = relay_status_row(code).kind
    cdef str text = f"{what}: {relay_status_row(code).text.decode()}"
    if code == STATUS_OK:
        return
    if kind == EXCEPTION_MEMORY:
        raise MemoryError(text)
    if kind == EXCEPTION_VALUE:
        raise ValueError(text)
    if kind == EXCEPTION_OS:
        raise OSError(errno, text)
    if kind == EXCEPTION_BLOCKING:
        raise BlockingIOError(errno, text)
    raise RuntimeError(text)


cdef uint64_t bounded(str name, object value, uint64_t least, uint64_t most) except? 0:
    """An integer setting within its bounds."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} must be an integer, not {value!r}")
    if not least <= value <= most:
        raise ValueError(f"{name} is {value}; {least} to {most} are accepted")
    return value


cdef uint64_t nanoseconds(str name, object value) except? 0:
    """A duration setting, from seconds."""
    cdef double seconds = value
    if not isfinite(seconds) or not 0.001 <= seconds <= 31536000.0:
        raise ValueError(f"{name} is {value} s; 0.001 to 31536000 are accepted")
    return <uint64_t> (seconds * 1e9)


cdef void filter_copy(char *to, str value) except *:
    encoded = value.encode()
    if len(encoded) > 15:
        raise ValueError(f"the filter {value!r} is longer than 15 bytes")
    memcpy(to, <const char *> encoded, len(encoded) + 1)


cdef bytes name_encoded(object address, object name):
    """A name as the table takes it."""
    cdef Py_ssize_t size
    cdef bytes encoded
    if not isinstance(address, bytes) or not isinstance(name, str):
        raise TypeError(f"names are given as {{address: name}}, bytes and str, not {address!r} and {name!r}")
    size = len(address)
    if size != 4 and size != IP_BYTES:
        raise ValueError(f"the address {address!r} has {size} bytes; 4 (IPv4) or 16 (IPv6) are accepted")
    try:
        encoded = name.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the name {name!r} has no UTF-8 form: {error.reason}") from None
    if not 1 <= PyBytes_GET_SIZE(encoded) <= NAMES_TEXT:
        raise ValueError(f"the name {name!r} has {len(encoded)} bytes; 1 to {NAMES_TEXT} are accepted")
    return encoded


cdef Names *names_table(Reactor *reactor, list addresses, list texts, bytes random) except NULL:
    """A table of names, as `name_encoded` gives them, with a random key."""
    cdef uint64_t key[2]
    cdef uint8_t mapped[IP_BYTES]
    cdef const uint8_t *address
    cdef Names *names
    cdef Py_ssize_t i
    cdef size_t total = 0
    cdef bytes each
    for each in texts:
        total += <size_t> PyBytes_GET_SIZE(each)
    memcpy(key, PyBytes_AS_STRING(random), NAMES_KEY)
    names = names_new(&reactor.memory, <size_t> len(addresses), total, key[0], key[1])
    if names == NULL:
        raise MemoryError("no memory for a table of names")
    for i in range(len(addresses)):
        each = addresses[i]
        address = <const uint8_t *> PyBytes_AS_STRING(each)
        if PyBytes_GET_SIZE(each) == 4:
            ip_map(address, mapped)
            address = mapped
        each = texts[i]
        if names_add(names, address, <const uint8_t *> PyBytes_AS_STRING(each),
                     <size_t> PyBytes_GET_SIZE(each)) == NAMES_OTHER:
            memory_release(&reactor.memory, names)
            raise ValueError(f"the address {addresses[i]!r} is there as IPv4 and as IPv6, with two names")
    return names


cdef int feed_number(int feed) except -1:
    if not 0 <= feed < FEEDS:
        raise ValueError(f"feed {feed} does not exist; 0 messages, 1 alerts, 2 logs")
    return feed


# By TlsFault.
TLS_FAULTS = (
    "", "", "certificate: no certificate in PEM that can be read",
    "certificate: what follows the first certificate cannot be read", "certificate: not valid yet",
    "certificate: expired", "certificate: too weak, or of a kind that OpenSSL does not take (security level 2)",
    "key: no private key in PEM without a password that can be read", "key: not that of the certificate",
    "root: no certificate in PEM that can be read", "root: not valid yet", "root: expired",
    "root: not a certificate authority (basic constraints, key usage)",
)


cdef class Tls:
    cdef TlsContext *context
    cdef bint whole            # made to the end

    def __init__(
        self, *, bint server, bytes certificate=b"", bytes key=b"", bytes root=b"", str client_auth="require", allow=(),
        bint kernel=True
    ):
        cdef int fault
        cdef bytes names
        if self.context != NULL:
            raise RuntimeError("a Tls is made once")
        if client_auth not in ("none", "request", "require"):
            raise ValueError(f"client_auth is {client_auth!r}; none, request and require are accepted")
        if server and not certificate:
            raise ValueError("certificate: a server has one")
        if not root and (not server or client_auth != "none"):
            raise ValueError("root: no peer can be verified without one")
        if max(len(certificate), len(key), len(root)) > TLS_TEXT:
            raise ValueError(f"certificate, key and root: at most {TLS_TEXT} bytes each")
        names = b"".join([name.encode() + b"\0" for name in allow])
        if any([not name or "\0" in name or name[0] == "." for name in allow]):
            raise ValueError(f"allow is {allow!r}; whole names are accepted")
        self.context = tls_context_new(
            server, not server or client_auth != "none", server and client_auth == "require",
            kernel and tls_kernel_offered())
        if self.context == NULL:
            raise MemoryError("no memory for TLS")
        if names:
            self.context.allow = <char *> calloc(1, len(names) + 1)
            if self.context.allow == NULL:
                raise MemoryError("no memory for TLS")
            memcpy(self.context.allow, <const char *> names, len(names))
        fault = tls_context_load(
            self.context, <const uint8_t *> PyBytes_AS_STRING(certificate), <int> len(certificate),
            <const uint8_t *> PyBytes_AS_STRING(key), <int> len(key),
            <const uint8_t *> PyBytes_AS_STRING(root), <int> len(root))
        ERR_clear_error()
        if fault == TLS_FAULT_MEMORY:
            raise MemoryError("no memory for TLS")
        if fault:
            raise ValueError(TLS_FAULTS[fault])
        self.whole = True

    def __dealloc__(self):
        tls_context_release(self.context)

    cdef TlsContext *made(self) except NULL:
        if not self.whole:
            raise RuntimeError("the Tls was not made")
        return self.context

    @property
    def expires(self):
        return self.made().expires

    @property
    def roots(self):
        return self.made().roots

    @property
    def kernel(self):
        return bool(self.made().kernel)


cdef class Engine:
    cdef Reactor *reactor
    cdef object thread
    cdef set nodes
    cdef bint closed
    cdef int busy              # calls of other threads that are inside the reactor's memory
    cdef list paths
    cdef list writers          # started and not known to have ended
    cdef Command *last         # the command that ends the thread, so that its end needs no memory
    cdef object __weakref__

    def __cinit__(self):
        self.nodes = set()
        self.paths = []
        self.writers = []
        self.closed = False

    def __init__(
        self, *, journal_bytes=64 << 20, max_event_bytes=4 << 20, gather_us=500, max_connections=256,
        max_address_connections=64, max_streams=100, max_subscribers=512, client_bytes=16 << 20,
        max_header_bytes=16384, max_request_bytes=65536, handshake_timeout=10.0, idle_timeout=300.0,
        max_controls=10000, ping_after=5.0, ping_timeout=20.0, connect_timeout=10.0,
        check_timeout=5.0, node_silence=10.0, send_buffer=0, unsent_bytes=16 << 20,
        receive_buffer=0, assembly_bytes=None, remainder_bytes=None, event_per_frame=False
    ):
        cdef Settings *settings
        cdef int code
        cdef size_t floor
        if self.reactor != NULL:
            raise RuntimeError("an Engine is made once")
        self.reactor = <Reactor *> calloc(1, sizeof(Reactor))
        if self.reactor == NULL:
            raise MemoryError("no memory for an engine")
        settings = &self.reactor.settings
        try:
            settings.max_event_bytes = bounded("max_event_bytes", max_event_bytes, 1, 1 << 30)
            floor = FEEDS * journal_floor(settings.max_event_bytes)
            settings.journal_bytes = bounded("journal_bytes", journal_bytes, floor, 1 << 46)
            settings.gather = bounded("gather_us", gather_us, 0, 1000000) * 1000
            settings.max_connections = <uint32_t> bounded("max_connections", max_connections, 1, 1 << 20)
            settings.max_address_connections = <uint32_t> bounded(
                "max_address_connections", max_address_connections, 1, 1 << 20)
            settings.max_subscribers = <uint32_t> bounded("max_subscribers", max_subscribers, 1, 1 << 20)
            settings.client_bytes = bounded("client_bytes", client_bytes, 1 << 20, 1 << 46)
            settings.max_streams = <uint32_t> bounded("max_streams", max_streams, 1, 1 << 20)
            settings.max_header_bytes = <uint32_t> bounded("max_header_bytes", max_header_bytes, 512, 65536)
            settings.max_request_bytes = <uint32_t> bounded("max_request_bytes", max_request_bytes, 16, 1 << 26)
            settings.max_controls = <uint32_t> bounded("max_controls", max_controls, 1, 1 << 30)
            settings.handshake_timeout = nanoseconds("handshake_timeout", handshake_timeout)
            settings.idle_timeout = nanoseconds("idle_timeout", idle_timeout)
            settings.ping_after = nanoseconds("ping_after", ping_after)
            settings.ping_timeout = nanoseconds("ping_timeout", ping_timeout)
            settings.connect_timeout = nanoseconds("connect_timeout", connect_timeout)
            settings.check_timeout = nanoseconds("check_timeout", check_timeout)
            settings.node_silence = nanoseconds("node_silence", node_silence)
            settings.send_buffer = <uint32_t> bounded("send_buffer", send_buffer, 0, 1 << 30)
            settings.unsent_bytes = bounded("unsent_bytes", unsent_bytes, 1 << 16, 1 << 46)
            settings.receive_buffer = <uint32_t> bounded("receive_buffer", receive_buffer, 0, 1 << 30)
            # One event being assembled takes up to twice its size, since its buffer doubles.
            if assembly_bytes is None:
                assembly_bytes = max(4 * max_event_bytes, journal_bytes // 8)
            if remainder_bytes is None:
                remainder_bytes = max(2 * max_event_bytes + 1024, journal_bytes // 8)
            settings.assembly_bytes = bounded("assembly_bytes", assembly_bytes, 2048, 1 << 46)
            settings.remainder_bytes = bounded("remainder_bytes", remainder_bytes, 2048, 1 << 46)
            settings.event_per_frame = event_per_frame
        except BaseException:
            free(self.reactor)
            self.reactor = NULL
            raise
        code = reactor_init(self.reactor)
        if code != STATUS_OK:
            reactor_free(self.reactor)
            free(self.reactor)
            self.reactor = NULL
            raise_status(code, "the engine cannot be made")

    def __dealloc__(self):
        if self.reactor != NULL:
            memory_release(&self.reactor.memory, self.last)
            reactor_free(self.reactor)
            free(self.reactor)

    cdef Reactor *live(self) except NULL:
        if self.closed or self.reactor == NULL:
            raise RuntimeError("the engine is closed")
        return self.reactor

    cdef Command *command(self, int kind, size_t size) except NULL:
        cdef Command *command = command_new(self.live(), kind, size)
        if command == NULL:
            raise MemoryError("no memory for a command")
        return command

    cdef int give(self, Command *command, bint bounded_queue) except -1:
        """Hand a command over: its status, STATUS_FULL or STATUS_SHUTDOWN among them."""
        return mailbox_command(self.reactor, command, bounded_queue)

    def start(self):
        self.live()
        if self.thread is not None:
            raise RuntimeError("the engine was started before")
        if self.last == NULL:
            self.last = self.command(COMMAND_SHUTDOWN, 0)
            self.last.mask = 1
        self.thread = threading.Thread(target=self._run, name="reactor", daemon=True)
        self.thread.start()

    def _run(self):
        cdef Reactor *reactor = self.reactor
        with nogil:
            reactor_run(reactor)

    def fileno(self):
        return self.live().mailbox.told

    def listen(self, int fd):
        cdef Command *command
        cdef int own = fcntl(fd, F_DUPFD_CLOEXEC, 3)
        if own < 0:
            raise OSError(errno, f"descriptor {fd} cannot be duplicated")
        fcntl(own, F_SETFL, fcntl(own, F_GETFL) | O_NONBLOCK)
        try:
            command = self.command(COMMAND_LISTEN, 0)
        except BaseException:
            close_fd(own)
            raise
        command.fd = own
        if self.give(command, False) != STATUS_OK:
            close_fd(own)
            raise RuntimeError("the engine has ended")

    def handle(self, list paths):
        cdef Reactor *reactor = self.live()
        cdef uint32_t i
        if self.thread is not None:
            raise RuntimeError("methods are named before the engine is started")
        for i in range(reactor.path_count):
            memory_release(&reactor.memory, reactor.paths[i])
        memory_release(&reactor.memory, reactor.paths)
        reactor.paths = NULL
        reactor.path_count = 0
        self.paths = []
        encoded = [path.encode() for path in paths]
        reactor.paths = <char **> memory_take(&reactor.memory, (len(encoded) + 1) * sizeof(char *))
        if reactor.paths == NULL:
            raise MemoryError("no memory for the methods' paths")
        for path, given in zip(encoded, paths, strict=True):
            reactor.paths[reactor.path_count] = <char *> memory_take(&reactor.memory, len(path) + 1)
            if reactor.paths[reactor.path_count] == NULL:
                raise MemoryError("no memory for the methods' paths")
            memcpy(reactor.paths[reactor.path_count], <const char *> path, len(path) + 1)
            reactor.path_count += 1
            self.paths.append(given)

    def add_node(self, int node, int feeds=7, filters=DEFAULT_FILTERS):
        cdef Command *command
        cdef int feed
        self.live()
        if node < 0:
            raise ValueError(f"the node's number is {node}; 0 to 2147483647 are accepted")
        if node in self.nodes:
            raise ValueError(f"there is a node {node} already")
        if not 1 <= feeds <= 7:
            raise ValueError(f"the feeds' mask is {feeds}; 1 to 7 are accepted")
        if len(filters) != FEEDS:
            raise ValueError("one filter for each of messages, alerts and logs is expected")
        command = self.command(COMMAND_NODE_ADD, sizeof(Node))
        memset(command.data, 0, sizeof(Node))
        try:
            for feed in range(FEEDS):
                filter_copy(command.filters[feed], filters[feed])
        except BaseException:
            memory_release(&self.reactor.memory, command)
            raise
        command.node = node
        command.mask = <uint32_t> feeds
        if self.give(command, False) == STATUS_OK:
            self.nodes.add(node)

    def connect_node(self, int node, str address, int port, str name=""):
        cdef Command *command
        cdef sockaddr_in *four
        cdef sockaddr_in6 *six
        cdef bytes encoded = name.encode()
        if not 1 <= port <= 65535:
            raise ValueError(f"port {port} does not exist; 1 to 65535 are accepted")
        if PyBytes_GET_SIZE(encoded) >= NAME_BYTES or 0 in encoded:
            raise ValueError(f"the name {name!r} is no DNS name")
        text = address.encode()
        command = self.command(COMMAND_NODE_CONNECT, <size_t> PyBytes_GET_SIZE(encoded))
        memcpy(command.data, PyBytes_AS_STRING(encoded), command.size)
        four = <sockaddr_in *> &command.address
        six = <sockaddr_in6 *> &command.address
        command.node = node
        if inet_pton(AF_INET, text, &four.sin_addr) == 1:
            four.sin_family = AF_INET
            four.sin_port = htons(<unsigned short> port)
        elif inet_pton(AF_INET6, text, &six.sin6_addr) == 1:
            six.sin6_family = AF_INET6
            six.sin6_port = htons(<unsigned short> port)
        else:
            memory_release(&self.reactor.memory, command)
            raise ValueError(f"{address!r} is neither an IPv4 nor an IPv6 address")
        self.give(command, False)

    def open_stream(self, int node, int feed):
        cdef Command *command
        feed_number(feed)
        command = self.command(COMMAND_NODE_OPEN, 0)
        command.node = node
        command.feed = feed
        self.give(command, False)

    def remove_node(self, int node):
        cdef Command *command = self.command(COMMAND_NODE_REMOVE, 0)
        command.node = node
        self.give(command, False)
        self.nodes.discard(node)

    def publish(self, int feed, bytes frames):
        cdef Command *command
        cdef size_t size = <size_t> PyBytes_GET_SIZE(frames)
        cdef const uint8_t *data = <const uint8_t *> PyBytes_AS_STRING(frames)
        cdef size_t at = 0
        cdef size_t length
        cdef bint whole = True
        cdef int code
        feed_number(feed)
        with nogil:
            while at < size:
                if size - at < PREFIX or data[at] != 0:
                    whole = False
                    break
                length = relay_frame_length(data + at)
                if length > size - at - PREFIX:
                    whole = False
                    break
                at += PREFIX + length
        if not whole:
            raise ValueError(f"byte {at} of the frames does not begin a whole, uncompressed frame")
        command = self.command(COMMAND_PUBLISH, size)
        command.feed = feed
        memcpy(command.data, data, size)
        code = self.give(command, True)
        if code != STATUS_OK:
            raise_status(code, "publish")

    def set_names(self, names):
        cdef Command *command
        cdef Reactor *reactor
        cdef list addresses = []
        cdef list texts = []
        cdef bytes random = os.urandom(NAMES_KEY)
        for address, name in names.items():
            texts.append(name_encoded(address, name))
            addresses.append(address)
        if len(addresses) > NAMES_MOST:
            raise ValueError(f"{len(addresses)} addresses have names; {NAMES_MOST} are accepted")
        # From here on nothing lets another thread close the engine.
        reactor = self.live()
        command = self.command(COMMAND_NAMES, 0)
        try:
            command.names = names_table(reactor, addresses, texts, random) if addresses else NULL
        except BaseException:
            memory_release(&reactor.memory, command)
            raise
        self.give(command, False)

    def set_tls(self, *, Tls server, Tls client):
        cdef Command *command
        if server is not None and not server.made().server:
            raise ValueError("server is a Tls of a client")
        if client is not None and client.made().server:
            raise ValueError("client is a Tls of a server")
        command = self.command(COMMAND_TLS, 0)
        command.tls[0] = tls_context_take(server.context) if server is not None else NULL
        command.tls[1] = tls_context_take(client.context) if client is not None else NULL
        self.give(command, False)

    def drain(self, uint64_t ticket, int feed):
        cdef Command *command
        cdef int code
        feed_number(feed)
        command = self.command(COMMAND_DRAIN, 0)
        command.number = ticket
        command.feed = feed
        code = self.give(command, False)
        if code != STATUS_OK:
            raise_status(code, "drain")

    def answer(self, uint64_t call, message, status=None, str text=""):
        cdef Command *command
        cdef bytes body = b"" if message is None else message
        command = self.command(COMMAND_ANSWER, <size_t> PyBytes_GET_SIZE(body))
        command.number = call
        command.has_message = message is not None
        command.status = -1 if status is None else <int> status
        encoded = text.encode()[:TEXT_BYTES - 1]
        memcpy(command.text, <const char *> encoded, len(encoded))
        memcpy(command.data, PyBytes_AS_STRING(body), <size_t> PyBytes_GET_SIZE(body))
        return self.give(command, True) == STATUS_OK

    def shutdown(self, double seconds):
        cdef Command *command
        if not isfinite(seconds) or not 0 <= seconds <= 31536000:
            raise ValueError(f"a shutdown takes 0 to 31536000 s, not {seconds}")
        command = self.command(COMMAND_SHUTDOWN, 0)
        command.time = <uint64_t> (seconds * 1e9)
        self.give(command, False)

    def close(self):
        cdef uint64_t blocks
        if self.closed or self.reactor == NULL:
            return
        self.closed = True
        for writer in self.writers:
            writer.stop(0)
        self.writers = []
        if self.thread is not None:
            mailbox_command(self.reactor, self.last, False)
            self.last = NULL
            self.thread.join()
        memory_release(&self.reactor.memory, self.last)
        self.last = NULL
        # Others may be inside for the length of a copy; `closed` keeps more of them from entering.
        while self.busy:
            threading.Event().wait(0.001)
        blocks = reactor_free(self.reactor)
        free(self.reactor)
        self.reactor = NULL
        if blocks:
            raise RuntimeError(f"the engine has leaked {blocks} blocks")

    # Reports ------------------------------------------------------------------------------------

    cdef int news(self, News *copies, int most) noexcept nogil:
        """Copy up to `most` nodes' slots and empty them."""
        cdef Mailbox *mailbox = &self.reactor.mailbox
        cdef Node *node
        cdef News *copy
        cdef int count = 0
        cdef int feed
        pthread_mutex_lock(&mailbox.lock)
        while count < most and mailbox.dirty_nodes != NULL:
            node = mailbox.dirty_nodes
            mailbox.dirty_nodes = node.next_dirty
            node.dirty = False
            copy = &copies[count]
            count += 1
            copy.number = node.number
            copy.changed = node.state_changed
            copy.state = node.report_state
            copy.code = node.report_code
            memcpy(copy.text, node.report_text, TEXT_BYTES)
            node.state_changed = False
            for feed in range(FEEDS):
                copy.ended[feed] = node.streams[feed].reported
                copy.ended_code[feed] = node.streams[feed].report_code
                memcpy(copy.ended_text[feed], node.streams[feed].report_text, TEXT_BYTES)
                node.streams[feed].reported = False
        pthread_mutex_unlock(&mailbox.lock)
        return count

    def reports(self):
        cdef Mailbox *mailbox = &self.live().mailbox
        cdef News copies[NODE_NEWS]
        cdef Report *report
        cdef Report *following
        cdef int count
        cdef int i
        cdef int feed
        cdef list result = []
        eventfd_clear(mailbox.told)
        pthread_mutex_lock(&mailbox.lock)
        mailbox.reporting = False
        report = mailbox.first_report
        mailbox.first_report = NULL
        mailbox.last_report = NULL
        mailbox.reports = 0
        mailbox.report_bytes = 0
        pthread_mutex_unlock(&mailbox.lock)
        while True:
            count = self.news(copies, NODE_NEWS)
            for i in range(count):
                number = copies[i].number
                if copies[i].changed:
                    result.append((REPORT_NODE, number, copies[i].state, copies[i].code,
                                   copies[i].text.decode("utf-8", "replace")))
                for feed in range(FEEDS):
                    if copies[i].ended[feed]:
                        result.append((REPORT_STREAM, number, feed, copies[i].ended_code[feed],
                                       copies[i].ended_text[feed].decode("utf-8", "replace")))
            if count < NODE_NEWS:
                break
        while report != NULL:
            following = report.next
            try:
                result.append(self.report_tuple(report))
            finally:
                memory_release(&self.reactor.memory, report)
            report = following
        return result

    cdef tuple report_tuple(self, Report *report):
        if report.kind == model.REPORT_CALL:
            return (REPORT_CALL, report.number, report.what, self.paths[report.path] if report.first else "",
                    PyBytes_FromStringAndSize(<char *> report.data, <Py_ssize_t> report.size))
        if report.kind == model.REPORT_SUBSCRIBER:
            return (REPORT_SUBSCRIBER, report.number, report.what, report.feed, report.text.decode("utf-8", "replace"),
                    report.delivered, report.lost, report.code)
        if report.kind == model.REPORT_TLS:
            return (REPORT_TLS, (<char *> report.data).decode(), report.text.decode("utf-8", "replace"))
        if report.kind == model.REPORT_DRAINED:
            return (REPORT_DRAINED, report.number)
        return (REPORT_STOPPED, report.code, report.text.decode("utf-8", "replace"))

    # Counters -----------------------------------------------------------------------------------

    def counters(self):
        cdef Reactor *reactor = self.live()
        cdef Snapshot snapshot
        cdef Command *command
        cdef bint filled = False
        memset(&snapshot, 0, sizeof(Snapshot))
        self.busy += 1
        try:
            if self.thread is not None:
                command = self.command(COMMAND_SNAPSHOT, 0)
                command.snapshot = &snapshot
                if self.give(command, False) == STATUS_OK:
                    with nogil:
                        pthread_mutex_lock(&reactor.mailbox.lock)
                        while not snapshot.done and reactor.mailbox.running:
                            pthread_cond_wait(&reactor.mailbox.answered, &reactor.mailbox.lock)
                        filled = snapshot.done
                        pthread_mutex_unlock(&reactor.mailbox.lock)
            if not filled:
                # The reactor is not running: nobody else touches its state.
                snapshot_fill(reactor, &snapshot)
            if snapshot.failed:
                raise MemoryError("no memory for a snapshot of the counters")
            return snapshot_dict(&snapshot)
        finally:
            snapshot_free(reactor, &snapshot)
            self.busy -= 1


cdef dict skipped_dict(const uint64_t *skipped):
    return {name: skipped[i] for i, name in enumerate(SKIP_NAMES)}


cdef dict feed_dict(const FeedCount *count):
    return {
        "received": count.received, "bytes": count.bytes, "published": count.published, "repaired": count.repaired,
        "enriched": count.enriched, **skipped_dict(count.skipped), "first": count.first, "next": count.next,
        "held_bytes": count.held, "share_bytes": count.share, "segments": count.segments,
        "ended_delivered": count.ended_delivered, "ended_lost": count.ended_lost,
    }


cdef dict node_dict(const NodeCount *count):
    return {
        "node": count.number, "state": count.state, "connects": count.connects, "pings": bool(count.pings),
        "received": {name: count.received[i] for i, name in enumerate(FEED_NAMES)},
        "bytes": {name: count.bytes[i] for i, name in enumerate(FEED_NAMES)},
        "repaired": sum([count.repaired[i] for i in range(FEEDS)]), "skipped": skipped_dict(count.skipped),
    }


cdef dict subscriber_dict(SubscriberCount *count):
    return {
        "subscriber": count.number, "peer": count.peer.decode(), "feed": FEED_NAMES[count.feed],
        "filter": count.filter.decode("utf-8", "replace"), "delivered": count.delivered, "filtered": count.filtered,
        "lost": count.lost, "in_flight": count.in_flight, "passed": count.passed, "behind": count.behind,
    }


cdef dict snapshot_dict(Snapshot *snapshot):
    cdef uint64_t i
    return {
        "feeds": {name: feed_dict(&snapshot.feed[i]) for i, name in enumerate(FEED_NAMES)},
        "nodes": [node_dict(&snapshot.node[i]) for i in range(snapshot.nodes)],
        "subscribers": [subscriber_dict(&snapshot.subscriber[i]) for i in range(snapshot.subscribers)],
        "process": {
            "connections": snapshot.connections, "clients": snapshot.clients, "accepted": snapshot.accepted,
            "calls": snapshot.calls, "turns": snapshot.turns, "reads": snapshot.reads, "writes": snapshot.writes,
            "gathers": snapshot.gathers, "memory_bytes": snapshot.memory_bytes,
            "memory_blocks": snapshot.memory_blocks, "memory_failures": snapshot.memory_failures,
            "assembly_bytes": snapshot.assembly_bytes, "remainder_bytes": snapshot.remainder_bytes,
            "tail_bytes": snapshot.tail_bytes, "client_bytes": snapshot.client_bytes,
            "addresses": snapshot.addresses, "reports_dropped": snapshot.reports_dropped,
            "limits": {name: snapshot.limits[i] for i, name in enumerate(LIMIT_NAMES)},
            "tls": {
                "handshakes": snapshot.tls.handshakes, "resumed": snapshot.tls.resumed, "failed": snapshot.tls.failed,
                "waiting": snapshot.tls.waiting, "kernel": snapshot.tls.kernel,
            },
        },
    }


# A loss that a cursor has met: its first event, where the cursor went on, and all it had lost before.
cdef struct Gap:
    uint64_t start
    uint64_t after
    uint64_t lost


cdef class Cursor:
    cdef Engine engine
    cdef Reader *reader
    cdef Memory memory         # of its own, so that an engine that is closed first misses nothing
    cdef Json json
    cdef JsonBuffer out
    cdef Gap gaps[CURSOR_GAPS]
    cdef int gap_count
    cdef uint64_t floor        # losses before this sequence number are forgotten
    cdef bint inside           # a call moves it, perhaps without the GIL
    cdef bint closing          # when that call is over

    def __cinit__(self):
        memory_init(&self.memory)
        json_init(&self.json, &self.memory)
        json_buffer_init(&self.out, &self.memory)

    def __init__(self, Engine engine, int feed, *, bint at_head=False):
        cdef Reactor *reactor = engine.live()
        cdef Feed *place
        if self.reader != NULL:
            raise RuntimeError("a Cursor is made once")
        feed_number(feed)
        self.reader = <Reader *> calloc(1, sizeof(Reader))
        if self.reader == NULL:
            raise MemoryError("no memory for a cursor")
        self.reader.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.reader.wake < 0:
            free(self.reader)
            self.reader = NULL
            raise OSError(errno, "no descriptor for a cursor")
        self.engine = engine
        self.reader.feed = feed
        place = &reactor.feeds[feed]
        journal_lock(&place.journal)
        if at_head:
            place_at_head(&place.journal, &self.reader.place)
        else:
            place_at_start(&self.reader.place)
        self.reader.next = place.sinks
        if place.sinks != NULL:
            place.sinks.previous = self.reader
        place.sinks = self.reader
        journal_unlock(&place.journal)

    def __dealloc__(self):
        self.detach()
        json_free(&self.json)
        json_buffer_free(&self.out)

    cdef void detach(self) noexcept:
        cdef Feed *feed
        if self.reader == NULL:
            return
        if self.engine is not None and self.engine.reactor != NULL:
            feed = &self.engine.reactor.feeds[self.reader.feed]
            journal_lock(&feed.journal)
            if self.reader.previous != NULL:
                self.reader.previous.next = self.reader.next
            else:
                feed.sinks = self.reader.next
            if self.reader.next != NULL:
                self.reader.next.previous = self.reader.previous
            journal_unlock(&feed.journal)
        close_fd(self.reader.wake)
        free(self.reader)
        self.reader = NULL

    cdef Reader *live(self) except NULL:
        if self.reader == NULL or self.closing:
            raise RuntimeError("the cursor is closed")
        self.engine.live()
        return self.reader

    cdef Reader *enter(self) except NULL:
        """Until `leave` neither the engine nor the cursor goes away, and nobody else moves it."""
        cdef Reader *reader = self.live()
        if self.inside:
            raise RuntimeError("the cursor is in use on another thread")
        self.inside = True
        self.engine.busy += 1
        return reader

    cdef void leave(self) noexcept:
        self.inside = False
        if self.closing:
            self.detach()
        self.engine.busy -= 1

    def read(self, size_t max_bytes=262144):
        cdef bytes result
        self.enter()
        try:
            while True:
                result = self.frames(max_bytes)
                if result is not None or self.wait():
                    return result or b""
        finally:
            self.leave()

    cdef bytes frames(self, size_t max_bytes):
        """The next frames; None when there are none."""
        cdef Reader *reader = self.reader
        cdef Feed *feed = &self.engine.reactor.feeds[reader.feed]
        cdef Segment *segment
        cdef const uint8_t *start = NULL
        cdef size_t size = 0
        cdef uint32_t frames
        cdef bytes result
        cdef char *body
        cdef uint64_t sequence = reader.place.sequence
        cdef uint64_t lost = reader.place.lost
        eventfd_clear(reader.wake)
        with nogil:
            segment = journal_pin(&feed.journal, &reader.place)
        self.gap(sequence, reader.place.sequence, lost)
        if segment == NULL:
            return None
        try:
            frames = place_take(&feed.journal, &reader.place, max_bytes, &start, &size)
            if frames == 0:
                frames = 1
                size = place_frame_size(&reader.place)
            result = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> size)
            body = PyBytes_AS_STRING(result)
            with nogil:
                memcpy(body, start, size)
                journal_lock(&feed.journal)
                place_advance(&reader.place, size, frames)
                journal_unlock(&feed.journal)
        finally:
            with nogil:
                journal_unpin(&feed.journal, segment)
        return result

    cdef bint wait(self) noexcept:
        """Nothing was found: have `fileno` become readable when there is something. False when there is by now."""
        cdef Reader *reader = self.reader
        cdef Feed *feed = &self.engine.reactor.feeds[reader.feed]
        cdef bint nothing
        with nogil:
            journal_lock(&feed.journal)
            # An append between the two locks must not be missed.
            nothing = reader.place.sequence == feed.journal.next
            reader.waiting = nothing
            journal_unlock(&feed.journal)
        return nothing

    cdef void gap(self, uint64_t start, uint64_t after, uint64_t lost) noexcept:
        """Remember a loss that reading has met, if it is one; `lost` is what was counted before."""
        cdef int i
        if start == after:
            return
        if self.gap_count == CURSOR_GAPS:
            self.floor = self.gaps[0].after
            self.gap_count -= 1
            for i in range(self.gap_count):
                self.gaps[i] = self.gaps[i + 1]
        self.gaps[self.gap_count].start = start
        self.gaps[self.gap_count].after = after
        self.gaps[self.gap_count].lost = lost
        self.gap_count += 1

    def read_json(self, size_t max_bytes=1048576, *, uint64_t max_events=(1 << 63), str index=None):
        cdef Reader *reader
        cdef Feed *feed
        cdef JsonBatch batch
        cdef bytes action
        cdef uint64_t start, lost
        cdef int code
        if max_events == 0:
            raise ValueError("max_events is 0; at least one event is read")
        batch.most_bytes = max_bytes
        batch.most_events = max_events
        batch.stop_at = <uint64_t> -1
        batch.action = NULL
        batch.action_size = 0
        if index is not None:
            action = b'{"index":{"_id":' + json_dumps(index).encode()
            batch.action = <const uint8_t *> PyBytes_AS_STRING(action)
            # Without the quote behind it.
            batch.action_size = <size_t> PyBytes_GET_SIZE(action) - 1
        reader = self.enter()
        feed = &self.engine.reactor.feeds[reader.feed]
        try:
            while True:
                eventfd_clear(reader.wake)
                start = reader.place.sequence
                lost = reader.place.lost
                self.out.used = 0
                with nogil:
                    code = json_batch(&feed.journal, reader.feed, &reader.place, &self.json, &self.out, &batch)
                if batch.events == 0:
                    self.gap(start, reader.place.sequence, lost)
                else:
                    # It ends before a gap that it has met.
                    self.gap(start, batch.first, lost)
                    self.gap(batch.first + batch.events, reader.place.sequence, lost + (batch.first - start))
                if code != STATUS_OK:
                    raise_status(code, "the next event cannot be encoded")
                if batch.events > 0:
                    return (PyBytes_FromStringAndSize(<char *> self.out.data, <Py_ssize_t> self.out.used),
                            batch.first, batch.events)
                if self.wait():
                    return None
        finally:
            if self.out.room > CURSOR_KEPT:
                json_buffer_free(&self.out)
            self.leave()

    def seek(self, uint64_t sequence):
        self.enter()
        try:
            self.go_back(sequence)
        finally:
            self.leave()

    cdef int go_back(self, uint64_t sequence) except -1:
        cdef Journal *journal = &self.engine.reactor.feeds[self.reader.feed].journal
        cdef Place *place = &self.reader.place
        cdef uint64_t lost = place.lost
        cdef int count = self.gap_count
        if sequence > place.sequence:
            raise ValueError(f"the cursor is at {place.sequence} and cannot go on to {sequence} without reading")
        if sequence < self.floor:
            raise ValueError(f"the cursor cannot tell any more what it has lost before {self.floor}")
        # What was lost behind the new position is counted anew by settling: it is overwritten still.
        while count > 0 and self.gaps[count - 1].after > sequence:
            count -= 1
            lost = self.gaps[count].lost
            if self.gaps[count].start < sequence:
                # Into the middle of a loss: its first part stays one.
                lost += sequence - self.gaps[count].start
                self.gaps[count].after = sequence
                count += 1
                break
        self.gap_count = count
        with nogil:
            journal_lock(journal)
            place_seek(journal, place, sequence, lost)
            journal_unlock(journal)
        self.gap(sequence, place.sequence, lost)
        return 0

    def fileno(self):
        return self.live().wake

    cdef int look(self, uint64_t *sequence, uint64_t *lost, uint64_t *behind) except -1:
        """Where it is, and, up to now, what was overwritten before it could be read, and what it has to read."""
        cdef Reader *reader = self.live()
        cdef Journal *journal = &self.engine.reactor.feeds[reader.feed].journal
        cdef uint64_t oldest
        journal_lock(journal)
        oldest = max(journal.first, reader.place.sequence)
        sequence[0] = reader.place.sequence
        lost[0] = reader.place.lost + oldest - reader.place.sequence
        behind[0] = journal.next - oldest
        journal_unlock(journal)
        return 0

    @property
    def sequence(self):
        cdef uint64_t sequence, lost, behind
        self.look(&sequence, &lost, &behind)
        return sequence

    @property
    def lost(self):
        cdef uint64_t sequence, lost, behind
        self.look(&sequence, &lost, &behind)
        return lost

    @property
    def behind(self):
        cdef uint64_t sequence, lost, behind
        self.look(&sequence, &lost, &behind)
        return behind

    def close(self):
        if self.inside:
            self.closing = True
        else:
            self.detach()


cdef class Writer:
    cdef Engine engine
    cdef WriterState *state
    cdef object thread

    def __init__(self, Engine engine, int fd, int feeds=7):
        cdef Reactor *reactor = engine.live()
        cdef int own
        if self.state != NULL:
            raise RuntimeError("a Writer is made once")
        if not 1 <= feeds < 1 << FEEDS:
            raise ValueError(f"feeds is {feeds}; 1 to {(1 << FEEDS) - 1} are accepted")
        own = fcntl(fd, F_DUPFD_CLOEXEC, 3)
        if own < 0:
            raise OSError(errno, f"descriptor {fd} cannot be duplicated")
        self.state = <WriterState *> calloc(1, sizeof(WriterState))
        if self.state == NULL:
            close_fd(own)
            raise MemoryError("no memory for a writer")
        self.state.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        self.state.over = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.state.wake < 0 or self.state.over < 0 or writer_init(self.state, reactor, own, feeds) != STATUS_OK:
            code = errno
            for each in (own, self.state.wake, self.state.over):
                if each >= 0:
                    close_fd(each)
            free(self.state)
            self.state = NULL
            raise OSError(code, "no descriptor for a writer")
        self.engine = engine

    def __dealloc__(self):
        # Its thread, while it lives, holds a reference.
        if self.state != NULL:
            writer_free(self.state)
            if self.state.fd >= 0:
                close_fd(self.state.fd)
            close_fd(self.state.wake)
            close_fd(self.state.over)
            free(self.state)

    cdef WriterState *made(self) except NULL:
        if self.state == NULL:
            raise RuntimeError("the Writer was not made")
        return self.state

    def start(self):
        self.made()
        self.engine.live()
        if self.thread is not None:
            raise RuntimeError("the writer was started before")
        self.engine.writers = [each for each in self.engine.writers if not each.ended]
        self.engine.writers.append(self)
        writer_attach(self.state)
        # A daemon: a write that hangs must not keep the process.
        self.thread = threading.Thread(target=self._run, name="writer", daemon=True)
        try:
            self.thread.start()
        except RuntimeError:
            writer_never(self.state)
            raise

    def _run(self):
        cdef WriterState *state = self.state
        with nogil:
            writer_run(state)

    @property
    def ended(self):
        return bool(writer_ended(self.made()))

    def fileno(self):
        return self.made().over

    def stop(self, double seconds):
        cdef WriterState *state = self.made()
        cdef uint64_t deadline
        if not isfinite(seconds) or not 0 <= seconds <= 31536000:
            raise ValueError(f"a writer stops within 0 to 31536000 s, not {seconds}")
        if self.thread is None:
            return 0
        deadline = monotonic() + <uint64_t> (seconds * 1e9)
        with nogil:
            writer_stop(state, deadline)
            writer_wait(state, deadline)
        return writer_unwritten(state)

    def counters(self):
        cdef WriterState *state = self.made()
        cdef WriterCount count
        cdef bint engine_lives = not self.engine.closed
        self.engine.busy += 1
        with nogil:
            writer_count(state, engine_lives, &count)
        self.engine.busy -= 1
        feeds = {}
        for i, name in enumerate(FEED_NAMES):
            if state.feeds[i].chosen:
                feeds[name] = {
                    "read": count.passed[i] - count.lost[i],
                    "written": count.written[i],
                    "lost": count.next[i] - count.written[i] if count.error else count.lost[i],
                    "buffered": 0 if count.error else count.passed[i] - count.lost[i] - count.written[i],
                    "behind": 0 if count.error else count.next[i] - count.passed[i],
                }
        return {
            "feeds": feeds, "bytes": count.bytes, "writes": count.writes, "writing": bool(count.writing),
            "failed": count.failed, "failing": count.failing, "error": count.error,
        }


cdef Memory *memory_of(owner) except NULL:
    if isinstance(owner, Cursor):
        return &(<Cursor> owner).memory
    if isinstance(owner, Writer):
        return &(<Writer> owner).made().memory
    return &(<Engine?> owner).live().memory


if RELAY_DEBUGGING:
    def _fail_allocation(owner, count):
        """For tests: let the `count`-th allocation of an engine, a cursor or a writer from now on fail, once.

        0 takes that back.
        """
        memory_fail_at(memory_of(owner), count)
