"""gRPC's header values, prefixes, request messages and status tables."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st
from shown import (
    shown_grpc_content_type,
    shown_grpc_decimal,
    shown_grpc_filter,
    shown_grpc_message_decode,
    shown_grpc_message_encode,
    shown_grpc_nonce_decode,
    shown_grpc_nonce_encode,
    shown_grpc_prefix_write,
    shown_grpc_reply_decode,
    shown_grpc_reply_encode,
    shown_grpc_status,
    shown_grpc_status_of_http,
    shown_grpc_status_of_http2,
    shown_grpc_timeout,
)
from unit import oracle_grpc as oracle

from relay.kubearmor_pb2 import NonceMessage, ReplyMessage, RequestMessage

ROOM = 1 << 16


# Numbers as text


@given(st.integers(0, 2**64 - 1))
@example(0)
@example(2**64 - 1)
def test_decimal(value: int) -> None:
    assert shown_grpc_decimal(value) == str(value).encode()


@given(st.one_of(st.from_regex(rb"[0-9]{0,9}[HMSmunh]?", fullmatch=True), st.binary(max_size=12)))
@example(b"99999999H")
@example(b"5124095H")  # the last number of hours that fits 64 bits, and the first that does not
@example(b"5124096H")
@example(b"S")
@example(b"0n")
@example(b"123456789n")
@example(b"-1S")
@example(b"1S\n")
def test_timeout(text: bytes) -> None:
    assert shown_grpc_timeout(text) == oracle.timeout(text)


@given(st.one_of(st.integers(0, 40).map(lambda n: str(n).encode()), st.binary(max_size=6)))
@example(b"")
@example(b"016")
@example(b"4294967296")
@example(b"0" * 5000)
@example(b"+1")
def test_status(text: bytes) -> None:
    assert shown_grpc_status(text) == oracle.status(text)


# Header values


TEXTS = st.one_of(
    st.binary(max_size=60), st.text(max_size=40).map(str.encode), st.from_regex(rb"(%[0-9a-gA-G]{0,2}|x){0,20}")
)


@given(TEXTS)
@example(bytes(range(256)))
def test_message_encode(text: bytes) -> None:
    encoded = shown_grpc_message_encode(text, 3 * len(text))
    assert encoded == oracle.message_encode(text, 3 * len(text))
    assert encoded.isascii()
    assert shown_grpc_message_decode(encoded, len(text)) == text


@given(TEXTS, st.integers(0, 70))
def test_message_that_does_not_fit_is_cut_between_characters(text: bytes, room: int) -> None:
    assert shown_grpc_message_encode(text, room) == oracle.message_encode(text, room)


@given(st.text(max_size=20), st.integers(0, 70))
def test_cut_message_is_still_utf8(text: str, room: int) -> None:
    cut = shown_grpc_message_decode(shown_grpc_message_encode(text.encode(), room), ROOM)
    assert text.startswith(cut.decode())


@given(TEXTS, st.one_of(st.just(ROOM), st.integers(0, 20)), st.booleans())
@example(b"%41%4a%4A%zz%4", ROOM, False)
@example(b"%4g%g4%4G%/0%:0%@0%`0", ROOM, False)
@example(b"%", ROOM, True)
@example(b"%f", ROOM, True)
def test_message_decode(text: bytes, room: int, in_place: bool) -> None:
    room = min(room, len(text)) if in_place else room
    assert shown_grpc_message_decode(text, room, in_place) == oracle.message_decode(text, room)


@pytest.mark.parametrize(
    "text",
    [
        b"application/grpc",
        b"application/grpc+proto",
        b"application/grpc;charset=utf-8",
        b"application/grpc; charset=utf-8",
        b"application/grpc \t;x",
        b"application/grpc+proto;x",
        b"Application/GRPC+Proto",
    ],
)
def test_content_types_of_grpc(text: bytes) -> None:
    assert shown_grpc_content_type(text)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"application/grp",
        b"application/grpc-web",
        b"application/grpc-web+proto",
        b"application/grpc+json",
        b"application/grpc+",
        b"application/grpc+protobuf",
        b"application/grpc+prot",
        b"application/grpc+protx",
        b"application/grpcx",
        b"application/grpc ",
        b"application/grpc x;",
        b" application/grpc",
        b"application/json",
        b"application/grpc\0",
    ],
)
def test_content_types_that_are_not_ours(text: bytes) -> None:
    assert not shown_grpc_content_type(text)


@given(
    st.lists(st.sampled_from([b"application/grpc", b"APPLICATION/grpc", b"+proto", b";", b" ", b"\t", b"x", b"+"])).map(
        b"".join
    )
)
def test_content_type(text: bytes) -> None:
    assert shown_grpc_content_type(text) == oracle.content_type(text)


# Length-prefixed messages


@given(st.integers(0, 2**32 - 1))
def test_prefix(size: int) -> None:
    assert shown_grpc_prefix_write(size) == b"\0" + size.to_bytes(4, "big")


# The messages of LogService


def varint(value: int, more: int = 0) -> bytes:
    """A varint, `more` bytes longer than it has to be."""
    digits = []
    while True:
        digits.append(value & 0x7F)
        value >>= 7
        if not value:
            break
    digits += [0] * more
    return bytes([*(digit | 0x80 for digit in digits[:-1]), digits[-1]])


NUMBERS = st.one_of(st.integers(1, 3), st.sampled_from([15, 16, 2**29 - 1]))
VARINTS = st.builds(
    varint, st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1), st.integers(0, 2**70 - 1)), st.integers(0, 3)
)


@st.composite
def tags(draw: st.DrawFn, wire: int) -> bytes:
    return varint(draw(NUMBERS) << 3 | wire, draw(st.integers(0, 1)))


def with_group(children: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    def group(number: int, end: int, inner: list[bytes]) -> bytes:
        return varint(number << 3 | 3) + b"".join(inner) + varint(end << 3 | 4)

    same = NUMBERS.flatmap(lambda n: st.builds(group, st.just(n), st.just(n), st.lists(children, max_size=3)))
    return st.one_of(same, st.builds(group, NUMBERS, NUMBERS, st.lists(children, max_size=2)))


TEXT_VALUES = st.one_of(st.text(max_size=12).map(str.encode), st.binary(max_size=6))
SIMPLE_FIELDS = st.one_of(
    st.builds(lambda text: b"\x0a" + varint(len(text)) + text, st.text(max_size=12).map(str.encode)),
    st.builds(lambda text: b"\x0a" + varint(len(text)) + text, TEXT_VALUES),
    st.builds(lambda value: b"\x08" + value, VARINTS),
    st.builds(bytes.__add__, tags(0), VARINTS),
    st.builds(bytes.__add__, tags(1), st.binary(min_size=8, max_size=8)),
    st.builds(lambda tag, text, more: tag + varint(len(text), more) + text, tags(2), TEXT_VALUES, st.integers(0, 5)),
    st.builds(bytes.__add__, tags(5), st.binary(min_size=4, max_size=4)),
)
FIELDS = st.recursive(SIMPLE_FIELDS, with_group, max_leaves=6)
MESSAGES = st.one_of(
    st.lists(FIELDS, max_size=6).map(b"".join),
    st.builds(lambda fields, cut: b"".join(fields)[:cut], st.lists(FIELDS, max_size=4), st.integers(0, 30)),
    st.binary(max_size=24),
)


def nested(depth: int) -> bytes:
    """Groups of field 2, one in the other."""
    return b"\x13" * depth + b"\x14" * depth


@given(MESSAGES)
@example(b"")
@example(b"\x0a\x03all\x0a\x06policy")
@example(b"\x0a\x03all\x0a\x00")
@example(b"\x0a\x02\xc3\x28\x0a\x03all")  # invalid UTF-8, though a valid one follows
@example(b"\x08\x05\x0a\x03all")  # field 1 of another wire type
@example(b"\x0a\x04all")
@example(b"\x0a\xff\xff\xff\xff\x0f")
@example(b"\x02\x00")  # field number 0
@example(b"\x14")  # the end of a group that was not begun
@example(b"\x10\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02")
@example(nested(99) + b"\x0a\x03all")
@example(nested(100) + b"\x0a\x03all")
@example(nested(101) + b"\x0a\x03all")
@example(b"\x0a\x03\xed\xa0\x80")  # a surrogate
@example(b"\x0a\x02\xc1\x81")  # longer than it has to be
@example(b"\x0a\x03\xe0\x9f\xbf")
@example(b"\x0a\x04\xf0\x8f\xbf\xbf")
@example(b"\x0a\x04\xf4\x90\x80\x80")
@example(b"\x0a\x04\xf4\x8f\xbf\xbf")
@example(b"\x0a\x04\xf5\x80\x80\x80")
def test_filter(message: bytes) -> None:
    assert shown_grpc_filter(message) == oracle.request_filter(message)
    # And the oracle against protobuf itself.
    try:
        parsed = RequestMessage.FromString(message).Filter.encode()
    except DecodeError:
        parsed = None
    assert parsed == oracle.request_filter(message, upb=True)


@given(st.text(max_size=200), st.binary(max_size=0))
def test_filter_of_what_protobuf_writes(text: str, nothing: bytes) -> None:
    assert shown_grpc_filter(RequestMessage(Filter=text).SerializeToString() + nothing) == text.encode()


@given(MESSAGES)
@example(b"\x08\x01\x08\x02")
@example(b"\x08\xff\xff\xff\xff\x7f")  # more than 32 bits: the rest is dropped
@example(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
@example(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02")
def test_nonce_decode(message: bytes) -> None:
    assert shown_grpc_nonce_decode(message) == oracle.int32(message)
    assert shown_grpc_reply_decode(message) == oracle.int32(message)
    try:
        parsed = NonceMessage.FromString(message).nonce
    except DecodeError:
        parsed = None
    assert parsed == oracle.int32(message, upb=True)


@given(st.integers(-(2**31), 2**31 - 1))
@example(0)
@example(-1)
@example(127)
@example(128)
@example(2**31 - 1)
@example(-(2**31))
def test_nonce_and_reply(value: int) -> None:
    assert shown_grpc_nonce_encode(value) == NonceMessage(nonce=value).SerializeToString()
    assert shown_grpc_reply_encode(value) == ReplyMessage(Retval=value).SerializeToString()
    assert shown_grpc_nonce_decode(shown_grpc_nonce_encode(value)) == value
    assert shown_grpc_reply_decode(shown_grpc_reply_encode(value)) == value


# Statuses


@pytest.mark.parametrize("http", [*range(100, 600), 0, -1, 2**31 - 1])
def test_status_of_http(http: int) -> None:
    assert shown_grpc_status_of_http(http) == oracle.STATUS_OF_HTTP.get(http, 2)


@pytest.mark.parametrize("error", [*range(20), 2**32 - 1])
def test_status_of_http2(error: int) -> None:
    assert shown_grpc_status_of_http2(error) == oracle.STATUS_OF_HTTP2.get(error, 2)
