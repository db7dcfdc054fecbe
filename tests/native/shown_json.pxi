# Shows the transcoder: events and texts as JSON.

from libc.stdint cimport int64_t as json_int64

cimport relay.native.json as native_json
cimport relay.native.json_text as native_json_text
from relay.native.memory cimport (
    Memory as JsonMemory, memory_blocks as json_blocks, memory_fail_at as json_fail_at, memory_init as json_memory_init,
)
from relay.native.status cimport STATUS_OK as JSON_STATUS_OK, relay_status_row as json_status_row

JSON_MOST = <int>native_json.JSON_MOST
JSON_SMALL = <int>native_json.JSON_SMALL
JSON_KEPT = <int>native_json.JSON_KEPT
JSON_ITEMS = <int>native_json.JSON_ITEMS


cdef class Json:
    """An encoder, its buffer, and the memory of both."""

    cdef JsonMemory memory
    cdef native_json.Json native
    cdef native_json.JsonBuffer out

    def __cinit__(self):
        json_memory_init(&self.memory)
        native_json.json_init(&self.native, &self.memory)
        native_json.json_buffer_init(&self.out, &self.memory)

    def __dealloc__(self):
        self.free()

    def free(self):
        """Blocks held afterwards."""
        native_json.json_free(&self.native)
        native_json.json_buffer_free(&self.out)
        return json_blocks(&self.memory)

    @property
    def blocks(self):
        return json_blocks(&self.memory)

    def fail_at(self, count):
        json_fail_at(&self.memory, count)

    def event(self, int feed, const uint8_t[:] data, int around=0):
        """The event as JSON, or the name of the status. `around` chooses which side has the unreadable page."""
        cdef uint8_t *place = guard_end(data) if around == 0 else guard_start(data)
        cdef int status
        cdef size_t former = self.out.used
        status = native_json.json_event(&self.native, feed, place, <size_t>data.shape[0], &self.out)
        if status != JSON_STATUS_OK:
            assert self.out.used == former
            return json_status_row(status).name.decode()
        made = (<char *>self.out.data)[former:self.out.used]
        self.out.used = 0
        return made


def json_event(int feed, data):
    """The event as JSON, or the name of the status: the same behind an unreadable page and before one."""
    one = Json()
    result = one.event(feed, data)
    assert result == one.event(feed, data, 1)
    assert one.free() == 0
    return result


def json_text(const uint8_t[:] data):
    """A text without its quotes."""
    cdef bytes room = bytes(6 * data.shape[0] + 64)
    cdef uint8_t *out = <uint8_t *><char *>room
    cdef uint8_t *place = guard_end(data)
    cdef uint8_t *end = native_json_text.relay_json_text(out, place, place + data.shape[0], place + data.shape[0])
    return room[:end - out]


def json_marks(const uint8_t[:] data):
    """Which of 16 bytes are not printed as themselves: by vectors, and without them."""
    assert data.shape[0] == 16
    return native_json_text.relay_json_marks(&data[0]), native_json_text.relay_json_marks_plain(&data[0])


def json_number(value):
    cdef uint8_t room[24]
    cdef uint8_t *end
    if value < 0:
        end = native_json_text.relay_json_signed(room, <json_int64>value)
    else:
        end = native_json_text.relay_json_unsigned(room, <uint64_t>value)
    return (<char *>room)[:end - room]


def json_time(int feed, events, int rounds):
    """(nanoseconds, bytes) of encoding all events as often as that, into one buffer that is emptied at 256 KiB."""
    cdef Json one = Json()
    cdef timespec before, after
    cdef list views = list(events)
    cdef size_t count = <size_t>len(views)
    cdef const uint8_t **data = <const uint8_t **>native_memory.memory_take(&one.memory, count * sizeof(void *))
    cdef size_t *sizes = <size_t *>native_memory.memory_take(&one.memory, count * sizeof(size_t))
    cdef size_t total = 0
    cdef size_t i
    cdef int round
    for i in range(count):
        data[i] = <const uint8_t *><char *>views[i]
        sizes[i] = <size_t>len(views[i])
    with nogil:
        clock_gettime(CLOCK_MONOTONIC, &before)
        for round in range(rounds):
            for i in range(count):
                if native_json.json_event(&one.native, feed, data[i], sizes[i], &one.out) != JSON_STATUS_OK:
                    break
                if one.out.used > 262144:
                    total += one.out.used
                    one.out.used = 0
        clock_gettime(CLOCK_MONOTONIC, &after)
    native_memory.memory_release(&one.memory, data)
    native_memory.memory_release(&one.memory, sizes)
    return (after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec, total + one.out.used
