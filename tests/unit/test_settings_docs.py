"""docs/settings.md against the settings: every flag and variable is there, and what is there is true."""

from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import pytest

from relay.config_file import file_layer
from relay.environment import OBSOLETE, SINK_VARIABLES, SWITCHES
from relay.settings import Settings, load

TEXT = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
SETTINGS = {option.metadata["flag"]: option for option in fields(Settings)}


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


@pytest.mark.parametrize("variable", [*SWITCHES, *SINK_VARIABLES, *OBSOLETE])
def test_the_variables_of_the_go_relay_are_mentioned(variable: str) -> None:
    assert f"`{variable}`" in TEXT


def test_the_example_of_a_file_is_one(tmp_path: Path) -> None:
    example = TEXT.partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "relay.toml").write_text(example)
    settings = load(Settings, [file_layer(Settings, str(tmp_path / "relay.toml"))])
    settings.check()
    assert settings != Settings()
