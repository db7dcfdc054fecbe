"""Elasticsearch and OpenSearch as processes on loopback; `make search-engines` fetches them."""

import base64
import contextlib
import http.client
import json
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .binaries import BUILT, ROOT
from .closing import Closing
from .command import HOST, free_port

READY = 180.0  # a bound for a busy machine; alone it takes 20 s
ENGINES = {"elasticsearch": "7.17.10", "opensearch": "2.19.1"}


def missing(name: str) -> str:
    """Why this engine cannot run here, or "" when it can."""
    if not shutil.which("java"):
        return f"no {name}: Java is not installed"
    if not (BUILT / f"{name}-{ENGINES[name]}").is_dir():
        return f"no {name}: `make search-engines` fetches it"
    return ""


class Search(Closing):
    """One engine. Its data outlive `kill` and `start`.

    Args:
        prepared: a folder of files for its configuration.
        settings: of its configuration.
        login: user name and password of `call`, which then speaks TLS.
    """

    def __init__(
        self,
        name: str,
        prepared: Path | None = None,
        settings: Mapping[str, str] | None = None,
        login: tuple[str, str] | None = None,
    ) -> None:
        self.name = name
        self.login = login
        self.port = free_port()
        self._settings = [f"-E{key}={value}" for key, value in (settings or {}).items()]
        # Not under pytest's folder, which an ordinary user may not enter.
        self.folder = Path(tempfile.mkdtemp(prefix="relay-search-"))
        self.folder.chmod(0o755)
        if prepared is not None:
            shutil.copytree(prepared, self.folder / "config")
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        """Start it on the data that are there, unless it runs, and wait until it answers."""
        if self._process is not None and self._process.poll() is None:
            return
        output = (self.folder / "output").open("ab")
        script = str(ROOT / "scripts" / "search_engines.sh")
        command = [script, "run", self.name, str(self.port), str(self.folder), *self._settings]
        with output:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        until = time.monotonic() + READY
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
                self.call("GET", "/_cluster/health?wait_for_status=yellow&timeout=5s")
                return
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError((self.folder / "output").read_text(errors="replace")[-4000:])
            time.sleep(0.2)

    def kill(self) -> None:
        """End it without a word."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(READY)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One request; the answer's JSON."""
        headers = {"Content-Type": "application/json"}
        if self.login is None:
            connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
        else:
            headers["Authorization"] = "Basic " + base64.b64encode(":".join(self.login).encode()).decode()
            unchecked = ssl._create_unverified_context()
            connection = http.client.HTTPSConnection(HOST, self.port, timeout=60, context=unchecked)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, headers)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        assert response.status < 300, f"{method} {path}: {response.status} {text.decode(errors='replace')}"
        return json.loads(text)

    def count(self, index: str) -> int:
        """Documents that a search finds now, each id once."""
        self.call("POST", f"/{index}/_refresh")
        return int(self.call("GET", f"/{index}/_count")["count"])

    def holds_each(self, index: str, field: str, count: int) -> bool:
        """Whether an index has `count` documents, in which a field has the numbers 0 to `count` - 1, each once."""
        query = {"size": 0, "track_total_hits": True, "aggs": {"numbers": {"extended_stats": {"field": field}}}}
        self.call("POST", f"/{index}/_refresh")
        found = self.call("POST", f"/{index}/_search", query)
        documents, numbers = found["hits"]["total"]["value"], found["aggregations"]["numbers"]
        got = (documents, *(numbers[name] for name in ("count", "min", "max", "sum", "sum_of_squares")))
        every = range(count)
        wanted = (count, count, 0, count - 1, sum(every), sum(number * number for number in every))
        assert got == wanted, f"{got} instead of {wanted}"
        return True

    def set_cluster(self, name: str, value: Any) -> None:
        """Change a setting of the cluster; None is its default."""
        self.call("PUT", "/_cluster/settings", {"persistent": {name: value}})

    def clear(self) -> None:
        """Without the tests' indices, templates and settings."""
        for name in ("action.auto_create_index", "cluster.max_shards_per_node"):
            self.set_cluster(name, None)
        with contextlib.suppress(AssertionError):
            self.call("PUT", "/_all/_settings", {"index.blocks.read_only_allow_delete": None})
        for name in self.call("GET", "/_cat/indices/test-*?format=json"):
            self.call("DELETE", f"/{name['index']}")
        for name in ("relay-*", "test-*"):
            with contextlib.suppress(AssertionError):  # there is none
                self.call("DELETE", f"/_index_template/{name}")

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
