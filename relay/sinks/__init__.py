"""Sinks: readers inside the process that carry events to a file, a search engine, or standard output.

`protocol` says what a sink is, `runner` does for each of them what all need, and `build` makes those that the
settings ask for. Standard output (`stdout`) is written by a native thread; `group` runs it beside the others.
"""
