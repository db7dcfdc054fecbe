"""What this process is reached by: its addresses, its host name, the names of its service."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from pathlib import Path

SERVICE = "kubearmor"
DEFAULT_NAMESPACE = "kubearmor"
NAMESPACE_FILE = "var/run/secrets/kubernetes.io/serviceaccount/namespace"  # in every pod with a service account

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*")
# Of the ranges for documentation (RFC 5737, RFC 3849): nobody is there, and nothing is sent.
_ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


def own_names(environment: Mapping[str, str], namespace: str, root: Path = Path("/")) -> tuple[str, ...]:
    """Addresses and DNS names of this relay, each once.

    Args:
        environment: POD_NAMESPACE of it is looked at.
        namespace: used where neither that nor the service account tells one; empty for KubeArmor's own.
        root: where the file system begins.
    """
    own = _namespace(environment, root) or namespace or DEFAULT_NAMESPACE
    host = socket.gethostname()
    names = [
        *_addresses(),
        *([host] if _HOST_NAME.fullmatch(host) else []),
        SERVICE,
        f"{SERVICE}.{own}",
        f"{SERVICE}.{own}.svc",
        f"{SERVICE}.{own}.svc.cluster.local",
        "localhost",
        "127.0.0.1",
        "::1",
    ]
    return tuple(dict.fromkeys(names))


def _namespace(environment: Mapping[str, str], root: Path) -> str:
    """The pod's own namespace; empty where this is no pod."""
    try:
        in_file = (root / NAMESPACE_FILE).read_text(encoding="utf-8")
    except (OSError, ValueError):
        in_file = ""
    for told in (environment.get("POD_NAMESPACE", ""), in_file):
        if _LABEL.fullmatch(told.strip()):
            return told.strip()
    return ""


def _addresses() -> list[str]:
    """What this machine, or pod, calls itself towards others: an address of each family that it has."""
    found = []
    for family, elsewhere in _ELSEWHERE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((elsewhere, 9))  # only a route and a source address are chosen
                found.append(str(probe.getsockname()[0]))
        except OSError:
            pass  # no such family, or no route
    return found
