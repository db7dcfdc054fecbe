"""A bulk API that takes everything, in a thread: for processes that must not wait for a real one, or for each other."""

import gzip
import http.server
import json
import sys
import threading

from .closing import Closing
from .command import HOST


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, address: object) -> None:
        """A peer that has gone away is no news."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, address)  # type: ignore[arg-type]


class BulkServer(Closing):
    """Counts the ids that it was given. Without `answers` it reads requests, and says nothing."""

    def __init__(self, *, answers: bool = True) -> None:
        self.ids: set[str] = set()
        self.paths: set[str] = set()
        self._ended = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if not answers:
                    outer._ended.wait()
                    self.close_connection = True
                    return
                if self.headers["Content-Encoding"] == "gzip":
                    body = gzip.decompress(body)
                ids = [json.loads(line)["index"]["_id"] for line in body.splitlines()[::2]]
                outer.ids.update(ids)
                outer.paths.add(self.path.partition("?")[0])
                answer = json.dumps({"items": [{"index": {"status": 201}}] * len(ids)}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = _Server((HOST, 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def close(self) -> None:
        self._ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


if __name__ == "__main__":
    with BulkServer() as served:
        print(served.port, flush=True)
        sys.stdin.read()
