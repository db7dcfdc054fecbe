"""The wire scanner: is an event one that every subscriber can parse? Nothing is decoded.

One event that a client's parser refuses ends the client's whole stream, so the relay forwards
exactly what Go (google.golang.org/protobuf), C++ and Python (upb) and Java all accept. Where they
differ, the strictest decides (compared on 63,000 well-formed, mutated and random events with Go's 1.36.12,
Java's 4.35.1 and Python's 7.36.2):

- Varints have at most 10 bytes, over-long forms included, and 64 bits: Go refuses more in the tenth byte.
- Tags and lengths have at most 5 bytes, and a tag 32 bits: upb's rule.
- Field number 0, wire types 6 and 7, an end of a group that is not open, and anything that reaches
  beyond its message: refused by all (but number 0 in an unknown group passes upb).
- A known field with a wire type that is not its own is an unknown field to all of them, and passes.
- Unknown fields have to be whole, no more: a group is walked to its end, bytes may be anything.
- Messages and groups nest at most 99 deep beneath the event: Java's lite runtime and older versions of upb
  refuse the hundredth, Java's full runtime and newer upb the one after that, Go the ten thousandth.
- Strings of the schema are UTF-8 wherever they occur, in repeated fields and map entries, too. One that is
  not is the only flaw that can be repaired (repair.pxd).

(Some Rust parsers refuse a known field with another wire type. A newer KubeArmor that changed a
field's type would break them, with or without a relay.)

The table of known fields is made from protos/kubearmor.proto by scripts/make_schema.py. A scalar
needs no entry: known or unknown, it has to be whole. (No repeated field of the schema can be
packed; make_schema.py refuses to make a table when one can.)
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t

from relay.native.reader cimport (
    WIRE_BYTES, WIRE_FIXED32, WIRE_FIXED64, WIRE_GROUP, WIRE_GROUP_END, WIRE_VARINT, Reader, reader_bytes,
    reader_init, reader_left, reader_skip, reader_skip_varint, reader_tag,
)
from relay.native.utf8 cimport utf8_ascii_within, utf8_valid

cdef extern from "_schema.h" nogil:
    enum:
        SCHEMA_NUMBERS
        SCHEMA_LOG_RESOURCE
        SCHEMA_LOG_DATA
    int SCHEMA_TYPES
    int SCHEMA_OTHER
    int SCHEMA_STRING
    int SCHEMA_MESSAGE
    const uint8_t *relay_schema_kinds(int type) noexcept

cdef extern from *:
    # Cython defines these in every module.
    bint likely(bint condition) noexcept nogil
    bint unlikely(bint condition) noexcept nogil


cdef enum:
    SCAN_DEPTH = 99  # of messages and groups beneath an event


# In order of gravity.
cdef enum ScanResult:
    SCAN_OK = 0
    SCAN_REPAIR = 1     # well-formed, but a string of the schema is not UTF-8
    SCAN_MALFORMED = 2


cdef inline int scan_kind(const uint8_t *kinds, uint32_t number) noexcept nogil:
    """What a field is that has its bytes behind a length."""
    return kinds[number] if number < <uint32_t> SCHEMA_NUMBERS else SCHEMA_OTHER


cdef inline bint scan_skip_group(Reader *reader, uint32_t number, int depth) noexcept nogil:
    """Pass the rest of an unknown group, from behind its start to behind its end.

    `depth` is how many messages and groups it is in, beneath the event.
    """
    cdef uint32_t opened[SCAN_DEPTH]
    cdef uint32_t wire
    cdef const uint8_t *body
    cdef size_t size
    cdef int count = 0
    while True:
        if count + depth == SCAN_DEPTH:
            return False
        opened[count] = number
        count += 1
        # Pass fields until a group starts, or the outermost one has ended.
        while True:
            if not reader_tag(reader, &number, &wire):
                return False
            if wire == WIRE_GROUP:
                break
            if wire == WIRE_GROUP_END:
                count -= 1
                if opened[count] != number:
                    return False
                if count == 0:
                    return True
            elif wire == WIRE_BYTES:
                if not reader_bytes(reader, &body, &size):
                    return False
            elif not scan_skip_scalar(reader, wire):
                return False


cdef inline bint scan_skip_scalar(Reader *reader, uint32_t wire) noexcept nogil:
    """Pass a number behind its tag; False for the other wire types."""
    if wire == WIRE_VARINT:
        return reader_skip_varint(reader)
    if wire == WIRE_FIXED32:
        return reader_skip(reader, 4)
    if wire == WIRE_FIXED64:
        return reader_skip(reader, 8)
    return False


# A message whose end is still to come, while one inside it is scanned.
cdef struct ScanOuter:
    const uint8_t *end
    const uint8_t *kinds


# The bodies of an event's strings by number, the last of each, as parsers take it. Only those of a log that enrichment
# looks at are defined, NULL where the event has none; make_schema.py sees to it that no string within a nested message
# has their numbers.
cdef struct ScanNotes:
    const uint8_t *bodies[SCHEMA_NUMBERS]


cdef inline int scan_event(int feed, const uint8_t *data, size_t size) noexcept nogil:
    """What an event of a feed (0 messages, 1 alerts, 2 logs) is: SCAN_OK, SCAN_REPAIR or SCAN_MALFORMED.

    Reads no byte beyond `size`. An empty event is fine: all its fields have their defaults.
    """
    return scan_event_noting(feed, data, size, NULL)


cdef inline int scan_event_noting(int feed, const uint8_t *data, size_t size, ScanNotes *notes) noexcept nogil:
    """As `scan_event`; of an event that is not malformed, note where strings are, unless `notes` is NULL.

    On the path of every event: no calls, also not for messages inside the event; and no branch on the
    sizes of strings and numbers where it can be helped, because those are what is mispredicted.
    """
    cdef Reader reader
    cdef ScanOuter outer[SCAN_DEPTH]
    cdef const uint8_t *kinds = relay_schema_kinds(feed)
    cdef const uint8_t *end = data + size
    cdef const uint8_t *body
    cdef size_t length
    cdef uint32_t number, wire
    cdef int kind
    cdef int depth = 0
    cdef int result = SCAN_OK
    if notes != NULL:
        notes.bodies[SCHEMA_LOG_RESOURCE] = NULL
        notes.bodies[SCHEMA_LOG_DATA] = NULL
    reader_init(&reader, data, size)
    while True:
        while unlikely(reader_left(&reader) == 0):
            if depth == 0:
                return result
            depth -= 1
            reader.end = outer[depth].end
            kinds = outer[depth].kinds
        if unlikely(not reader_tag(&reader, &number, &wire)):
            return SCAN_MALFORMED
        if likely(wire == WIRE_BYTES):
            if unlikely(not reader_bytes(&reader, &body, &length)):
                return SCAN_MALFORMED
            kind = scan_kind(kinds, number)
            if likely(kind == SCHEMA_STRING):
                if notes != NULL:
                    # Every string: a branch on the number is mispredicted, and conditional moves cost as much also
                    # where nothing is noted (measured, different logs: 5 ns this way; 7 with the length noted, too).
                    notes.bodies[number] = body
                if unlikely(not utf8_ascii_within(body, length, <size_t>(end - body))):
                    if not utf8_valid(body, length):
                        result = SCAN_REPAIR
            elif kind != SCHEMA_OTHER:
                if unlikely(depth == SCAN_DEPTH):
                    return SCAN_MALFORMED
                outer[depth].end = reader.end
                outer[depth].kinds = kinds
                depth += 1
                kinds = relay_schema_kinds(kind - SCHEMA_MESSAGE)
                reader_init(&reader, body, length)
        elif wire == WIRE_GROUP:
            if not scan_skip_group(&reader, number, depth):
                return SCAN_MALFORMED
        elif unlikely(not scan_skip_scalar(&reader, wire)):
            return SCAN_MALFORMED


# A string as it lies in an event; NULL and 0 when the event has none.
cdef struct ScanString:
    const uint8_t *length      # its length, in as many bytes as it was written with
    const uint8_t *body
    size_t size


cdef inline ScanString scan_string(const uint8_t *body) noexcept nogil:
    """The string with this body, in an event that has been scanned."""
    cdef ScanString string
    cdef const uint8_t *at
    string.body = body
    string.length = body
    string.size = 0
    if body != NULL:
        # Back to the tag, whose last byte has no top bit; the length's bytes have one, save its last.
        at = body - 1
        string.size = at[0]
        while (at - 1)[0] & 0x80:
            at -= 1
            string.size = string.size << 7 | (at[0] & 0x7F)
        string.length = at
    return string
