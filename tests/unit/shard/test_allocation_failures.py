"""Every mutator with every allocation refused in turn: nothing lost, nothing half done, nothing told that did not happen.

A command that is refused for want of memory leaves the data as it was. One that changes several keys or elements may have
done a part of it: then that part was told, and a replay of what was told ends in the same state.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from packed_limits import LARGE_ONLY, TINY, Limits, limits
from state import state

from kache.shard.commands.registry import handler_of
from kache.shard.engine.effects import Listener
from kache.shard.engine.engine import Replay, Store
from kache.shard.engine.memory import fail_allocation_after
from kache.shard.shard import Shard

NOW = 1_700_000_000_000
MOST_ALLOCATIONS = 400

SETUP = [
    b"SET s 12345678901234567890123456789012",
    b"SET timed v PX 90000",
    b"APPEND raw abc",
    b"RPUSH l a b a c a d e f",
    b"HSET h a 1 b 2 c 3",
    b"HPEXPIRE h 80000 FIELDS 1 a",
    b"HSET h2 a 1 b 2 c 3",
    b"SADD m a b c",
    b"SADD i 1 2 3",
    b"ZADD z 1 a 2 b 3 c",
    b"XADD x 1 a 1 b 2",
    b"XADD x 2 a 1 b 2",
    b"XADD x 3 a 1 b 2",
    b"XGROUP CREATE x g 0",
    b"SET big " + b"x" * 3000,
    *(b"SET {s}%d v PX %d" % (number, 1000 + number) for number in range(30)),
]

ONE_CHANGE = [
    "SET new v", "SET s " + "y" * 500, "SET l v", "SET s v PX 500", "SET timed v", "SETEX new 5 v", "SETNX new v", "GETSET s x",
    "INCR n", "INCRBYFLOAT n 1.5", "APPEND s " + "z" * 400, "APPEND new z", "SETRANGE new 2000 x", "SETRANGE s 900 x",
    "SETBIT new 9000 1", "BITOP NOT new s", "BITOP NOT l s", "PFADD new a b", "PFADD p a", "PEXPIRE s 500", "PEXPIRE l 500",
    "PERSIST timed", "RENAME s new", "RENAME l s", "RENAME timed s", "RENAME s {s}1", "COPY l new", "COPY h new", "COPY z l REPLACE",
    "COPY m new", "COPY timed new", "MOVE l 3", "MOVE timed 3", "LPUSH l " + "v" * 300, "RPUSH new a b c", "RPUSH l " + "w " * 200,
    "LSET l 1 " + "v" * 500, "LINSERT l BEFORE c " + "v" * 900, "LREM l 0 a", "LTRIM l 2 4", "LPOP l 3", "SORT l ALPHA STORE new",
    "SORT l ALPHA STORE h", "HSET h d " + "v" * 300, "HSET new f v", "HSET h a " + "v" * 400, "HDEL h b", "HPEXPIRE h 70000 FIELDS 1 b",
    "HPERSIST h FIELDS 1 a", "HINCRBY h b 5", "SADD m d", "SADD new a", "SREM m a", "SUNIONSTORE new m", "SUNIONSTORE l m", "ZADD z 5 d",
    "ZADD z 9 a", "ZADD new 1 a", "ZINCRBY z 5 b", "ZREM z a", "ZREMRANGEBYRANK z 0 1", "ZUNIONSTORE new 1 z", "ZUNIONSTORE h 1 z",
    "HSET h2 d " + "v" * 30, "HSET h2 a 2", "HPEXPIRE h2 70000 FIELDS 1 b", "HDEL h2 a", "RENAME h2 h", "COPY h2 new", "SADD i 4",
    "SADD i 70000", "SADD i x", "SADD i " + "y" * 30, "SREM i 2", "ZADD z 1 " + "m" * 30, "ZADD z 12345.5 a", "LPUSH new 5", "RPOP l",
    "ZPOPMIN z", "LINSERT l AFTER a 7", "ZRANGESTORE new z 0 1", "DEL h", "UNLINK l", "FLUSHDB", "SWAPDB 0 1", "GETDEL s",
    "XADD x 4 a 1 b 2", "XADD x 4 c " + "v" * 900, "XADD x 4 c " + "v" * 9000, "XADD new 1 f v", "XADD l2 1 " + "f v " * 60 + "f v",
    "XDEL x 2", "XTRIM x MAXLEN 1", "XTRIM x MAXLEN 0", "XSETID x 9", "COPY x new", "RENAME x new", "XGROUP CREATE new g 0 MKSTREAM",
]  # fmt: skip

SEVERAL_CHANGES = [
    "MSET s " + "y" * 300 + " new v other w", "HSET h d 1 e 2 f " + "v" * 200, "HDEL h a b c", "SADD m d e f g h", "SREM m a b c",
    "ZADD z 4 d 5 e 6 f 0 a", "ZREM z a b c", "DEL s l h m z", "SMOVE m m2 a", "LMOVE l new LEFT RIGHT", "SPOP m 2", "LTRIM l 1 -2",
    "HSETEX h PX 5000 FIELDS 2 a 9 q 8", "HGETEX h PX 5000 FIELDS 2 a b", "GEOADD g 1 1 a 2 2 b",
]  # fmt: skip


def fresh(*, compiled: bool) -> tuple[Shard, list[object]]:
    shard = Shard(now_ms=NOW)
    if not compiled:
        for name in shard.compiled_commands():
            shard.replace_handler(name, handler_of(name))
    for line in SETUP:
        assert not shard.execute(line.split(b" ")).startswith(b"-"), line
    events: list[object] = []
    shard.store.effects.add_observer(Listener(lambda *event: events.append(event)), everything=True)
    shard.store.effects.record()
    return shard, events


def failures(command: str, *, compiled: bool) -> Iterator[tuple[Shard, list[object], bool]]:
    """A shard after the command, for each allocation of it that was refused; and whether the command failed."""
    argv = [word.encode() for word in command.split()]
    for granted in range(MOST_ALLOCATIONS):
        shard, events = fresh(compiled=compiled)
        fail_allocation_after(granted)
        try:
            reply = shard.execute(argv)
        finally:
            refused = fail_allocation_after(-1)
        if not refused:
            assert not reply.startswith(b"-"), reply
            return
        assert not reply.startswith(b"-") or reply.startswith(b"-OOM the shard has no memory"), reply
        yield shard, events, reply.startswith(b"-")
    raise AssertionError("the command never had enough")


def check(shard: Shard) -> None:
    """The invariants hold, and what was told is what happened."""
    shard.store.check()
    copy = Store()
    original = Shard(now_ms=NOW)
    original.store.effects.record()
    for line in SETUP:
        original.execute(line.split(b" "))
    replay = Replay(copy)
    replay.apply(*original.store.effects.take())
    replay.apply(*shard.store.effects.take())
    assert state(copy) == state(shard.store)


@pytest.fixture(params=[{}, TINY, LARGE_ONLY], ids=["packed", "at the limit", "large"], autouse=True)
def sizes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Collections that stay packed, that the change makes too large for it, and that are none before it."""
    chosen: Limits = request.param
    with limits(chosen):
        yield


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("command", ONE_CHANGE, ids=[command[:40] for command in ONE_CHANGE])
def test_what_is_refused_has_changed_nothing(command: str, compiled: bool) -> None:
    before = state(fresh(compiled=compiled)[0].store)
    for shard, events, failed in failures(command, compiled=compiled):
        if failed:
            assert state(shard.store) == before
            assert events == [] and shard.store.effects.pending == 0
        check(shard)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("command", SEVERAL_CHANGES, ids=[command[:40] for command in SEVERAL_CHANGES])
def test_what_was_done_before_a_refusal_was_told(command: str, compiled: bool) -> None:
    for shard, _, _ in failures(command, compiled=compiled):
        check(shard)
