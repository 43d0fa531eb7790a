"""DUMP's payload: every type comes back as it was, and nothing damaged is ever restored."""

from __future__ import annotations

import zlib
from typing import Any

import msgspec
import pytest

from kache.errors import CommandError
from kache.shard.commands.dump import dump_value, restore_value
from kache.shard.commands.introspection import encoding_of
from kache.shard.engine.engine import Keyspace, Store

NOW_MS = 1_700_000_000_000
KEYS = (b"string", b"grown", b"empty", b"list", b"set", b"hash", b"zset")


@pytest.fixture
def ks() -> Keyspace:
    """A keyspace with one key of each kind."""
    store = Store()
    store.set_time(NOW_MS)
    keyspace = Keyspace(store)
    keyspace.string_set(b"string", b"\x00value\xff")
    keyspace.string_append(b"grown", b"12")
    keyspace.string_append(b"grown", b"34")
    keyspace.string_set(b"empty", b"")
    keyspace.list_replace(b"list", [b"a", b"", b"a" * 300, b"7"])
    keyspace.set_replace(b"set", [b"x", b"y", b"3"])
    keyspace.hash_set(b"hash", b"field", b"value")
    keyspace.hash_set(b"hash", b"timed", b"value")
    keyspace.hash_deadline_set(b"hash", b"timed", NOW_MS + 5_000)
    keyspace.zset_replace(b"zset", {b"one": 1.5, b"low": float("-inf"), b"high": float("inf")})
    return keyspace


def contents(payload: bytes) -> list[Any]:
    """A payload's body; the order in which sets and hashes are kept does not count."""
    kind, values, *rest = msgspec.msgpack.decode(payload[7:])
    if kind == "set":
        values = sorted(values)
    elif kind == "hash":
        values = sorted(zip(values[::2], values[1::2], strict=True))
    return [kind, values, *rest]


@pytest.mark.parametrize("key", KEYS)
def test_round_trip(ks: Keyspace, key: bytes) -> None:
    payload = dump_value(ks, key)
    assert payload is not None
    ks.list_replace(b"copy", [b"in the way"])
    restore_value(ks, b"copy", payload, NOW_MS + 1_000)
    again = dump_value(ks, b"copy")
    assert again is not None
    assert contents(again) == contents(payload)
    assert ks.type_of(b"copy") == ks.type_of(key)
    assert encoding_of(ks, b"copy") == encoding_of(ks, key)
    assert ks.deadline_of(b"copy") == NOW_MS + 1_000


def test_field_deadlines_travel(ks: Keyspace) -> None:
    payload = dump_value(ks, b"hash")
    assert payload is not None
    restore_value(ks, b"copy", payload, 0)
    table = ks.hash_get(b"copy")
    assert table is not None
    assert (table.deadline_of(b"timed"), table.deadline_of(b"field")) == (NOW_MS + 5_000, -1)


def test_a_deadline_in_the_past_leaves_no_key(ks: Keyspace) -> None:
    payload = dump_value(ks, b"set")
    assert payload is not None
    restore_value(ks, b"string", payload, NOW_MS)
    assert not ks.exists(b"string")


def test_no_key_no_payload(ks: Keyspace) -> None:
    assert dump_value(ks, b"missing") is None


@pytest.mark.parametrize("key", KEYS)
def test_every_flipped_or_missing_byte_is_found(ks: Keyspace, key: bytes) -> None:
    payload = dump_value(ks, key)
    assert payload is not None
    for at in range(len(payload)):
        for damaged in (payload[:at], payload[:at] + bytes((payload[at] ^ 1,)) + payload[at + 1 :]):
            with pytest.raises(CommandError, match="DUMP payload version or checksum are wrong"):
                restore_value(ks, b"string", damaged, 0)
    assert ks.string_get(b"string") == b"\x00value\xff"


@pytest.mark.parametrize(
    "body",
    [
        [],
        5,
        {"a": 1},
        ["stream", []],
        ["string", b"a"],
        ["string", "a", True],
        ["list", []],
        ["list", ["a"]],
        ["set", [1]],
        ["zset", [b"a", 1]],
        ["zset", [b"a", float("nan")]],
        ["zset", [b"a"]],
        ["hash", [b"a"], []],
        ["hash", [b"a", b"b"], [[b"a"]]],
        ["hash", [b"a", b"b"], [[b"a", -1]]],
        ["hash", [b"a", b"b"], [[b"a", True]]],
        [["string"], b"a", True],
        ["stream", [1, 1], [1, 1, 1, 0, 0], []],
        ["stream", [1, 1, []], [1, 1, 1, 0, 0], []],
        ["stream", [1, 1, [b"f"]], [1, 1, 1, 0, 0], []],
        ["stream", [1, 1, [b"f", 1]], [1, 1, 1, 0, 0], []],
        ["stream", [0, 0, [b"f", b"v"]], [1, 1, 1, 0, 0], []],
        ["stream", [2, 0, [b"f", b"v"]], [1, 1, 1, 0, 0], []],
        ["stream", [1, 1, [b"f", b"v"]], [1, 1, 0, 0, 0], []],
        ["stream", [1, 1, [b"f", b"v"], 1, 1, [b"f", b"v"]], [1, 1, 2, 0, 0], []],
        ["stream", [], [1, 1, 1, 0], []],
        ["stream", [], [1, 1, 1, 0, -1], []],
        ["stream", [], [1, 1, 1, 0, 0], [1]],
        ["stream", [], [1, 1, 1, 0, 0], [[[b"g"], 0, 0, -1, [], []]]],
        ["stream", [], [1, 1, 1, 0, 0], [[b"g", 0, 0, -2, [], []]]],
        ["stream", [], [1, 1, 1, 0, 0], [[b"g", 0, 0, -1, [], []], [b"g", 0, 0, -1, [], []]]],
        ["stream", [], [1, 1, 1, 0, 0], [[b"g", 0, 0, -1, [], [[1, 1, b"who", 5, 1]]]]],
        ["stream", [], [1, 1, 1, 0, 0], [[b"g", 0, 0, -1, [[b"a", 1, 1], [b"a", 1, 1]], []]]],
    ],
)
def test_a_right_checksum_around_nonsense_is_refused(ks: Keyspace, body: Any) -> None:
    encoded = msgspec.msgpack.encode(body)
    payload = b"KD\x01" + zlib.crc32(encoded).to_bytes(4, "little") + encoded
    with pytest.raises(CommandError, match="ERR Bad data format"):
        restore_value(ks, b"string", payload, 0)
    assert ks.exists(b"string")
