"""From nodes to the journal: however HTTP/2 and TCP cut a node's events, the journal holds them as they were sent."""

from collections.abc import Iterator

import pytest
from hyperframe.frame import PriorityFrame
from hypothesis import given
from hypothesis import strategies as st
from peers import events
from peers.talking import Talking

pytestmark = pytest.mark.both_transports

LOGS, ALERTS, MESSAGES = events.LOGS, events.ALERTS, events.MESSAGES


@pytest.fixture(scope="module")
def talking() -> Iterator[Talking]:
    """One connection for all tests that leave it as it was."""
    made = Talking()
    yield made
    made.close()


@pytest.fixture
def dribbling() -> Iterator[Talking]:
    """A connection whose node writes each byte by itself."""
    made = Talking(segment=1)
    yield made
    made.close()


def sizes() -> list[bytes]:
    """Events of all sizes that matter: none, less than a prefix, around a frame, and above the usual pieces."""
    return [b"", events.event(LOGS, 1), *(events.event(LOGS, size, size) for size in (100, 783, 4096, 16379, 16384))]


@pytest.mark.parametrize("pad", [None, 0, 1, 255])
@pytest.mark.parametrize("size", [0, 1, 4, 5, 6, 1000, 16000])
def test_data_frames_of_any_size(talking: Talking, size: int, pad: int | None) -> None:
    sent = sizes()[:4] if size == 1 else sizes()
    talking.wire.say(LOGS, events.frames(sent), size=size, pad=pad)
    assert talking.sinks[LOGS].take(len(sent)) == sent


@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize("pad", [None, 3])
def test_one_byte_a_segment(dribbling: Talking, size: int, pad: int | None) -> None:
    sent = [b"", *events.events(LOGS, 3), b""]
    dribbling.wire.say(LOGS, events.frames(sent), size=size, pad=pad)
    assert dribbling.sinks[LOGS].take(len(sent)) == sent


def test_many_events_in_one_frame(talking: Talking) -> None:
    sent = events.events(LOGS, 200)
    data = events.frames(sent)
    assert len(data) < 16384
    talking.wire.say(LOGS, data)
    assert talking.sinks[LOGS].take(len(sent)) == sent


@pytest.mark.parametrize("size", [1 << 20, (4 << 20) - 1, 4 << 20])
def test_an_event_in_many_frames(talking: Talking, size: int) -> None:
    sent = [events.event(LOGS, 1, size), events.event(LOGS, 2)]
    talking.wire.say(LOGS, events.frames(sent))
    assert talking.sinks[LOGS].take(2) == sent


def test_nothing_but_padding(talking: Talking) -> None:
    """A DATA frame may hold padding only, in the middle of an event, too."""
    sent = events.event(LOGS, 3)
    data = events.frame(sent)
    for piece in (data[:3], b"", data[3:9], b"", data[9:]):
        with talking.wire._changed:
            talking.wire.h2.send_data(talking.wire.stream(LOGS), piece, pad_length=10)
            talking.wire.flush()
    assert talking.sinks[LOGS].take(1) == [sent]


def test_feeds_interleave_in_the_middle_of_events(talking: Talking) -> None:
    sent = {feed: events.events(feed, 20) for feed in events.FEEDS}
    pieces = {feed: list(events.chunks(events.frames(sent[feed]), 11)) for feed in events.FEEDS}
    for turn in range(max(map(len, pieces.values()))):
        for feed in events.FEEDS:
            if turn < len(pieces[feed]):
                talking.wire.say(feed, pieces[feed][turn])
    for feed in events.FEEDS:
        assert talking.sinks[feed].take(20) == sent[feed]


def test_other_frames_between_the_parts_of_an_event(talking: Talking) -> None:
    """PING, SETTINGS, WINDOW_UPDATE, PRIORITY and frames of unknown types are no part of it."""
    wire, stream = talking.wire, talking.wire.stream(LOGS)
    sent = events.event(LOGS, 4)
    data = events.frame(sent)
    acknowledged = wire.settings_acknowledged
    interludes = [
        lambda: wire.ping(b"interval"),
        lambda: wire.change(max_concurrent_streams=99),
        lambda: wire.window(1000),
        lambda: wire.window(1000, stream),
        lambda: wire.send_frame(PriorityFrame(stream, depends_on=0, stream_weight=7)),
        lambda: wire.send_raw_frame(0xEE, 0xFF, stream, b"unknown"),
        lambda: wire.send_raw_frame(0xEF, 0, 0),
    ]
    step = len(data) // len(interludes) + 1
    for piece, interlude in zip(events.chunks(data, step), interludes, strict=True):
        wire.say(LOGS, piece)
        interlude()
    assert talking.sinks[LOGS].take(1) == [sent]
    wire.wait(lambda wire: b"interval" in wire.pongs, "answer to PING")
    wire.wait(lambda wire: wire.settings_acknowledged > acknowledged, "acknowledged SETTINGS")


@given(
    lengths=st.lists(st.integers(40, 400), min_size=1, max_size=12),
    cuts=st.lists(st.tuples(st.integers(0, 300), st.none() | st.integers(0, 255)), min_size=1, max_size=30),
)
def test_any_cuts(talking: Talking, lengths: list[int], cuts: list[tuple[int, int | None]]) -> None:
    sent = [events.event(LOGS, number, size) for number, size in enumerate(lengths)]
    data, at, turn = events.frames(sent), 0, 0
    while at < len(data):
        size, pad = cuts[turn % len(cuts)]
        size = size or (1 if turn >= len(cuts) else 0)
        with talking.wire._changed:
            talking.wire._room(talking.wire.stream(LOGS), 1024)
            talking.wire.h2.send_data(talking.wire.stream(LOGS), data[at : at + size], pad_length=pad)
            talking.wire.flush()
        at += size
        turn += 1
    assert talking.sinks[LOGS].take(len(sent)) == sent


def test_windows_are_reopened_for_ever(talking: Talking) -> None:
    """More than both flow-control windows together, while nobody reads what comes of it."""
    sent = events.events(LOGS, 40, 1 << 20)
    talking.wire.say(LOGS, events.frames(sent))
    assert talking.sinks[LOGS].take(40) == sent
