"""The manifests of deploy/, held against a real API server: it accepts them, and they do what they are for."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from peers.cluster import WAIT, Cluster, Refused

DEPLOY = Path(__file__).parents[2] / "deploy"
GUIDE = DEPLOY.parent / "docs" / "kubernetes.md"
NAMESPACE = "kubearmor"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:kubearmor-relay"
APPS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
RIGHTS = "/apis/rbac.authorization.k8s.io/v1"
# Where the objects of a kind are.
COLLECTIONS = {
    "Service": f"/api/v1/namespaces/{NAMESPACE}/services",
    "ServiceAccount": f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts",
    "ClusterRole": f"{RIGHTS}/clusterroles",
    "ClusterRoleBinding": f"{RIGHTS}/clusterrolebindings",
    "Deployment": APPS,
}
# An unknown or doubled field is an error, not a warning.
STRICT = "fieldManager=test&fieldValidation=Strict"
DRY = f"{STRICT}&dryRun=All"
APPLY = "application/apply-patch+yaml"
STRATEGIC = "application/strategic-merge-patch+json"

Object = dict[str, Any]


def documents(name: str) -> list[Object]:
    return [document for document in yaml.safe_load_all((DEPLOY / name).read_text()) if document]


OBJECTS = {each["kind"]: each for each in documents("relay.yaml")}


def path(manifest: Object) -> str:
    return f"{COLLECTIONS[manifest['kind']]}/{manifest['metadata']['name']}"


def go_relay() -> Object:
    """The deployment that is there before, as far as it matters: the Go relay's names and labels."""
    labels = {"kubearmor-app": "kubearmor-relay"}
    container = {
        "name": "kubearmor-relay-server",
        "image": "kubearmor/kubearmor-relay-server:latest",
        "args": ["-tlsEnabled=false", "-tlsCertPath=/var/lib/kubearmor/tls", "-tlsCertProvider=external"],
        "env": [{"name": "ENABLE_STDOUT_LOGS", "value": "false"}],
        "ports": [{"containerPort": 32767}],
    }
    template = {
        "metadata": {"labels": labels, "annotations": {"kubearmor-policy": "audited"}},
        "spec": {"serviceAccountName": "kubearmor-relay", "containers": [container]},
    }
    metadata = {"name": "kubearmor-relay", "namespace": NAMESPACE, "labels": labels}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


@pytest.fixture
def empty(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, and at the end nothing of the manifest left in it."""
    yield cluster
    for manifest in OBJECTS.values():
        try:
            cluster.call("DELETE", path(manifest))
        except Refused as error:
            if error.status != 404:
                raise


@pytest.mark.parametrize("kind", OBJECTS)
def test_the_api_server_accepts_every_object(cluster: Cluster, kind: str) -> None:
    manifest = OBJECTS[kind]
    accepted = cluster.call("PATCH", f"{path(manifest)}?{DRY}", manifest, APPLY)
    assert (accepted["kind"], accepted["metadata"]["name"]) == (kind, manifest["metadata"]["name"])
    with pytest.raises(Refused, match="404"):  # a dry run, indeed
        cluster.call("GET", path(manifest))


def test_it_takes_the_place_of_the_go_relay_without_a_word(empty: Cluster) -> None:
    # The selector of a deployment can never be changed: any other would have to be deleted first.
    empty.call("POST", f"{APPS}?{STRICT}", go_relay())
    ours = OBJECTS["Deployment"]
    made = empty.call("PATCH", f"{path(ours)}?{STRICT}&force=true", ours, APPLY)
    (container,) = made["spec"]["template"]["spec"]["containers"]
    assert container["image"] == ours["spec"]["template"]["spec"]["containers"][0]["image"]
    # What was set on it by others stays.
    assert container["args"] == go_relay()["spec"]["template"]["spec"]["containers"][0]["args"]


def test_the_image_alone_can_be_changed(empty: Cluster) -> None:
    before = empty.call("POST", f"{APPS}?{STRICT}", go_relay())
    image = OBJECTS["Deployment"]["spec"]["template"]["spec"]["containers"][0]["image"]
    # What `kubectl set image` sends.
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "kubearmor-relay-server", "image": image}]}}}}
    after = empty.call("PATCH", f"{path(before)}?{DRY}", patch, STRATEGIC)
    before["spec"]["template"]["spec"]["containers"][0]["image"] = image
    assert after["spec"] == before["spec"]


def test_the_patch_for_tls_mounts_certificates_and_takes_grpc_from_the_probes(empty: Cluster) -> None:
    ours = OBJECTS["Deployment"]
    empty.call("POST", f"{APPS}?{STRICT}", ours)
    (patch,) = documents("tls.patch.yaml")
    # What `kubectl patch` sends.
    spec = empty.call("PATCH", f"{path(ours)}?{DRY}", patch, STRATEGIC)["spec"]["template"]["spec"]
    (container,), (volume,) = spec["containers"], spec["volumes"]
    assert container["volumeMounts"][0]["name"] == volume["name"]
    assert container["args"][0] == "-tlsEnabled=true"
    assert container["image"] == ours["spec"]["template"]["spec"]["containers"][0]["image"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["tcpSocket"] == {"port": 32767}
        assert "grpc" not in container[probe]


def test_the_example_of_a_patch_adds_to_the_container(empty: Cluster) -> None:
    ours = OBJECTS["Deployment"]
    before = empty.call("POST", f"{APPS}?{STRICT}", ours)
    (patch,) = documents("settings.patch.yaml")
    after = empty.call("PATCH", f"{path(ours)}?{DRY}", patch, STRATEGIC)
    (given,) = patch["spec"]["template"]["spec"]["containers"]
    before["spec"]["template"]["spec"]["containers"][0] |= {"args": given["args"], "env": given["env"]}
    assert after["spec"] == before["spec"]


def test_the_documented_patch_lets_the_role_of_the_go_relay_watch(empty: Cluster) -> None:
    rule = {"apiGroups": [""], "resources": ["pods", "services"], "verbs": ["get", "list"]}
    role = {**OBJECTS["ClusterRole"], "rules": [rule]}
    empty.call("POST", f"{COLLECTIONS['ClusterRole']}?{STRICT}", role)
    documented = re.search(r"kubectl patch clusterrole (\S+) --type=json -p '(.*)'", GUIDE.read_text(encoding="utf-8"))
    assert documented
    assert documented[1] == role["metadata"]["name"]
    patch = json.loads(documented[2])
    after = empty.call("PATCH", f"{path(role)}?{STRICT}", patch, "application/json-patch+json")
    assert after["rules"] == OBJECTS["ClusterRole"]["rules"]


def may(cluster: Cluster, verb: str, resource: str) -> bool:
    """Whether the account of the manifest may do this in all namespaces."""
    name, _, part = resource.partition("/")
    attributes = {"verb": verb, "resource": name, "subresource": part}
    review = {"spec": {"user": ACCOUNT, "resourceAttributes": attributes}}
    answer = cluster.call("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return bool(answer["status"]["allowed"])


def test_the_account_may_read_pods_and_services_of_all_namespaces_and_nothing_else(empty: Cluster) -> None:
    assert not may(empty, "list", "pods")
    for kind in ("ClusterRole", "ClusterRoleBinding"):
        empty.call("POST", f"{COLLECTIONS[kind]}?{STRICT}", OBJECTS[kind])
    end = time.monotonic() + WAIT
    while not may(empty, "list", "pods"):
        assert time.monotonic() < end
        time.sleep(0.05)  # nothing tells when the authorizer has heard of the role
    refused = [
        ("delete", "pods"),
        ("create", "pods/exec"),
        ("patch", "services"),
        ("list", "secrets"),
        ("list", "nodes"),
    ]
    granted = [(verb, resource) for verb in ("get", "list", "watch") for resource in ("pods", "services")]
    assert [asked for asked in granted + refused if may(empty, *asked)] == granted


def test_the_pod_meets_the_strictest_of_the_pod_security_standards(cluster: Cluster) -> None:
    template = OBJECTS["Deployment"]["spec"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], "name": "relay", "namespace": "web"},
        "spec": template["spec"],
    }
    label = "pod-security.kubernetes.io/enforce"
    merge = "application/merge-patch+json"
    cluster.call("PATCH", "/api/v1/namespaces/web", {"metadata": {"labels": {label: "restricted"}}}, merge)
    try:
        cluster.call("POST", f"/api/v1/namespaces/web/pods?{DRY}", pod)
        # Which is enforced: without its security context it is refused.
        del pod["spec"]["containers"][0]["securityContext"]
        with pytest.raises(Refused, match="violates PodSecurity"):
            cluster.call("POST", f"/api/v1/namespaces/web/pods?{DRY}", pod)
    finally:
        cluster.call("PATCH", "/api/v1/namespaces/web", {"metadata": {"labels": {label: None}}}, merge)
