"""relay.tls_flags: which of -tls-ca, -tls-cert and -tls-key go together, and what is said of a file of no use."""

from pathlib import Path

import pytest
from peers.certificates import Authority, authority, write_folder

from relay.settings import SettingsError
from relay.tls_flags import CLIENT_NEEDS, SERVER_NEEDS, load_flag_files


@pytest.fixture(scope="module")
def ca() -> Authority:
    return authority()


@pytest.fixture
def folder(tmp_path: Path, ca: Authority) -> Path:
    leaf = ca.issue("127.0.0.1")
    return write_folder(tmp_path, ca, server=leaf, client=ca.issue())


def refusal(folder: Path, *, server: bool, root: str = "", certificate: str = "", key: str = "") -> str:
    named = {"root": root, "certificate": certificate, "key": key}
    with pytest.raises(SettingsError) as refused:
        load_flag_files(server=server, **{part: name and str(folder / name) for part, name in named.items()})
    return str(refused.value).replace(f"{folder}/", "")


@pytest.mark.parametrize("server", [True, False])
def test_without_flags_there_is_no_tls(server: bool) -> None:
    assert load_flag_files(server=server, root="", certificate="", key="") is None


def test_a_client_needs_a_root_and_may_have_a_certificate(folder: Path) -> None:
    root, certificate, key = (str(folder / name) for name in ("ca.crt", "client.crt", "client.key"))
    alone = load_flag_files(server=False, root=root, certificate="", key="")
    assert alone is not None
    assert (alone.root, alone.certificate, alone.key) == ((folder / "ca.crt").read_bytes(), b"", b"")
    both = load_flag_files(server=False, root=root, certificate=certificate, key=key)
    assert both is not None
    assert both.key == (folder / "client.key").read_bytes()


def test_a_server_needs_a_certificate_and_may_have_a_root(folder: Path) -> None:
    root, certificate, key = (str(folder / name) for name in ("ca.crt", "server.crt", "server.key"))
    for given in ("", root):
        files = load_flag_files(server=True, root=given, certificate=certificate, key=key)
        assert files is not None
        assert files.tls.roots == bool(given)


@pytest.mark.parametrize(
    ("server", "given", "missing"),
    [
        (False, ["certificate", "key"], "tls-ca"),
        (False, ["root", "certificate"], "tls-key"),
        (False, ["root", "key"], "tls-cert"),
        (True, ["root"], "tls-cert"),
        (True, ["certificate"], "tls-key"),
        (True, ["key"], "tls-cert"),
    ],
)
def test_flags_that_belong_together_are_wanted_together(
    folder: Path, server: bool, given: list[str], missing: str
) -> None:
    files = {"root": "ca.crt", "certificate": "server.crt", "key": "server.key"}
    needs = SERVER_NEEDS if server else CLIENT_NEEDS
    refused = refusal(folder, server=server, **{part: files[part] for part in given})
    assert refused == f"flag -{missing} is missing: {needs}"


@pytest.mark.parametrize(
    ("files", "text"),
    [
        (["no", "server.crt", "server.key"], "flag -tls-ca: cannot read no: No such file or directory"),
        (["ca.crt", "no", "server.key"], "flag -tls-cert: cannot read no: No such file or directory"),
        (
            ["server.key", "server.crt", "server.key"],
            "flag -tls-ca: server.key: no certificate in PEM that can be read",
        ),
        (["ca.crt", "server.crt", "client.key"], "flag -tls-key: client.key: not that of the certificate"),
    ],
)
def test_a_file_of_no_use_is_named_with_its_flag(folder: Path, files: list[str], text: str) -> None:
    for server in (True, False):
        root, certificate, key = files
        assert refusal(folder, server=server, root=root, certificate=certificate, key=key) == text
