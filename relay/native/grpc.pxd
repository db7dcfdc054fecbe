"""The small pieces of gRPC over HTTP/2: header values, prefixes, the two request messages, statuses.

Sources: "gRPC over HTTP2" (PROTOCOL-HTTP2.md) and "HTTP to gRPC Status Code Mapping" of the gRPC
project; the protobuf encoding guide for the messages.
"""

from libc.stddef cimport size_t
from libc.stdint cimport UINT64_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t

from relay.native.reader cimport (
    WIRE_BYTES, WIRE_GROUP, WIRE_VARINT, Reader, reader_bytes, reader_init, reader_tag, reader_varint,
)
from relay.native.scan cimport scan_skip_group, scan_skip_scalar
from relay.native.status cimport STATUS_MALFORMED, STATUS_OK
from relay.native.utf8 cimport utf8_valid

cdef enum GrpcStatus:
    GRPC_OK = 0
    GRPC_CANCELLED = 1
    GRPC_UNKNOWN = 2
    GRPC_INVALID_ARGUMENT = 3
    GRPC_DEADLINE_EXCEEDED = 4
    GRPC_NOT_FOUND = 5
    GRPC_ALREADY_EXISTS = 6
    GRPC_PERMISSION_DENIED = 7
    GRPC_RESOURCE_EXHAUSTED = 8
    GRPC_FAILED_PRECONDITION = 9
    GRPC_ABORTED = 10
    GRPC_OUT_OF_RANGE = 11
    GRPC_UNIMPLEMENTED = 12
    GRPC_INTERNAL = 13
    GRPC_UNAVAILABLE = 14
    GRPC_DATA_LOSS = 15
    GRPC_UNAUTHENTICATED = 16

cdef enum:
    GRPC_PREFIX_BYTES = 5       # of a length-prefixed message: the compressed flag, then the length
    GRPC_DECIMAL_BYTES = 20     # the longest uint64 in decimal
    GRPC_INT32_MESSAGE_BYTES = 11   # a tag and the longest varint
    GRPC_TIMEOUT_DIGITS = 8

cdef extern from *:
    """
    static const char relay_grpc_hex[] = "0123456789ABCDEF";
    static const char relay_grpc_content_type[] = "application/grpc";
    """
    const char *relay_grpc_hex
    const char *relay_grpc_content_type


# Numbers as text ------------------------------------------------------------------------------

cdef inline size_t grpc_decimal_print(uint64_t value, uint8_t *out) noexcept nogil:
    """Write a number in decimal, without an end mark, into GRPC_DECIMAL_BYTES of room. Returns its length."""
    cdef uint8_t digits[GRPC_DECIMAL_BYTES]
    cdef size_t count = 0
    cdef size_t i
    while True:
        digits[count] = <uint8_t>(48 + value % 10)
        count += 1
        value //= 10
        if value == 0:
            break
    for i in range(count):
        out[i] = digits[count - 1 - i]
    return count


cdef inline int grpc_timeout_parse(const uint8_t *text, size_t size, uint64_t *nanoseconds) noexcept nogil:
    """The value of `grpc-timeout`: 1 to 8 digits and a unit (H, M, S, m, u, n).

    What exceeds 64 bits becomes UINT64_MAX. STATUS_MALFORMED leaves `nanoseconds` alone. 0 is taken,
    as grpc-go takes it: a deadline that has passed.
    """
    cdef uint64_t value = 0
    cdef uint64_t unit
    cdef size_t i
    if size < 2 or size > GRPC_TIMEOUT_DIGITS + 1:
        return STATUS_MALFORMED
    for i in range(size - 1):
        if text[i] < 48 or text[i] > 57:
            return STATUS_MALFORMED
        value = value * 10 + (text[i] - 48)
    if text[size - 1] == c"H":
        unit = <uint64_t>3600000000000
    elif text[size - 1] == c"M":
        unit = <uint64_t>60000000000
    elif text[size - 1] == c"S":
        unit = <uint64_t>1000000000
    elif text[size - 1] == c"m":
        unit = 1000000
    elif text[size - 1] == c"u":
        unit = 1000
    elif text[size - 1] == c"n":
        unit = 1
    else:
        return STATUS_MALFORMED
    nanoseconds[0] = UINT64_MAX if value > UINT64_MAX // unit else value * unit
    return STATUS_OK


cdef inline int grpc_status_parse(const uint8_t *text, size_t size) noexcept nogil:
    """The value of `grpc-status`: 0 to 16, and UNKNOWN for what is no status or no number."""
    cdef uint32_t value = 0
    cdef size_t i
    if size == 0:
        return GRPC_UNKNOWN
    for i in range(size):
        if text[i] < 48 or text[i] > 57:
            return GRPC_UNKNOWN
        value = value * 10 + (text[i] - 48)
        if value > GRPC_UNAUTHENTICATED:
            return GRPC_UNKNOWN
    return <int>value


# Header values ----------------------------------------------------------------------------------

cdef inline size_t grpc_message_encode(
    const uint8_t *text, size_t size, uint8_t *out, size_t room
) noexcept nogil:
    """Percent-encode a text for `grpc-message`: bytes from space to ~ stay, except %.

    Returns the length, at most `room`; a text that does not fit (3 * size always does) is cut before a UTF-8 character.
    """
    cdef size_t written = 0
    cdef size_t whole = 0       # what was written before the character at hand
    cdef size_t i
    cdef uint8_t byte
    for i in range(size):
        byte = text[i]
        if byte & 0xC0 != 0x80:
            whole = written
        if 0x20 <= byte <= 0x7E and byte != 0x25:
            if room - written < 1:
                return whole
            out[written] = byte
            written += 1
        else:
            if room - written < 3:
                return whole
            out[written] = 0x25
            out[written + 1] = <uint8_t>relay_grpc_hex[byte >> 4]
            out[written + 2] = <uint8_t>relay_grpc_hex[byte & 15]
            written += 3
    return written


cdef inline int grpc_hex_digit(uint8_t byte) noexcept nogil:
    """The value of a hexadecimal digit of either case, or -1."""
    if 48 <= byte <= 57:
        return byte - 48
    byte |= 0x20
    if 97 <= byte <= 102:
        return byte - 87
    return -1


cdef inline size_t grpc_message_decode(
    const uint8_t *text, size_t size, uint8_t *out, size_t room
) noexcept nogil:
    """Undo the percent-encoding of `grpc-message`; a % that no two hexadecimal digits follow stays, as the spec asks.

    Returns the length, at most `room`: what does not fit is left out. `out` may be `text`.
    """
    cdef size_t written = 0
    cdef size_t i = 0
    cdef int high
    cdef int low
    while i < size and written < room:
        high = -1
        low = -1
        if text[i] == 0x25 and size - i > 2:
            high = grpc_hex_digit(text[i + 1])
            low = grpc_hex_digit(text[i + 2])
        if high >= 0 and low >= 0:
            out[written] = <uint8_t>(high << 4 | low)
            i += 3
        else:
            out[written] = text[i]
            i += 1
        written += 1
    return written


cdef inline bint grpc_matches(const uint8_t *text, const char *lower, size_t size) noexcept nogil:
    """Whether `size` bytes are the given lower-case text, in any case."""
    cdef size_t i
    cdef uint8_t byte
    for i in range(size):
        byte = text[i]
        if 65 <= byte <= 90:
            byte |= 0x20
        if byte != <uint8_t>lower[i]:
            return False
    return True


cdef inline bint grpc_content_type_ok(const uint8_t *text, size_t size) noexcept nogil:
    """Whether a content type is gRPC with protobuf: `application/grpc`, maybe `+proto`, maybe parameters.

    Media types have no case (RFC 9110, 8.3.1). Other message formats, such as `+json`, we do not speak.
    """
    cdef size_t at = 16
    if size < at or not grpc_matches(text, relay_grpc_content_type, at):
        return False
    if size - at >= 6 and grpc_matches(text + at, b"+proto", 6):
        at += 6
    if at == size:
        return True
    while at < size and (text[at] == 32 or text[at] == 9):
        at += 1
    return at < size and text[at] == c";"


# Length-prefixed messages -------------------------------------------------------------------------

cdef inline void grpc_prefix_write(uint8_t *out, uint32_t size) noexcept nogil:
    """The prefix of an uncompressed message of `size` bytes, into GRPC_PREFIX_BYTES of room."""
    out[0] = 0
    out[1] = <uint8_t>(size >> 24)
    out[2] = <uint8_t>(size >> 16)
    out[3] = <uint8_t>(size >> 8)
    out[4] = <uint8_t>size


# The messages of LogService that the engine reads and writes itself ---------------------------------

cdef inline bint grpc_skip_field(Reader *reader, uint32_t number, uint32_t wire) noexcept nogil:
    """Skip the rest of a field whose tag was read; of a group, all up to its own end."""
    cdef const uint8_t *data
    cdef size_t size
    if wire == WIRE_BYTES:
        return reader_bytes(reader, &data, &size)
    if wire == WIRE_GROUP:
        return scan_skip_group(reader, number, 0)
    return scan_skip_scalar(reader, wire)


cdef inline int grpc_filter_decode(
    const uint8_t *message, size_t size, const uint8_t **filter, size_t *filter_size
) noexcept nogil:
    """RequestMessage.Filter, as a place in the message: the last one counts, none is empty.

    Unknown fields, and a field 1 of another wire type, are skipped. STATUS_MALFORMED for what no protobuf parser
    takes, a Filter that is not UTF-8 included.
    """
    cdef Reader reader
    cdef uint32_t number = 0
    cdef uint32_t wire = 0
    cdef const uint8_t *data = message
    cdef size_t data_size = 0
    filter[0] = message
    filter_size[0] = 0
    reader_init(&reader, message, size)
    while reader.at != reader.end:
        if not reader_tag(&reader, &number, &wire):
            return STATUS_MALFORMED
        if number == 1 and wire == WIRE_BYTES:
            if not reader_bytes(&reader, &data, &data_size) or not utf8_valid(data, data_size):
                return STATUS_MALFORMED
        elif not grpc_skip_field(&reader, number, wire):
            return STATUS_MALFORMED
    filter[0] = data
    filter_size[0] = data_size
    return STATUS_OK


cdef inline int grpc_int32_decode(const uint8_t *message, size_t size, int32_t *value) noexcept nogil:
    """A message whose field 1 is an int32: the last one counts, none is 0, bits above 32 are dropped."""
    cdef Reader reader
    cdef uint32_t number = 0
    cdef uint32_t wire = 0
    cdef uint64_t varint = 0
    reader_init(&reader, message, size)
    while reader.at != reader.end:
        if not reader_tag(&reader, &number, &wire):
            return STATUS_MALFORMED
        if number == 1 and wire == WIRE_VARINT:
            if not reader_varint(&reader, &varint):
                return STATUS_MALFORMED
        elif not grpc_skip_field(&reader, number, wire):
            return STATUS_MALFORMED
    value[0] = <int32_t><uint32_t>varint
    return STATUS_OK


cdef inline size_t grpc_int32_encode(int32_t value, uint8_t *out) noexcept nogil:
    """A message whose field 1 is an int32, into GRPC_INT32_MESSAGE_BYTES of room; 0 is left out. Returns its length."""
    cdef uint64_t varint = <uint64_t><int64_t>value
    cdef size_t written = 1
    if value == 0:
        return 0
    out[0] = 0x08
    while varint >= 0x80:
        out[written] = <uint8_t>(varint & 0x7F | 0x80)
        varint >>= 7
        written += 1
    out[written] = <uint8_t>varint
    return written + 1


cdef inline int grpc_nonce_decode(const uint8_t *message, size_t size, int32_t *nonce) noexcept nogil:
    """NonceMessage.nonce."""
    return grpc_int32_decode(message, size, nonce)


cdef inline size_t grpc_nonce_encode(int32_t nonce, uint8_t *out) noexcept nogil:
    return grpc_int32_encode(nonce, out)


cdef inline int grpc_reply_decode(const uint8_t *message, size_t size, int32_t *retval) noexcept nogil:
    """ReplyMessage.Retval."""
    return grpc_int32_decode(message, size, retval)


cdef inline size_t grpc_reply_encode(int32_t retval, uint8_t *out) noexcept nogil:
    return grpc_int32_encode(retval, out)


# Statuses -----------------------------------------------------------------------------------------

cdef inline int grpc_status_of_http(int http) noexcept nogil:
    """The gRPC status for an answer that has an HTTP status and no grpc-status."""
    if http == 400:
        return GRPC_INTERNAL
    if http == 401:
        return GRPC_UNAUTHENTICATED
    if http == 403:
        return GRPC_PERMISSION_DENIED
    if http == 404:
        return GRPC_UNIMPLEMENTED
    if http == 429 or http == 502 or http == 503 or http == 504:
        return GRPC_UNAVAILABLE
    return GRPC_UNKNOWN


cdef inline int grpc_status_of_http2(uint32_t error) noexcept nogil:
    """The gRPC status for an HTTP/2 error code (RFC 9113, 7) in RST_STREAM or GOAWAY.

    STREAM_CLOSED and HTTP_1_1_REQUIRED, which the gRPC spec leaves open, are INTERNAL as in grpc-go.
    """
    if error == 7:              # REFUSED_STREAM: not processed, may be tried again
        return GRPC_UNAVAILABLE
    if error == 8:              # CANCEL
        return GRPC_CANCELLED
    if error == 11:             # ENHANCE_YOUR_CALM
        return GRPC_RESOURCE_EXHAUSTED
    if error == 12:             # INADEQUATE_SECURITY
        return GRPC_PERMISSION_DENIED
    if error <= 13:
        return GRPC_INTERNAL
    return GRPC_UNKNOWN
