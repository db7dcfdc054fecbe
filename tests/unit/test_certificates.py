"""relay.certificates: the files of a folder, all of one moment, and what a process makes of a CA."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from peers.certificates import authority, write_folder

from relay.certificates import LARGEST_BYTES, READS, External, Material, Pair, Self, Span
from relay.settings import SettingsError

FILES = {
    name: f"content of {name}".encode() for name in ("ca.crt", "server.crt", "server.key", "client.crt", "client.key")
}
SERVER = Pair(FILES["server.crt"], FILES["server.key"])
CLIENT = Pair(FILES["client.crt"], FILES["client.key"])
YEAR = 365 * 86400


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def external(folder: Path, *, server: bool = True, client: bool = True, root: bool = True) -> External:
    return External(folder, server=server, client=client, root=root)


def refusal(provider: External | Self) -> str:
    with pytest.raises(SettingsError) as refused:
        provider.obtain()
    text = str(refused.value)
    assert "\n" not in text
    return text


# --- files --------------------------------------------------------------------------------


def test_the_files_are_read(folder: Path) -> None:
    assert external(folder).obtain() == Material(FILES["ca.crt"], SERVER, CLIENT)


@pytest.mark.parametrize(
    ("server", "client", "root", "needed"),
    [
        (True, True, True, list(FILES)),
        (True, False, True, ["ca.crt", "server.crt", "server.key"]),
        (True, False, False, ["server.crt", "server.key"]),
        (False, True, True, ["ca.crt", "client.crt", "client.key"]),
    ],
)
def test_only_files_that_are_needed_are_looked_at(
    folder: Path, server: bool, client: bool, root: bool, needed: Sequence[str]
) -> None:
    for name in set(FILES) - set(needed):
        (folder / name).unlink()
    provider = external(folder, server=server, client=client, root=root)
    material = provider.obtain()
    assert (material.root != b"", material.server, material.client) == (
        root,
        SERVER if server else None,
        CLIENT if client else None,
    )
    for name in needed:
        before = provider.look()
        (folder / name).unlink()
        assert provider.look() != before
        assert refusal(provider).startswith(
            f"{folder / name}: cannot be read (No such file or directory): accepted is "
        )
        (folder / name).write_bytes(FILES[name])


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        ("ca.crt", "the PEM certificate of a CA"),
        ("server.crt", "a PEM certificate for serverAuth, then its intermediates"),
        ("server.key", "the PEM key of server.crt, unencrypted, as PKCS#1, PKCS#8 or SEC1"),
        ("client.crt", "a PEM certificate for clientAuth, then its intermediates"),
        ("client.key", "the PEM key of client.crt, unencrypted, as PKCS#1, PKCS#8 or SEC1"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_what_is_accepted(folder: Path, name: str, accepted: str) -> None:
    file = folder / name
    cases: dict[str, Callable[[], object]] = {
        "cannot be read (No such file or directory)": lambda: None,
        "not a regular file": file.mkdir,
        f"more than {LARGEST_BYTES} bytes": lambda: file.write_bytes(bytes(LARGEST_BYTES + 1)),
        "cannot be read (Too many levels of symbolic links)": lambda: file.symlink_to(file),
    }
    for reason, make in cases.items():
        file.rmdir() if file.is_dir() else file.unlink()
        make()
        assert refusal(external(folder)) == f"{file}: {reason}: accepted is {accepted}"
        if not os.path.lexists(file):
            file.touch()


def test_a_pipe_does_not_keep_anybody_waiting(folder: Path) -> None:
    (folder / "server.key").unlink()
    os.mkfifo(folder / "server.key")
    assert "not a regular file" in refusal(external(folder))


def test_reading_leaves_no_descriptor_open(folder: Path) -> None:
    (folder / "client.key").unlink()
    (folder / "client.key").mkdir()
    before = len(list(Path("/proc/self/fd").iterdir()))
    refusal(external(folder))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# --- changes ------------------------------------------------------------------------------


def test_a_look_is_the_same_while_nothing_changes(folder: Path) -> None:
    assert external(folder).look() == external(folder).look()


@pytest.mark.parametrize("name", FILES)
def test_each_change_of_a_file_is_seen(folder: Path, name: str) -> None:
    provider, file = external(folder), folder / name
    other = folder / "other"
    other.write_bytes(FILES[name])
    changes: list[Callable[[], object]] = [
        lambda: file.write_bytes(b"other"),
        lambda: other.replace(file),
        lambda: file.chmod(0o600),
        lambda: os.utime(file, ns=(1, 1)),
        file.unlink,
    ]
    looks = [provider.look()]
    for change in changes:
        change()
        looks.append(provider.look())
    assert len(set(looks)) == len(looks)


def project(volume: Path, name: str, files: dict[str, bytes]) -> None:
    """Put files into a volume as the kubelet does: a folder for each version, and a link that is swapped."""
    (volume / name).mkdir(parents=True)
    for file, content in files.items():
        (volume / name / file).write_bytes(content)
        if not (volume / file).is_symlink():
            (volume / file).symlink_to(Path("..data") / file)
    (volume / "..data_tmp").symlink_to(name)
    (volume / "..data_tmp").rename(volume / "..data")


def test_the_swap_of_a_projected_volume_is_seen_and_read(tmp_path: Path) -> None:
    project(tmp_path, "..1", FILES)
    provider = external(tmp_path)
    before = provider.look()
    new = {name: content + b", new" for name, content in FILES.items()}
    project(tmp_path, "..2", new)
    assert provider.look() != before
    assert provider.obtain().server == Pair(new["server.crt"], new["server.key"])


def test_files_that_are_swapped_while_they_are_read_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or else an old certificate could meet a new key."""
    project(tmp_path, "..1", FILES)
    new = {name: content + b", new" for name, content in FILES.items()}
    opened = os.open
    swaps = [lambda: project(tmp_path, "..2", new)]

    def swapping(path: Any, flags: int, *rest: Any) -> int:
        descriptor = opened(path, flags, *rest)
        if Path(path).name == "server.crt" and swaps:
            swaps.pop()()
        return descriptor

    monkeypatch.setattr(os, "open", swapping)
    assert external(tmp_path).obtain() == Material(
        new["ca.crt"], Pair(new["server.crt"], new["server.key"]), Pair(new["client.crt"], new["client.key"])
    )


def test_files_that_never_stand_still_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, times = os.open, []

    def touching(path: Any, flags: int, *rest: Any) -> int:
        if Path(path).name == "ca.crt":
            times.append(path)
            os.utime(path, ns=(len(times), len(times)))
        return opened(path, flags, *rest)

    monkeypatch.setattr(os, "open", touching)
    assert refusal(external(folder)) == (f"{folder} changes while it is read: accepted are files that belong together")
    assert len(times) == READS


def test_the_digest_tells_materials_apart() -> None:
    materials = [
        Material(),
        Material(b"a"),
        Material(b"", Pair(b"a", b"")),
        Material(b"", Pair(b"", b"a")),
        Material(b"", None, Pair(b"a", b"")),
        Material(b"a", Pair(b"b", b"c"), Pair(b"d", b"e")),
        Material(b"ab", Pair(b"", b"c"), Pair(b"d", b"e")),
    ]
    assert len({material.digest() for material in materials}) == len(materials)
    assert Material(b"a", fresh=Span(0, 1)).digest() == Material(b"a").digest()


def test_a_key_is_not_printed() -> None:
    assert "secret" not in repr(Material(b"a", Pair(b"b", b"secret"), Pair(b"b", b"secret")))


# --- self ---------------------------------------------------------------------------------


def issuer(folder: Path, *command: str, server: bool = True, client: bool = True) -> Self:
    given = {"command": command} if command else {}
    return Self(folder, lambda: ("localhost", "10.0.0.1"), server=server, client=client, **given)


def saying(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", f"import sys, json; {code}")


def test_certificates_are_made_from_the_ca_of_the_folder(tmp_path: Path) -> None:
    from cryptography import x509

    ca = authority()
    write_folder(tmp_path, ca)
    (tmp_path / "ca.key").write_bytes(ca.key_pem)
    material = issuer(tmp_path).obtain()
    assert material.root == ca.pem
    for pair in (material.server, material.client):
        assert pair is not None
        leaf = x509.load_pem_x509_certificate(pair.certificate)
        leaf.verify_directly_issued_by(ca.certificate)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [str(name.value) for name in names] == ["localhost", "10.0.0.1"]
    assert issuer(tmp_path, server=False).obtain().server is None
    assert issuer(tmp_path, client=False).obtain().client is None


@pytest.mark.parametrize(("root_ends", "until"), [(YEAR + 1, YEAR * 2 / 3), (YEAR, float("inf"))])
def test_what_was_made_is_made_anew_at_two_thirds_of_its_life_unless_it_ends_with_its_ca(
    tmp_path: Path, root_ends: int, until: float
) -> None:
    made = {"root": "", "begins": 1000, "ends": 1000 + YEAR, "root_ends": 1000 + root_ends}
    material = issuer(tmp_path, *saying(f"print({json.dumps(made)!r})")).obtain()
    assert material.fresh == Span(1000, 1000 + until)


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (saying("sys.exit('ca.key is wrong: accepted is another')"), "ca.key is wrong: accepted is another"),
        (saying("raise ValueError('first')"), "ValueError: first"),
        (saying("sys.exit(3)"), "exit code 3"),
        (saying("sys.stderr.write('x' * 1000); sys.exit(1)"), "x" * 500),
        (("/no/such/program",), "[Errno 2] No such file or directory: '/no/such/program'"),
    ],
)
def test_a_process_that_fails_is_told_of_in_one_line(tmp_path: Path, command: tuple[str, ...], text: str) -> None:
    assert refusal(issuer(tmp_path, *command)) == f"certificates cannot be made: {text}"


def test_a_process_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.certificates.ISSUE_SECONDS", 0.1)
    command = saying("import signal; signal.pause()")
    assert refusal(issuer(tmp_path, *command)) == "certificates were not made within 0 s"


def test_a_change_of_the_ca_is_seen(tmp_path: Path) -> None:
    provider = issuer(tmp_path)
    looks = [provider.look()]
    for name in ("ca.crt", "ca.key"):
        (tmp_path / name).touch()
        looks.append(provider.look())
    assert len(set(looks)) == 3
