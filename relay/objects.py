"""Pods and services, as far as the relay looks at them.

Only these fields are decoded; the rest of an object is passed over. Source: the Kubernetes API,
core/v1.
"""

from __future__ import annotations

from msgspec import Raw, Struct, field
from msgspec.json import Decoder


class ObjectMeta(Struct, gc=False, rename="camel"):
    """Of every object. Times are as in "2026-11-23T18:00:00Z"."""

    name: str = ""
    namespace: str = ""
    creation_timestamp: str | None = None
    resource_version: str = ""

    @property
    def key(self) -> str:
        """namespace/name: one object of a kind at a time."""
        return f"{self.namespace}/{self.name}"


class PodIP(Struct, gc=False):
    """One of a pod's addresses."""

    ip: str = ""


class PodSpec(Struct, gc=False, rename="camel"):
    """What a pod was asked to be."""

    node_name: str = ""
    host_network: bool = False


class PodStatus(Struct, rename={"pod_ip": "podIP", "pod_ips": "podIPs"}):
    """What became of it; `pod_ip` is the first of `pod_ips`."""

    phase: str = ""
    pod_ip: str = ""
    pod_ips: list[PodIP] | None = None


class Pod(Struct):
    """A pod."""

    metadata: ObjectMeta
    spec: PodSpec = field(default_factory=PodSpec)
    status: PodStatus = field(default_factory=PodStatus)

    @property
    def finished(self) -> bool:
        """Whether it has ended for good; its addresses may be another pod's by now."""
        return self.status.phase in ("Succeeded", "Failed")

    @property
    def addresses(self) -> list[str]:
        """Its addresses, the first one first; none of a finished pod."""
        if self.finished:
            return []
        listed = [self.status.pod_ip, *(address.ip for address in self.status.pod_ips or ())]
        return [address for address in dict.fromkeys(listed) if address]


class ServiceSpec(Struct, rename={"cluster_ip": "clusterIP", "cluster_ips": "clusterIPs"}):
    """What a service was asked to be."""

    cluster_ip: str = ""
    cluster_ips: list[str] | None = None


class Service(Struct):
    """A service."""

    metadata: ObjectMeta
    spec: ServiceSpec = field(default_factory=ServiceSpec)

    @property
    def addresses(self) -> list[str]:
        """Its cluster addresses; none of a headless one."""
        listed = [self.spec.cluster_ip, *(self.spec.cluster_ips or ())]
        return [address for address in dict.fromkeys(listed) if address not in ("", "None")]


class ListMeta(Struct, rename={"resource_version": "resourceVersion", "continuation": "continue"}):
    """Of a list: the version it shows, and where its next page begins; "" on the last."""

    resource_version: str = ""
    continuation: str = ""


class Page(Struct):
    """A page of a list; its objects are decoded one by one."""

    metadata: ListMeta
    items: list[Raw] | None = None


class WatchEvent(Struct):
    """A line of a watch: ADDED, MODIFIED, DELETED or BOOKMARK with an object, ERROR with a status."""

    type: str
    object: Raw


class Status(Struct):
    """The API server's word on a failure."""

    code: int = 0
    reason: str = ""
    message: str | None = None


class AnyObject(Struct):
    """An object of which only the metadata matter."""

    metadata: ObjectMeta


page = Decoder(Page).decode
watch_event = Decoder(WatchEvent).decode
status = Decoder(Status).decode
any_object = Decoder(AnyObject).decode
