"""One consistent snapshot of all counters, filled by the reactor for whoever asked."""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

from relay.native.connection cimport peer_text
from relay.native.journal cimport journal_lock, journal_unlock
from relay.native.memory cimport memory_blocks, memory_bytes, memory_failures, memory_release, memory_take_zeroed
from relay.native.model cimport (
    FEEDS, SKIP_REASONS, Feed, FeedCount, Node, NodeCount, Reactor, Snapshot, Stream, SubscriberCount,
)
from relay.native.subscriber cimport subscriber_in_flight, subscriber_settle


cdef inline void _feed_count(Feed *feed, FeedCount *count) noexcept nogil:
    count.received = feed.received
    count.bytes = feed.bytes
    count.published = feed.published
    count.repaired = feed.repaired
    count.enriched = feed.enriched
    memcpy(count.skipped, feed.skipped, sizeof(count.skipped))
    count.first = feed.journal.first
    count.next = feed.journal.next
    count.held = feed.journal.held
    count.segments = feed.journal.segments - feed.journal.recycled
    count.share = feed.journal.share
    count.ended_delivered = feed.ended_delivered
    count.ended_lost = feed.ended_lost


cdef inline void _node_count(Node *node, NodeCount *count) noexcept nogil:
    cdef int feed
    cdef int reason
    count.number = node.number
    count.state = node.state
    count.pings = node.pings
    count.connects = node.connects
    for feed in range(FEEDS):
        count.received[feed] = node.streams[feed].received
        count.bytes[feed] = node.streams[feed].bytes
        count.repaired[feed] = node.streams[feed].repaired
        for reason in range(SKIP_REASONS):
            count.skipped[reason] += node.streams[feed].skipped[reason]


cdef inline void _subscriber_count(Reactor *reactor, Stream *stream, SubscriberCount *count) noexcept nogil:
    subscriber_settle(reactor, stream)
    count.number = stream.number
    count.feed = stream.feed
    count.delivered = stream.delivered
    count.filtered = stream.filtered
    count.lost = stream.place.lost
    count.in_flight = subscriber_in_flight(stream)
    count.passed = stream.place.sequence - stream.start
    count.behind = reactor.feeds[stream.feed].journal.next - stream.place.sequence
    memcpy(count.filter, stream.filter, sizeof(count.filter))
    peer_text(stream.connection, count.peer, sizeof(count.peer))


cdef inline void snapshot_fill(Reactor *reactor, Snapshot *snapshot) noexcept nogil:
    """Fill a zeroed snapshot. `failed` when there is no memory for its lists."""
    cdef Node *node = reactor.nodes
    cdef Stream *stream
    cdef int feed
    cdef uint64_t nodes = 0
    cdef uint64_t subscribers = 0
    while node != NULL:
        nodes += 1
        node = node.next
    for feed in range(FEEDS):
        stream = reactor.feeds[feed].readers
        while stream != NULL:
            subscribers += 1
            stream = stream.next_reader
    snapshot.node = <NodeCount *> memory_take_zeroed(&reactor.memory, nodes * sizeof(NodeCount))
    snapshot.subscriber = <SubscriberCount *> memory_take_zeroed(
        &reactor.memory, subscribers * sizeof(SubscriberCount))
    if snapshot.node == NULL or snapshot.subscriber == NULL:
        snapshot.failed = True
        return
    node = reactor.nodes
    while node != NULL:
        _node_count(node, &snapshot.node[snapshot.nodes])
        snapshot.nodes += 1
        node = node.next
    for feed in range(FEEDS):
        # A cursor that lets go of a segment counts it on its own thread.
        journal_lock(&reactor.feeds[feed].journal)
        _feed_count(&reactor.feeds[feed], &snapshot.feed[feed])
        journal_unlock(&reactor.feeds[feed].journal)
        stream = reactor.feeds[feed].readers
        while stream != NULL:
            _subscriber_count(reactor, stream, &snapshot.subscriber[snapshot.subscribers])
            snapshot.subscribers += 1
            stream = stream.next_reader
    stream = reactor.calls
    while stream != NULL:
        snapshot.calls += 1
        stream = stream.next_call
    memcpy(snapshot.limits, reactor.limits, sizeof(snapshot.limits))
    snapshot.tls = reactor.tls
    snapshot.connections = reactor.connection_count
    snapshot.clients = reactor.client_count
    snapshot.accepted = reactor.accepted
    snapshot.turns = reactor.turns
    snapshot.reads = reactor.reads
    snapshot.writes = reactor.writes
    snapshot.gathers = reactor.gathers
    snapshot.memory_bytes = memory_bytes(&reactor.memory)
    snapshot.memory_blocks = memory_blocks(&reactor.memory)
    snapshot.memory_failures = memory_failures(&reactor.memory)
    snapshot.assembly_bytes = reactor.assembling
    snapshot.remainder_bytes = reactor.remaining
    snapshot.tail_bytes = reactor.tails
    snapshot.client_bytes = reactor.client_bytes
    snapshot.addresses = reactor.address_count
    snapshot.reports_dropped = reactor.mailbox.dropped


cdef inline void snapshot_free(Reactor *reactor, Snapshot *snapshot) noexcept nogil:
    memory_release(&reactor.memory, snapshot.node)
    memory_release(&reactor.memory, snapshot.subscriber)
    memset(snapshot, 0, sizeof(Snapshot))
