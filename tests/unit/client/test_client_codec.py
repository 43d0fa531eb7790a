"""The client's codec: every reply whole, byte by byte, with trailing bytes, and malformed."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kache.client import codec
from kache.client.errors import (
    AuthenticationError,
    BadArgumentError,
    CommandError,
    ConnectError,
    CrossSlotError,
    NotExecutedError,
    OutcomeUnknownError,
    OutOfMemoryError,
    ProtocolError,
    RequestTooLargeError,
    UnavailableError,
    UncertainError,
    UnknownCommandError,
    WrongTypeError,
)

NIL = b"\x00"


def string(text: bytes) -> bytes:
    return b"\x02" + struct.pack("<I", len(text)) + text


def integer(number: int) -> bytes:
    return b"\x03" + struct.pack("<q", number)


def double(number: float) -> bytes:
    return b"\x04" + struct.pack("<d", number)


def array(*values: bytes) -> bytes:
    return b"\x05" + struct.pack("<I", len(values)) + b"".join(values)


def error(text: bytes) -> bytes:
    return b"\x01" + struct.pack("<I", len(text)) + text


def frame(status: int, value: bytes) -> bytes:
    return struct.pack("<II", 4 + len(value), status) + value


REPLIES: list[tuple[bytes, Any]] = [
    (frame(0, NIL), True),
    (frame(2, NIL), None),
    (frame(0, string(b"")), b""),
    (frame(0, string(b"hello\x00\xff")), b"hello\x00\xff"),
    (frame(0, integer(-(2**63))), -(2**63)),
    (frame(2, integer(0)), 0),
    (frame(0, double(3.5)), 3.5),
    (frame(0, double(-math.inf)), -math.inf),
    (frame(0, array()), []),
    (frame(0, array(string(b"a"), double(1.0), NIL, array(integer(7), array()))), [b"a", 1.0, None, [7, []]]),
    (frame(5, error(b"WRONGTYPE no")), WrongTypeError("WRONGTYPE no")),
]


@pytest.mark.parametrize(("data", "expected"), REPLIES)
def test_reply_whole_bytewise_and_with_a_tail(data: bytes, expected: Any) -> None:
    whole = codec.Reader()
    whole.feed(data)
    assert whole.next_reply() == expected
    assert whole.unread == 0
    bytewise = codec.Reader()
    for byte in data[:-1]:
        bytewise.feed(bytes([byte]))
        assert bytewise.next_reply() is codec.MORE
    bytewise.feed(data[-1:])
    assert bytewise.next_reply() == expected
    tail = codec.Reader()
    tail.feed(data + b"\x09\x00")
    assert tail.next_reply() == expected
    assert tail.next_reply() is codec.MORE
    assert tail.unread == 2


def test_replies_in_order() -> None:
    reader = codec.Reader()
    reader.feed(b"".join(data for data, _ in REPLIES))
    assert [reader.next_reply() for _ in REPLIES] == [expected for _, expected in REPLIES]


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<I", 0),
        struct.pack("<I", 4),
        struct.pack("<II", 0xFFFFFFFF, 11),
        b"HTTP/1.1 400 Bad Request\r\n",
        b"x" * 1024,
        frame(0, b"\x06"),
        frame(0, b"\x03\x01"),
        frame(0, integer(1) + b"x"),
        frame(0, string(b"abc")[:-1]),
        frame(0, string(b"abc") + b"d"),
        frame(0, b"\x05\xff\xff\xff\xff"),
        frame(0, b"\x05" + struct.pack("<I", 2) + integer(1)),
        frame(0, b"\x05\x01\x00\x00\x00" * 40 + NIL),
        frame(3, NIL),
    ],
)
def test_malformed_response(data: bytes) -> None:
    reader = codec.Reader()
    reader.feed(data + bytes(64))
    with pytest.raises(ProtocolError):
        reader.next_reply()


@pytest.mark.parametrize("cut", range(1, 24))
def test_a_refusal_in_words_instead_of_a_first_response(cut: int) -> None:
    said = b"-ERR max number of clients reached\r\n"
    reader = codec.Reader()
    reader.feed(said[:cut])
    assert reader.next_reply() is codec.MORE
    reader.feed(said[cut:])
    with pytest.raises(
        ConnectError, match="the server refused the connection: ERR max number of clients reached"
    ) as found:
        reader.next_reply()
    assert isinstance(found.value, NotExecutedError) and not isinstance(found.value, CommandError)


def test_later_responses_may_have_any_length() -> None:
    letters = struct.pack("<II", int.from_bytes(b"AAAA", "little"), 0)
    reader = codec.Reader()
    reader.feed(letters)  # a response of a gigabyte, as its status shows
    assert reader.next_reply() is codec.MORE
    reader = codec.Reader()
    reader.feed(frame(0, integer(1)) + letters[:4] + b"\x00")
    assert reader.next_reply() == 1
    assert reader.next_reply() is codec.MORE


def test_what_no_server_takes_is_not_sent() -> None:
    assert len(codec.encode_request(["set", "k", bytes(codec.MAX_REQUEST - 4 - 3 * 4 - 4)])) == codec.MAX_REQUEST + 4
    with pytest.raises(RequestTooLargeError, match="cannot be sent: the binary protocol carries up to") as found:
        codec.encode_request(["set", "k", bytes(codec.MAX_REQUEST - 4 - 3 * 4 - 3)])
    assert isinstance(found.value, NotExecutedError)


def test_decode_makes_strings() -> None:
    reader = codec.Reader(decode=True)
    reader.feed(frame(0, array(string("é".encode()), string(b""))) + frame(0, string(b"\xff")) + frame(0, integer(1)))
    assert reader.next_reply() == ["é", ""]
    with pytest.raises(UnicodeDecodeError):
        reader.next_reply()
    assert reader.next_reply() == 1


@pytest.mark.parametrize(
    ("status", "kind", "marker"),
    [
        (1, UnknownCommandError, NotExecutedError),
        (3, CommandError, CommandError),
        (4, BadArgumentError, CommandError),
        (5, WrongTypeError, CommandError),
        (6, OutOfMemoryError, NotExecutedError),
        (7, AuthenticationError, NotExecutedError),
        (8, UnavailableError, NotExecutedError),
        (9, OutcomeUnknownError, UncertainError),
        (10, CrossSlotError, CommandError),
    ],
)
def test_error_statuses(status: int, kind: type[CommandError], marker: type[Exception]) -> None:
    reader = codec.Reader()
    reader.feed(frame(status, error(b"CODE some text")))
    reply = reader.next_reply()
    assert type(reply) is kind
    assert isinstance(reply, marker)
    assert (reply.code, reply.message) == ("CODE", "CODE some text")
    assert not (isinstance(reply, NotExecutedError) and isinstance(reply, UncertainError))


def test_error_inside_an_array_is_classified_by_its_text() -> None:
    reader = codec.Reader()
    reader.feed(frame(0, array(error(b"WRONGTYPE Operation against a key"), integer(1))))
    reply: Any = reader.next_reply()
    first, second = reply
    assert type(first) is WrongTypeError
    assert second == 1


def test_request_frame_by_hand() -> None:
    assert codec.encode_request(["set", b"k", "é", 7, -1.5, bytearray(b"b"), memoryview(b"m")]) == bytes.fromhex(
        "2d000000 07000000 03000000 736574 01000000 6b 02000000 c3a9 01000000 37"
        "04000000 2d312e35 01000000 62 01000000 6d"
    )


@pytest.mark.parametrize("argument", [None, True, [1], {"a": 1}])
def test_argument_without_an_obvious_text(argument: Any) -> None:
    with pytest.raises(TypeError, match="bytes, str, int or float"):
        codec.encode_request(["set", "k", argument])


def test_empty_request() -> None:
    with pytest.raises(ValueError, match="at least the name"):
        codec.encode_request([])


def test_pipeline_ends() -> None:
    data, ends = codec.encode_many([("ping",), ("get", "k")])
    assert data == codec.encode_request(["ping"]) + codec.encode_request(["get", "k"])
    assert ends == [16, len(data)]


def test_shapes() -> None:
    assert codec.as_dict([b"a", b"1", b"b", b"2"]) == {b"a": b"1", b"b": b"2"}
    assert codec.as_dict(None) == {}
    assert codec.as_scored([b"a", 1.0, b"b", b"2.5"]) == [(b"a", 1.0), (b"b", 2.5)]
    assert codec.as_scan([b"17", [b"k"]]) == (17, [b"k"])
    assert codec.as_fields(b"# Server\r\nredis_version:7.2.4\r\nurl:a:b\r\n\r\n") == {
        "redis_version": "7.2.4",
        "url": "a:b",
    }
    assert codec.as_stats([[b"shard", 0, b"state", b"ready"]]) == [{"shard": 0, "state": "ready"}]
    assert codec.flatten({"a": 1, "b": 2}) == ["a", 1, "b", 2]


def encoded(value: Any) -> bytes:
    if value is None:
        return NIL
    if isinstance(value, bytes):
        return string(value)
    if isinstance(value, int):
        return integer(value)
    if isinstance(value, float):
        return double(value)
    return array(*map(encoded, value))


VALUES = st.recursive(
    st.none() | st.binary(max_size=30) | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=20,
)


@given(st.lists(VALUES.filter(lambda value: value is not None), max_size=6), st.integers(1, 40))
def test_any_values_in_any_chunks(values: list[Any], chunk: int) -> None:
    data = b"".join(frame(0, encoded(value)) for value in values)
    reader = codec.Reader()
    replies = []
    for at in range(0, len(data), chunk):
        reader.feed(data[at : at + chunk])
        while (reply := reader.next_reply()) is not codec.MORE:
            replies.append(reply)
    assert replies == values


@given(st.binary(max_size=60), st.integers(0, 10), st.booleans())
def test_nonsense_is_a_protocol_error_or_a_reply(body: bytes, status: int, decode: bool) -> None:
    reader = codec.Reader(decode)
    reader.feed(struct.pack("<II", 4 + len(body), status) + body + bytes(16))
    try:
        reply = reader.next_reply()
    except (ProtocolError, UnicodeDecodeError):
        return
    assert reply is not codec.MORE
    assert reader.unread == 16
