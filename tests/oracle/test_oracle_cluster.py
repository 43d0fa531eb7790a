"""Commands of several keys that no hash tag holds together: a cluster answers like one server."""

from __future__ import annotations

import os

from hypothesis import given, settings
from hypothesis import strategies as st

from .harness import Command, Oracle
from .strategies_cluster import cluster_commands

EXAMPLES = int(os.environ.get("KACHE_ORACLE_EXAMPLES", "300"))
MANY = 2_000


@settings(max_examples=EXAMPLES, deadline=None)
@given(script=st.lists(cluster_commands, min_size=1, max_size=20), protocol=st.sampled_from([2, 3]))
def test_random_commands_over_shards(oracle: Oracle, script: list[Command], protocol: int) -> None:
    oracle.check(script, protocol)


def check_conditions_over_shards(oracle: Oracle) -> None:
    """MSETNX and MSETEX, whose condition is about keys of several shards."""
    oracle.both([("FLUSHALL",)])
    count = ("EXISTS", "k1", "k2", "k3", "k4", "k5", "k6", "k7")
    for command in (
        ("MSETNX", "k1", 1, "k2", 2, "k3", 3, "k4", 4),
        ("MSETNX", "k4", 5, "k7", 5),
        ("MSETEX", 2, "k5", 1, "k6", 2),
        ("MSETEX", 2, "k6", 3, "k7", 3, "NX"),
        ("MSETEX", 2, "k6", 3, "k7", 3, "XX"),
        ("MSETEX", 2, "k5", 3, "k6", 3, "XX", "EX", 100),
        ("MSETEX", 2, "k5", 3, "k6", 3, "FX"),
        ("MSETEX", 2, "k5", 3, "k6", 3, "EX", 0),
        ("MSETEX", 2, "k5", 3, "k6"),
        ("MSETNX", "k5", 3, "k6"),
    ):
        for ours, theirs in oracle.both([command, count, ("MGET", "k1", "k4", "k5", "k6", "k7")]):
            assert ours.raw == theirs.raw, command


def check_whole_scan(oracle: Oracle) -> None:
    """SCAN from 0 back to 0 returns every key, whatever its options."""
    oracle.both([("FLUSHALL",), *(("SET", f"scan:{number}", number) for number in range(MANY))])
    walks: list[Command] = [(), ("COUNT", 500), ("MATCH", "scan:1*"), ("TYPE", "string"), ("MATCH", "nothing*")]
    for arguments in walks:
        cursor = b"0"
        found: set[bytes] = set()
        for _ in range(MANY * 2):
            reply = oracle.ours([("SCAN", cursor, *arguments)])[0]
            cursor = reply.items[0].text
            found |= {item.text for item in reply.items[1].items}
            if cursor == b"0":
                break
        expected = {b"scan:%d" % number for number in range(MANY)}
        if "MATCH" in arguments:
            expected = {key for key in expected if arguments[1] == "scan:1*" and key.startswith(b"scan:1")}
        assert cursor == b"0"
        assert found == expected
    oracle.both([("FLUSHALL",)])


def test_conditions_on_keys_of_several_shards(oracle: Oracle) -> None:
    check_conditions_over_shards(oracle)


def test_scan_returns_every_key_once_around(oracle: Oracle) -> None:
    check_whole_scan(oracle)
