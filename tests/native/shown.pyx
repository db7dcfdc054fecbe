"""Test-only module: shows native functions of relay/native to pytest. Not part of the wheel.

Each part is a file tests/native/shown_<part>.pxi that cimports what it shows; setup.py lists
those that exist in _shown_parts.pxi.
"""

include "_shown_parts.pxi"
