"""The container image that `make image` has built: what is in it, and the relay at work in a container of it.

IMAGE names the image and ENGINE what runs it; `make image` sets both. Without them nothing here runs, because
an image takes a container engine, a base image and a package index, which not every machine has.
"""

import itertools
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from peers.certificates import write_folder
from peers.client import Subscriber, channel
from peers.cluster import BINARY, Cluster
from peers.command import HOST, WAIT, Command, free_port
from peers.node import Node
from peers.trust import Trust, trust

from relay import __version__, feeds

IMAGE = os.environ.get("IMAGE", "")
ENGINE = os.environ.get("ENGINE", "")
ENTRY = "/KubeArmor/kubearmor-relay-server"
PYTHON = "/KubeArmor/venv/bin/python3"
CERTIFICATES = "/var/lib/kubearmor/tls"  # the default of -tlsCertPath, and what deploy/tls.patch.yaml mounts
# As in deploy/relay.yaml.
CONFINED = ("--network=host", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--memory=128m")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (IMAGE and ENGINE), reason="no image to look at: `make image` builds one and runs this"),
]


def engine(*words: str) -> str:
    """What the container engine says."""
    return subprocess.run([ENGINE, *words], check=True, capture_output=True, text=True, timeout=WAIT).stdout


class Container:
    """Where commands run in the image: a container each, or with buildah one for all."""

    def __init__(self) -> None:
        self._made = engine("from", IMAGE).strip() if ENGINE == "buildah" else ""
        self._names = (f"relay-image-test-{os.getpid()}-{number}" for number in itertools.count())

    def command(self, entry: str, *words: str, files: Mapping[Path, str] | None = None) -> tuple[str, ...]:
        """The command line that runs `entry` there, with some of our files at other paths."""
        mounts = [f"--volume={ours}:{theirs}:ro" for ours, theirs in (files or {}).items()]
        if self._made:
            return (ENGINE, "run", *mounts, self._made, "--", entry, *words)
        name = next(self._names)
        return (ENGINE, "run", "--rm", f"--name={name}", *CONFINED, *mounts, f"--entrypoint={entry}", IMAGE, *words)

    def first_process(self, runner: int) -> int:
        """Whom to signal, given the process id of a `command`: what passes signals on to the container's first process.

        buildah passes none on but kills it, so there it is that process itself: the innermost child.
        """
        if not self._made:
            return runner
        while children := "".join(each.read_text() for each in Path(f"/proc/{runner}/task").glob("*/children")).split():
            runner = int(children[0])
        return runner

    def says(self, entry: str, *words: str) -> str:
        """What a command prints."""
        done = subprocess.run(self.command(entry, *words), check=True, capture_output=True, text=True, timeout=WAIT)
        return done.stdout

    def close(self) -> None:
        if self._made:
            engine("rm", self._made)


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    made = Container()
    yield made
    made.close()


def configuration() -> dict[str, Any]:
    """What the image tells of itself, as of the OCI image specification."""
    if ENGINE == "buildah":
        told = json.loads(engine("inspect", "--type=image", IMAGE))["OCIv1"]["config"]
    else:
        told = json.loads(engine("image", "inspect", IMAGE))[0]["Config"]
    assert isinstance(told, dict)
    return told


def test_it_starts_the_relay_as_user_1000() -> None:
    told = configuration()
    assert told["Entrypoint"] == [ENTRY]
    assert told["User"] == "1000:1000"
    assert told["ExposedPorts"] == {"32767/tcp": {}}
    assert told["Labels"]["org.opencontainers.image.version"] == __version__


def test_it_knows_its_version_and_user(container: Container) -> None:
    assert container.says(ENTRY, "-version") == f"relay {__version__}\n"
    assert container.says(PYTHON, "-c", "import os; print(os.getuid(), os.getgid())") == "1000 1000\n"


def test_its_settings_can_be_asked_for_by_hand(container: Container) -> None:
    told = [line.split(maxsplit=2) for line in container.says("relay", "config", "-tlsEnabled").splitlines()]
    assert ["tlsEnabled", "true", "flag -tlsEnabled"] in told
    assert ["tlsCertPath", CERTIFICATES, "default"] in told


def put_certificates(folder: Path, provider: str, peers: Trust) -> Path:
    """The folder of a relay with that -tlsCertProvider, readable for the image's user."""
    if provider == "self":
        write_folder(folder, peers.ca)
        (folder / "ca.key").write_bytes(peers.ca.key_pem)
    else:
        peers.write(folder)
    folder.chmod(0o755)
    for file in folder.iterdir():
        file.chmod(0o644)
    return folder


@pytest.mark.parametrize("provider", ["", "external", "self"], ids=lambda provider: provider or "in the clear")
def test_events_go_through_it(container: Container, tmp_path: Path, provider: str) -> None:
    port = free_port()
    sent = b"\x1a\x01x"  # its cluster's name
    peers = trust() if provider else None
    files = {put_certificates(tmp_path / "tls", provider, peers): CERTIFICATES} if peers else {}
    tls_flags = ("-tlsEnabled", f"-tlsCertProvider={provider}") if peers else ()
    with Node(credentials=peers.node() if peers else None) as node:
        flags = ("-gRPCPort", str(port), "-kubernetes=off", "-nodes", f"{HOST}:{node.port}", *tls_flags)
        with Command(*flags, program=container.command(ENTRY, files=files)) as relay:
            serving = relay.line("serving")
            assert (serving["nodes"], serving.get("tls_provider", "")) == (1, provider)
            relay.line("node connected")
            with channel(port, peers.channel() if peers else None) as over:
                health = health_pb2_grpc.HealthStub(over)
                answer = health.Check(health_pb2.HealthCheckRequest(service=feeds.SERVICE), timeout=WAIT)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
                subscriber = Subscriber(over, feeds.ALERTS).ready()
                node.send(feeds.ALERTS, sent)
                assert subscriber.take(1) == [sent]
            # What stops a container sends it to the entry point, and no shell must stand there.
            os.kill(container.first_process(relay.pid), signal.SIGTERM)
            assert relay.wait() == 0
            (counters,) = relay.logged("counters")
            assert counters["feeds"]["alerts"]["received"] == 1
            assert counters["process"]["tls"]["handshakes"] == (2 if peers else 0)


@pytest.mark.skipif(not BINARY.exists(), reason="no Kubernetes API server: `make kube-apiserver` builds it")
def test_it_follows_a_cluster(container: Container, cluster: Cluster) -> None:
    cluster.node("kubearmor-a", HOST)
    theirs = "/etc/relay"
    configuration = cluster.kubeconfig("kubeconfig-of-image")
    configuration.write_text(configuration.read_text().replace(str(cluster.ca), f"{theirs}/ca.crt"))
    files = {configuration: f"{theirs}/kubeconfig", cluster.ca: f"{theirs}/ca.crt"}
    for ours in files:
        ours.chmod(0o644)
    with Node() as node:
        flags = ("-gRPCPort", str(free_port()), "-node-port", str(node.port), "-kubeconfig", f"{theirs}/kubeconfig")
        with Command(*flags, program=container.command(ENTRY, files=files)) as relay:
            relay.line("following Kubernetes")
            assert relay.line("node connected")["address"] == HOST
            os.kill(container.first_process(relay.pid), signal.SIGTERM)
            assert relay.wait() == 0


def test_it_has_what_following_kubernetes_needs(container: Container) -> None:
    # The client library is there in part only; what is imported late would be missed late.
    program = (
        "import importlib, pkgutil, relay\n"
        "for module in pkgutil.iter_modules(relay.__path__):\n"
        "    module.name == '__main__' or importlib.import_module(f'relay.{module.name}')\n"
        "from relay import kube_config\n"
        "kube_config.rest_client().RESTClientObject\n"
        "print('all')\n"
    )
    assert container.says(PYTHON, "-c", program) == "all\n"


def test_nothing_has_to_be_compiled_at_a_start(container: Container) -> None:
    program = (
        "import importlib.util, pathlib, sys, sysconfig\n"
        "import relay.app, relay.cluster, relay.issue\n"
        "names = [getattr(module, '__file__', None) or '' for module in sys.modules.values()]\n"
        "files = [pathlib.Path(name) for name in names if name.endswith('.py')]\n"
        "cached = importlib.util.cache_from_source\n"
        "print([str(file) for file in files if not pathlib.Path(cached(file)).exists()])\n"
    )
    assert container.says(PYTHON, "-c", program) == "[]\n"


def test_there_is_no_compiler_in_it(container: Container) -> None:
    program = "import shutil; print([name for name in ('cc', 'gcc', 'ld', 'pip', 'pip3') if shutil.which(name)])"
    assert container.says(PYTHON, "-c", program) == "[]\n"


def test_nothing_of_the_configuration_of_pip_is_left_in_it(container: Container) -> None:
    program = (
        "import os, pathlib\n"
        "roots = ('/etc', '/home', '/run', '/KubeArmor')\n"
        "files = [file for root in roots for file in pathlib.Path(root).rglob('pip.conf')]\n"
        "files += pathlib.Path('/run/secrets').glob('ca')\n"
        "print([str(file) for file in files], [name for name in os.environ if name.startswith('PIP_')])\n"
    )
    assert container.says(PYTHON, "-c", program) == "[] []\n"
