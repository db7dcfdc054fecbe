"""A subscriber: a stream that reads a feed. Its place, its offers to nghttp2, its losses, the rest of a split message.

nghttp2 asks for a DATA frame (`subscriber_offer`), and takes it right after (`subscriber_take`); between the
two nothing is appended to a journal, and after the write nothing points into one but the rest of a split message,
which `feed_recycling` copies before its segment goes.
"""

from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.string cimport memcpy

from relay.native.connection cimport connection_dirty, peer_text
from relay.native.debug cimport relay_assert
from relay.native.grpc cimport GRPC_RESOURCE_EXHAUSTED
from relay.native.journal cimport (
    JOURNAL_PREFIX, Journal, Segment, place_advance, place_at_head, place_frame_size, place_settle, place_take,
    relay_frame_length,
)
from relay.native.mailbox cimport mailbox_report, report_new
from relay.native.memory cimport memory_release, memory_take
from relay.native.model cimport (
    FEEDS, LIMIT_REMAINDERS, REPORT_SUBSCRIBER, STREAM_FEED, STREAM_OVER, Feed, Reactor, Remainder, Report,
    Stream,
)
from relay.native.nghttp2 cimport (
    NGHTTP2_ENHANCE_YOUR_CALM, NGHTTP2_FLAG_NONE, nghttp2_session_resume_data, nghttp2_submit_rst_stream,
)

cdef enum:
    LOSS_QUIET = 10000000000   # ns without loss after which a subscriber has recovered

cdef enum:  # SubscriberEvent
    SUBSCRIBER_STARTED
    SUBSCRIBER_LOSING
    SUBSCRIBER_RECOVERED
    SUBSCRIBER_ENDED


cdef inline uint64_t subscriber_in_flight(const Stream *stream) noexcept nogil:
    """Events that the place has passed and that the kernel has not accepted to the last byte."""
    return stream.place.sequence - stream.start - stream.place.lost - stream.filtered - stream.delivered


cdef inline void subscriber_check(const Stream *stream) noexcept nogil:
    """Invariant 2, in the debug build: what was framed or is being framed, and what was lost, is what was passed."""
    relay_assert(
        stream.framed + (1 if stream.split_left else 0) + stream.filtered + stream.place.lost
        == stream.place.sequence - stream.start,
        "framed + split + filtered + lost = passed")


cdef inline void subscriber_report(Reactor *reactor, Stream *stream, int what) noexcept nogil:
    """Tell Python; a queue that is full drops it (counted), since the counters say the same."""
    cdef Report *report = report_new(reactor, REPORT_SUBSCRIBER, 0)
    if report == NULL:
        return
    report.what = <uint8_t> what
    report.feed = stream.feed
    report.number = stream.number
    report.delivered = stream.delivered
    report.lost = stream.place.lost
    report.code = stream.ended
    peer_text(stream.connection, report.text, sizeof(report.text))
    mailbox_report(reactor, report, True)


cdef inline void subscriber_wait(Reactor *reactor, Stream *stream) noexcept nogil:
    """It has read everything: remember to wake it."""
    cdef Feed *feed = &reactor.feeds[stream.feed]
    if stream.waiting:
        return
    stream.waiting = True
    stream.connection.waiting_readers += 1
    stream.previous_waiting = NULL
    stream.next_waiting = feed.waiting
    if feed.waiting != NULL:
        feed.waiting.previous_waiting = stream
    feed.waiting = stream


cdef inline void subscriber_wait_no_more(Reactor *reactor, Stream *stream) noexcept nogil:
    if not stream.waiting:
        return
    stream.waiting = False
    stream.connection.waiting_readers -= 1
    if stream.previous_waiting != NULL:
        stream.previous_waiting.next_waiting = stream.next_waiting
    else:
        reactor.feeds[stream.feed].waiting = stream.next_waiting
    if stream.next_waiting != NULL:
        stream.next_waiting.previous_waiting = stream.previous_waiting


cdef inline void subscriber_split_link(Reactor *reactor, Stream *stream) noexcept nogil:
    cdef Feed *feed = &reactor.feeds[stream.feed]
    stream.split = True
    stream.previous_split = NULL
    stream.next_split = feed.split
    if feed.split != NULL:
        feed.split.previous_split = stream
    feed.split = stream


cdef inline void subscriber_split_unlink(Reactor *reactor, Stream *stream) noexcept nogil:
    if not stream.split:
        return
    stream.split = False
    if stream.previous_split != NULL:
        stream.previous_split.next_split = stream.next_split
    else:
        reactor.feeds[stream.feed].split = stream.next_split
    if stream.next_split != NULL:
        stream.next_split.previous_split = stream.previous_split


cdef inline void subscriber_split_end(Reactor *reactor, Stream *stream) noexcept nogil:
    """The split message is framed whole, or never will be."""
    cdef Remainder *remainder = stream.remainder
    subscriber_split_unlink(reactor, stream)
    stream.split_left = 0
    stream.split_at = NULL
    stream.split_segment = NULL
    if remainder != NULL:
        stream.remainder = NULL
        remainder.users -= 1
        if remainder.users == 0:
            # Its last bytes may have been gathered just now, for a write that is still to come.
            remainder.next = reactor.spent
            reactor.spent = remainder


cdef inline void remainders_free(Reactor *reactor) noexcept nogil:
    """Free the spent remainders: nothing gathered points to them any more."""
    cdef Remainder *remainder
    while reactor.spent != NULL:
        remainder = reactor.spent
        reactor.spent = remainder.next
        reactor.remaining -= sizeof(Remainder) + remainder.size
        memory_release(&reactor.memory, remainder)


cdef inline void subscriber_attach(Reactor *reactor, Stream *stream, int number) noexcept nogil:
    """Make a stream a subscriber of feed `number`, at its head."""
    cdef Feed *feed = &reactor.feeds[number]
    stream.kind = STREAM_FEED
    stream.feed = number
    stream.connection.readers += 1
    stream.connection.address.subscribers += 1
    reactor.subscriber_count += 1
    place_at_head(&feed.journal, &stream.place)
    stream.start = stream.place.sequence
    stream.previous_reader = NULL
    stream.next_reader = feed.readers
    if feed.readers != NULL:
        feed.readers.previous_reader = stream
    feed.readers = stream
    subscriber_report(reactor, stream, SUBSCRIBER_STARTED)


cdef inline void subscriber_detach(Reactor *reactor, Stream *stream) noexcept nogil:
    """It reads no more. Its counters stay until it is freed."""
    cdef Feed *feed = &reactor.feeds[stream.feed]
    if stream.kind != STREAM_FEED:
        return
    stream.kind = STREAM_OVER
    stream.connection.readers -= 1
    stream.connection.address.subscribers -= 1
    reactor.subscriber_count -= 1
    subscriber_wait_no_more(reactor, stream)
    subscriber_split_end(reactor, stream)
    if stream.previous_reader != NULL:
        stream.previous_reader.next_reader = stream.next_reader
    else:
        feed.readers = stream.next_reader
    if stream.next_reader != NULL:
        stream.next_reader.previous_reader = stream.previous_reader


cdef inline void subscriber_settle(Reactor *reactor, Stream *stream) noexcept nogil:
    """Bring the place up to date and notice what was lost."""
    if place_settle(&reactor.feeds[stream.feed].journal, &stream.place) == 0:
        return
    stream.lost_at = reactor.now
    if not stream.losing:
        stream.losing = True
        subscriber_report(reactor, stream, SUBSCRIBER_LOSING)


cdef inline bint subscriber_offer(Reactor *reactor, Stream *stream, size_t limit) noexcept nogil:
    """Choose what the next DATA frame of at most `limit` bytes carries; False when there is nothing to send."""
    cdef Journal *journal = &reactor.feeds[stream.feed].journal
    cdef const uint8_t *start
    cdef size_t size
    cdef size_t whole
    cdef uint32_t frames
    stream.offer_lead = 0
    stream.offer_whole = 0
    if stream.split_left:
        size = stream.split_left if stream.split_left < limit else limit
        stream.offer = stream.split_at
        stream.offer_size = size
        stream.offer_lead = size
        stream.offer_frames = 1 if size == stream.split_left else 0
        return True
    subscriber_settle(reactor, stream)
    if stream.place.sequence == journal.next or (stream.stopping and stream.place.sequence >= stream.stop_at):
        return False
    if reactor.settings.event_per_frame:
        whole = place_frame_size(&stream.place)
        frames = 0
        if whole <= limit:
            frames = 1
            size = whole
        start = stream.place.segment.data + stream.place.offset
    else:
        frames = place_take(journal, &stream.place, limit, &start, &size)
    if frames == 0:
        stream.offer_whole = place_frame_size(&stream.place)
        size = limit
    stream.offer = start
    stream.offer_size = size
    stream.offer_frames = frames
    return True


cdef inline void subscriber_take(Reactor *reactor, Stream *stream) noexcept nogil:
    """The offer has become a DATA frame: move on."""
    stream.framed += stream.offer_frames
    if stream.offer_lead:
        stream.split_left -= stream.offer_lead
        stream.split_at += stream.offer_lead
        if stream.split_left == 0:
            subscriber_split_end(reactor, stream)
    elif stream.offer_whole:
        stream.split_left = stream.offer_whole - stream.offer_size
        stream.split_at = stream.offer + stream.offer_size
        stream.split_segment = stream.place.segment
        subscriber_split_link(reactor, stream)
        place_advance(&stream.place, stream.offer_whole, 1)
    else:
        place_advance(&stream.place, stream.offer_size, stream.offer_frames)
    subscriber_check(stream)


cdef inline void subscriber_cut(Reactor *reactor, Stream *stream, uint32_t error, int code) noexcept nogil:
    """End it at once with RST_STREAM: trailers after half a message would read as a broken message."""
    nghttp2_submit_rst_stream(stream.connection.session, NGHTTP2_FLAG_NONE, stream.id, error)
    stream.ended = code
    subscriber_detach(reactor, stream)
    connection_dirty(stream.connection)


cdef inline Stream *_furthest_behind(Reactor *reactor) noexcept nogil:
    """Of the subscribers that hold a remainder, the one furthest behind its feed's head."""
    cdef Stream *stream
    cdef Stream *furthest = NULL
    cdef uint64_t behind
    cdef uint64_t most = 0
    cdef int feed
    for feed in range(FEEDS):
        stream = reactor.feeds[feed].readers
        while stream != NULL:
            if stream.remainder != NULL:
                behind = reactor.feeds[feed].journal.next - stream.remainder.sequence
                if behind >= most:
                    most = behind
                    furthest = stream
            stream = stream.next_reader
    return furthest


cdef inline Remainder *_remainder_new(Reactor *reactor, Stream *stream) noexcept nogil:
    """A copy of what is left of the message that `stream` is in the middle of, with the budget observed; else NULL.

    The whole frame is kept, so that streams that stopped at other bytes of it can share it.
    """
    cdef const uint8_t *start = stream.split_segment.data
    cdef const uint8_t *end = stream.split_at + stream.split_left
    cdef Remainder *remainder
    cdef Stream *furthest
    cdef size_t size
    # The frame's start: split messages are rare and their segment is about to go, so it is looked for.
    cdef size_t step
    cdef uint64_t sequence = stream.split_segment.first
    while True:
        step = <size_t> JOURNAL_PREFIX + relay_frame_length(start)
        if start + step >= end:
            break
        start += step
        sequence += 1
    size = <size_t> (end - start)
    while reactor.remaining + sizeof(Remainder) + size > reactor.settings.remainder_bytes:
        furthest = _furthest_behind(reactor)
        if furthest == NULL:
            return NULL
        reactor.limits[LIMIT_REMAINDERS] += 1
        subscriber_cut(reactor, furthest, NGHTTP2_ENHANCE_YOUR_CALM, GRPC_RESOURCE_EXHAUSTED)
        # Appending, not writing, brought us here: nothing is gathered.
        remainders_free(reactor)
    remainder = <Remainder *> memory_take(&reactor.memory, sizeof(Remainder) + size)
    if remainder == NULL:
        return NULL
    remainder.users = 0
    remainder.sequence = sequence
    remainder.size = size
    remainder.data = <uint8_t *> (remainder + 1)
    memcpy(remainder.data, start, size)
    reactor.remaining += sizeof(Remainder) + size
    return remainder


cdef inline void feed_recycling(void *context, Journal *journal, Segment *segment) noexcept nogil:
    """The oldest segment is about to go: copy, once each, the messages in it that some stream is in the middle of."""
    cdef Feed *feed = <Feed *> context
    cdef Reactor *reactor = feed.reactor
    cdef Stream *stream = feed.split
    cdef Stream *following
    cdef Stream *other
    cdef Remainder *remainder
    cdef const uint8_t *end
    while stream != NULL:
        following = stream.next_split
        if stream.split_segment == segment:
            remainder = _remainder_new(reactor, stream)
            if remainder == NULL:
                reactor.limits[LIMIT_REMAINDERS] += 1
                subscriber_cut(reactor, stream, NGHTTP2_ENHANCE_YOUR_CALM, GRPC_RESOURCE_EXHAUSTED)
            else:
                end = stream.split_at + stream.split_left
                other = stream
                while other != NULL:
                    following = other.next_split
                    if other.split_segment == segment and other.split_at + other.split_left == end:
                        subscriber_split_unlink(reactor, other)
                        other.remainder = remainder
                        remainder.users += 1
                        other.split_at = remainder.data + remainder.size - other.split_left
                        other.split_segment = NULL
                    other = following
                # The list has changed: the streams that share this message are off it.
                following = feed.split
        stream = following


cdef inline void feed_wake(Reactor *reactor, int number) noexcept nogil:
    """Something was appended: let those that had read everything go on."""
    cdef Feed *feed = &reactor.feeds[number]
    cdef Stream *stream
    while feed.waiting != NULL:
        stream = feed.waiting
        subscriber_wait_no_more(reactor, stream)
        stream.deferred = False
        nghttp2_session_resume_data(stream.connection.session, stream.id)
        connection_dirty(stream.connection)


cdef inline void feed_tick(Reactor *reactor, int number) noexcept nogil:
    """Once a second: notice the losses of those that do not read, and the end of losses."""
    cdef Stream *stream = reactor.feeds[number].readers
    while stream != NULL:
        subscriber_settle(reactor, stream)
        if stream.losing and reactor.now - stream.lost_at >= <uint64_t> LOSS_QUIET:
            stream.losing = False
            subscriber_report(reactor, stream, SUBSCRIBER_RECOVERED)
        stream = stream.next_reader
