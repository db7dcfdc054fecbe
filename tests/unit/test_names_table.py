"""The table of names: what was put in is found, nothing else is, and its hash is SipHash-1-3."""

import os
import random
import subprocess
import sys

import pytest
import shown
from hypothesis import given
from hypothesis import strategies as st

ADDED, SAME, OTHER = range(3)
ADDRESSES = st.binary(min_size=16, max_size=16)
TEXTS = st.one_of(st.binary(min_size=1, max_size=40), st.just(b"n" * shown.NAMES_TEXT))
KEYS = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))


@given(entries=st.dictionaries(ADDRESSES, TEXTS, max_size=60), others=st.lists(ADDRESSES, max_size=20), key=KEYS)
def test_what_was_put_in_is_found(entries: dict[bytes, bytes], others: list[bytes], key: tuple[int, int]) -> None:
    names = shown.NameTable(list(entries.items()), *key)
    assert names.outcomes == [ADDED] * len(entries)
    for address in [*entries, *others]:
        assert names.find(address) == entries.get(address)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 8, 1000, 30_000])
def test_of_any_size(count: int) -> None:
    addresses = [bytes(12) + number.to_bytes(4, "big") for number in range(count)]
    names = shown.NameTable([(address, b"pod/%s" % address.hex().encode()) for address in addresses], 3, 4)
    assert all(names.find(address) == b"pod/%s" % address.hex().encode() for address in addresses)
    assert names.find(bytes(12) + count.to_bytes(4, "big")) is None
    # What a cluster of 13,000 addresses costs, doubled while a new table takes the place of the old one.
    assert names.bytes <= 100 * max(count, 2)


def test_an_address_keeps_its_first_name() -> None:
    address = bytes(16)
    names = shown.NameTable([(address, b"one"), (address, b"one"), (address, b"two"), (address, b"on")])
    assert names.outcomes == [ADDED, SAME, OTHER, OTHER]
    assert names.find(address) == b"one"


def test_addresses_that_share_a_slot() -> None:
    """Found by trying: all of them begin at the same one of the 16 slots, and run over the end to the first ones."""
    rng = random.Random(7)
    addresses: list[bytes] = []
    while len(addresses) < 9:
        address = rng.randbytes(16)
        if shown.names_hash(1, 2, address) % 16 == 15:
            addresses.append(address)
    *inside, outside = addresses
    names = shown.NameTable([(address, address.hex().encode()) for address in inside], 1, 2)
    assert [names.find(address) for address in inside] == [address.hex().encode() for address in inside]
    assert names.find(outside) is None


def test_addresses_whose_hashes_agree_in_all_that_is_kept() -> None:
    """Found by trying, too: the same slot and the same 32 bits beside it; the addresses themselves tell them apart."""
    seen: dict[tuple[int, int], bytes] = {}
    pairs = []
    for number in range(400_000):
        address = bytes(12) + number.to_bytes(4, "big")
        hashed = shown.names_hash(1, 2, address)
        other = seen.setdefault((hashed >> 32, hashed % 2), address)
        if other != address:
            pairs.append((other, address))
    assert pairs
    for one, other in pairs:
        names = shown.NameTable([(one, b"one")], 1, 2)  # of two slots
        assert names.find(one) == b"one"
        assert names.find(other) is None


def test_the_hash_is_that_of_python() -> None:
    """Python hashes bytes with SipHash-1-3 as well, and with a key of zeros when it is told not to vary."""
    if sys.hash_info.algorithm != "siphash13" or sys.byteorder != "little":
        pytest.skip("this Python hashes bytes otherwise")
    rng = random.Random(5)
    addresses = [bytes(16), *(rng.randbytes(16) for _ in range(50))]
    code = "import sys; print(*[hash(bytes.fromhex(each)) for each in sys.argv[1:]])"
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    environment.pop("LD_PRELOAD", None)
    command = [sys.executable, "-c", code, *(address.hex() for address in addresses)]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert [int(each) % 2**64 for each in said.split()] == [shown.names_hash(0, 0, address) for address in addresses]


@given(address=ADDRESSES, one=KEYS, other=KEYS)
def test_the_hash_depends_on_both_halves_of_the_key(
    address: bytes, one: tuple[int, int], other: tuple[int, int]
) -> None:
    assert (shown.names_hash(*one, address) == shown.names_hash(*other, address)) == (one == other)
