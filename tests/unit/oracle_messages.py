"""Random events on the wire, in every spelling that the parsers know, and what repair makes of them.

Each is built together with its repaired form, so that what is expected does not come from a parser.
"""

from typing import Any, NamedTuple

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from unit import oracle_utf8
from unit.oracle_repair import varint
from unit.oracle_scan import BYTES, CLASSES, FIXED32, FIXED64, GROUP, GROUP_END, VARINT

LARGEST_NUMBER = 2**29 - 1


class Made(NamedTuple):
    """Bytes as they are sent, and with their strings repaired."""

    raw: bytes
    repaired: bytes


# Lengths around the steps of the UTF-8 check, and around one-byte lengths.
SIZES = st.one_of(st.integers(0, 20), st.sampled_from([31, 32, 33, 63, 64, 65, 79, 80, 127, 128, 129, 300]))

# Bytes that are, or are nearly, the first or the last of something.
EDGES = [
    0x00,
    0x7F,
    0x80,
    0x8F,
    0x90,
    0x9F,
    0xA0,
    0xBF,
    0xC0,
    0xC1,
    0xC2,
    0xDF,
    0xE0,
    0xED,
    0xEF,
    0xF0,
    0xF4,
    0xF5,
    0xFF,
]


@st.composite
def texts(draw: DrawFn) -> bytes:
    """Strings: ASCII, other scripts, and not UTF-8 in one place or everywhere."""
    filler = draw(SIZES) * b"a"
    piece = draw(
        st.one_of(
            st.text(max_size=8).map(str.encode),
            st.lists(st.sampled_from(EDGES), max_size=6).map(bytes),
            st.binary(max_size=6),
        )
    )
    at = draw(st.integers(0, len(filler)))
    return filler[:at] + piece + filler[at:]


def varints(value: int, longest: int) -> st.SearchStrategy[bytes]:
    """Mostly the shortest form."""
    shortest = len(varint(value))
    return st.one_of(st.just(shortest), st.integers(shortest, longest)).map(lambda size: varint(value, size))


def tags(number: int, wire: int) -> st.SearchStrategy[bytes]:
    return varints(number << 3 | wire, longest=5)


@st.composite
def scalars(draw: DrawFn, number: int) -> Made:
    """A field that is no string and no message: of the schema with the right or another wire type, or unknown."""
    wire = draw(st.sampled_from([VARINT, FIXED32, FIXED64]))
    if wire == VARINT:
        value = draw(st.integers(0, 2**64 - 1).flatmap(lambda value: varints(value, longest=10)))
    else:
        size = 4 if wire == FIXED32 else 8
        value = draw(st.binary(min_size=size, max_size=size))
    raw = draw(tags(number, wire)) + value
    return Made(raw, raw)


@st.composite
def groups(draw: DrawFn, number: int, deep: int = 2) -> Made:
    """A group, which is never of the schema; what is in it is not looked into."""
    inner = b"".join(made.raw for made in draw(st.lists(unknown_fields(deep - 1), max_size=3)))
    raw = draw(tags(number, GROUP)) + inner + draw(tags(number, GROUP_END))
    return Made(raw, raw)


@st.composite
def blobs(draw: DrawFn, number: int) -> Made:
    """Bytes of a field that is not of the schema."""
    body = draw(texts())
    raw = draw(tags(number, BYTES)) + draw(varints(len(body), longest=5)) + body
    return Made(raw, raw)


@st.composite
def unknown_fields(draw: DrawFn, deep: int = 2) -> Made:
    number = draw(st.one_of(st.integers(1, 70), st.sampled_from([2047, 2048, LARGEST_NUMBER])))
    kinds = [scalars(number), blobs(number)]
    if deep > 0:
        kinds.append(groups(number, deep))
    return draw(st.one_of(kinds))


@st.composite
def bodies(draw: DrawFn, number: int, body: Made) -> Made:
    """A field of the schema with bytes behind a length."""
    tag = draw(tags(number, BYTES))
    length = draw(varints(len(body.raw), longest=5))
    raw = tag + length + body.raw
    if body.raw == body.repaired:
        return Made(raw, raw)
    return Made(raw, tag + varint(len(body.repaired)) + body.repaired)


@st.composite
def strings(draw: DrawFn, number: int) -> Made:
    text = draw(texts())
    return draw(bodies(number, Made(text, oracle_utf8.repaired(text)[0])))


@st.composite
def nested(draw: DrawFn, number: int, descriptor: Any) -> Made:
    return draw(bodies(number, draw(messages(descriptor))))


@st.composite
def known_fields(draw: DrawFn, descriptor: Any) -> Made:
    """A field of the schema: strings and messages as often as numbers, however few there are of them."""
    by_type: dict[int, list[Any]] = {}
    for entry in descriptor.fields:
        by_type.setdefault(entry.type, []).append(entry)
    entry = draw(st.sampled_from(list(by_type.values())).flatmap(st.sampled_from))
    if entry.type == entry.TYPE_STRING:
        return draw(strings(entry.number))
    if entry.type == entry.TYPE_MESSAGE:
        return draw(nested(entry.number, entry.message_type))
    return draw(scalars(entry.number))


@st.composite
def mistyped_fields(draw: DrawFn, descriptor: Any) -> Made:
    """A field of the schema with another wire type than its own, which makes it unknown."""
    entry = draw(st.sampled_from(list(descriptor.fields)))
    kinds = [scalars(entry.number), groups(entry.number)]
    if entry.type not in (entry.TYPE_STRING, entry.TYPE_MESSAGE):
        kinds.append(blobs(entry.number))
    return draw(st.one_of(kinds))


@st.composite
def strangers(draw: DrawFn, descriptor: Any) -> Made:
    """A field whose number the schema does not have."""
    number = draw(
        st.one_of(st.integers(1, 70), st.sampled_from([2047, 2048, LARGEST_NUMBER])).filter(
            lambda number: number not in descriptor.fields_by_number
        )
    )
    return draw(st.one_of(scalars(number), blobs(number), groups(number)))


@st.composite
def messages(draw: DrawFn, descriptor: Any) -> Made:
    """A well-formed message of any type."""
    often, seldom = known_fields(descriptor), [mistyped_fields(descriptor), strangers(descriptor)]
    made = draw(st.lists(st.one_of(often, often, often, *seldom), max_size=8))
    return Made(b"".join(one.raw for one in made), b"".join(one.repaired for one in made))


def events(feed: int) -> st.SearchStrategy[Made]:
    return messages(CLASSES[feed].DESCRIPTOR)


@st.composite
def mutated(draw: DrawFn, feed: int) -> bytes:
    """An event with a few bytes cut, changed, put in or taken out."""
    data = bytearray(draw(events(feed)).raw)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        change = draw(st.sampled_from(["cut", "change", "put", "take"]))
        byte = draw(st.one_of(st.sampled_from([*EDGES, 0x01, 0x0B, 0x0C, 0x12]), st.integers(0, 255)))
        if change == "cut":
            del data[at:]
        elif change == "put":
            data.insert(at, byte)
        elif at < len(data):
            if change == "take":
                del data[at]
            else:
                data[at] = byte
    return bytes(data)
