"""The nghttp2 session as the engine uses it: what a connection and a call cost, the kernel's loopback included."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.micro import Client, engine

pytest.importorskip("relay._fastpath", reason="the engine is not built")


def test_call(benchmark: Any) -> None:
    """HealthCheck on an open connection: two frames in, three out."""
    with engine() as (_, port):
        client = Client(port)
        benchmark.group = "session"
        benchmark(client.check)
        client.close()


def test_connection(benchmark: Any) -> None:
    """Connect, preface, settings, one call, close."""

    def connect() -> None:
        client = Client(port)
        client.check()
        client.close()

    with engine() as (_, port):
        benchmark.group = "session"
        benchmark(connect)
