# The wire scanner and the repair: any bytes, as an event of any feed.

from libc.stdint cimport uint64_t

from relay.native.memory cimport Memory as ScanMemory
from relay.native.memory cimport memory_blocks, memory_init, memory_release
from relay.native.repair cimport repair_event
from relay.native.scan cimport SCAN_MALFORMED, SCAN_OK, SCAN_REPAIR, scan_event
from relay.native.status cimport STATUS_MALFORMED, STATUS_OK


cdef int fuzz_scan(const uint8_t *data, size_t size) noexcept nogil:
    """The first byte chooses the feed, the rest is the event."""
    cdef ScanMemory memory
    cdef uint8_t *repaired = NULL
    cdef size_t repaired_size = 0
    cdef uint64_t replaced = 0
    cdef int feed, verdict, status
    if size == 0:
        return 0
    feed = data[0] % 3
    memory_init(&memory)
    verdict = scan_event(feed, data + 1, size - 1)
    status = repair_event(&memory, feed, data + 1, size - 1, &repaired, &repaired_size, &replaced)
    if verdict == SCAN_MALFORMED:
        fuzz_holds(status == STATUS_MALFORMED, "what the scanner refuses, the repair refuses")
        fuzz_holds(memory_blocks(&memory) == 0, "a refused event leaves no memory behind")
        return 0
    fuzz_holds(status == STATUS_OK, "what is well-formed can be repaired")
    fuzz_holds((verdict == SCAN_REPAIR) == (replaced > 0), "bytes are replaced exactly where the scanner saw a need")
    fuzz_holds(verdict == SCAN_REPAIR or repaired_size == size - 1, "a valid event keeps its size")
    fuzz_holds(scan_event(feed, repaired, repaired_size) == SCAN_OK, "a repaired event is valid")
    memory_release(&memory, repaired)
    fuzz_holds(memory_blocks(&memory) == 0, "every block is given back")
    return 0
