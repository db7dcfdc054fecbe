"""Realistic events of KubeArmor nodes, made from a seed.

Every field is set, sizes are 500 to 1200 bytes, and the same seed and node give the same
bytes: times come from a simulated clock that starts at a fixed moment.
"""

from __future__ import annotations

import hashlib
import json
import random
import struct
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from relay import feeds
from relay.kubearmor_pb2 import Alert, ExecEvent, Log, Message, Podowner

CLASSES: tuple[Any, ...] = (Message, Alert, Log)  # by feed
START = datetime(2026, 1, 1, tzinfo=UTC)
# Events of each feed in a hundred, as on a node with a few audit policies.
SHARES = ((feeds.LOGS, 80), (feeds.ALERTS, 17), (feeds.MESSAGES, 3))

_FRAME_PREFIX = struct.Struct(">BI")


class Pod(NamedTuple):
    """A workload that events come from."""

    namespace: str
    owner: str
    kind: str
    container: str
    image: str
    labels: str


class Act(NamedTuple):
    """Something that a process does, and the policy that minds."""

    operation: str
    parent: str
    process: str
    resource: str
    data: str
    policy: str
    message: str
    tags: tuple[str, ...]


class Notice(NamedTuple):
    """Something that KubeArmor itself tells."""

    level: str
    kind: str
    text: str


PODS = (
    Pod("shop", "checkout", "Deployment", "checkout", "registry.example/shop/checkout:4.2.1", "app=checkout,tier=web"),
    Pod("shop", "catalogue", "Deployment", "api", "registry.example/shop/catalogue:2.0.7", "app=catalogue,tier=api"),
    Pod(
        "shop", "orders-db", "StatefulSet", "postgres", "docker.io/library/postgres:16.4", "app=orders-db,role=primary"
    ),
    Pod("web", "frontend", "Deployment", "nginx", "docker.io/library/nginx:1.27.2", "app=frontend,track=stable"),
    Pod("monitoring", "node-agent", "DaemonSet", "agent", "registry.example/agent:0.81.0", "app=node-agent,team=sre"),
    Pod("batch", "nightly-report", "Job", "report", "registry.example/report:1.9", "job-name=nightly-report"),
)

ACTS = (
    Act(
        "Process", "/usr/bin/bash", "/usr/bin/apt-get", "/usr/bin/apt-get install -y netcat-openbsd",
        "lsm=SECURITY_BPRM_CHECK", "block-package-managers",
        "A package manager ran in a container", ("NIST_800-53_CM-7(4)", "NIST_800-53_SI-4", "process"),
    ),
    Act(
        "Process", "/usr/sbin/nginx", "/usr/bin/bash", "/usr/bin/bash -c id; cat /etc/hostname",
        "syscall=SYS_EXECVE", "audit-shells", "A shell started from a server process",
        ("MITRE_T1059_command_and_scripting_interpreter", "MITRE_execution"),
    ),
    Act(
        "File", "/usr/bin/python3", "/usr/bin/cat", "/run/secrets/kubernetes.io/serviceaccount/token",
        "syscall=SYS_OPENAT fd=-100 flags=O_RDONLY|O_CLOEXEC", "protect-service-account-token",
        "The service account's token was read", ("MITRE_T1528_steal_application_access_token", "CIS_5.1.6"),
    ),
    Act(
        "File", "/usr/lib/postgresql/16/bin/postgres", "/usr/lib/postgresql/16/bin/postgres",
        "/var/lib/postgresql/data/base/16384/2619_vm", "syscall=SYS_OPENAT fd=-100 flags=O_RDWR|O_CREAT",
        "audit-database-files", "A database file was opened", ("PCI_DSS_10.2.1", "file"),
    ),
    Act(
        "Network", "/usr/local/bin/checkout", "/usr/local/bin/checkout",
        "remoteip={ip} port={port} protocol=TCP", "kprobe=tcp_connect domain=AF_INET",
        "audit-outbound", "A connection to another host was opened",
        ("MITRE_T1071_application_layer_protocol", "network"),
    ),
    Act(
        "Network", "/usr/bin/containerd-shim-runc-v2", "/usr/sbin/nginx",
        "remoteip={ip} port={port} protocol=TCP", "kprobe=tcp_accept domain=AF_INET",
        "audit-inbound", "A connection from another host was accepted", ("NIST_800-53_SC-7", "network"),
    ),
    Act(
        "Syscall", "/usr/bin/bash", "/usr/bin/rm", "/var/log/nginx/access.log",
        "syscall=SYS_UNLINKAT", "audit-log-removal", "A log file was removed",
        ("MITRE_T1070_indicator_removal_on_host", "NIST_800-53_AU-9"),
    ),
)  # fmt: skip

NOTICES = (
    Notice(
        "INFO",
        "Policy",
        "Detected a security policy (added/{namespace}/{policy}): selector {labels}, action Block, severity 5, "
        "process paths /usr/bin/apt, /usr/bin/apt-get, /bin/apt-get, /sbin/apk, /usr/bin/dpkg; file directories "
        "/run/secrets/kubernetes.io/serviceaccount/ (recursive, read only), /etc/shadow, /var/lib/postgresql/data/",
    ),
    Notice(
        "INFO",
        "Container",
        "Started to monitor container {container} of {namespace}/{owner}, image {image}: pid namespace 4026532000 "
        "and mount namespace 4026531000 are known; default posture is file audit, network audit, capabilities audit; "
        "profile kubearmor-{namespace}-{owner}-{container} was registered, loaded by the host, and is in force "
        "for every process of the container",
    ),
    Notice(
        "WARN",
        "Enforcer",
        "Profile kubearmor-{namespace}-{owner}-{container} could not be updated at the first try (resource busy) and "
        "was registered again; until the host has reloaded it for every running container of {namespace}/{owner}, "
        "their events are reported with the default posture, their policy name is DefaultPosture, and none of them "
        "is blocked",
    ),
)
NOTICE_END = (
    ", and none of this asks for anything to be done by hand; {node} runs kernel 6.1.0-37-amd64 with BTF, "
    "containerd 1.7.23, KubeArmor v1.4.3; 12 policies"
)


class Node:
    """The events of one node, without end. The same seed and name give the same events."""

    def __init__(self, name: str, seed: int = 0, cluster: str = "default") -> None:
        self.name = name
        self.cluster = cluster
        # Seeding with text hashes all of it (version 2), so neighbours' seeds give unrelated events.
        self._random = random.Random(f"{seed}/{name}")  # noqa: S311 (made-up events, no secrets)
        self._now = START
        self._id = self._hex(64)
        self._ip = f"10.0.{self._random.randrange(256)}.{self._random.randrange(1, 255)}"
        self._pods = [(pod, self._pod_name(pod), self._hex(64), self._hex(64)) for pod in PODS]

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """Feed and event, for ever, in the proportions of SHARES."""
        numbers = [feed for feed, _ in SHARES]
        weights = [share for _, share in SHARES]
        while True:
            feed = self._random.choices(numbers, weights)[0]
            yield feed, self.event(feed)

    def event(self, feed: int) -> Any:
        """The next event of a feed."""
        self._now += timedelta(microseconds=self._random.randrange(200, 20_000))
        return (self._message, self._alert, self._log)[feed]()

    def _message(self) -> Any:
        notice = self._random.choice(NOTICES)
        pod, _, _, _ = self._random.choice(self._pods)
        act = self._random.choice(ACTS)
        values = {**pod._asdict(), "policy": act.policy, "node": self.name}
        return Message(
            **self._common(),
            HostIP=self._ip,
            Type=notice.kind,
            Level=notice.level,
            Message=(notice.text + NOTICE_END).format(**values),
        )

    def _alert(self) -> Any:
        act = self._random.choice(ACTS)
        action = self._random.choice(("Audit", "Block"))
        return Alert(
            **self._common(),
            **self._workload(act),
            PolicyName=act.policy,
            Severity=str(self._random.randrange(1, 11)),
            Tags=",".join(act.tags),
            ATags=act.tags,
            Message=act.message,
            Type="MatchedPolicy",
            Enforcer=self._random.choice(("AppArmor", "BPFLSM", "eBPF Monitor")),
            Action=action,
            Result="Permission denied" if action == "Block" else "Passed",
            MaxAlertsPerSec=10,
            DroppingAlertsInterval=30,
            KubeArmorVersion="v1.4.3",
        )

    def _log(self) -> Any:
        act = self._random.choice(ACTS)
        return Log(
            **self._common(),
            **self._workload(act),
            Type="ContainerLog",
            Result=self._random.choice(("Passed", "Passed", "Passed", "Permission denied")),
        )

    def _common(self) -> dict[str, Any]:
        """The fields that all three feeds have."""
        return {
            "Timestamp": int(self._now.timestamp()),
            "UpdatedTime": self._now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "ClusterName": self.cluster,
            "HostName": self.name,
        }

    def _workload(self, act: Act) -> dict[str, Any]:
        """The fields that alerts and logs share: who did what, and where."""
        draw = self._random
        pod, pod_name, container_id, digest = draw.choice(self._pods)
        pid = draw.randrange(2, 400)
        host_pid = draw.randrange(1000, 4_000_000)
        remote = {"ip": f"10.{draw.randrange(256)}.{draw.randrange(256)}.{draw.randrange(1, 255)}"}
        resource = act.resource.format(**remote, port=draw.choice((443, 5432, 6379, 8080, 9090)))
        return {
            "NamespaceName": pod.namespace,
            "Owner": Podowner(Ref=pod.kind, Name=pod.owner, Namespace=pod.namespace),
            "PodName": pod_name,
            "Labels": pod.labels,
            "ContainerID": container_id,
            "ContainerName": pod.container,
            "ContainerImage": f"{pod.image}@sha256:{digest}",
            "HostPPID": host_pid - draw.randrange(1, 900),
            "HostPID": host_pid,
            "PPID": draw.randrange(1, pid),
            "PID": pid,
            "UID": draw.choice((1, 101, 999, 1000)),
            "ParentProcessName": act.parent,
            "ProcessName": act.process,
            "Source": act.process,
            "Operation": act.operation,
            "Resource": resource,
            "Data": act.data,
            "EventData": dict(part.partition("=")[::2] for part in act.data.split()),
            "Cwd": draw.choice(("/", "/app", "/var/www")),
            "TTY": draw.choice(("pts0", "none")),
            "ExecEvent": ExecEvent(ExecID=str(draw.getrandbits(60)), ExecutableName=act.process.rpartition("/")[2]),
            "NodeID": self._id[:16],
            "ProcessHash": _digest(act.process),
            "ParentHash": _digest(act.parent),
            "ResourceHash": _digest(act.resource),
            "HashAlgo": "SHA256",
            "UserName": draw.choice(("root", "www-data", "postgres", "app")),
        }

    def _pod_name(self, pod: Pod) -> str:
        return f"{pod.owner}-{self._hex(9)}-{self._hex(5)}"

    def _hex(self, digits: int) -> str:
        return f"{self._random.getrandbits(4 * digits):0{digits}x}"


def _digest(text: str) -> str:
    """What stands for the hash of a file: the hash of its name."""
    return hashlib.sha256(text.encode()).hexdigest()


def frame(event: Any) -> bytes:
    """An event behind its 5-byte gRPC prefix; the same event gives the same bytes in every process."""
    body = event.SerializeToString(deterministic=True)
    return _FRAME_PREFIX.pack(0, len(body)) + bytes(body)


def messages(frames: bytes) -> Iterator[bytes]:
    """The serialized events of back-to-back frames."""
    at = 0
    while at < len(frames):
        _, size = _FRAME_PREFIX.unpack_from(frames, at)
        at += _FRAME_PREFIX.size
        yield frames[at : at + size]
        at += size


def read_events(path: Path) -> list[tuple[int, Any]]:
    """Events from a file: one JSON object a line, with the field names of the protobuf messages.

    The key "feed" (messages, alerts or logs) says which kind a line is; without it, an object with
    PolicyName is an alert, one with Level a message, any other a log.

    Raises:
        ValueError: a line is not such an object; the text names file and line.
        OSError: the file cannot be read.
    """
    with path.open(encoding="utf-8") as lines:
        events = [_read_event(line, f"{path}:{number}") for number, line in _numbered(lines)]
    if not events:
        raise ValueError(f"{path} holds no events: accepted is one JSON object a line")
    return events


def _numbered(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    return ((number, line) for number, line in enumerate(lines, 1) if line.strip())


def _read_event(line: str, where: str) -> tuple[int, Any]:
    from google.protobuf.json_format import ParseDict, ParseError

    try:
        values = json.loads(line)
        if not isinstance(values, dict):
            raise ValueError("accepted is a JSON object")
        name = values.pop("feed", None) or _guess(values)
        if name not in feeds.BY_NAME:
            raise ValueError(f"feed {name!r} is unknown: accepted are {', '.join(feeds.NAMES)}")
        feed = feeds.BY_NAME[name]
        return feed, ParseDict(values, CLASSES[feed]())
    except (ValueError, ParseError) as error:
        raise ValueError(f"{where}: {error}") from None


def _guess(values: dict[str, Any]) -> str:
    if "PolicyName" in values:
        return "alerts"
    return "messages" if "Level" in values else "logs"
