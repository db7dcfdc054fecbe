"""A cluster in which everything changes all the time, and what it must come to."""

import random

from .cluster import LABELS, Cluster, pods
from .door import Door

NAMES = [f"pod-{number}" for number in range(8)]


class Churn:
    """Pods that come, move, finish, lose and find their label and go, at random, with the way to the API server broken.

    Args:
        addresses: that the pods share: fewer than pods, so that several claim one.
        draw: where chance comes from.
    """

    def __init__(self, cluster: Cluster, door: Door, addresses: list[str], draw: random.Random) -> None:
        self._cluster = cluster
        self._door = door
        self._addresses = addresses
        self._draw = draw
        self._pods: dict[str, dict[str, str]] = {}

    def run(self, steps: int) -> None:
        """So many changes; the door is open in the end."""
        for _ in range(steps):
            name = self._draw.choice(NAMES)
            pod = self._pods.get(name)
            if pod is None:
                self._create(name)
            else:
                self._draw.choice((self._move, self._move, self._finish, self._label, self._delete))(name, pod)
            chance = self._draw.random()
            if chance < 0.15:
                self._door.shut()
            elif chance < 0.3:
                self._door.drop()
            elif chance < 0.6:
                self._door.open()
        self._door.open()

    def nodes(self) -> list[str]:
        """The addresses of the pods that are nodes."""
        found = {
            pod["address"]
            for pod in self._pods.values()
            if pod["address"] and pod["phase"] == "Running" and pod["label"] == "kubearmor"
        }
        return sorted(found)

    def _create(self, name: str) -> None:
        address = self._draw.choice(["", *self._addresses])
        self._pods[name] = {"address": address, "phase": "Running", "label": "kubearmor"}
        addresses = (address,) if address else ()
        self._cluster.pod(name, *addresses, labels=LABELS, host_network=self._draw.random() < 0.5)

    def _move(self, name: str, pod: dict[str, str]) -> None:
        pod["address"] = self._draw.choice(self._addresses)
        self._status(name, pod)

    def _finish(self, name: str, pod: dict[str, str]) -> None:
        pod["phase"] = self._draw.choice(("Succeeded", "Failed"))
        self._status(name, pod)

    def _label(self, name: str, pod: dict[str, str]) -> None:
        pod["label"] = "other" if pod["label"] == "kubearmor" else "kubearmor"
        change = {"metadata": {"labels": {"kubearmor-app": pod["label"]}}}
        self._cluster.call("PATCH", f"{pods('default')}/{name}", change, "application/merge-patch+json")

    def _delete(self, name: str, _pod: dict[str, str]) -> None:
        del self._pods[name]
        self._cluster.delete_pod(name)

    def _status(self, name: str, pod: dict[str, str]) -> None:
        addresses = (pod["address"],) if pod["address"] else ()
        self._cluster.set_status(name, *addresses, phase=pod["phase"])
