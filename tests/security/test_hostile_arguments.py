"""Every command with arguments that break others: line ends in whatever is quoted, numbers at the ends of their range.

Whatever comes, each command has exactly one reply, the processes live, and nothing of it is a traceback.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from cluster import Cluster, Connection

from kache.commands import TABLE
from kache.commands.row import Row
from kache.errors import CommandError

LINE_ENDS = (b"\r\n+injected\r\n", b"x\r\n-ERR y\r\n", b"\n", b"\r", b"a\0b", b"\r\n*3\r\n")
NUMBERS = (
    b"2147483648", b"-2147483649", b"4294967295", b"4294967296", b"9223372036854775807", b"9223372036854775808",
    b"-9223372036854775808", b"-9223372036854775809", b"18446744073709551615", b"18446744073709551616", b"-1", b"0",
    b"nan", b"inf", b"-inf", b"1e400", b"1e-400", b"0x7fffffffffffffff", b"- 1", b"",
)  # fmt: skip
ENDS_THE_CONNECTION = {
    "quit", "shutdown", "reset", "client|reply", "client|kill", "client|pause", "subscribe", "psubscribe", "ssubscribe",
    "monitor", "hello", "auth", "debug|reload", "debug|loadaof", "multi", "wait", "waitaof", "config|set",
    "client|no-touch", "select", "unsubscribe", "punsubscribe", "sunsubscribe", "client|tracking",
}  # fmt: skip
"""What changes how many replies come, or waits as long as it is told."""
GROWS = {"setbit", "bitfield", "setrange"}
"""What may grow a string to half a gigabyte, and rightly so."""
ROWS = [
    row for row in TABLE
    if row.name not in ENDS_THE_CONNECTION and "internal" not in row.flags and "blocking" not in row.flags
    and row.dialect != "binary" and row.route != "none"
]  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(2, slowlog_log_slower_than=-1) as running:
        before = running.status()
        yield running
        after = running.status()
        assert [child["pid"] for child in after["children"]] == [child["pid"] for child in before["children"]]
        assert "Traceback" not in running.log()


@pytest.fixture
def dice() -> random.Random:
    return random.Random(20)


def ask(connection: Connection, commands: list[tuple[bytes, ...]]) -> list[object]:
    """The reply of each, each checked to be followed by that of an ECHO of its own."""
    marked = [each for number, command in enumerate(commands) for each in (command, ("echo", f"mark {number}"))]
    connection.send(*marked)
    replies = connection.read_many(len(marked))
    assert replies[1::2] == [b"mark %d" % number for number in range(len(commands))]
    return replies[::2]


def fill(connection: Connection) -> None:
    """A key of every type under names that the commands below use."""
    connection.send(
        ("flushall",), ("set", "s", "7"), ("rpush", "l", 1, 2, 3), ("hset", "h", "f", 1, "g", 2), ("sadd", "t", 1, 2, "x"),
        ("zadd", "z", 1, "a", 2, "b"), ("geoadd", "g", 1, 1, "p"), ("pfadd", "p", "a"),
    )  # fmt: skip
    connection.read_many(8)


def shapes(row: Row, dice: random.Random, hostile: tuple[bytes, ...], count: int) -> list[tuple[bytes, ...]]:
    """`count` requests of this command: keys of all types, subcommands as they are, hostile words anywhere else."""
    words = [word.encode() for word in row.name.split("|")]
    least = abs(row.arity) - len(words)
    plain = (
        b"s",
        b"l",
        b"h",
        b"t",
        b"z",
        b"g",
        b"p",
        b"1",
        b"2",
        b"f",
        b"a",
        b"LIMIT",
        b"COUNT",
        b"EX",
        b"LEFT",
        b"KM",
    )
    found = []
    for _ in range(count):
        size = max(least + dice.randint(-1, 3), 0)
        arguments = [dice.choice(plain) for _ in range(size)]
        for _ in range(dice.randint(1, 3)):
            if arguments:
                arguments[dice.randrange(len(arguments))] = dice.choice(hostile)
        found.append((*words, *arguments))
    return found


@pytest.mark.parametrize("protocol", [2, 3])
def test_no_line_is_injected(cluster: Cluster, dice: random.Random, protocol: int) -> None:
    with cluster.connect() as connection:
        connection.request("hello", protocol)
        for row in ROWS:
            fill(connection)
            ask(connection, shapes(row, dice, LINE_ENDS, 12))
        for name in (b"no\r\nsuch", b"get\0", b"client", b"config", b"object", b"\r\n"):
            replies = ask(connection, [(name, *([each] * count)) for each in LINE_ENDS for count in (1, 2, 4)])
            assert all(isinstance(reply, CommandError) for reply in replies), name


def test_no_line_is_injected_into_a_transaction(cluster: Cluster, dice: random.Random) -> None:
    """Errors are elements of EXEC's reply; as many as commands were queued."""
    rows = [row for row in ROWS if "no_multi" not in row.flags and row.route in ("key", "split", "move")]
    with cluster.connect() as connection:
        for row in rows:
            fill(connection)
            commands = shapes(row, dice, LINE_ENDS, 6)
            connection.send(("multi",), *commands, ("exec",), ("echo", "behind"))
            replies = connection.read_many(len(commands) + 3)
            assert replies[-1] == b"behind"
            queued = [reply for reply in replies[1:-2] if reply == "QUEUED"]
            if isinstance(replies[-2], list):
                assert len(replies[-2]) == len(queued) == len(commands)
            else:
                assert replies[-2].code == "EXECABORT" and len(queued) < len(commands)


def test_numbers_at_the_ends_of_their_range(cluster: Cluster, dice: random.Random) -> None:
    with cluster.connect() as connection:
        for row in ROWS:
            for _ in range(3):
                fill(connection)
                hostile = tuple(each for each in NUMBERS if row.name not in GROWS or len(each) > 10)
                ask(connection, shapes(row, dice, hostile, 15))
        connection.request("flushall")
