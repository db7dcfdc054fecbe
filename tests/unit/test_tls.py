"""relay.tls: from settings, certificates and keys to what the engine speaks TLS with; errors name the file."""

from pathlib import Path
from typing import Any

import pytest

from relay.certificates import External, Material, Pair, Self, Span
from relay.settings import Settings, SettingsError, flag_layers, load
from relay.tls import Wanted, make_certificates, make_provider, wanted_tls

FOLDER = Path("/tls")
SERVER = Pair(b"server.crt", b"server.key")
CLIENT = Pair(b"client.crt", b"client.key")
ENDS = {b"ca.crt": 3000, b"server.crt": 2000, b"client.crt": 1000}


class Tls:
    """What the extension's Tls is told, and what it answers."""

    def __init__(self, **given: Any) -> None:
        self.given = given
        ends = [ENDS[given[part]] for part in ("certificate", "root") if given.get(part)]
        self.expires = min(ends)
        self.roots = 1


def settings(*words: str) -> Settings:
    return load(Settings, flag_layers(words, Settings))


def wanted(**changes: Any) -> Wanted:
    return Wanted(**{"subscribers": True, "nodes": True, "client_auth": "require", "allow": (), **changes})


@pytest.mark.parametrize(
    ("words", "subscribers", "nodes"),
    [
        (["-tlsEnabled"], True, True),
        (["-tlsEnabled", "-tls-nodes=off"], True, False),
        (["-tlsEnabled", "-tls-subscribers=off"], False, True),
        (["-tls-nodes=on"], False, True),
        (["-tls-subscribers=on"], True, False),
        (["-tlsEnabled=false", "-tls-subscribers=on", "-tls-nodes=on"], True, True),
        ([], False, False),
        (["-tls-nodes=off", "-tls-subscribers=auto"], False, False),
    ],
)
def test_each_side_speaks_tls_as_it_is_told_or_else_as_tls_enabled(
    words: list[str], subscribers: bool, nodes: bool
) -> None:
    assert wanted_tls(settings(*words)) == wanted(subscribers=subscribers, nodes=nodes)


def test_who_may_come_is_a_setting() -> None:
    asked = wanted_tls(settings("-tlsEnabled", "-tls-client-auth=require", "-tls-allow=siem, otel.monitoring.svc"))
    assert asked == wanted(allow=("siem", "otel.monitoring.svc"))


def test_the_kernel_can_be_kept_out() -> None:
    assert wanted_tls(settings("-tlsEnabled", "-tls-kernel=off")) == wanted(kernel=False)


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (["-tlsEnabled"], ["ca.crt", "server.crt", "server.key", "client.crt", "client.key"]),
        (["-tlsEnabled", "-tls-client-auth=none"], ["ca.crt", "server.crt", "server.key", "client.crt", "client.key"]),
        (["-tls-subscribers=on"], ["ca.crt", "server.crt", "server.key"]),
        (["-tls-subscribers=on", "-tls-client-auth=request"], ["ca.crt", "server.crt", "server.key"]),
        (["-tls-subscribers=on", "-tls-client-auth=none"], ["server.crt", "server.key"]),
        (["-tls-nodes=on"], ["ca.crt", "client.crt", "client.key"]),
        (["-tlsEnabled", "-tlsCertProvider=self"], ["ca.crt", "ca.key"]),
        (["-tls-subscribers=on", "-tls-client-auth=none", "-tlsCertProvider=self"], ["ca.crt", "ca.key"]),
    ],
)
def test_what_is_needed_depends_on_the_mode(tmp_path: Path, words: list[str], files: list[str]) -> None:
    provider = make_provider(settings(f"-tlsCertPath={tmp_path}", *words), {})
    assert isinstance(provider, Self if "-tlsCertProvider=self" in words else External)
    assert provider.folder == tmp_path
    for name in ("ca.crt", "ca.key", "server.crt", "server.key", "client.crt", "client.key"):
        before = provider.look()
        (tmp_path / name).touch()
        assert (provider.look() != before) is (name in files), name


def test_both_sides_are_made_as_the_settings_want_them() -> None:
    made = make_certificates(
        wanted(client_auth="request", allow=("siem",), kernel=False),
        Material(b"ca.crt", SERVER, CLIENT, Span(1, 2)),
        FOLDER,
        Tls,
    )
    assert made.server.given == {
        "server": True,
        "certificate": b"server.crt",
        "key": b"server.key",
        "root": b"ca.crt",
        "client_auth": "request",
        "allow": ("siem",),
        "kernel": False,
    }
    assert made.client.given == {
        "server": False,
        "certificate": b"client.crt",
        "key": b"client.key",
        "root": b"ca.crt",
        "kernel": False,
    }
    assert (made.roots, made.fresh) == (1, Span(1, 2))
    assert made.ends == {"ca": 3000, "server": 2000, "client": 1000}


def test_a_server_that_asks_for_no_certificates_has_no_root() -> None:
    made = make_certificates(wanted(client_auth="none"), Material(b"ca.crt", SERVER, CLIENT), FOLDER, Tls)
    assert made.server.given["root"] == b""
    assert made.client.given["root"] == b"ca.crt"


def test_a_side_without_tls_has_nothing() -> None:
    one = make_certificates(wanted(nodes=False), Material(b"ca.crt", SERVER), FOLDER, Tls)
    assert (one.client, set(one.ends)) == (None, {"ca", "server"})
    other = make_certificates(wanted(subscribers=False), Material(b"ca.crt", None, CLIENT), FOLDER, Tls)
    assert (other.server, set(other.ends)) == (None, {"ca", "client"})


REST = "then its intermediates"
KEY = "unencrypted, as PKCS#1, PKCS#8 or SEC1"


@pytest.mark.parametrize(
    ("side", "error", "text"),
    [
        ("server", "certificate: old", f"server.crt: old: accepted is a PEM certificate for serverAuth, {REST}"),
        ("client", "certificate: old", f"client.crt: old: accepted is a PEM certificate for clientAuth, {REST}"),
        ("server", "key: no PEM", f"server.key: no PEM: accepted is the PEM key of server.crt, {KEY}"),
        ("client", "root: no CA: really", "ca.crt: no CA: really: accepted is the PEM certificate of a CA"),
    ],
)
def test_what_cannot_be_used_is_told_with_the_file_that_it_came_from(side: str, error: str, text: str) -> None:
    class Refusing(Tls):
        def __init__(self, *, server: bool, **given: Any) -> None:
            if server is (side == "server"):
                raise ValueError(error)
            super().__init__(server=server, **given)

    with pytest.raises(SettingsError) as refused:
        make_certificates(wanted(), Material(b"ca.crt", SERVER, CLIENT), FOLDER, Refusing)
    assert str(refused.value) == f"/tls/{text}"


def test_what_is_nobodys_fault_is_told_as_it_is() -> None:
    def refusing(**_: Any) -> Any:
        raise MemoryError("no memory")

    with pytest.raises(SettingsError, match=r"^/tls: no memory$"):
        make_certificates(wanted(), Material(b"ca.crt", SERVER, CLIENT), FOLDER, refusing)
