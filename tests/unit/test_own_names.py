"""relay.own_names: the pod's addresses, its host name, and the names of its service."""

import socket
from pathlib import Path
from typing import Any

import pytest

from relay.own_names import NAMESPACE_FILE, own_names

LOCAL = ("localhost", "127.0.0.1", "::1")


def service(namespace: str) -> tuple[str, ...]:
    return (
        "kubearmor",
        f"kubearmor.{namespace}",
        f"kubearmor.{namespace}.svc",
        f"kubearmor.{namespace}.svc.cluster.local",
    )


class Routed:
    """A socket whose source address the test chooses."""

    sources: dict[int, str] = {}  # noqa: RUF012 - the tests set it

    def __init__(self, family: int, _kind: int) -> None:
        self._family = family

    def __enter__(self) -> "Routed":
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def connect(self, where: tuple[str, int]) -> None:
        if self._family not in self.sources:
            raise OSError("no route")

    def getsockname(self) -> tuple[str, int]:
        return self.sources[self._family], 1


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", Routed)
    monkeypatch.setattr(socket, "gethostname", lambda: "kubearmor-relay-7d9f")
    monkeypatch.setattr(Routed, "sources", {socket.AF_INET: "10.1.2.3", socket.AF_INET6: "fd00::3"})


def put_namespace(root: Path, text: str) -> None:
    file = root / NAMESPACE_FILE
    file.parent.mkdir(parents=True)
    file.write_text(text)


def test_a_pod_has_its_addresses_host_name_and_service(tmp_path: Path) -> None:
    put_namespace(tmp_path, "security")
    names = own_names({}, "", tmp_path)
    assert names == ("10.1.2.3", "fd00::3", "kubearmor-relay-7d9f", *service("security"), *LOCAL)


@pytest.mark.parametrize(
    ("environment", "in_file", "setting", "namespace"),
    [
        ({"POD_NAMESPACE": "a"}, "b", "c", "a"),
        ({"POD_NAMESPACE": ""}, "b\n", "c", "b"),
        ({}, "", "c", "c"),
        ({}, "", "", "kubearmor"),
        ({"POD_NAMESPACE": "Not a label"}, "nor/this", "", "kubearmor"),
    ],
)
def test_the_namespace_is_the_pods_before_the_one_of_the_nodes(
    tmp_path: Path, environment: dict[str, str], in_file: str, setting: str, namespace: str
) -> None:
    put_namespace(tmp_path, in_file)
    assert f"kubearmor.{namespace}" in own_names(environment, setting, tmp_path)


def test_without_a_network_there_are_names_for_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Routed, "sources", {})
    assert own_names({}, "", tmp_path) == ("kubearmor-relay-7d9f", *service("kubearmor"), *LOCAL)


@pytest.mark.parametrize("host", ["", "bad name", "ü", "a" * 64, ".x"])
def test_a_host_name_that_no_certificate_can_hold_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    assert own_names({}, "", tmp_path) == ("10.1.2.3", "fd00::3", *service("kubearmor"), *LOCAL)


def test_each_name_is_there_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "localhost")
    monkeypatch.setattr(Routed, "sources", {socket.AF_INET: "127.0.0.1"})
    names = own_names({}, "", tmp_path)
    assert sorted(names) == sorted(set(names))


def test_this_machine_has_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert set(LOCAL) <= set(own_names({}, "", tmp_path))
