"""docs/settings.md against the settings: every flag and variable is there, and what is there is true."""

import re
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import pytest

from relay.config_file import file_layer
from relay.environment import OBSOLETE
from relay.settings import Settings, as_text, load
from relay.sink_settings import SECRETS, SWITCHES, SinkSettings

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "settings.md").read_text(encoding="utf-8")
OF_SINKS = "".join(page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("sinks-*.md")))
SETTINGS = {option.metadata["flag"]: option for option in fields(Settings)}
SINK_SETTINGS = {option.metadata["flag"]: option for option in fields(SinkSettings)}
# Of the Go relay.
SINK_VARIABLES = [
    option.metadata["environment"]
    for option in SINK_SETTINGS.values()
    if not option.metadata["environment"].startswith("RELAY_")
]


def rows() -> dict[str, list[str]]:
    """The table of all settings: its cells without backquotes, by flag."""
    _, _, section = TEXT.partition("\n## All settings\n")
    lines = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("| `")]
    table = [[cell.strip().replace("`", "") for cell in line.strip("| ").split(" | ")] for line in lines]
    return {row[0]: row for row in table}


def test_the_table_has_the_settings_in_the_order_of_help() -> None:
    assert list(rows()) == list(SETTINGS)


@pytest.mark.parametrize("option", [pytest.param(option, id=flag) for flag, option in SETTINGS.items()])
def test_a_row_says_what_is_so(option: Field[Any]) -> None:
    about = option.metadata
    flag, environment, default, reload, meaning = rows()[about["flag"]]
    assert (flag, environment) == (about["flag"], about["environment"])
    assert default == (about["default_text"] if option.default is not False else "false")
    assert reload == ("yes" if about["reload"] else "no")
    assert meaning


@pytest.mark.parametrize("variable", [*(switch.name for switch in SWITCHES), *SINK_VARIABLES, *SECRETS, *OBSOLETE])
def test_the_variables_of_the_go_relay_are_mentioned(variable: str) -> None:
    assert f"`{variable}`" in TEXT


@pytest.mark.parametrize("option", [pytest.param(option, id=flag) for flag, option in SINK_SETTINGS.items()])
def test_the_settings_of_sinks_are_in_their_pages(option: Field[Any]) -> None:
    """The two search engines share a table, where the names for Elasticsearch stand for those of both."""
    flag, variable = option.metadata["flag"], option.metadata["environment"]
    variable = variable.replace("RELAY_OS_", "RELAY_ES_")
    (row,) = {line for line in OF_SINKS.splitlines() if line.startswith("|") and f"`{variable}`" in line}
    flags = {f"-{flag}", f"-{flag}".replace("-os-", "-es-") if "RELAY_" in variable else f"-{flag}"}
    assert any(f"`{each}`" in row or f"`{each} " in row for each in flags)
    default = row.split(" | ")[2].replace("`", "")
    wanted = option.metadata["default_text"]
    wanted = as_text(option.default) if isinstance(option.default, bool) else wanted
    assert wanted in re.split("; | for |, ", default) or wanted == default


def test_the_example_of_a_file_is_one(tmp_path: Path) -> None:
    example = TEXT.partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "relay.toml").write_text(example)
    settings = load(Settings, [file_layer([Settings], str(tmp_path / "relay.toml"))])
    settings.check()
    assert settings != Settings()
