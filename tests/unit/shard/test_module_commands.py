"""Commands of modules in a shard: what they are given, what they may do, and what becomes of their errors."""

from __future__ import annotations

import gc
import signal
import textwrap
import time
import weakref
from collections.abc import Iterator
from typing import Any, cast

import msgspec
import pytest

from kache.acl.catalogue import CATALOGUE
from kache.acl.record import UserRecord
from kache.acl.rights import Users
from kache.acl.rules import allowed, apply
from kache.cluster.messages import Module, ModuleCommand
from kache.commands import TABLE
from kache.module.rows import rows_of
from kache.module.source import ModuleError, execute
from kache.shard.shard import Shard
from kache.slots import slot_of_key

NOW = 1_700_000_000_000
RESP2, RESP3 = 2, 3
FIRST = len(TABLE)
HEAD = "import time\nfrom kache.module import Context, command\n"


def module(source: str, name: str = "app", serial: int = 1, first: int = FIRST) -> Module:
    """A module as the supervisor describes it, its commands numbered from `first`."""
    path, text = f"/nowhere/{name}.py", HEAD + textwrap.dedent(source)
    found = rows_of(execute(name, path, text))
    commands = [
        ModuleCommand(command, first + number, msgspec.msgpack.encode(row))
        for number, (command, (row, _)) in enumerate(found.items())
    ]
    return Module(name, serial, path, text, commands, 0)


class Loaded:
    """A shard with modules."""

    def __init__(self, *sources: str, **options: Any) -> None:
        self.shard = Shard(now_ms=NOW, **options)
        self.epoch = 0
        if sources:
            self.take(*(module(source, f"app{n}", n + 1, FIRST + 10 * n) for n, source in enumerate(sources)))

    def take(self, *modules: Module) -> None:
        self.epoch += 1
        there = self.shard.modules
        there.take(self.epoch, modules, {each.serial: there.execute(each) for each in there.unknown(modules)})

    def run(self, *words: Any, dialect: int = RESP2, db: int = 0) -> bytes:
        return self.shard.execute(
            [each if isinstance(each, bytes) else str(each).encode() for each in words], dialect, db
        )


def test_it_reads_and_writes() -> None:
    loaded = Loaded("""
        @command("next", flags="write fast")
        def next_one(ctx, key, step=b"1"):
            value = ctx.call("INCRBY", key, step)
            if value == int(step):
                ctx.call("PEXPIRE", key, 1000)
            return value
    """)
    assert loaded.run("next", "k") == b":1\r\n" and loaded.run("NEXT", "k", "5") == b":6\r\n"
    assert loaded.run("pttl", "k") == b":1000\r\n"
    assert loaded.run("next") == b"-ERR wrong number of arguments for 'next' command\r\n"
    assert loaded.run("next", "k", "1", "2") == b"-ERR wrong number of arguments for 'next' command\r\n"
    assert loaded.run("next", "k", "many") == b"-ERR value is not an integer or out of range\r\n"


def test_what_it_is_given() -> None:
    loaded = Loaded("""
        @command("facts", flags="readonly")
        def facts(ctx: Context, key):
            assert 0 <= ctx.random.random() < 1
            return [ctx.now_ms, ctx.db, ctx.client.id, ctx.client.user]
    """)
    assert loaded.run("facts", "k", db=3) == b"*4\r\n:%d\r\n:3\r\n:0\r\n+default\r\n" % NOW


def test_typed_readers_and_mutators() -> None:
    loaded = Loaded("""
        @command("typed")
        def typed(ctx: Context, key):
            h, z, s = key + b":h", key + b":z", key + b":s"
            assert ctx.get(s) is None and ctx.pttl(s) == -2 and not ctx.exists(s) and not ctx.pexpire(s, 5)
            ctx.set(s, 7, px=5000)
            assert ctx.incr(s) == 8 and ctx.incr(s, by=-3) == 5 and ctx.pttl(s) == 5000
            ctx.set(s, "text", keep_ttl=True)
            assert (ctx.get(s), ctx.pttl(s)) == (b"text", 5000)
            ctx.set(s, 1.5)
            assert (ctx.get(s), ctx.pttl(s), ctx.exists(s), ctx.pexpire(s, 9)) == (b"1.5", None, True, True)
            assert ctx.hset(h, {"a": 1, b"b": "two"}) == 2 and ctx.hset(h, {}) == 0
            assert ctx.hget(h, "a") == b"1" and ctx.hget(h, "none") is None
            assert ctx.hgetall(h) == {b"a": b"1", b"b": b"two"} and ctx.hgetall(b"none") == {}
            assert ctx.zadd(z, "m", 1.5) and not ctx.zadd(z, "m", 2.5) and ctx.zincrby(z, "n", 0.25) == 0.25
            assert ctx.zscore(z, "m") == 2.5 and ctx.zscore(z, "none") is None
            assert ctx.zrange(z, 0, -1) == [(b"n", 0.25), (b"m", 2.5)]
            assert ctx.zrange(z, 0, 0, reverse=True) == [(b"m", 2.5)]
            return ctx.delete(h, z, s, b"none") + ctx.delete()
    """)
    for dialect in (RESP2, RESP3):
        assert loaded.run("typed", "k", dialect=dialect) == b":3\r\n"


def test_replies_of_commands_are_plain() -> None:
    loaded = Loaded("""
        @command("plain")
        def plain(ctx: Context, key):
            assert ctx.call("SET", key, "v") == "OK" and ctx.call("get", key) == b"v"
            assert ctx.call("LPOP", b"none", 2) is None and ctx.call("ZSCORE", b"none", b"x") is None
            ctx.call("RPUSH", key + b"l", 1, 2.5, "three")
            assert ctx.call("LRANGE", key + b"l", 0, -1) == [b"1", b"2.5", b"three"]
            assert ctx.call("HELLO") if False else True
            return ctx.call("TYPE", key)
    """)
    assert loaded.run("plain", "k") == b"+string\r\n"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("return ctx.call('NOSUCH')", b"-ERR unknown command 'NOSUCH'"),
        ("return ctx.call('GET')", b"-ERR wrong number of arguments for 'get' command"),
        ("return ctx.call('MULTI')", b"-ERR 'multi' cannot be executed from inside a command"),
        ("return ctx.call('GET', None)", b"-ERR an argument of a command is bytes, text or a number, not NoneType"),
        ("return ctx.call(7)", b"-ERR the name of a command is text, not int"),
        ("return ctx.call('LPUSH', key, 'x') and ctx.get(key)", b"-WRONGTYPE Operation against a key"),
        ("return 1 / 0", b"-ERR bad: ZeroDivisionError: division by zero"),
        ("raise ValueError('no\\r\\nlines')", b"-ERR bad: ValueError: no  lines"),
        ("raise SystemExit(3)", b"-ERR bad: SystemExit: 3"),
        ("raise KeyboardInterrupt", b"-ERR bad: KeyboardInterrupt: "),
        ("return object()", b"-ERR bad: TypeError: a reply cannot be of type object"),
        ("return [1, [object()]]", b"-ERR bad: TypeError: a reply cannot be of type object"),
        ("x = []; x.append(x); return x", b"-ERR the reply has more than 32 levels"),
        ("x = {}; x[1] = x; return x", b"-ERR the reply has more than 32 levels"),
        ("return 1 << 64", b"-ERR bad: TypeError: an integer reply has 64 bits, not 65"),
        ("return '\\ud800'", b"-ERR bad: UnicodeEncodeError: "),
        ("return bad(ctx, key)", b"-ERR bad: RecursionError: "),
    ],
)
def test_errors_are_answered(body: str, text: bytes) -> None:
    loaded = Loaded(f"@command('bad')\ndef bad(ctx, key):\n    {body}\n")
    for dialect in (RESP2, RESP3):
        reply = loaded.run("bad", "k", dialect=dialect)
        assert reply.startswith(text) and reply.endswith(b"\r\n") and reply.count(b"\r\n") == 1
        loaded.run("del", "k")
    assert loaded.run("set", "k", "v") == b"+OK\r\n"


def test_what_was_changed_before_an_error_stays() -> None:
    loaded = Loaded(
        "@command('half')\ndef half(ctx, key):\n    ctx.set(key, 'there')\n    raise ValueError('enough')\n"
    )
    assert loaded.run("half", "k") == b"-ERR half: ValueError: enough\r\n"
    assert loaded.run("get", "k") == b"$5\r\nthere\r\n"


def test_a_reader_writes_nothing() -> None:
    loaded = Loaded("@command('reader', flags='readonly')\ndef reader(ctx, key):\n    ctx.set(key, 1)\n")
    assert loaded.run("reader", "k") == b"-ERR 'set' writes, and the command says readonly\r\n"
    assert loaded.run("exists", "k") == b":0\r\n"


def test_a_command_may_execute_another_of_a_module() -> None:
    loaded = Loaded(
        "@command('outer')\ndef outer(ctx, key):\n    return [ctx.call('INNER', key), ctx.get(key)]\n",
        "@command('inner')\ndef inner(ctx, key):\n    ctx.set(key, 'x')\n    return 1\n",
    )
    assert loaded.run("outer", "k") == b"*2\r\n:1\r\n$1\r\nx\r\n"


def test_keys_of_other_shards_are_refused() -> None:
    loaded = Loaded("@command('read', flags='readonly')\ndef read(ctx, key, other):\n    return ctx.get(other)\n")
    slot = slot_of_key(b"a")
    loaded.shard.own([(slot, slot)])
    assert loaded.run("read", "a", "a") == b"$-1\r\n"
    refused = loaded.run("read", "a", "b")
    assert refused == b"-CROSSSLOT the key 'b' is on another shard than the command's own keys\r\n"


def test_a_key_that_a_transaction_holds_is_left_alone() -> None:
    loaded = Loaded("@command('read', flags='readonly')\ndef read(ctx, key, other):\n    return ctx.get(other)\n")
    lock = [
        (7).to_bytes(8, "little"),
        (NOW + 1000).to_bytes(8, "little"),
        b"\0",
        slot_of_key(b"b").to_bytes(2, "little"),
    ]
    loaded.shard.execute([b"_lock", *lock], 1)
    assert loaded.run("read", "a", "b").startswith(b"-TRYAGAIN a transaction holds the key 'b'")
    assert loaded.run("read", "a", "c") == b"$-1\r\n"


def test_what_is_published_for_another_shard_is_refused() -> None:
    loaded = Loaded("@command('tell')\ndef tell(ctx, key, channel):\n    return ctx.call('PUBLISH', channel, 'm')\n")
    slot = slot_of_key(b"a")
    loaded.shard.own([(slot, slot)])
    assert loaded.run("tell", "a", "a") == b":0\r\n"
    assert loaded.run("tell", "a", "b").startswith(b"-ERR the channel 'b' belongs to another shard")


def test_a_context_that_was_kept_refuses() -> None:
    loaded = Loaded("""
        kept = []
        @command("keep")
        def keep(ctx, key):
            kept.append(ctx)
            return kept[0].now_ms if len(kept) == 1 else kept[0].get(key)
    """)
    assert loaded.run("keep", "k") == b":%d\r\n" % NOW
    assert loaded.run("keep", "k") == b"-ERR the command is over: its context must not be kept\r\n"


# Versions -----------------------------------------------------------------------------------------------------------

V1 = "@command('v')\ndef v(ctx, key): return 1\n@command('old')\ndef old(ctx, key): return 'old'\n"
V2 = "@command('v')\ndef v(ctx, key, more=b''): return 2\n"


def test_versions_follow_one_another() -> None:
    loaded = Loaded()
    one, two = module(V1, serial=1), module(V2, serial=2, first=FIRST + 2)
    loaded.take(one)
    assert loaded.run("v", "k") == b":1\r\n" and loaded.run("old", "k") == b"+old\r\n"
    loaded.take(one, two)  # the new one by its name, both by their numbers
    assert loaded.run("v", "k", "more") == b":2\r\n" and loaded.run("old", "k") == b"+old\r\n"
    loaded.take(two)
    assert loaded.run("v", "k") == b":2\r\n" and b"unknown command" in loaded.run("old", "k")
    counts = {key: calls for key, calls, *_ in loaded.shard.command_counts()}
    assert counts["v"] == 3 and counts["old"] == 2
    loaded.take()
    assert b"unknown command" in loaded.run("v", "k")
    loaded.take(one)
    assert loaded.run("v", "k") == b":1\r\n"


def test_a_command_that_is_the_same_keeps_its_number() -> None:
    loaded = Loaded()
    loaded.take(module("@command('n')\ndef n(ctx, key): return 1\n", serial=1))
    loaded.take(
        module("@command('n')\ndef n(ctx, key): return 1\n", serial=1),
        module("@command('n')\ndef n(ctx, key): return 2\n", serial=2),
    )
    assert loaded.run("n", "k") == b":2\r\n"
    loaded.take(module("@command('n')\ndef n(ctx, key): return 1\n", serial=1))
    assert loaded.run("n", "k") == b":1\r\n"


def test_gaps_between_numbers_refuse() -> None:
    loaded = Loaded()
    loaded.take(module("@command('far')\ndef far(ctx, key): return 1\n", first=FIRST + 50))
    assert loaded.run("far", "k") == b":1\r\n"
    assert loaded.shard.command_count == FIRST + 51
    with pytest.raises(ValueError, match="a number"):
        loaded.take(module(V1, serial=2, first=FIRST - 1))
    with pytest.raises(ValueError, match="a number"):
        loaded.take(module(V1, serial=3, first=0x8000))
    assert loaded.run("far", "k") == b":1\r\n"


def test_a_version_that_lacks_a_command_is_refused() -> None:
    loaded = Loaded()
    there = module(V1)
    lacking = msgspec.structs.replace(there, source=HEAD + V2)
    with pytest.raises(ModuleError, match="app: it does not declare old here, as it did when it was tried"):
        loaded.take(lacking)
    loaded.shard.modules.take(1, [there], {1: loaded.shard.modules.refuse(there, "no reason")})
    assert loaded.run("old", "k") == b"-ERR the module app cannot be loaded in this shard: no reason\r\n"


def test_counters_and_the_slow_log_know_it() -> None:
    loaded = Loaded("@command('slow')\ndef slow(ctx, key):\n    ctx.call('SET', key, 1)\n    return 'x'\n")
    loaded.shard.configure_slowlog(0)
    loaded.run("slow", "k")
    assert [report.words for report in loaded.shard.slowlog.kept] == [[b"slow", b"k"]]
    calls, *_ = {key: rest for key, *rest in loaded.shard.command_counts()}["slow"]
    assert calls == 1


# Time and memory ----------------------------------------------------------------------------------------------------


@pytest.fixture
def timed() -> Iterator[Loaded]:
    """A shard whose commands have 0.4 s."""
    loaded = Loaded("""
        @command("spin", flags="readonly")
        def spin(ctx, key):
            while True: pass
        @command("sleep", flags="readonly")
        def sleep(ctx, key):
            time.sleep(60)
        @command("stubborn", flags="readonly")
        def stubborn(ctx, key):
            for _ in range(3):
                try:
                    while True: pass
                except BaseException:
                    pass
            while True: pass
        @command("calls", flags="readonly")
        def calls(ctx, key):
            while True: ctx.get(key)
        @command("library", flags="readonly")
        def library(ctx, key):
            import json
            while True: json.dumps([1] * 1000)
        @command("wrote")
        def wrote(ctx, key):
            ctx.set(key, 1)
            end = time.monotonic() + 0.9
            while time.monotonic() < end: pass
            return "done"
        @command("late")
        def late(ctx, key):
            end = time.monotonic() + 0.015
            while time.monotonic() < end: pass
            return 1
    """)
    before = signal.getitimer(signal.ITIMER_REAL), signal.getsignal(signal.SIGALRM)  # the time of this test
    loaded.shard.modules.watchdog.configure(400)
    loaded.shard.modules.watchdog.start()
    try:
        yield loaded
    finally:
        loaded.shard.modules.watchdog.stop()
        assert not runs() and signal.getsignal(signal.SIGALRM) == before[1]
        signal.setitimer(signal.ITIMER_REAL, *before[0])


def runs() -> bool:
    """Whether the timer of a watchdog runs."""
    return signal.getitimer(signal.ITIMER_REAL)[1] > 0


@pytest.mark.parametrize("name", ["spin", "sleep", "stubborn", "calls", "library"])
def test_what_takes_too_long_is_ended(timed: Loaded, name: str) -> None:
    began = time.monotonic()
    reply = timed.run(name, "k")
    assert (
        reply
        == b"-ERR %s: it took longer than module-time-limit-ms allows, and was ended; it had changed nothing\r\n"
        % name.encode()
    )
    assert 0.3 < time.monotonic() - began < 60
    assert timed.run("late", "k") == b":1\r\n"


def test_what_has_changed_data_runs_on(timed: Loaded, caplog: pytest.LogCaptureFixture) -> None:
    assert timed.run("wrote", "k") == b"+done\r\n"
    assert [record.message for record in caplog.records] == [
        "wrote takes longer than module-time-limit-ms; it has changed data, and so goes on"
    ]


def test_the_timer_touches_nobody_else(timed: Loaded) -> None:
    """After a command the timer goes on for a tick; it raises nothing, and stops."""
    deadline = time.monotonic() + 60
    for _ in range(5):
        timed.run("late", "k")
        end = time.monotonic() + 0.05
        while time.monotonic() < end:
            pass
    timed.run("late", "k")
    assert runs()
    while runs():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_without_a_limit_nothing_is_ended(timed: Loaded) -> None:
    timed.shard.modules.watchdog.configure(0)
    timed.run("wrote", "k")
    assert not runs()


def test_what_refers_to_itself_is_collected() -> None:
    loaded = Loaded("""
        class Node: pass
        last = []
        @command("cycle")
        def cycle(ctx, key):
            node = Node()
            node.self = node
            last[:] = [node]
            return 1
        @command("forget")
        def forget(ctx, key):
            last.clear()
            return 1
    """)
    import sys

    was_on = gc.isenabled()
    gc.disable()
    try:
        loaded.run("cycle", "k")
        node = weakref.ref(sys.modules["kache_module_app0"].last[0])
        loaded.run("forget", "k")
        assert node() is not None
        loaded.shard.modules.collect()
        assert node() is None
    finally:
        if was_on:
            gc.enable()
        gc.unfreeze()


@pytest.fixture
def rules_name_the_table_again() -> Iterator[None]:
    """What rules can name is the whole process's."""
    yield
    CATALOGUE.take_modules(())


def test_the_rules_of_users_name_them_from_the_change_on(rules_name_the_table_again: None) -> None:
    draw = """
        @command("draw", flags="readonly")
        def draw(ctx, key):
            return 1
    """
    compiled = []

    class Noting:
        """Stands for the users; what a rule names when they are compiled."""

        def compile_again(self) -> None:
            compiled.append(CATALOGUE.of_name(b"draw"))

    loaded = Loaded()
    loaded.shard.modules.users = cast(Users, Noting())
    loaded.take(module(draw))
    rows, _ = allowed(apply(UserRecord(b"one"), [b"+draw"]).root)
    assert compiled == [frozenset({FIRST})] and rows == {FIRST}
    # While a version is replaced, frames with both numbers are on their way.
    loaded.take(module(draw), module(draw.replace("return 1", "return 2"), serial=2, first=FIRST + 1))
    assert compiled[1:] == [frozenset({FIRST, FIRST + 1})]
    loaded.take()
    assert compiled[2:] == [None]
