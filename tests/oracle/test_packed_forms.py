"""The packed forms of collections against their large ones: the same replies, errors, events and effects for every command.

Two shards execute the same random commands, one under limits drawn at random, which change on the way, the other with
nothing packed. What is told is replayed, and is the same state. Scripts on the collections of one type lead through the limits
in both directions; the strategies of the oracle add odd arguments and the commands that meet several types. The real server
under the same limits says what OBJECT ENCODING answers and in which order a small collection is listed.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_limits import LARGE_ONLY, REDIS_NAMES, Limits, drawn_limits, limits, random_limits
from state import state

from kache.shard.commands.registry import handler_of
from kache.shard.engine.effects import Listener
from kache.shard.engine.engine import Replay, Store
from kache.shard.engine.packed import set_limits
from kache.shard.shard import Shard

from .collection_scripts import TEMPLATES, script
from .compare import agree
from .harness import Command, Oracle, command_text
from .strategies_geo import geo_commands
from .strategies_hashes import hash_commands, hash_ttl_commands
from .strategies_keys import key_commands, sort_commands
from .strategies_lists import list_commands
from .strategies_sets import set_commands, whole_set_commands
from .strategies_zsets import zset_algebra_commands, zset_commands
from .wire import RawReply, parse, to_bytes

EXAMPLES = int(os.environ.get("KACHE_ORACLE_EXAMPLES", "300"))
LENGTH = 120
NOW = 1_700_000_000_000

every_type = st.one_of(
    list_commands, hash_commands, hash_commands, hash_ttl_commands, set_commands, whole_set_commands, zset_commands,
    zset_algebra_commands, geo_commands, key_commands, sort_commands,
)  # fmt: skip
steps = st.lists(st.one_of(every_type, every_type, every_type, every_type, drawn_limits), min_size=10, max_size=50)
"""Commands; a dictionary is the limits from there on."""

BY_FORM = {
    b"object",
    b"memory",
    b"hscan",
    b"sscan",
    b"zscan",
    b"zrangebylex",
    b"zrevrangebylex",
    b"zlexcount",
    b"zremrangebylex",
}
"""Commands whose answer says, or hangs on, how a value is stored, as the real server's does."""


class Side:
    """A shard that records what it does, and tells."""

    def __init__(self, *, compiled: bool) -> None:
        self.shard = Shard(now_ms=NOW)
        if not compiled:
            for name in self.shard.compiled_commands():
                self.shard.replace_handler(name, handler_of(name))
        self.events: list[object] = []
        self.shard.store.effects.add_observer(Listener(lambda *event: self.events.append(event)), everything=True)
        self.shard.store.effects.record()

    def execute(self, argv: list[bytes]) -> RawReply:
        parsed = parse(self.shard.execute(argv))
        assert parsed is not None
        return parsed[0]

    def check_replay(self) -> None:
        copy = Store()
        Replay(copy).apply(*self.shard.store.effects.take())
        assert state(copy) == state(self.shard.store)
        copy.check()
        self.shard.store.check()


@pytest.fixture(autouse=True)
def redis_limits() -> Iterator[None]:
    with limits({}):
        yield


def depends_on_form(argv: list[bytes]) -> bool:
    """The order in which a table or a packed value is walked decides where SORT BY nosort and a lexical range stop."""
    return argv[0].lower() in BY_FORM or b"BYLEX" in [word.upper() for word in argv] or argv[0].lower() == b"sort"


def compare_forms(script: list[Command | Limits], first: Limits, *, compiled: bool) -> set[str]:
    """Executes a script in both forms; the encodings that were met."""
    packed, large = Side(compiled=compiled), Side(compiled=compiled)
    chosen = first
    met: set[str] = set()
    for step in script:
        if isinstance(step, dict):
            chosen = step
            continue
        argv = [to_bytes(word) for word in step]
        if depends_on_form(argv):
            continue
        set_limits(**chosen)
        ours = packed.execute(argv)
        set_limits(**LARGE_ONLY)
        theirs = large.execute(argv)
        assert agree(step, ours, theirs), (chosen, command_text(step), ours.raw, theirs.raw)
        assert packed.events == large.events, (chosen, command_text(step))
        assert state(packed.shard.store) == state(large.shard.store), (chosen, command_text(step))
        packed.shard.store.check()
        met.add(packed.execute([b"OBJECT", b"ENCODING", argv[1] if len(argv) > 1 else b""]).text.decode())
    set_limits(**chosen)
    packed.check_replay()
    set_limits(**LARGE_ONLY)
    large.check_replay()
    return met


BOTH_FORMS = {
    "hash": {"listpack", "hashtable"}, "set": {"intset", "listpack", "hashtable"}, "zset": {"listpack", "skiplist"},
    "list": {"listpack", "quicklist"},
}  # fmt: skip


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("kind", TEMPLATES)
def test_packed_and_large_values_behave_alike(kind: str, compiled: bool) -> None:
    draw = random.Random(f"{kind} {compiled}")
    met: set[str] = set()
    for _ in range(EXAMPLES // 6):
        commands: list[Command | Limits] = list(script(kind, draw, LENGTH))
        for _ in range(4):
            commands.insert(draw.randrange(LENGTH), random_limits(draw))
        met |= compare_forms(commands, random_limits(draw), compiled=compiled)
    assert met >= BOTH_FORMS[kind]


@settings(max_examples=EXAMPLES, deadline=None)
@given(commands=steps, first=drawn_limits, compiled=st.booleans())
def test_odd_commands_on_packed_and_large_values(
    commands: list[Command | Limits], first: Limits, compiled: bool
) -> None:
    compare_forms(commands, first, compiled=compiled)


@pytest.mark.parametrize("kind", TEMPLATES)
def test_limits_as_the_real_server_has_them(oracle: Oracle, kind: str) -> None:
    if "KACHE_ORACLE_PORT" in os.environ:
        pytest.skip("sets the limits of a shard in this process")
    draw = random.Random(kind)
    met: set[bytes] = set()
    try:
        for _ in range(EXAMPLES // 2):
            chosen = random_limits(draw)
            protocol = draw.choice((2, 3))
            oracle.theirs([("CONFIG", "SET", REDIS_NAMES[name], value) for name, value in chosen.items()])
            with limits(chosen):
                commands = script(kind, draw, draw.choice((5, 20, LENGTH)))
                oracle.check(commands, protocol)
                # The order in which algebra leaves its result is nobody's.
                in_order = not any(str(command[0]).endswith("STORE") for command in commands)
                if kind == "set" and not in_order and chosen["set_integers"] < chosen["set_entries"]:
                    continue  # nor is where a result with more integers than an intset has ends: it hangs on that order
                for item in oracle.theirs([("KEYS", "*")], protocol)[0].items:
                    met.add(compare_form(oracle, item.text, protocol, in_order=in_order))
    finally:
        oracle.theirs([("CONFIG", "SET", REDIS_NAMES[name], value) for name, value in DEFAULTS.items()])
    assert {name.decode() for name in met} >= BOTH_FORMS[kind]


LISTED = {b"hash": "HGETALL", b"set": "SMEMBERS"}
DEFAULTS = {
    "hash_entries": 512, "hash_value": 64, "set_integers": 512, "set_entries": 128, "set_value": 64, "zset_entries": 128,
    "zset_value": 64, "list_size": -2,
}  # fmt: skip


def compare_form(oracle: Oracle, key: bytes, protocol: int, *, in_order: bool) -> bytes:
    """OBJECT ENCODING, and the order of what is packed on both sides; the encoding."""
    kind = oracle.theirs([("TYPE", key)], protocol)[0].text
    ((ours, theirs),) = oracle.both([("OBJECT", "ENCODING", key)], protocol)
    if kind == b"list" and ours.text != theirs.text:
        # When a list that shrinks is a listpack again hangs on the nodes that the real server has for it.
        assert {ours.text, theirs.text} == {b"listpack", b"quicklist"}
        return ours.text
    assert ours.text == theirs.text, (key, kind)
    if in_order and kind in LISTED and theirs.text in (b"listpack", b"intset"):
        ((ours, listed),) = oracle.both([(LISTED[kind], key)], protocol)
        assert ours.raw == listed.raw, (key, kind)
    return theirs.text
