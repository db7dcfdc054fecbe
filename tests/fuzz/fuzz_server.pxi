# The relay as a server: any bytes from a client.

cdef int fuzz_server(const uint8_t *data, size_t size) noexcept nogil:
    """Behind the preface and empty SETTINGS, unless the first byte says otherwise."""
    cdef Reactor *reactor
    cdef Connection *connection
    cdef int ours = -1
    cdef int theirs = -1
    if size == 0:
        return 0
    reactor = fuzz_reactor(data[0])
    fuzz_holds(fuzz_pair(&ours, &theirs) == 0, "there are descriptors")
    connection = fuzz_client(reactor, ours)
    fuzz_holds(connection != NULL, "there is memory")
    fuzz_holds(connection_watch(connection) == STATUS_OK, "epoll takes it")
    if not data[0] & FUZZ_BARE:
        fuzz_send(theirs, <const uint8_t *> b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 33)
    fuzz_converse(reactor, theirs, data[0], data + 1, size - 1)
    fuzz_end(reactor, theirs)
    return 0
