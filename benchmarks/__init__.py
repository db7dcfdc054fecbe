"""Benchmarks: micro (one part of the engine) and whole (the relay beside other proxies)."""
