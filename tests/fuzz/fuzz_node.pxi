# The relay as a client: any bytes from a node.

from relay.native.model cimport CONNECTION_NODE, NODE_CONNECTING, NODE_IDLE, NODE_STREAMING, Node
from relay.native.memory cimport memory_take_zeroed
from relay.native.node cimport node_new

cdef extern from *:
    """
    /* SETTINGS; ACK of the relay's; then the answer to HealthCheck on stream 1: headers (":status: 200",
       "content-type: application/grpc"), {Retval: 42}, trailers ("grpc-status: 0"). */
    static const uint8_t fuzz_healthy[] = {
        0, 0, 0, 4, 0, 0, 0, 0, 0,
        0, 0, 0, 4, 1, 0, 0, 0, 0,
        0, 0, 20, 1, 4, 0, 0, 0, 1,
        0x88, 0x0f, 0x10, 16,
        'a', 'p', 'p', 'l', 'i', 'c', 'a', 't', 'i', 'o', 'n', '/', 'g', 'r', 'p', 'c',
        0, 0, 7, 0, 0, 0, 0, 0, 1,
        0, 0, 0, 0, 2, 8, 42,
        0, 0, 15, 1, 5, 0, 0, 0, 1,
        0, 11, 'g', 'r', 'p', 'c', '-', 's', 't', 'a', 't', 'u', 's', 1, '0',
    };
    """
    const uint8_t fuzz_healthy[87]


cdef int fuzz_node(const uint8_t *data, size_t size) noexcept nogil:
    """Behind the answer to HealthCheck, unless the first byte says otherwise; then streams 3, 5 and 7 are the feeds."""
    cdef Reactor *reactor
    cdef Connection *connection
    cdef Node *node
    cdef int ours = -1
    cdef int theirs = -1
    if size == 0:
        return 0
    reactor = fuzz_reactor(data[0])
    fuzz_holds(fuzz_pair(&ours, &theirs) == 0, "there are descriptors")
    node = <Node *> memory_take_zeroed(&reactor.memory, sizeof(Node))
    connection = connection_new(reactor, CONNECTION_NODE, ours)
    fuzz_holds(node != NULL and connection != NULL, "there is memory")
    node_new(reactor, node, node, 1, 7)
    connection.node = node
    node.connection = connection
    node.state = NODE_CONNECTING
    fuzz_holds(connection_watch(connection) == STATUS_OK, "epoll takes it")
    # The socket is writable at once, which is how a connection that was being made tells that it is.
    reactor_turn(reactor, 0)
    node.nonce = 42
    if not data[0] & FUZZ_BARE:
        fuzz_send(theirs, fuzz_healthy, 87)
        reactor_turn(reactor, 0)
        fuzz_drain(theirs)
        fuzz_holds(node.state == NODE_STREAMING, "a healthy answer is taken as one")
    fuzz_converse(reactor, theirs, data[0], data + 1, size - 1)
    close_fd(theirs)
    theirs = -1
    reactor_turn(reactor, 0)
    reactor_turn(reactor, 0)
    if not data[0] & FUZZ_STOP:
        fuzz_holds(node.state == NODE_IDLE and node.connection == NULL, "a node that has gone is idle")
    fuzz_end(reactor, theirs)
    return 0
