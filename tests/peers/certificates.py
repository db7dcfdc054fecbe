"""Certificates for tests: a well-formed CA, one as the KubeArmor operator makes it, and near misses beside their leafs.

ca = authority()
leaf = ca.issue("127.0.0.1", "localhost")                 # for both uses
write_folder(tmp_path, ca, server=leaf, client=ca.issue(usages=(CLIENT,)))
refused = NEAR_MISSES["expired"](ca, ("127.0.0.1",))      # differs from what is accepted in that alone
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVER = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
PKCS1 = PrivateFormat.TraditionalOpenSSL  # of an EC key: SEC1
PKCS8 = PrivateFormat.PKCS8
DAY = dt.timedelta(days=1)
HOUR = dt.timedelta(hours=1)

# Of the same length in DER, so that one can take the other's place.
_SHA256_WITH_RSA = bytes.fromhex("06092a864886f70d01010b")
_SHA1_WITH_RSA = bytes.fromhex("06092a864886f70d010105")

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate (with those that follow it in its chain) and its key, as PEM."""

    certificate_pem: bytes
    key_pem: bytes


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA: its certificate and key as PEM.

    Args:
        odd: its leafs are like those of the KubeArmor operator: subject and issuer are equal, there is no authority
            key id, the serial is 1.
        chain: what follows a leaf in its file, where this is no root itself.
    """

    pem: bytes
    key_pem: bytes
    odd: bool = False
    chain: bytes = b""

    @property
    def certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.pem)

    def issue(
        self,
        *names: str,
        usages: Sequence[x509.ObjectIdentifier] | None = (SERVER, CLIENT),
        common_name: str = "kubearmor",
        begins: dt.timedelta = -DAY,
        ends: dt.timedelta = 30 * DAY,
        key: Key | None = None,
        key_format: PrivateFormat = PKCS8,
        ca: bool = False,
        sha1: bool = False,
    ) -> Leaf:
        """A certificate signed with this key.

        Args:
            names: addresses and DNS names that it is for; without any it has no subjectAltName.
            usages: of its extendedKeyUsage; None for no such extension.
            common_name: of its subject; an odd authority's leafs are all "kubearmor".
            begins, ends: its time, from now.
            key: its own; a new RSA key when None.
            key_format: of its PEM.
            ca: whether it may sign certificates itself.
            sha1: sign its SHA-1.
        """
        key = key or rsa_key()
        issuer = self.certificate
        subject = issuer.subject if self.odd else name(common_name)
        builder = _begun(subject, issuer.subject, key, begins, ends, serial=1 if self.odd else None)
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(ca=ca), critical=True)
        if usages is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if not self.odd:
            builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            builder = builder.add_extension(_authority_key_id(issuer), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(list(map(_general_name, names))), False)
        signer = _loaded(self.key_pem)
        der = builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.DER)
        if sha1:
            der = _with_sha1(der, signer)
        return Leaf(_pem(der) + self.chain, key_as_pem(key, key_format))

    def intermediate(self, *, ca: bool = True) -> Authority:
        """An authority below this one; with `ca` false a mere leaf that poses as one."""
        usages = None if ca else (SERVER, CLIENT)
        below = self.issue(usages=usages, common_name="kubearmor below", ca=ca)
        return Authority(below.certificate_pem, below.key_pem, odd=self.odd, chain=below.certificate_pem)


def authority(
    common_name: str = "kubearmor CA",
    *,
    begins: dt.timedelta = -DAY,
    ends: dt.timedelta = 300 * DAY,
    key: Key | None = None,
    key_format: PrivateFormat = PKCS1,
) -> Authority:
    """A well-formed, self-signed CA."""
    key = key or rsa_key()
    subject = name(common_name)
    signed = _ca(_begun(subject, subject, key, begins, ends), key).sign(key, hashes.SHA256())
    return Authority(signed.public_bytes(Encoding.PEM), key_as_pem(key, key_format))


def operator_authority(*, begins: dt.timedelta = -DAY, ends: dt.timedelta = 300 * DAY) -> Authority:
    """A CA as the KubeArmor operator makes it: signed with a key that is thrown away, its name that of every leaf."""
    key = rsa_key()
    subject = name("kubearmor")
    signed = _ca(_begun(subject, subject, key, begins, ends, serial=1), key).sign(rsa_key(), hashes.SHA256())
    return Authority(signed.public_bytes(Encoding.PEM), key_as_pem(key, PKCS1), odd=True)


def self_signed(*names: str, common_name: str = "kubearmor") -> Leaf:
    """A certificate that nobody but its own key has signed."""
    key = rsa_key()
    subject = name(common_name)
    builder = _begun(subject, subject, key, -DAY, 30 * DAY)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage((SERVER, CLIENT)), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(map(_general_name, names))), False)
    return Leaf(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM), key_as_pem(key, PKCS8))


# What must be refused, each different in one thing alone from what the authority issues for these names and both uses.
NEAR_MISSES: dict[str, Callable[[Authority, Sequence[str]], Leaf]] = {
    # As if by the same CA: its names and key ids are right, and the signature is not.
    "signed by another key": lambda ca, names: replace(ca, key_pem=key_as_pem(rsa_key(), PKCS1)).issue(*names),
    "another CA": lambda _, names: authority("another CA").issue(*names),
    "expired": lambda ca, names: ca.issue(*names, ends=-HOUR),
    "not yet valid": lambda ca, names: ca.issue(*names, begins=HOUR),
    "wrong use": lambda ca, names: ca.issue(*names, usages=(ExtendedKeyUsageOID.CODE_SIGNING,)),
    "a leaf posing as a CA": lambda ca, names: ca.intermediate(ca=False).issue(*names),
    "signed with SHA-1": lambda ca, names: ca.issue(*names, sha1=True),
    "self-signed": lambda _, names: self_signed(*names),
}


def server_only(ca: Authority, names: Sequence[str]) -> Leaf:
    """Refused where a client's certificate is wanted."""
    return ca.issue(*names, usages=(SERVER,))


def client_only(ca: Authority, names: Sequence[str]) -> Leaf:
    """Refused where a server's certificate is wanted."""
    return ca.issue(*names, usages=(CLIENT,))


def write_folder(path: Path, ca: Authority, server: Leaf | None = None, client: Leaf | None = None) -> Path:
    """Write ca.crt, server.crt, server.key, client.crt and client.key, of those that are given; returns the folder."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "ca.crt").write_bytes(ca.pem)
    for side, leaf in (("server", server), ("client", client)):
        if leaf is not None:
            (path / f"{side}.crt").write_bytes(leaf.certificate_pem)
            (path / f"{side}.key").write_bytes(leaf.key_pem)
    return path


def swap_folder(path: Path, ca: Authority, server: Leaf, client: Leaf) -> None:
    """Write the files as the kubelet does with a projected volume: ..data comes to be another folder, all at once."""
    path.mkdir(parents=True, exist_ok=True)
    version = path / f"..{sum(each.name[2:].isdigit() for each in path.iterdir()) + 1}"
    for file in write_folder(version, ca, server, client).iterdir():
        if not (path / file.name).is_symlink():
            (path / file.name).unlink(missing_ok=True)
            (path / file.name).symlink_to(Path("..data") / file.name)
    (path / "..data_tmp").symlink_to(version.name)
    (path / "..data_tmp").rename(path / "..data")


def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """A new RSA key; 40 ms."""
    return rsa.generate_private_key(65537, bits)


def ec_key() -> ec.EllipticCurvePrivateKey:
    """A new key on the curve P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def key_as_pem(key: Key, form: PrivateFormat = PKCS8, password: bytes = b"") -> bytes:
    """A private key as PEM, encrypted where there is a password."""
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, form, encryption)


def name(common_name: str) -> x509.Name:
    """O=kubearmor and a common name, in the order that Go writes them."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "kubearmor"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _begun(
    subject: x509.Name, issuer: x509.Name, key: Key, begins: dt.timedelta, ends: dt.timedelta, serial: int | None = None
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    # One that has expired was good for a day.
    first = min(now + begins, now + ends - DAY)
    number = serial or x509.random_serial_number()
    return x509.CertificateBuilder(issuer, subject, key.public_key(), number, first, now + ends)


def _ca(builder: x509.CertificateBuilder, key: Key) -> x509.CertificateBuilder:
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(ca=True), critical=True)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=True,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_key_id(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    found = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found.value)


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _with_sha1(der: bytes, signer: Any) -> bytes:
    """The same certificate, signed with RSA over SHA-1, which the library that made it refuses to do.

    The signature is the last thing in a certificate, and as long as the key.
    """
    assert isinstance(signer, rsa.RSAPrivateKey)
    said = x509.load_der_x509_certificate(der).tbs_certificate_bytes.replace(_SHA256_WITH_RSA, _SHA1_WITH_RSA)
    around = der.replace(_SHA256_WITH_RSA, _SHA1_WITH_RSA)
    assert said in around
    return around[: -signer.key_size // 8] + signer.sign(said, padding.PKCS1v15(), hashes.SHA1())


def _loaded(key_pem: bytes) -> Any:
    return load_pem_private_key(key_pem, None)


def _pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
