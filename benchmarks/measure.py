"""What the kernel counts for a process: run time, memory, socket buffers."""

from __future__ import annotations

import re
import statistics
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


def family(pid: int) -> list[int]:
    """The process and all its descendants (nginx works in a child of the process that was started)."""
    found = [pid]
    for parent in found:
        for task in (PROC / str(parent) / "task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def run_time_ns(pids: Iterable[int]) -> int:
    """Nanoseconds that all tasks of these processes have been running.

    The first figure of each /proc/PID/task/TID/schedstat is a task's run time; utime and stime are
    sampled by ticks and mislead at low load. A task that has ended leaves that list, so the
    process's CPU clock (clock_getcpuclockid(3)) is read, too: the same run time, of the whole
    thread group, with ended tasks in it, and up to the moment for a task that is running now.
    """
    total = 0
    for pid in pids:
        live = 0
        for stat in (PROC / str(pid) / "task").glob("*/schedstat"):
            try:
                live += int(stat.read_text().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended since it was listed: the process's clock has it
        # The clock's number, as glibc makes it: inverted pid, 3 bits, 2 for scheduler time.
        total += max(live, time.clock_gettime_ns((~pid << 3) | 2))
    return total


@dataclass(frozen=True)
class Memory:
    """Bytes: resident now, resident at the most, and in buffers of all TCP sockets of the machine."""

    resident: int
    peak: int
    tcp: int


def memory(pid: int) -> Memory:
    status = (PROC / str(pid) / "status").read_text()
    fields = {k: int(v) * 1024 for k, v in re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", status, re.M)}
    pages = re.search(r"^TCP: .* mem (\d+)", (PROC / "net" / "sockstat").read_text(), re.M)
    return Memory(fields["VmRSS"], fields["VmHWM"], int(pages[1]) * 4096 if pages else 0)


def socket_memory(pid: int) -> int:
    """Bytes of kernel memory in the TCP sockets of one process, as ss(8) tells it."""
    out = subprocess.run(["ss", "-tnmpO"], capture_output=True, text=True, check=True).stdout
    total = 0
    for line in out.splitlines():
        if f"pid={pid}," not in line:
            continue
        # skmem: r and t are received and sent bytes' memory, f what is set aside, w queued, o options, bl backlog.
        counts = dict(re.findall(r"\b(r|t|f|w|o|bl)(\d+)", line.partition("skmem:")[2]))
        total += sum(int(counts.get(name, 0)) for name in ("r", "f", "w", "o", "bl"))
    return total


@dataclass(frozen=True)
class Spread:
    """The median of several rounds, and half the distance between the quartiles, as a share of it."""

    median: float
    noise: float
    rounds: int

    def __str__(self) -> str:
        return f"{self.median:.3g} ±{self.noise:.0%}"


def spread(values: Sequence[float]) -> Spread:
    middle = statistics.median(values)
    if len(values) < 3 or not middle:
        return Spread(middle, (max(values) - min(values)) / 2 / abs(middle) if middle else 0.0, len(values))
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(middle, (high - low) / 2 / abs(middle), len(values))


def percentile(ordered: Sequence[int], share: float) -> float:
    """Nearest rank in a sorted sequence; not a number where there is none."""
    if not ordered:
        return float("nan")
    return float(ordered[min(len(ordered) - 1, int(share * len(ordered)))])
