"""Events of keyspace notifications, beside a real Valkey: after every command the same events in the same order.

Random commands of every data type run on a shard in this process, where an observer hears what would be published, and on
a real server with all classes on, to whose events a connection listens. The difference of one command is reported with
what led to it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kache.shard.engine.effects import KINDS, Listener
from kache.shard.shard import Shard

from .harness import Command, command_text
from .servers import valkey
from .strategies_bits import bit_commands
from .strategies_geo import geo_commands
from .strategies_hashes import hash_commands, hash_ttl_commands
from .strategies_hyperloglog import hyperloglog_commands
from .strategies_keys import key_commands, sort_commands
from .strategies_lists import list_commands
from .strategies_sets import set_commands, whole_set_commands
from .strategies_strings import string_commands
from .strategies_zsets import zset_algebra_commands, zset_commands
from .wire import Connection, to_bytes

EXAMPLES = int(os.environ.get("KACHE_ORACLE_EXAMPLES", "300"))
CLASSES = dict(KINDS)

Event = tuple[int, str, bytes]
"""Database, event, key."""

around = st.one_of(
    st.tuples(st.just("SELECT"), st.integers(0, 2)),
    st.tuples(st.just("MOVE"), st.sampled_from(["{t}a", "{t}b"]), st.integers(0, 2)),
    st.tuples(st.just("COPY"), st.just("{t}a"), st.just("{t}b"), st.just("DB"), st.integers(0, 2), st.just("REPLACE")),
    st.sampled_from([("FLUSHDB",)]),
)

SORTS = {
    "strings": st.one_of(string_commands, bit_commands, hyperloglog_commands),
    "lists": list_commands,
    "hashes": st.one_of(hash_commands, hash_ttl_commands),
    "sets": st.one_of(set_commands, whole_set_commands),
    "zsets": st.one_of(zset_commands, zset_algebra_commands, geo_commands),
    "keys": st.one_of(key_commands, sort_commands, string_commands, list_commands),
}


class Ours:
    """A shard with an observer in the place of everybody who listens."""

    def __init__(self) -> None:
        self.shard = Shard()
        self.db = 0
        self.events: list[Event] = []
        self.listener = Listener(self.heard)
        self.shard.store.effects.add_observer(self.listener, everything=True)

    def heard(self, event: str, db: int, slot: int, key: bytes) -> None:
        if CLASSES.get(event):
            self.events.append((db, event, key))

    def run(self, command: Command) -> list[Event]:
        argv = [to_bytes(word) for word in command]
        if argv[0].upper() == b"SELECT":
            self.db = int(argv[1]) if argv[1] in (b"0", b"1", b"2") else self.db
            return []
        self.events = []
        self.shard.execute(argv, 2, self.db)
        return self.events


class Theirs:
    """A real server and a connection that listens to its events."""

    def __init__(self, port: int) -> None:
        self.commands, self.events = Connection(port, 2), Connection(port, 3)
        self.commands.run([("CONFIG", "SET", "notify-keyspace-events", "EAn")])
        self.events.run([("PSUBSCRIBE", "__keyevent@*__:*")])
        self.sentinels = 0

    def run(self, command: Command) -> list[Event]:
        self.commands.run([command])
        self.sentinels += 1
        sentinel = b"sentinel-%d" % self.sentinels
        self.events.send([("PING", sentinel)])
        found: list[Event] = []
        while True:
            reply = self.events.read()
            if reply.text == sentinel:
                return found
            channel, key = reply.items[2].text, reply.items[3].text
            database, _, event = channel.removeprefix(b"__keyevent@").partition(b"__:")
            found.append((int(database), event.decode(), key))

    def close(self) -> None:
        self.commands.close()
        self.events.close()


@pytest.fixture(scope="module")
def theirs() -> Iterator[Theirs]:
    with valkey() as port:
        server = Theirs(port)
        yield server
        server.close()


EXPIRES = frozenset({"RESTORE", "MSETEX", "HGETEX"})


def as_redis(command: Command, events: list[Event]) -> list[Event]:
    """A deadline that has passed removes the key at once: here some commands say "del" as Redis 7, where Valkey says "expired"."""
    if str(command[0]).upper() not in EXPIRES:
        return events
    return [(db, "del" if event == "expired" else event, key) for db, event, key in events]


def never_there(command: Command) -> bool:
    """Fields that are set with a deadline that has passed: a real server tells of all that happens to them, none of which
    anybody could see."""
    return str(command[0]).upper() == "HSETEX"


def compare(script: list[Command], theirs: Theirs) -> None:
    ours = Ours()
    for step in (("SELECT", 0), ("FLUSHALL",)):
        theirs.run(step)
    done: list[str] = []
    for command in script:
        expected, found = theirs.run(command), ours.run(command)
        done.append(command_text(command))
        agree = same(found, expected) or same(as_redis(command, found), as_redis(command, expected))
        assert agree or never_there(command), f"ours {found}, theirs {expected}, after:\n" + "\n".join(done)


def same(found: list[Event], expected: list[Event]) -> bool:
    """Whether they are the same, in the same order but for keys past their deadline, which are found when they are found."""

    def timely(events: list[Event]) -> list[Event]:
        return [event for event in events if event[1] not in ("expired", "hexpired")]

    return timely(found) == timely(expected) and Counter(found) == Counter(expected)


@pytest.mark.parametrize("sort", SORTS)
def test_events(sort: str, theirs: Theirs) -> None:
    step = st.one_of(SORTS[sort], SORTS[sort], SORTS[sort], SORTS[sort], around)

    @settings(max_examples=EXAMPLES // 2, deadline=None)
    @given(script=st.lists(step, min_size=1, max_size=25))
    def compared(script: list[Command]) -> None:
        compare(script, theirs)

    compared()
