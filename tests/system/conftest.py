"""Fixtures of the system tests."""

from collections.abc import Iterator

import pytest
from peers.cluster import Cluster, missing
from peers.go_peers import go_client, go_node

__all__ = ["go_client", "go_node"]


@pytest.fixture(scope="session")
def only_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster that tests share, one after the other."""
    if missing():
        pytest.skip(missing())
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def cluster(only_cluster: Cluster) -> Cluster:
    """A cluster that runs, without pods and without services but the API server's own."""
    if not only_cluster.running:
        only_cluster.start()
    only_cluster.clear()
    return only_cluster
