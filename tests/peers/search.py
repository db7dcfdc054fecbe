"""Elasticsearch and OpenSearch as processes on loopback; `make search-engines` fetches them."""

import contextlib
import http.client
import json
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .binaries import BUILT, ROOT
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


class Search:
    """One engine. Its data outlive `kill` and `start`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = free_port()
        # Not under pytest's folder, which an ordinary user may not enter.
        self.folder = Path(tempfile.mkdtemp(prefix="relay-search-"))
        self.folder.chmod(0o755)
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
        """Start it on the data that are there, and wait until it answers."""
        output = (self.folder / "output").open("ab")
        script = str(ROOT / "scripts" / "search_engines.sh")
        command = [script, "run", self.name, str(self.port), str(self.folder)]
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
        connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json"})
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

    def distinct(self, index: str, field: str) -> int:
        """Different values of a keyword field, up to 40,000 exactly."""
        query = {"size": 0, "aggs": {"values": {"cardinality": {"field": field, "precision_threshold": 40000}}}}
        return int(self.call("POST", f"/{index}/_search", query)["aggregations"]["values"]["value"])

    def clear(self) -> None:
        """Without the tests' indices and templates."""
        with contextlib.suppress(AssertionError):
            self.call("PUT", "/_all/_settings", {"index.blocks.read_only_allow_delete": None})
        for name in self.call("GET", "/_cat/indices/test-*?format=json"):
            self.call("DELETE", f"/{name['index']}")
        with contextlib.suppress(AssertionError):  # there is none
            self.call("DELETE", "/_index_template/relay-*")

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
