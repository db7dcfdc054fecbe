"""The build: what it probes, and what it says when something is missing."""

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import setuptools

ROOT = Path(__file__).parents[2]


def build(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run setup.py with its output in `folder`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
    return subprocess.run(
        [sys.executable, "setup.py", "-q", *(command or ("build_ext",))],
        cwd=ROOT,
        env={**inherited, "RELAY_BUILD_DIR": str(folder), **variables},
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that setup.py defines, without a build."""
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    monkeypatch.delenv("CC", raising=False)
    return runpy.run_path(str(ROOT / "setup.py"))


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"PKG_CONFIG": "/nowhere/pkg-config"}, "/nowhere/pkg-config was not found"),
        ({"PKG_CONFIG_LIBDIR": "/nowhere", "PKG_CONFIG_PATH": ""}, "pkg-config does not find libnghttp2 >= 1.52"),
    ],
)
def test_a_missing_library_is_one_message_with_what_to_install(
    tmp_path: Path, variables: dict[str, str], problem: str
) -> None:
    done = build(tmp_path, **variables)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert problem in done.stderr
    for package in ("libnghttp2-dev", "libnghttp2-devel", "nghttp2-dev"):
        assert package in done.stderr


@pytest.mark.parametrize("wrong", ["memory", "address,thread", "thread,undefined"])
def test_an_unknown_sanitizer_is_refused(tmp_path: Path, wrong: str) -> None:
    done = build(tmp_path, RELAY_SANITIZE=wrong)
    assert done.returncode == 1
    assert "accepted are address, undefined, both with a comma between, or thread alone" in done.stderr


@pytest.mark.parametrize("variables", [{"RELAY_DEBUG": "1"}, {"RELAY_SANITIZE": "thread"}])
def test_only_the_normal_build_is_made_in_place(tmp_path: Path, variables: dict[str, str]) -> None:
    done = build(tmp_path, "build_ext", "--inplace", **variables)
    assert done.returncode == 1
    assert f"goes to {tmp_path}, not in place" in done.stderr


def test_a_probe_asks_the_compiler_and_the_linker(script: dict[str, Any]) -> None:
    compiles = script["compiles"]
    header = "#include <string.h>"
    assert compiles(header, "strlen(argv[0]);", [], [])
    assert not compiles("", "relay_no_such_function();", [], [])
    # Declared, but in no library.
    assert not compiles("void relay_no_such_function(void);", "relay_no_such_function();", [], [])
    assert not compiles("#include <relay/no_such_header.h>", "", [], [])


def test_every_probe_is_answered_with_a_macro(script: dict[str, Any]) -> None:
    features = script["probe"](script["pkg_config"]("--cflags"), script["pkg_config"]("--libs"))
    assert set(features) == {f"RELAY_HAVE_{name}" for name in script["PROBES"]}
    assert set(features.values()) <= {0, 1}


def test_a_probe_for_what_the_library_lacks_is_answered_with_0(script: dict[str, Any]) -> None:
    script["PROBES"]["NEVER"] = ("#include <nghttp2/nghttp2.h>", "nghttp2_option_set_never(0);")
    assert script["probe"](script["pkg_config"]("--cflags"), script["pkg_config"]("--libs"))["RELAY_HAVE_NEVER"] == 0
