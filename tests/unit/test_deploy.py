"""The manifests and the container image, held against what takes the place of the Go relay needs.

The names and numbers are those of the Go relay's deployment: whoever edits or looks for it finds ours.
"""

import itertools
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from relay import __version__, app
from relay.certificates import ACCEPTED
from relay.services import HEALTH_NAMES
from relay.settings import DEFAULT_PORT, Settings, flag_layers, load
from relay.sink_settings import SWITCHES

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
NAMESPACE = "kubearmor"
LABELS = {"kubearmor-app": "kubearmor-relay"}
IMAGE = "kubearmor-relay-server"
ENTRY = "/KubeArmor/kubearmor-relay-server"

Object = dict[str, Any]


def documents(name: str) -> list[Object]:
    return [document for document in yaml.safe_load_all((DEPLOY / name).read_text()) if document]


@pytest.fixture(scope="module")
def objects() -> dict[str, Object]:
    """The objects of the manifest by kind; there is one of each."""
    listed = documents("relay.yaml")
    by_kind = {each["kind"]: each for each in listed}
    assert len(by_kind) == len(listed)
    return by_kind


@pytest.fixture(scope="module")
def pod(objects: dict[str, Object]) -> Object:
    spec: Object = objects["Deployment"]["spec"]["template"]["spec"]
    return spec


@pytest.fixture(scope="module")
def container(pod: Object) -> Object:
    first: Object = pod["containers"][0]
    return first


# --- the manifest ---------------------------------------------------------------------------


def test_every_object_has_its_place_and_name(objects: dict[str, Object]) -> None:
    names = {kind: (each["metadata"].get("namespace"), each["metadata"]["name"]) for kind, each in objects.items()}
    assert names == {
        "Service": (NAMESPACE, "kubearmor"),
        "ServiceAccount": (NAMESPACE, "kubearmor-relay"),
        "ClusterRole": (None, "kubearmor-relay-clusterrole"),
        "ClusterRoleBinding": (None, "kubearmor-relay-clusterrolebinding"),
        "Deployment": (NAMESPACE, "kubearmor-relay"),
    }


def test_the_service_leads_to_the_relay_at_its_port(objects: dict[str, Object]) -> None:
    spec = objects["Service"]["spec"]
    (port,) = spec["ports"]
    assert (port["port"], port["targetPort"], port["protocol"]) == (DEFAULT_PORT, DEFAULT_PORT, "TCP")
    assert spec["selector"] == LABELS


def test_the_role_allows_to_get_list_and_watch_pods_and_services_and_nothing_else(objects: dict[str, Object]) -> None:
    (rule,) = objects["ClusterRole"]["rules"]
    assert rule == {"apiGroups": [""], "resources": ["pods", "services"], "verbs": ["get", "list", "watch"]}


def test_the_binding_gives_the_role_to_the_account_that_the_pod_runs_as(
    objects: dict[str, Object], pod: Object
) -> None:
    binding, account = objects["ClusterRoleBinding"], objects["ServiceAccount"]["metadata"]
    assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) == (
        "ClusterRole",
        objects["ClusterRole"]["metadata"]["name"],
    )
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}
    ]
    assert pod["serviceAccountName"] == account["name"]


def test_the_deployment_is_found_by_its_labels(objects: dict[str, Object]) -> None:
    deployment = objects["Deployment"]
    template = deployment["spec"]["template"]["metadata"]
    assert deployment["metadata"]["labels"] == deployment["spec"]["selector"]["matchLabels"] == LABELS
    assert template["labels"] == LABELS
    assert template["annotations"] == {"kubearmor-policy": "audited"}
    assert deployment["spec"]["replicas"] == 1


def test_the_container_has_the_stock_name_port_and_resources(pod: Object, container: Object) -> None:
    assert len(pod["containers"]) == 1
    assert container["name"] == "kubearmor-relay-server"
    assert [port["containerPort"] for port in container["ports"]] == [DEFAULT_PORT]
    assert container["resources"] == {
        "requests": {"cpu": "250m", "memory": "64Mi"},
        "limits": {"cpu": "500m", "memory": "128Mi"},
    }


def test_the_container_has_no_more_rights_than_it_needs(pod: Object, container: Object) -> None:
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "runAsGroup": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    for shared in ("hostNetwork", "hostPID", "hostIPC", "volumes"):
        assert shared not in pod


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_probes_ask_for_what_the_relay_answers(container: Object, probe: str) -> None:
    asked = container[probe]["grpc"]
    assert asked["port"] == DEFAULT_PORT
    assert asked.get("service", "") in HEALTH_NAMES


def test_a_pod_may_take_the_time_that_a_graceful_end_needs(pod: Object) -> None:
    assert pod["terminationGracePeriodSeconds"] > app.SHUTDOWN_SECONDS + 2 * app.SHUTDOWN_MARGIN


def test_variables_of_services_stay_out(pod: Object) -> None:
    # A service named "relay" would set RELAY_PORT and more.
    assert pod["enableServiceLinks"] is False


def test_the_image_is_the_one_that_is_built_here(container: Object) -> None:
    assert container["image"] == f"{IMAGE}:{__version__}"
    (kustomization,) = documents("kustomization.yaml")
    assert kustomization["resources"] == ["relay.yaml"]
    assert kustomization["images"] == [{"name": IMAGE, "newTag": __version__}]


def test_the_example_of_a_patch_fits_the_deployment_and_the_settings(objects: dict[str, Object]) -> None:
    (patch,) = documents("settings.patch.yaml")
    deployment = objects["Deployment"]
    for key in ("apiVersion", "kind"):
        assert patch[key] == deployment[key]
    for key in ("name", "namespace"):
        assert patch["metadata"][key] == deployment["metadata"][key]
    (container,) = patch["spec"]["template"]["spec"]["containers"]
    assert container["name"] == deployment["spec"]["template"]["spec"]["containers"][0]["name"]
    settings = load(Settings, flag_layers(container["args"], Settings))
    assert settings.port == DEFAULT_PORT
    # Variables are texts: `value: false` would be refused.
    assert {type(variable["value"]) for variable in container["env"]} == {str}
    assert {variable["name"] for variable in container["env"]} <= {switch.name for switch in SWITCHES}


def merged(base: Any, patch: Any) -> Any:
    """What a strategic merge makes of both, as far as the patches here need it: lists of what has names by name."""
    if isinstance(base, dict) and isinstance(patch, dict):
        both = {key: merged(base.get(key), value) for key, value in patch.items()}
        return {key: value for key, value in (base | both).items() if value is not None}
    if isinstance(base, list) and isinstance(patch, list) and patch and isinstance(patch[0], dict):
        by_name = {each["name"]: each for each in base}
        return list((by_name | {each["name"]: merged(by_name.get(each["name"]), each) for each in patch}).values())
    return patch


def test_the_patch_for_tls_gives_the_relay_the_operators_certificates(objects: dict[str, Object]) -> None:
    (patch,) = documents("tls.patch.yaml")
    pod = merged(objects["Deployment"], patch)["spec"]["template"]["spec"]
    (container,), (volume,) = pod["containers"], pod["volumes"]
    settings = load(Settings, flag_layers(container["args"], Settings))
    settings.check()
    assert (settings.is_tls_to_subscribers, settings.is_tls_to_nodes) == (True, True)
    (mount,) = container["volumeMounts"]
    assert (mount["name"], mount["mountPath"]) == (volume["name"], settings.tls_cert_path)
    files = {
        item["path"]: (source["secret"]["name"], item["key"])
        for source in volume["projected"]["sources"]
        for item in source["secret"]["items"]
    }
    assert files == {
        "ca.crt": ("kubearmor-relay-server-certs", "ca.crt"),
        "server.crt": ("kubearmor-relay-server-certs", "tls.crt"),
        "server.key": ("kubearmor-relay-server-certs", "tls.key"),
        "client.crt": ("kubearmor-client-certs", "tls.crt"),
        "client.key": ("kubearmor-client-certs", "tls.key"),
    }
    assert set(files) == set(ACCEPTED)
    # The pod's user is not root, and the files are.
    assert volume["projected"]["defaultMode"] == 0o644
    assert container["resources"]["limits"]["memory"] == "128Mi"


def test_with_tls_no_probe_speaks_grpc(objects: dict[str, Object]) -> None:
    """The kubelet's gRPC probes have no TLS: with them the pod would be killed again and again."""
    (patch,) = documents("tls.patch.yaml")
    (container,) = merged(objects["Deployment"], patch)["spec"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[probe]
        assert asked["tcpSocket"] == {"port": DEFAULT_PORT}
        assert "grpc" not in asked
        assert asked["periodSeconds"] >= 1


# --- the image ------------------------------------------------------------------------------


class Instruction(NamedTuple):
    name: str
    text: str


def stages() -> list[list[Instruction]]:
    """The Dockerfile's instructions, a list for each FROM (and one for what precedes the first)."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not re.match(r"\s*(#|$)", line)]
    found: list[list[Instruction]] = [[]]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, text = line.partition(" ")
        if name == "FROM":
            found.append([])
        found[-1].append(Instruction(name, " ".join(text.split())))
    return found


def commands() -> list[str]:
    """Every command of the Dockerfile's RUN instructions."""
    texts = [each.text for each in itertools.chain(*stages()) if each.name == "RUN"]
    return [command.strip() for text in texts for command in text.split("&&")]


def last(name: str) -> str:
    """The text of an instruction of the last stage, which is the image."""
    (text,) = (each.text for each in stages()[-1] if each.name == name)
    return text


def test_the_image_starts_the_relay_itself_as_user_1000() -> None:
    # A list: no shell stands between the relay and the signals that are sent to it.
    assert json.loads(last("ENTRYPOINT")) == [ENTRY]
    assert last("USER") == "1000:1000"
    assert last("EXPOSE") == str(DEFAULT_PORT)
    assert any(f"ln -s venv/bin/{Path(ENTRY).name} {ENTRY}" in command for command in commands())


def test_the_base_of_the_image_can_be_chosen() -> None:
    assert stages()[0] == [Instruction("ARG", "BASE=debian:bookworm-slim")]
    assert [stage[0].text for stage in stages()[1:]] == ["${BASE} AS python", "python AS build", "python"]


def test_the_image_says_which_version_it_is() -> None:
    assert last("ARG") == f"VERSION={__version__}"
    assert 'org.opencontainers.image.version="${VERSION}"' in last("LABEL")
    assert 'org.opencontainers.image.licenses="Apache-2.0"' in last("LABEL")


def test_no_python_package_is_installed_that_is_not_locked() -> None:
    installs = [command for command in commands() if re.search(r"pip\S* (.* )?(install|wheel) ", command)]
    assert len(installs) == 4
    for command in installs:
        # From a lock file with hashes, or from no index at all.
        assert "--require-hashes -r requirements" in command or "--no-index" in command, command
    for lock in ("requirements.lock", "requirements-dev.lock"):
        requirements = re.findall(r"^([a-z][^ \n]*) \\$", (ROOT / lock).read_text(), re.MULTILINE)
        assert requirements
        assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][^ ]*", each) for each in requirements)


def test_the_compiler_stays_out_of_the_image() -> None:
    by_stage = [[each.text for each in stage if "apt-get" in each.text] for stage in stages()]
    assert [len(texts) for texts in by_stage] == [0, 1, 1, 0]
    assert not re.search(r"\b(gcc|binutils|[a-z0-9-]+-dev|python3-(pip|venv))\b", by_stage[1][0])


def test_the_image_has_the_licence() -> None:
    assert any(re.search(r"\bcp LICENSE /KubeArmor/", command) for command in commands())
    assert "--from=build /KubeArmor /KubeArmor" in last("COPY")


def test_everything_that_is_copied_is_let_into_the_build() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    assert "*" in ignored
    copied = {
        source.rstrip("/")
        for each in itertools.chain(*stages())
        if each.name == "COPY" and "--from" not in each.text
        for source in each.text.split()[:-1]
    }
    assert {f"!{source}" for source in copied} == {line for line in ignored if line.startswith("!")}
    assert all((ROOT / source).exists() for source in copied)
