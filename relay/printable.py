"""Text from outside, made fit for one line of a terminal or a log."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with escapes in place of line ends, control characters and all else that is not to be seen."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
