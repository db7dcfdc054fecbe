# The transcoder: any bytes, as an event of any feed.

from libc.stdint cimport uint64_t

from relay.native.json cimport (
    JSON_ITEMS, Json as FuzzJson, JsonBuffer as FuzzJsonBuffer, json_buffer_free,
    json_buffer_init, json_event, json_free, json_init, json_most,
)
from relay.native.memory cimport Memory as JsonMemory
from relay.native.memory cimport memory_blocks as json_blocks, memory_init as json_memory_init
from relay.native.scan cimport SCAN_MALFORMED as JSON_SCAN_MALFORMED, scan_event as json_scan_event
from relay.native.status cimport (
    STATUS_MALFORMED as JSON_MALFORMED, STATUS_OK as JSON_OK, STATUS_OVERSIZE as JSON_OVERSIZE,
)


cdef int fuzz_json(const uint8_t *data, size_t size) noexcept nogil:
    """The first byte chooses the feed, the rest is the event."""
    cdef JsonMemory memory
    cdef FuzzJson one
    cdef FuzzJsonBuffer out
    cdef int feed, status
    cdef size_t i
    if size == 0:
        return 0
    feed = data[0] % 3
    json_memory_init(&memory)
    json_init(&one, &memory)
    json_buffer_init(&out, &memory)
    status = json_event(&one, feed, data + 1, size - 1, &out)
    if json_scan_event(feed, data + 1, size - 1) == JSON_SCAN_MALFORMED:
        fuzz_holds(status == JSON_MALFORMED, "what the scanner refuses, the transcoder refuses")
        fuzz_holds(out.used == 0, "a refused event leaves nothing in the buffer")
    elif status == JSON_OVERSIZE:
        fuzz_holds(size > 2 * JSON_ITEMS, "only an event in very many parts is refused")
        fuzz_holds(out.used == 0, "a refused event leaves nothing in the buffer")
    else:
        fuzz_holds(status == JSON_OK, "what is well-formed can be printed")
        fuzz_holds(out.used <= json_most(data + 1, size - 1), "an event keeps to its bound")
        fuzz_holds(out.used >= 2 and out.data[0] == 123 and out.data[out.used - 1] == 125, "an object is printed")
        for i in range(out.used):
            fuzz_holds(out.data[i] >= 32, "no control is printed, and so no line is cut")
    json_free(&one)
    json_buffer_free(&out)
    fuzz_holds(json_blocks(&memory) == 0, "every block is given back")
    return 0
