"""Fixtures of the system tests."""

from peers.go_peers import go_client, go_node

__all__ = ["go_client", "go_node"]
