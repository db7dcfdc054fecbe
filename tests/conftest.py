"""What holds for every test: which build is under test, and how random input is drawn."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

TESTS = Path(__file__).parent

# Sanitized builds and busy machines are slow: no deadlines. The seed is printed on failure.
settings.register_profile("relay", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
# Continuous integration draws the same input in every run, so that a failure belongs to the change.
settings.register_profile("ci", settings.get_profile("relay"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "relay")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to test another build than the one asked for: RELAY_BUILD names its folder."""
    # A sanitizer's library is loaded here already; peers in other languages hang or die with it.
    os.environ.pop("LD_PRELOAD", None)
    wanted = os.environ.get("RELAY_BUILD")
    if wanted is None:
        return
    import shown

    from relay import _fastpath

    for module in (_fastpath, shown):
        if not Path(module.__file__).is_relative_to(wanted):
            raise pytest.UsageError(f"{module.__name__} was loaded from {module.__file__}, not from {wanted}")


def pytest_report_header() -> str:
    return f"build: {os.environ.get('RELAY_BUILD', 'normal')}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by its folder: tests/unit, tests/wire, tests/system; leave out what a build cannot show."""
    sanitized = Path(os.environ.get("RELAY_BUILD", "normal")).name in ("address-undefined", "thread")
    for item in items:
        for name in ("paced", "resident"):
            if sanitized and item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=f"{name}: says nothing about a sanitized build"))
        folder = item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""
        if folder in ("unit", "wire", "system"):
            item.add_marker(folder)
