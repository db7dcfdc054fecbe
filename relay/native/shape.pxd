"""Shapes: the layouts of events seen lately, so that an event laid out like an earlier one is checked without a walk.

What costs in a scan is not the bytes but the jumps: each field's place depends on the length before it. Events of
one workload mostly differ in what their strings say, not in where they stand. A shape is an event's bytes as a
pattern: tags and lengths have to be the same, of a number's bytes the top bits (which say where it ends), and of a
string's the top bits, which are zero in ASCII. An event of the same size that agrees with the pattern is parsed in
the very same steps as the one it was made of, so it is well-formed, too, and its strings are ASCII. One that does
not agree has only not been recognised: it is scanned.

A shape also knows where the strings lie that enrichment looks at, so that they need no walk either.

benchmarks/test_micro_scan.py has what each of them costs.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset

from relay.native.memory cimport Memory, memory_release, memory_take_zeroed
from relay.native.reader cimport (
    WIRE_BYTES, WIRE_FIXED32, WIRE_FIXED64, WIRE_VARINT, Reader, reader_bytes, reader_init, reader_left,
    reader_skip, reader_skip_varint, reader_tag,
)
from relay.native.scan cimport (
    SCHEMA_LOG_DATA, SCHEMA_LOG_RESOURCE, SCHEMA_MESSAGE, SCHEMA_STRING, ScanNotes, relay_schema_kinds, scan_kind,
)
from relay.native.utf8 cimport utf8_ascii

cdef extern from *:
    """
    #include <string.h>
    /* Whether an event agrees with a pattern: no bit differs where the mask has one. */
    static inline int relay_shape_agrees(
        const uint8_t *event, const uint8_t *pattern, const uint8_t *mask, size_t size
    ) {
        size_t at = 0;
        /* Long steps for the compiler to use vectors in; the first bytes tell most layouts apart. */
        for (; size - at >= 64; at += 64) {
            uint64_t differ = 0;
            for (size_t i = 0; i < 64; i += 8) {
                uint64_t one, other, bits;
                memcpy(&one, event + at + i, 8);
                memcpy(&other, pattern + at + i, 8);
                memcpy(&bits, mask + at + i, 8);
                differ |= (one ^ other) & bits;
            }
            if (differ != 0) {
                return 0;
            }
        }
        uint8_t differ = 0;
        for (; at < size; at++) {
            differ |= (uint8_t)((event[at] ^ pattern[at]) & mask[at]);
        }
        return differ == 0;
    }
    """
    bint relay_shape_agrees(
        const uint8_t *event, const uint8_t *pattern, const uint8_t *mask, size_t size) noexcept nogil

cdef enum:
    SHAPE_BYTES = 1024         # larger events are always scanned
    SHAPE_SLOTS = 128          # a feed; an event's size chooses the slot
    SHAPE_PATIENCE = 64        # events a slot did not recognise, after which it learns a new one at the latest
    SHAPE_VARINT = 10          # bytes of the longest number, whose last has but one bit


cdef struct Shape:
    uint32_t size              # of the event it was learnt from; 0: none yet
    uint32_t misses            # events since it last recognised one
    uint32_t resource          # where a log's strings lie, as ScanNotes has them; 0 where it has none
    uint32_t data
    uint8_t pattern[SHAPE_BYTES]
    uint8_t mask[SHAPE_BYTES]

cdef struct Shapes:
    Shape *slots               # NULL until the first is learnt


cdef inline void shapes_free(Shapes *shapes, Memory *memory) noexcept nogil:
    memory_release(memory, shapes.slots)
    shapes.slots = NULL


cdef inline Shape *shape_recognised(Shapes *shapes, const uint8_t *event, size_t size) noexcept nogil:
    """The shape of an event that is laid out like an earlier one: then it is well-formed, and its strings are ASCII.

    NULL when it is not; the shape is good until the next one is learnt.
    """
    cdef Shape *shape
    if shapes.slots == NULL:
        return NULL
    shape = &shapes.slots[size % SHAPE_SLOTS]
    if shape.size != size or not relay_shape_agrees(event, shape.pattern, shape.mask, size):
        return NULL
    shape.misses = 0
    return shape


cdef inline void shape_notes(const Shape *shape, const uint8_t *event, ScanNotes *notes) noexcept nogil:
    """What a scan would note of an event that was recognised."""
    notes.bodies[SCHEMA_LOG_RESOURCE] = event + shape.resource if shape.resource else NULL
    notes.bodies[SCHEMA_LOG_DATA] = event + shape.data if shape.data else NULL


cdef inline bint _shape_fill(
    Shape *shape, const uint8_t *event, const uint8_t *start, size_t size, int type
) noexcept nogil:
    """Write the pattern of a message within the event; False for what has none (groups, text beyond ASCII)."""
    cdef Reader reader
    cdef const uint8_t *kinds = relay_schema_kinds(type)
    cdef const uint8_t *field
    cdef const uint8_t *body
    cdef size_t at
    cdef size_t length
    cdef uint32_t number
    cdef uint32_t wire
    cdef int kind
    reader_init(&reader, start, size)
    while reader_left(&reader):
        field = reader.at
        if not reader_tag(&reader, &number, &wire):
            return False
        body = reader.at
        kind = 0
        length = 0
        if wire == WIRE_BYTES:
            if not reader_bytes(&reader, &body, &length):
                return False
            kind = scan_kind(kinds, number)
        elif wire == WIRE_VARINT:
            if not reader_skip_varint(&reader):
                return False
        elif wire != WIRE_FIXED32 and wire != WIRE_FIXED64:
            return False
        elif not reader_skip(&reader, 4 if wire == WIRE_FIXED32 else 8):
            return False
        for at in range(<size_t> (field - event), <size_t> (body - event)):
            shape.pattern[at] = event[at]
            shape.mask[at] = 0xFF
        if wire == WIRE_VARINT:
            for at in range(<size_t> (body - event), <size_t> (reader.at - event)):
                shape.pattern[at] = event[at] & 0x80
                shape.mask[at] = 0x80
            if reader.at - body == SHAPE_VARINT:
                # What the last byte says decides whether the number fits 64 bits.
                at = <size_t> (reader.at - event) - 1
                shape.pattern[at] = event[at]
                shape.mask[at] = 0xFF
        elif kind == SCHEMA_STRING:
            if not utf8_ascii(body, length):
                return False
            memset(shape.mask + (body - event), 0x80, length)
            if number == SCHEMA_LOG_DATA:
                shape.data = <uint32_t> (body - event)
            elif number == SCHEMA_LOG_RESOURCE:
                shape.resource = <uint32_t> (body - event)
        elif kind >= SCHEMA_MESSAGE:
            if not _shape_fill(shape, event, body, length, kind - SCHEMA_MESSAGE):
                return False
    return True


cdef inline bint shape_learn(
    Shapes *shapes, Memory *memory, int feed, const uint8_t *event, size_t size
) noexcept nogil:
    """An event that was not recognised has been scanned, and is fine: maybe learn its shape. True when it did.

    Where layouts hardly ever repeat, a slot learns one of SHAPE_PATIENCE, which costs next to nothing.
    """
    cdef Shape *shape
    if size == 0 or size > SHAPE_BYTES:
        return False
    if shapes.slots == NULL:
        shapes.slots = <Shape *> memory_take_zeroed(memory, SHAPE_SLOTS * sizeof(Shape))
        if shapes.slots == NULL:
            return False
    shape = &shapes.slots[size % SHAPE_SLOTS]
    shape.misses += 1
    # After 1, 2, 4, … misses, then regularly.
    if shape.misses & (shape.misses - 1) and shape.misses % SHAPE_PATIENCE:
        return False
    memset(shape.pattern, 0, size)
    memset(shape.mask, 0, size)
    shape.resource = 0
    shape.data = 0
    shape.size = <uint32_t> size if _shape_fill(shape, event, event, size, feed) else 0
    return shape.size != 0
