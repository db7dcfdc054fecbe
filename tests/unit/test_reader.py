"""The bounded reader against a reader over Python's bytes; its input lies between unreadable pages."""

import pytest
import shown
from hypothesis import given
from hypothesis import strategies as st
from unit.oracle_reader import Reader
from unit.oracle_repair import varint

SIZES = st.one_of(st.integers(0, 12), st.sampled_from([2**31, 2**32, 2**63, 2**64 - 1]))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["varint", "skip_varint", "tag", "bytes"]), st.none()),
        st.tuples(st.just("skip"), SIZES),
    ),
    min_size=1,
    max_size=12,
)
# Many continuation bits, many small lengths.
DATA = st.one_of(
    st.binary(max_size=40), st.lists(st.sampled_from([0, 1, 2, 8, 0x7F, 0x80, 0x81, 0xFF]), max_size=40).map(bytes)
)


def one(data: bytes, operation: str, argument: int | None = None) -> tuple[object, int]:
    """The result of one operation, and how many bytes are left."""
    result: tuple[object, int] = shown.read_all(data, [(operation, argument)])[0]
    return result


@given(DATA, STEPS)
def test_agrees_with_the_oracle(data: bytes, steps: list[tuple[str, int | None]]) -> None:
    reader = Reader(data)
    expected = [(reader.run(*step), len(reader.data)) for step in steps]
    assert shown.read_all(data, steps) == expected


@given(st.integers(0, 2**64 - 1), st.integers(1, 10), st.binary(max_size=3))
def test_varint_of_any_length_is_read(value: int, size: int, rest: bytes) -> None:
    encoded = varint(value, size)
    assert one(encoded + rest, "varint") == (value, len(rest))
    for cut in range(len(encoded)):
        assert one(encoded[:cut], "varint") == (None, cut)


@pytest.mark.parametrize("last", [0, 1])
def test_tenth_byte_has_one_bit(last: int) -> None:
    assert one(b"\xff" * 9 + bytes([last]), "varint") == (last << 63 | 2**63 - 1, 0)


@pytest.mark.parametrize("last", [2, 3, 0x7F])
def test_more_than_64_bits_are_refused(last: int) -> None:
    assert one(b"\xff" * 9 + bytes([last]), "varint") == (None, 10)


def test_eleven_bytes_are_refused() -> None:
    assert one(b"\x80" * 10 + b"\x00", "varint") == (None, 11)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x08", (1, 0)),
        (b"\x0f", (1, 7)),
        (b"\x82\x01", (16, 2)),
        (b"\x8a\x80\x80\x80\x00", (1, 2)),
        (b"\xfa\xff\xff\xff\x0f", (2**29 - 1, 2)),
    ],
)
def test_tags(data: bytes, expected: tuple[int, int]) -> None:
    assert one(data, "tag") == (expected, 0)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00", b"\x07", b"\x80\x00", b"\x82", b"\x8a\x80\x80\x80\x80\x00", b"\xfa\xff\xff\xff\x1f"],
    ids=["nothing", "number 0", "number 0, wire type 7", "number 0, over-long", "cut", "6 bytes", "33 bits"],
)
def test_what_is_no_tag(data: bytes) -> None:
    assert one(data, "tag") == (None, len(data))


@pytest.mark.parametrize("size", [0, 1, 127, 128, 300, 16383, 16384, 20000])
def test_bytes_behind_a_length(size: int) -> None:
    body = b"b" * size
    assert one(varint(size) + body, "bytes") == (body, 0)
    assert one(varint(size, 5) + body + b"rest", "bytes") == (body, 4)
    assert one(varint(size + 1) + body, "bytes") == (None, len(varint(size + 1)) + size)


def test_length_of_six_bytes_is_refused() -> None:
    assert one(varint(1, 6) + b"a", "bytes") == (None, 7)
