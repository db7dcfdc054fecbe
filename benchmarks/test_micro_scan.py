"""The wire scanner: what it costs to find that an event is one that every subscriber can parse.

Each figure is for scanning EVENTS events ROUNDS times. The target is 120 ns for a log of 768 bytes with 28 fields,
different logs one after the other (`ns_per_event` of test_different_logs): the same event again and again
is cheaper, because every branch in it is then predicted.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from relay import kubearmor_pb2 as pb

shown = pytest.importorskip("shown", reason="the test module is not built")

EVENTS = 1000
ROUNDS = 10
LOGS = 2


def make_log(rng: random.Random) -> bytes:
    """A log as KubeArmor sends it: 28 fields on average, and 768 bytes."""

    def name(size: int) -> str:
        return "".join(rng.choices("0123456789abcdef", k=size))

    space = rng.choice(["wordpress-mysql", "default", "kube-system", "payments-eu-west"])
    pod = rng.choice(["wordpress-7c966b5d85", "mysql", "checkout-service-5f9d8c", "api"]) + "-" + name(5)
    process = rng.choice(["/usr/bin/ls", "/bin/bash", "/usr/sbin/apache2", "/usr/local/bin/python3.11"])
    image = rng.choice(["registry.example/library/wordpress:4.8-apache", "registry.example/mysql:8"])
    log = pb.Log(
        Timestamp=1_700_000_000 + rng.randrange(10**6),
        UpdatedTime=f"2026-11-23T15:{rng.randrange(60):02d}:{rng.randrange(60):02d}.{rng.randrange(10**6):06d}Z",
        ClusterName=rng.choice(["default", "production-eu-1"]),
        HostName="gke-production-" + name(rng.choice([4, 8])),
        NamespaceName=space,
        Owner=pb.Podowner(Ref="Deployment", Name=pod[:-6], Namespace=space),
        PodName=pod,
        Labels=f"app={pod[:-6]},tier={rng.choice(['frontend', 'backend', 'db'])}",
        ContainerID=name(64),
        ContainerName=rng.choice(["wordpress", "mysql", "c"]),
        ContainerImage=f"{image}@sha256:{name(64)}",
        ParentProcessName=rng.choice(["/bin/bash", "/usr/bin/containerd-shim-runc-v2"]),
        ProcessName=process,
        HostPPID=rng.randrange(1, 400_000),
        HostPID=rng.randrange(1, 400_000),
        PPID=rng.randrange(400),
        PID=rng.randrange(1, 400),
        UID=rng.choice([0, 0, 1000, 65534]),
        Type=rng.choice(["ContainerLog", "HostLog"]),
        Source=process + rng.randrange(8) * " --flag=value",
        Operation=rng.choice(["File", "Process", "Network", "Syscall"]),
        Resource=rng.choice(
            [
                "/etc/ld.so.cache",
                "/usr/lib/x86_64-linux-gnu/libselinux.so.1",
                "remoteip=10.1.2.3 port=443 protocol=TCP",
                "/proc/self/maps",
            ]
        )
        + rng.randrange(12) * "/sub",
        Data=rng.choice(["syscall=SYS_OPENAT fd=-100 flags=O_RDONLY|O_CLOEXEC", "kprobe=tcp_connect domain=AF_INET"]),
        Result=rng.choice(["Passed", "Permission denied"]),
        Cwd="/" + rng.randrange(2) * "var/www/html",
        TTY=rng.choice(["", "pts0"]),
        ExecEvent=pb.ExecEvent(),
        NodeID=name(64),
        ProcessHash=name(rng.choice([0, 64])),
        UserName=rng.choice(["root", "www-data", ""]),
    )
    if rng.random() < 0.5:
        log.ExecEvent.ExecID = str(rng.randrange(10**15))
        log.ExecEvent.ExecutableName = "bash"
    if rng.random() < 0.7:
        log.EventData["Syscall"] = "SYS_OPENAT"
        log.EventData["Fd"] = "-100"
    return log.SerializeToString()


def make_logs() -> list[bytes]:
    rng = random.Random(1)
    return [make_log(rng) for _ in range(EVENTS)]


def run(benchmark: Any, events: list[bytes]) -> None:
    """Scan all events; `ns_per_event` is the quickest call, without Python's share."""
    benchmark.group = "scan"
    fields = [len(pb.Log.FromString(event).ListFields()) for event in events]
    elapsed: list[int] = []

    def scan() -> None:
        nanoseconds, flawed = shown.scan_time(LOGS, events, ROUNDS)
        assert flawed == 0
        elapsed.append(nanoseconds)

    benchmark(scan)
    benchmark.extra_info["ns_per_event"] = round(min(elapsed) / (ROUNDS * len(events)), 1)
    benchmark.extra_info["bytes_per_event"] = sum(map(len, events)) // len(events)
    benchmark.extra_info["fields_per_event"] = round(sum(fields) / len(fields), 1)


def test_different_logs(benchmark: Any) -> None:
    run(benchmark, make_logs())


def test_one_log_again_and_again(benchmark: Any) -> None:
    run(benchmark, make_logs()[:1] * EVENTS)


def test_logs_of_another_script(benchmark: Any) -> None:
    """One string that is not ASCII in each log: the slow way for that string."""
    # Of the same size, so that the lengths around it stay right.
    run(benchmark, [log.replace(b"gke-production", "größe-日本".encode()) for log in make_logs()])
