"""Shows addresses.pxd to pytest."""

from libc.stdlib cimport calloc as address_calloc, free as address_free

cimport relay.native.addresses as shown_addresses
from relay.native.memory cimport memory_blocks as address_blocks, memory_fail_at as address_fail_at
from relay.native.memory cimport memory_init as address_memory
from relay.native.model cimport Address as AddressEntry, Reactor as AddressReactor
from relay.native.posix cimport (
    AF_INET as ADDRESS_FOUR, AF_INET6 as ADDRESS_SIX, inet_pton as address_parse, sockaddr_in as address_in,
    sockaddr_in6 as address_in6, sockaddr_storage as address_storage,
)


cdef class ShownAddresses:
    """The table of clients' addresses, with one place for each connection: `take` gives a number for `drop`."""
    cdef AddressReactor *reactor
    cdef AddressEntry *taken[4096]
    cdef int count

    def __cinit__(self, connections, an_address, subscribers=1024, excess=1 << 20):
        self.reactor = <AddressReactor *> address_calloc(1, sizeof(AddressReactor))
        address_memory(&self.reactor.memory)
        self.reactor.settings.max_connections = connections
        self.reactor.settings.max_address_connections = an_address
        self.reactor.settings.max_subscribers = subscribers
        self.reactor.excess_most = excess
        shown_addresses.addresses_init(self.reactor)

    def __dealloc__(self):
        shown_addresses.addresses_free(self.reactor)
        address_free(self.reactor)

    def take(self, text):
        """One connection more from an address: (number, connections of the address), or None without memory."""
        cdef address_storage peer
        encoded = text.encode()
        if address_parse(ADDRESS_FOUR, encoded, &(<address_in *> &peer).sin_addr) == 1:
            (<address_in *> &peer).sin_family = ADDRESS_FOUR
        else:
            assert address_parse(ADDRESS_SIX, encoded, &(<address_in6 *> &peer).sin6_addr) == 1
            (<address_in6 *> &peer).sin6_family = ADDRESS_SIX
        self.taken[self.count] = shown_addresses.address_take(self.reactor, &peer)
        if self.taken[self.count] == NULL:
            return None
        self.count += 1
        return self.count - 1, self.taken[self.count - 1].connections

    def drop(self, int number):
        shown_addresses.address_drop(self.reactor, self.taken[number])

    def fail_next(self):
        address_fail_at(&self.reactor.memory, 1)

    @property
    def addresses(self):
        return self.reactor.address_count

    @property
    def blocks(self):
        """Blocks held, the table's own among them."""
        return address_blocks(&self.reactor.memory)

    @property
    def shares(self):
        """Of one address: subscribers, and bytes beyond its connections' parts."""
        return self.reactor.address_subscribers, self.reactor.address_excess
