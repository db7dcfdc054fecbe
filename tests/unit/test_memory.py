"""The allocator: its counters, its failures on request; and the status table."""

import threading

import pytest
import shown
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

SIZES = st.one_of(st.integers(0, 300), st.sampled_from([4095, 4096, 65536]))
BEYOND = 2**64 - 16  # with a header of 16 bytes it is one more than there are addresses
either = st.booleans()


class Allocator(RuleBasedStateMachine):
    """Blocks are taken, filled, resized and released; a model knows what is held and what should have failed."""

    blocks = Bundle("blocks")

    def __init__(self) -> None:
        super().__init__()
        self.memory = shown.Memory()
        self.held: dict[int, bytes] = {}
        self.taken = self.failures = self.fail_at = self.stamp = 0

    def fails(self) -> bool:
        """Whether the request that is about to be made is to fail."""
        failing = self.fail_at == 1
        self.fail_at = max(self.fail_at - 1, 0)
        self.failures += failing
        return failing

    def fill(self, block: int, size: int) -> None:
        self.stamp = self.stamp % 255 + 1
        self.held[block] = bytes([self.stamp]) * size
        self.memory.fill(block, self.held[block])

    @rule(target=blocks, size=SIZES, zeroed=either, through_nghttp2=either)
    def take(self, size: int, zeroed: bool, through_nghttp2: bool) -> int | None:
        failing = self.fails()
        block: int | None = self.memory.take(size, zeroed, through_nghttp2)
        assert (block is None) == failing
        if block is not None:
            assert self.memory.address(block) % 16 == 0
            if zeroed and not through_nghttp2:
                assert self.memory.content(block, size) == bytes(size)
            self.taken += 1
            self.fill(block, size)
        return block

    @rule(target=blocks, count=st.integers(0, 20), size=st.integers(0, 20))
    def take_array(self, count: int, size: int) -> int | None:
        failing = self.fails()
        block: int | None = self.memory.take_array(count, size)
        assert (block is None) == failing
        if block is not None:
            assert self.memory.content(block, count * size) == bytes(count * size)
            self.taken += 1
            self.fill(block, count * size)
        return block

    @rule(block=blocks, size=SIZES, through_nghttp2=either)
    def resize(self, block: int | None, size: int, through_nghttp2: bool) -> None:
        if block not in self.held:
            return
        done = not self.fails()
        assert self.memory.resize(block, size, through_nghttp2) == done
        if done:
            kept = self.held[block][:size]
            assert self.memory.content(block, len(kept)) == kept
            self.fill(block, size)

    @rule(block=consumes(blocks), through_nghttp2=either)
    def release(self, block: int | None, through_nghttp2: bool) -> None:
        assert self.held.pop(block, None) is not None or block is None
        self.memory.release(block, through_nghttp2)

    @rule(count=st.integers(0, 4))
    def fail(self, count: int) -> None:
        self.fail_at = count
        self.memory.fail_at(count)

    @rule(size=st.integers(BEYOND, 2**64 - 1), zeroed=either)
    def take_too_much(self, size: int, zeroed: bool) -> None:
        if not self.fails():
            self.failures += 1
        assert self.memory.take(size, zeroed) is None

    @invariant()
    def counted(self) -> None:
        bytes_held = sum(map(len, self.held.values()))
        assert self.memory.counters() == (bytes_held, len(self.held), self.taken, self.failures)

    @invariant()
    def whole(self) -> None:
        for block, content in self.held.items():
            assert self.memory.size(block) == len(content)
            assert self.memory.content(block, len(content)) == content


TestAllocator = Allocator.TestCase


def test_array_beyond_all_memory_is_refused() -> None:
    memory = shown.Memory()
    assert memory.take_array(2**33, 2**33) is None
    assert memory.take_array(2**63, 2) is None
    assert memory.counters() == (0, 0, 0, 2)


def test_resize_beyond_all_memory_keeps_the_block() -> None:
    memory = shown.Memory()
    block = memory.take(4)
    memory.fill(block, b"kept")
    assert memory.resize(block, BEYOND) is False
    assert memory.content(block, 4) == b"kept"
    assert memory.counters() == (4, 1, 1, 1)


def test_resize_of_nothing_takes() -> None:
    memory = shown.Memory()
    assert memory.resize(None, 7) is not None
    assert memory.counters() == (7, 1, 1, 0)


def test_counters_hold_when_threads_share_them() -> None:
    memory = shown.Memory()
    rounds = 2_000_000  # long enough for the threads to overlap on a busy machine
    start = threading.Barrier(3)

    def churn(size: int) -> None:
        start.wait()
        memory.churn(size, rounds)

    threads = [threading.Thread(target=churn, args=(size,)) for size in (8, 100, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert memory.counters() == (0, 0, 3 * rounds, 0)


@pytest.mark.parametrize(("name", "grpc", "kind", "text"), shown.statuses(), ids=[row[0] for row in shown.statuses()])
def test_every_status_says_what_it_is(name: str, grpc: int, kind: int, text: str) -> None:
    assert name.startswith("STATUS_")
    assert 0 <= grpc <= 16
    assert (kind == 0) == (name == "STATUS_OK")
    assert text
    assert text[-1] != "."


def test_what_is_no_status_is_unknown() -> None:
    count = len(shown.statuses())
    assert shown.status_of(count - 1)[0] == shown.statuses()[-1][0] != "STATUS_UNKNOWN"
    assert shown.status_of(count) == shown.status_of(-1) == ("STATUS_UNKNOWN", 2)
