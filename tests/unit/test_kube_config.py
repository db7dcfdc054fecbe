"""relay.kube_config, relay.kube_exec: where the configuration is, what is wrong with it, fresh credentials."""

import asyncio
import base64
import gc
import json
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from relay import kube_config
from relay.kube_config import ConfigError, Loaded, Source, check, find, load
from relay.settings import SettingsError

SECRET = "s3cr3t-t0k3n"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\n"
IN_POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
V1 = "client.authentication.k8s.io/v1"


@pytest.fixture(autouse=True)
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a pod's service account would be; nothing is there."""
    folder = tmp_path / "account"
    folder.mkdir()
    monkeypatch.setattr(kube_config, "SERVICE_ACCOUNT", folder)
    incluster: Any = kube_config._parts().incluster_config
    monkeypatch.setattr(incluster, "SERVICE_TOKEN_FILENAME", str(folder / "token"))
    monkeypatch.setattr(incluster, "SERVICE_CERT_FILENAME", str(folder / "ca.crt"))
    return folder


def config(user: Any = None, cluster: Any = None, name: str = "c", **others: Any) -> dict[str, Any]:
    """A kubeconfig file with one context."""
    return {
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": "u"}}],
        "clusters": [{"name": name, "cluster": {"server": f"http://{name}:1"} if cluster is None else cluster}],
        "users": [{"name": "u", "user": {"token": SECRET} if user is None else user}],
        **others,
    }


def written(path: Path, content: Any) -> Source:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return Source(str(path), "kubeconfig")


def loaded(source: Source) -> Loaded:
    return asyncio.run(load(source))


def headers(configuration: Loaded) -> dict[str, str]:
    return asyncio.run(configuration.headers())


# --- where it is --------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path: Path, account: Path) -> dict[str, str]:
    """All places at once: the flag's file, and an environment."""
    (tmp_path / "home/.kube").mkdir(parents=True)
    for name in ("flag", "variable", "home/.kube/config", "account/token", "account/ca.crt"):
        (tmp_path / name).write_text("x")
    return {**IN_POD, "flag": f"{tmp_path}/flag", "KUBECONFIG": f"{tmp_path}/variable", "HOME": f"{tmp_path}/home"}


def test_the_order_is_flag_variable_pod_home(places: dict[str, str], account: Path) -> None:
    flag = places.pop("flag")
    assert str(find(flag, places)) == f"kubeconfig {flag}"
    assert str(find("", places)) == f"KUBECONFIG {places.pop('KUBECONFIG')}"
    assert str(find("", places)) == "service account"
    (account / "token").unlink()
    assert str(find("", places)) == f"home directory {places['HOME']}/.kube/config"


def test_a_flag_that_names_no_file_is_an_error(tmp_path: Path, places: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=f"-kubeconfig {tmp_path}/none: there is no such file"):
        find(f"{tmp_path}/none", places)


def test_a_list_may_hold_files_that_are_missing(tmp_path: Path) -> None:
    source = written(tmp_path / "b", config())
    found = find("", {"KUBECONFIG": f"{tmp_path}/a:{source.files}::~nobody-of-that-name/c"})
    assert isinstance(found, Source)
    check(found)
    assert loaded(found).configuration.host == "http://c:1"


def test_what_was_looked_for_is_told(tmp_path: Path, account: Path) -> None:
    assert find("", {}) == (
        "-kubeconfig: not given; KUBECONFIG: not set; in a pod: KUBERNETES_SERVICE_HOST is not set; "
        "~/.kube/config: HOME is not set"
    )
    home = {"KUBECONFIG": f"{tmp_path}/none", **IN_POD, "HOME": f"{tmp_path}/home"}
    assert find("", home) == (
        f"-kubeconfig: not given; KUBECONFIG: {tmp_path}/none, which does not exist; "
        f"in a pod: {account}/token does not exist; ~/.kube/config: {tmp_path}/home/.kube/config does not exist"
    )
    (account / "token").write_text("x")
    assert f"in a pod: {account}/ca.crt does not exist" in str(find("", home))
    assert "KUBERNETES_SERVICE_PORT is not set" in str(find("", {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}))


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), RuntimeError("no home")])
def test_a_folder_that_may_not_be_looked_into_is_as_good_as_none(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(path: Path) -> bool:
        raise error

    monkeypatch.setattr(Path, "exists", refuse)
    assert "does not exist" in str(find("", {"HOME": "/root"}))


# --- what is wrong with it ----------------------------------------------------------------


def test_a_good_file_is_good(tmp_path: Path) -> None:
    check(written(tmp_path / "config", config()))
    check(Source("", "service account"))  # nothing is read before it is used


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "while parsing a flow node"),
        ("\t", "cannot start any token"),
        ("", "not as a kubeconfig file should be"),
        ("just words", "not as a kubeconfig file should be"),
        ("[]", "not as a kubeconfig file should be"),
        ("\0", "special characters are not allowed"),
        ({}, "Expected key current-context"),
        (config() | {"current-context": ""}, "Expected key current-context"),
        (config() | {"current-context": "other"}, "Expected object with name other"),
        (config() | {"contexts": None}, "Expected object with name c"),
        (config() | {"contexts": 5}, "not as a kubeconfig file should be"),
        (config() | {"contexts": [{"name": "c"}]}, "Expected key context"),
        (config() | {"contexts": [{"name": "c", "context": {"user": "u"}}]}, "Expected key cluster"),
        (config() | {"clusters": []}, "Expected object with name c"),
        (config() | {"users": []}, "the user u of the context is not among the users"),
        (config() | {"users": [{"name": "u", "token": SECRET}]}, "Expected key user"),
        (config() | {"users": [{"user": {"token": SECRET}}]}, "'name'"),
        (config() | {"users": {"u": {"token": SECRET}}}, "Expected all values in"),
        (config(user={"auth-provider": {"token": SECRET, "name": None}}), "Expected key name"),
        (config(cluster={}), "has no server"),
        (config(cluster={"insecure-skip-tls-verify": True}), "has no server"),
        (config(cluster={"server": ["https://x"]}), "not as a kubeconfig file should be"),
        (config(cluster={"server": "https://x", "certificate-authority": "/nowhere/ca.crt"}), "/nowhere/ca.crt"),
        (config(cluster={"server": "https://x", "certificate-authority-data": "abcde"}), "base64"),
        (config(user={"client-certificate": "/nowhere/c.crt"}, cluster={"server": "https://x"}), "/nowhere/c.crt"),
    ],
)
def test_what_is_wrong_is_told_in_one_line_without_secrets(tmp_path: Path, content: Any, text: str) -> None:
    source = written(tmp_path / "config", content)
    with pytest.raises(SettingsError) as told:
        check(source)
    said = str(told.value)
    assert said.startswith(f"kubeconfig {tmp_path}/config: ")
    assert text in said
    assert "\n" not in said
    assert SECRET not in said
    # A file that breaks while the relay runs is a failure like any other.
    with pytest.raises(ConfigError) as failed:
        loaded(source)
    assert SECRET not in str(failed.value)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Is a directory"):
        check(Source(str(tmp_path), "KUBECONFIG"))


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        loaded(Source(f"{tmp_path}/none", "KUBECONFIG"))


def test_without_the_client_library_it_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = written(tmp_path / "config", config())
    monkeypatch.setattr(kube_config, "_loaded", None)
    for name in [name for name in sys.modules if name.partition(".")[0] == "kubernetes"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("importlib.machinery.PathFinder.find_spec", lambda *arguments: None)
    with pytest.raises(SettingsError, match="no package kubernetes: pip install kubernetes"):
        check(source)


# --- files --------------------------------------------------------------------------------


def test_the_first_file_of_a_list_that_names_a_context_decides(tmp_path: Path) -> None:
    """And the first to name a user or a cluster."""
    (tmp_path / "none").write_text(yaml.safe_dump({"clusters": [], "current-context": ""}))
    files = [tmp_path / "none", tmp_path / "one", tmp_path / "two"]
    written(files[1], config(name="one"))
    written(files[2], config(name="two", user={"token": "another"}))
    found = loaded(Source(":".join(map(str, files)), "KUBECONFIG"))
    assert found.configuration.host == "http://one:1"
    assert headers(found) == {"authorization": f"Bearer {SECRET}"}


def test_a_user_may_be_left_out(tmp_path: Path) -> None:
    for cluster in ({"server": "https://x"}, {"server": "http://x"}):
        content = config(cluster=cluster) | {"contexts": [{"name": "c", "context": {"cluster": "c"}}]}
        source = written(tmp_path / "config", content)
        check(source)
        found = loaded(source)
        assert (found.configuration.host, headers(found)) == (cluster["server"], {})


def test_a_user_may_have_a_name_and_a_password(tmp_path: Path) -> None:
    source = written(tmp_path / "config", config(user={"username": "me", "password": SECRET}))
    expected = base64.b64encode(f"me:{SECRET}".encode()).decode()
    assert headers(loaded(source)) == {"authorization": f"Basic {expected}"}


def test_a_token_in_a_file_is_read_at_each_load(tmp_path: Path) -> None:
    """Relative to the configuration, and whatever its last line ends in."""
    source = written(tmp_path / "config", config(user={"tokenFile": "token"}))
    for token in ("first\n", "second"):
        (tmp_path / "token").write_text(token)
        assert headers(loaded(source)) == {"authorization": f"Bearer {token.strip()}"}


def test_settings_of_the_connection_are_taken_over(tmp_path: Path) -> None:
    cluster = {
        "server": "https://x/",
        "insecure-skip-tls-verify": True,
        "tls-server-name": "y",
        "proxy-url": "http://p:1",
    }
    made = loaded(written(tmp_path / "config", config(cluster=cluster))).configuration
    assert (made.host, made.verify_ssl, made.tls_server_name, made.proxy) == ("https://x", False, "y", "http://p:1")
    assert made.retries is None, "its own retries would come on top of ours"


SCRIPT = """
import asyncio, stat, sys
from pathlib import Path
from relay.kube_config import Source, load
made = asyncio.run(load(Source(sys.argv[1], "kubeconfig"))).configuration
for path in (made.ssl_ca_cert, made.cert_file, made.key_file):
    print(path, oct(stat.S_IMODE(Path(path).stat().st_mode)), Path(path).read_text())
"""


def test_keys_in_the_configuration_are_files_of_nobody_else_and_gone_at_the_end(tmp_path: Path) -> None:
    def data(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    user = {"client-certificate-data": data("certificate"), "client-key-data": data(SECRET)}
    cluster = {"server": "https://x", "certificate-authority-data": data("authority")}
    source = written(tmp_path / "config", config(user=user, cluster=cluster))
    said = subprocess.run([sys.executable, "-c", SCRIPT, source.files], check=True, capture_output=True, text=True)
    assert not said.stderr
    paths, modes, contents = zip(*(line.split() for line in said.stdout.splitlines()), strict=True)
    assert contents == ("authority", "certificate", SECRET)
    assert set(modes) == {oct(stat.S_IRUSR | stat.S_IWUSR)}
    assert not [path for path in paths if Path(path).exists()]


# --- in a pod -----------------------------------------------------------------------------


@pytest.fixture
def in_pod(account: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in IN_POD.items():
        monkeypatch.setenv(name, value)
    (account / "token").write_text("first\n")
    (account / "ca.crt").write_text("x")
    return account


def test_a_pods_token_is_read_again_after_a_minute(in_pod: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datetime as dt

    found = loaded(Source("", "service account"))
    assert found.configuration.host == "https://10.96.0.1:443"
    assert found.configuration.ssl_ca_cert == str(in_pod / "ca.crt")
    assert not found.expired()
    assert headers(found) == {"authorization": "bearer first"}
    (in_pod / "token").write_text("second")
    assert headers(found) == {"authorization": "bearer first"}
    incluster: Any = kube_config._parts().incluster_config

    class Later(dt.datetime):
        later = dt.timedelta(seconds=61)

        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Any:
            return super().now(tz) + cls.later

    monkeypatch.setattr(incluster.datetime, "datetime", Later)
    assert headers(found) == {"authorization": "bearer second"}
    (in_pod / "token").write_text("")
    monkeypatch.setattr(Later, "later", dt.timedelta(seconds=200))
    with pytest.raises(ConfigError, match="empty"):
        headers(found)


def test_a_pod_with_ipv6_is_reached_there(in_pod: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    assert loaded(Source("", "service account")).configuration.host == "https://[fd00::1]:443"


@pytest.mark.parametrize("missing", ["token", "ca.crt"])
def test_a_pod_without_its_account_says_so(in_pod: Path, missing: str) -> None:
    for spoil in ((in_pod / missing).unlink, lambda: (in_pod / missing).write_text("")):
        with pytest.raises(ConfigError, match=r"service account: .*(exist|empty)"):
            spoil() or loaded(Source("", "service account"))  # type: ignore[func-returns-value]


# --- plugins ------------------------------------------------------------------------------


class Plugin:
    """A credential plugin, and a kubeconfig file that names it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "plugin"
        user = {
            "exec": {
                "apiVersion": V1,
                "command": str(self.path),
                "args": ["an argument"],
                "env": [{"name": "SETTING", "value": "a value"}],
            }
        }
        self.source = written(folder / "config", config(user=user, cluster={"server": "https://x"}))

    def says(self, **status: Any) -> None:
        self.prints(json.dumps({"apiVersion": V1, "kind": "ExecCredential", "status": status}))

    def prints(self, text: str) -> None:
        (self.folder / "answer").write_text(text)
        self.does(f"cat {self.folder}/answer")

    def does(self, script: str) -> None:
        self.path.write_text(f"#!/bin/sh\necho run >>{self.folder}/runs\n{script}\n")
        self.path.chmod(0o755)

    @property
    def runs(self) -> int:
        return len((self.folder / "runs").read_text().splitlines())


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Plugin]:
    yield Plugin(tmp_path)
    gc.collect()  # a process that was left would warn here


def test_a_plugins_token_is_used_until_it_expires(plugin: Plugin) -> None:
    check(plugin.source)  # runs nothing
    for year, expired in ((2099, False), (2001, True)):
        plugin.says(token=SECRET, expirationTimestamp=f"{year}-11-23T18:00:00Z")
        found = loaded(plugin.source)
        assert headers(found) == {"authorization": f"Bearer {SECRET}"}
        assert found.expired() is expired
    plugin.says(token=SECRET)
    assert not loaded(plugin.source).expired()
    assert plugin.runs == 3


def test_a_plugin_gets_what_it_was_promised(plugin: Plugin) -> None:
    plugin.does(f'echo "$1 $SETTING $KUBERNETES_EXEC_INFO" >{plugin.folder}/got; cat >>{plugin.folder}/got; exit 1')
    with pytest.raises(ConfigError):
        loaded(plugin.source)
    said = (plugin.folder / "got").read_text().strip()
    assert said.startswith("an argument a value {")
    assert json.loads(said.removeprefix("an argument a value ")) == {
        "apiVersion": V1,
        "kind": "ExecCredential",
        "spec": {"interactive": False},
    }


def test_a_plugin_may_give_a_certificate(plugin: Plugin) -> None:
    plugin.says(
        clientCertificateData=CERTIFICATE, clientKeyData=SECRET, expirationTimestamp="2001-11-23T20:00:00.5+02:00"
    )
    found = loaded(plugin.source)
    assert found.expired()
    assert found.configuration.cert_file is not None
    assert found.configuration.key_file is not None
    assert Path(found.configuration.cert_file).read_text() == CERTIFICATE
    assert Path(found.configuration.key_file).read_text() == SECRET
    assert stat.S_IMODE(Path(found.configuration.key_file).stat().st_mode) == 0o600
    assert headers(found) == {}


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ({}, "neither a token nor a certificate"),
        ({"token": ""}, "neither a token nor a certificate"),
        ({"token": None}, "neither a token nor a certificate"),
        ({"clientCertificateData": CERTIFICATE}, "a certificate without its key"),
        ({"clientKeyData": SECRET}, "a certificate without its key"),
        ({"token": [SECRET]}, "printed no ExecCredential"),
        ({"token": SECRET, "expirationTimestamp": "tomorrow"}, "printed no ExecCredential"),
        ({"token": SECRET, "expirationTimestamp": "2001-11-23T20:00:00"}, "printed no ExecCredential"),
    ],
)
def test_a_plugin_that_gives_nothing_of_use_is_a_failure(plugin: Plugin, status: dict[str, Any], text: str) -> None:
    """The library alone would go on as nobody."""
    plugin.says(**status)
    with pytest.raises(ConfigError) as failed:
        loaded(plugin.source)
    assert text in str(failed.value)
    assert SECRET not in str(failed.value)


@pytest.mark.parametrize(
    "printed", ["", SECRET, "{", "[]", "{}", '{"apiVersion": "x", "status": null}', f'{{"token": "{SECRET}"}}']
)
def test_a_plugin_that_prints_something_else_is_a_failure(plugin: Plugin, printed: str) -> None:
    plugin.prints(printed)
    with pytest.raises(ConfigError, match="exec: plugin printed no ExecCredential") as failed:
        loaded(plugin.source)
    assert SECRET not in str(failed.value)


def test_a_plugin_of_another_version_is_a_failure(plugin: Plugin) -> None:
    plugin.prints(json.dumps({"apiVersion": "v2", "status": {"token": SECRET}}))
    with pytest.raises(ConfigError, match=r"plugin answers with v2; client.authentication.k8s.io/v1 was asked for"):
        loaded(plugin.source)


def test_a_plugin_that_fails_is_told_in_one_line_and_tried_again(plugin: Plugin) -> None:
    plugin.does("echo first >&2; printf 'log in\\n again%0500d' 0 >&2; exit 3")
    with pytest.raises(ConfigError) as failed:
        loaded(plugin.source)
    said = str(failed.value)
    assert said.startswith(f"{plugin.source}: exec: plugin failed with 3: ")
    assert "\n" not in said
    assert len(said) < 600
    plugin.says(token=SECRET)
    assert headers(loaded(plugin.source)) == {"authorization": f"Bearer {SECRET}"}


@pytest.mark.parametrize("exists", [False, True])
def test_a_plugin_that_cannot_be_run_is_told(plugin: Plugin, exists: bool) -> None:
    if exists:
        plugin.path.write_text("x")
    with pytest.raises(ConfigError, match=f"{plugin.path}"):
        loaded(plugin.source)


@pytest.mark.parametrize("lacks", ["command", "apiVersion"])
def test_a_plugin_that_is_not_told_in_full_is_a_failure(tmp_path: Path, lacks: str) -> None:
    user = {"exec": {"command": "x", "apiVersion": V1, lacks: None}}
    del user["exec"][lacks]
    with pytest.raises(ConfigError, match=f"missing key '{lacks}'"):
        loaded(written(tmp_path / "config", config(user=user)))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(fulfilled: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not fulfilled():
        assert time.monotonic() < end
        time.sleep(0.01)


def until_gone(*pids: str) -> None:
    until(lambda: not any(map(is_alive, map(int, pids))))


def children() -> set[str]:
    """This process's: those of other tests' servers, too."""
    return {pid for of in Path("/proc/self/task").glob("*/children") for pid in of.read_text().split()}


@pytest.mark.parametrize("how", ["timeout", "cancelled", "cancelled while it starts"])
def test_a_plugin_that_hangs_is_killed_with_its_children(
    plugin: Plugin, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    pids = plugin.folder / "pids"
    plugin.does(f"sleep 1000 & echo $$ $! >{pids}; wait")

    def is_running() -> bool:
        return pids.exists() and pids.read_text().endswith("\n")

    async def main() -> None:
        others = children()
        task = asyncio.create_task(load(plugin.source))
        if how == "timeout":
            with pytest.raises(ConfigError, match=r"no credentials within 1 s"):
                await task
            return
        if how == "cancelled":
            await asyncio.to_thread(until, is_running)
        else:
            for _ in range(1000):
                if children() - others:
                    break
                await asyncio.sleep(0)
            until(is_running)  # and the loop stands still
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    monkeypatch.setattr(kube_config, "EXEC_SECONDS", 1.0 if how == "timeout" else 60.0)
    asyncio.run(main())
    if pids.exists():
        until_gone(*pids.read_text().split())


def test_a_plugin_whose_child_stays_behind_is_killed_too(plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has ended itself, but left its output open to another."""
    pids = plugin.folder / "pids"
    plugin.does(f"sleep 1000 & echo $! >{pids}; exit 0")
    monkeypatch.setattr(kube_config, "EXEC_SECONDS", 1.0)
    with pytest.raises(ConfigError, match="no credentials within 1 s"):
        loaded(plugin.source)
    until_gone(*pids.read_text().split())


def test_more_than_a_pipe_holds_does_not_stop_a_plugin(plugin: Plugin) -> None:
    plugin.says(token=SECRET)
    plugin.does(f"head -c 1000000 /dev/zero >&2; cat {plugin.folder}/answer")
    assert headers(loaded(plugin.source)) == {"authorization": f"Bearer {SECRET}"}


def test_nothing_secret_is_logged(plugin: Plugin, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    plugin.says(token=SECRET)
    loaded(plugin.source)
    loaded(written(plugin.folder / "other", config()))
    plugin.prints(SECRET)
    with pytest.raises(ConfigError):
        loaded(plugin.source)
    assert SECRET not in caplog.text


# --- the client library -------------------------------------------------------------------

COST = """
import sys
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
if sys.argv[1] == "before":
    import kubernetes.aio.client, kubernetes.aio.config
from relay import kube_config
import asyncio, ssl
begin = resident()
parts = kube_config._parts()
print(resident() - begin)
print(len([name for name in sys.modules if name.startswith("kubernetes")]))
made = parts.configuration.Configuration()
made.host = "http://x"
parts.rest.RESTClientObject(made)
import kubernetes.aio.client as client
print(client.Configuration is parts.configuration.Configuration)
if sys.argv[1] == "after":
    import kubernetes.aio.client.exceptions
"""


@pytest.mark.parametrize("when", ["never", "before", "after"])
def test_only_the_parts_that_are_used_are_imported(when: str) -> None:
    """And they are the same where somebody has imported all of it."""
    said = subprocess.run([sys.executable, "-c", COST, when], check=True, capture_output=True, text=True)
    cost, modules, same = said.stdout.split()
    print(f"{when}: {int(cost) / 2**20:.1f} MiB, {modules} modules of kubernetes")
    assert same == "True"
    if when == "never":
        assert int(modules) < 40, "the whole has some 1,500"


@pytest.mark.resident
def test_what_the_parts_cost(tmp_path: Path) -> None:
    """About 16 MiB, aiohttp included, where the whole package takes 37."""
    said = subprocess.run([sys.executable, "-c", COST, "never"], check=True, capture_output=True, text=True)
    assert int(said.stdout.split()[0]) < 22 << 20
