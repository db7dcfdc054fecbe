"""A Kubernetes cluster that is an API server and nothing else: the real kube-apiserver on etcd, on loopback.

There is no kubelet and no controller: pods stay as they were made, and the tests set their status themselves,
through the same subresource as a kubelet. `make kube-apiserver` builds the server.
"""

import base64
import contextlib
import http.client
import json
import shutil
import ssl
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .binaries import BUILT
from .closing import Closing
from .command import HOST, PROGRAM, free_port

BINARY = BUILT / "kube-apiserver"
READY = 60.0  # a bound for a busy machine; alone it takes 5 to 10 s
WAIT = 30.0
WORKERS = 8  # connections for work in bulk: both processors are busy with these

NAMESPACES = ("kubearmor", "web", "shop")  # beside "default"
LABELS = {"kubearmor-app": "kubearmor"}
ADMIN = "token-of-admin"
RIGHTS = "/apis/rbac.authorization.k8s.io/v1"
BINDINGS = f"{RIGHTS}/clusterrolebindings"
ISSUER = "https://cluster.example"
EXPIRY_LEEWAY = 60  # s for which the server still takes an expired token (go-jose's default)

# Users by what they may do; each has a static token, `token-of-<name>`.
EVERYTHING = ("list", "watch")
USERS: dict[str, dict[str, Sequence[str]]] = {
    "relay": {"pods": EVERYTHING, "services": EVERYTHING},
    "without-watch": {"pods": ("list",), "services": ("list",)},
    "without-services": {"pods": EVERYTHING},
    "without-pods": {"services": EVERYTHING},
    "nobody": {},
}
SERVICE_ACCOUNT = ("kubearmor", "relay")  # with the rights of the user "relay"

Object = dict[str, Any]


def missing() -> str:
    """Why there can be no cluster here, or "" when there can."""
    for program in ("etcd", "openssl", *(() if BINARY.exists() else ("go",))):
        if not shutil.which(program):
            return f"no Kubernetes API server: {program} is not installed"
    return ""


class Refused(Exception):
    """The API server's answer is not a success."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


class Connection:
    """A connection to the API server, or to etcd, that is kept, and made anew when the server has closed it."""

    def __init__(self, connection: http.client.HTTPConnection, **headers: str) -> None:
        self._http = connection
        self._headers = headers

    def call(self, method: str, path: str, body: Object | None = None, kind: str = "application/json") -> Object:
        """One request; returns the object that it is answered with, the last one of several.

        Raises:
            Refused: the answer's status is 400 or more.
            OSError, http.client.HTTPException: there is no server.
        """
        encoded = None if body is None else json.dumps(body).encode()
        try:
            self._http.request(method, path, encoded, self._headers | {"Content-Type": kind})
            answer = self._http.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            self._http.close()
            raise
        if answer.status >= 400:
            raise Refused(answer.status, text.decode(errors="replace"))
        # A watch answers with a line for each event.
        parsed: Object = json.loads(text.splitlines()[-1]) if text.startswith(b"{") else {"text": text.decode()}
        return parsed

    def close(self) -> None:
        self._http.close()


class Cluster(Closing):
    """etcd and kube-apiserver as processes.

    Args:
        folder: for data, keys and logs.
        flags: of kube-apiserver, on top of what it needs here.
    """

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder = folder
        self.port = free_port()
        self._etcd_port = free_port(following=1)
        self._flags = flags
        self._etcd: subprocess.Popen[bytes] | None = None
        self._api: subprocess.Popen[bytes] | None = None
        if not BINARY.exists():
            raise RuntimeError("there is no Kubernetes API server: `make kube-apiserver` builds it")
        folder.mkdir(parents=True, exist_ok=True)
        self._make_keys()
        self.context = ssl.create_default_context(cafile=str(self.ca))
        self._admin = self.connection()
        try:
            self._start_etcd()
            self.start()
            self._furnish()
        except BaseException:
            self.close()
            raise

    # --- processes ------------------------------------------------------------------------

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def server(self) -> str:
        return f"https://{HOST}:{self.port}"

    @property
    def running(self) -> bool:
        return self._api is not None and self._api.poll() is None

    def start(self, *flags: str) -> None:
        """Start the API server on the data that are there, and wait until it is ready."""
        folder = self.folder
        self._api = self._run(
            "kube-apiserver",
            str(BINARY),
            f"--bind-address={HOST}",
            f"--advertise-address={HOST}",
            f"--secure-port={self.port}",
            f"--etcd-servers=http://{HOST}:{self._etcd_port}",
            f"--tls-cert-file={folder / 'server.crt'}",
            f"--tls-private-key-file={folder / 'server.key'}",
            f"--client-ca-file={self.ca}",
            f"--token-auth-file={folder / 'tokens.csv'}",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-key-file={folder / 'accounts.pub'}",
            f"--service-account-signing-key-file={folder / 'accounts.key'}",
            "--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
            "--allow-privileged=true",
            "--endpoint-reconciler-type=none",
            "--enable-priority-and-fairness=false",
            *self._flags,
            *flags,
        )
        self._wait(self._is_ready, self._api, "kube-apiserver")

    def stop(self) -> None:
        """End the API server without a word, as a machine that fails; etcd keeps the data."""
        if self._api is not None:
            _end(self._api)
        self._admin.close()

    def restart(self, *flags: str) -> None:
        """The API server anew, with other flags on top."""
        self.stop()
        self.start(*flags)

    def close(self) -> None:
        """End both, and forget the data."""
        self.stop()
        if self._etcd is not None:
            _end(self._etcd)
        shutil.rmtree(self.folder / "etcd", ignore_errors=True)

    # --- requests -------------------------------------------------------------------------

    def call(self, method: str, path: str, body: Object | None = None, kind: str = "application/json") -> Object:
        """One request of the administrator; see Connection.call."""
        return self._admin.call(method, path, body, kind)

    def connection(self, token: str = ADMIN) -> Connection:
        """A connection of its own, of whoever has that token."""
        made = http.client.HTTPSConnection(HOST, self.port, timeout=WAIT, context=self.context)
        return Connection(made, Authorization=f"Bearer {token}")

    def store(self) -> Connection:
        """A connection of its own to etcd's JSON gateway."""
        return Connection(http.client.HTTPConnection(HOST, self._etcd_port, timeout=WAIT))

    def each(
        self, objects: Iterable[Any], work: Callable[[Connection, Any], object], to: Callable[[], Connection]
    ) -> None:
        """Do something for each of the objects, over a few connections at once, which `to` makes."""
        given = list(objects)

        def some(first: int) -> None:
            connection = to()
            try:
                for one in given[first::WORKERS]:
                    work(connection, one)
            finally:
                connection.close()

        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(some, range(WORKERS)))

    # --- objects --------------------------------------------------------------------------

    def pod(self, name: str, *ips: str, namespace: str = "default", **how: Any) -> Object:
        """Make a pod, and give it its IPs as a kubelet would; see `pod` and `status` for the rest."""
        phase = how.pop("phase", "Running")
        made = self.call("POST", pods(namespace), pod(name, namespace=namespace, **how))
        if ips:
            return self.set_status(name, *ips, namespace=namespace, phase=phase)
        return made

    def node(self, name: str, *ips: str, **how: Any) -> Object:
        """Make a pod of KubeArmor: labelled, in the host's network."""
        given: dict[str, Any] = {"namespace": "kubearmor", "labels": LABELS, "host_network": True}
        return self.pod(name, *ips, **(given | how))

    def nodes(self, addresses: Iterable[str]) -> None:
        """Many pods of KubeArmor, as fast as the server takes them."""

        def make(connection: Connection, address: str) -> None:
            name = f"kubearmor-{address.replace('.', '-')}"
            made = pod(name, namespace="kubearmor", labels=LABELS, host_network=True)
            connection.call("POST", pods("kubearmor"), made)
            connection.call("PUT", f"{pods('kubearmor')}/{name}/status", made | {"status": status(address)})

        self.each(addresses, make, self.connection)

    def set_status(self, name: str, *ips: str, namespace: str = "default", phase: str = "Running") -> Object:
        """Set a pod's IPs and phase; a moved pod keeps neither of the old ones."""
        path = f"{pods(namespace)}/{name}/status"
        return self.call("PATCH", path, {"status": status(*ips, phase=phase)}, "application/merge-patch+json")

    def delete_pod(self, name: str, namespace: str = "default", grace: int = 0) -> None:
        """Delete a pod: at once, or, with a grace period, only mark it, as long as no kubelet has confirmed its end."""
        self.call("DELETE", f"{pods(namespace)}/{name}?gracePeriodSeconds={grace}")

    def service(self, name: str, namespace: str = "default", **how: bool) -> list[str]:
        """Make a service (see `service`); returns its cluster IPs, as the server has chosen them."""
        made = self.call("POST", services(namespace), service(name, namespace, **how))
        chosen: list[str] = made["spec"]["clusterIPs"]
        return chosen

    def delete_service(self, name: str, namespace: str = "default") -> None:
        self.call("DELETE", f"{services(namespace)}/{name}")

    def fill(self, pod_count: int, service_count: int) -> None:
        """Many pods and services of usual size: pod number N is web/filler-N with the IP `filler_ip(N)`.

        One of each goes through the API server; the others are copies of those, put into its store as it would
        put them there. 13,000 requests take it more than a minute, this takes seconds.
        """
        self.pod("filler-0", filler_ip(0), namespace="web", realistic=True)
        self.service("filler-0", "shop")
        stored_pod = self.call("GET", f"{pods('web')}/filler-0")
        stored_service = self.call("GET", f"{services('shop')}/filler-0")
        for stored in (stored_pod, stored_service):
            del stored["metadata"]["resourceVersion"]  # etcd's own number, put in by whoever reads

        def copy(kind: str, stored: Object, old: str, ip: str, number: int) -> Object:
            text = json.dumps(stored).replace("filler-0", f"filler-{number}").replace(old, ip)
            text = text.replace(stored["metadata"]["uid"], str(uuid.UUID(int=number)))
            return {"key": _text64(f"/registry/{kind}/filler-{number}"), "value": _text64(text)}

        copies = [
            copy("pods/web", stored_pod, filler_ip(0), filler_ip(number), number) for number in range(1, pod_count)
        ]
        address = stored_service["spec"]["clusterIP"]
        copies += [
            copy("services/specs/shop", stored_service, address, f"10.97.{number // 250}.{number % 250 + 1}", number)
            for number in range(1, service_count)
        ]
        # One by one: what one transaction puts has one version, which no API server would do.
        self.each(copies, lambda store, one: store.call("POST", "/v3/kv/put", one), self.store)

    def wait_next_second(self) -> None:
        """Wait until what is made from now on is newer than what was made before: times are whole seconds."""
        now = time.time()
        time.sleep(int(now) + 1 - now)

    def clear(self) -> None:
        """Delete all pods and services but the API server's own service."""
        for namespace in ("default", *NAMESPACES):
            self.call("DELETE", f"{pods(namespace)}?gracePeriodSeconds=0")
            for found in self.call("GET", services(namespace))["items"]:
                if found["metadata"]["name"] != "kubernetes":
                    self.delete_service(found["metadata"]["name"], namespace)

    def watch(self, what: str, version: str) -> Object:
        """What a watch of all "pods" or "services" from a version says within a second: its last event.

        Raises:
            Refused: the version is too old.
        """
        said = self.call("GET", f"/api/v1/{what}?watch=1&timeoutSeconds=1&resourceVersion={version}")
        if said.get("type") == "ERROR":
            raise Refused(said["object"]["code"], said["object"]["message"])
        return said

    def compact(self) -> int:
        """Let etcd forget all but the present state; returns the revision of that."""
        store = self.store()
        try:
            revision = int(store.call("POST", "/v3/kv/range", {"key": _text64("x")})["header"]["revision"])
            store.call("POST", "/v3/kv/compaction", {"revision": revision, "physical": True})
        finally:
            store.close()
        return revision

    # --- rights ---------------------------------------------------------------------------

    @contextlib.contextmanager
    def granted(self, user: str, others: str) -> Iterator[None]:
        """A user has another's rights as well."""
        binding = _binding(user, others)
        binding["metadata"]["name"] = "meanwhile"
        self.call("POST", BINDINGS, binding)
        try:
            yield
        finally:
            self.call("DELETE", f"{BINDINGS}/meanwhile")

    @contextlib.contextmanager
    def role(self, user: str, namespace: str) -> Iterator[None]:
        """A user may list and watch the pods of one namespace."""
        place = f"{RIGHTS}/namespaces/{namespace}"
        rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": list(EVERYTHING)}]
        self.call("POST", f"{place}/roles", {"metadata": {"name": user}, "rules": rules})
        binding = _binding(user, user)
        binding["roleRef"]["kind"] = "Role"
        self.call("POST", f"{place}/rolebindings", binding)
        try:
            yield
        finally:
            self.call("DELETE", f"{place}/rolebindings/{user}")
            self.call("DELETE", f"{place}/roles/{user}")

    @contextlib.contextmanager
    def revoked(self, user: str) -> Iterator[None]:
        """A user may do nothing."""
        self.call("DELETE", f"{BINDINGS}/{user}")
        try:
            yield
        finally:
            self.call("POST", BINDINGS, _binding(user, user))

    # --- credentials ----------------------------------------------------------------------

    def kubeconfig(self, name: str = "kubeconfig", *, port: int = 0, **user: Any) -> Path:
        """Write a configuration; `user` is what stands in the file for the user.

        Args:
            name: of the file.
            port: of what stands before the API server, if anything does.
        """
        path = self.folder / name
        server = {"server": f"https://{HOST}:{port or self.port}", "certificate-authority": str(self.ca)}
        configuration = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "real", "cluster": server}],
            "users": [{"name": "one", "user": user or {"token": token_of("relay")}}],
            "contexts": [{"name": "here", "context": {"cluster": "real", "user": "one"}}],
            "current-context": "here",
        }
        path.write_text(json.dumps(configuration))  # JSON is YAML, too
        return path

    def certificate(self, user: str) -> dict[str, str]:
        """A client certificate, as the entries that a configuration has for it."""
        self._certify(user, f"/CN={user}")
        return {"client-certificate": str(self.folder / f"{user}.crt"), "client-key": str(self.folder / f"{user}.key")}

    def short_token(self, seconds: float) -> str:
        """A token of the service account that the server refuses after so many seconds (at most a minute)."""
        now = int(time.time())
        namespace, name = SERVICE_ACCOUNT
        claims = {
            "iss": ISSUER,
            "aud": [ISSUER],
            "sub": f"system:serviceaccount:{namespace}:{name}",
            "iat": now - 2 * EXPIRY_LEEWAY,
            "nbf": now - 2 * EXPIRY_LEEWAY,
            "exp": now - EXPIRY_LEEWAY + round(seconds),
            "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": name, "uid": self._account}},
        }
        signed = b".".join(_base64(json.dumps(part).encode()) for part in ({"alg": "RS256", "typ": "JWT"}, claims))
        signature = _openssl(self.folder, "dgst", "-sha256", "-sign", "accounts.key", given=signed)
        return (signed + b"." + _base64(signature)).decode()

    def account(self, token: str) -> Path:
        """Write what a pod with the service account finds in its file system; returns the folder."""
        folder = self.folder / "account"
        folder.mkdir(exist_ok=True)
        (folder / "ca.crt").write_bytes(self.ca.read_bytes())
        (folder / "namespace").write_text(SERVICE_ACCOUNT[0])
        (folder / "token").write_text(token)
        return folder

    # --- inside ---------------------------------------------------------------------------

    def _start_etcd(self) -> None:
        client, peer = (f"http://{HOST}:{self._etcd_port + number}" for number in (0, 1))
        self._etcd = self._run(
            "etcd",
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--log-level=error",
        )

    def _run(self, name: str, *command: str) -> "subprocess.Popen[bytes]":
        """A process that ends with this one, and writes its log into the folder."""
        # setpriv is part of util-linux, and there on every Linux that has etcd as a package.
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _wait(self, holds: Callable[[], bool], process: "subprocess.Popen[bytes]", name: str) -> None:
        end = time.monotonic() + READY
        while not holds():
            ended = process.poll()
            if ended is not None or time.monotonic() > end:
                said = (self.folder / f"{name}.log").read_text(errors="replace")[-4000:]
                raise RuntimeError(f"{name} is not ready (exit code {ended}):\n{said}")
            time.sleep(0.05)  # nothing tells when it is

    def _is_ready(self) -> bool:
        try:
            return self.call("GET", "/readyz")["text"] == "ok"
        except (Refused, OSError, http.client.HTTPException):
            return False

    def _make_keys(self) -> None:
        _openssl(
            self.folder,
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=cluster", "-days", "30"),
            *("-addext", "keyUsage=critical,keyCertSign"),
        )
        self._certify("server", "/CN=kube-apiserver", f"subjectAltName=IP:{HOST},DNS:localhost")
        _openssl(self.folder, "genrsa", "-out", "accounts.key", "2048")
        _openssl(self.folder, "rsa", "-in", "accounts.key", "-pubout", "-out", "accounts.pub")
        tokens = [f'{ADMIN},admin,admin,"system:masters"']
        tokens += [f"{token_of(user)},{user},{user}" for user in USERS]
        (self.folder / "tokens.csv").write_text("\n".join(tokens) + "\n")

    def _certify(self, name: str, subject: str, *extensions: str) -> None:
        _openssl(
            self.folder,
            *("req", "-x509", "-CA", "ca.crt", "-CAkey", "ca.key"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"),
            *("-keyout", f"{name}.key", "-out", f"{name}.crt", "-subj", subject),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
            *("-addext", "extendedKeyUsage=serverAuth,clientAuth"),
            *(word for extension in extensions for word in ("-addext", extension)),
        )

    def _furnish(self) -> None:
        """Namespaces, rights and the service account."""
        for name in NAMESPACES:
            self.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        namespace, name = SERVICE_ACCOUNT
        accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        self._account = self.call("POST", accounts, {"metadata": {"name": name}})["metadata"]["uid"]
        for user, may in USERS.items():
            rules = [{"apiGroups": [""], "resources": [what], "verbs": list(verbs)} for what, verbs in may.items()]
            self.call("POST", f"{RIGHTS}/clusterroles", {"metadata": {"name": user}, "rules": rules})
            self.call("POST", BINDINGS, _binding(user, user))
        binding = _binding("account", "relay")
        binding["subjects"] = [{"kind": "ServiceAccount", "name": name, "namespace": namespace}]
        self.call("POST", BINDINGS, binding)


def in_pod(account: Path) -> tuple[str, ...]:
    """What runs a command where `account` is mounted as in a pod, and only there."""
    place = "/run/secrets/kubernetes.io/serviceaccount"  # /var/run is a link to /run
    script = f'mount -t tmpfs none /run && mkdir -p {place} && mount --bind "$0" {place} && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", script, str(account), str(PROGRAM))


def no_pods() -> str:
    """Why `in_pod` cannot work here, or "" when it can."""
    if not shutil.which("unshare"):
        return "a mount namespace needs the unshare command"
    tried = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /run"]
    done = subprocess.run(tried, capture_output=True, text=True, check=False)
    return f"no mount namespace here: {done.stderr.strip()}" if done.returncode else ""


def token_of(user: str) -> str:
    """The static token of one of USERS."""
    return f"token-of-{user}"


def pods(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


def services(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/services"


def filler_ip(number: int) -> str:
    """The IP of a pod that `Cluster.fill` makes."""
    return f"10.200.{number // 250}.{number % 250 + 1}"


def pod(
    name: str,
    *,
    namespace: str = "default",
    labels: dict[str, str] | None = None,
    host_network: bool = False,
    realistic: bool = False,
    note: str = "",
) -> Object:
    """A pod as it is sent to the API server.

    Args:
        labels: of the pod.
        host_network: it shares its node's address.
        realistic: with the annotations, variables and mounts of a usual pod: some KiB.
        note: the text of an annotation.
    """
    container: Object = {"name": "main", "image": "registry.example/app:1"}
    metadata: Object = {"name": name, "namespace": namespace, "labels": labels or {"app": name}}
    if note:
        metadata["annotations"] = {"example.com/note": note}
    if realistic:
        metadata["annotations"] = {f"example.com/note-{n}": f"{name}/{n} " + "x" * 120 for n in range(8)}
        container["env"] = [{"name": f"VARIABLE_{n}", "value": f"value {n} of {name}"} for n in range(25)]
        container["resources"] = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}}
        container["livenessProbe"] = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10}
        container["volumeMounts"] = [{"name": "config", "mountPath": "/etc/app"}]
    spec: Object = {"nodeName": f"host-of-{name}", "hostNetwork": host_network, "containers": [container]}
    if realistic:
        spec["volumes"] = [{"name": "config", "configMap": {"name": "config"}}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def status(*ips: str, phase: str = "Running") -> Object:
    """A pod's status as a kubelet tells it."""
    return {
        "phase": phase,
        "podIP": ips[0] if ips else None,
        "podIPs": [{"ip": ip} for ip in ips] or None,
        "conditions": [{"type": "Ready", "status": str(phase == "Running")}],
    }


def service(name: str, namespace: str, *, headless: bool = False, dual: bool = False) -> Object:
    """A service as it is sent to the API server."""
    spec: Object = {"ports": [{"port": 80}], "selector": {"app": name}}
    if headless:
        spec["clusterIP"] = "None"
    if dual:
        spec["ipFamilyPolicy"] = "RequireDualStack"
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def _binding(user: str, role: str) -> Object:
    """What gives a user the rights of one of USERS."""
    group = "rbac.authorization.k8s.io"
    return {
        "metadata": {"name": user},
        "roleRef": {"kind": "ClusterRole", "name": role, "apiGroup": group},
        "subjects": [{"kind": "User", "name": user, "apiGroup": group}],
    }


def _text64(text: str) -> str:
    """Text as etcd's gateway takes it."""
    return base64.b64encode(text.encode()).decode()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _openssl(folder: Path, *words: str, given: bytes = b"") -> bytes:
    done = subprocess.run(["openssl", *words], cwd=folder, input=given, capture_output=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"openssl {words[0]}: {done.stderr.decode(errors='replace')}")
    return done.stdout


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.kill()
    process.wait(WAIT)
