"""UTF-8 repair: a copy of an event in which every string of the schema is UTF-8.

Each invalid byte of such a string becomes U+FFFD (utf8.pxd), and the lengths around it are written
anew, in their shortest form. Everything else stays byte for byte as it was: the order of the fields,
unknown fields, over-long varints, lengths of what did not grow.

Off the hot path: this is done for events that `scan_event` calls SCAN_REPAIR, once.
"""

from libc.stddef cimport size_t
from libc.stdint cimport INT32_MAX, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from relay.native.memory cimport Memory, memory_release, memory_take
from relay.native.reader cimport WIRE_BYTES, WIRE_GROUP, Reader, reader_bytes, reader_init, reader_left, reader_tag
from relay.native.scan cimport (
    SCAN_DEPTH, SCHEMA_MESSAGE, SCHEMA_OTHER, SCHEMA_STRING, relay_schema_kinds, scan_kind, scan_skip_group,
    scan_skip_scalar,
)
from relay.native.status cimport STATUS_MALFORMED, STATUS_NO_MEMORY, STATUS_OK, STATUS_OVERSIZE, Status
from relay.native.utf8 cimport utf8_repair, utf8_repaired_size


# A field as it lies in a message.
cdef struct RepairField:
    int kind               # of the schema; SCHEMA_OTHER when it has no bytes behind a length
    const uint8_t *start   # its tag
    const uint8_t *length  # its length, behind the tag; only for fields that have one
    const uint8_t *body    # what the length is of; likewise
    size_t size            # of the body
    const uint8_t *end


cdef inline bint repair_next(Reader *reader, const uint8_t *kinds, int depth, RepairField *field) noexcept nogil:
    """The next field of a message that is not at its end; False when it is malformed."""
    cdef uint32_t number, wire
    field.kind = SCHEMA_OTHER
    field.start = reader.at
    if not reader_tag(reader, &number, &wire):
        return False
    field.length = reader.at
    if wire == WIRE_BYTES:
        if not reader_bytes(reader, &field.body, &field.size):
            return False
        field.kind = scan_kind(kinds, number)
    elif wire == WIRE_GROUP:
        if not scan_skip_group(reader, number, depth):
            return False
    elif not scan_skip_scalar(reader, wire):
        return False
    field.end = reader.at
    return True


cdef inline size_t repair_varint_size(uint64_t value) noexcept nogil:
    cdef size_t size = 1
    while value >= 0x80:
        value >>= 7
        size += 1
    return size


cdef inline uint8_t *repair_put_varint(uint8_t *out, uint64_t value) noexcept nogil:
    """Write a varint in its shortest form; returns where it ends."""
    while value >= 0x80:
        out[0] = <uint8_t>(value | 0x80)
        value >>= 7
        out += 1
    out[0] = <uint8_t>value
    return out + 1


# What becomes of a field's body, or of a message.
cdef struct RepairMeasure:
    size_t size
    bint changed  # says more than the size: a shorter length within can make up for longer text


cdef inline bint repair_measure_body(const RepairField *field, int depth, RepairMeasure *measure) noexcept nogil:
    """Measure a body of the schema, a string or a message; False when it is a malformed message."""
    if field.kind == SCHEMA_STRING:
        measure.size = utf8_repaired_size(field.body, field.size)
        measure.changed = measure.size != field.size
        return True
    if depth == SCAN_DEPTH:
        return False
    return repair_measure_message(field.kind - SCHEMA_MESSAGE, field.body, field.size, depth + 1, measure)


cdef inline bint repair_measure_message(
    int type, const uint8_t *data, size_t size, int depth, RepairMeasure *measure
) noexcept nogil:
    """Measure a message that is `depth` messages deep in its event; False when it is malformed.

    Cannot overflow: a body grows at most threefold and its length by 4 bytes, and `size` is at most INT32_MAX.
    """
    cdef Reader reader
    cdef RepairField field
    cdef RepairMeasure body
    measure.size = 0
    measure.changed = False
    reader_init(&reader, data, size)
    while reader_left(&reader) != 0:
        if not repair_next(&reader, relay_schema_kinds(type), depth, &field):
            return False
        if field.kind != SCHEMA_OTHER:
            if not repair_measure_body(&field, depth, &body):
                return False
            if body.changed:
                measure.changed = True
                measure.size += <size_t>(field.length - field.start) + repair_varint_size(body.size) + body.size
                continue
        measure.size += <size_t>(field.end - field.start)
    return True


cdef inline uint8_t *repair_write(
    int type, const uint8_t *data, size_t size, int depth, uint8_t *out, uint64_t *replaced
) noexcept nogil:
    """Write a message that `repair_measure_message` has measured; returns where it ends."""
    cdef Reader reader
    cdef RepairField field
    cdef RepairMeasure body
    cdef size_t same
    reader_init(&reader, data, size)
    while reader_left(&reader) != 0 and repair_next(&reader, relay_schema_kinds(type), depth, &field):
        if field.kind == SCHEMA_OTHER or not repair_measure_body(&field, depth, &body) or not body.changed:
            same = <size_t>(field.end - field.start)
            memcpy(out, field.start, same)
            out += same
            continue
        same = <size_t>(field.length - field.start)
        memcpy(out, field.start, same)
        out = repair_put_varint(out + same, body.size)
        if field.kind == SCHEMA_STRING:
            replaced[0] += utf8_repair(field.body, field.size, out)
            out += body.size
        else:
            out = repair_write(field.kind - SCHEMA_MESSAGE, field.body, field.size, depth + 1, out, replaced)
    return out


cdef inline Status repair_event(
    Memory *memory,
    int feed,
    const uint8_t *data,
    size_t size,
    uint8_t **out,
    size_t *out_size,
    uint64_t *bytes_repaired,
) noexcept nogil:
    """Copy an event with its strings repaired into a new block, which is the caller's to release.

    STATUS_MALFORMED, STATUS_OVERSIZE (the event or its repaired form has more than 2 GiB, which protobuf
    does not allow; the caller's own limit is the caller's to check) or STATUS_NO_MEMORY: nothing is given.
    `bytes_repaired` says how many bytes were replaced; 0 when the event was valid.
    """
    cdef RepairMeasure repaired
    cdef uint64_t replaced = 0
    cdef uint8_t *block
    if size > <size_t>INT32_MAX:
        return STATUS_OVERSIZE
    if not repair_measure_message(feed, data, size, 0, &repaired):
        return STATUS_MALFORMED
    if repaired.size > <size_t>INT32_MAX:
        return STATUS_OVERSIZE
    block = <uint8_t *>memory_take(memory, repaired.size)
    if block == NULL:
        return STATUS_NO_MEMORY
    if <size_t>(repair_write(feed, data, size, 0, block, &replaced) - block) != repaired.size:
        # Not reached: both passes read the same bytes by the same rules.
        memory_release(memory, block)
        return STATUS_MALFORMED
    out[0] = block
    out_size[0] = repaired.size
    bytes_repaired[0] = replaced
    return STATUS_OK
