"""Messages as the client reads them: whole, byte by byte, with something behind them, and malformed."""

from __future__ import annotations

from typing import Any

import pytest

from kache.client.codec import MORE
from kache.client.errors import ProtocolError
from kache.client.messages import Listening, Message, Push, RespReader, encode_resp
from kache.client.pubsub import names_of
from kache.errors import CommandError

VALUES: list[tuple[bytes, Any]] = [
    (b"+OK\r\n", b"OK"),
    (b":-7\r\n", -7),
    (b"$3\r\na\r\n\r\n", b"a\r\n"),
    (b"$-1\r\n", None),
    (b"*-1\r\n", None),
    (b"_\r\n", None),
    (b"#t\r\n", True),
    (b",1.5\r\n", 1.5),
    (b"=7\r\ntxt:abc\r\n", b"abc"),
    (b"%1\r\n$1\r\nk\r\n:1\r\n", [b"k", 1]),
    (b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n", [b"message", b"c", b"hi"]),
    (b"*2\r\n*0\r\n~1\r\n:1\r\n", [[], [1]]),
]


@pytest.mark.parametrize(("data", "value"), VALUES)
def test_values(data: bytes, value: Any) -> None:
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))], [data + b":5\r\n"]):
        reader = RespReader()
        for number, piece in enumerate(pieces):
            if number:
                assert reader.next_value() is MORE
            reader.feed(piece)
        assert reader.next_value() == value
        assert reader.next_value() in (MORE, 5)


@pytest.mark.parametrize("data", [b"?\r\n", b"\r\n", b"$x\r\n", b"$99999999999\r\n", b":\r\n", b"*1\r\n" * 40])
def test_what_is_no_reply(data: bytes) -> None:
    reader = RespReader()
    reader.feed(data)
    with pytest.raises(ProtocolError):
        while reader.next_value() is not MORE:
            pass
        raise AssertionError("it waits for more")


def test_errors_are_values() -> None:
    reader = RespReader()
    reader.feed(b"-WRONGTYPE no\r\n!3\r\nERR\r\n")
    first = reader.next_value()
    assert isinstance(first, CommandError) and first.message == "WRONGTYPE no"


def push(*words: bytes | int) -> bytes:
    body = b"".join(
        b":%d\r\n" % word if isinstance(word, int) else b"$%d\r\n%b\r\n" % (len(word), word) for word in words
    )
    return b">%d\r\n" % len(words) + body


def test_messages_and_confirmations() -> None:
    core: Listening[bytes] = Listening(False)
    assert core.begin("message", [b"a", b"b"]) == encode_resp("SUBSCRIBE", b"a", b"b")
    assert core.begin("pmessage", [b"x*"]) == encode_resp("PSUBSCRIBE", b"x*")
    assert core.unconfirmed == 3 and core.anything
    core.feed(push(b"subscribe", b"a", 1) + push(b"message", b"a", b"1") + push(b"subscribe", b"b", 2))
    core.feed(
        push(b"psubscribe", b"x*", 3)
        + push(b"pmessage", b"x*", b"xy", b"2")
        + b"+PONG\r\n"
        + push(b"smessage", b"s", b"3")
    )
    assert list(core.messages()) == [Message(b"a", b"1"), Message(b"xy", b"2", b"x*"), Message(b"s", b"3")]
    assert core.unconfirmed == 0
    assert core.end("message", []) == encode_resp("UNSUBSCRIBE", b"a", b"b") and core.unconfirmed == 2
    core.feed(push(b"unsubscribe", b"a", 2) + push(b"unsubscribe", b"b", 1))
    assert list(core.messages()) == [] and core.unconfirmed == 0
    assert core.again() == encode_resp("PSUBSCRIBE", b"x*") and core.unconfirmed == 1


def test_many_names_are_asked_for_again_in_pieces() -> None:
    core: Listening[bytes] = Listening(False)
    core.begin("message", [b"%d" % n for n in range(2500)])
    again = core.again()
    assert again.count(b"SUBSCRIBE") == 3 and core.unconfirmed == 2500


def test_text_and_errors() -> None:
    core: Listening[str] = Listening(True)
    core.feed(push(b"message", "kanal:ü".encode(), b"\xff"))
    assert list(core.messages()) == [Message("kanal:ü", "\udcff")]
    core.feed(b"-NOAUTH who\r\n")
    with pytest.raises(CommandError, match="NOAUTH"):
        list(core.messages())
    with pytest.raises(ValueError, match="without a name"):
        core.begin("message", [])
    with pytest.raises(TypeError, match="int"):
        names_of([1])  # type: ignore[list-item]  # that is the point


def test_a_push_is_told_apart() -> None:
    reader = RespReader()
    reader.feed(b"*1\r\n:1\r\n>1\r\n:1\r\n")
    assert [type(reader.next_value()) for _ in range(2)] == [list, Push]
