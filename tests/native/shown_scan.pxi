# Shows memory, status, reader, UTF-8, scanner and repair.
#
# Input is put between two pages that cannot be read, once right behind the first and once right
# before the second, so that a read beyond either end ends the process: every test is a test of the bounds.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_NONE, PROT_READ, PROT_WRITE, mmap, mprotect
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

cimport relay.native.memory as native_memory
cimport relay.native.reader as native_reader
cimport relay.native.repair as native_repair
cimport relay.native.scan as native_scan
cimport relay.native.status as native_status
cimport relay.native.utf8 as native_utf8

SCAN_OK = <int>native_scan.SCAN_OK
SCAN_REPAIR = <int>native_scan.SCAN_REPAIR
SCAN_MALFORMED = <int>native_scan.SCAN_MALFORMED
SCAN_DEPTH = <int>native_scan.SCAN_DEPTH

cdef enum:
    GUARD_PAGE = 65536  # a multiple of every page size in use
    GUARD_ROOM = 1 << 24


cdef uint8_t *guard_start(const uint8_t[:] data) except NULL:
    """Copy input to right behind an unreadable page."""
    global guard_area
    if guard_area == NULL:
        guard_area = <uint8_t *>mmap(
            NULL, GUARD_ROOM + 2 * GUARD_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0
        )
        if guard_area == <uint8_t *>MAP_FAILED:
            guard_area = NULL
            raise MemoryError
        if mprotect(guard_area, GUARD_PAGE, PROT_NONE) or mprotect(
            guard_area + GUARD_PAGE + GUARD_ROOM, GUARD_PAGE, PROT_NONE
        ):
            raise OSError("mprotect failed")
    if data.shape[0] > GUARD_ROOM:
        raise ValueError("too large for the guarded area")
    if data.shape[0]:
        memcpy(guard_area + GUARD_PAGE, &data[0], data.shape[0])
    return guard_area + GUARD_PAGE


cdef uint8_t *guard_end(const uint8_t[:] data) except NULL:
    """Copy input to right before an unreadable page."""
    cdef uint8_t *place
    guard_start(data[:0])
    if data.shape[0] > GUARD_ROOM:
        raise ValueError("too large for the guarded area")
    place = guard_area + GUARD_PAGE + GUARD_ROOM - data.shape[0]
    if data.shape[0]:
        memcpy(place, &data[0], data.shape[0])
    return place


cdef uint8_t *guard_area = NULL


cdef class Memory:
    """A native Memory and the blocks taken from it, by number."""

    cdef native_memory.Memory native
    cdef dict held
    cdef int last

    def __cinit__(self):
        native_memory.memory_init(&self.native)
        self.held = {}
        self.last = 0

    def __dealloc__(self):
        for address in self.held.values():
            native_memory.memory_release(&self.native, <void *><uintptr_t>address)

    cdef _keep(self, void *body):
        if body == NULL:
            return None
        self.last += 1
        self.held[self.last] = <uintptr_t>body
        return self.last

    def take(self, size_t size, bint zeroed=False, bint through_nghttp2=False):
        """Number of a new block, or None."""
        if through_nghttp2:
            return self._keep(native_memory.memory_nghttp2_malloc(size, &self.native))
        if zeroed:
            return self._keep(native_memory.memory_take_zeroed(&self.native, size))
        return self._keep(native_memory.memory_take(&self.native, size))

    def take_array(self, size_t count, size_t size):
        return self._keep(native_memory.memory_nghttp2_calloc(count, size, &self.native))

    def resize(self, block, size_t size, bint through_nghttp2=False):
        """Whether it could be done; block None takes a new one and gives its number."""
        cdef void *body = NULL if block is None else <void *><uintptr_t>self.held[block]
        if through_nghttp2:
            body = native_memory.memory_nghttp2_realloc(body, size, &self.native)
        else:
            body = native_memory.memory_resize(&self.native, body, size)
        if block is None:
            return self._keep(body)
        if body == NULL:
            return False
        self.held[block] = <uintptr_t>body
        return True

    def release(self, block, bint through_nghttp2=False):
        cdef void *body = NULL if block is None else <void *><uintptr_t>self.held.pop(block)
        if through_nghttp2:
            native_memory.memory_nghttp2_free(body, &self.native)
        else:
            native_memory.memory_release(&self.native, body)

    def fill(self, block, bytes data):
        cdef const uint8_t *source = data
        memcpy(<void *><uintptr_t>self.held[block], source, len(data))

    def content(self, block, size_t size):
        return (<const uint8_t *><uintptr_t>self.held[block])[:size]

    def address(self, block):
        return self.held[block]

    def size(self, block):
        return native_memory.memory_size(<const void *><uintptr_t>self.held[block])

    def fail_at(self, uint64_t count):
        native_memory.memory_fail_at(&self.native, count)

    def counters(self):
        """(bytes, blocks, taken, failures)"""
        return (
            native_memory.memory_bytes(&self.native),
            native_memory.memory_blocks(&self.native),
            native_memory.memory_taken(&self.native),
            native_memory.memory_failures(&self.native),
        )

    def churn(self, size_t size, int rounds):
        """Take and release without the GIL, for threads."""
        cdef int i
        cdef void *body
        with nogil:
            for i in range(rounds):
                body = native_memory.memory_take(&self.native, size)
                native_memory.memory_release(&self.native, body)


def statuses():
    """The table: [(name, gRPC status, kind of exception, text)]"""
    return [
        (
            native_status.status_name(status).decode(),
            native_status.status_grpc(status),
            <int>native_status.status_exception(status),
            native_status.status_text(status).decode(),
        )
        for status in range(<int>native_status.STATUS_COUNT)
    ]


def status_of(int status):
    return native_status.status_name(status).decode(), native_status.status_grpc(status)


def read_all(const uint8_t[:] data not None, list steps not None):
    """Run [(operation, argument)] on a reader over `data`; [(result or None, bytes left)]."""
    first = _read_all(guard_start(data), data.shape[0], steps)
    assert _read_all(guard_end(data), data.shape[0], steps) == first
    return first


cdef list _read_all(const uint8_t *data, size_t size, list steps):
    cdef native_reader.Reader reader
    cdef uint32_t u32 = 0
    cdef uint32_t wire = 0
    cdef uint64_t u64 = 0
    cdef const uint8_t *body = NULL
    cdef size_t length = 0
    results = []
    native_reader.reader_init(&reader, data, size)
    for operation, argument in steps:
        result = None
        if operation == "varint":
            if native_reader.reader_varint(&reader, &u64):
                result = u64
        elif operation == "skip_varint":
            result = native_reader.reader_skip_varint(&reader) or None
        elif operation == "tag":
            if native_reader.reader_tag(&reader, &u32, &wire):
                result = (u32, wire)
        elif operation == "bytes":
            if native_reader.reader_bytes(&reader, &body, &length):
                result = body[:length]
        elif operation == "skip":
            result = native_reader.reader_skip(&reader, argument) or None
        else:
            raise ValueError(operation)
        results.append((result, native_reader.reader_left(&reader)))
    return results


def utf8_valid(const uint8_t[:] data not None):
    cdef bint result = native_utf8.utf8_valid(guard_start(data), data.shape[0])
    assert native_utf8.utf8_valid(guard_end(data), data.shape[0]) == result
    return result


def utf8_ascii(const uint8_t[:] data not None):
    cdef bint result = native_utf8.utf8_ascii(guard_start(data), data.shape[0])
    assert native_utf8.utf8_ascii(guard_end(data), data.shape[0]) == result
    return result


def utf8_ascii_within(const uint8_t[:] data not None, size_t size):
    """Whether the first `size` bytes are ASCII, with all of `data` there to be read."""
    cdef bint result
    assert size <= <size_t>data.shape[0]
    result = native_utf8.utf8_ascii_within(guard_start(data), size, data.shape[0])
    assert native_utf8.utf8_ascii_within(guard_end(data), size, data.shape[0]) == result
    return result


def utf8_repair(const uint8_t[:] data not None):
    """(repaired, bytes replaced)"""
    cdef const uint8_t *place = guard_end(data)
    cdef size_t size = native_utf8.utf8_repaired_size(place, data.shape[0])
    cdef size_t replaced
    out = bytearray(size + 1)
    out[size] = 0x5A
    cdef uint8_t[:] view = out
    replaced = native_utf8.utf8_repair(place, data.shape[0], &view[0])
    assert out[size] == 0x5A
    del view
    return bytes(out[:size]), replaced


def scan_event(int feed, const uint8_t[:] data not None):
    cdef int result = native_scan.scan_event(feed, guard_start(data), data.shape[0])
    assert native_scan.scan_event(feed, guard_end(data), data.shape[0]) == result
    return result


def repair_event(int feed, const uint8_t[:] data not None, Memory memory=None):
    """(name of the status, repaired or None, bytes replaced)"""
    cdef uint8_t *out = NULL
    cdef size_t size = 0
    cdef uint64_t replaced = 0
    cdef int status
    if memory is None:
        memory = Memory()
    before = memory.counters()[:2]
    status = native_repair.repair_event(
        &memory.native, feed, guard_end(data), data.shape[0], &out, &size, &replaced
    )
    result = None
    if out != NULL:
        assert native_memory.memory_size(out) == size
        result = out[:size]
        native_memory.memory_release(&memory.native, out)
    assert memory.counters()[:2] == before
    return native_status.status_name(status).decode(), result, replaced


def scan_time(int feed, list events not None, int rounds, bint noting=False):
    """Nanoseconds to scan each of the events, one after the other, `rounds` times; and how many were not OK.

    `noting`: with a note of where the strings are, as enrichment has it.
    """
    cdef size_t count = len(events)
    cdef native_memory.Memory memory
    cdef native_scan.ScanNotes notes
    cdef native_scan.ScanNotes *taken = &notes if noting else NULL
    cdef const uint8_t **starts
    cdef size_t *sizes
    cdef uint8_t *place
    cdef timespec before, after
    cdef size_t index
    cdef int round
    cdef long flawed = 0
    joined = b"".join(events)  # back to back, as in a journal
    native_memory.memory_init(&memory)
    starts = <const uint8_t **>native_memory.memory_take(&memory, count * sizeof(uint8_t *))
    sizes = <size_t *>native_memory.memory_take(&memory, count * sizeof(size_t))
    if starts == NULL or sizes == NULL:
        raise MemoryError
    place = <uint8_t *>joined
    for index in range(count):
        starts[index] = place
        sizes[index] = len(events[index])
        place += sizes[index]
    with nogil:
        clock_gettime(CLOCK_MONOTONIC, &before)
        for round in range(rounds):
            for index in range(count):
                flawed += native_scan.scan_event_noting(feed, starts[index], sizes[index], taken) != native_scan.SCAN_OK
        clock_gettime(CLOCK_MONOTONIC, &after)
    native_memory.memory_release(&memory, starts)
    native_memory.memory_release(&memory, sizes)
    return (after.tv_sec - before.tv_sec) * 1_000_000_000 + after.tv_nsec - before.tv_nsec, flawed
