"""The frame scanner in front of nghttp2 on a node's connection.

nghttp2 takes each DATA frame through its state machine, three callbacks and two windows, which is felt with one event a
frame: measured flat out, 0.45 us an event with it and 0.41 without. So plain DATA frames of the feeds, which are
nearly all bytes, are recognised by their header and go straight to `ingest`; every other frame goes to nghttp2
untouched. nghttp2 then knows nothing of those bytes, and gives no credit for them: we return it in WINDOW_UPDATE
frames of our own (node.pxd). What nghttp2 sees it accounts for itself, so both windows stay right. A DATA frame with
padding or END_STREAM, on a stream that is not open or whose headers gave a content-length, too large, or within a
header block, goes to nghttp2, which knows what to say of it.
"""

from libc.stdint cimport int32_t, uint32_t, uint8_t
from libc.string cimport memcpy

from relay.native.debug cimport relay_assert, relay_likely
from relay.native.ingest cimport ingest
from relay.native.model cimport (
    CONNECTION_CLOSED, FEEDS, FRAME_HEADER, FRAME_PAYLOAD, NODE_CONNECTION_WINDOW, NODE_WINDOW, Connection,
    Framer, Node, NodeStream, Reactor,
)
from relay.native.nghttp2 cimport (
    NGHTTP2_CONTINUATION, NGHTTP2_DATA, NGHTTP2_FLAG_END_HEADERS, NGHTTP2_HEADERS, NGHTTP2_PUSH_PROMISE,
    nghttp2_session_mem_recv,
)

cdef enum:
    FRAMER_HEADER              # collecting a frame header
    FRAMER_DATA                # payload that goes to `ingest`
    FRAMER_PASS                # payload that goes to nghttp2

    # Credit is returned when this part of a window has been taken: often enough never to stall, rarely enough to cost
    # nothing.
    CREDIT_SHARE = 8


cdef inline NodeStream *framer_stream(Node *node, int32_t number) noexcept nogil:
    """The open feed with this stream id, if its DATA may pass by nghttp2."""
    cdef int feed
    for feed in range(FEEDS):
        if node.streams[feed].id == number:
            if node.streams[feed].accepted and not node.streams[feed].slow:
                return &node.streams[feed]
            return NULL
    return NULL


cdef inline int framer_pass(Connection *connection, const uint8_t *data, size_t size) noexcept nogil:
    """Give bytes to nghttp2: 0, or its error."""
    cdef ssize_t taken
    if size == 0:
        return 0
    taken = nghttp2_session_mem_recv(connection.session, data, size)
    return <int> taken if taken < 0 else 0


cdef inline void framer_credit(Framer *framer, NodeStream *stream, uint32_t size) noexcept nogil:
    """Bytes taken past nghttp2: note when a window is due for credit."""
    stream.credit += size
    framer.credit += size
    if stream.credit >= <uint32_t> (NODE_WINDOW // CREDIT_SHARE):
        stream.window_due = True
    if framer.credit >= <uint32_t> (NODE_CONNECTION_WINDOW // CREDIT_SHARE):
        framer.window_due = True


cdef inline int framer_receive(
    Reactor *reactor, Connection *connection, const uint8_t *data, size_t size
) noexcept nogil:
    """All bytes of one read, cut anywhere: 0, or nghttp2's error."""
    cdef Node *node = connection.node
    cdef Framer *framer = &connection.framer
    cdef NodeStream *stream
    cdef const uint8_t *at = data
    cdef const uint8_t *end = data + size
    cdef const uint8_t *header
    cdef size_t count
    cdef uint32_t length
    cdef uint8_t kind
    cdef int error
    while at < end:
        if framer.state == FRAMER_HEADER:
            if relay_likely(framer.header_used == 0 and end - at >= FRAME_HEADER):
                header = at
                at += FRAME_HEADER
            else:
                count = FRAME_HEADER - framer.header_used
                if count > <size_t> (end - at):
                    count = <size_t> (end - at)
                memcpy(framer.header + framer.header_used, at, count)
                framer.header_used += <uint8_t> count
                at += count
                if framer.header_used < FRAME_HEADER:
                    return 0
                header = framer.header
                framer.header_used = 0
            length = (<uint32_t> header[0] << 16) | (<uint32_t> header[1] << 8) | header[2]
            kind = header[3]
            framer.left = length
            # No flag: neither END_STREAM nor PADDED.
            if relay_likely(kind == NGHTTP2_DATA and header[4] == 0 and length <= FRAME_PAYLOAD
                            and length != 0 and not framer.in_headers):
                stream = framer_stream(node, <int32_t> (
                    (<uint32_t> (header[5] & 0x7f) << 24) | (<uint32_t> header[6] << 16)
                    | (<uint32_t> header[7] << 8) | header[8]))
                if relay_likely(stream != NULL):
                    framer.feed = stream.feed
                    framer.stream = stream.id
                    framer.state = FRAMER_DATA
                    framer_credit(framer, stream, length)
                    continue
            if kind == NGHTTP2_HEADERS or kind == NGHTTP2_PUSH_PROMISE:
                framer.in_headers = not header[4] & NGHTTP2_FLAG_END_HEADERS
            elif kind == NGHTTP2_CONTINUATION and header[4] & NGHTTP2_FLAG_END_HEADERS:
                framer.in_headers = False
            framer.state = FRAMER_PASS if length else FRAMER_HEADER
            error = framer_pass(connection, header, FRAME_HEADER)
            if error:
                return error
        else:
            count = framer.left
            if count > <size_t> (end - at):
                count = <size_t> (end - at)
            framer.left -= <uint32_t> count
            if framer.state == FRAMER_DATA:
                # A stream that we have reset meanwhile is over: the rest of its frame is nobody's event.
                if relay_likely(node.streams[framer.feed].id == framer.stream):
                    ingest(reactor, &node.streams[framer.feed], at, count)
                error = 0
            else:
                error = framer_pass(connection, at, count)
            at += count
            if framer.left == 0:
                framer.state = FRAMER_HEADER
            if error:
                return error
        if connection.state == CONNECTION_CLOSED:
            return 0
    relay_assert(at == end, "the framer consumes all it is given")
    return 0
