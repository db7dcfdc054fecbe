"""Fixtures of the wire tests."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from peers import binaries
from peers.engine import Engine
from peers.go_peers import ClientProcess, GoClient, GoNode, NodeProcess


@pytest.fixture
def go_node() -> Iterator[GoNode]:
    """Starts grpc-go nodes: call it with flags."""
    if binaries.missing():
        pytest.skip(binaries.missing())
    started: list[NodeProcess] = []

    def start(*flags: str) -> NodeProcess:
        started.append(NodeProcess(*flags))
        return started[-1]

    yield start
    for process in started:
        process.close()


@pytest.fixture
def go_client() -> Iterator[GoClient]:
    """Starts karmor-like subscribers: call it with flags."""
    if binaries.missing():
        pytest.skip(binaries.missing())
    started: list[ClientProcess] = []

    def start(*flags: str) -> ClientProcess:
        started.append(ClientProcess(*flags))
        return started[-1]

    yield start
    for process in started:
        process.close()


@pytest.fixture
def engine() -> Iterator[Callable[..., Engine]]:
    """Starts engines: call it with settings. Their counters are checked at the end, and they close."""
    with contextlib.ExitStack() as running:

        def start(**settings: Any) -> Engine:
            return running.enter_context(Engine(**settings))

        yield start
