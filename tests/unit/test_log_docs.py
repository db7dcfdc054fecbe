"""The log lines that an operator can see, against the pages that tell what they mean."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = "".join(
    (ROOT / "docs" / name).read_text(encoding="utf-8")
    for name in ("operations.md", "kubernetes.md", "sinks.md", "tls.md")
)
QUOTED = re.findall(r"`([^`\n]+)`", DOCS)
LEVELS = ("info", "warning", "error", "log")
WITHOUT_LOG = ("observe.py", "simulate.py", "demo.py")
GAP = "…"  # in a documented line, and here in a message: what is filled in


def text_of(node: ast.expr) -> str:
    """A literal's text, with a GAP for what is filled in; nothing for what is no literal."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) if isinstance(part, ast.Constant) else GAP for part in node.values)
    return ""


def values_of(tree: ast.Module, name: str) -> list[str]:
    """The literals that a variable of that name is set to."""
    assignments = [node for node in ast.walk(tree) if isinstance(node, ast.Assign)]
    return [text_of(node.value) for node in assignments if name in map(ast.unparse, node.targets)]


def place_of(call: ast.Call) -> int | None:
    """Which argument of a call is the message of a log line; None for other calls."""
    called = ast.unparse(call.func)
    if called in [f"logger.{level}" for level in LEVELS]:
        return int(called == "logger.log")
    # reload.Line(level, text, …), and the node table's own way to log.
    return 1 if called in ("Line", "self._log_failure") or (called == "self._wait" and len(call.args) == 3) else None


def messages(path: Path) -> Iterator[str]:
    """The messages that a module logs above debug."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (place := place_of(node)) is not None:
            message = node.args[place]
            yield from values_of(tree, message.id) if isinstance(message, ast.Name) else [text_of(message)]


def found() -> list[str]:
    paths = [path for path in (ROOT / "relay").rglob("*.py") if path.name not in WITHOUT_LOG]
    return sorted({message for path in paths for message in messages(path) if message})


def fills(text: str, pattern: str) -> bool:
    """Whether a text is the pattern with its gaps filled in."""
    return re.fullmatch(re.escape(pattern).replace(GAP, ".+"), text) is not None


def test_the_messages_are_found() -> None:
    known = {"serving", "following Kubernetes", "node connected", "node disconnected", "settings reloaded"}
    assert known <= set(found())
    assert f"{GAP} cannot {GAP} {GAP}" in found()


@pytest.mark.parametrize("message", found())
def test_what_is_logged_is_told_of(message: str) -> None:
    assert any(fills(text, message) for text in QUOTED)
