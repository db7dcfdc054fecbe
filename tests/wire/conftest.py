"""Fixtures of the wire tests."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from peers.engine import Engine
from peers.feed import TIGHT, Feed
from peers.go_peers import go_client, go_node

__all__ = ["engine", "go_client", "go_node"]


@pytest.fixture
def engine() -> Iterator[Callable[..., Engine]]:
    """Starts engines: call it with settings. Their counters are checked at the end, and they close."""
    with contextlib.ExitStack() as running:

        def start(**settings: Any) -> Engine:
            return running.enter_context(Engine(**settings))

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
