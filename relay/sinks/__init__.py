"""Sinks: readers inside the process that carry events to a file, a search engine, or standard output.

`protocol` says what a sink is, `runner` does for each of them what all need, `settings` is what an
operator can tell them, and `build` makes the sinks that the settings ask for.
"""
