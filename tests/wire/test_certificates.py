"""The certificates that tests use, before judges that are not the relay: OpenSSL's command, and BoringSSL in grpcio."""

import subprocess
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from peers.certificates import (
    NEAR_MISSES,
    Authority,
    Leaf,
    authority,
    client_only,
    operator_authority,
    server_only,
    write_folder,
)

HOST = "127.0.0.1"
KINDS = {"well-formed": authority, "operator": operator_authority}
# By what they are good for; everything else of NEAR_MISSES is good for nothing.
ONE_SIDED = {"server only": server_only, "client only": client_only, "wrong IP": lambda ca, _: ca.issue("127.0.0.2")}
# BoringSSL in grpcio does not look at the digest; OpenSSL's security level 2 and Go do.
ACCEPTED_BY_GRPCIO = "signed with SHA-1"


@pytest.fixture(scope="module", params=KINDS)
def ca(request: pytest.FixtureRequest) -> Authority:
    made: Authority = KINDS[request.param]()
    return made


@pytest.fixture(scope="module")
def good(ca: Authority) -> Leaf:
    return ca.issue(HOST)


def handshakes(ca: Authority, server: Leaf, client: Leaf) -> bool:
    """Whether grpcio's server and client accept each other: an unknown method is answered, not a known one refused."""
    running = grpc.server(futures.ThreadPoolExecutor(1))
    pair = (server.key_pem, server.certificate_pem)
    port = running.add_secure_port(f"{HOST}:0", grpc.ssl_server_credentials([pair], ca.pem, require_client_auth=True))
    running.start()
    credentials = grpc.ssl_channel_credentials(ca.pem, client.key_pem, client.certificate_pem)
    try:
        with grpc.secure_channel(f"{HOST}:{port}", credentials) as channel, pytest.raises(grpc.RpcError) as answer:
            channel.unary_unary("/no/method")(b"", timeout=30)
    finally:
        running.stop(None).wait()
    assert answer.value.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAVAILABLE)
    return answer.value.code() is grpc.StatusCode.UNIMPLEMENTED


def verified(folder: Path, ca: Authority, leaf: Leaf, purpose: str) -> str:
    """What `openssl verify` has against a certificate; nothing if it is good."""
    write_folder(folder, ca, server=leaf)
    files = ["-CAfile", str(folder / "ca.crt"), "-untrusted", str(folder / "server.crt"), str(folder / "server.crt")]
    ways = ["-x509_strict", "-auth_level", "2", "-purpose", purpose, "-verify_ip", HOST]
    ended = subprocess.run(["openssl", "verify", *ways, *files], capture_output=True, text=True, check=False)
    return ended.stderr if ended.returncode else ""


def test_both_kinds_of_authority_are_good_for_grpcio(ca: Authority, good: Leaf) -> None:
    assert handshakes(ca, good, good)


def test_an_intermediate_is_good_for_grpcio_in_its_chain() -> None:
    ca = authority()
    leaf = ca.intermediate().issue(HOST)
    assert handshakes(ca, leaf, leaf)


@pytest.mark.parametrize("miss", NEAR_MISSES)
def test_near_misses_are_refused_by_grpcio_on_either_side(ca: Authority, good: Leaf, miss: str) -> None:
    refused = NEAR_MISSES[miss](ca, (HOST,))
    expected = (miss == ACCEPTED_BY_GRPCIO,) * 2
    assert (handshakes(ca, refused, good), handshakes(ca, good, refused)) == expected


@pytest.mark.parametrize(
    ("miss", "server", "client"),
    [("server only", True, False), ("client only", False, True), ("wrong IP", False, True)],
)
def test_a_certificate_for_one_side_is_refused_on_the_other(
    ca: Authority, good: Leaf, miss: str, server: bool, client: bool
) -> None:
    leaf = ONE_SIDED[miss](ca, (HOST,))
    assert (handshakes(ca, leaf, good), handshakes(ca, good, leaf)) == (server, client)


@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
def test_openssl_verifies_a_well_formed_certificate_and_none_of_its_near_misses(tmp_path: Path, purpose: str) -> None:
    ca = authority()
    assert not verified(tmp_path, ca, ca.issue(HOST), purpose)
    assert not verified(tmp_path, ca, ca.intermediate().issue(HOST), purpose)
    for miss, make in NEAR_MISSES.items():
        assert verified(tmp_path, ca, make(ca, (HOST,)), purpose), miss


def test_openssl_refuses_what_the_operator_makes(tmp_path: Path) -> None:
    """Subject and issuer are equal, so it takes each leaf for a self-signed certificate."""
    ca = operator_authority()
    assert "error 18 at 0 depth" in verified(tmp_path, ca, ca.issue(HOST), "sslserver")
