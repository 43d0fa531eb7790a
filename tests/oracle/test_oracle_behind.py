"""A router in front of real clusters of valkey-servers and redis-servers beside one such server: the same bytes.

All keys have one hash tag; what differs in front of a cluster stands in
`docs/past-one-machine.md`, and is left out here by what the table of commands says of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from six_nodes import KINDS, PATIENT, binaries, six_nodes

from kache.commands import TABLE
from kache.commands.behind import told
from kache.testing.cluster import LocalCluster

from .harness import Command, Oracle, Target
from .servers import server
from .strategies_bits import bit_commands
from .strategies_geo import geo_commands
from .strategies_hashes import hash_commands
from .strategies_hyperloglog import hyperloglog_commands
from .strategies_lists import list_commands
from .strategies_sets import set_commands
from .strategies_strings import string_commands
from .strategies_zsets import zset_commands
from .wire import Connection

EXAMPLES = int(os.environ.get("KACHE_ORACLE_EXAMPLES", "100"))

DIFFERENT = {row.name for row in TABLE if told(row)[0] in ("refused", "differs")}

pytestmark = pytest.mark.skipif("KACHE_ORACLE_PORT" in os.environ, reason="the other tests run against that port")


@pytest.fixture(scope="module", params=KINDS)
def behind(request: pytest.FixtureRequest) -> Iterator[Oracle]:
    """Three masters behind a router, beside one server."""
    with (
        six_nodes(request.param, replicas=0) as nodes,
        server(binaries()[request.param]) as port,
        LocalCluster(shards=0, backend=nodes.url, **PATIENT) as front,
    ):
        oracle = Oracle(lambda protocol: _connected(front.port, protocol), port)
        yield oracle
        oracle.close()


def _connected(port: int, protocol: int) -> Target:
    return Connection(port, protocol)


def same_there(command: Command) -> bool:
    words = [str(word).lower() for word in command[:2]]
    return words[0] not in DIFFERENT and "|".join(words) not in DIFFERENT


commands = st.one_of(
    string_commands,
    bit_commands,
    hash_commands,
    list_commands,
    set_commands,
    zset_commands,
    geo_commands,
    hyperloglog_commands,
).filter(same_there)


@settings(max_examples=EXAMPLES, deadline=None)
@given(script=st.lists(commands, min_size=1, max_size=25), protocol=st.sampled_from([2, 3]))
def test_the_same_bytes(behind: Oracle, script: list[Command], protocol: int) -> None:
    behind.check(script, protocol)
