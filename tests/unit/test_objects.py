"""relay.objects: what is read of pods and services, and what is read of objects that lack it."""

import json
from typing import Any

import msgspec
import pytest
from msgspec.json import Decoder

from relay import objects
from relay.objects import Pod, Service

META: dict[str, Any] = {"name": "web", "namespace": "default"}


def pod(**parts: Any) -> Pod:
    return Decoder(Pod).decode(json.dumps({"metadata": META, **parts}))


def service(**spec: Any) -> Service:
    return Decoder(Service).decode(json.dumps({"metadata": META, "spec": spec}))


def test_a_pod_is_read_as_far_as_it_is_looked_at() -> None:
    read = pod(
        kind="Pod",
        metadata={**META, "creationTimestamp": "2026-11-23T18:00:00Z", "resourceVersion": "7", "labels": {"a": "b"}},
        spec={"nodeName": "one", "hostNetwork": True, "containers": [{"name": "c"}]},
        status={"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
    )
    assert read.metadata.key == "default/web"
    assert (read.metadata.creation_timestamp, read.metadata.resource_version) == ("2026-11-23T18:00:00Z", "7")
    assert (read.spec.node_name, read.spec.host_network) == ("one", True)
    assert read.addresses == ["10.0.0.1", "fd00::1"]


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"spec": {}, "status": {}},
        {"status": {"podIPs": None}},
        {"status": {"podIPs": [{}]}},
        {"status": {"podIP": "", "podIPs": [{"ip": ""}]}},
        {"metadata": {**META, "labels": None, "creationTimestamp": None}},
    ],
)
def test_a_pod_may_have_no_address_yet(parts: dict[str, Any]) -> None:
    read = pod(**parts)
    assert read.addresses == []
    assert not read.finished


@pytest.mark.parametrize(
    ("ip", "ips", "addresses"),
    [
        ("10.0.0.1", None, ["10.0.0.1"]),
        ("", ["10.0.0.1"], ["10.0.0.1"]),
        ("10.0.0.1", ["10.0.0.1", "fd00::1", "fd00::1"], ["10.0.0.1", "fd00::1"]),
        ("fd00::1", ["10.0.0.1"], ["fd00::1", "10.0.0.1"]),
    ],
)
def test_the_first_address_comes_first_and_each_once(ip: str, ips: list[str] | None, addresses: list[str]) -> None:
    listed = None if ips is None else [{"ip": each} for each in ips]
    assert pod(status={"podIP": ip, "podIPs": listed}).addresses == addresses


@pytest.mark.parametrize(
    ("phase", "finished"),
    [("Pending", False), ("Running", False), ("Unknown", False), ("Succeeded", True), ("Failed", True)],
)
def test_a_finished_pod_has_no_addresses(phase: str, finished: bool) -> None:
    read = pod(status={"phase": phase, "podIP": "10.0.0.1"})
    assert read.finished is finished
    assert read.addresses == ([] if finished else ["10.0.0.1"])


@pytest.mark.parametrize(
    ("spec", "addresses"),
    [
        ({"clusterIP": "10.96.0.1"}, ["10.96.0.1"]),
        ({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"]}, ["10.96.0.1", "fd00::1"]),
        ({"clusterIP": "None", "clusterIPs": ["None"]}, []),
        ({"clusterIP": "", "clusterIPs": None, "type": "ExternalName"}, []),
        ({}, []),
    ],
)
def test_a_service_has_its_cluster_addresses(spec: dict[str, Any], addresses: list[str]) -> None:
    assert service(**spec).addresses == addresses


@pytest.mark.parametrize(
    "page", [{"metadata": {}}, {"metadata": {"resourceVersion": "7"}, "items": None}, {"metadata": {}, "items": []}]
)
def test_a_page_may_be_empty(page: dict[str, Any]) -> None:
    assert not objects.page(json.dumps(page).encode()).items


@pytest.mark.parametrize("text", [b"", b"{", b"<html>", b"[]", b"null", b'{"items": {}}'])
def test_what_is_something_else_is_refused(text: bytes) -> None:
    for decode in (objects.page, objects.watch_event, objects.any_object, Decoder(Pod).decode):
        with pytest.raises(msgspec.MsgspecError):
            decode(text)
