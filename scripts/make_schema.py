"""Make relay/native/_schema.h from protos/kubearmor.proto, when it is missing or older.

The scanner of the engine (relay/native/scan.pxd) looks into two kinds of fields only: strings, whose
bytes must be UTF-8, and messages, whose fields are looked at in turn. A map is a repeated message with
a key and a value, so it needs nothing of its own. All other fields only have to be whole, known or not.
So the table says for each message type and field number: a string, a message of which type, or neither.

The header also has the numbers of the two fields that enrichment (relay/native/enrich.pxd) looks at.
"""

import sys
import tempfile
from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorSet

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "protos" / "kubearmor.proto"
MADE = ROOT / "relay" / "native" / "_schema.h"

# The types of the feeds come first: a feed's number is its type's number.
FEEDS = (".feeder.Message", ".feeder.Alert", ".feeder.Log")

# Strings of a log that enrichment looks at, and what the header calls their numbers.
NOTED = {"Resource": "SCHEMA_LOG_RESOURCE", "Data": "SCHEMA_LOG_DATA"}

STRING = 1  # 0 is neither
MESSAGE = 2  # and more: the type is the number less this

# Repeated fields of these types may be packed, which the scanner does not know how to check.
PACKABLE = set(FieldDescriptorProto.Type.values()) - {
    FieldDescriptorProto.TYPE_STRING,
    FieldDescriptorProto.TYPE_BYTES,
    FieldDescriptorProto.TYPE_MESSAGE,
    FieldDescriptorProto.TYPE_GROUP,
}


def current() -> bool:
    newest = max(SOURCE.stat().st_mtime, Path(__file__).stat().st_mtime)
    return MADE.exists() and MADE.stat().st_mtime >= newest


def read_types(source: Path) -> dict[str, DescriptorProto]:
    """All message types of a .proto file, nested ones included, by full name with a leading dot."""
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "set"
        if protoc.main(["protoc", f"-I{source.parent}", f"--descriptor_set_out={made}", str(source)]) != 0:
            sys.exit(f"error: protoc could not read {source}")
        files = FileDescriptorSet.FromString(made.read_bytes())
    types: dict[str, DescriptorProto] = {}

    def add(scope: str, message: DescriptorProto) -> None:
        name = f"{scope}.{message.name}"
        types[name] = message
        for nested in message.nested_type:
            add(name, nested)

    for file in files.file:
        if file.syntax != "proto3":
            sys.exit(f"error: {source}: the scanner checks strings as proto3 does, this is {file.syntax or 'proto2'}")
        for message in file.message_type:
            add(f".{file.package}", message)
    return types


def number_types(types: dict[str, DescriptorProto]) -> list[str]:
    """The types that a feed's event can hold, in the order of their numbers."""
    names = list(FEEDS)
    for name in names:  # grows while it is walked
        for field in types[name].field:
            if field.type == FieldDescriptorProto.TYPE_MESSAGE and field.type_name not in names:
                names.append(field.type_name)
    return names


def kind(field: FieldDescriptorProto, names: list[str]) -> int:
    if field.type == FieldDescriptorProto.TYPE_STRING:
        return STRING
    if field.type == FieldDescriptorProto.TYPE_MESSAGE:
        return MESSAGE + names.index(field.type_name)
    if field.type == FieldDescriptorProto.TYPE_GROUP:
        sys.exit(f"error: field {field.name} is a group, which relay/native/scan.pxd does not look into")
    if field.label == FieldDescriptorProto.LABEL_REPEATED and field.type in PACKABLE:
        sys.exit(f"error: field {field.name} may be packed: teach relay/native/scan.pxd to check that first")
    return 0


def noted_numbers(types: dict[str, DescriptorProto], names: list[str]) -> dict[str, int]:
    """The field numbers of NOTED, by what the header calls them; 0 where the log has no such field."""
    numbers = dict.fromkeys(NOTED.values(), 0)
    for field in types[FEEDS[-1]].field:
        if field.name in NOTED:
            if kind(field, names) != STRING:
                sys.exit(f"error: field {field.name} is not a string, as enrichment takes it to be")
            numbers[NOTED[field.name]] = field.number
    # The scanner notes strings by their numbers alone, wherever they are.
    for name in names[len(FEEDS) :]:
        for field in types[name].field:
            if field.number in numbers.values() and kind(field, names) == STRING:
                sys.exit(f"error: string {name}.{field.name} has the number of one that enrichment looks at")
    return numbers


def table(types: dict[str, DescriptorProto]) -> str:
    """The C header."""
    names = number_types(types)
    largest = max((field.number for name in names for field in types[name].field), default=0)
    # A power of two, with room, so that the compiler indexes with a shift.
    numbers = 1 << max(6, largest.bit_length())
    if numbers > 1024:
        sys.exit(f"error: field number {largest} would make the scanner's tables too large")
    lines = [
        "/* Made by scripts/make_schema.py from protos/kubearmor.proto: not to be edited. */",
        "#ifndef RELAY_SCHEMA_H",
        "#define RELAY_SCHEMA_H",
        "#include <stdint.h>",
        "",
        f"#define SCHEMA_TYPES {len(names)}",
        f"#define SCHEMA_NUMBERS {numbers}  /* fields from this number on are not known */",
        "#define SCHEMA_OTHER 0",
        f"#define SCHEMA_STRING {STRING}",
        f"#define SCHEMA_MESSAGE {MESSAGE}  /* and more: the type is the kind less this */",
        *(f"#define {name} {number}" for name, number in sorted(noted_numbers(types, names).items())),
        "",
        "/* [type][field number] gives the kind; types 0, 1 and 2 are those of the feeds. */",
        "static inline const uint8_t *relay_schema_kinds(int type) {",
        "    static const uint8_t kinds[SCHEMA_TYPES][SCHEMA_NUMBERS] = {",
    ]
    for number, name in enumerate(names):
        lines.append(f"        {{ /* {number}: {name.removeprefix('.feeder.')} */")
        for field in sorted(types[name].field, key=lambda field: field.number):
            lines.append(f"            [{field.number}] = {kind(field, names)},  /* {field.name} */")
        lines.append("        },")
    lines += ["    };", "    return kinds[type];", "}", "", "#endif", ""]
    return "\n".join(lines)


if __name__ == "__main__" and not current():
    # Written beside and moved into place: a build that runs at the same time sees all of it or nothing.
    with tempfile.NamedTemporaryFile("w", dir=MADE.parent, prefix="_schema.", suffix=".tmp", delete=False) as made:
        made.write(table(read_types(SOURCE)))
    Path(made.name).replace(MADE)
