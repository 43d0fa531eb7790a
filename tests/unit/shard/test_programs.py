"""What runs commands inside a command: `Program`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kache.acl.record import UNRESTRICTED
from kache.commands import Row
from kache.errors import CommandError
from kache.shard.engine.engine import KeyElsewhere, Program
from kache.shard.shard import Shard
from kache.slots import slot_of_key

NOW = 1_700_000_000_000
RESP2, RESP3 = 2, 3


class Host:
    """A shard whose command TTL runs what a test says."""

    def __init__(self, **options: Any) -> None:
        self.shard = Shard(now_ms=NOW, **options)
        self.result: Any = None

    def run(
        self, work: Callable[[Program], Any], dialect: int = RESP2, user: int = UNRESTRICTED, **options: Any
    ) -> Any:
        """The result of `work`, run as the handler of a client's command."""

        def handler(ctx: Any, _key: bytes) -> int:
            ctx.user_number = user
            with Program(ctx, **options) as program:
                self.result = work(program)
            return 0

        self.shard.replace_handler("ttl", handler)
        reply = self.shard.execute([b"TTL", b"x"], dialect)
        if reply != b":0\r\n":
            raise CommandError(reply[1:-2].decode())
        return self.result


@pytest.fixture
def host() -> Host:
    return Host()


def test_a_program_sees_its_own_changes(host: Host) -> None:
    assert host.run(lambda p: [p.call(b"SET", b"a", b"1"), p.call(b"incr", b"a"), p.call(b"Get", b"a")]) == [
        "OK",
        2,
        b"2",
    ]
    assert host.shard.execute([b"GET", b"a"]) == b"$1\r\n2\r\n"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((b"nosuch",), "ERR Unknown Redis command called from script"),
        ((b"CONFIG",), "ERR Unknown Redis command called from script"),
        ((b"OBJECT", b"nosuch", b"x"), "ERR Unknown Redis command called from script"),
        ((b"_remove", b"a", b"del"), "ERR Unknown Redis command called from script"),
        ((b"GET",), "ERR Wrong number of args calling Redis command from script"),
        ((b"GET", b"a", b"b"), "ERR Wrong number of args calling Redis command from script"),
        ((b"MULTI",), "ERR This Redis command is not allowed from script"),
        ((b"SUBSCRIBE", b"c"), "ERR This Redis command is not allowed from script"),
        ((b"CONFIG", b"GET", b"*"), "ERR This Redis command is not allowed from script"),
    ],
)
def test_what_a_program_may_not_call(host: Host, words: tuple[bytes, ...], text: str) -> None:
    with pytest.raises(CommandError) as refused:
        host.run(lambda p: p.call(*words))
    assert refused.value.message == text


def test_a_reading_program_does_not_write(host: Host) -> None:
    with pytest.raises(CommandError, match="Write commands are not allowed from read-only scripts"):
        host.run(lambda p: p.call(b"SET", b"a", b"1"), read_only=True)
    assert host.run(lambda p: p.call(b"EXISTS", b"a"), read_only=True) == 0


def test_what_it_did_is_known(host: Host) -> None:
    def work(p: Program) -> list[bool]:
        seen = [p.wrote, p.changed]
        p.call(b"GET", b"a")
        seen += [p.wrote, p.changed]
        p.call(b"DEL", b"a")
        seen += [p.wrote, p.changed]
        p.call(b"SET", b"a", b"1")
        return [*seen, p.wrote, p.changed]

    assert host.run(work) == [False, False, False, False, True, False, True, True]


def test_replies_have_the_shape_that_was_asked_for(host: Host) -> None:
    def work(p: Program) -> list[int]:
        found = [p.resp]
        p.resp = 3
        return [*found, p.resp]

    assert host.run(work) == [2, 3]
    assert host.shard.execute([b"HGETALL", b"none"], RESP3) == b"%0\r\n"


def test_a_database_is_selected_until_the_end(host: Host) -> None:
    def work(p: Program) -> None:
        p.context.keys.db = 3
        p.call(b"SET", b"a", b"there")

    host.run(work)
    assert host.shard.execute([b"GET", b"a"]) == b"$-1\r\n"
    assert host.shard.execute([b"GET", b"a"], db=3) == b"$5\r\nthere\r\n"


def test_rights_are_asked_for_with_the_row(host: Host) -> None:
    asked: list[tuple[int, str, tuple[bytes, ...]]] = []

    def check(user: int, row: Row, args: tuple[bytes, ...]) -> None:
        asked.append((user, row.name, args))
        if row.name == "del":
            raise CommandError("NOPERM no")

    with pytest.raises(CommandError, match="NOPERM no"):
        host.run(lambda p: [p.call(b"SET", b"a", b"1"), p.call(b"DEL", b"a")], check=check, user=7)
    assert asked == [(7, "set", (b"a", b"1")), (7, "del", (b"a",))]
    assert host.shard.execute([b"EXISTS", b"a"]) == b":1\r\n"
    # Nobody is asked about who may do everything.
    assert host.run(lambda p: p.call(b"DEL", b"a"), check=check) == 1
    assert len(asked) == 2


def test_keys_of_other_shards_are_not_touched(host: Host) -> None:
    own = slot_of_key(b"a")
    host.shard.own([(own, own)])
    assert host.run(lambda p: p.call(b"SET", b"a", b"1")) == "OK"
    for words in (
        (b"GET", b"b"),
        (b"MSET", b"a", b"2", b"b", b"3"),
        (b"ZUNION", b"2", b"a", b"b"),
    ):

        def work(p: Program, words: tuple[bytes, ...] = words) -> Any:
            try:
                return p.call(*words)
            except KeyElsewhere as elsewhere:
                return elsewhere.keys

        assert host.run(work) == [b"b"], words
    assert host.shard.execute([b"GET", b"a"]) == b"$1\r\n1\r\n"
    assert host.run(lambda p: p.call(b"GET", b"b"), lent={b"b"}) is None
    with pytest.raises(CommandError, match="about all shards"):
        host.run(lambda p: p.call(b"DBSIZE"))
    with pytest.raises(CommandError, match="CROSSSLOT"):
        host.run(lambda p: p.call(b"SORT", b"a", b"BY", b"w_*"))
    host.shard.own(None)
    assert host.run(lambda p: [p.call(b"GET", b"b"), p.call(b"DBSIZE")]) == [None, 1]


def test_what_is_published_elsewhere_is_kept(host: Host) -> None:
    own = slot_of_key(b"a")
    host.shard.own([(own, own)])

    def work(p: Program) -> tuple[list[Any], list[Any], bool]:
        return [p.call(b"PUBLISH", b"a", b"m"), p.call(b"PUBLISH", b"b", b"m")], p.published, p.changed

    assert host.run(work) == ([0, 0], [(0, b"b", b"m")], True)


def test_a_key_in_a_transaction_is_left_alone_until_something_has_changed(host: Host) -> None:
    host.shard.execute(
        [
            b"_lock",
            (7).to_bytes(8, "little"),
            (NOW + 1000).to_bytes(8, "little"),
            b"\0",
            slot_of_key(b"a").to_bytes(2, "little"),
        ],
        1,
    )
    with pytest.raises(CommandError, match="declare it in KEYS"):
        host.run(lambda p: p.call(b"SET", b"a", b"1"))
    assert host.run(lambda p: [p.call(b"SET", b"b", b"1"), p.call(b"SET", b"a", b"1")]) == ["OK", "OK"]


def test_without_memory_the_first_write_is_refused() -> None:
    host = Host(maxmemory=100_000)
    host.shard.execute([b"SET", b"big", bytes(200_000)])
    host.shard.execute([b"SET", b"big2", bytes(90_000)])
    host.shard.set_maxmemory(50_000)
    with pytest.raises(CommandError, match="OOM command not allowed when used memory > 'maxmemory'"):
        host.run(lambda p: p.call(b"SET", b"a", b"1"))
    # As a real server has it: who has written once may go on.
    assert host.run(lambda p: [p.call(b"DEL", b"none"), p.call(b"SET", b"a", b"1")]) == [0, "OK"]
    assert host.run(lambda p: p.call(b"SET", b"a", b"2"), allows_oom=True) == "OK"
