"""Certificates and keys that the flags -tls-ca, -tls-cert and -tls-key of a command name, each a file."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from relay import _fastpath
from relay.settings import SettingsError

FLAGS = {"root": "tls-ca", "certificate": "tls-cert", "key": "tls-key"}
CLIENT_NEEDS = "accepted are -tls-ca alone, or with -tls-cert and -tls-key"
SERVER_NEEDS = "accepted are -tls-cert and -tls-key, alone or with -tls-ca"


class FlagFiles(NamedTuple):
    """What the files hold, PEM (empty where there is no flag), and what an engine makes of them."""

    root: bytes
    certificate: bytes
    key: bytes
    tls: _fastpath.Tls


def load_flag_files(*, server: bool, root: str, certificate: str, key: str) -> FlagFiles | None:
    """Read the files, and see that they can be used; None without any.

    Args:
        server: our part.
        root: the file of -tls-ca; empty without the flag. So the others.
        certificate: that of -tls-cert.
        key: that of -tls-key.
    Raises:
        SettingsError: a flag is missing, or a file cannot be read or used.
    """
    paths = {"root": root, "certificate": certificate, "key": key}
    if not any(paths.values()):
        return None
    needed = {"certificate", "key"} if server or certificate or key else {"root"}
    if not server:
        needed.add("root")
    for part, flag in FLAGS.items():
        if part in needed and not paths[part]:
            raise SettingsError(f"flag -{flag} is missing: {SERVER_NEEDS if server else CLIENT_NEEDS}")
    root_pem, certificate_pem, key_pem = (_read(part, path) for part, path in paths.items())
    try:
        tls = _fastpath.Tls(
            server=server,
            certificate=certificate_pem,
            key=key_pem,
            root=root_pem,
            client_auth="require" if root else "none",
        )
    except ValueError as error:
        part, _, reason = str(error).partition(": ")
        raise SettingsError(f"flag -{FLAGS[part]}: {paths[part]}: {reason}") from None
    return FlagFiles(root_pem, certificate_pem, key_pem, tls)


def _read(part: str, path: str) -> bytes:
    if not path:
        return b""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"flag -{FLAGS[part]}: cannot read {path}: {error.strerror}") from None
