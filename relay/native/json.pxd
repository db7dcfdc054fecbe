"""The transcoder: an event's wire bytes to one line of JSON, as Go's encoding/json prints KubeArmor's structs.

One walk notes where each field's value lies, a second over the noted fields prints them in the order of their
declaration. Nothing is decoded but numbers. Protobuf's rules in full: fields come in any order; of a number or
string that comes more than once the last counts; the parts of a message that comes more than once are merged; so are
lists, and the entries of maps, where the last value of a key counts and what an entry lacks is empty. Unknown
fields, and known ones with another wire type, are not printed.

What is malformed to the scanner (scan.pxd) is so here, by the same rules, and nothing else is. An event in more parts
than anybody writes is refused, since noting them would take ten times its memory. The table of fields is made from
protos/kubearmor.proto by scripts/make_json_table.py.
"""

from libc.stddef cimport size_t
from libc.stdint cimport UINT32_MAX, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from relay.native.debug cimport relay_assert
from relay.native.json_text cimport (
    JSON_SLACK, relay_json_marked, relay_json_signed, relay_json_text, relay_json_unsigned,
)
from relay.native.memory cimport Memory, memory_release, memory_resize
from relay.native.reader cimport (
    WIRE_BYTES, WIRE_GROUP, WIRE_VARINT, Reader, reader_bytes, reader_init, reader_left, reader_skip_varint,
    reader_tag, reader_varint,
)
from relay.native.scan cimport scan_skip_group, scan_skip_scalar
from relay.native.status cimport STATUS_MALFORMED, STATUS_NO_MEMORY, STATUS_OK, STATUS_OVERSIZE

cdef extern from "_json.h" nogil:
    enum:
        JSON_FIELDS
        JSON_NUMBERS
        JSON_DEPTH
        JSON_MOST
        JSON_KEY_BYTES
        JSON_STRING
        JSON_INT32
        JSON_INT64
        JSON_MESSAGE
        JSON_MAP
        JSON_STRINGS
        JSON_UINT32
        JSON_UINT64
        JSON_BOOL
    ctypedef struct RelayJsonField:
        char opening[64]
        uint8_t size
        uint8_t kind
        uint8_t type
        uint16_t number
    ctypedef struct RelayJsonType:
        uint64_t always
        const uint8_t *places
        const RelayJsonField *fields
    const RelayJsonType *relay_json_type(int type) noexcept

cdef extern from *:
    """
    #include <string.h>
    #define relay_json_place(word) ((unsigned)__builtin_ctzll(word))

    /* What comes before a value: nearly all have at most 16 bytes. Up to 63 bytes more are written. */
    static inline uint8_t *relay_json_open(uint8_t *to, const char *opening, size_t size) {
        memcpy(to, opening, 16);
        if (size > 16) {
            memcpy(to + 16, opening + 16, 48);
        }
        return to + size;
    }
    """
    unsigned int relay_json_place(uint64_t word) noexcept nogil
    uint8_t *relay_json_open(uint8_t *to, const char *opening, size_t size) noexcept nogil
    bint likely(bint condition) noexcept nogil
    bint unlikely(bint condition) noexcept nogil

cdef enum:
    JSON_ROOM = 65536          # of a buffer, at first
    JSON_WORST = 6             # bytes printed for one, at most: \u00XX
    JSON_SMALL = 4096          # of a larger event the bytes that need more room are counted
    JSON_KEPT = 1024           # items and entries that are kept room for, after an event that had more
    JSON_ITEMS = 65536         # of an event, at most: else 4 MiB of empty entries would take 40 MiB of memory
    JSON_FEW = 12              # entries that are sorted by insertion


# One part of a message, one text of a list, or one entry of a map: where it lies in the event.
cdef struct JsonItem:
    uint32_t at
    uint32_t size
    uint32_t next              # of the same field, from 1; 0: the last

cdef struct JsonEntry:         # of a map
    uint32_t key
    uint32_t key_size
    uint32_t value             # the end of the entry where it has no value, so that later entries have larger ones
    uint32_t value_size

cdef struct JsonNote:
    const uint8_t *body        # of a string
    uint64_t value             # its size; or a number; or of a field with items the first (low) and the last (high)

# What encoding one event needs beside the output; kept from event to event.
cdef struct Json:
    Memory *memory
    JsonItem *items
    uint32_t used
    uint32_t room
    JsonEntry *entries
    uint32_t entries_room
    const uint8_t *event
    const uint8_t *end
    int status                 # why nothing was printed

cdef struct JsonBuffer:
    Memory *memory
    uint8_t *data
    size_t used
    size_t room


cdef inline void json_init(Json *json, Memory *memory) noexcept nogil:
    json.memory = memory
    json.items = NULL
    json.used = 0
    json.room = 0
    json.entries = NULL
    json.entries_room = 0
    json.status = STATUS_OK


cdef inline void json_free(Json *json) noexcept nogil:
    memory_release(json.memory, json.items)
    memory_release(json.memory, json.entries)
    json.items = NULL
    json.entries = NULL
    json.room = 0
    json.entries_room = 0


cdef inline void json_buffer_init(JsonBuffer *out, Memory *memory) noexcept nogil:
    out.memory = memory
    out.data = NULL
    out.used = 0
    out.room = 0


cdef inline void json_buffer_free(JsonBuffer *out) noexcept nogil:
    memory_release(out.memory, out.data)
    out.data = NULL
    out.used = 0
    out.room = 0


cdef inline bint json_reserve(JsonBuffer *out, size_t more) noexcept nogil:
    """Make sure that `more` bytes and JSON_SLACK fit behind what the buffer holds."""
    cdef size_t room
    cdef uint8_t *data
    if likely(out.room - out.used >= more and out.room - out.used - more >= JSON_SLACK):
        return True
    if more > (<size_t> -1) // 4 - JSON_SLACK - out.used:
        return False
    room = out.used + more + JSON_SLACK
    if room < 2 * out.room:
        room = 2 * out.room
    if room < JSON_ROOM:
        room = JSON_ROOM
    data = <uint8_t *> memory_resize(out.memory, out.data, room)
    if data == NULL:
        return False
    out.data = data
    out.room = room
    return True


# Noting -----------------------------------------------------------------------------------------

cdef inline bint _json_item(Json *json, const uint8_t *body, size_t size, uint32_t former) noexcept nogil:
    """Note one more item, behind the `former` one of its field, if any. It becomes the last: `json.used`."""
    cdef JsonItem *items
    cdef uint32_t room
    if unlikely(json.used == json.room):
        if json.room >= JSON_ITEMS:
            json.status = STATUS_OVERSIZE
            return False
        room = 2 * json.room if json.room else 64
        items = <JsonItem *> memory_resize(json.memory, json.items, room * sizeof(JsonItem))
        if items == NULL:
            json.status = STATUS_NO_MEMORY
            return False
        json.items = items
        json.room = room
    items = &json.items[json.used]
    items.at = <uint32_t> (body - json.event)
    items.size = <uint32_t> size
    items.next = 0
    json.used += 1
    if former:
        json.items[former - 1].next = json.used
    return True


cdef inline bint _json_number_kind(int kind) noexcept nogil:
    return kind == JSON_INT32 or kind == JSON_INT64 or kind >= JSON_UINT32


cdef inline bint _json_note(
    Json *json, const RelayJsonType *type, const uint8_t *data, size_t size, JsonNote *notes, uint64_t *seen, int depth
) noexcept nogil:
    """Note the fields of one part of a message, which is `depth` messages deep in the event."""
    cdef Reader reader
    cdef const uint8_t *body
    cdef JsonNote *note
    cdef size_t length
    cdef uint64_t bit
    cdef uint32_t number, wire
    cdef int kind
    cdef unsigned int place
    reader_init(&reader, data, size)
    while reader_left(&reader):
        if unlikely(not reader_tag(&reader, &number, &wire)):
            return False
        place = type.places[number] if likely(number < <uint32_t> JSON_NUMBERS) else 0
        if likely(wire == WIRE_BYTES):
            if unlikely(not reader_bytes(&reader, &body, &length)):
                return False
            if place == 0:
                continue
            place -= 1
            note = &notes[place]
            bit = <uint64_t> 1 << place
            kind = type.fields[place].kind
            if likely(kind == JSON_STRING):
                note.body = body
                note.value = length
                seen[0] |= bit
            elif not _json_number_kind(kind):
                if not _json_item(json, body, length, <uint32_t> (note.value >> 32) if seen[0] & bit else 0):
                    return False
                note.value = (note.value & UINT32_MAX if seen[0] & bit else json.used) | <uint64_t> json.used << 32
                seen[0] |= bit
        elif wire == WIRE_VARINT:
            if place != 0 and _json_number_kind(type.fields[place - 1].kind):
                if unlikely(not reader_varint(&reader, &notes[place - 1].value)):
                    return False
                seen[0] |= <uint64_t> 1 << (place - 1)
            elif not reader_skip_varint(&reader):
                return False
        elif wire == WIRE_GROUP:
            if not scan_skip_group(&reader, number, depth):
                return False
        elif not scan_skip_scalar(&reader, wire):
            return False
    return True


# Maps -------------------------------------------------------------------------------------------

cdef inline bint _json_entry(Json *json, const JsonItem *item, JsonEntry *entry, int depth) noexcept nogil:
    """Where key and value of a map's entry lie."""
    cdef Reader reader
    cdef const uint8_t *body
    cdef size_t length
    cdef uint32_t number, wire
    entry.key = item.at
    entry.key_size = 0
    entry.value = item.at + item.size
    entry.value_size = 0
    reader_init(&reader, json.event + item.at, item.size)
    while reader_left(&reader):
        if not reader_tag(&reader, &number, &wire):
            return False
        if wire == WIRE_BYTES:
            if not reader_bytes(&reader, &body, &length):
                return False
            if number == 1:
                entry.key = <uint32_t> (body - json.event)
                entry.key_size = <uint32_t> length
            elif number == 2:
                entry.value = <uint32_t> (body - json.event)
                entry.value_size = <uint32_t> length
        elif wire == WIRE_GROUP:
            if not scan_skip_group(&reader, number, depth):
                return False
        elif not scan_skip_scalar(&reader, wire):
            return False
    return True


cdef inline int _json_keys(const Json *json, const JsonEntry *one, const JsonEntry *other) noexcept nogil:
    """Compare two keys bytewise."""
    cdef uint32_t size = one.key_size if one.key_size < other.key_size else other.key_size
    cdef int differ = memcmp(json.event + one.key, json.event + other.key, size)
    if differ:
        return differ
    return <int> (one.key_size > other.key_size) - <int> (one.key_size < other.key_size)


cdef inline bint _json_before(const Json *json, const JsonEntry *one, const JsonEntry *other) noexcept nogil:
    """The order of entries: by key, then as they came."""
    cdef int differ = _json_keys(json, one, other)
    return differ < 0 or (differ == 0 and one.value < other.value)


cdef inline void _json_sink(const Json *json, JsonEntry *entries, size_t root, size_t count) noexcept nogil:
    """Let an entry of a heap with the last one on top sink to its place."""
    cdef JsonEntry moved = entries[root]
    cdef size_t child
    while True:
        child = 2 * root + 1
        if child >= count:
            break
        if child + 1 < count and _json_before(json, &entries[child], &entries[child + 1]):
            child += 1
        if not _json_before(json, &moved, &entries[child]):
            break
        entries[root] = entries[child]
        root = child
    entries[root] = moved


cdef inline void _json_sort(const Json *json, JsonEntry *entries, size_t count) noexcept nogil:
    """Few by insertion, many as a heap: in place, and never slower than n log n."""
    cdef JsonEntry moved
    cdef size_t at, to
    if count <= JSON_FEW:
        for at in range(1, count):
            moved = entries[at]
            to = at
            while to > 0 and _json_before(json, &moved, &entries[to - 1]):
                entries[to] = entries[to - 1]
                to -= 1
            entries[to] = moved
        return
    at = count // 2
    while at > 0:
        at -= 1
        _json_sink(json, entries, at, count)
    at = count
    while at > 1:
        at -= 1
        moved = entries[0]
        entries[0] = entries[at]
        entries[at] = moved
        _json_sink(json, entries, 0, at)


cdef inline uint8_t *_json_map(Json *json, uint32_t first, uint8_t *to, int depth) noexcept nogil:
    """Print a map's entries, and its end, from the first item on; NULL when it cannot be done."""
    cdef JsonEntry *entries
    cdef size_t count = 0
    cdef size_t i
    cdef uint32_t item = first
    while item:
        count += 1
        item = json.items[item - 1].next
    if count > json.entries_room:
        entries = <JsonEntry *> memory_resize(json.memory, json.entries, count * sizeof(JsonEntry))
        if entries == NULL:
            json.status = STATUS_NO_MEMORY
            return NULL
        json.entries = entries
        json.entries_room = <uint32_t> count
    entries = json.entries
    item = first
    for i in range(count):
        if not _json_entry(json, &json.items[item - 1], &entries[i], depth):
            return NULL
        item = json.items[item - 1].next
    _json_sort(json, entries, count)
    for i in range(count):
        # Of the same keys the last counts.
        if i + 1 < count and _json_keys(json, &entries[i], &entries[i + 1]) == 0:
            continue
        to[0] = 34
        to = _json_string(json, to + 1, json.event + entries[i].key, entries[i].key_size)
        memcpy(to, b":\"", 2)
        to = _json_string(json, to + 2, json.event + entries[i].value, entries[i].value_size)
        to[0] = 44
        to += 1
    # In place of the last comma.
    (to - 1)[0] = 125
    return to


# Printing ---------------------------------------------------------------------------------------

cdef inline uint8_t *_json_string(Json *json, uint8_t *to, const uint8_t *body, size_t size) noexcept nogil:
    """Print a text and the closing quote."""
    to = relay_json_text(to, body, body + size, json.end)
    to[0] = 34
    return to + 1


cdef inline uint8_t *_json_strings(Json *json, uint32_t item, uint8_t *to) noexcept nogil:
    """Print a list's texts, and its end."""
    while item:
        to[0] = 34
        to = _json_string(json, to + 1, json.event + json.items[item - 1].at, json.items[item - 1].size)
        to[0] = 44
        to += 1
        item = json.items[item - 1].next
    (to - 1)[0] = 93
    return to


cdef inline uint8_t *_json_number(
    uint8_t *to, const RelayJsonField *field, uint64_t value, bint always
) noexcept nogil:
    """Print a number as its type has it, with its key; nothing for 0 unless it is printed in any case."""
    if field.kind == JSON_INT32:
        # A larger one is cut, as every parser does.
        value = <uint64_t> <int64_t> <int32_t> <uint32_t> value
    elif field.kind == JSON_UINT32:
        value = <uint32_t> value
    if value == 0 and not always:
        return to
    to = relay_json_open(to, field.opening, field.size)
    if field.kind == JSON_BOOL:
        if value:
            memcpy(to, b"true", 4)
            return to + 4
        memcpy(to, b"false", 5)
        return to + 5
    if field.kind == JSON_UINT32 or field.kind == JSON_UINT64:
        return relay_json_unsigned(to, value)
    return relay_json_signed(to, <int64_t> value)


cdef inline uint8_t *_json_object(Json *json, int number, uint32_t item, uint8_t *to, int depth) noexcept nogil:
    """Print the message that the items from `item` on are the parts of; NULL when it cannot be done."""
    cdef JsonNote notes[JSON_FIELDS]
    cdef const RelayJsonType *type = relay_json_type(number)
    cdef const RelayJsonField *field
    cdef JsonNote *note
    cdef uint8_t *start = to
    cdef uint64_t seen = 0
    cdef uint64_t left
    cdef unsigned int place
    cdef bint given
    relay_assert(depth < JSON_DEPTH, "messages nest deeper than the table says")
    while item:
        if not _json_note(
            json, type, json.event + json.items[item - 1].at, json.items[item - 1].size, notes, &seen, depth
        ):
            return NULL
        item = json.items[item - 1].next
    left = seen | type.always
    while left:
        place = relay_json_place(left)
        given = seen >> place & 1
        left &= left - 1
        field = &type.fields[place]
        note = &notes[place]
        if likely(field.kind == JSON_STRING):
            if note.value:
                to = relay_json_open(to, field.opening, field.size)
                to = _json_string(json, to, note.body, <size_t> note.value)
        elif field.kind == JSON_MESSAGE:
            to = relay_json_open(to, field.opening, field.size)
            to = _json_object(json, field.type, <uint32_t> note.value, to, depth + 1)
        elif field.kind == JSON_MAP:
            to = relay_json_open(to, field.opening, field.size)
            to = _json_map(json, <uint32_t> note.value, to, depth + 1)
        elif field.kind == JSON_STRINGS:
            to = relay_json_open(to, field.opening, field.size)
            to = _json_strings(json, <uint32_t> note.value, to)
        else:
            to = _json_number(to, field, note.value if given else 0, type.always >> place & 1)
        if unlikely(to == NULL):
            return NULL
    if to == start:
        to += 1
    # In place of the first comma.
    start[0] = 123
    to[0] = 125
    return to + 1


cdef inline size_t json_most(const uint8_t *event, size_t size) noexcept nogil:
    """A bound on the bytes that an event prints."""
    if size <= JSON_SMALL:
        return JSON_WORST * size + JSON_MOST
    # Every string has a tag and a length around it, which are more than quotes, colon and comma once they are doubled
    # (those of an empty one, or of an entry, are marked).
    return 2 * size + (JSON_WORST - 1) * relay_json_marked(event, size) + JSON_MOST


cdef inline int json_event(Json *json, int feed, const uint8_t *event, size_t size, JsonBuffer *out) noexcept nogil:
    """Append an event of a feed (0 messages, 1 alerts, 2 logs) to the buffer, without a line's end.

    Any bytes are safe. STATUS_MALFORMED where the scanner says so, unless it is STATUS_OVERSIZE: an event of 4 GiB, or
    of more than JSON_ITEMS entries, texts in lists and parts of messages. Where there is no STATUS_OK the buffer holds
    what it held.
    """
    cdef size_t most
    cdef uint8_t *end
    if size > UINT32_MAX:
        return STATUS_OVERSIZE
    most = json_most(event, size)
    if not json_reserve(out, most):
        return STATUS_NO_MEMORY
    json.event = event
    json.end = event + size
    json.used = 0
    json.status = STATUS_MALFORMED
    if not _json_item(json, event, size, 0):
        return json.status
    end = _json_object(json, feed, 1, out.data + out.used, 0)
    if unlikely(json.room > JSON_KEPT or json.entries_room > JSON_KEPT):
        json_free(json)
    if end == NULL:
        return json.status
    relay_assert(<size_t> (end - out.data) - out.used <= most, "an event printed more than its bound")
    out.used = <size_t> (end - out.data)
    return STATUS_OK
