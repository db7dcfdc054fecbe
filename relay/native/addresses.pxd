"""Who is connected: one entry for each client's address, with what its connections make the engine hold.

An address is an IPv4 address, however it came in, or the first 64 bits of an IPv6 address: whoever has one of those
has all of them (RFC 6177). Entries are chained in a fixed number of buckets, which are chosen with a random key: what
address somebody comes from is up to them.
"""

from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.string cimport memcmp, memcpy, memset

from relay.native.address cimport address_bytes
from relay.native.debug cimport relay_assert
from relay.native.ip cimport IP_BYTES, ip_map
from relay.native.memory cimport memory_release, memory_take_zeroed
from relay.native.model cimport Address, Reactor, Settings
from relay.native.names cimport names_hash
from relay.native.posix cimport GRND_NONBLOCK, getrandom, sockaddr_storage
from relay.native.status cimport STATUS_NO_MEMORY, STATUS_OK

cdef enum:
    ADDRESS_BUCKETS_MOST = 16384
    ADDRESS_PREFIX = 8         # bytes of an IPv6 address that count
    # Of what there is for all, one address gets the part that it may have of the connections, or this if that is more.
    ADDRESS_PART = 4


cdef inline int addresses_init(Reactor *reactor) noexcept nogil:
    """What one address gets, and an empty table with about as many buckets as there can be connections."""
    cdef const Settings *settings = &reactor.settings
    cdef uint64_t part = settings.max_connections // settings.max_address_connections
    cdef uint64_t buckets = 1
    if part > ADDRESS_PART:
        part = ADDRESS_PART
    elif part == 0:
        part = 1
    reactor.address_excess = reactor.excess_most // part
    reactor.address_subscribers = <uint32_t> ((settings.max_subscribers + part - 1) // part)
    while buckets < settings.max_connections and buckets < ADDRESS_BUCKETS_MOST:
        buckets *= 2
    reactor.addresses = <Address **> memory_take_zeroed(&reactor.memory, buckets * sizeof(Address *))
    if reactor.addresses == NULL:
        return STATUS_NO_MEMORY
    reactor.address_mask = buckets - 1
    if getrandom(reactor.address_key, sizeof(reactor.address_key), GRND_NONBLOCK) != sizeof(reactor.address_key):
        # Before the kernel has gathered any randomness.
        reactor.address_key[0] = reactor.now
        reactor.address_key[1] = <uint64_t> <size_t> reactor
    return STATUS_OK


cdef inline void addresses_free(Reactor *reactor) noexcept nogil:
    """The table of a reactor without connections."""
    memory_release(&reactor.memory, reactor.addresses)
    reactor.addresses = NULL


cdef inline void address_key(const sockaddr_storage *peer, uint8_t *key) noexcept nogil:
    """The IP_BYTES that stand for a peer."""
    cdef size_t size
    cdef const uint8_t *bytes = address_bytes(peer, &size)
    memset(key, 0, IP_BYTES)
    if size == IP_BYTES:
        memcpy(key, bytes, ADDRESS_PREFIX)
    elif size != 0:
        ip_map(bytes, key)


cdef inline Address **_address_place(Reactor *reactor, const uint8_t *key) noexcept nogil:
    """What points to the entry of `key`, or to the end of its chain."""
    cdef Address **place = &reactor.addresses[names_hash(reactor.address_key, key) & reactor.address_mask]
    while place[0] != NULL and memcmp(place[0].key, key, IP_BYTES) != 0:
        place = &place[0].next
    return place


cdef inline Address *address_take(Reactor *reactor, const sockaddr_storage *peer) noexcept nogil:
    """The entry of a peer's address, with one connection more; NULL without memory. `address_drop` gives it back."""
    cdef uint8_t key[IP_BYTES]
    cdef Address **place
    cdef Address *address
    address_key(peer, key)
    place = _address_place(reactor, key)
    address = place[0]
    if address == NULL:
        address = <Address *> memory_take_zeroed(&reactor.memory, sizeof(Address))
        if address == NULL:
            return NULL
        memcpy(address.key, key, IP_BYTES)
        place[0] = address
        reactor.address_count += 1
    address.connections += 1
    return address


cdef inline void address_drop(Reactor *reactor, Address *address) noexcept nogil:
    """One connection less; the entry goes with the last."""
    cdef Address **place
    address.connections -= 1
    if address.connections != 0:
        return
    relay_assert(address.bytes == 0 and address.subscribers == 0, "an address without connections holds nothing")
    place = _address_place(reactor, address.key)
    relay_assert(place[0] == address, "an address is found where it was put")
    place[0] = address.next
    reactor.address_count -= 1
    memory_release(&reactor.memory, address)
