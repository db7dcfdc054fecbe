"""UTF-8: is it, and if not, make it so.

Valid is what Go's utf8.Valid, Java and upb accept (RFC 3629, section 4): shortest forms only, no
surrogates, nothing above U+10FFFF. Repair replaces each invalid byte by one U+FFFD (EF BF BD). A byte is
invalid when no valid sequence starts at it and it is in none that started before, as when Go ranges
over a string. So F0 9F 98 41 becomes three U+FFFD and an "A".
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>
    #ifdef __SSE2__
    #include <emmintrin.h>
    #endif

    #define RELAY_TOP_BITS UINT64_C(0x8080808080808080)

    static inline uint64_t relay_bytes8(const uint8_t *data) {
        uint64_t bytes;
        memcpy(&bytes, data, 8);
        return bytes;
    }

    /* Up to 15 bytes, and none beyond them. */
    static inline int relay_ascii_short(const uint8_t *data, size_t size) {
        uint32_t one, two;
        if (size >= 8) {
            return ((relay_bytes8(data) | relay_bytes8(data + size - 8)) & RELAY_TOP_BITS) == 0;
        }
        if (size >= 4) {
            memcpy(&one, data, 4);
            memcpy(&two, data + size - 4, 4);
            return ((one | two) & (uint32_t)RELAY_TOP_BITS) == 0;
        }
        return size == 0 || ((data[0] | data[size / 2] | data[size - 1]) & 0x80) == 0;
    }

    /* 16 to 64 bytes: four blocks that overlap as much as needed, so that the size costs no branch. */
    static inline int relay_ascii_middle(const uint8_t *data, size_t size) {
        const size_t last = size - 16;
        const uint8_t *second = data + (last < 16 ? last : 16);
        const uint8_t *third = data + (last < 32 ? last : 32);
        const uint8_t *fourth = data + last;
    #ifdef __SSE2__
        __m128i one = _mm_or_si128(_mm_loadu_si128((const __m128i *)data), _mm_loadu_si128((const __m128i *)second));
        __m128i two = _mm_or_si128(_mm_loadu_si128((const __m128i *)third), _mm_loadu_si128((const __m128i *)fourth));
        return _mm_movemask_epi8(_mm_or_si128(one, two)) == 0;
    #else
        uint64_t low = relay_bytes8(data) | relay_bytes8(second) | relay_bytes8(third) | relay_bytes8(fourth);
        uint64_t high =
            relay_bytes8(data + 8) | relay_bytes8(second + 8) | relay_bytes8(third + 8) | relay_bytes8(fourth + 8);
        return ((low | high) & RELAY_TOP_BITS) == 0;
    #endif
    }

    /* More than 64 bytes. */
    static inline int relay_ascii_long(const uint8_t *data, size_t size) {
        while (size > 64) {
            if (!relay_ascii_middle(data, 64)) {
                return 0;
            }
            /* The last step goes back as far as it must to be a whole one. */
            const size_t step = size - 64 < 64 ? size - 64 : 64;
            data += step;
            size -= step;
        }
        return relay_ascii_middle(data, 64);
    }

    /*
     * Up to 64 bytes at `data`, of which `left` may be read. Strings of real events are of every size in
     * that range, and a branch on the size is mispredicted more often than not: so where 64 bytes are
     * there, all are loaded, and those beyond the string are masked out.
     */
    static inline int relay_ascii_masked(const uint8_t *data, size_t size, size_t left) {
    #ifdef __SSE2__
        if (__builtin_expect(left >= 64, 1)) {
            const __m128i *block = (const __m128i *)data;
            const uint64_t first = (uint32_t)_mm_movemask_epi8(_mm_loadu_si128(block));
            const uint64_t second = (uint32_t)_mm_movemask_epi8(_mm_loadu_si128(block + 1));
            const uint64_t third = (uint32_t)_mm_movemask_epi8(_mm_loadu_si128(block + 2));
            const uint64_t fourth = (uint32_t)_mm_movemask_epi8(_mm_loadu_si128(block + 3));
            const uint64_t above = first | second << 16 | third << 32 | fourth << 48;
            /* Shifted out at the top; in two steps, because one by all 64 bits is undefined. */
            const unsigned beyond = 64 - (unsigned)size;
            return above << beyond / 2 << (beyond - beyond / 2) == 0;
        }
    #else
        (void)left;
    #endif
        return size < 16 ? relay_ascii_short(data, size) : relay_ascii_middle(data, size);
    }
    """
    bint relay_ascii_short(const uint8_t *data, size_t size) noexcept nogil
    bint relay_ascii_middle(const uint8_t *data, size_t size) noexcept nogil
    bint relay_ascii_long(const uint8_t *data, size_t size) noexcept nogil
    bint relay_ascii_masked(const uint8_t *data, size_t size, size_t left) noexcept nogil


cdef inline bint utf8_ascii_within(const uint8_t *data, size_t size, size_t left) noexcept nogil:
    """No byte of `size` is above 0x7F.

    `left` >= `size` says how many bytes may be read from `data` on: short strings inside a larger
    message are checked with one load that looks beyond them. What lies there has no influence.
    """
    return relay_ascii_masked(data, size, left) if size <= 64 else relay_ascii_long(data, size)


cdef inline bint utf8_ascii(const uint8_t *data, size_t size) noexcept nogil:
    """No byte is above 0x7F. Reads nothing but these bytes."""
    return utf8_ascii_within(data, size, size)


cdef inline bint _utf8_continues(uint8_t byte) noexcept nogil:
    return byte & 0xC0 == 0x80


cdef inline size_t utf8_sequence(const uint8_t *data, size_t left) noexcept nogil:
    """The size, 1 to 4, of the valid sequence that starts at `data`; 0 when there is none (`left` > 0)."""
    cdef uint8_t lead = data[0]
    if lead < 0x80:
        return 1
    if lead < 0xC2 or lead > 0xF4:
        return 0  # a continuation, an overlong form of ASCII, or above U+10FFFF
    if left < 2 or not _utf8_continues(data[1]):
        return 0
    if lead < 0xE0:
        return 2
    if lead == 0xE0 and data[1] < 0xA0:
        return 0  # overlong
    if lead == 0xED and data[1] > 0x9F:
        return 0  # surrogate
    if left < 3 or not _utf8_continues(data[2]):
        return 0
    if lead < 0xF0:
        return 3
    if lead == 0xF0 and data[1] < 0x90:
        return 0  # overlong
    if lead == 0xF4 and data[1] > 0x8F:
        return 0  # above U+10FFFF
    if left < 4 or not _utf8_continues(data[3]):
        return 0
    return 4


cdef inline bint utf8_valid(const uint8_t *data, size_t size) noexcept nogil:
    cdef size_t at = 0
    cdef size_t step
    while at < size:
        # Runs of ASCII in text of other scripts are short: 16 at a time, then one by one.
        if size - at >= 16 and relay_ascii_middle(data + at, 16):
            at += 16
            continue
        step = utf8_sequence(data + at, size - at)
        if step == 0:
            return False
        at += step
    return True


cdef inline size_t utf8_repaired_size(const uint8_t *data, size_t size) noexcept nogil:
    """What `utf8_repair` would write: at most three times `size`, which must not be above SIZE_MAX / 3."""
    cdef size_t at = 0
    cdef size_t repaired = size
    cdef size_t step
    while at < size:
        step = utf8_sequence(data + at, size - at)
        if step == 0:
            step = 1
            repaired += 2
        at += step
    return repaired


cdef inline size_t utf8_repair(const uint8_t *data, size_t size, uint8_t *out) noexcept nogil:
    """Write the text with each invalid byte replaced to `out`, which has room for `utf8_repaired_size` bytes.

    Returns how many bytes were replaced.
    """
    cdef size_t at = 0
    cdef size_t replaced = 0
    cdef size_t step
    while at < size:
        step = utf8_sequence(data + at, size - at)
        if step == 0:
            out[0] = 0xEF
            out[1] = 0xBF
            out[2] = 0xBD
            out += 3
            at += 1
            replaced += 1
        else:
            memcpy(out, data + at, step)
            out += step
            at += step
    return replaced
