"""Types of the extension module: the boundary between Python and the engine, and nothing else.

Feeds are numbered as in `relay.feeds`: 0 messages, 1 alerts, 2 logs.
A frame is an event behind its 5-byte gRPC prefix (one zero byte, then the length as
big-endian uint32); see the Length-Prefixed-Message of the gRPC over HTTP/2 specification.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, final

NODE_IDLE: Final[int]  # known, not connected: the control plane decides when to try
NODE_CONNECTING: Final[int]  # TCP (and TLS) under way
NODE_CHECKING: Final[int]  # HealthCheck sent
NODE_STREAMING: Final[int]  # at least one feed is open

# Reports, as Engine.reports() returns them: tuples that begin with one of these.
REPORT_NODE: Final[int]  # (REPORT_NODE, node, state, code, text): the newest state of a node
REPORT_STREAM: Final[int]  # (REPORT_STREAM, node, feed, code, text): a feed ended while its node lives
REPORT_CALL: Final[int]  # (REPORT_CALL, call, CALL_*, path, message)
REPORT_SUBSCRIBER: Final[int]  # (REPORT_SUBSCRIBER, subscriber, SUBSCRIBER_*, feed, peer, delivered, lost, code)
REPORT_DRAINED: Final[int]  # (REPORT_DRAINED, ticket)
REPORT_TLS: Final[int]  # (REPORT_TLS, peer, text): a client's handshake failed; at most one a second, a counter has all
REPORT_STOPPED: Final[int]  # (REPORT_STOPPED, code, text): the reactor has ended

CALL_MESSAGE: Final[int]  # a request message; path is given with the first one only, else ""
CALL_HALF_CLOSED: Final[int]  # the client has sent its last message
CALL_CANCELLED: Final[int]  # the client went away, or the deadline passed; answers are ignored from now on

SUBSCRIBER_STARTED: Final[int]
SUBSCRIBER_LOSING: Final[int]  # it has begun to lose events; `lost` says how many so far
SUBSCRIBER_RECOVERED: Final[int]  # it has lost nothing for 10 s
SUBSCRIBER_ENDED: Final[int]  # `code` is the gRPC status it ended with

@final
class Tls:
    """Certificate, key, trusted root and rules of one side of TLS: an OpenSSL context, which never changes.

    TLS 1.2 and 1.3, HTTP/2 by ALPN demanded, OpenSSL's own ciphers at its security level 2. A peer's certificate must
    lead to the root as crypto/x509 of Go would have it; a server's must carry the name or address it was reached by.

    Args:
        server: our part.
        certificate: PEM, the leaf first, then its chain.
        key: PEM (PKCS#1, PKCS#8 or SEC1), without a password.
        root: PEM; the first certificate is trusted, the others are only counted.
        client_auth: a server asks clients for a certificate: "none", "request" (verified where one is given) or "require".
        allow: names of which a client's certificate must carry one, as DNS name or common name; none: any certificate.
        kernel: let the kernel encrypt (kTLS) where it can.
    Raises:
        ValueError: something cannot be used; the text begins with "certificate:", "key:" or "root:".
        MemoryError: not enough memory.
    """

    def __init__(
        self,
        *,
        server: bool,
        certificate: bytes = b"",
        key: bytes = b"",
        root: bytes = b"",
        client_auth: str = "require",
        allow: Sequence[str] = (),
        kernel: bool = True,
    ) -> None: ...
    @property
    def expires(self) -> int:
        """The first end among certificate, chain and root, in seconds since the epoch."""
    @property
    def roots(self) -> int:
        """How many certificates `root` held."""
    @property
    def kernel(self) -> bool:
        """Whether the kernel has TLS and may encrypt; the ciphers that it knows, that is. `counters` tells for how many."""

@final
class Engine:
    """The data plane: one native thread that owns every socket.

    All sizes are bytes, all times seconds unless the name says otherwise.

    Raises:
        ValueError: a setting is out of range (the text names it and what is accepted).
        OSError: the process is out of file descriptors.
        MemoryError: not enough memory.
    """

    def __init__(
        self,
        *,
        journal_bytes: int = ...,  # all feeds together, 64 MiB
        max_event_bytes: int = ...,  # the largest event accepted, 4 MiB
        gather_us: int = ...,  # 500; 0 turns gathering off
        max_connections: int = ...,
        max_address_connections: int = ...,  # of them, from one IPv4 address or IPv6 /64
        max_streams: int = ...,  # a connection
        max_subscribers: int = ...,  # streams that read a feed, all connections together
        client_bytes: int = ...,  # for what clients make the engine hold: sessions, streams, requests, answers
        max_header_bytes: int = ...,  # of one request
        max_request_bytes: int = ...,
        handshake_timeout: float = ...,  # time to complete the preface
        idle_timeout: float = ...,  # connection without a stream
        max_controls: int = ...,  # a second and connection: 1 a ping, 5 a request, 10 a reset, empty frame and the like
        ping_after: float = ...,  # silence of a subscriber before it is pinged, 5
        ping_timeout: float = ...,  # time it has to answer, 20
        connect_timeout: float = ...,  # TCP to a node, 10
        check_timeout: float = ...,  # HealthCheck of a node, 5
        node_silence: float = ...,  # a node that was heard to ping and is silent this long is dead, 10
        send_buffer: int = ...,  # SO_SNDBUF of subscribers' sockets; 0 (the default) leaves the kernel's choice
        unsent_bytes: int = ...,  # bytes that wait in the kernel for subscribers to take them, all together
        receive_buffer: int = ...,  # SO_RCVBUF of nodes' sockets; 0 leaves the kernel's choice
        assembly_bytes: int = ...,  # for events that arrive in pieces, all nodes together
        remainder_bytes: int = ...,  # for rests of split messages, all subscribers together
        event_per_frame: bool = ...,  # serve one DATA frame an event, as grpc-go does (simulated nodes)
    ) -> None: ...
    def start(self) -> None:
        """Start the reactor thread. Once only."""
    def fileno(self) -> int:
        """An eventfd that is readable while reports are pending."""
    def reports(self) -> list[tuple[Any, ...]]:
        """Take all pending reports. State reports are merged: only the newest of a node is given."""
    def listen(self, fd: int) -> None:
        """Serve a bound and listening TCP socket. The descriptor is duplicated: the caller closes its own."""
    def handle(self, paths: list[str]) -> None:
        """Unary or streaming methods that Python answers, as request paths ("/package.Service/Method").

        Replaces the former list; before `start` only.
        """
    def add_node(self, node: int, feeds: int = 7, filters: tuple[str, str, str] = ...) -> None:
        """Make a node known, by a number of the caller's choice.

        Args:
            node: unique number, 0 <= node < 2**31.
            feeds: bit mask of the feeds to ask for: 1 messages, 2 alerts, 4 logs.
            filters: the request's filter for each feed; default ("all", "policy", "system").
        Raises:
            ValueError: the number is in use.
        """
    def connect_node(self, node: int, address: str, port: int, name: str = "") -> None:
        """Connect to a node at a numeric IPv4 or IPv6 address. Reports follow; ignored unless NODE_IDLE.

        `name`: under TLS, the DNS name that its certificate is checked for; without one it is the address.
        """
    def set_tls(self, *, server: Tls | None, client: Tls | None) -> None:
        """Say what new connections speak from now on, with subscribers (`server`) and with nodes; None: plaintext.

        At any time, before `listen` too. Open connections go on as they are.

        Raises:
            ValueError: a Tls of the other part.
            RuntimeError: a Tls that could not be made.
        """
    def open_stream(self, node: int, feed: int) -> None:
        """Open one ended feed again. Ignored unless the node is connected and the feed closed."""
    def remove_node(self, node: int) -> None:
        """Close its connection and forget it, after what has arrived is in the journal."""
    def publish(self, feed: int, frames: bytes) -> None:
        """Append whole frames to a feed, as if a node had sent them (they are scanned, too).

        Raises:
            BlockingIOError: the command queue is full (await `drain` first).
            ValueError: `frames` is not a sequence of whole frames.
        """
    def set_names(self, names: Mapping[bytes, str]) -> None:
        """Replace the enrichment table, which may happen at any time, before `start` too.

        Events that arrive afterwards are enriched with the new names; an empty mapping ends enrichment. Of several
        tables given in one turn of the reactor only the newest counts.

        Args:
            names: by address, 4 or 16 bytes in network order (an IPv4 address and its IPv4-mapped form are the
                same), the text behind ` remotehost=`, 1 to 600 bytes of UTF-8.
        Raises:
            TypeError: an address is not bytes, or a name not a string.
            ValueError: an address or a name has another size; the same address has two names.
            MemoryError: no memory for the table; the former one stays.
        """
    def drain(self, ticket: int, feed: int) -> None:
        """Ask for (REPORT_DRAINED, ticket) once every subscriber and cursor has taken what the feed holds now."""
    def answer(self, call: int, message: bytes | None, status: int | None = None, text: str = "") -> bool:
        """Send a message, a final status, or both, to a call. False when the call is over or its queue full."""
    def counters(self) -> dict[str, Any]:
        """One consistent snapshot of all counters; docs/operations.md lists them."""
    def shutdown(self, seconds: float) -> None:
        """Begin the graceful end: GOAWAY, streams run to the sequence their feed has now, at most `seconds`.

        (REPORT_STOPPED, …) follows. A second call with 0 ends at once.
        """
    def close(self) -> None:
        """End the reactor thread at once, wait for it, free everything. Idempotent."""

@final
class Cursor:
    """A reader's place in a feed's journal, for use on any thread, one at a time.

    A call that would move it while another does raises RuntimeError; its properties may be read, and it may be closed,
    at any time.

    A cursor made before the engine has any event starts at sequence 0; one that the journal has
    overtaken goes on at the oldest event held, and `lost` grows by exactly the difference.
    """

    def __init__(self, engine: Engine, feed: int, *, at_head: bool = False) -> None: ...
    def read(self, max_bytes: int = ...) -> bytes:
        """The next whole frames, back to back, up to `max_bytes` but at least one; b"" when there are none."""
    def fileno(self) -> int:
        """An eventfd that becomes readable when events follow a `read` that returned b""."""
    def read_json(
        self, max_bytes: int = ..., *, max_events: int = ..., index: str | None = None
    ) -> tuple[bytes, int, int] | None:
        """The next events as JSON, one object a line, as Go's encoding/json prints KubeArmor's structs.

        Events are encoded without the GIL; they are consecutive: a batch ends where events were lost.

        Args:
            max_bytes: the most bytes, line ends and action lines included (1 MiB by default); one event is
                given whatever its size.
            max_events: the most events.
            index: with it each document has the action line `{"index":{"_id":"<index><sequence>"}}` before it.
        Returns:
            The lines, the sequence number of the first event, and the number of events; None when there are none,
            and `fileno` becomes readable when some follow.
        Raises:
            ValueError: `max_events` is 0.
            MemoryError: no memory to encode the next event; the cursor stays before it.
        """
    def seek(self, sequence: int) -> None:
        """Go back to an event that this cursor has passed, to read it and all that follow again.

        `lost` grows by what was overwritten meanwhile, and by no event that it has counted before.

        Raises:
            ValueError: the cursor has not reached `sequence`, or it was so many losses ago (64) that the
                cursor cannot tell any more what it has counted.
        """
    @property
    def sequence(self) -> int:
        """Sequence number of the next event to read."""
    @property
    def lost(self) -> int:
        """Events that were overwritten before this cursor read them, up to now."""
    @property
    def behind(self) -> int:
        """Events that the journal holds for this cursor to read."""
    def close(self) -> None:
        """Leave the journal: at once, or when the call that another thread is in returns."""

@final
class Writer:
    """Writes the events of some feeds to a descriptor as JSON lines, in a native thread of its own.

    It reads from sequence 0 of each feed, and encodes as `Cursor.read_json` does. A reader that is slow or has stopped
    delays nothing else: what is overwritten before it was encoded counts as lost.

    Where the kernel refuses bytes for a reason that may pass (ENOSPC, EDQUOT, EFBIG, ENOMEM, ENOBUFS; of a file EIO)
    they are offered again every second, from the very byte on, and `failing` says why. Any other errno ends the
    writer. A line is cut only where that, or the end of the time to stop, comes in the middle of one; from a regular
    file the cut line is taken back, unless somebody else has written behind it.

    Args:
        fd: a pipe, file, socket or terminal; duplicated, so the caller may close its own. Its O_NONBLOCK is left as it is.
        feeds: bit mask of the feeds: 1 messages, 2 alerts, 4 logs.
    Raises:
        ValueError: `feeds` is not 1 to 7.
        OSError: `fd` is not open, or no more descriptors can be had.
    """

    def __init__(self, engine: Engine, fd: int, feeds: int = 7) -> None: ...
    def start(self) -> None:
        """Start the thread. Once only."""
    def fileno(self) -> int:
        """An eventfd that is readable once the thread has ended: it was stopped, or could not write."""
    @property
    def ended(self) -> bool:
        """Whether its thread has left the engine: `fileno` is readable then, or soon, or the thread hangs in a write."""
    def stop(self, seconds: float) -> int:
        """Write what the feeds hold now, for at most `seconds`, and end. Waits for that, without the GIL.

        Returns how many events the journal or the buffer held that were not written. Idempotent: a later call, from
        any thread, may shorten the time. `Engine.close` stops its writers with 0 s.
        """
    def counters(self) -> dict[str, Any]:
        """One consistent snapshot.

        `feeds` has by name (only those asked for) `read`, `written` (events whose last byte the kernel has
        accepted), `lost`, `buffered` and `behind` (events in the journal that were not read yet): at any time
        written + lost + buffered + behind is the feed's next sequence number. `bytes` and `writes` are what the kernel
        has accepted, and in how many calls; `writing` tells whether it is in such a call, where only a terminal, file
        or device can keep it; `failed` counts the calls that it refused for a reason that may pass, and `failing`
        is that errno until it accepts again, 0 then. `error` is the errno that ended the writing, 0 without. After an
        error, all that was not written counts as lost.
        """

STATUS_TEXT: Final[dict[int, str]]  # engine status → text, the one table of native/status.pxd
