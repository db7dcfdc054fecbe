"""HTTP/2 conformance (RFC 9113, RFC 7541), as an independent suite sees it: h2spec against the engine's port."""

import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
from peers import binaries
from peers.engine import Engine

# Cases that may fail, each with its reason. The aim is none.
EXCUSED: dict[str, str] = {}
CASES = 146


def test_h2spec(engine: Callable[..., Engine], tmp_path: Path) -> None:
    if binaries.missing():
        pytest.skip(binaries.missing())
    relay = engine()
    report = tmp_path / "h2spec.xml"
    # Strict includes what the RFCs only recommend. A case that waits for nothing to come waits for the timeout.
    command = [str(binaries.path("h2spec")), "--strict", "--port", str(relay.port), "--timeout", "1"]
    said = subprocess.run([*command, "--junit-report", str(report)], capture_output=True, text=True, check=False)
    assert report.exists(), said.stderr
    cases = list(ET.parse(report).getroot().iter("testcase"))
    assert len(cases) == CASES
    skipped = [name(case) for case in cases if case.find("skipped") is not None]
    assert skipped == [], "cases that found nothing to test"
    failed = {name(case): text(case) for case in cases if text(case)}
    assert {name: why for name, why in failed.items() if name not in EXCUSED} == {}
    assert EXCUSED.keys() - failed.keys() == set(), "excused, but they pass"


def name(case: ET.Element) -> str:
    return f"{case.get('package')}: {case.get('classname')}"


def text(case: ET.Element) -> str:
    """Why a case failed, "" when it did not."""
    return " | ".join(part.text or "failed" for kind in ("error", "failure") for part in case.iter(kind))
