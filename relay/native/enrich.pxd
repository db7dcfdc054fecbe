"""Enrichment: a log of a TCP connection is told whose address it names.

A log whose Data contains `tcp_` is concerned. Its Resource is cut into fields at white space; the first field with
`remoteip=` in it and nothing but an IP address behind its first `=` decides. Where the table knows the address,
` remotehost=` and its name are appended to Resource. The length before it is written anew, in its shortest form;
everything else stays byte for byte as it was.

Asked of every log while there is a table, so the question whether Data is concerned must cost next to nothing: the
scan (scan.pxd) or the shape (shape.pxd) says where Data lies. Measured on different logs of 768 bytes, one after the
other: benchmarks/test_micro_enrich.py.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp, memcpy

from relay.native.ip cimport IP_BYTES, ip_parse
from relay.native.names cimport Names, names_find
from relay.native.repair cimport repair_put_varint, repair_varint_size
from relay.native.scan cimport ScanString

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #ifdef __SSE2__
    #include <emmintrin.h>
    #endif

    static const char relay_enrich_host[] = " remotehost=";
    static const char relay_enrich_key[] = "remoteip";

    /* Whether the four bytes are `tcp_`. */
    static inline int relay_enrich_tcp_at(const uint8_t *data) {
        return memcmp(data, "tcp_", 4) == 0;
    }

    #ifdef __SSE2__
    /* At which of 16 places from `data` on a `t` has a `_` three bytes behind it. Reads 19 bytes. */
    static inline __m128i relay_enrich_places(const uint8_t *data) {
        const __m128i first = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)data), _mm_set1_epi8('t'));
        const __m128i last = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(data + 3)), _mm_set1_epi8('_'));
        return _mm_and_si128(first, last);
    }

    /* Whether there is such a place among the first 64. Reads 67 bytes. */
    static inline int relay_enrich_maybe(const uint8_t *data) {
        const __m128i one = _mm_or_si128(relay_enrich_places(data), relay_enrich_places(data + 16));
        const __m128i two = _mm_or_si128(relay_enrich_places(data + 32), relay_enrich_places(data + 48));
        return _mm_movemask_epi8(_mm_or_si128(one, two)) != 0;
    }
    #endif

    /*
     * Whether `tcp_` is within `size` >= 4 bytes at `data`, of which `left` may be read. As with the check for ASCII, a
     * branch on the size would be mispredicted more often than not: where they are there, 64 places are looked at
     * at once, also those beyond the text; only where that finds something, it is looked at closely.
     */
    static inline int relay_enrich_tcp(const uint8_t *data, size_t size, size_t left) {
    #ifdef __SSE2__
        while (left >= 67 && !relay_enrich_maybe(data)) {
            if (size < 68) {
                return 0;
            }
            data += 64;
            size -= 64;
            left -= 64;
        }
    #else
        (void)left;
    #endif
        for (const uint8_t *last = data + size - 4; data <= last; data++) {
            if (relay_enrich_tcp_at(data)) {
                return 1;
            }
        }
        return 0;
    }
    """
    const char *relay_enrich_host
    const char *relay_enrich_key
    bint relay_enrich_tcp(const uint8_t *data, size_t size, size_t left) noexcept nogil

cdef enum:
    ENRICH_HOST = 12           # bytes of relay_enrich_host
    ENRICH_KEY = 8             # and of relay_enrich_key
    ENRICH_EQUALS = 0x3D


# What becomes of a log: ` remotehost=` and the name behind `body`, whose length is written anew.
cdef struct Enrichment:
    const uint8_t *length      # the length before Resource
    const uint8_t *body
    size_t body_size
    const uint8_t *name
    size_t name_size
    size_t size                # of the event, enriched


cdef inline bint enrich_concerned(ScanString data, const uint8_t *end) noexcept nogil:
    """Whether a log with this Data is one of TCP. `end` is that of the event: up to there may be read."""
    return data.size >= 4 and relay_enrich_tcp(data.body, data.size, <size_t> (end - data.body))


cdef inline size_t enrich_space(const uint8_t *at, const uint8_t *end) noexcept nogil:
    """The size of the white space character (Unicode's White_Space) that begins here, 0 when none does.

    Within UTF-8 only: a byte in the middle of a character begins nothing.
    """
    cdef uint8_t byte = at[0]
    cdef uint8_t second
    cdef uint8_t third
    if 0x20 < byte < 0x80:
        return 0
    if byte < 0x80:
        return 1 if byte == 0x20 or 0x09 <= byte <= 0x0D else 0
    if byte == 0xC2:
        # U+0085, U+00A0
        return 2 if end - at >= 2 and (at[1] == 0x85 or at[1] == 0xA0) else 0
    if byte < 0xE1 or byte > 0xE3 or end - at < 3:
        return 0
    second = at[1]
    third = at[2]
    if byte == 0xE1:
        return 3 if second == 0x9A and third == 0x80 else 0     # U+1680
    if byte == 0xE3:
        return 3 if second == 0x80 and third == 0x80 else 0     # U+3000
    if second == 0x80:
        # U+2000 to U+200A, U+2028, U+2029, U+202F
        return 3 if 0x80 <= third <= 0x8A or third == 0xA8 or third == 0xA9 or third == 0xAF else 0
    return 3 if second == 0x81 and third == 0x9F else 0         # U+205F


cdef inline bint enrich_address(const uint8_t *text, size_t size, uint8_t *address) noexcept nogil:
    """The address that decides in a Resource; False when there is none."""
    cdef const uint8_t *at = text
    cdef const uint8_t *end = text + size
    cdef const uint8_t *first
    cdef const uint8_t *equals
    cdef size_t space
    while at < end:
        space = enrich_space(at, end)
        if space:
            at += space
            continue
        first = at
        equals = NULL
        while at < end and enrich_space(at, end) == 0:
            if at[0] == ENRICH_EQUALS and equals == NULL:
                equals = at
            at += 1
        # With another `=` before the one of `remoteip=`, what is behind the first one is no address anyway.
        if (equals != NULL and equals - first >= ENRICH_KEY
                and memcmp(equals - ENRICH_KEY, relay_enrich_key, ENRICH_KEY) == 0
                and ip_parse(equals + 1, <size_t> (at - equals) - 1, address)):
            return True
    return False


cdef inline bint enrich_plan(
    const Names *names, size_t size, ScanString resource, Enrichment *plan
) noexcept nogil:
    """Whether a log of `size` bytes that is concerned is to be enriched, and how. `resource` lies in the event."""
    cdef uint8_t address[IP_BYTES]
    cdef size_t grown
    if not enrich_address(resource.body, resource.size, address):
        return False
    plan.name_size = names_find(names, address, &plan.name)
    if plan.name_size == 0:
        return False
    plan.body = resource.body
    plan.body_size = resource.size
    plan.length = resource.length
    grown = plan.body_size + ENRICH_HOST + plan.name_size
    plan.size = size - <size_t> (plan.body - plan.length) - plan.body_size + repair_varint_size(grown) + grown
    return True


cdef inline void enrich_write(
    const uint8_t *event, size_t size, const Enrichment *plan, uint8_t *out
) noexcept nogil:
    """Write the event enriched, `plan.size` bytes."""
    cdef size_t before = <size_t> (plan.length - event)
    cdef const uint8_t *after = plan.body + plan.body_size
    memcpy(out, event, before)
    out = repair_put_varint(out + before, plan.body_size + ENRICH_HOST + plan.name_size)
    memcpy(out, plan.body, plan.body_size)
    out += plan.body_size
    memcpy(out, relay_enrich_host, ENRICH_HOST)
    memcpy(out + ENRICH_HOST, plan.name, plan.name_size)
    out += ENRICH_HOST + plan.name_size
    memcpy(out, after, <size_t> (event + size - after))
