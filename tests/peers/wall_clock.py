"""A wall clock of its own for a process, which a test can set: a library that is loaded before all others."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
from pathlib import Path

from .closing import Closing

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static const volatile int64_t *ahead;
static int (*real_clock)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    int file = open(getenv("WALL_CLOCK"), O_RDONLY);
    void *shared = mmap(NULL, sizeof(*ahead), PROT_READ, MAP_SHARED, file, 0);
    ahead = shared == MAP_FAILED ? NULL : shared;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    if (real_clock == NULL) {
        real_clock = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    }
    int result = real_clock(clock, now);
    if (result == 0 && ahead != NULL && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        now->tv_sec += *ahead;
    }
    return result;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact) != 0) return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *to) {
    struct timespec exact;
    if (clock_gettime(CLOCK_REALTIME, &exact) != 0) return (time_t)-1;
    if (to != NULL) *to = exact.tv_sec;
    return exact.tv_sec;
}
"""


def missing() -> str:
    """Why there can be none here; "" when there can."""
    return "" if shutil.which("cc") else "no C compiler"


class WallClock(Closing):
    """The clock; `variables` are for the environment of the process that is to have it."""

    def __init__(self, folder: Path) -> None:
        source, library, shared = (folder / name for name in ("wall_clock.c", "wall_clock.so", "ahead"))
        source.write_text(_SOURCE)
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(library), str(source), "-ldl"], check=True
        )
        shared.write_bytes(bytes(8))
        descriptor = os.open(shared, os.O_RDWR)
        self._shared = mmap.mmap(descriptor, 8)
        os.close(descriptor)
        self.variables = {"LD_PRELOAD": str(library), "WALL_CLOCK": str(shared)}

    def step(self, seconds: int) -> None:
        """Set it so far ahead of the machine's, or behind it."""
        self._shared[:] = seconds.to_bytes(8, "little", signed=True)

    def close(self) -> None:
        self._shared.close()
