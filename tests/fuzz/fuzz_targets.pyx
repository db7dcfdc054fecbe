"""Test-only module: entry points of libFuzzer, and its driver.

Built by `make fuzz` with clang's coverage and sanitizers; run by tests/fuzz/run.py. Each target is a
file tests/fuzz/fuzz_<target>.pxi with a function `fuzz_<target>(data, size)` that needs no Python.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>
    #include <stdio.h>
    #include <stdlib.h>

    typedef int (*FuzzTarget)(const uint8_t *, size_t);
    int LLVMFuzzerRunDriver(int *argc, char ***argv, FuzzTarget target);

    /* What must hold whatever the input is; libFuzzer keeps the input when the process aborts. */
    #define fuzz_holds(condition, text) do { \
        if (!(condition)) { fprintf(stderr, "fuzz: does not hold: %s\\n", text); abort(); } \
    } while (0)
    """
    ctypedef int (*FuzzTarget)(const uint8_t *, size_t) noexcept nogil
    int LLVMFuzzerRunDriver(int *argc, char ***argv, FuzzTarget target) nogil
    void fuzz_holds(bint condition, const char *text) noexcept nogil

include "engine.pxi"
include "_fuzz_parts.pxi"


def run(target: str, arguments: list[str]) -> int:
    """Run libFuzzer on a target with its own command-line arguments. It may end the process."""
    cdef FuzzTarget function = target_of(target)
    cdef char *argv[64]
    cdef char **first = argv
    cdef int argc = 0
    cdef int result
    words = [b"fuzz", *(argument.encode() for argument in arguments)]
    if len(words) > 64:
        raise ValueError("too many arguments")
    for word in words:
        argv[argc] = word
        argc += 1
    with nogil:
        result = LLVMFuzzerRunDriver(&argc, &first, function)
    return result
