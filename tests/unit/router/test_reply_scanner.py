"""The scanner of a node's replies: every kind, in pieces that end anywhere, and what is no RESP."""

from __future__ import annotations

import random

import pytest

from kache.router.mux.multiplexer import ReplyScanner

REPLIES = [
    b"+OK\r\n", b"-ERR no\r\n", b":-12\r\n", b"$-1\r\n", b"$0\r\n\r\n", b"$5\r\na\r\nb\n\r\n", b"*-1\r\n", b"*0\r\n",
    b"*2\r\n*1\r\n$1\r\na\r\n*0\r\n", b"_\r\n", b",3.5\r\n", b"#t\r\n", b"(123456789012345678901234567890\r\n",
    b"=7\r\ntxt:abc\r\n", b"!5\r\nERR x\r\n", b"~2\r\n:1\r\n:2\r\n", b"%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n:2\r\n",
    b"|1\r\n+ttl\r\n:3600\r\n:5\r\n", b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n",
    b"*3\r\n%1\r\n+k\r\n~1\r\n_\r\n|1\r\n+a\r\n+b\r\n$1\r\nx\r\n*0\r\n",
]  # fmt: skip


def test_every_kind_in_pieces_that_end_anywhere() -> None:
    data = b"".join(REPLIES)
    sizes = [len(reply) for reply in REPLIES]
    assert ReplyScanner().sizes(data, [len(data)]) == sizes
    assert ReplyScanner().sizes(data, range(1, len(data) + 1)) == sizes
    generator = random.Random(3)
    for _ in range(200):
        cuts = sorted(generator.sample(range(1, len(data)), 10)) + [len(data)]
        assert ReplyScanner().sizes(data, cuts) == sizes


@pytest.mark.parametrize(
    "data", [b"x\r\n", b"$x\r\n", b"$-2\r\n", b"*1x\r\n", b"\r\n", b"$\r\n", b"HTTP/1.1 200 OK\r\n", b"*1\r\n?\r\n"]
)
def test_what_is_no_reply(data: bytes) -> None:
    assert ReplyScanner().sizes(data, range(1, len(data) + 1)) == [-1]


def test_a_line_without_end_is_given_up() -> None:
    assert ReplyScanner().sizes(b"+" + b"x" * (1 << 20), [(1 << 20) + 1]) == [-1]


def test_a_large_reply_is_not_looked_at_twice() -> None:
    reply = b"*3000\r\n" + b"$1000\r\n%b\r\n" % (b"v" * 1000) * 3000
    assert ReplyScanner().sizes(reply, [*range(16384, len(reply), 16384), len(reply)]) == [len(reply)]
