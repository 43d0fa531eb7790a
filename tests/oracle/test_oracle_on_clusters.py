"""Real clusters of several sizes beside one real Valkey: router, links and shards in the path.

The other tests here run a shard in this process by default; this one starts clusters, unless
`KACHE_ORACLE_PORT` already points at one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from cluster import Cluster
from hypothesis import given, settings
from hypothesis import strategies as st

from .harness import Command, Oracle, Target
from .strategies_bits import bit_commands
from .strategies_cluster import cluster_commands
from .strategies_hashes import hash_commands
from .strategies_keys import key_commands, sort_commands
from .strategies_sets import set_commands
from .strategies_strings import string_commands
from .test_oracle_cluster import check_conditions_over_shards, check_whole_scan
from .test_oracle_probes import PROBES, commands_of
from .wire import Connection

EXAMPLES = int(os.environ.get("KACHE_ORACLE_EXAMPLES", "200"))
SHARDS = (1, 2, 3, 4, 8)
UNORDERED = frozenset(
    [
        "KEYS",
        "SCAN",
        "RANDOMKEY",
        "SMEMBERS",
        "SINTER",
        "SUNION",
        "SDIFF",
        "HGETALL",
        "HKEYS",
        "HVALS",
        "SPOP",
        "SRANDMEMBER",
    ]
)
plain_commands = cluster_commands.filter(lambda command: str(command[0]).upper() not in UNORDERED)

pytestmark = pytest.mark.skipif("KACHE_ORACLE_PORT" in os.environ, reason="the other tests run against that port")


@pytest.fixture(scope="module", params=SHARDS, ids=lambda shards: f"{shards}-shards")
def on_cluster(request: pytest.FixtureRequest, valkey_port: int) -> Iterator[Oracle]:
    """A cluster of so many shards beside the real server."""
    # Under the default OBJECT FREQ has an answer.
    with Cluster(shards=request.param, maxmemory_policy="allkeys-lru") as started:
        port = int(started.port)

        def connect(protocol: int) -> Target:
            return Connection(port, protocol)

        oracle = Oracle(connect, valkey_port)
        yield oracle
        oracle.close()


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("name", ["blocking", "blocking_router"])
def test_commands_that_wait(on_cluster: Oracle, name: str, protocol: int) -> None:
    on_cluster.check(commands_of(PROBES / f"{name}.txt"), protocol)


@settings(max_examples=EXAMPLES, deadline=None)
@given(script=st.lists(cluster_commands, min_size=1, max_size=20), protocol=st.sampled_from([2, 3]))
def test_keys_on_different_shards(on_cluster: Oracle, script: list[Command], protocol: int) -> None:
    on_cluster.check(script, protocol)


tagged_commands = st.one_of(string_commands, bit_commands, key_commands, sort_commands, hash_commands, set_commands)


@settings(max_examples=EXAMPLES, deadline=None)
@given(script=st.lists(tagged_commands, min_size=1, max_size=25), protocol=st.sampled_from([2, 3]))
def test_keys_on_one_shard(on_cluster: Oracle, script: list[Command], protocol: int) -> None:
    on_cluster.check(script, protocol)


@settings(max_examples=max(EXAMPLES // 3, 20), deadline=None)
@given(
    blocks=st.lists(
        st.tuples(st.sampled_from(["EXEC", "EXEC", "DISCARD", ""]), st.lists(plain_commands, max_size=8)),
        min_size=1,
        max_size=4,
    ),
    protocol=st.sampled_from([2, 3]),
)
def test_random_transactions_over_shards(
    on_cluster: Oracle, blocks: list[tuple[str, list[Command]]], protocol: int
) -> None:
    """Commands alone and in MULTI, with replies whose order does not matter left out: they stand inside of EXEC's."""
    script: list[Command] = []
    for end, commands in blocks:
        script += [("MULTI",), *commands, (end,)] if end else commands
    on_cluster.check(script, protocol)


def test_what_cannot_span_shards(on_cluster: Oracle) -> None:
    check_conditions_over_shards(on_cluster)


def test_scan(on_cluster: Oracle) -> None:
    check_whole_scan(on_cluster)
