"""The table of who is connected: one entry an address, gone with its last connection."""

import random
from collections import Counter
from ipaddress import IPv4Address, IPv6Address, IPv6Network

import pytest
from shown import ShownAddresses


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.4", False),
        ("10.1.2.3", "::ffff:10.1.2.3", True),
        ("::ffff:10.1.2.3", "::ffff:10.1.2.4", False),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::1", "::2", True),
        ("127.0.0.1", "::1", False),
    ],
)
def test_what_counts_as_one_address(one: str, other: str, same: bool) -> None:
    """IPv4 whole, however it comes in; of IPv6 the network of 64 bits, which one host may use up alone."""
    table = ShownAddresses(8, 8)
    table.take(one)
    assert table.take(other)[1] == (2 if same else 1)
    assert table.addresses == (1 if same else 2)


@pytest.mark.parametrize("connections", [1, 3, 4000])
def test_any_comings_and_goings(connections: int) -> None:
    """Against a counter, with many to a bucket and few."""
    draw = random.Random(7)
    table, oracle = ShownAddresses(connections, connections), Counter[str]()
    open_: list[tuple[int, str]] = []
    for _ in range(4000):
        if open_ and draw.random() < 0.5:
            number, text = open_.pop(draw.randrange(len(open_)))
            table.drop(number)
            oracle[text] -= 1
        else:
            four = str(IPv4Address(draw.randrange(1, 40)))
            six = str(IPv6Network((draw.randrange(1, 40) << 64, 64))[0])
            text = draw.choice([four, six])
            number, count = table.take(text)
            oracle[text] += 1
            assert count == oracle[text]
            open_.append((number, text))
        assert table.addresses == sum(count > 0 for count in oracle.values())
    for number, _ in open_:
        table.drop(number)
    assert (table.addresses, table.blocks) == (0, 1)


def test_without_memory_an_address_is_not_taken_and_nothing_stays() -> None:
    table = ShownAddresses(8, 8)
    table.fail_next()
    assert table.take(str(IPv6Address(1))) is None
    assert (table.addresses, table.blocks) == (0, 1)
    assert table.take("10.0.0.1")[1] == 1


@pytest.mark.parametrize(
    ("connections", "an_address", "share"),
    [(512, 64, 4), (512, 128, 4), (512, 256, 2), (512, 512, 1), (64, 512, 1), (1, 1, 1)],
)
def test_what_an_address_may_have(connections: int, an_address: int, share: int) -> None:
    """Of all else the part that it may have of the connections, and at least a quarter."""
    table = ShownAddresses(connections, an_address, subscribers=1000, excess=1 << 20)
    assert table.shares == (1000 // share, (1 << 20) // share)
