"""Deadlines: an intrusive binary min-heap.

A Timer lives in the structure it belongs to and knows its place in the heap, so that setting,
moving and clearing cost O(log n), and allocate nothing as long as room was reserved.
Deadlines are nanoseconds of one monotonic clock; the heap does not know which.
"""

from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t

from relay.native.memory cimport Memory, memory_release, memory_resize
from relay.native.status cimport STATUS_NO_MEMORY, STATUS_OK

cdef enum:
    TIMERS_FIRST_ROOM = 64


cdef struct Timer:
    uint64_t deadline           # nanoseconds
    uint32_t index              # its place in the heap, from 1; 0 while not set
    void *owner                 # what the caller finds it by when it is due

cdef struct Timers:
    Memory *memory
    Timer **heap                # heap[0] is the first due; a timer at index i is heap[i - 1]
    size_t count
    size_t capacity


cdef inline void timer_init(Timer *timer, void *owner) noexcept nogil:
    timer.deadline = 0
    timer.index = 0
    timer.owner = owner


cdef inline void timers_init(Timers *timers, Memory *memory) noexcept nogil:
    timers.memory = memory
    timers.heap = NULL
    timers.count = 0
    timers.capacity = 0


cdef inline void timers_free(Timers *timers) noexcept nogil:
    """Clear every timer and free the heap."""
    cdef size_t i
    for i in range(timers.count):
        timers.heap[i].index = 0
    if timers.heap != NULL:
        memory_release(timers.memory, timers.heap)
    timers_init(timers, timers.memory)


cdef inline int timers_reserve(Timers *timers, size_t count) noexcept nogil:
    """Make room for `count` timers at a time: STATUS_OK or STATUS_NO_MEMORY."""
    cdef size_t capacity = timers.capacity
    cdef void *heap
    if count <= capacity:
        return STATUS_OK
    if count >= <uint32_t>-1 or count > (<size_t>-1) // (2 * sizeof(Timer *)):
        return STATUS_NO_MEMORY
    if capacity < TIMERS_FIRST_ROOM:
        capacity = TIMERS_FIRST_ROOM
    while capacity < count:
        capacity *= 2
    heap = memory_resize(timers.memory, timers.heap, capacity * sizeof(Timer *))
    if heap == NULL:
        return STATUS_NO_MEMORY
    timers.heap = <Timer **>heap
    timers.capacity = capacity
    return STATUS_OK


cdef inline void timers_put(Timers *timers, size_t index, Timer *timer) noexcept nogil:
    timers.heap[index - 1] = timer
    timer.index = <uint32_t>index


cdef inline void timers_place(Timers *timers, size_t index, Timer *timer) noexcept nogil:
    """Put a timer where `index` is free, moving others so that no parent is due after its child."""
    cdef size_t child
    while index > 1 and timers.heap[index // 2 - 1].deadline > timer.deadline:
        timers_put(timers, index, timers.heap[index // 2 - 1])
        index //= 2
    while True:
        child = index * 2
        if child > timers.count:
            break
        if child < timers.count and timers.heap[child].deadline < timers.heap[child - 1].deadline:
            child += 1
        if timers.heap[child - 1].deadline >= timer.deadline:
            break
        timers_put(timers, index, timers.heap[child - 1])
        index = child
    timers_put(timers, index, timer)


cdef inline int timers_set(Timers *timers, Timer *timer, uint64_t deadline) noexcept nogil:
    """Set a timer, or move one that is set. STATUS_NO_MEMORY, with nothing changed, when there is no room."""
    cdef int status
    if timer.index == 0:
        status = timers_reserve(timers, timers.count + 1)
        if status != STATUS_OK:
            return status
        timers.count += 1
        timer.index = <uint32_t>timers.count
    timer.deadline = deadline
    timers_place(timers, timer.index, timer)
    return STATUS_OK


cdef inline void timers_clear(Timers *timers, Timer *timer) noexcept nogil:
    """Clear a timer; one that is not set stays so."""
    cdef size_t index = timer.index
    cdef Timer *last
    if index == 0:
        return
    last = timers.heap[timers.count - 1]
    timers.count -= 1
    timer.index = 0
    if last != timer:
        timers_place(timers, index, last)


cdef inline uint64_t timers_first(const Timers *timers) noexcept nogil:
    """The next deadline, or UINT64_MAX when no timer is set."""
    return timers.heap[0].deadline if timers.count > 0 else UINT64_MAX


cdef inline Timer *timers_pop_due(Timers *timers, uint64_t now) noexcept nogil:
    """Clear and return the first timer whose deadline is not after `now`; NULL when none is."""
    cdef Timer *timer
    if timers.count == 0 or timers.heap[0].deadline > now:
        return NULL
    timer = timers.heap[0]
    timers_clear(timers, timer)
    return timer
