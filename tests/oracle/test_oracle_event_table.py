"""Events of a table of commands, as clients see them beside a real Valkey: all classes, on both sorts of channels.

`event_table.txt` has every command that touches keys, with keys that are there and that are not. On one shard the events of
one command are the same in the same order; where keys are on several shards each publishes its own, so they are the same in
whatever order.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster

from .servers import valkey
from .wire import Connection

TABLE = [
    line.split("; ")
    for line in (Path(__file__).parent / "event_table.txt").read_text().splitlines()
    if line and not line.startswith("#")
]

Event = tuple[str, str]

IN_ANOTHER_ORDER = ("SMOVE",)
"""The member is added before it is removed, so that it stays where it is when there is no memory for it."""


def words_of(text: str, tag: str) -> tuple[str, ...]:
    return tuple(shlex.split(text.replace("{t}", tag)))


class Told:
    """The events of one command after the other. `sentinels`: keys, one on each shard, whose own events come behind them."""

    def __init__(self, port: int, sentinels: list[str]) -> None:
        self.commands, self.events = Connection(port, 2), Connection(port, 3)
        self.sentinels = sentinels
        self.commands.run([("CONFIG", "SET", "notify-keyspace-events", "KEAmn")])
        self.events.run([("PSUBSCRIBE", "__key*__:*")])

    def of(self, line: list[str], tag: str) -> list[Event]:
        *before, last = [words_of(text, tag) for text in line]
        self.commands.run([("FLUSHALL",), *before])
        self.seen()
        self.commands.run([last])
        return self.seen()

    def seen(self) -> list[Event]:
        """What has been told up to here."""
        self.commands.run([("SET", key, "1") for key in self.sentinels])
        waited, found = set(self.sentinels), []
        while waited:
            reply = self.events.read()
            channel, message = reply.items[2].text.decode(), reply.items[3].text.decode()
            if channel == "__keyevent@0__:set":
                waited.discard(message)
            if not any(key in (message, channel.partition("__:")[2]) for key in self.sentinels):
                found.append((channel, message))
        return found

    def close(self) -> None:
        self.commands.close()
        self.events.close()


@pytest.fixture(scope="module")
def theirs() -> Iterator[Told]:
    with valkey() as port:
        told = Told(port, ["{t}sentinel"])
        yield told
        told.close()


@pytest.fixture(scope="module", params=[1, 3], ids=["one shard", "three shards"])
def ours(request: pytest.FixtureRequest) -> Iterator[Told]:
    with Cluster(request.param) as cluster:
        told = Told(cluster.port, ["{t}sentinel"])
        yield told
        told.close()


@pytest.mark.parametrize("tag", ["{t}", ""], ids=["one slot", "several slots"])
def test_every_command_tells_what_a_real_server_tells(ours: Told, theirs: Told, tag: str) -> None:
    ours.sentinels = ["{t}sentinel"] if tag else ["{a}sentinel", "{b}sentinel", "{c}sentinel", "{d}sentinel"]
    different = []
    for line in TABLE:
        found, expected = ours.of(line, tag), theirs.of(line, tag)
        if not tag or line[-1].startswith(IN_ANOTHER_ORDER):
            found, expected = sorted(found), sorted(expected)
        if found != expected:
            different.append(f"{'; '.join(line)}\n  ours   {found}\n  theirs {expected}")
    assert not different, "\n".join(different)
