"""The configuration for the Kubernetes API: where it is looked for, and how it is loaded.

The order is controller-runtime's, which the Go relay uses: the flag -kubeconfig, KUBECONFIG (a
list, too), the pod's own service account, ~/.kube/config. The files are read by the `kubernetes`
package, of which only the parts needed here are imported (see `_parts`).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from relay import kube_exec
from relay.settings import SettingsError

if TYPE_CHECKING:
    from kubernetes.aio.client.configuration import Configuration

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
HOME_CONFIG = "~/.kube/config"
EXEC_SECONDS = 60.0  # a credential plugin that takes longer hangs
EXPIRY_SKEW = dt.timedelta(seconds=60)


class ConfigError(Exception):
    """A configuration that cannot be loaded now; the text is one line."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the configuration is: kubeconfig files joined by os.pathsep, or the pod's service account."""

    files: str
    origin: str

    def __str__(self) -> str:
        return f"{self.origin} {self.files}".rstrip()


class Loaded(NamedTuple):
    """A configuration as the client library takes it, and until when its credentials are good."""

    configuration: Configuration
    expires: dt.datetime | None

    def expired(self) -> bool:
        """Whether the credentials have to be fetched anew."""
        return self.expires is not None and dt.datetime.now(dt.UTC) >= self.expires - EXPIRY_SKEW

    async def headers(self) -> dict[str, str]:
        """The credentials as headers of a request; a pod's token is read again each minute.

        Raises:
            ConfigError: they cannot be had now.
        """
        try:
            settings: Mapping[str, Any] = await self.configuration.auth_settings()
        except Exception as error:  # the library raises whatever it runs into
            raise ConfigError(_one_line(error)) from None
        # A file with a token may end in a newline, which no header can hold.
        return {each["key"]: (each["value"] or "").strip() for each in settings.values()}


def find(kubeconfig: str, environment: Mapping[str, str]) -> Source | str:
    """Where the configuration is; without any, a text that says what was looked for and where.

    Raises:
        SettingsError: `kubeconfig`, the setting, names no file that exists.
    """
    looked = []
    if kubeconfig:
        if not _any_exists(kubeconfig):
            raise SettingsError(f"-kubeconfig {kubeconfig}: there is no such file")
        return Source(kubeconfig, "kubeconfig")
    looked.append("-kubeconfig: not given")
    listed = environment.get("KUBECONFIG", "")
    if listed and _any_exists(listed):
        return Source(listed, "KUBECONFIG")
    looked.append(f"KUBECONFIG: {listed}, which does not exist" if listed else "KUBECONFIG: not set")
    missing = _missing_in_cluster(environment)
    if not missing:
        return Source("", "service account")
    looked.append(f"in a pod: {missing}")
    # As Go does, from HOME alone: Python would ask the user database, too.
    home = environment.get("HOME", "")
    path = HOME_CONFIG.replace("~", home)
    if home and _any_exists(path):
        return Source(path, "home directory")
    looked.append(f"{HOME_CONFIG}: " + (f"{path} does not exist" if home else "HOME is not set"))
    return "; ".join(looked)


def _any_exists(paths: str) -> bool:
    """Whether one of a list of paths exists."""
    return any(path and _exists(path) for path in paths.split(os.pathsep))


def _exists(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, RuntimeError):  # a folder that may not be looked into, a user without a home
        return False


def _missing_in_cluster(environment: Mapping[str, str]) -> str:
    """What a pod would have and this process has not; "" when it is a pod with a service account."""
    for variable in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        if not environment.get(variable):
            return f"{variable} is not set"
    for name in ("token", "ca.crt"):
        if not _exists(str(SERVICE_ACCOUNT / name)):
            return f"{SERVICE_ACCOUNT / name} does not exist"
    return ""


def check(source: Source) -> None:
    """Read the files once, so that what is wrong in them is said at the start.

    Raises:
        SettingsError: they cannot be read, or lack what is needed to reach a cluster.
    """
    if source.files:
        try:
            _loader(source)
        except Exception as error:  # whatever a YAML file may hold
            raise SettingsError(f"{source}: {_one_line(error)}") from None


async def load(source: Source) -> Loaded:
    """Load the configuration, with fresh credentials; a plugin that provides them is run.

    Raises:
        ConfigError: it cannot be had now.
    """
    try:
        # Of retries the library does none unless told to: they would come on top of ours, out of sight.
        configuration = _parts().configuration.Configuration()
        if source.files:
            loader = _loader(source)
            async with asyncio.timeout(EXEC_SECONDS):
                await loader.load_and_set(configuration)
            return Loaded(configuration, getattr(loader, "exec_plugin_expiry", None))
        _parts().incluster_config.load_incluster_config(configuration)
    except TimeoutError:
        raise ConfigError(f"{source}: no credentials within {EXEC_SECONDS:g} s") from None
    except Exception as error:  # the library raises whatever it runs into
        raise ConfigError(f"{source}: {_one_line(error)}") from None
    return Loaded(configuration, None)


def _loader(source: Source) -> Any:
    """The library's reader of these files, with its context chosen."""
    merger = _parts().kube_config.KubeConfigMerger(source.files)
    if merger.config is None:
        raise ConfigError("there is no such file")
    # As kubectl does: the first file that names a context decides, where the library takes the last.
    chosen = [config.get("current-context") for config in merger.config_files.values()]
    merger.config.value["current-context"] = next(filter(None, chosen), None)
    return _parts().loader(config_dict=merger.config, config_base_path=None)


def _one_line(error: Exception) -> str:
    """What an error says, without what it quotes of a file: the library quotes users with their secrets."""
    text = re.sub(r"/\{.*\}", "", " ".join(str(error).split()))
    if not text or isinstance(error, (AttributeError, LookupError, TypeError)):
        return f"not as a kubeconfig file should be ({type(error).__name__}: {text})"
    return text


# --- the client library ---------------------------------------------------------------


class _Parts(NamedTuple):
    configuration: ModuleType
    kube_config: ModuleType
    incluster_config: ModuleType
    rest: ModuleType
    loader: type[Any]


_loaded: _Parts | None = None


def _parts() -> _Parts:
    """The modules of `kubernetes.aio` that are used: configuration, its loaders, the HTTP client.

    The package's own __init__ modules import all of it: the synchronous client, the models,
    pydantic, requests, urllib3 and more, 37 MiB where these modules and aiohttp take 16. That
    would not fit beside the journal in a pod of 128 MiB. So the packages are made known without
    running their __init__, and their modules are imported from there as usual.
    """
    global _loaded  # noqa: PLW0603 - imported once a process, like any module
    if _loaded is None:
        for name in ("kubernetes", "kubernetes.aio", "kubernetes.aio.utils", "kubernetes.aio.config"):
            _bare(name)
        client = _bare("kubernetes.aio.client")
        from kubernetes.aio.client import configuration

        # What the loaders import from the package itself; the second is for functions not used here.
        vars(client).setdefault("Configuration", configuration.Configuration)
        vars(client).setdefault("ApiClient", None)
        from kubernetes.aio.client import rest
        from kubernetes.aio.config import incluster_config, kube_config

        _loaded = _Parts(configuration, kube_config, incluster_config, rest, _loader_class(kube_config))
    return _loaded


def _loader_class(kube_config: Any) -> type[Any]:
    """The library's reader of kubeconfig files, as strict as kubectl, and with our way to run a plugin."""
    from kubernetes.aio.config.exec_provider import ExecProvider

    class Loader(kube_config.KubeConfigLoader):  # type: ignore[misc]
        _user: Any

        def __init__(self, **arguments: Any) -> None:
            """See that user and cluster are told, and that the files for TLS are there; runs no plugin."""
            super().__init__(**arguments)
            if self._user is None:
                user = self._current_context["context"].safe_get("user")
                if user:
                    raise ConfigError(f"the user {user} of the context is not among the users")
                self._user = kube_config.ConfigNode("users", {})  # nobody: the library expects somebody
            self._load_cluster_info()
            if "host" not in vars(self):
                raise ConfigError("the cluster of the context has no server")

        async def load_from_exec_plugin(self) -> bool:
            """Run the plugin; a failure is raised, where the library logs it and goes on as nobody."""
            plugin = ExecProvider(self._user["exec"])  # type: ignore[no-untyped-call]
            said = await kube_exec.run(plugin.args, plugin.env, plugin.api_version)
            if said.token:
                self.token = f"Bearer {said.token}"
            if said.certificate:
                self.cert_file, self.key_file = (
                    kube_config.FileOrData({"data": data}, "", "data", base64_file_content=False).as_file()
                    for data in (said.certificate, said.key)
                )
            self.exec_plugin_expiry = said.expires
            return True

    return Loader


def _bare(name: str) -> ModuleType:
    """A package that its modules can be imported from, without what its __init__ imports."""
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    if name in sys.modules:
        return sys.modules[name]
    parent, _, _ = name.rpartition(".")
    spec = PathFinder.find_spec(name, sys.modules[parent].__path__ if parent else None)
    if spec is None:
        raise ModuleNotFoundError(f"no package {name}: pip install kubernetes", name=name)
    module = sys.modules[name] = module_from_spec(spec)
    return module


def rest_client() -> ModuleType:
    """The library's HTTP client module, `kubernetes.aio.client.rest`."""
    return _parts().rest
