"""What each row must reach, and the verdict on what it did."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.measure import Spread
from benchmarks.rows import Row

MIB = 2**20


@dataclass(frozen=True)
class Target:
    """One figure of a row.

    Attributes:
        key: its name in results and in the baseline.
        needs: contenders without which there is no figure.
        must, aim: limits; None where there is none.
        at_least: the limits are lower limits.
        normalised: comparable between runs and machines (a ratio), so that the baseline holds it.
    """

    key: str
    text: str
    unit: str
    needs: tuple[str, ...]
    figure: Callable[[Row], Spread | None]
    must: float | None = None
    aim: float | None = None
    at_least: bool = False
    normalised: bool = False


@dataclass(frozen=True)
class Finding:
    target: Target
    value: Spread

    def verdict(self) -> str:
        target = self.target
        if self._holds(target.aim):
            return "aim reached"
        if target.must is None:
            return "aim missed" if target.aim is not None else ""
        return "reached" if self._holds(target.must) else "MISSED"

    def _holds(self, limit: float | None) -> bool:
        if limit is None:
            return False
        return self.value.median >= limit if self.target.at_least else self.value.median <= limit


def _ratio(
    key: str, text: str, name: str, other: str, must: float | None, aim: float | None, figure: str = "cpu"
) -> Target:
    return Target(
        key, text, "x", (name, other), lambda row: row.ratio(name, other, figure), must, aim, normalised=figure == "cpu"
    )


def _lost(key: str, text: str, name: str, must: float | None = 0, aim: float | None = None) -> Target:
    return Target(key, text, "", (name,), lambda row: Spread(row.lost(name), 0, len(row.samples[name])), must, aim)


def _extra(key: str, text: str, name: str, must: float | None, aim: float | None) -> Target:
    return Target(key, text, "MiB", (), lambda row: Spread(row.extra[name] / MIB, 0, 1), must, aim)


TARGETS: dict[str, list[Target]] = {
    "flat": [
        _ratio("flat/haproxy", "CPU against HAProxy", "relay", "haproxy", 1.0, 0.7),
        _ratio("flat/nginx", "CPU against nginx", "relay", "nginx", 1.0, 0.7),
        _ratio("flat/haproxy-large", "CPU against HAProxy, 256 KiB", "relay", "haproxy, large buffers", 1.0, 0.7),
        _ratio("flat/nginx-large", "CPU against nginx, 1 MiB", "relay", "nginx, large buffers", 1.0, 0.7),
        _ratio("flat/haproxy-one", "against HAProxy, one layout", "relay, events of one layout", "haproxy", 1.0, 0.7),
        _ratio("flat/nginx-one", "against nginx, one layout", "relay, events of one layout", "nginx", 1.0, 0.7),
        _ratio("flat/pump", "CPU against a bare read and write", "relay", "pump", None, 2.0),
        _lost("flat/lost", "events lost", "relay"),
        _lost("flat/unbounded", "events lost, node not held back", "relay, node unbounded"),
    ],
    "20k": [
        _ratio("20k/nginx", "CPU against nginx", "relay", "nginx", 1.0, 0.7),
        _ratio("20k/p50", "p50 against nginx", "relay", "nginx", 1.5, None, "p50"),
        _lost("20k/lost", "events lost", "relay"),
    ],
    "1k": [
        _ratio("1k/nginx", "CPU against nginx", "relay", "nginx", 1.0, None),
        _ratio("1k/p50", "p50 against nginx", "relay", "nginx", 1.2, None, "p50"),
        _lost("1k/lost", "events lost", "relay"),
    ],
    "nodes": [
        _ratio("nodes/nginx", "CPU against nginx", "relay", "nginx", 0.65, 0.5),
        Target("nodes/p50", "p50", "ms", ("relay",), lambda row: row.latency("relay"), 1.0),
        _lost("nodes/lost", "events lost", "relay"),
    ],
    "further": [
        Target("further/cpu", "CPU a delivered event", "us", ("further",), lambda row: row.cpu("further"), 0.2),
        _ratio("further/writev", "CPU against a bare writev", "further", "writev", 1.5, 1.2),
    ],
    "tls": [
        _ratio("tls/nginx", "CPU against nginx, both with mTLS", "relay", "nginx", 1.0, None),
        _ratio("tls/nginx-large", "CPU against nginx, 1 MiB", "relay", "nginx, large buffers", None, 1.0),
        _lost("tls/lost", "events lost", "relay"),
    ],
    "tls-further": [
        _ratio("tls-further/first", "CPU against that of the first", "further", "1", 0.7, None),
    ],
    "storm": [
        Target("storm/p99", "p99 added by the storm", "ms", ("added",), lambda row: row.latency("added", "p99"), 5.0),
        _lost("storm/lost", "events lost", "storm"),
    ],
    "subscribers": [
        _lost("subscribers/8", "events lost by 8 subscribers", "8"),
        _lost("subscribers/32", "events lost by 32 subscribers", "32", None, 0),
    ],
    "stdout": [
        Target("stdout/cpu", "CPU a printed event", "us", ("stdout",), lambda row: row.cpu("stdout"), 2.0),
        _lost("stdout/lost", "events lost", "relay"),
    ],
    "aio": [
        Target(
            "aio/ratio", "CPU of grpc.aio against the relay", "x", ("relay", "grpc.aio"),
            lambda row: row.ratio("grpc.aio", "relay"), 50, 150, at_least=True, normalised=True,
        ),
    ],
    "memory": [
        _extra("memory/resident", "resident memory", "resident", 128, 96),
        _extra("memory/sockets", "kernel memory of its sockets besides", "sockets", None, None),
    ],
}  # fmt: skip


def findings(key: str, row: Row) -> Iterator[Finding]:
    """The figures of a finished row, without those whose contender is missing."""
    for target in TARGETS[key]:
        if all(name in row.samples for name in target.needs):
            value = target.figure(row)
            if value is not None:
                yield Finding(target, value)


def figure(value: float, unit: str) -> str:
    text = f"{value:.0f}" if unit in ("", "MiB") or value >= 100 else f"{value:.2f}"
    return f"{text} {unit}".strip() if unit not in ("", "x") else f"{text}{unit}"
