"""Leases at the execution point: what a client sees of a move between shards, step by step."""

from __future__ import annotations

import pytest

from kache.shard.engine.engine import image_of
from kache.shard.shard import Shard

NOW_MS = 1_700_000_000_000
UNTIL = b"%d" % (NOW_MS + 5_000)
RESP2 = 2
TRY_AGAIN = b"-TRYAGAIN"


@pytest.fixture
def shard() -> Shard:
    """A shard whose clock stands still, with a key "a" under the lease of token "t"."""
    shard = Shard(now_ms=NOW_MS)
    run(shard, b"SET", b"a", b"1")
    run(shard, b"SET", b"free", b"1")
    assert run(shard, b"_lease_take", b"t", UNTIL, b"a") == b":1\r\n"
    return shard


def run(shard: Shard, *argv: bytes, db: int = 0) -> bytes:
    """The reply of one command in RESP2."""
    reply: bytes = shard.execute(list(argv), RESP2, db)
    return reply


@pytest.mark.parametrize(
    "command",
    [
        (b"SET", b"a", b"2"),
        (b"SET", b"a", b"2", b"EX", b"10"),
        (b"INCR", b"a"),
        (b"APPEND", b"a", b"x"),
        (b"EXPIRE", b"a", b"10"),
        (b"DEL", b"free", b"a"),
        (b"MSET", b"free", b"2", b"a", b"2"),
        (b"RENAME", b"free", b"a"),
        (b"RENAME", b"a", b"free"),
        (b"RPUSH", b"a", b"x"),
        (b"GETDEL", b"a"),
        (b"BITOP", b"NOT", b"a", b"free"),
    ],
)
def test_writes_by_others_are_refused_and_change_nothing(shard: Shard, command: tuple[bytes, ...]) -> None:
    assert run(shard, *command).startswith(TRY_AGAIN)
    assert run(shard, b"MGET", b"a", b"free") == b"*2\r\n$1\r\n1\r\n$1\r\n1\r\n"
    assert run(shard, b"TTL", b"a") == b":-1\r\n"


def test_reads_other_keys_and_other_databases_go_on(shard: Shard) -> None:
    assert run(shard, b"GET", b"a") == b"$1\r\n1\r\n"
    assert run(shard, b"SET", b"free", b"2") == b"+OK\r\n"
    assert run(shard, b"SET", b"a", b"2", db=1) == b"+OK\r\n"


def test_the_holder_writes_and_commits(shard: Shard) -> None:
    assert run(shard, b"_lease_run", b"t", b"set", b"a", b"2") == b"+OK\r\n"
    assert run(shard, b"_lease_commit", b"t") == b":1\r\n"
    assert run(shard, b"INCR", b"a") == b":3\r\n"
    assert run(shard, b"_lease_run", b"t", b"set", b"a", b"9").startswith(TRY_AGAIN)
    assert run(shard, b"_lease_commit", b"t") == b":0\r\n"


def test_an_aborted_lease_is_gone(shard: Shard) -> None:
    assert run(shard, b"_lease_abort", b"t") == b":1\r\n"
    assert run(shard, b"DEL", b"a") == b":1\r\n"


def test_a_lease_ends_by_itself(shard: Shard) -> None:
    shard.set_time(NOW_MS + 5_000)
    assert run(shard, b"_lease_run", b"t", b"set", b"a", b"9").startswith(TRY_AGAIN)
    assert run(shard, b"SET", b"a", b"2") == b"+OK\r\n"
    assert run(shard, b"_lease_commit", b"t") == b":0\r\n"


def test_somebody_elses_lease_is_respected(shard: Shard) -> None:
    assert run(shard, b"_lease_take", b"other", UNTIL, b"free", b"a").startswith(TRY_AGAIN)
    assert run(shard, b"SET", b"free", b"2") == b"+OK\r\n"


def test_a_value_moves_between_two_shards(shard: Shard) -> None:
    there = Shard(now_ms=NOW_MS)
    run(shard, b"_lease_run", b"t", b"pexpire", b"a", b"7000")
    assert run(there, b"_lease_take", b"t", UNTIL, b"b") == b":1\r\n"
    found = image_of(shard.keyspace, b"a")
    assert found is not None
    _next, image = found
    assert run(there, b"SET", b"b", b"x").startswith(TRY_AGAIN)
    assert run(there, b"_lease_run", b"t", b"_put", b"b", image) == b"+OK\r\n"
    assert run(shard, b"_lease_run", b"t", b"del", b"a") == b":1\r\n"
    for side in (shard, there):
        assert run(side, b"_lease_commit", b"t") == b":1\r\n"
    assert run(there, b"GET", b"b") == b"$1\r\n1\r\n"
    assert run(there, b"PTTL", b"b") == b":7000\r\n"
    assert run(shard, b"EXISTS", b"a") == b":0\r\n"


@pytest.mark.parametrize("command", [(b"COPY", b"free", b"a", b"DB", b"1", b"REPLACE"), (b"MOVE", b"a", b"1")])
def test_a_lease_holds_against_commands_run_in_another_database(shard: Shard, command: tuple[bytes, ...]) -> None:
    assert run(shard, b"_lease_take", b"u", UNTIL, b"a", db=1) == b":1\r\n"
    run(shard, b"_lease_abort", b"t")
    assert run(shard, *command).startswith(TRY_AGAIN)
    assert run(shard, b"GET", b"a") == b"$1\r\n1\r\n"
    assert run(shard, b"EXISTS", b"a", db=1) == b":0\r\n"


@pytest.mark.parametrize(
    "command",
    [
        (b"_with", b"", b"0", b"copy", b"free", b"new"),
        (b"_with", b"", b"0", b"sunionstore", b"new", b"members"),
        (b"_lease_run", b"t", b"lpush", b"a", b"x"),
        (b"_lease_run", b"t", b"sadd", b"a", b"x"),
    ],
)
def test_full_memory_refuses_what_runs_inside_an_internal_command(shard: Shard, command: tuple[bytes, ...]) -> None:
    run(shard, b"SADD", b"members", b"x")
    shard.set_maxmemory(1)
    assert run(shard, *command).startswith(b"-OOM")
    assert run(shard, b"EXISTS", b"new") == b":0\r\n"
    assert run(shard, b"_lease_run", b"t", b"del", b"a") == b":1\r\n"


def test_a_move_ends_when_its_database_is_swapped(shard: Shard) -> None:
    run(shard, b"SET", b"a", b"other", db=1)
    assert run(shard, b"SWAPDB", b"0", b"1") == b"+OK\r\n"
    assert run(shard, b"_lease_run", b"t", b"del", b"a").startswith(TRY_AGAIN)
    assert run(shard, b"GET", b"a") == b"$5\r\nother\r\n"
    assert run(shard, b"SET", b"a", b"2", db=1) == b"+OK\r\n"


@pytest.mark.parametrize("command", [(b"FLUSHDB",), (b"FLUSHALL",)])
def test_a_move_ends_when_its_database_is_emptied(shard: Shard, command: tuple[bytes, ...]) -> None:
    """Or it would put a value back that was flushed, or delete what was stored since."""
    assert run(shard, *command) == b"+OK\r\n"
    assert run(shard, b"SET", b"a", b"new") == b"+OK\r\n"
    assert run(shard, b"_lease_run", b"t", b"del", b"a").startswith(TRY_AGAIN)
    assert run(shard, b"GET", b"a") == b"$3\r\nnew\r\n"
