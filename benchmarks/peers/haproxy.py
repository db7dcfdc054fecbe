"""HAProxy in TCP mode with one thread: a proxy that never looks at a byte.

Two settings were tried against the defaults (docs/benchmarks.md, "Contenders at their best"): larger
buffers and splicing. The call's keywords are for repeating that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from benchmarks.peers import process

_CONFIGURATION = """\
global
    nbthread 1
    maxconn 2000
    {tuning}
defaults
    mode tcp
    {options}
    timeout connect 5s
    timeout client 1h
    timeout server 1h
"""


@contextlib.contextmanager
def start(nodes: list[int], *, buffer: int = 16_384, splice: bool = False) -> Iterator[process.Contender]:
    """One frontend a node, since bytes cannot be merged."""
    program = process.find("haproxy")
    ports = process.free_ports(len(nodes))
    text = _CONFIGURATION.format(
        tuning=f"tune.bufsize {buffer}" if buffer != 16_384 else "",
        options="option splice-auto" if splice else "",
    )
    for port, node in zip(ports, nodes, strict=True):
        text += f"listen node{node}\n    bind 127.0.0.1:{port}\n    server node 127.0.0.1:{node}\n"
    with process.folder() as folder:
        (folder / "haproxy.cfg").write_text(text)
        argv = [program, "-db", "-f", str(folder / "haproxy.cfg")]
        with process.program(argv, cpus=process.contender_cpus(), folder=folder) as (child, log):
            process.wait_listening(ports[-1], child, log)
            yield process.Contender("haproxy", ports, child, log, packs=False)


@contextlib.contextmanager
def start_large(nodes: list[int]) -> Iterator[process.Contender]:
    """Buffers of 256 KiB instead of 16: fewer calls for the same bytes, where they come fast enough to fill them."""
    with start(nodes, buffer=262_144) as contender:
        yield contender
