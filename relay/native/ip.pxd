"""IP addresses from text: exactly what Go's net.ParseIP takes, since that is what the Go relay asks.

The result is always 16 bytes in network order. An IPv4 address is its IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2),
so that every spelling of an address gives the same bytes.

- IPv4: four decimal numbers from 0 to 255 with dots between, without leading zeros.
- IPv6 (RFC 4291, 2.2): groups of one to four hexadecimal digits of either case; the last two groups may be written as
  IPv4; `::` once, for at least one group, also at the very end.
- No zones, brackets, ports, prefixes or spaces.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memmove, memset

cdef extern from *:
    # Cython defines these in every module.
    bint likely(bint condition) noexcept nogil
    bint unlikely(bint condition) noexcept nogil

cdef enum:
    IP_BYTES = 16
    IP_FOUR_AT = 12            # where the bytes of an IPv4 address lie in the 16
    IP_GROUP_DIGITS = 4
    IP_NO_GAP = -1
    IP_DOT = 0x2E
    IP_COLON = 0x3A


cdef inline bint _ip_four(const uint8_t *at, const uint8_t *end, uint8_t *out) noexcept nogil:
    """Whether the text is an IPv4 address; its four bytes."""
    cdef uint32_t value
    cdef const uint8_t *first
    cdef int part
    for part in range(4):
        if part != 0:
            if at == end or at[0] != IP_DOT:
                return False
            at += 1
        first = at
        value = 0
        while at < end and <uint8_t> (at[0] - 48) <= 9:
            if at != first and value == 0:
                return False                          # a leading zero, which others read as octal
            value = value * 10 + (at[0] - 48)
            if value > 255:
                return False
            at += 1
        if at == first:
            return False
        out[part] = <uint8_t> value
    return at == end


cdef inline int _ip_hex(uint8_t byte) noexcept nogil:
    """A hexadecimal digit's value, or -1."""
    if <uint8_t> (byte - 48) <= 9:
        return byte - 48
    byte |= 0x20
    if 97 <= byte <= 102:
        return byte - 87
    return -1


cdef inline bint _ip_six(const uint8_t *at, const uint8_t *end, uint8_t *out) noexcept nogil:
    """Whether the text is an IPv6 address; its sixteen bytes."""
    cdef const uint8_t *first
    cdef uint32_t value
    cdef int digit
    cdef int count = 0         # bytes so far
    cdef int gap = IP_NO_GAP   # how many bytes there were before `::`
    if end - at >= 2 and at[0] == IP_COLON and at[1] == IP_COLON:
        gap = 0
        at += 2
    while at < end:
        if count == IP_BYTES:
            return False
        first = at
        value = 0
        while at < end:
            digit = _ip_hex(at[0])
            if digit < 0:
                break
            if at - first == IP_GROUP_DIGITS:
                return False
            value = value << 4 | <uint32_t> digit
            at += 1
        if at == first:
            return False
        if at < end and at[0] == IP_DOT:
            # What looked like a group is the beginning of an IPv4 address, with which the text ends.
            if count > IP_FOUR_AT or not _ip_four(first, end, out + count):
                return False
            count += 4
            break
        out[count] = <uint8_t> (value >> 8)
        out[count + 1] = <uint8_t> value
        count += 2
        if at == end:
            break
        if at[0] != IP_COLON:
            return False
        at += 1
        if at == end:
            return False                              # a single colon ends nothing
        if at[0] == IP_COLON:
            if gap != IP_NO_GAP:
                return False
            gap = count
            at += 1
    if gap == IP_NO_GAP:
        return count == IP_BYTES
    if count == IP_BYTES:
        return False                                  # nothing is left for `::` to stand for
    memmove(out + IP_BYTES - (count - gap), out + gap, <size_t> (count - gap))
    memset(out + gap, 0, <size_t> (IP_BYTES - count))
    return True


cdef inline void ip_map(const uint8_t *four, uint8_t *out) noexcept nogil:
    """The 16 bytes of an IPv4 address of 4."""
    memset(out, 0, 10)
    out[10] = 0xFF
    out[11] = 0xFF
    memcpy(out + IP_FOUR_AT, four, 4)


cdef inline bint ip_parse(const uint8_t *text, size_t size, uint8_t *out) noexcept nogil:
    """Whether the text is an address; its IP_BYTES bytes, which mean nothing otherwise."""
    cdef uint8_t four[4]
    cdef const uint8_t *end = text + size
    cdef const uint8_t *at = text
    # The longest group or number tells which of the two it can only be.
    while at < end and at - text <= IP_GROUP_DIGITS and at[0] != IP_DOT and at[0] != IP_COLON:
        at += 1
    if at == end:
        return False
    if at[0] == IP_COLON:
        return _ip_six(text, end, out)
    if not _ip_four(text, end, four):
        return False
    ip_map(four, out)
    return True
