"""Functions that have run before, and run without their handler from then on: the same in everything that is seen of them."""

from __future__ import annotations

import gc
import weakref

import pytest

from kache.cluster.running import Running
from kache.shard.shard import Shard
from kache.slots import slot_of_key

NOW = 1_700_000_000_000
BINARY, INTERNAL, RESP2, RESP3 = range(4)
WORDS = (b"2", b"k", b"other", b"3", b"a b\r\nc")

BODIES = [
    "return redis.call('get', keys[1])",
    "return {redis.call('incr', keys[1]), redis.call('set', keys[2], args[2]), redis.call('get', keys[2])}",
    "return {keys[1], keys[2], args[1], args[2], #keys, #args}",
    "return redis.call('lpush', keys[1], 'x')",
    "local n = redis.call('incr', 'n')\n return redis.call('nosuch')",
    "redis.call('hset', 'h', 'f', 'v') redis.setresp(3) return redis.call('hgetall', 'h')",
    "redis.setresp(3) return {true, false}",
    "return {1, {2, {3, 'x'}}, {ok='fine'}, {err='MY bad'}, {double=1.25}, {map={a=1}}, {set={a=true}}}",
    "error({err='MY x'})",
    "\nerror('x')",
    "return redis.call('fcall', 'f', 0)",
    "return nil",
    "return 'a text'",
    "redis.call('select', 3) return redis.call('exists', keys[1])",
    "return redis.call('publish', 'channel', 'x')",
    "total = total + 1 return total",
]


def library(body: str, flags: str = "") -> bytes:
    return (
        f"#!lua name=l\nredis.register_function{{function_name='Fun', flags={{{flags}}}, callback=function(keys, args)\n"
        f"{body}\nend}}\nredis.register_function('other', function() return 1 end)"
    ).encode()


def loaded(body: str, flags: str = "") -> Shard:
    shard = Shard(now_ms=NOW)
    shard.functions.take([("l", library(body, flags), 1)])
    return shard


def seen(shard: Shard) -> tuple[object, ...]:
    """What is left of what was executed, times apart."""
    counts = [
        (name, calls, rejected, failed) for name, calls, _, rejected, failed, _ in shard.command_counts() if calls
    ]
    return counts, shard.errors, shard.store.effects.take(), shard.store.dirty, shard.store.hits, shard.store.misses


@pytest.mark.parametrize("dialect", [BINARY, INTERNAL, RESP2, RESP3])
@pytest.mark.parametrize("body", BODIES)
def test_it_is_answered_as_by_the_handler(body: str, dialect: int) -> None:
    prepared, plain = loaded(body), loaded(body)
    for shard in (prepared, plain):
        shard.store.effects.record()
    for name in (b"Fun", b"Fun", b"FUN", b"Fun"):
        plain.function_runner = None
        words = [b"FCALL", name, *WORDS]
        assert prepared.execute(words, dialect) == plain.execute(words, dialect)
        assert seen(prepared) == seen(plain)


@pytest.mark.parametrize("flags", ["", "'no-writes'"])
def test_one_that_reads_only(flags: str) -> None:
    shard = loaded("return redis.call(args[1], 'k', unpack(args, 2))", flags)
    refused = b"-ERR Can not execute a script with write flag using *_ro command.\r\n"
    for _ in range(3):
        assert shard.execute([b"FCALL", b"Fun", b"0", b"get"])[:1] == b"$"
        assert shard.execute([b"FCALL", b"Fun", b"0", b"append", b""])[:1] == (b"-" if flags else b":")
        answer = shard.execute([b"FCALL_RO", b"Fun", b"0", b"append", b""])
        assert answer.startswith(b"-ERR Write commands are not allowed") if flags else answer == refused


@pytest.mark.parametrize("flags", ["", "'no-writes'", "'allow-oom'"])
def test_one_that_may_write_is_not_begun_where_memory_is_full(flags: str) -> None:
    shard = loaded("return 1", flags)
    for full in (False, True, False, True):
        shard.set_maxmemory(1 if full else 0)
        answer = shard.execute([b"FCALL", b"Fun", b"0"])
        assert answer == (
            b":1\r\n" if flags or not full else b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"
        )


def test_odd_counts_of_keys_are_the_handlers() -> None:
    shard = loaded("return 1")
    shard.execute([b"FCALL", b"Fun", b"1", b"k"])
    for count in (b"-1", b"01", b"+1", b"3", b"x", b"", b"9223372036854775808"):
        assert shard.execute([b"FCALL", b"Fun", count, b"k"]).startswith(b"-ERR "), count
    assert shard.execute([b"FCALL", b"Fun", b"1", b"k"]) == b":1\r\n"


def test_it_goes_with_its_library_and_comes_with_it() -> None:
    shard = loaded("return 1")
    for number in range(2, 5):
        for _ in range(3):
            assert shard.execute([b"FCALL", b"Fun", b"0"]) == b":%d\r\n" % (number - 1)
        shard.functions.take([("l", library(f"return {number}"), number)])
    shard.functions.take([])
    assert shard.function_runner is None
    assert shard.execute([b"FCALL", b"Fun", b"0"]) == b"-ERR Function not found\r\n"


def test_nothing_stays_when_all_are_gone() -> None:
    """Shards have no collector of circles."""
    shard = loaded("return 1")
    gc.disable()
    try:
        for _ in range(3):
            shard.execute([b"FCALL", b"Fun", b"0"])
        gone = weakref.ref(shard.functions._interpreter)
        counted = len([1 for each in gc.get_objects() if type(each).__name__ == "Evaluator"])
        shard.functions.take([])
        assert gone() is None
        assert len([1 for each in gc.get_objects() if type(each).__name__ == "Evaluator"]) == counted - 1
    finally:
        gc.enable()


def test_keys_of_others_are_refused_as_the_first_time() -> None:
    shard = loaded("redis.call('set', keys[1], 'x') return redis.call('get', args[1])")
    own = slot_of_key(b"a")
    shard.own([(own, own)])
    for _ in range(3):
        assert shard.execute([b"FCALL", b"Fun", b"1", b"a", b"a"]) == b"$1\r\nx\r\n"
        assert b"attempted to access key 'b' of another shard" in shard.execute([b"FCALL", b"Fun", b"1", b"b", b"a"])


def test_routers_see_which_runs() -> None:
    shard = loaded("while args[1] do end", "'no-writes'")
    page: Running = shard.scripts.page
    show, found = page.show, []

    def shown(*words: object) -> None:
        show(*words)  # type: ignore[arg-type]  # what it is given
        found.append(page.described(0))
        page.kill(0)

    page.show = shown  # type: ignore[method-assign]  # instead of a router beside it
    for words in ([b"FCALL", b"fun"], [b"FCALL", b"Fun"], [b"FCALL_RO", b"fun"], [b"FCALL_RO", b"Fun"]):
        for _ in range(2):
            assert shard.execute([*words, b"1", b"k"]) == b"$-1\r\n"
            assert b"Script killed by user" in shard.execute([*words, b"1", b"k", b"arg"])
            assert found.pop() == (b"Fun", [*words, b"1", b"k", b"arg"])
            assert page.runs_for(0) == -1


def test_memory_that_fills_is_given_back() -> None:
    """A library begins anew then."""
    shard = Shard(now_ms=NOW)
    body = library("kept[#kept + 1] = string.rep('x', 5e5) .. #kept return #kept").partition(b"\n")[2]
    shard.functions.take([("l", b"#!lua name=l\nlocal kept = {}\n" + body, 1)])
    shard.functions.set_memory_limit(8 << 20)
    answers = [shard.execute([b"FCALL", b"Fun", b"0"]) for _ in range(24)]
    assert not [each for each in answers if each[:1] != b":"]
    assert answers.count(b":1\r\n") >= 2
