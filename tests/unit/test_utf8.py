"""UTF-8 check and repair against Python's decoder."""

import itertools

import pytest
import shown
from hypothesis import given
from hypothesis import strategies as st
from unit import oracle_utf8
from unit.oracle_messages import EDGES, texts

FLAWS = {
    "continuation alone": b"\x80",
    "overlong slash in two bytes": b"\xc0\xaf",
    "overlong U+007F in two bytes": b"\xc1\xbf",
    "overlong U+07FF in three bytes": b"\xe0\x9f\xbf",
    "overlong U+FFFF in four bytes": b"\xf0\x8f\xbf\xbf",
    "first surrogate": b"\xed\xa0\x80",
    "last surrogate": b"\xed\xbf\xbf",
    "above U+10FFFF": b"\xf4\x90\x80\x80",
    "lead of five bytes": b"\xf8\x88\x80\x80\x80",
    "two bytes, cut": b"\xc2",
    "three bytes, cut": b"\xe2\x82",
    "four bytes, cut": b"\xf0\x9f\x98",
    "never in UTF-8": b"\xff",
}

VALID = {
    "nothing": b"",
    "NUL": b"\x00",
    "last of one byte": b"\x7f",
    "first of two bytes": b"\xc2\x80",
    "last of two bytes": b"\xdf\xbf",
    "first of three bytes": b"\xe0\xa0\x80",
    "last before the surrogates": b"\xed\x9f\xbf",
    "first after the surrogates": b"\xee\x80\x80",
    "last of three bytes": b"\xef\xbf\xbf",
    "first of four bytes": b"\xf0\x90\x80\x80",
    "last of all": b"\xf4\x8f\xbf\xbf",
}


@pytest.mark.parametrize("text", VALID.values(), ids=VALID)
def test_valid_text_is_valid_and_stays(text: bytes) -> None:
    assert shown.utf8_valid(text)
    assert shown.utf8_repair(text) == (text, 0)


@pytest.mark.parametrize("flaw", FLAWS.values(), ids=FLAWS)
@pytest.mark.parametrize("before", [0, 1, 15, 16, 17, 64])
def test_each_byte_of_a_flaw_is_replaced(flaw: bytes, before: int) -> None:
    text = b"a" * before + flaw + b"z" * 20
    assert not shown.utf8_valid(text)
    assert shown.utf8_repair(text) == (b"a" * before + b"\xef\xbf\xbd" * len(flaw) + b"z" * 20, len(flaw))


def test_a_cut_sequence_does_not_swallow_what_follows() -> None:
    assert shown.utf8_repair(b"\xf0\x9f\x98A\xe2\x82\xac") == (b"\xef\xbf\xbd" * 3 + b"A\xe2\x82\xac", 3)


def test_all_sequences_of_edge_bytes() -> None:
    """Every sequence of up to three bytes at which something begins or ends, and of four behind a lead of four."""
    sequences = itertools.chain(
        *(itertools.product(EDGES, repeat=size) for size in (1, 2, 3)),
        itertools.product([0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5], EDGES, EDGES, [0x7F, 0x80, 0xBF, 0xC0]),
    )
    for sequence in sequences:
        data = bytes(sequence)
        assert shown.utf8_valid(data) == oracle_utf8.valid(data), data
        assert shown.utf8_repair(data) == oracle_utf8.repaired(data), data


@given(st.one_of(texts(), st.binary(max_size=200), st.text().map(str.encode)))
def test_agrees_with_python(data: bytes) -> None:
    assert shown.utf8_valid(data) == oracle_utf8.valid(data)
    text, count = shown.utf8_repair(data)
    assert (text, count) == oracle_utf8.repaired(data)
    assert shown.utf8_valid(text)
    assert shown.utf8_ascii(data) == data.isascii()


@pytest.mark.parametrize("size", [*range(40), 47, 48, 49, *range(62, 67), 79, 80, 81, *range(126, 131), 192, 193, 1000])
def test_ascii_check_sees_every_byte_and_no_other(size: int) -> None:
    assert shown.utf8_ascii(b"\x7f" * size)
    assert shown.utf8_ascii_within(b"\x7f" * size + b"\xff" * 20, size)
    for at in range(size):
        data = bytearray(b"a" * size)
        data[at] = 0x80
        assert not shown.utf8_ascii(data)
        assert not shown.utf8_ascii_within(data + b"a" * 20, size)
