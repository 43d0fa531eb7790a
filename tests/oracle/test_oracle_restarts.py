"""A cluster with a log beside a real Valkey, its shards killed in the middle of every script: nothing may differ."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator, Sequence

import pytest
from cluster import Cluster, until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .harness import Command, Oracle, Target
from .strategies_hashes import hash_commands
from .strategies_keys import key_commands
from .strategies_lists import list_commands
from .strategies_sets import set_commands
from .strategies_strings import string_commands
from .strategies_zsets import zset_commands
from .wire import Arg, Connection, RawReply

EXAMPLES = int(os.environ.get("KACHE_ORACLE_RESTARTS", "15"))

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif("KACHE_ORACLE_PORT" in os.environ, reason="the other tests run against that port"),
]

every_type = st.one_of(string_commands, key_commands, list_commands, hash_commands, set_commands, zset_commands)


class Killed:
    """A target whose shards are killed behind the first half of each script, and come back with their data."""

    def __init__(self, cluster: Cluster, protocol: int) -> None:
        self.cluster = cluster
        self.connection = Connection(cluster.port, protocol)
        self.kills = 0

    def run(self, commands: Sequence[Sequence[Arg]]) -> list[RawReply]:
        """Reads of what is left are a script of their own: they come without a kill."""
        if len(commands) < 2 or commands[1] != ("FLUSHALL",):
            return self.connection.run(commands)
        half = 2 + (len(commands) - 2) // 2
        found = self.connection.run(commands[:half])
        for child in self.cluster.status()["children"]:
            if child["role"] == "shard":
                os.kill(child["pid"], signal.SIGKILL)
                self.kills += 1
        until(lambda: self.connection.run([("DBSIZE",)])[0].raw.startswith(b":"), "all shards are back")
        return found + self.connection.run(commands[half:])

    def close(self) -> None:
        """Lets go of the connection."""
        self.connection.close()


@pytest.fixture(scope="module")
def killed(valkey_port: int) -> Iterator[Oracle]:
    """Two shards with a log."""
    with (
        tempfile.TemporaryDirectory(prefix="kache-") as directory,
        Cluster(2, dir=directory, appendonly="yes", restart_backoff_ms=100) as cluster,
    ):
        targets: list[Killed] = []

        def connect(protocol: int) -> Target:
            targets.append(Killed(cluster, protocol))
            return targets[-1]

        oracle = Oracle(connect, valkey_port)
        yield oracle
        oracle.close()
        assert sum(target.kills for target in targets) >= 2


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(script=st.lists(every_type, min_size=6, max_size=40), protocol=st.sampled_from([2, 3]))
def test_with_restarts_in_between(killed: Oracle, script: list[Command], protocol: int) -> None:
    killed.check(script, protocol)
