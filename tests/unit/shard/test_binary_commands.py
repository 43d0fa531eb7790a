"""The commands that answer differently in the binary protocol, encoded as its clients see them."""

from __future__ import annotations

import struct

import pytest

from kache.errors import CommandError
from kache.shard.commands import binary
from kache.shard.engine.engine import Context
from kache.shard.shard import Shard
from kache.wire.codec import encode_reply

NOW_MS = 1_700_000_000_000
BINARY = 0
OK, MISSING = 0, 2
NIL, INT = 0, 3


@pytest.fixture
def ctx() -> Context:
    """A context whose database has a string "a" and a sorted set "z"."""
    context = Context(Shard(now_ms=NOW_MS), BINARY)
    context.keys.string_set(b"a", b"1")
    context.keys.zset_replace(b"z", {b"m": 1.0})
    return context


def seen(reply: object) -> tuple[int, int, int | None]:
    """(status, tag, integer) of a reply as it goes over the wire."""
    frame = encode_reply(reply, BINARY)
    status, tag = struct.unpack_from("<IB", frame, 4)
    return status, tag, struct.unpack_from("<q", frame, 9)[0] if tag == INT else None


def test_del(ctx: Context) -> None:
    assert seen(binary.binary_del(ctx, b"a", b"a", b"z")) == (OK, INT, 2)
    assert seen(binary.binary_del(ctx, b"a")) == (MISSING, INT, 0)


def test_expire_takes_milliseconds(ctx: Context) -> None:
    assert seen(binary.binary_expire(ctx, b"a", b"1500")) == (OK, NIL, None)
    assert ctx.keys.deadline_of(b"a") == NOW_MS + 1500
    assert seen(binary.binary_expire(ctx, b"missing", b"1500")) == (MISSING, NIL, None)
    assert seen(binary.binary_expire(ctx, b"a", b"0")) == (OK, NIL, None)
    assert not ctx.keys.exists(b"a")
    with pytest.raises(CommandError, match="not an integer"):
        binary.binary_expire(ctx, b"z", b"x")


def test_expire_with_options_answers_as_in_resp(ctx: Context) -> None:
    assert seen(binary.binary_expire(ctx, b"a", b"1500", b"XX")) == (OK, INT, 0)
    assert seen(binary.binary_expire(ctx, b"a", b"1500", b"NX")) == (OK, INT, 1)


def test_persist(ctx: Context) -> None:
    assert seen(binary.binary_persist(ctx, b"a")) == (OK, NIL, None)
    ctx.keys.deadline_set(b"a", NOW_MS + 5)
    assert seen(binary.binary_persist(ctx, b"a")) == (OK, NIL, None)
    assert ctx.keys.deadline_of(b"a") == -1
    assert seen(binary.binary_persist(ctx, b"missing")) == (MISSING, NIL, None)


def test_zadd_and_zrem(ctx: Context) -> None:
    assert seen(binary.binary_zadd(ctx, b"z", b"2", b"n")) == (OK, NIL, None)
    assert seen(binary.binary_zadd(ctx, b"z", b"3", b"n")) == (OK, NIL, None)
    assert seen(binary.binary_zadd(ctx, b"z", b"XX", b"CH", b"4", b"n")) == (OK, INT, 1)
    assert seen(binary.binary_zrem(ctx, b"z", b"n")) == (OK, INT, 1)
    assert seen(binary.binary_zrem(ctx, b"z", b"n")) == (MISSING, NIL, None)
    assert seen(binary.binary_zrem(ctx, b"missing", b"n")) == (MISSING, NIL, None)
    for score in (b"nan", b"x"):
        with pytest.raises(CommandError, match="not a valid float"):
            binary.binary_zadd(ctx, b"z", score, b"n")
    with pytest.raises(CommandError, match="WRONGTYPE"):
        binary.binary_zadd(ctx, b"a", b"1", b"n")
