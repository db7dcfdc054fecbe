"""The enrichment table: IP address → name, made once and then only read.

One block: the table's head, its slots, its entries. Slots are probed one after the other (open addressing, at most
half of them taken) and hold 32 bits of the hash, so that an address that is not known hardly ever costs more than its
slot. An entry is the address, the size of its name, and the name, back to back.

The hash is SipHash-1-3 (Aumasson and Bernstein, 2012) with a random key: what addresses a cluster has is up to its
users, who must not be able to choose such as share a slot. benchmarks/test_micro_enrich.py has what a look-up costs.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from relay.native.debug cimport relay_assert
from relay.native.ip cimport IP_BYTES
from relay.native.memory cimport Memory, memory_take

cdef enum:
    NAMES_TEXT = 600           # bytes of the longest name
    NAMES_MOST = 1 << 22       # addresses; places of entries then fit 32 bits
    NAMES_KEY = 16             # bytes of the hash's key
    NAMES_ENTRY = IP_BYTES + 2  # bytes of an entry before its name

cdef enum:  # what became of names_add
    NAMES_ADDED
    NAMES_SAME                 # the address has that name already
    NAMES_OTHER                # the address has another name, which it keeps


cdef struct NamesSlot:
    uint32_t tag               # the upper half of the address' hash
    uint32_t place             # of the entry, plus one; 0: free

cdef struct Names:
    uint64_t key[2]
    uint64_t mask              # slots less one
    uint32_t count
    uint32_t used              # bytes of entries
    uint32_t room              # bytes there are for them
    NamesSlot *slots
    uint8_t *entries


cdef inline uint64_t _names_turn(uint64_t value, int bits) noexcept nogil:
    return value << bits | value >> (64 - bits)


cdef inline void _names_round(uint64_t *v) noexcept nogil:
    """SipRound."""
    v[0] += v[1]
    v[2] += v[3]
    v[1] = _names_turn(v[1], 13) ^ v[0]
    v[3] = _names_turn(v[3], 16) ^ v[2]
    v[0] = _names_turn(v[0], 32)
    v[2] += v[1]
    v[0] += v[3]
    v[1] = _names_turn(v[1], 17) ^ v[2]
    v[3] = _names_turn(v[3], 21) ^ v[0]
    v[2] = _names_turn(v[2], 32)


cdef inline uint64_t names_hash(const uint64_t *key, const uint8_t *address) noexcept nogil:
    """SipHash-1-3 of an address. Its bytes are taken in the machine's order: the hash stays in the process."""
    cdef uint64_t v[4]
    cdef uint64_t words[3]
    cdef int i
    cdef int _
    memcpy(words, address, IP_BYTES)
    words[2] = <uint64_t> IP_BYTES << 56
    v[0] = key[0] ^ <uint64_t> 0x736F6D6570736575
    v[1] = key[1] ^ <uint64_t> 0x646F72616E646F6D
    v[2] = key[0] ^ <uint64_t> 0x6C7967656E657261
    v[3] = key[1] ^ <uint64_t> 0x7465646279746573
    for i in range(3):
        v[3] ^= words[i]
        _names_round(v)
        v[0] ^= words[i]
    v[2] ^= 0xFF
    for _ in range(3):
        _names_round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


cdef inline Names *names_new(
    Memory *memory, size_t count, size_t text, uint64_t key0, uint64_t key1
) noexcept nogil:
    """An empty table with room for `count` addresses whose names have `text` bytes together; NULL without memory.

    `count` is at most NAMES_MOST, and `text` at most NAMES_TEXT for each. Given back with `memory_release`.
    """
    cdef Names *names
    cdef size_t slots = 2
    cdef size_t room = count * NAMES_ENTRY + text
    relay_assert(count <= NAMES_MOST and text <= count * NAMES_TEXT, "a table of names is within its bounds")
    while slots < 2 * count:
        slots *= 2
    names = <Names *> memory_take(memory, sizeof(Names) + slots * sizeof(NamesSlot) + room)
    if names == NULL:
        return NULL
    names.key[0] = key0
    names.key[1] = key1
    names.mask = slots - 1
    names.count = 0
    names.used = 0
    names.room = <uint32_t> room
    names.slots = <NamesSlot *> (names + 1)
    names.entries = <uint8_t *> (names.slots + slots)
    memset(names.slots, 0, slots * sizeof(NamesSlot))
    return names


cdef inline NamesSlot *_names_slot(const Names *names, const uint8_t *address, uint64_t hash) noexcept nogil:
    """The slot that has the address, or the free one where it would be."""
    cdef uint64_t at = hash & names.mask
    cdef NamesSlot *slot
    while True:
        slot = &names.slots[at]
        if slot.place == 0:
            return slot
        if slot.tag == <uint32_t> (hash >> 32) and memcmp(
                names.entries + slot.place - 1, address, IP_BYTES) == 0:
            return slot
        at = (at + 1) & names.mask


cdef inline size_t _names_text(const Names *names, const NamesSlot *slot, const uint8_t **text) noexcept nogil:
    """The name in a taken slot: where it is, and its size."""
    cdef const uint8_t *entry = names.entries + slot.place - 1
    cdef uint16_t size
    memcpy(&size, entry + IP_BYTES, 2)
    text[0] = entry + NAMES_ENTRY
    return size


cdef inline size_t names_find(const Names *names, const uint8_t *address, const uint8_t **text) noexcept nogil:
    """The size of an address' name, and where it is; 0 when the address has none."""
    cdef NamesSlot *slot = _names_slot(names, address, names_hash(names.key, address))
    if slot.place == 0:
        return 0
    return _names_text(names, slot, text)


cdef inline int names_add(Names *names, const uint8_t *address, const uint8_t *text, size_t size) noexcept nogil:
    """Give an address a name of 1 to NAMES_TEXT bytes, within the room the table was made with."""
    cdef uint64_t hash = names_hash(names.key, address)
    cdef NamesSlot *slot = _names_slot(names, address, hash)
    cdef const uint8_t *former = NULL
    cdef uint8_t *entry
    cdef uint16_t length = <uint16_t> size
    if slot.place != 0:
        if _names_text(names, slot, &former) == size and memcmp(former, text, size) == 0:
            return NAMES_SAME
        return NAMES_OTHER
    relay_assert(1 <= size <= NAMES_TEXT and size <= names.room - names.used - NAMES_ENTRY,
                 "a name has the room it was promised")
    entry = names.entries + names.used
    memcpy(entry, address, IP_BYTES)
    memcpy(entry + IP_BYTES, &length, 2)
    memcpy(entry + NAMES_ENTRY, text, size)
    slot.tag = <uint32_t> (hash >> 32)
    slot.place = names.used + 1
    names.used += <uint32_t> (NAMES_ENTRY + size)
    names.count += 1
    return NAMES_ADDED
