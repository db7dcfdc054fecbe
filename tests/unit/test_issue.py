"""relay.issue: what it makes is a certificate like any other, and a CA that is of no use is refused in one line."""

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, load_pem_private_key
from peers.certificates import (
    CLIENT,
    PKCS1,
    PKCS8,
    SERVER,
    Authority,
    authority,
    ec_key,
    key_as_pem,
    operator_authority,
    rsa_key,
    write_folder,
)

from relay import issue

NAMES = ("10.1.2.3", "fd00::3", "kubearmor.kubearmor.svc", "localhost")
NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
HOUR = dt.timedelta(hours=1)
DAY = dt.timedelta(days=1)


def folder(path: Path, ca: Authority, key_pem: bytes | None = None) -> Path:
    write_folder(path, ca)
    (path / "ca.key").write_bytes(ca.key_pem if key_pem is None else key_pem)
    return path


def made(path: Path, ca: Authority, now: dt.datetime = NOW) -> dict[str, Any]:
    return issue.issue(folder(path, ca), ["server", "client"], NAMES, now)


def certificate(made: dict[str, Any], use: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(made[use]["certificate"].encode())


def extension(of: x509.Certificate, kind: type[Any]) -> tuple[Any, bool]:
    found = of.extensions.get_extension_for_class(kind)
    return found.value, found.critical


@pytest.fixture(scope="module")
def ca() -> Authority:
    return authority(ends=800 * DAY)


@pytest.mark.parametrize(("use", "purpose"), [("server", "sslserver"), ("client", "sslclient")])
@pytest.mark.parametrize("kind", ["RSA", "EC", "operator"])
def test_openssl_verifies_what_is_made_for_its_use_and_for_each_name(
    tmp_path: Path, kind: str, use: str, purpose: str
) -> None:
    """Also below the operator's CA, whose own name it has: there is an authority key id."""
    ca = {"RSA": authority, "EC": lambda: authority(key=ec_key()), "operator": operator_authority}[kind]()
    (tmp_path / "made.pem").write_text(made(tmp_path, ca)[use]["certificate"])
    ways = ["-partial_chain"] if kind == "operator" else ["-x509_strict"]
    for name in NAMES:
        check = "-verify_hostname" if name.strip(":.0123456789abcdef") else "-verify_ip"
        command = ["openssl", "verify", *ways, "-auth_level", "2", "-purpose", purpose, check, name]
        files = ["-CAfile", str(tmp_path / "ca.crt"), str(tmp_path / "made.pem")]
        subprocess.run([*command, *files], check=True, capture_output=True)


def test_a_certificate_has_what_it_needs_and_no_more(tmp_path: Path, ca: Authority) -> None:
    both = made(tmp_path, ca)
    for use, oid in (("server", SERVER), ("client", CLIENT)):
        leaf = certificate(both, use)
        assert leaf.subject.rfc4514_string() == "CN=kubearmor,O=kubearmor"
        assert leaf.issuer == ca.certificate.subject
        assert extension(leaf, x509.BasicConstraints) == (x509.BasicConstraints(ca=False, path_length=None), True)
        usage, critical = extension(leaf, x509.KeyUsage)
        assert (usage.digital_signature, usage.key_encipherment, usage.key_cert_sign, critical) == (
            True,
            True,
            False,
            True,
        )
        assert extension(leaf, x509.ExtendedKeyUsage) == (x509.ExtendedKeyUsage([oid]), False)
        names, _ = extension(leaf, x509.SubjectAlternativeName)
        assert [str(name.value) for name in names] == list(NAMES)
        assert leaf.public_key().key_size == 2048  # type: ignore[union-attr]
        key: Any = load_pem_private_key(both[use]["key"].encode(), None)
        assert key.public_key() == leaf.public_key()
    assert both["root"] == ca.pem.decode()


def test_keys_and_serial_numbers_are_fresh(tmp_path: Path, ca: Authority) -> None:
    leafs = [certificate(both, use) for both in (made(tmp_path, ca), made(tmp_path, ca)) for use in issue.USES]
    assert len({leaf.serial_number for leaf in leafs}) == 4
    assert len({leaf.public_key().public_numbers() for leaf in leafs}) == 4  # type: ignore[union-attr]
    assert min(leaf.serial_number for leaf in leafs) > 2**64


def test_a_certificate_is_good_for_a_year_from_an_hour_ago(tmp_path: Path, ca: Authority) -> None:
    both = made(tmp_path, ca)
    leaf = certificate(both, "server")
    assert leaf.not_valid_before_utc == NOW - HOUR
    assert leaf.not_valid_after_utc == NOW + 365 * DAY
    times = [leaf.not_valid_before_utc, leaf.not_valid_after_utc, ca.certificate.not_valid_after_utc]
    assert [both[name] for name in ("begins", "ends", "root_ends")] == [int(time.timestamp()) for time in times]


def test_a_certificate_is_never_good_when_its_ca_is_not(tmp_path: Path) -> None:
    ca = authority(begins=-HOUR / 2, ends=30 * DAY)
    leaf = certificate(made(tmp_path, ca, NOW + HOUR / 4), "client")
    assert leaf.not_valid_before_utc == ca.certificate.not_valid_before_utc
    assert leaf.not_valid_after_utc == ca.certificate.not_valid_after_utc


@pytest.mark.parametrize("key", [rsa_key, ec_key])
@pytest.mark.parametrize("form", [PKCS1, PKCS8])
def test_the_key_of_the_ca_may_have_any_usual_form(tmp_path: Path, key: Any, form: Any) -> None:
    ca = authority(key=key(), key_format=form)
    leaf = certificate(made(tmp_path, ca), "server")
    leaf.verify_directly_issued_by(ca.certificate)


def test_a_key_may_have_the_parameters_of_its_curve_ahead(tmp_path: Path) -> None:
    """As `openssl ecparam -genkey` writes it."""
    ca = authority(key=ec_key())
    command = ["openssl", "ecparam", "-name", "prime256v1"]
    parameters = subprocess.run(command, check=True, capture_output=True).stdout
    assert b"EC PARAMETERS" in parameters
    path = folder(tmp_path, ca, parameters + ca.key_pem)
    certificate(issue.issue(path, ["server"], NAMES, NOW), "server").verify_directly_issued_by(ca.certificate)


def test_the_first_of_several_certificates_is_the_ca(tmp_path: Path, ca: Authority) -> None:
    folder(tmp_path, ca)
    (tmp_path / "ca.crt").write_bytes(ca.pem + authority("another").pem)
    leaf = certificate(issue.issue(tmp_path, ["server"], NAMES, NOW), "server")
    leaf.verify_directly_issued_by(ca.certificate)


def ed25519_pem() -> bytes:
    return ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PKCS8, NoEncryption())


CRT = "accepted is a PEM certificate of a CA that is in time"
KEY = "accepted is the PEM key of ca.crt, RSA (2048 bits or more) or EC, unencrypted, as PKCS#1, PKCS#8 or SEC1"
NO_CA = "not a certificate authority (basic constraints, key usage)"
BROKEN = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
BROKEN_KEY = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("ca.crt", lambda ca: None, f"cannot be read (No such file or directory): {CRT}"),
        ("ca.crt", lambda ca: b"", f"no certificate in PEM that can be read: {CRT}"),
        ("ca.crt", lambda ca: ca.key_pem, f"no certificate in PEM that can be read: {CRT}"),
        ("ca.crt", lambda ca: BROKEN, f"no certificate in PEM that can be read: {CRT}"),
        ("ca.crt", lambda ca: ca.issue().certificate_pem, f"{NO_CA}: {CRT}"),
        ("ca.key", lambda ca: None, f"cannot be read (No such file or directory): {KEY}"),
        ("ca.key", lambda ca: ca.pem, f"no private key in PEM: {KEY}"),
        ("ca.key", lambda ca: BROKEN_KEY, f"no private key in PEM that can be read: {KEY}"),
        ("ca.key", lambda ca: key_as_pem(rsa_key(), PKCS1, b"secret"), f"encrypted: {KEY}"),
        ("ca.key", lambda ca: key_as_pem(rsa_key(), PKCS8, b"secret"), f"encrypted: {KEY}"),
        ("ca.key", lambda ca: ca.issue().key_pem, f"not that of ca.crt: {KEY}"),
        ("ca.key", lambda ca: key_as_pem(ec_key()), f"not that of ca.crt: {KEY}"),
        ("ca.key", lambda ca: key_as_pem(rsa_key(1024)), f"an RSA key of 1024 bits, fewer than 2048: {KEY}"),
        ("ca.key", lambda ca: ed25519_pem(), f"neither an RSA key nor an EC key: {KEY}"),
    ],
)  # fmt: skip
def test_a_ca_of_no_use_is_refused_in_one_line(
    tmp_path: Path, ca: Authority, name: str, content: Any, text: str
) -> None:
    folder(tmp_path, ca)
    broken = content(ca)
    if broken is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(broken)
    with pytest.raises(issue.Refused) as refused:
        issue.issue(tmp_path, ["server"], NAMES, NOW)
    assert str(refused.value) == f"{tmp_path / name}: {text}"


@pytest.mark.parametrize(("offset", "text"), [(-2 * DAY, "not valid before "), (900 * DAY, "expired at ")])
def test_a_ca_out_of_its_time_is_refused(tmp_path: Path, ca: Authority, offset: dt.timedelta, text: str) -> None:
    with pytest.raises(issue.Refused, match=text) as refused:
        made(tmp_path, ca, NOW + offset)
    assert str(refused.value).startswith(f"{tmp_path / 'ca.crt'}: {text}")
    assert str(refused.value).endswith(f" UTC: {CRT}")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "relay.issue", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_process_prints_what_was_made_and_writes_nothing(tmp_path: Path, ca: Authority) -> None:
    folder(tmp_path, ca)
    before = sorted(tmp_path.iterdir())
    ended = run(str(tmp_path), "client", *NAMES)
    assert (ended.returncode, ended.stderr) == (0, "")
    printed = json.loads(ended.stdout)
    assert set(printed) == {"root", "begins", "ends", "root_ends", "client"}
    certificate(printed, "client").verify_directly_issued_by(ca.certificate)
    assert sorted(tmp_path.iterdir()) == before


def test_the_process_says_in_one_line_what_is_wrong(tmp_path: Path) -> None:
    ended = run(str(tmp_path), "server")
    file = tmp_path / "ca.crt"
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"{file}: cannot be read (No such file or directory): {CRT}\n"


def test_the_process_is_the_one_that_ends_where_memory_does_not_suffice(tmp_path: Path) -> None:
    code = (
        "import sys; from relay import issue; issue.main(sys.argv[1:]); "
        "print(open('/proc/self/oom_score_adj').read(), end='')"
    )
    command = [sys.executable, "-P", "-c", code, str(tmp_path), "server"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "1000\n"
