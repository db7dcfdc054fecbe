"""The table that scripts/make_schema.py makes for the scanner, and what it refuses to make one of."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_schema.py"
TYPES = "message Message {} message Alert {} message Log { %s }"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_schema", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_schema = load()


def table(folder: Path, fields: str, syntax: str = "proto3") -> str:
    source = folder / "given.proto"
    source.write_text(f'syntax = "{syntax}"; package feeder; {TYPES % fields}')
    text: str = make_schema.table(make_schema.read_types(source))
    return text


def test_strings_and_messages_are_marked(tmp_path: Path) -> None:
    text = table(
        tmp_path, "string name = 4; repeated string more = 5; Alert inner = 6; int32 number = 7; bytes raw = 8;"
    )
    for line in ("[4] = 1,", "[5] = 1,", "[6] = 3,", "[7] = 0,", "[8] = 0,"):
        assert line in text
    assert "#define SCHEMA_TYPES 3\n" in text
    assert "#define SCHEMA_NUMBERS 64 " in text


def test_a_map_is_a_message_of_its_own(tmp_path: Path) -> None:
    text = table(tmp_path, "map<string, int32> counts = 70;")
    assert "#define SCHEMA_TYPES 4\n" in text
    assert "#define SCHEMA_NUMBERS 128 " in text
    assert "[70] = 5," in text
    assert "/* 3: Log.CountsEntry */" in text


@pytest.mark.parametrize(
    ("fields", "syntax", "told"),
    [
        ("repeated int32 many = 4;", "proto3", "field many may be packed"),
        ("repeated double many = 4;", "proto3", "field many may be packed"),
        ("string far = 5000;", "proto3", "field number 5000"),
        ("optional string name = 4;", "proto2", "this is proto2"),
        ("int32 Data = 17;", "proto3", "field Data is not a string"),
        ("string Data = 2; map<string, string> more = 18;", "proto3", "Entry.value has the number of one"),
    ],
)
def test_what_the_scanner_could_not_check_is_refused(tmp_path: Path, fields: str, syntax: str, told: str) -> None:
    with pytest.raises(SystemExit, match=told):
        table(tmp_path, fields, syntax)


def test_the_numbers_that_enrichment_needs_are_those_of_the_log() -> None:
    types = make_schema.read_types(make_schema.SOURCE)
    numbers = make_schema.noted_numbers(types, make_schema.number_types(types))
    assert numbers == {"SCHEMA_LOG_RESOURCE": 16, "SCHEMA_LOG_DATA": 17}


def test_types_of_the_project_are_numbered_by_feed() -> None:
    names = make_schema.number_types(make_schema.read_types(make_schema.SOURCE))
    assert names[:3] == [".feeder.Message", ".feeder.Alert", ".feeder.Log"]
    assert set(names[3:]) == {
        ".feeder.Podowner",
        ".feeder.ExecEvent",
        ".feeder.Alert.EventDataEntry",
        ".feeder.Log.EventDataEntry",
    }
