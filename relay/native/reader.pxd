"""The bounded reader: the only way in which received bytes are read.

It cannot pass its end. Every function that takes something says whether it could; when it could
not, the reader stays where it was and the result is left alone.
"""

from libc.stddef cimport size_t
from libc.stdint cimport UINT32_MAX, uint8_t, uint32_t, uint64_t


cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    /*
     * The size of a varint of which 8 bytes can be read, 1 to 8; 9 when it is longer. Without a branch on
     * the size, which is anything from 1 to 5 in real events and mispredicted accordingly.
     */
    static inline unsigned relay_varint_size(const uint8_t *data) {
        uint64_t bytes;
        memcpy(&bytes, data, 8);
    #if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        bytes = __builtin_bswap64(bytes);
    #endif
        const uint64_t ends = ~bytes & UINT64_C(0x8080808080808080);
        return ends == 0 ? 9 : (unsigned)__builtin_ctzll(ends) / 8 + 1;
    }
    """
    unsigned int relay_varint_size(const uint8_t *data) noexcept nogil
    # Branch hints; Cython defines them in every module.
    bint likely(bint condition) noexcept nogil
    bint unlikely(bint condition) noexcept nogil


cdef struct Reader:
    const uint8_t *at   # the next byte to read
    const uint8_t *end  # one past the last byte; never before `at`


# Wire types of protobuf (Encoding, "Message Structure").
cdef enum WireType:
    WIRE_VARINT = 0
    WIRE_FIXED64 = 1
    WIRE_BYTES = 2
    WIRE_GROUP = 3
    WIRE_GROUP_END = 4
    WIRE_FIXED32 = 5


cdef inline void reader_init(Reader *reader, const uint8_t *data, size_t size) noexcept nogil:
    reader.at = data
    reader.end = data + size


cdef inline size_t reader_left(const Reader *reader) noexcept nogil:
    return <size_t>(reader.end - reader.at)


cdef inline bint reader_skip(Reader *reader, size_t size) noexcept nogil:
    if size > reader_left(reader):
        return False
    reader.at += size
    return True


cdef inline bint _reader_varint(Reader *reader, size_t limit, uint64_t *value) noexcept nogil:
    """A varint of at most `limit` <= 10 bytes that fits 64 bits."""
    cdef const uint8_t *at = reader.at
    cdef size_t left = reader_left(reader)
    cdef size_t index
    cdef uint64_t result = 0
    cdef uint8_t byte
    if left > limit:
        left = limit
    for index in range(left):
        byte = at[index]
        # Nine bytes carry 63 bits; of the tenth only one is left to use.
        if index == 9 and byte > 1:
            return False
        result |= <uint64_t>(byte & 0x7F) << (7 * index)
        if byte < 0x80:
            value[0] = result
            reader.at = at + index + 1
            return True
    return False


cdef inline bint _reader_short(Reader *reader, uint64_t *value) noexcept nogil:
    """A varint of one or two bytes, which nearly all tags and lengths are. False when it is longer, or last."""
    cdef const uint8_t *at = reader.at
    if unlikely(reader_left(reader) < 2):
        return False
    if at[0] < 0x80:
        value[0] = at[0]
        reader.at = at + 1
        return True
    if likely(at[1] < 0x80):
        value[0] = <uint64_t>(at[0] & 0x7F) | <uint64_t>at[1] << 7
        reader.at = at + 2
        return True
    return False


cdef inline bint reader_varint(Reader *reader, uint64_t *value) noexcept nogil:
    """A base-128 varint, 1 to 10 bytes.

    Longer than needed is fine (every protobuf parser takes it); more than 64 bits is not: the C++, upb
    and Java parsers drop the excess bits of the tenth byte, Go's refuses it.
    """
    if reader.at != reader.end and reader.at[0] < 0x80:
        value[0] = reader.at[0]
        reader.at += 1
        return True
    return _reader_varint(reader, 10, value)


cdef inline bint reader_skip_varint(Reader *reader) noexcept nogil:
    """Pass what `reader_varint` would read."""
    cdef uint64_t value
    cdef unsigned int size
    if reader_left(reader) >= 8:
        size = relay_varint_size(reader.at)
        if size <= 8:
            reader.at += size
            return True
    return _reader_varint(reader, 10, &value)


cdef inline bint reader_tag(Reader *reader, uint32_t *number, uint32_t *wire) noexcept nogil:
    """A field's tag: its number, 1 to 2**29 - 1, and its wire type, 0 to 7 (not checked further).

    At most 5 bytes, as upb's parser has it (Go's and Java's take up to 10).
    """
    cdef Reader ahead = reader[0]
    cdef uint64_t tag
    if unlikely(not _reader_short(&ahead, &tag)) and not _reader_varint(&ahead, 5, &tag):
        return False
    # 8 <= tag <= UINT32_MAX; below 8 the number is 0.
    if unlikely(tag - 8 > UINT32_MAX - 8):
        return False
    number[0] = <uint32_t>(tag >> 3)
    wire[0] = <uint32_t>(tag & 7)
    reader.at = ahead.at
    return True


cdef inline bint reader_bytes(Reader *reader, const uint8_t **data, size_t *size) noexcept nogil:
    """What follows a length: the length itself has at most 5 bytes, as in upb's parser."""
    cdef Reader ahead = reader[0]
    cdef uint64_t length
    if unlikely(not _reader_short(&ahead, &length)) and not _reader_varint(&ahead, 5, &length):
        return False
    if unlikely(length > reader_left(&ahead)):
        return False
    data[0] = ahead.at
    size[0] = <size_t>length
    reader.at = ahead.at + length
    return True
