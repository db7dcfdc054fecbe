"""What a search engine is behind: TLS and a password, its own or those of an nginx in front of it."""

import base64
import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .closing import Closing
from .command import HOST, free_port
from .search import READY, Search

USER = "relay"
_CONFIGURATION = """\
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {host}:{port} {tls};
        client_max_body_size {largest};
        {access}
        location / {{ proxy_pass http://{host}:{inner}; }}
    }}
}}
"""


def make_certificate(folder: Path, name: str) -> Path:
    """A certificate of its own for 127.0.0.1: <name>.crt, with its key in <name>.key."""
    path = folder / f"{name}.crt"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"),
            *("-addext", f"subjectAltName=IP:{HOST}", "-keyout", str(path.with_suffix(".key")), "-out", str(path)),
        ],
        check=True,
        capture_output=True,
    )
    path.with_suffix(".key").chmod(0o644)
    return path


class Front(Closing):
    """nginx before a port.

    Args:
        certificate: with it TLS, and the password of `set_password` is wanted.
        largest: bytes of a request, above which the answer is 413.
    """

    def __init__(self, inner: int, *, certificate: Path | None = None, largest: str = "0") -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="relay-front-"))
        self.folder.chmod(0o755)
        tls = access = ""
        if certificate is not None:
            tls = "ssl"
            access = (
                f"ssl_certificate {certificate}; ssl_certificate_key {certificate.with_suffix('.key')};"
                f'auth_basic "search"; auth_basic_user_file {self.folder}/users;'
            )
        text = _CONFIGURATION.format(
            folder=self.folder, host=HOST, port=self.port, inner=inner, tls=tls, largest=largest, access=access,
            user="user root;" if os.geteuid() == 0 else "",
        )  # fmt: skip
        (self.folder / "nginx.conf").write_text(text)
        self._process = subprocess.Popen(
            [program(), "-e", str(self.folder / "error.log"), "-c", str(self.folder / "nginx.conf")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + READY
        while not (self.folder / "nginx.pid").exists() or not (self.folder / "nginx.pid").read_text():
            if self._process.poll() is not None or time.monotonic() > until:
                text = (self.folder / "error.log").read_text(errors="replace")
                self.close()
                raise RuntimeError(text)
            time.sleep(0.01)

    def set_password(self, password: str) -> None:
        """What USER must say from the next request on."""
        _replace(self.folder / "users", f"{USER}:{{PLAIN}}{password}\n")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(READY)
        shutil.rmtree(self.folder, ignore_errors=True)


def program() -> str:
    """nginx, which may be in a folder that is not for everybody; "" without."""
    folders = [os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]
    return shutil.which("nginx", path=os.pathsep.join(folders)) or ""


class Guarded:
    """A search engine that wants TLS and a password."""

    def __init__(self, port: int, search: Search, certificate: Path, users: Path | None, front: Front | None) -> None:
        self.port = port
        self.search = search  # where documents are counted
        self.certificate = certificate
        self._users = users
        self._front = front

    def set_password(self, password: str) -> None:
        """What USER must say, from now on or some seconds later."""
        if self._front is not None:
            self._front.set_password(password)
        if self._users is not None:
            _replace(self._users, users_line(password))
            self.search.login = (USER, password)


def users_line(password: str) -> str:
    """A line of the file realm of Elasticsearch."""
    salt = os.urandom(32)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 1000, 32)
    return f"{USER}:{{PBKDF2}}1000${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}\n"


@contextlib.contextmanager
def guarded(search: Search, folder: Path, password: str) -> Iterator[Guarded]:
    """Elasticsearch with its own security; the OpenSearch of the tests comes without, so it has an nginx before it."""
    if search.name == "opensearch":
        certificate = make_certificate(folder, "front")
        with Front(search.port, certificate=certificate) as front:
            front.set_password(password)
            yield Guarded(front.port, search, certificate, None, front)
        return
    prepared = folder / "config"
    prepared.mkdir()
    certificate = make_certificate(prepared, "http")
    (prepared / "users").write_text(users_line(password))
    (prepared / "users_roles").write_text(f"superuser:{USER}\n")
    settings = {
        "xpack.security.enabled": "true",
        "xpack.security.http.ssl.enabled": "true",
        "xpack.security.http.ssl.key": "http.key",
        "xpack.security.http.ssl.certificate": "http.crt",
    }
    with Search(search.name, prepared, settings, (USER, password)) as secure:
        yield Guarded(secure.port, secure, certificate, secure.folder / "config" / "users", None)


def _replace(path: Path, text: str) -> None:
    """A file is whole at any time, and its reader's."""
    beside = path.with_name(f".{path.name}")
    beside.write_text(text)
    beside.chmod(0o644)
    beside.replace(path)
