"""The command table: what every row promises, lookup, and finding the keys of a command."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kache.commands import (
    BY_KEY,
    CLUSTER,
    CONTAINERS,
    DIGEST,
    GROUPS,
    MERGES,
    ROUTES,
    TABLE,
    Row,
    atomicity,
    key_positions,
    keys_of,
    keys_with_flags,
    lookup,
)
from kache.commands.describe import categories, info
from kache.commands.row import check_row, in_group, row

BINARY, INTERNAL, RESP2, RESP3 = 0, 1, 2, 3


def words(text: str) -> list[bytes]:
    return [word.encode() for word in text.split()]


def test_ids_are_places_and_keys_are_unique() -> None:
    assert [each.id for each in TABLE] == list(range(len(TABLE)))
    assert len({each.key for each in TABLE}) == len(TABLE) == len(BY_KEY)
    assert len(TABLE) < 2**16


def test_every_route_and_merge_is_used() -> None:
    """A route nobody takes is a line that lies; the words of families that have no command yet are named here."""
    assert {each.route for each in TABLE} == ROUTES.keys() - {"none"}
    assert {each.merge for each in TABLE} == MERGES.keys()
    assert {each.group for each in TABLE} == GROUPS.keys() - {"module"}
    assert {each.cluster for each in TABLE} == CLUSTER.keys()


def test_binary_variants_replace_a_row_with_the_same_route_and_keys() -> None:
    variants = [each for each in TABLE if each.dialect == "binary"]
    assert sorted(each.name for each in variants) == ["del", "expire", "persist", "zadd", "zrem"]
    for each in variants:
        assert each.key == f"binary|{each.name}"
        other = BY_KEY[each.name]
        assert (each.route, each.merge, each.keys, each.flags) == (other.route, other.merge, other.keys, other.flags)


def test_internal_rows_are_out_of_reach_of_clients() -> None:
    internal = [each for each in TABLE if each.name.startswith("_")]
    assert internal
    for each in internal:
        assert "internal" in each.flags
        assert [lookup(each.name.encode(), dialect) for dialect in (BINARY, RESP2, RESP3)] == [None, None, None]
        assert lookup(each.name.encode(), INTERNAL) is each


def test_the_digest_is_stable_within_a_version_and_depends_on_the_order() -> None:
    code = "import kache.commands; print(kache.commands.DIGEST.hex())"
    seen = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert seen == {DIGEST.hex() + "\n"}
    assert len(DIGEST) == 8


# Lookup -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dialect", [RESP2, RESP3])
def test_resp_sees_its_own_rows(dialect: int) -> None:
    assert lookup(b"del", dialect) is BY_KEY["del"]
    assert lookup(b"HELLO", dialect) is BY_KEY["hello"]
    assert lookup(b"Client|Reply", dialect) is BY_KEY["client|reply"]
    assert lookup(b"binary|del", dialect) is None
    assert lookup(b"no-such", dialect) is None
    assert lookup(b"\xff\xfe", dialect) is None
    assert lookup(b"", dialect) is None


def test_binary_sees_its_variants_and_nothing_about_resp() -> None:
    assert lookup(b"DEL", BINARY) is BY_KEY["binary|del"]
    assert lookup(b"get", BINARY) is BY_KEY["get"]
    assert [lookup(name, BINARY) for name in (b"hello", b"reset", b"client|reply")] == [None, None, None]
    assert lookup(b"select", BINARY) is BY_KEY["select"]


def test_containers_are_found_but_never_executed() -> None:
    for name, container in CONTAINERS.items():
        assert lookup(name.upper().encode(), RESP2) is container
        assert container.is_container
        assert not container.on_shard
        assert container.subcommands == tuple(each.name for each in TABLE if each.name.startswith(name + "|"))
    assert lookup(b"command", RESP2) is BY_KEY["command"]
    assert "command|docs" in BY_KEY["command"].subcommands


def test_later_families_are_unknown() -> None:
    for name in (b"migrate", b"script|debug"):
        assert lookup(name, RESP3) is None


# Keys ---------------------------------------------------------------------------------------------
KEYS = [
    ("get", "k", "k"),
    ("mget", "a b c", "a b c"),
    ("mset", "a 1 b 2", "a b"),
    ("mset", "a 1 b", "a b"),
    ("rename", "a b", "a b"),
    ("object|encoding", "k", "k"),
    ("memory|usage", "k SAMPLES 5", "k"),
    ("bitop", "AND d a b", "d a b"),
    ("lcs", "a b LEN", "a b"),
    ("pfmerge", "d", "d"),
    ("pfmerge", "d a b", "d a b"),
    ("geosearchstore", "d s FROMMEMBER m BYRADIUS 1 m", "d s"),
    ("zunion", "2 a b WEIGHTS 1 2", "a b"),
    ("zunionstore", "d 2 a b AGGREGATE MAX", "d a b"),
    ("lmpop", "2 a b LEFT", "a b"),
    ("sintercard", "1 a LIMIT 3", "a"),
    ("msetex", "2 a 1 b 2 NX", "a b"),
    ("sort", "k", "k"),
    ("sort", "k BY w_* LIMIT 0 5 GET # ALPHA STORE d", "k d"),
    ("sort", "k BY store GET store STORE d", "k d"),
    ("sort", "k store d STORE e", "k e"),
    ("sort", "k STORE", "k"),
    ("sort_ro", "k BY store", "k"),
    ("georadius", "k 1 2 3 m COUNT 3 STORE d", "k d"),
    ("georadius", "k 1 2 3 m STOREDIST store DESC", "k store"),
    ("georadius", "k 1 2 3 m STORE a STOREDIST b", "k b"),
    ("georadiusbymember", "k STORE 3 m STORE d", "k d"),
    ("keys", "*", ""),
    ("ping", "", ""),
    ("msetex", "2 a 1 b 2 NX", "a b"),
    ("_watch", "a b", "a b"),
]


@pytest.mark.parametrize(("name", "arguments", "expected"), KEYS)
def test_keys_of_a_command(name: str, arguments: str, expected: str) -> None:
    assert keys_of(BY_KEY[name], words(arguments)) == words(expected)


@pytest.mark.parametrize("number", ["0", "-1", "3", "x", "", "99999999999999999999", "2.0", "+2", "²"])
def test_an_unusable_number_of_keys_gives_none(number: str) -> None:
    arguments = [number.encode(), b"a", b"b"]
    assert key_positions(BY_KEY["zunion"], arguments) == []
    assert key_positions(BY_KEY["zunionstore"], [b"d", *arguments]) == [0]


def test_keys_carry_the_access_of_their_spec() -> None:
    found = keys_with_flags(BY_KEY["zunionstore"], words("d 2 a b"))
    assert found == [(b"d", ("OW", "update")), (b"a", ("RO", "access")), (b"b", ("RO", "access"))]


@given(st.sampled_from(TABLE), st.lists(st.sampled_from([b"1", b"2", b"STORE", b"BY", b"k", b"-3"]), max_size=9))
def test_positions_are_ordered_and_inside(row: Row, arguments: list[bytes]) -> None:
    positions = key_positions(row, arguments)
    assert positions == sorted(set(positions))
    assert all(0 <= position < len(arguments) for position in positions)


def test_legacy_ranges() -> None:
    expected = {
        "get": (1, 1, 1),
        "mset": (1, -1, 2),
        "rename": (1, 2, 1),
        "bitop": (2, -1, 1),
        "zunion": (0, 0, 0),
        "zunionstore": (1, 1, 1),
        "object|freq": (2, 2, 1),
        "ping": (0, 0, 0),
    }
    assert {name: BY_KEY[name].legacy_range for name in expected} == expected


def test_arity() -> None:
    assert [BY_KEY["get"].arity_fits(count) for count in (1, 2, 3)] == [False, True, False]
    assert [BY_KEY["mget"].arity_fits(count) for count in (1, 2, 30)] == [False, True, True]


# Atomicity ----------------------------------------------------------------------------------------
def test_atomicity_follows_from_the_route() -> None:
    assert atomicity(BY_KEY["get"]) == "Atomic: one shard executes it."
    assert "a transaction" in atomicity(BY_KEY["rename"]) == atomicity(BY_KEY["msetnx"])
    assert "a transaction over all shards" in atomicity(BY_KEY["flushall"])
    assert "changes its own keys" in atomicity(BY_KEY["mset"])
    assert "reads its own keys" in atomicity(BY_KEY["mget"])
    assert atomicity(BY_KEY["ping"]) == ""
    assert "asked by the router" in atomicity(BY_KEY["info"])
    for each in TABLE:
        if each.route not in ("local", "none", "channel"):
            assert atomicity(each).endswith("."), each.key


# What a row may not say ---------------------------------------------------------------------------
def a_row(**changes: object) -> Row:
    made = row("thing", "key", 2, "readonly", "RO access", "0.1.0", "O(1)", "Does a thing.", cluster="native")
    return msgspec.structs.replace(in_group("string", made)[0], **changes)


WRONG = [
    ({"route": "elsewhere"}, "unknown route"),
    ({"merge": "blend"}, "unknown merge"),
    ({"group": "things"}, "unknown group"),
    ({"dialect": "telnet"}, "unknown dialect"),
    ({"name": "Thing"}, "lower case"),
    ({"arity": 1}, "does not reach its keys"),
    ({"arity": 0}, "shorter than its name"),
    ({"flags": frozenset({"readonly", "write"})}, "both readonly and write"),
    ({"flags": frozenset({"quick"})}, "unknown flags"),
    ({"keys": ()}, "without keys"),
    ({"merge": "sum"}, "merges nothing"),
    ({"route": "split"}, "takes keys from first to last"),
    ({"summary": ""}, "no summary"),
    ({"cluster": ""}, "does not say what happens in front of a Redis Cluster"),
    ({"cluster": "somewhere"}, "does not say what happens in front of a Redis Cluster"),
    ({"cluster": "refused"}, "without a sentence"),
    ({"cluster": "differs", "cluster_text": "no full stop"}, "without a sentence"),
    ({"cluster_text": "A sentence."}, "with a sentence"),
    ({"cluster": "local"}, "cannot be"),
    ({"cluster": "one_slot"}, "cannot be"),
    ({"route": "move"}, "cannot be"),
    ({"flags": frozenset({"internal"})}, "no cluster knows"),
    ({"route": "script"}, "a script that another script may run"),
    ({"route": "script", "flags": frozenset({"noscript"}), "keys": ()}, "without keys"),
    ({"route": "channel"}, "without the flag pubsub"),
    ({"flags": frozenset({"pubsub"})}, "outside its group"),
    ({"flags": frozenset({"write", "may_replicate"})}, "always replicated"),
]


@pytest.mark.parametrize(("changes", "complaint"), WRONG)
def test_a_row_that_contradicts_itself_is_refused(changes: dict[str, object], complaint: str) -> None:
    check_row(a_row())
    with pytest.raises(ValueError, match=complaint):
        check_row(a_row(**changes))


LATER = [
    in_group("transactions",
        row("multi", "", 1, "noscript loading stale fast allow_busy", "", "1.2.0", "O(1)", "Begins.", route="local",
            cluster="local"))[0],
    in_group("pubsub",
        row("publish", "channel message", 3, "pubsub loading stale fast may_replicate", "", "2.0.0", "O(N)", "Tells.",
            route="channel", cluster="native"))[0],
    in_group("scripting",
        row("eval", "script numkeys [key [key ...]]", -3,
            "noscript stale skip_monitor may_replicate no_mandatory_keys", "RW access update #2", "2.6.0", "O(N)",
            "Runs.", route="script", cluster="one_slot"))[0],
    in_group("scripting",
        row("eval_ro", "script numkeys [key [key ...]]", -3, "readonly noscript stale skip_monitor no_mandatory_keys",
            "RO access #2", "7.0.0", "O(N)", "Runs.", route="script", cluster="one_slot"))[0],
    in_group("stream",
        row("xlen", "key", 2, "readonly fast", "RO", "5.0.0", "O(1)", "Counts.", cluster="native"))[0],
]  # fmt: skip


@pytest.mark.parametrize("made", LATER, ids=lambda made: made.name)
def test_rows_of_families_to_come_are_accepted(made: Row) -> None:
    check_row(made)
    assert made.on_shard == (made.route != "local")


def test_what_command_info_says_of_them_is_what_a_real_server_says() -> None:
    seen = {made.name: (set(info(made, RESP2)[2]), categories(made)) for made in LATER}
    assert seen == {
        "multi": ({"noscript", "loading", "stale", "fast", "allow_busy"}, ["@transaction", "@fast"]),
        "publish": ({"pubsub", "loading", "stale", "fast"}, ["@pubsub", "@fast"]),
        "eval": (
            {"noscript", "stale", "skip_monitor", "no_mandatory_keys", "movablekeys"},
            ["@scripting", "@slow"],
        ),
        "eval_ro": (
            {"readonly", "noscript", "stale", "skip_monitor", "no_mandatory_keys", "movablekeys"},
            ["@scripting", "@slow"],
        ),
        "xlen": ({"readonly", "fast"}, ["@stream", "@read", "@fast"]),
    }


def test_only_commands_of_one_key_go_to_a_cluster_as_they_are() -> None:
    several = [each for each in TABLE if each.route in ("split", "move")]
    assert {each.cluster for each in several} == {"split", "one_slot", "differs"}
    assert all(each.cluster == "refused" for each in TABLE if each.group == "internal")
    split = {each.key for each in TABLE if each.cluster == "split"}
    assert split == {"mget", "mset", "del", "binary|del", "exists", "touch", "unlink", "sinter", "sunion", "sdiff"}


@pytest.mark.parametrize("spec", ["", "access", "RO nonsense", "RO access @", "RO access #x", "RO @1..", "ro @1"])
def test_a_bad_key_spec_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="bad key spec"):
        row("thing", "", 2, "", spec or ";", "", "O(1)", "Does a thing.")


def test_rows_are_values() -> None:
    with pytest.raises((AttributeError, dataclasses.FrozenInstanceError)):
        TABLE[0].name = "other"  # type: ignore[misc]  # that is the point
    assert len({*TABLE}) == len(TABLE)
