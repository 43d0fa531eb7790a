"""The wire codecs: every case whole, byte by byte, with trailing bytes that must remain, and malformed."""

from __future__ import annotations

import math
import random
import struct

import pytest

from kache.errors import CommandError, status_of
from kache.replies import NULL_ARRAY, BigNumber, Missing, Pairs, SetReply, Verbatim, format_double
from kache.slots import SLOT_COUNT, SlotRange, contiguous, owners, slot_of_key
from kache.wire import link as wire_link
from kache.wire.codec import Buffer, ReplyTooShort, RequestParser, decode_reply, encode_reply

NEED_MORE, FRAME, EMPTY, BROKEN = 0, 1, 2, -1
BINARY, INTERNAL, RESP2, RESP3 = 0, 1, 2, 3


def resp(*strings: bytes) -> bytes:
    return b"*%d\r\n" % len(strings) + b"".join(b"$%d\r\n%s\r\n" % (len(s), s) for s in strings)


def binary(*strings: bytes) -> bytes:
    body = struct.pack("<I", len(strings)) + b"".join(struct.pack("<I", len(s)) + s for s in strings)
    return struct.pack("<I", len(body)) + body


FRAMES = [
    (b"PING",),
    (b"SET", b"key", b""),
    (b"SET", b"", b"value with\r\nbreaks\0"),
    (b"MSET", *(b"%d" % i for i in range(500))),
    (b"SET", b"big", bytes(70_000)),
]


@pytest.mark.parametrize("kind", ["resp", "binary"])
@pytest.mark.parametrize("strings", FRAMES, ids=lambda s: s[0].decode() + str(len(s)))
def test_frame_whole_partial_and_with_trailing_bytes(kind: str, strings: tuple[bytes, ...]) -> None:
    frame = (resp if kind == "resp" else binary)(*strings)
    assert RequestParser().parse(frame, kind) == (FRAME, list(strings), len(frame))
    assert RequestParser().parse(frame + b"*1\r\nrest", kind) == (FRAME, list(strings), len(frame))
    parser = RequestParser()
    step = 1 if len(frame) < 3000 else 997
    for end in range(0, len(frame), step):
        assert parser.parse(frame[:end], kind)[0] == NEED_MORE
    assert parser.parse(frame, kind) == (FRAME, list(strings), len(frame))
    # The parser starts afresh with the next frame.
    assert parser.parse(frame, kind) == (FRAME, list(strings), len(frame))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"PING\r\n", [b"PING"]),
        (b"  set  a b \n", [b"set", b"a", b"b"]),
        (b"set \"a b\" 'c d'\r\n", [b"set", b"a b", b"c d"]),
        (b"x \"\\x41\\n\\t\\\"\" 'it\\'s'\r\n", [b"x", b'A\n\t"', b"it's"]),
        (b'x ""\r\n', [b"x", b""]),
        (b'x a"b c" "d"\r\n', [b"x", b"ab c", b"d"]),
    ],
)
def test_inline(line: bytes, words: list[bytes]) -> None:
    assert RequestParser().parse(line + b"tail", "inline") == (FRAME, words, len(line))
    for end in range(len(line)):
        assert RequestParser().parse(line[:end], "inline")[0] == NEED_MORE


def test_inline_empty_and_unbalanced() -> None:
    assert RequestParser().parse(b"\r\n", "inline") == (EMPTY, None, 2)
    for line in (b'set "a\r\n', b"set 'a\r\n", b'set "a"b"\r\n', b'set """a""" b\r\n', b"set 'a'b c\r\n"):
        parser = RequestParser()
        assert parser.parse(line, "inline")[0] == BROKEN
        assert parser.error == b"ERR Protocol error: unbalanced quotes in request"
    parser = RequestParser()
    assert parser.parse(b"a" * (parser.max_inline + 1), "inline")[0] == BROKEN


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"*3000000000\r\n", b"invalid multibulk length"),
        (b"*x\r\n", b"invalid multibulk length"),
        (b"*01\r\n", b"invalid multibulk length"),
        (b"*-0\r\n", b"invalid multibulk length"),
        (b"*0000000000000000001\r\n", b"invalid multibulk length"),
        (b"*1\r\n$04\r\nPING\r\n", b"invalid bulk length"),
        (b"*1\r\n$004\r\nPING\r\n", b"invalid bulk length"),
        (b"*1\r\n$2000000000\r\n", b"invalid bulk length"),
        (b"*1\r\n$-10\r\n", b"invalid bulk length"),
        (b"*1\r\n$blabla\r\n", b"invalid bulk length"),
        (b"*1\r\nPING\r\n", b"expected '$', got 'P'"),
        (b"*2\r\n$100000000\r\n", b"request larger than"),
        (b"*1\r\n$4\r\nPINGxx", b"invalid CRLF in request"),
        (b"*" + b"1" * 70_000, b"invalid multibulk length"),
    ],
)
def test_resp_that_is_broken(data: bytes, error: bytes) -> None:
    parser = RequestParser()
    assert parser.parse(data, "resp")[0] == BROKEN
    assert parser.error is not None and parser.error.startswith(b"ERR Protocol error: ") and error in parser.error


def test_resp_empty_arrays_are_ignored() -> None:
    assert RequestParser().parse(b"*0\r\nx", "resp") == (EMPTY, None, 4)
    assert RequestParser().parse(b"*-1\r\nx", "resp") == (EMPTY, None, 5)


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<I", 0xFFFFFFFF),
        struct.pack("<I", 0),
        struct.pack("<I", 64 * 1024 * 1024 + 1),
        struct.pack("<II", 8, 2**31),
        struct.pack("<II", 4, 0),
        struct.pack("<III", 9, 1, 9) + b"a",
        struct.pack("<III", 9, 1, 0) + b"a",
        struct.pack("<III", 10, 2, 1) + b"ab",
    ],
)
def test_binary_that_is_broken(data: bytes) -> None:
    parser = RequestParser()
    assert parser.parse(data, "binary")[0] == BROKEN
    assert parser.error is not None and parser.error.startswith(b"ERR Protocol error: ")


VALUES = [
    NULL_ARRAY,
    Pairs([(b"m", 1.5), (b"n", None)]),
    SetReply([b"a"]),
    None,
    0,
    -(2**63),
    2**63 - 1,
    b"",
    b"a\r\nb",
    "PONG",
    1.5,
    -0.0,
    math.inf,
    -math.inf,
    True,
    False,
    [],
    [1, [b"x", None]],
    {b"k": [1.25]},
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_internal_dialect_round_trip(value: object) -> None:
    encoded = encode_reply(value, INTERNAL)
    assert decode_reply(encoded) == (value, len(encoded))
    assert decode_reply(b"+OK\r\n" + encoded + b"+", 5) == (value, len(encoded) + 5)
    for end in range(len(encoded)):
        with pytest.raises(ReplyTooShort):
            decode_reply(encoded[:end])


@pytest.mark.parametrize(
    ("value", "resp2", "resp3"),
    [
        (None, b"$-1\r\n", b"_\r\n"),
        (NULL_ARRAY, b"*-1\r\n", b"_\r\n"),
        (Pairs([(b"m", 1.0)]), b"*2\r\n$1\r\nm\r\n$1\r\n1\r\n", b"*1\r\n*2\r\n$1\r\nm\r\n,1\r\n"),
        (SetReply([b"a"]), b"*1\r\n$1\r\na\r\n", b"~1\r\n$1\r\na\r\n"),
        ({b"a": 1}, b"*2\r\n$1\r\na\r\n:1\r\n", b"%1\r\n$1\r\na\r\n:1\r\n"),
        (Verbatim(b"hi"), b"$2\r\nhi\r\n", b"=6\r\ntxt:hi\r\n"),
        (BigNumber(b"123"), b"$3\r\n123\r\n", b"(123\r\n"),
        (True, b":1\r\n", b"#t\r\n"),
        (2.5, b"$3\r\n2.5\r\n", b",2.5\r\n"),
        (Missing(0), b":0\r\n", b":0\r\n"),
        (CommandError("ERR a\r\nb"), b"-ERR a  b\r\n", b"-ERR a  b\r\n"),
    ],
)
def test_resp_replies(value: object, resp2: bytes, resp3: bytes) -> None:
    assert encode_reply(value, RESP2) == resp2
    assert encode_reply(value, RESP3) == resp3


def frame(status: int, value: bytes) -> bytes:
    return struct.pack("<II", 4 + len(value), status) + value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, frame(2, b"\0")),
        (NULL_ARRAY, frame(2, b"\0")),
        ("OK", frame(0, b"\0")),
        ("PONG", frame(0, b"\2\4\0\0\0PONG")),
        (b"v", frame(0, b"\2\1\0\0\0v")),
        (7, frame(0, b"\3" + struct.pack("<q", 7))),
        (Missing(0), frame(2, b"\3" + struct.pack("<q", 0))),
        (1.5, frame(0, b"\4" + struct.pack("<d", 1.5))),
        ([b"v", None], frame(0, b"\5\2\0\0\0\2\1\0\0\0v\0")),
        ({b"v": True}, frame(0, b"\5\2\0\0\0\2\1\0\0\0v\3" + struct.pack("<q", 1))),
        (CommandError("WRONGTYPE x"), frame(5, b"\1\x0b\0\0\0WRONGTYPE x")),
    ],
)
def test_binary_replies(value: object, expected: bytes) -> None:
    assert encode_reply(value, BINARY) == expected


def test_a_reply_of_a_strange_type_is_refused() -> None:
    with pytest.raises(TypeError, match="object"):
        encode_reply([1, object()], RESP2)
    with pytest.raises(TypeError, match="64 bits"):
        encode_reply(2**64, RESP2)


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("WRONGTYPE x", 5),
        ("OOM x", 6),
        ("NOAUTH x", 7),
        ("WRONGPASS x", 7),
        ("CLUSTERDOWN x", 8),
        ("MISCONF x", 8),
        ("TIMEOUT x", 9),
        ("UNCERTAIN x", 9),
        ("CROSSSLOT x", 10),
        ("ERR unknown command 'x'", 1),
        ("ERR wrong number of arguments for 'get' command", 1),
        ("ERR value is not an integer or out of range", 4),
        ("ERR syntax error", 4),
        ("ERR invalid expire time in 'set' command", 4),
        ("ERR something else", 3),
    ],
)
def test_status_of_an_error(message: str, status: int) -> None:
    assert status_of(message) == status


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, b"0"),
        (-0.0, b"-0"),
        (3.0, b"3"),
        (-1e15, b"-1000000000000000"),
        (3.14, b"3.14"),
        (0.0001, b"0.0001"),
        (0.00001234, b"1.234e-5"),
        (0.00001, b"0.00001"),
        (2.0**62, b"4611686018427387904"),
        (1e-7, b"1e-7"),
        (1.5e300, b"1.5e+300"),
        (5e-324, b"5e-324"),
        (1e22, b"1e+22"),
        (math.inf, b"inf"),
        (-math.inf, b"-inf"),
        (math.nan, b"nan"),
    ],
)
def test_format_double(value: float, text: bytes) -> None:
    assert format_double(value) == text


def test_format_double_reads_back() -> None:
    rng = random.Random(7)
    for _ in range(2000):
        value = struct.unpack("<d", rng.randbytes(8))[0]
        if math.isfinite(value):
            assert float(format_double(value)) == value


def test_slots() -> None:
    # 0x31C3 is the check value of CRC16/XMODEM.
    assert slot_of_key(b"123456789") == 0x31C3 % SLOT_COUNT
    assert slot_of_key(b"{user1000}.following") == slot_of_key(b"{user1000}.followers") == slot_of_key(b"user1000")
    assert slot_of_key(b"foo{}{bar}") != slot_of_key(b"bar")
    assert slot_of_key(b"foo{{bar}}zap") == slot_of_key(b"{bar")
    assert slot_of_key(b"foo{bar}{zap}") == slot_of_key(b"bar")
    assert slot_of_key(b"") == 0


def test_slots_equal_the_plain_definition() -> None:
    """CRC16/XMODEM bit by bit, for every length around the eight bytes that are hashed at a step."""

    def crc16(data: bytes) -> int:
        crc = 0
        for byte in data:
            crc ^= byte << 8
            for _ in range(8):
                crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
        return crc

    rng = random.Random(3)
    for length in range(40):
        key = rng.randbytes(length).replace(b"{", b"x")
        assert slot_of_key(key) == crc16(key) % SLOT_COUNT


@pytest.mark.parametrize("shards", [1, 2, 3, 4, 7, 8, 64])
def test_every_slot_has_one_shard(shards: int) -> None:
    assert owners(contiguous(shards), shards) == [slot * shards // SLOT_COUNT for slot in range(SLOT_COUNT)]


@pytest.mark.parametrize(
    ("ranges", "wrong"),
    [
        ([(0, 16383, 2)], "no such range"),
        ([(0, 16384, 0)], "no such range"),
        ([(9, 8, 0)], "no such range"),
        ([(0, 8000, 0), (8000, 16383, 1)], "two owners"),
        ([(0, 7999, 0), (8001, 16383, 1)], "slot 8000 has no owner"),
        ([], "slot 0 has no owner"),
    ],
)
def test_what_is_no_map_of_slots(ranges: list[SlotRange], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        owners(ranges, 2)


def test_buffer_is_a_queue() -> None:
    rng = random.Random(1)
    buffer, model = Buffer(), b""
    for _ in range(300):
        piece = rng.randbytes(rng.choice([0, 1, 100, 5000]))
        buffer.write(piece)
        model += piece
        assert len(buffer) == len(model)
        if rng.random() < 0.2:
            assert buffer.take() == model
            model = b""


def test_link_numbers_are_distinct() -> None:
    kinds = [wire_link.HELLO, wire_link.HELLO_OK, wire_link.HELLO_NO, wire_link.RUN, wire_link.REPLY]
    kinds += [wire_link.DEFERRED, wire_link.PUSH, wire_link.CANCEL, wire_link.NOTICE]
    assert len(set(kinds)) == len(kinds)
