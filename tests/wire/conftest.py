"""Fixtures of the wire tests."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from peers.engine import Engine
from peers.feed import TIGHT, Feed
from peers.go_peers import go_client, go_node
from peers.trust import trust

__all__ = ["engine", "go_client", "go_node"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What is marked with both_transports runs twice: over TCP, and over TLS."""
    if "engine" in metafunc.fixturenames and metafunc.definition.get_closest_marker("both_transports"):
        only = metafunc.definition.get_closest_marker("tcp_alone")
        metafunc.parametrize("engine", ["tcp"] if only else ["tcp", "tls"], indirect=True)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Iterator[Callable[..., Engine]]:
    """Starts engines: call it with settings. Their counters are checked at the end, and they close."""
    behind: dict[str, Any] = {}
    if getattr(request, "param", "tcp") == "tls":
        behind = {"tls": trust(), "doors": True}
    with contextlib.ExitStack() as running:

        def start(**settings: Any) -> Engine:
            return running.enter_context(Engine(**{**behind, **settings}))

        yield start


@pytest.fixture
def feed() -> Iterator[Feed]:
    """With the default journals."""
    made = Feed()
    yield made
    made.native.close()


@pytest.fixture
def tight() -> Iterator[Feed]:
    """With journals that forget soon."""
    made = Feed(**TIGHT)
    yield made
    made.native.close()
