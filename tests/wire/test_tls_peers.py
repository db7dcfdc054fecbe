"""The peers written in Go against each other over TLS, and Go's verdict on the certificates that tests use."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import binaries
from peers.certificates import (
    CLIENT,
    NEAR_MISSES,
    SERVER,
    Authority,
    Leaf,
    authority,
    client_only,
    ec_key,
    operator_authority,
    server_only,
    write_folder,
)
from peers.go_judge import Judge
from peers.go_peers import GoClient, GoNode, tls_flags

from relay.issue import issue

HOST = "127.0.0.1"
KINDS = {"well-formed": authority, "operator": operator_authority}


@pytest.fixture(scope="module", params=KINDS)
def ca(request: pytest.FixtureRequest) -> Authority:
    made: Authority = KINDS[request.param]()
    return made


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    if binaries.missing():
        pytest.skip(binaries.missing())
    with Judge() as asked:
        yield asked


def verdicts(judge: Judge, ca: Authority, leaf: Leaf, name: str = HOST) -> dict[str, bool]:
    """By what the certificate's holder is."""
    return {
        purpose: judge.ask(
            root=ca.pem, certificate=leaf.certificate_pem, key=leaf.key_pem, purpose=purpose, name=name
        ).accepted
        for purpose in ("server", "client")
    }


def test_go_accepts_what_is_well_made(judge: Judge, ca: Authority) -> None:
    leaf = ca.issue(HOST, "localhost")
    assert verdicts(judge, ca, leaf) == {"server": True, "client": True}
    assert verdicts(judge, ca, leaf, "localhost") == {"server": True, "client": True}
    assert verdicts(judge, ca, ca.issue(HOST, key=ec_key())) == {"server": True, "client": True}
    assert verdicts(judge, ca, ca.issue(HOST, usages=None)) == {"server": True, "client": True}
    assert verdicts(judge, ca, ca.intermediate().issue(HOST)) == {"server": True, "client": True}


@pytest.mark.parametrize("miss", NEAR_MISSES)
def test_go_refuses_near_misses(judge: Judge, ca: Authority, miss: str) -> None:
    assert verdicts(judge, ca, NEAR_MISSES[miss](ca, (HOST,))) == {"server": False, "client": False}


def test_go_refuses_the_wrong_side_and_the_wrong_name(judge: Judge, ca: Authority) -> None:
    assert verdicts(judge, ca, server_only(ca, (HOST,))) == {"server": True, "client": False}
    assert verdicts(judge, ca, client_only(ca, (HOST,))) == {"server": False, "client": True}
    assert verdicts(judge, ca, ca.issue("127.0.0.2")) == {"server": False, "client": True}
    assert verdicts(judge, ca, ca.issue("localhost")) == {"server": False, "client": True}


def test_go_accepts_what_the_relay_makes(judge: Judge, ca: Authority, tmp_path: Path) -> None:
    """With -tlsCertProvider=self, from either kind of CA."""
    write_folder(tmp_path, ca)
    (tmp_path / "ca.key").write_bytes(ca.key_pem)
    made = issue(tmp_path, ["server", "client"], [HOST, "kubearmor.kubearmor.svc"], dt.datetime.now(dt.UTC))
    for purpose, name in (("server", HOST), ("server", "kubearmor.kubearmor.svc"), ("client", "")):
        certificate, key = (made[purpose][part].encode() for part in ("certificate", "key"))
        asked = {"root": ca.pem, "certificate": certificate, "key": key}
        assert judge.ask(**asked, purpose=purpose, name=name).accepted
        other = "client" if purpose == "server" else "server"
        assert not judge.ask(**asked, purpose=other, name=name or HOST).accepted


def test_go_says_why(judge: Judge) -> None:
    ca = authority()
    leaf = ca.issue("127.0.0.2")
    said = judge.ask(root=ca.pem, certificate=leaf.certificate_pem, key=leaf.key_pem, purpose="server", name=HOST)
    assert "certificate is valid for 127.0.0.2, not 127.0.0.1" in said.reason


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_go_peers_understand_each_other_over_tls(
    go_node: GoNode, go_client: GoClient, ca: Authority, tmp_path: Path, version: str
) -> None:
    write_folder(tmp_path, ca, server=ca.issue(HOST, usages=(SERVER,)), client=ca.issue(usages=(CLIENT,)))
    served = go_node("-rate", "0", "-count", "100", "-then", "ok", *tls_flags(tmp_path, "server"))
    server = ("-server", f"{HOST}:{served.ports[0]}")
    said = go_client(*server, "-tls-version", version, *tls_flags(tmp_path, "client")).result()
    assert (said["events"], said["code"]) == (100, "OK")
    # In TLS 1.3 the client believes that it is in, and may still be writing when the refusal closes the connection.
    reasons = ("certificate required", "broken pipe", "connection reset")
    failure = go_client(*server, "-tls-root", str(tmp_path / "ca.crt")).failure()
    assert any(reason in failure for reason in reasons), failure


def test_karmors_way_to_a_node_that_speaks_tls(
    go_node: GoNode, go_client: GoClient, ca: Authority, tmp_path: Path
) -> None:
    """Without TLS first; the error of that decides."""
    leaf = ca.issue(HOST)
    write_folder(tmp_path, ca, server=leaf, client=leaf)
    flags = ("-fallback", "-count", "1", *tls_flags(tmp_path, "client"))
    spoken = ["-rate", "0", "-count", "1"]
    plain = go_client("-server", f"{HOST}:{go_node(*spoken).ports[0]}", *flags).result()
    assert (plain["events"], plain["refusals"]) == (1, [])
    secure = go_node(*spoken, *tls_flags(tmp_path, "server"))
    said = go_client("-server", f"{HOST}:{secure.ports[0]}", *flags).result()
    assert (said["events"], len(said["refusals"])) == (1, 1)
    assert "Error while dialing" in go_client("-server", f"{HOST}:1", *flags).failure()
