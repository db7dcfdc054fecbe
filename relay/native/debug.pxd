"""Assertions of the debug build (RELAY_DEBUG=1); nothing in the others."""

cdef extern from * nogil:
    """
    #include <stdio.h>
    #include <stdlib.h>
    #if defined(RELAY_DEBUG) && RELAY_DEBUG
    #define RELAY_DEBUGGING 1
    #define relay_assert(condition, text) do { \\
        if (!(condition)) { \\
            fprintf(stderr, "relay: broken invariant: %s (%s:%d)\\n", (text), __FILE__, __LINE__); \\
            abort(); \\
        } \\
    } while (0)
    #else
    #define RELAY_DEBUGGING 0
    #define relay_assert(condition, text) ((void)sizeof(condition))
    #endif
    #define relay_likely(condition) __builtin_expect(!!(condition), 1)
    #define relay_unlikely(condition) __builtin_expect(!!(condition), 0)
    """
    enum:
        RELAY_DEBUGGING
    void relay_assert(bint condition, const char *text)
    bint relay_likely(bint condition)
    bint relay_unlikely(bint condition)
