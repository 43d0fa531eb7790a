"""Commands in several steps over two real shards in this process, with every step failing in every way.

A step fails as it does between processes: refused before it was executed, or executed and its reply lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from packed_limits import LARGE_ONLY, limits

from kache.commands import BY_KEY
from kache.commands.extract import key_positions
from kache.config.settings import Config
from kache.errors import CommandError
from kache.router import main, registry
from kache.router.scatter import transaction
from kache.router.scatter.lead import lead
from kache.shard.shard import Shard
from kache.slots import slot_of_key
from kache.wire.codec import decode_reply, encode_reply

assert main.HANDLER_MODULES  # importing it registers the commands
NOW = 1_700_000_000_000
INTERNAL, RESP2 = 1, 2
LOST = {
    "refused": ("CLUSTERDOWN shard 1 is down; nothing was executed", False),
    "timeout": ("TIMEOUT the shard did not answer in time", False),
    "reply lost": ("UNCERTAIN the shard was lost", True),
}


class Steps:
    """Stands for the router: keys that begin with "b" live on the second shard."""

    def __init__(self, fail_at: int = 0, how: str = "refused") -> None:
        self.shards = [Shard(now_ms=NOW, index=0), Shard(now_ms=NOW, index=1)]
        self.clock = SimpleNamespace(now=lambda: NOW, data_now=lambda: NOW)
        self.config = Config()
        self.fail_at, self.how = fail_at, how
        self.asked: list[str] = []
        self.shard_count = 2
        self.before_step: Callable[[int], None] = lambda number: None
        self.session = SimpleNamespace(db=0, dialect=RESP2, transaction=0, led=None)
        self.transactions = 0

    def shard_of(self, key: bytes) -> int:
        return 1 if key.startswith(b"b") else 0

    def new_transaction(self) -> int:
        self.transactions += 1
        return self.transactions

    def tell(self, shard: int, command: str, args: Sequence[bytes], session: Any = None) -> None:
        self.shards[shard].execute([command.encode(), *args], INTERNAL)

    def call(
        self, shard: int, command: str, args: Sequence[bytes], db: int = 0, session: Any = None, **_: Any
    ) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.asked.append(command)
        number = len(self.asked)
        self.before_step(number)
        message, executed = LOST[self.how]
        if number != self.fail_at or executed:
            argv = [command.encode(), *args]
            reply = decode_reply(self.shards[shard].execute(argv, INTERNAL, db, session.transaction))[0]
        if number == self.fail_at:
            reply = CommandError(message)
        if isinstance(reply, CommandError):
            future.set_exception(reply)
            future.exception()  # one that nobody awaits any more is no news
        else:
            future.set_result(reply)
        return future

    def run(self, name: str, *args: bytes) -> Any:
        """The reply of a command, an error as the exception it is."""

        async def lead() -> Any:
            handler: Callable[..., Coroutine[Any, Any, Any]] = registry.MOVES[name]
            return await handler(self, self.session, *args)

        try:
            return asyncio.run(lead())
        except CommandError as error:
            return error

    def on(self, *argv: bytes) -> Any:
        """A client's command on the shard of its first key."""
        return decode_reply(self.shards[self.shard_of(argv[1])].execute(list(argv), RESP2))[0]

    def nothing_is_left(self) -> None:
        """Nothing stays locked, nothing under construction stays in memory."""
        for shard in self.shards:
            shard.locks.check()
            assert not shard.locks.busy
            shard.store.check()
            used = shard.store.used_memory
            for db, _keys, _expires, _ttl in shard.store.counts():
                shard.execute([b"flushdb"], RESP2, db)
            assert shard.store.used_memory == 0, used


MEMBERS = [b"member:%d" % number for number in range(300)]


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few elements of a few hundred are large."""
    from kache.router.scatter import algebra, moves

    monkeypatch.setattr(transaction, "SLICE_ELEMENTS", 50)
    monkeypatch.setattr(algebra, "SLICE_ELEMENTS", 50)
    monkeypatch.setattr(moves, "_ELEMENTS", b"50")
    monkeypatch.setattr(moves, "LARGE", 100)


def hash_of(steps: Steps, key: bytes) -> dict[bytes, bytes]:
    found = steps.on(b"hgetall", key)
    return dict(zip(found[::2], found[1::2], strict=True))


VALUE = {member: member[::-1] for member in MEMBERS}


@pytest.fixture(autouse=True)
def several_parts() -> Iterator[None]:
    """What is packed travels in one part, and these are about several."""
    with limits(LARGE_ONLY):
        yield


def with_hash(fail_at: int = 0, how: str = "refused") -> Steps:
    steps = Steps(fail_at, how)
    steps.on(b"hset", b"a", *(word for item in VALUE.items() for word in item))
    steps.on(b"set", b"b", b"old")
    return steps


def steps_of(name: str, *args: bytes) -> int:
    steps = with_hash()
    assert not isinstance(steps.run(name, *args), CommandError)
    assert steps.asked.count("_build") > 3, steps.asked
    return len(steps.asked)


@pytest.mark.parametrize("how", LOST)
@pytest.mark.parametrize("name", ["rename", "copy"])
def test_a_large_value_is_never_lost_whatever_fails(name: str, how: str) -> None:
    options = (b"REPLACE",) if name == "copy" else ()
    for fail_at in range(1, steps_of(name, b"a", b"b", *options) + 1):
        steps = with_hash(fail_at, how)
        reply = steps.run(name, b"a", b"b", *options)
        here = steps.on(b"exists", b"a") == 1
        there = steps.on(b"type", b"b") == b"hash" or steps.on(b"type", b"b") == "hash"
        where = (name, how, fail_at, steps.asked[fail_at - 1], reply)
        if here:
            assert hash_of(steps, b"a") == VALUE, where
        if there:
            assert hash_of(steps, b"b") == VALUE, where
        else:
            assert steps.on(b"get", b"b") == b"old", where
        if not isinstance(reply, CommandError):
            assert there and here == (name == "copy"), where
        elif reply.code != "UNCERTAIN":
            assert here and not there, where
        else:
            assert here or there, where
        steps.nothing_is_left()


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lock_that_is_lost_in_the_middle_ends_the_move(lost: int) -> None:
    """Its time is over on one of the two shards, while parts travel."""
    steps = with_hash()

    def end(number: int) -> None:
        if number == 8:
            assert not steps.shards[lost].locks.sweep(NOW + 60_000)

    steps.before_step = end
    reply = steps.run("rename", b"a", b"b")
    assert isinstance(reply, CommandError) and reply.code == "TRYAGAIN", reply
    assert hash_of(steps, b"a") == VALUE
    assert steps.on(b"get", b"b") == b"old"
    steps.nothing_is_left()


@pytest.mark.parametrize("how", LOST)
def test_with_a_log_every_shard_is_told_that_the_last_step_is_done(how: str) -> None:
    """The last two questions. When one of them fails the outcome is uncertain, and the locks hold to their time: after a kill
    of everything no shard says that they are over, and all of it is left out."""
    steps = with_hash()
    steps.config = Config(appendonly=True)
    assert steps.run("rename", b"a", b"b") == "OK" and steps.asked[-2:] == ["_commit", "_commit"]
    steps.nothing_is_left()
    for fail_at in (len(steps.asked) - 1, len(steps.asked)):
        failing = with_hash(fail_at, how)
        failing.config = Config(appendonly=True)
        reply = failing.run("rename", b"a", b"b")
        assert isinstance(reply, CommandError) and reply.message.startswith("UNCERTAIN the source was removed, then: ")
        assert hash_of(failing, b"b") == VALUE
        for shard in failing.shards:
            assert shard.locks.busy
            shard.locks.sweep(NOW + 60_000)
        failing.nothing_is_left()


# EXEC in steps ------------------------------------------------------------------------------------
QUEUED = [("set", b"a:one", b"x"), ("rename", b"a", b"b"), ("mset", b"a:two", b"y", b"b:two", b"y"), ("incr", b"b:n")]


def run_exec(steps: Steps) -> Any:
    """What EXEC answers to QUEUED."""
    slots: dict[int, set[int]] = {}
    for name, *args in QUEUED:
        for place in key_positions(BY_KEY[name], tuple(args)):
            slots.setdefault(steps.shard_of(args[place]), set()).add(slot_of_key(args[place]))
    queue: Any = SimpleNamespace(
        denied=None,
        needs_room=False,
        everything=False,
        writes=True,
        slots_by_shard=lambda router: slots,
        commands_of=lambda: [(BY_KEY[name], tuple(args), 0) for name, *args in QUEUED],
    )
    router: Any = steps
    try:
        return asyncio.run(lead(router, router.session, queue, None))
    except CommandError as error:
        return error


def done_of_exec(steps: Steps) -> list[bool]:
    """Which parts of QUEUED were executed, on which shard."""
    return [
        steps.on(b"get", b"a:one") == b"x",
        steps.on(b"exists", b"a") == 0,
        steps.on(b"get", b"a:two") == b"y",
        steps.on(b"get", b"b:two") == b"y",
        steps.on(b"get", b"b:n") == b"1",
    ]


@pytest.mark.parametrize("how", LOST)
def test_exec_in_steps_never_says_that_nothing_was_done_when_something_was(how: str) -> None:
    """Each of its steps fails; the others are executed, and the reply says that it is not whole."""
    steps = with_hash()
    assert not isinstance(run_exec(steps), CommandError) and all(done_of_exec(steps))
    uncertain = 0
    for fail_at in range(1, len(steps.asked) + 1):
        some = with_hash(fail_at, how)
        reply, done = run_exec(some), done_of_exec(some)
        where = (how, fail_at, some.asked[fail_at - 1], reply, done)
        if not isinstance(reply, CommandError):
            assert all(done), where
        elif reply.code == "UNCERTAIN":
            uncertain += 1
            assert hash_of(some, b"b" if done[1] else b"a") == VALUE, where
        else:
            assert not any(done), where
        some.nothing_is_left()
    assert uncertain >= 4


@pytest.mark.parametrize("lost", [0, 1])
def test_exec_in_steps_whose_locks_end_says_what_was_done(lost: int) -> None:
    """Behind its first command the locks of one shard end, and the clock has moved on: they are asked for again."""
    steps = with_hash()

    def end(number: int) -> None:
        if steps.asked[number - 1] == "set":
            steps.shards[lost].locks.sweep(NOW + 60_000)
            steps.clock.now = lambda: NOW + steps.config.transaction_hold_ms

    steps.before_step = end
    reply = run_exec(steps)
    assert isinstance(reply, CommandError)
    assert reply.code == ("UNCERTAIN" if any(done_of_exec(steps)) else "TRYAGAIN"), reply


# Algebra ------------------------------------------------------------------------------------------
LEFT, RIGHT = set(MEMBERS[:200]), set(MEMBERS[120:])


def with_sets(fail_at: int = 0, how: str = "refused") -> Steps:
    steps = Steps(fail_at, how)
    steps.on(b"sadd", b"a", *LEFT)
    steps.on(b"sadd", b"b", *RIGHT)
    steps.on(b"sadd", b"a:more", *MEMBERS[150:160])
    steps.on(b"zadd", b"az", *(word for n, m in enumerate(sorted(LEFT)) for word in (b"%d" % n, m)))
    steps.on(b"zadd", b"bz", *(word for n, m in enumerate(sorted(RIGHT)) for word in (b"%d" % -n, m)))
    for key in (b"a:to", b"b:to"):
        steps.on(b"set", key, b"old")
    return steps


@pytest.mark.parametrize("destination", [b"a:to", b"b:to"])
@pytest.mark.parametrize(
    ("name", "keys", "wanted"),
    [
        ("sunionstore", (b"a", b"b"), LEFT | RIGHT),
        ("sinterstore", (b"a", b"b"), LEFT & RIGHT),
        ("sinterstore", (b"b", b"a", b"a:more"), LEFT & RIGHT & set(MEMBERS[150:160])),
        ("sdiffstore", (b"a", b"b", b"a:more"), LEFT - RIGHT),
        ("sdiffstore", (b"b", b"a"), RIGHT - LEFT),
        ("sinterstore", (b"b", b"a", b"a:none"), set()),
    ],
)
def test_large_sets(name: str, keys: tuple[bytes, ...], wanted: set[bytes], destination: bytes) -> None:
    steps = with_sets()
    assert steps.run(name, destination, *keys) == len(wanted)
    assert "_with" not in steps.asked
    assert set(steps.on(b"smembers", destination)) == wanted
    steps.nothing_is_left()


@pytest.mark.parametrize("limit", [(), (b"LIMIT", b"7")])
def test_large_sets_are_counted(limit: tuple[bytes, ...]) -> None:
    steps = with_sets()
    assert steps.run("sintercard", b"2", b"a", b"b", *limit) == (7 if limit else 80)
    assert steps.run("zintercard", b"2", b"az", b"b", *limit) == (7 if limit else 80)
    assert "_with" not in steps.asked and "_gather" not in steps.asked


@pytest.mark.parametrize("options", [(), (b"WEIGHTS", b"2", b"-1.5"), (b"AGGREGATE", b"MAX"), (b"AGGREGATE", b"MIN")])
@pytest.mark.parametrize("name", ["zunionstore", "zinterstore"])
def test_large_sorted_sets_come_out_as_on_one_shard(name: str, options: tuple[bytes, ...]) -> None:
    steps = with_sets()
    one = Shard(now_ms=NOW)
    for key in (b"az", b"bz"):
        pairs = steps.on(b"zrange", key, b"0", b"-1", b"withscores")
        one.execute([b"zadd", key, *(word for at in range(0, len(pairs), 2) for word in (pairs[at + 1], pairs[at]))])
    size = decode_reply(one.execute([name.encode(), b"to", b"2", b"az", b"bz", *options], RESP2))[0]
    assert steps.run(name, b"b:to", b"2", b"az", b"bz", *options) == size
    assert "_with" not in steps.asked
    wanted = decode_reply(one.execute([b"zrange", b"to", b"0", b"-1", b"withscores"], RESP2))[0]
    assert steps.on(b"zrange", b"b:to", b"0", b"-1", b"withscores") == wanted


@pytest.mark.parametrize("how", LOST)
@pytest.mark.parametrize("name", ["sunionstore", "sinterstore"])
def test_a_result_is_there_whole_or_not_at_all(name: str, how: str) -> None:
    wanted = LEFT | RIGHT if name == "sunionstore" else LEFT & RIGHT
    whole = with_sets()
    whole.run(name, b"b:to", b"a", b"b")
    for fail_at in range(1, len(whole.asked) + 1):
        steps = with_sets(fail_at, how)
        reply = steps.run(name, b"b:to", b"a", b"b")
        written = steps.on(b"type", b"b:to") in ("set", b"set")
        where = (name, how, fail_at, steps.asked[fail_at - 1], reply)
        if written:
            assert set(steps.on(b"smembers", b"b:to")) == wanted, where
        if not isinstance(reply, CommandError):
            assert written, where
        elif reply.code != "UNCERTAIN":
            assert not written, where
        assert set(steps.on(b"smembers", b"a")) == LEFT and set(steps.on(b"smembers", b"b")) == RIGHT
        steps.nothing_is_left()


def test_what_is_unusual_is_left_to_one_shard_which_words_the_error() -> None:
    steps = with_sets()
    for name, args, error in (
        ("sintercard", (b"2", b"a", b"b", b"LIMIT", b"-1"), "LIMIT can't be negative"),
        ("zunionstore", (b"b:to", b"2", b"az", b"bz", b"WEIGHTS", b"x", b"1"), "weight value is not a float"),
        ("sunionstore", (b"b:to", b"a", b"bz"), "WRONGTYPE"),
    ):
        reply = steps.run(name, *args)
        assert isinstance(reply, CommandError) and error in reply.message, (name, reply)
        assert steps.on(b"get", b"b:to") == b"old"


def test_small_values_take_few_steps() -> None:
    steps = Steps()
    steps.on(b"sadd", b"a", b"x", b"y")
    steps.on(b"sadd", b"b", b"y", b"z")
    assert steps.run("sunionstore", b"b:to", b"a", b"b") == 3
    assert steps.asked == ["_lock", "_lock", "_read_part", "_sizes", "_with"]


@pytest.mark.parametrize("dialect", [0, RESP2, 3])
def test_large_replies_are_those_of_one_shard(dialect: int) -> None:
    """Byte for byte for sorted sets; sets have no order."""
    one = Shard(now_ms=NOW)
    steps = with_sets()
    steps.session.dialect = dialect
    for key in (b"a", b"b"):
        one.execute([b"sadd", key, *steps.on(b"smembers", key)])
    for key in (b"az", b"bz"):
        pairs = steps.on(b"zrange", key, b"0", b"-1", b"withscores")
        one.execute([b"zadd", key, *(word for at in range(0, len(pairs), 2) for word in (pairs[at + 1], pairs[at]))])
    for name, *args in (
        (b"zunion", b"2", b"az", b"bz", b"WITHSCORES"),
        (b"zinter", b"2", b"az", b"bz", b"WEIGHTS", b"1", b"0.5", b"WITHSCORES"),
        (b"zdiff", b"2", b"az", b"bz"),
        (b"zinter", b"2", b"az", b"a:more"),
    ):
        one.execute([b"sadd", b"a:more", *MEMBERS[150:160]])
        steps.asked.clear()
        reply = steps.run(name.decode(), *args)
        assert encode_reply(reply, dialect) == encode_reply(
            decode_reply(one.execute([name, *args], INTERNAL))[0], dialect
        )
        assert "_spell" in steps.asked
    for name, wanted in (("sunion", LEFT | RIGHT), ("sinter", LEFT & RIGHT), ("sdiff", LEFT - RIGHT)):
        encoded = encode_reply(steps.run(name, b"a", b"b"), dialect)
        assert "_spell" in steps.asked
        if dialect:
            assert encoded[:1] == (b"~" if dialect == 3 else b"*")
            found = decode_reply(encoded)[0]
            assert len(found) == len(wanted) and set(found) == wanted
        else:
            assert len(encoded) == len(encode_reply(list(wanted), dialect))


def test_two_who_read_the_same_large_sets_do_not_hinder_one_another() -> None:
    steps = with_sets()

    async def both() -> list[Any]:
        handler: Callable[..., Coroutine[Any, Any, Any]] = registry.MOVES["sintercard"]
        sessions = [SimpleNamespace(db=0, dialect=RESP2, transaction=0, led=None) for _ in range(2)]
        return await asyncio.gather(*(handler(steps, session, b"2", b"a", b"b") for session in sessions))

    assert asyncio.run(both()) == [80, 80]
    assert steps.asked.count("_lock") >= 4
    steps.nothing_is_left()
