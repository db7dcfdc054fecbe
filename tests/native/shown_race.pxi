"""A race on purpose: what the thread sanitizer must find, or else its silence about the rest says nothing."""

from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #include <stdint.h>

    static uint64_t planted_counter;

    static void planted_plain(uint64_t times) {
        /* Read and written through memory each time, so that two threads have many chances to meet. */
        volatile uint64_t *counter = &planted_counter;
        while (times-- > 0) *counter = *counter + 1;
    }

    static void planted_atomic(uint64_t times) {
        while (times-- > 0) __atomic_fetch_add(&planted_counter, 1, __ATOMIC_RELAXED);
    }
    """
    void planted_plain(uint64_t times) noexcept nogil
    void planted_atomic(uint64_t times) noexcept nogil


def planted(uint64_t times, bint atomic):
    """Count so often in a counter that all threads share: as it must be done, or as it must not."""
    with nogil:
        if atomic:
            planted_atomic(times)
        else:
            planted_plain(times)
