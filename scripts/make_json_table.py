"""Make relay/native/_json.h from protos/kubearmor.proto, when it is missing or older.

The transcoder (relay/native/json.pxd) prints an event as Go's encoding/json prints the struct that
protoc-gen-go makes of its message. The table says for each message type which fields there are, in the order of
declaration, with their keys as they stand in the output, and finds a field's place in that order by its number.
"""

import json
import sys
import tempfile
from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto
from make_schema import FEEDS, SOURCE, number_types, read_types

ROOT = Path(__file__).resolve().parent.parent
MADE = ROOT / "relay" / "native" / "_json.h"

# Fields of events that KubeArmor's structs print even when they are 0: their tags lack omitempty.
ALWAYS = ("PPID", "UID")

# Those printed as one varint says: bits of its value, and whether it has a sign.
NUMBERS = {
    FieldDescriptorProto.TYPE_INT32: "JSON_INT32",
    FieldDescriptorProto.TYPE_INT64: "JSON_INT64",
    FieldDescriptorProto.TYPE_UINT32: "JSON_UINT32",
    FieldDescriptorProto.TYPE_UINT64: "JSON_UINT64",
    FieldDescriptorProto.TYPE_BOOL: "JSON_BOOL",
    FieldDescriptorProto.TYPE_ENUM: "JSON_INT32",
}
NUMBER_TEXT = 20  # characters of the longest number

FIELDS = 64  # of a message: the transcoder notes them in one word
KEY_BYTES = 64  # room for a key in the table; keys are copied in steps of 16


def current() -> bool:
    sources = (SOURCE, Path(__file__), Path(__file__).parent / "make_schema.py")
    newest = max(source.stat().st_mtime for source in sources)
    return MADE.exists() and MADE.stat().st_mtime >= newest


def refuse(name: str, field: FieldDescriptorProto, why: str) -> None:
    sys.exit(f"error: {name.removeprefix('.')}.{field.name} {why}: teach relay/native/json.pxd to print that first")


def is_map(message: DescriptorProto) -> bool:
    return message.options.map_entry


def kind(name: str, field: FieldDescriptorProto, types: dict[str, DescriptorProto]) -> str:
    """What the field is to the transcoder."""
    repeated = field.label == FieldDescriptorProto.LABEL_REPEATED
    if field.proto3_optional or field.HasField("oneof_index"):
        refuse(name, field, "tells unset from empty")
    if field.type == FieldDescriptorProto.TYPE_MESSAGE:
        message = types[field.type_name]
        if is_map(message):
            if any(part.type != FieldDescriptorProto.TYPE_STRING for part in message.field):
                refuse(name, field, "is a map of other things than strings")
            return "JSON_MAP"
        if repeated:
            refuse(name, field, "is a list of messages")
        return "JSON_MESSAGE"
    if field.type == FieldDescriptorProto.TYPE_STRING:
        return "JSON_STRINGS" if repeated else "JSON_STRING"
    if repeated or field.type not in NUMBERS:
        refuse(name, field, f"is a {FieldDescriptorProto.Type.Name(field.type)}, repeated or not")
    return NUMBERS[field.type]


def depth(name: str, types: dict[str, DescriptorProto], outer: tuple[str, ...] = ()) -> int:
    """How deep messages nest in a type; the transcoder's stack is bounded by that."""
    if name in outer:
        sys.exit(f"error: {name.removeprefix('.')} contains itself: its JSON has no bound")
    inner = [field.type_name for field in types[name].field if field.type == FieldDescriptorProto.TYPE_MESSAGE]
    return 1 + max((depth(each, types, (*outer, name)) for each in inner), default=0)


def opening(field: FieldDescriptorProto, of_kind: str) -> str:
    """What the output has before a field's value: comma, key, colon, and the mark that the value begins with."""
    marks = {"JSON_STRING": '"', "JSON_STRINGS": "[", "JSON_MAP": "{"}
    return f",{json.dumps(field.name)}:{marks.get(of_kind, '')}"


def most(name: str, types: dict[str, DescriptorProto]) -> int:
    """A bound on the bytes that a message prints beside what its strings and lists hold."""
    total = 2
    for field in types[name].field:
        of_kind = kind(name, field, types)
        total += len(opening(field, of_kind)) + 1
        if of_kind == "JSON_MESSAGE":
            total += most(field.type_name, types)
        elif of_kind in NUMBERS.values():
            total += NUMBER_TEXT
    return total


def row(name: str, field: FieldDescriptorProto, names: list[str], types: dict[str, DescriptorProto]) -> str:
    """The table's entry of one field."""
    of_kind = kind(name, field, types)
    text = opening(field, of_kind)
    if name in FEEDS and field.name in ALWAYS and of_kind not in NUMBERS.values():
        refuse(name, field, "is printed in any case and no number")
    if len(text) > KEY_BYTES:
        refuse(name, field, "has a long name")
    inner = names.index(field.type_name) if of_kind == "JSON_MESSAGE" else 0
    return f"{{{json.dumps(text)}, {len(text)}, {of_kind}, {inner}, {field.number}}},"


def table(types: dict[str, DescriptorProto]) -> str:
    """The C header."""
    names = [name for name in number_types(types) if not is_map(types[name])]
    largest = max((field.number for name in names for field in types[name].field), default=0)
    numbers = 1 << max(6, largest.bit_length())
    fields = max(len(types[name].field) for name in names)
    if numbers > 1024:
        sys.exit(f"error: field number {largest} would make the transcoder's tables too large")
    if fields > FIELDS:
        sys.exit(f"error: a message has {fields} fields; the transcoder notes {FIELDS} at most")
    lines = [
        "/* Made by scripts/make_json_table.py from protos/kubearmor.proto: not to be edited. */",
        "#ifndef RELAY_JSON_H",
        "#define RELAY_JSON_H",
        "#include <stdint.h>",
        "",
        f"#define JSON_TYPES {len(names)}",
        f"#define JSON_FIELDS {max(1, fields)}  /* of one message */",
        f"#define JSON_NUMBERS {numbers}  /* fields from this number on are not known */",
        f"#define JSON_DEPTH {max(depth(name, types) for name in FEEDS)}  /* of messages in each other */",
        f"#define JSON_MOST {max(most(name, types) for name in FEEDS)}  /* bytes, beside texts and lists */",
        f"#define JSON_KEY_BYTES {KEY_BYTES}",
        "",
        "/* In the order in which most events have them. */",
        "enum { JSON_STRING, JSON_INT32, JSON_INT64, JSON_MESSAGE, JSON_MAP, JSON_STRINGS,",
        "    JSON_UINT32, JSON_UINT64, JSON_BOOL };",
        "",
        "typedef struct {",
        "    char opening[JSON_KEY_BYTES];  /* comma, key, colon, and the mark that the value begins with */",
        "    uint8_t size;                  /* of the opening */",
        "    uint8_t kind;",
        "    uint8_t type;                  /* of a message */",
        "    uint16_t number;",
        "} RelayJsonField;",
        "",
        "typedef struct {",
        "    uint64_t always;               /* fields printed in any case, by place */",
        "    uint8_t places[JSON_NUMBERS];  /* in the order of declaration, from 1; 0: not known */",
        "    RelayJsonField fields[JSON_FIELDS];",
        "} RelayJsonType;",
        "",
        "/* Types 0, 1 and 2 are those of the feeds. */",
        "static inline const RelayJsonType *relay_json_type(int type) {",
        "    static const RelayJsonType types[JSON_TYPES] = {",
    ]
    for number, name in enumerate(names):
        declared = list(types[name].field)
        always = sum(1 << place for place, field in enumerate(declared) if name in FEEDS and field.name in ALWAYS)
        places = ", ".join(f"[{field.number}] = {place}" for place, field in enumerate(declared, 1))
        lines.append(f"        {{ /* {number}: {name.removeprefix('.feeder.')} */")
        lines.append(f"            UINT64_C({always:#x}),")
        lines.append(f"            {{{places or 0}}},")
        lines.append("            {")
        lines += [f"                {row(name, field, names, types)}" for field in declared]
        lines += ["            },", "        },"]
    lines += ["    };", "    return &types[type];", "}", "", "#endif", ""]
    return "\n".join(lines)


if __name__ == "__main__" and not current():
    text = table(read_types(SOURCE))
    # Written beside and moved into place: a build that runs at the same time sees all of it or nothing.
    with tempfile.NamedTemporaryFile("w", dir=MADE.parent, prefix="_json.", suffix=".tmp", delete=False) as made:
        made.write(text)
    Path(made.name).replace(MADE)
