"""Certificates from a CA's key, for -tlsCertProvider=self: `python -m relay.issue FOLDER USE[,USE] [NAME…]`.

A process of its own (0.15 s of CPU, 29 MiB), because `cryptography` would take 8 MiB of the serving process for
good, and so that the CA's key is never in the memory of a process that talks to strangers. It prints JSON (see
`issue`) and writes nothing else. What is wrong is one line on standard error, and exit code 1.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
import sys
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

KEY_BITS = 2048  # as the Go relay; makes one in 40 ms
LIFE = dt.timedelta(days=365)
# Machines whose clocks are a little behind accept it, too.
BACK_DATED = dt.timedelta(hours=1)
USES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}

# A key as `openssl ecparam -genkey` writes it has its curve's parameters in a block ahead.
_KEY_BLOCK = re.compile(rb"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)

CaKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class Refused(Exception):
    """A CA that cannot be used; the text is one line."""


def issue(folder: Path, uses: Sequence[str], names: Sequence[str], now: dt.datetime) -> dict[str, Any]:
    """Make a certificate with a fresh key for each use.

    Args:
        folder: holds ca.crt and ca.key.
        uses: of USES.
        names: addresses and DNS names that the certificates are for.
        now: the time.
    Returns:
        "root": the text of ca.crt; "begins", "ends": the time of what was made, "root_ends": of the CA, in seconds
        since the epoch; and for each use "certificate" and "key", PEM (PKCS#8).
    Raises:
        Refused: the CA's certificate or key is not to be had, or not to be used.
    """
    root_file, key_file = folder / "ca.crt", folder / "ca.key"
    root_pem = _content(root_file)
    root = _certificate(root_file, root_pem, now)
    key = _key(key_file, _content(key_file), root)
    begins = max(now - BACK_DATED, root.not_valid_before_utc).replace(microsecond=0)
    ends = min(now + LIFE, root.not_valid_after_utc).replace(microsecond=0)
    made: dict[str, Any] = {
        "root": root_pem.decode(errors="replace"),
        "begins": int(begins.timestamp()),
        "ends": int(ends.timestamp()),
        "root_ends": int(root.not_valid_after_utc.timestamp()),
    }
    for use in uses:
        own = rsa.generate_private_key(65537, KEY_BITS)
        certificate = _builder(root, own.public_key(), use, names, begins, ends).sign(key, hashes.SHA256())
        made[use] = {
            "certificate": certificate.public_bytes(Encoding.PEM).decode(),
            "key": own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        }
    return made


def _builder(
    root: x509.Certificate,
    public: rsa.RSAPublicKey,
    use: str,
    names: Sequence[str],
    begins: dt.datetime,
    ends: dt.datetime,
) -> x509.CertificateBuilder:
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "kubearmor"),
            x509.NameAttribute(NameOID.COMMON_NAME, "kubearmor"),
        ]
    )
    number = x509.random_serial_number()
    builder = x509.CertificateBuilder(root.subject, subject, public, number, begins, ends)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_encipherment=True,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (usage, True),
        (x509.ExtendedKeyUsage([USES[use]]), False),
        (x509.SubjectKeyIdentifier.from_public_key(public), False),
        # Its absence is what makes OpenSSL take a certificate with the CA's own name for a self-signed one.
        (_authority_key_id(root), False),
    ]
    if names:
        extensions.append((x509.SubjectAlternativeName([_general_name(name) for name in names]), False))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder


def _authority_key_id(root: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    found = _extension(root, x509.SubjectKeyIdentifier)
    if found is not None:
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found)
    public: Any = root.public_key()
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(public)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


# --- the CA ---------------------------------------------------------------------------


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise _refused(file, f"cannot be read ({error.strerror})") from None


def _certificate(file: Path, pem: bytes, now: dt.datetime) -> x509.Certificate:
    """The first certificate of a file, which must be a CA's and in time."""
    try:
        root = x509.load_pem_x509_certificate(pem)
        constraints = _extension(root, x509.BasicConstraints)
        usage = _extension(root, x509.KeyUsage)
    except ValueError:
        raise _refused(file, "no certificate in PEM that can be read") from None
    if constraints is None or not constraints.ca or (usage is not None and not usage.key_cert_sign):
        raise _refused(file, "not a certificate authority (basic constraints, key usage)")
    if now < root.not_valid_before_utc:
        raise _refused(file, f"not valid before {root.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC")
    if now >= root.not_valid_after_utc:
        raise _refused(file, f"expired at {root.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC")
    return root


def _extension(root: x509.Certificate, kind: type[Any]) -> Any:
    with contextlib.suppress(x509.ExtensionNotFound):
        return root.extensions.get_extension_for_class(kind).value
    return None


def _key(file: Path, pem: bytes, root: x509.Certificate) -> CaKey:
    """The key of a CA's certificate."""
    block = _KEY_BLOCK.search(pem)
    if block is None:
        raise _refused(file, "no private key in PEM")
    try:
        key = load_pem_private_key(block[0], None)
    except TypeError:
        raise _refused(file, "encrypted") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _refused(file, "no private key in PEM that can be read") from None
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise _refused(file, "neither an RSA key nor an EC key")
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < KEY_BITS:
        raise _refused(file, f"an RSA key of {key.key_size} bits, fewer than {KEY_BITS}")
    if _public(key) != _public(root):
        raise _refused(file, "not that of ca.crt")
    return key


def _public(of: Any) -> bytes:
    encoded: bytes = of.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


_ACCEPTED = {
    "ca.crt": "a PEM certificate of a CA that is in time",
    "ca.key": "the PEM key of ca.crt, RSA (2048 bits or more) or EC, unencrypted, as PKCS#1, PKCS#8 or SEC1",
}


def _refused(file: Path, reason: str) -> Refused:
    return Refused(f"{file}: {reason}: accepted is {_ACCEPTED[file.name]}")


# --- the process ----------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """Print what `issue` returns; returns the exit code."""
    # Where the pod's memory does not suffice for both, the kernel should end this process and not the relay.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    folder, uses, *names = arguments
    try:
        made = issue(Path(folder), uses.split(","), names, dt.datetime.now(dt.UTC))
    except Refused as error:
        print(error, file=sys.stderr)
        return 1
    json.dump(made, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
