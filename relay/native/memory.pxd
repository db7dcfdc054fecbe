"""The one checked allocator of the engine: it counts, and it can be told to fail.

Every block starts with a 16-byte header that holds its size, so that a block can be given back
without its size being known. `bytes` counts what callers asked for, headers not included.

Blocks may be taken and given back on any thread (a pinned segment is freed at its last unpin), so
the counters are changed with atomic operations. They are relaxed: a reader sees each counter whole,
but not all of them at one instant.
"""

from libc.stdint cimport SIZE_MAX, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memset

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>
    #include <stdio.h>
    #include <stdlib.h>

    /* Kept at 16 bytes, so that a block is aligned as malloc aligns. */
    typedef struct {
        size_t size;
        uint64_t mark;
    } RelayBlock;

    /* In a live block's header; a block given back twice, or never taken here, lacks it. */
    #define RELAY_BLOCK_LIVE UINT64_C(0x6c69766520626c6b)
    #define RELAY_BLOCK_DEAD UINT64_C(0x6465616420626c6b)

    static inline void relay_block_check(const RelayBlock *block) {
    #if RELAY_DEBUG
        if (block->mark != RELAY_BLOCK_LIVE) {
            fprintf(stderr, "relay: a block was given back twice, or was never taken\\n");
            abort();
        }
    #else
        (void)block;
    #endif
    }

    _Static_assert(sizeof(RelayBlock) == 16, "a block's header must keep malloc's alignment");

    #define relay_counter_read(counter) __atomic_load_n((counter), __ATOMIC_RELAXED)
    #define relay_counter_write(counter, value) __atomic_store_n((counter), (value), __ATOMIC_RELAXED)
    #define relay_counter_add(counter, value) ((void)__atomic_fetch_add((counter), (value), __ATOMIC_RELAXED))
    #define relay_counter_subtract(counter, value) ((void)__atomic_fetch_sub((counter), (value), __ATOMIC_RELAXED))

    /* One step of a countdown to zero; true for the caller that takes the last step. */
    static inline int relay_countdown(uint64_t *counter) {
        uint64_t left = __atomic_load_n(counter, __ATOMIC_RELAXED);
        while (left != 0) {
            if (__atomic_compare_exchange_n(counter, &left, left - 1, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
                return left == 1;
            }
        }
        return 0;
    }
    """
    ctypedef struct RelayBlock:
        size_t size
        uint64_t mark

    uint64_t RELAY_BLOCK_LIVE
    uint64_t RELAY_BLOCK_DEAD
    void relay_block_check(const RelayBlock *block) noexcept nogil
    uint64_t relay_counter_read(const uint64_t *counter) noexcept nogil
    void relay_counter_write(uint64_t *counter, uint64_t value) noexcept nogil
    void relay_counter_add(uint64_t *counter, uint64_t value) noexcept nogil
    void relay_counter_subtract(uint64_t *counter, uint64_t value) noexcept nogil
    bint relay_countdown(uint64_t *counter) noexcept nogil


cdef struct Memory:
    uint64_t bytes     # held now, as asked for
    uint64_t blocks    # held now
    uint64_t taken     # blocks taken since the start
    uint64_t failures  # requests that were not met
    uint64_t fail_at   # 0: never; n: the n-th request from now fails (once), for tests


cdef inline void memory_init(Memory *memory) noexcept nogil:
    memset(memory, 0, sizeof(Memory))


cdef inline uint64_t memory_bytes(const Memory *memory) noexcept nogil:
    """Bytes held now; safe on any thread."""
    return relay_counter_read(&memory.bytes)


cdef inline uint64_t memory_blocks(const Memory *memory) noexcept nogil:
    """Blocks held now; safe on any thread."""
    return relay_counter_read(&memory.blocks)


cdef inline uint64_t memory_taken(const Memory *memory) noexcept nogil:
    """Blocks taken since the start; safe on any thread."""
    return relay_counter_read(&memory.taken)


cdef inline uint64_t memory_failures(const Memory *memory) noexcept nogil:
    """Requests that were not met; safe on any thread."""
    return relay_counter_read(&memory.failures)


cdef inline void memory_fail_at(Memory *memory, uint64_t count) noexcept nogil:
    """Let the `count`-th request from now fail, once; 0 takes that back."""
    relay_counter_write(&memory.fail_at, count)


cdef inline bint _memory_may(Memory *memory, size_t size) noexcept nogil:
    """False when a request of `size` bytes is to fail, because it is too large or because a test wants it."""
    return not relay_countdown(&memory.fail_at) and size <= SIZE_MAX - sizeof(RelayBlock)


cdef inline void *_memory_taken(Memory *memory, RelayBlock *block, size_t size) noexcept nogil:
    """Count a new block and give its body; NULL stays NULL, counted as a failure."""
    if block == NULL:
        relay_counter_add(&memory.failures, 1)
        return NULL
    block.size = size
    block.mark = RELAY_BLOCK_LIVE
    relay_counter_add(&memory.bytes, size)
    relay_counter_add(&memory.blocks, 1)
    relay_counter_add(&memory.taken, 1)
    return <void *>(block + 1)


cdef inline void *memory_take(Memory *memory, size_t size) noexcept nogil:
    """A block of `size` bytes with no defined content; size 0 gives a valid pointer, too.

    NULL when there is no memory, which is counted.
    """
    cdef RelayBlock *block = NULL
    if _memory_may(memory, size):
        block = <RelayBlock *>malloc(sizeof(RelayBlock) + size)
    return _memory_taken(memory, block, size)


cdef inline void *memory_take_zeroed(Memory *memory, size_t size) noexcept nogil:
    """As `memory_take`, with every byte zero. Large blocks cost nothing until they are touched."""
    cdef RelayBlock *block = NULL
    if _memory_may(memory, size):
        block = <RelayBlock *>calloc(1, sizeof(RelayBlock) + size)
    return _memory_taken(memory, block, size)


cdef inline void memory_release(Memory *memory, void *body) noexcept nogil:
    """Give a block back; NULL is fine."""
    cdef RelayBlock *block
    if body == NULL:
        return
    block = (<RelayBlock *>body) - 1
    relay_block_check(block)
    block.mark = RELAY_BLOCK_DEAD
    relay_counter_subtract(&memory.bytes, block.size)
    relay_counter_subtract(&memory.blocks, 1)
    free(block)


cdef inline void *memory_resize(Memory *memory, void *body, size_t size) noexcept nogil:
    """The block with its size changed, maybe at another place; a NULL block is taken anew.

    NULL when there is no memory (counted): the old block stays as it is, and the caller's.
    """
    cdef RelayBlock *block
    cdef RelayBlock *moved = NULL
    cdef size_t former
    if body == NULL:
        return memory_take(memory, size)
    block = (<RelayBlock *>body) - 1
    relay_block_check(block)
    former = block.size
    if _memory_may(memory, size):
        moved = <RelayBlock *>realloc(block, sizeof(RelayBlock) + size)
    if moved == NULL:
        relay_counter_add(&memory.failures, 1)
        return NULL
    moved.size = size
    # Unsigned arithmetic wraps, so adding the difference is right for a smaller size, too.
    relay_counter_add(&memory.bytes, <uint64_t>size - <uint64_t>former)
    return <void *>(moved + 1)


cdef inline size_t memory_size(const void *body) noexcept nogil:
    """The size of a block, as it was asked for."""
    return ((<const RelayBlock *>body) - 1).size


# The shapes of nghttp2_mem, with the Memory as its user data: sessions are counted and can be made to fail, too.

cdef inline void *memory_nghttp2_malloc(size_t size, void *user) noexcept nogil:
    return memory_take(<Memory *>user, size)


cdef inline void memory_nghttp2_free(void *body, void *user) noexcept nogil:
    memory_release(<Memory *>user, body)


cdef inline void *memory_nghttp2_calloc(size_t count, size_t size, void *user) noexcept nogil:
    cdef Memory *memory = <Memory *>user
    if size != 0 and count > SIZE_MAX // size:
        relay_counter_add(&memory.failures, 1)
        return NULL
    return memory_take_zeroed(memory, count * size)


cdef inline void *memory_nghttp2_realloc(void *body, size_t size, void *user) noexcept nogil:
    return memory_resize(<Memory *>user, body, size)
