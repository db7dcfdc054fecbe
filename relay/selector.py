"""Readers of Kubernetes names and label selectors, so that a wrong one is told before the API refuses it.

Sources: "Labels and Selectors" and "Object Names and IDs" of the Kubernetes documentation.
"""

from __future__ import annotations

import re

LABEL_BYTES = 63  # of a label's name, its value, and a namespace
PREFIX_BYTES = 253  # of what may stand before the slash of a label's name

_TOKEN = re.compile(r"[ \t]*(==|!=|[=!(),]|[^ \t=!(),]+)")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")

_ACCEPTED = "a label selector, as in app=kubearmor,tier!=test,zone in (a, b),!old"


def parse_namespace(text: str) -> str:
    """The name of a namespace (an RFC 1123 label); an empty text stands for all of them."""
    if text and (len(text) > LABEL_BYTES or not _NAMESPACE.fullmatch(text)):
        raise ValueError(f"nothing, or a namespace: up to {LABEL_BYTES} of a-z, 0-9 and -, the first and last not -")
    return text


def parse_selector(text: str) -> str:
    """A label selector of equality and set requirements, joined by commas.

    Returns:
        The text without the space around it, as the Kubernetes API takes it.
    """
    _Requirements(text.strip(" \t")).read()
    return text.strip(" \t")


class _Requirements:
    """A label selector that is read from left to right.

    The grammar, space allowed between any two tokens:
        selector    = requirement { "," requirement }
        requirement = key | "!" key | key ("=" | "==" | "!=") value | key ("in" | "notin") values
        values      = "(" value { "," value } ")"
    A value may be empty, but not a pair of brackets.
    """

    def __init__(self, text: str) -> None:
        self._tokens = _TOKEN.findall(text)

    def read(self) -> None:
        """Read it to its end.

        Raises:
            ValueError: says what is accepted, and what is wrong.
        """
        self._requirement()
        while self._take(","):
            self._requirement()
        if self._tokens:
            raise self._unexpected("a comma")

    def _requirement(self) -> None:
        if self._take("!"):
            self._key()
            return
        self._key()
        if self._take("=") or self._take("==") or self._take("!="):
            self._value()
        elif self._take("in") or self._take("notin"):
            self._values()

    def _values(self) -> None:
        if not self._take("("):
            raise self._unexpected("an opening bracket")
        if self._tokens[:1] == [")"]:
            raise self._unexpected("a value")
        self._value()
        while self._take(","):
            self._value()
        if not self._take(")"):
            raise self._unexpected("a closing bracket")

    def _key(self) -> None:
        key = self._word()
        if not key:
            raise self._unexpected("a label")
        prefix, slash, name = key.rpartition("/")
        if slash and (len(prefix) > PREFIX_BYTES or not _DOMAIN.fullmatch(prefix)):
            raise ValueError(f"{_ACCEPTED}; {prefix!r} is no DNS name that could stand before a label's slash")
        if len(name) > LABEL_BYTES or not _LABEL.fullmatch(name):
            raise ValueError(f"{_ACCEPTED}; {name!r} is no name of a label")

    def _value(self) -> None:
        value = self._word()
        if value and (len(value) > LABEL_BYTES or not _LABEL.fullmatch(value)):
            raise ValueError(f"{_ACCEPTED}; {value!r} is no value of a label")

    def _word(self) -> str:
        """The next token if it is a word, else an empty text."""
        return (
            self._tokens.pop(0) if self._tokens and self._tokens[0] not in ("=", "==", "!=", "!", "(", ")", ",") else ""
        )

    def _take(self, token: str) -> bool:
        """Pass over the next token if it is this one."""
        if self._tokens[:1] != [token]:
            return False
        self._tokens.pop(0)
        return True

    def _unexpected(self, wanted: str) -> ValueError:
        found = repr(self._tokens[0]) if self._tokens else "the end"
        return ValueError(f"{_ACCEPTED}; {wanted} is missing before {found}")
