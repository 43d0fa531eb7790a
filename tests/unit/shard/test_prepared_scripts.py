"""Scripts that have run before, and run without their handler from then on: the same in everything that is seen of them."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from kache.shard.shard import Shard
from kache.slots import slot_of_key

NOW = 1_700_000_000_000
BINARY, INTERNAL, RESP2, RESP3 = range(4)
WORDS = (b"2", b"k", b"other", b"3", b"a b\r\nc")

SCRIPTS = [
    "return redis.call('get', KEYS[1])",
    "return {redis.call('incr', KEYS[1]), redis.call('set', KEYS[2], ARGV[2]), redis.call('get', KEYS[2])}",
    "return {KEYS[1], KEYS[2], ARGV[1], ARGV[2], #KEYS, #ARGV}",
    "return redis.call('lpush', KEYS[1], 'x')",
    "return redis.pcall('lpush', KEYS[1], 'x')",
    "redis.call('rpush', KEYS[2]..'l', 1, 2.5, 3) return redis.call('lrange', KEYS[2]..'l', 0, -1)",
    "redis.call('hset', 'h', 'f', 'v') redis.setresp(3) return redis.call('hgetall', 'h')",
    "redis.call('sadd', 's', 'm') redis.setresp(3) return {redis.call('smembers', 's'), redis.call('get', 'none'), 1}",
    "redis.call('zadd', 'z', 1.5, 'm') redis.setresp(3) return redis.call('zscore', 'z', 'm')",
    "redis.setresp(3) return {true, false}",
    "return {1, {2, {3, 'x'}}, {ok='fine'}, {err='MY bad'}, {double=1.25}, {map={a=1}}, {set={a=true}}}",
    "return {big_number='12'}",
    "return {verbatim_string={format='txt', string='x'}}",
    "local t = {} t[1] = t return t",
    "error('x')",
    "error({err='MY x'})",
    "return redis.call('nosuch')",
    "return redis.call('get')",
    "return redis.call({})",
    "return redis.call()",
    "return redis.call('eval', 'return 1', 0)",
    "return redis.error_reply('MY x')",
    "return 3.99",
    "return nil",
    "return false",
    "return true",
    "",
    "#!lua flags=no-writes\nreturn redis.call('set', KEYS[1], 'x')",
    "redis.call('select', 3) return redis.call('exists', KEYS[1])",
    "return redis.call('publish', 'channel', 'x')",
    "return redis.call('object', 'encoding', KEYS[1])",
    "return redis.sha1hex(ARGV[2])",
]


def seen(shard: Shard) -> tuple[object, ...]:
    """What is left of what was executed, times apart."""
    counts = [
        (name, calls, rejected, failed) for name, calls, _, rejected, failed, _ in shard.command_counts() if calls
    ]
    return counts, shard.errors, shard.store.effects.take(), shard.store.dirty, shard.store.hits, shard.store.misses


@pytest.mark.parametrize("dialect", [BINARY, INTERNAL, RESP2, RESP3])
@pytest.mark.parametrize("text", SCRIPTS)
def test_it_is_answered_as_by_the_handler(text: str, dialect: int) -> None:
    prepared, plain = Shard(now_ms=NOW), Shard(now_ms=NOW)
    sha = hashlib.sha1(text.encode()).hexdigest().encode()
    for shard in (prepared, plain):
        shard.store.effects.record()
    asked = [(b"EVAL", text.encode()), (b"EVAL", text.encode()), (b"EVALSHA", sha), (b"EVALSHA_RO", sha)]
    for words in asked:
        plain.script_runner = None
        argv = [*words, *WORDS]
        assert prepared.execute(argv, dialect) == plain.execute(argv, dialect), words
        assert seen(prepared) == seen(plain), words


@pytest.mark.parametrize("text", [b"return 1", b"return redis.call('incr', KEYS[1])"])
def test_odd_counts_of_keys_are_the_handlers(text: bytes) -> None:
    shard = Shard(now_ms=NOW)
    shard.execute([b"EVAL", text, b"1", b"k"])
    for count in (b"-1", b"01", b"+1", b"3", b"x", b"", b"9223372036854775808"):
        assert shard.execute([b"EVAL", text, count, b"k"]).startswith(b"-ERR "), count
    assert shard.execute([b"EVAL", text, b"1", b"k"])[:1] == b":"


def test_what_is_used_stays_known() -> None:
    shard = Shard(now_ms=NOW)
    sha = hashlib.sha1(b"return 'first'").hexdigest().encode()
    shard.execute([b"EVAL", b"return 'first'", b"0"])
    for number in range(1200):
        shard.execute([b"EVAL", b"return %d" % number, b"0"])
        if number % 400 == 0:
            assert shard.execute([b"EVALSHA", sha, b"0"]) == b"$5\r\nfirst\r\n"
    assert shard.execute([b"EVALSHA", hashlib.sha1(b"return 0").hexdigest().encode(), b"0"]).startswith(b"-NOSCRIPT")
    assert shard.execute([b"EVAL", b"return 0", b"0"]) == b":0\r\n"


def test_it_goes_with_its_script_and_comes_with_it() -> None:
    shard = Shard(now_ms=NOW)
    text = b"return 'x'"
    sha = hashlib.sha1(text).hexdigest().encode()
    for _ in range(2):
        for _ in range(3):
            assert shard.execute([b"EVAL", text, b"0"]) == b"$1\r\nx\r\n"
        assert shard.scripts.load(text) == sha
        for _ in range(3):
            assert shard.execute([b"EVALSHA", sha, b"0"]) == b"$1\r\nx\r\n"
        shard.scripts.flush()
        assert shard.script_runner is None
        assert shard.execute([b"EVALSHA", sha, b"0"]).startswith(b"-NOSCRIPT")


def test_keys_of_others_are_refused_as_the_first_time() -> None:
    shard = Shard(now_ms=NOW)
    own = slot_of_key(b"a")
    text = b"redis.call('set', KEYS[1], 'x') return redis.call('get', ARGV[1])"
    assert shard.execute([b"EVAL", text, b"1", b"a", b"a"]) == b"$1\r\nx\r\n"
    shard.own([(own, own)])
    assert shard.execute([b"EVAL", text, b"1", b"a", b"a"]) == b"$1\r\nx\r\n"
    for _ in range(2):
        refused = shard.execute([b"EVAL", text, b"1", b"b", b"a"])
        assert refused.startswith(b"-ERR Script attempted to access key 'b' of another shard"), refused
        assert shard.execute([b"EVAL", text, b"1", b"a", b"a"]) == b"$1\r\nx\r\n"


def test_a_slow_one_enters_the_slow_log() -> None:
    shard = Shard(now_ms=NOW)
    text = b"for i = 1, ARGV[1] do end return 1"
    shard.configure_slowlog(20_000)
    for count in (b"1", b"1", b"1", b"20000000", b"1"):
        assert shard.execute([b"EVAL", text, b"0", count]) == b":1\r\n"
    slow = [entry.words[-1] for entry in shard.slowlog.kept]
    # A short one may have been slow, too, while others used the machine, but hardly all of them.
    assert b"20000000" in slow and slow.count(b"1") < 4


def test_an_interpreter_that_is_full_is_made_anew() -> None:
    shard = Shard(now_ms=NOW)
    shard.scripts.set_memory_limit(4 << 20)
    hungry = b"local t = {} for i = 1, 1e9 do t[i] = i end"
    for _ in range(3):
        reply = shard.execute([b"EVAL", hungry, b"0"])
        assert b"not enough memory" in reply
        assert shard.execute([b"EVAL", b"return 1", b"0"]) == b":1\r\n"
    assert 0 <= shard.scripts.memory < 4 << 20


def _words(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


@pytest.mark.parametrize("count", [0, 1, 100, 5000])
def test_any_number_of_words(count: int) -> None:
    shard = Shard(now_ms=NOW)
    text = b"if #ARGV == 0 then return 0 end return redis.call('rpush', KEYS[1], unpack(ARGV))"
    total = 0
    for _ in range(3):
        total += count
        reply: Any = shard.execute([b"EVAL", text, b"1", b"many", *_words(count)])
        assert reply == b":%d\r\n" % total
