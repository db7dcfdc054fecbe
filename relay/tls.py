"""What the engine speaks TLS with: made from certificates and keys, as the settings want it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relay.certificates import ROOT, External, Material, Pair, Provider, Self, Span, unusable
from relay.own_names import own_names
from relay.settings import Settings, SettingsError

# What relay._fastpath.Tls is; a test gives another.
Factory = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which sides speak TLS, and who may come: from the settings."""

    subscribers: bool
    nodes: bool
    client_auth: str
    allow: tuple[str, ...]
    kernel: bool = True


@dataclass(frozen=True, slots=True)
class Certificates:
    """Both sides, to be taken into use together."""

    server: Any  # relay._fastpath.Tls with subscribers; None for plain text
    client: Any  # with nodes
    # When each ends, in seconds since the epoch: "ca", "server", "client".
    ends: Mapping[str, int]
    # How many certificates ca.crt holds; 0 where nobody is verified.
    roots: int
    # Of what they were made from.
    digest: bytes
    # When others are to be made; None where that is not for time to say.
    fresh: Span | None


def wanted_tls(settings: Settings) -> Wanted:
    """What the settings want."""
    return Wanted(
        subscribers=settings.is_tls_to_subscribers,
        nodes=settings.is_tls_to_nodes,
        client_auth=settings.tls_client_auth,
        allow=settings.tls_allow,
        kernel=settings.tls_kernel == "auto",
    )


def make_provider(settings: Settings, environment: Mapping[str, str]) -> Provider:
    """What gives the certificates that the settings want."""
    folder = Path(settings.tls_cert_path)
    server, client = settings.is_tls_to_subscribers, settings.is_tls_to_nodes
    if settings.tls_cert_provider == "self":
        return Self(folder, lambda: own_names(environment, settings.namespace), server=server, client=client)
    root = client or settings.tls_client_auth != "none"
    return External(folder, server=server, client=client, root=root)


def make_certificates(wanted: Wanted, material: Material, folder: Path, tls: Factory) -> Certificates:
    """Check certificates and keys, and make of them what the engine uses.

    Args:
        wanted: which sides, and who may come.
        material: certificates and keys of at least those sides.
        folder: where they are from, for the text of an error.
        tls: relay._fastpath.Tls.
    Raises:
        SettingsError: one of them cannot be used; the text names its file, what is wrong and what is accepted.
    """
    server = client = None
    ends: dict[str, int] = {}
    root = material.root if wanted.client_auth != "none" else b""
    if material.server is not None:
        ends["server"] = _end(folder, "server", tls, material.server)
        who = {"client_auth": wanted.client_auth, "allow": wanted.allow, "kernel": wanted.kernel}
        server = _made(folder, "server", tls, server=True, root=root, **material.server._asdict(), **who)
    if material.client is not None:
        ends["client"] = _end(folder, "client", tls, material.client)
        client = _made(
            folder, "client", tls, server=False, root=material.root, kernel=wanted.kernel, **material.client._asdict()
        )
    verifier = client if client is not None else server
    if material.root:
        ends["ca"] = _made(folder, "client", tls, server=False, root=material.root).expires
    return Certificates(
        server, client, ends, verifier.roots if verifier is not None else 0, material.digest(), material.fresh
    )


def _end(folder: Path, side: str, tls: Factory, pair: Pair) -> int:
    """When a certificate, or one of its chain, ends: an engine's Tls knows that for all that it has."""
    return int(_made(folder, side, tls, server=True, client_auth="none", **pair._asdict()).expires)


def _made(folder: Path, side: str, tls: Factory, **given: Any) -> Any:
    try:
        return tls(**given)
    except MemoryError as error:
        raise SettingsError(f"{folder}: {error}") from None
    except ValueError as error:
        part, _, reason = str(error).partition(": ")
        names = {"certificate": f"{side}.crt", "key": f"{side}.key", "root": ROOT}
        if part not in names:
            raise SettingsError(f"{folder}: {error}") from None
        raise unusable(folder / names[part], reason) from None
