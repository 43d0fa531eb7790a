"""Streams and consumer groups against a real Redis 7.0, whose semantics they have.

A later Valkey makes consumers that read nothing, and tells more of them (`XINFO`): scripts would part ways there.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ports import free_port

from .harness import Oracle
from .in_process import ShardTarget
from .servers import stop, wait_for
from .strategies_common import Command, sequences
from .strategies_streams import stream_commands

SERVER = shutil.which("redis-server")

pytestmark = pytest.mark.skipif(SERVER is None, reason="there is no redis-server here")


@pytest.fixture(scope="module")
def streams() -> Iterator[Oracle]:
    """A shard beside a real Redis without persistence."""
    port = free_port()
    assert SERVER is not None
    with tempfile.TemporaryDirectory() as directory:
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", directory]
        with subprocess.Popen([SERVER, *options], stdout=subprocess.DEVNULL) as process:
            try:
                wait_for(port, process)
                together = Oracle(ShardTarget, port)
                yield together
                together.close()
            finally:
                stop(process)


@settings(max_examples=600, deadline=None)
@given(script=sequences(stream_commands, longest=30), protocol=st.sampled_from([2, 3]))
def test_streams(streams: Oracle, script: list[Command], protocol: int) -> None:
    streams.check(script, protocol)


def test_lag_through_deletions(streams: Oracle) -> None:
    """The counters of groups ahead of, behind and between entries that are deleted."""
    script: list[Command] = [("XADD", "{t}s", number, "f", "v") for number in range(1, 8)]
    groups = [("a", "0"), ("b", "$"), ("c", "3"), ("d", "7"), ("e", "9")]
    script += [("XGROUP", "CREATE", "{t}s", name, number) for name, number in groups]
    looks: list[Command] = [("XINFO", "GROUPS", "{t}s"), ("XINFO", "STREAM", "{t}s")]
    reads: list[Command] = [
        ("XREADGROUP", "GROUP", name, "me", "COUNT", 1, "STREAMS", "{t}s", ">") for name, _ in groups
    ]
    for step in (
        ("XDEL", "{t}s", 4),
        ("XTRIM", "{t}s", "MINID", 3),
        ("XDEL", "{t}s", 7),
        ("XADD", "{t}s", 10, "f", "v"),
        ("XTRIM", "{t}s", "MAXLEN", 0),
        ("XADD", "{t}s", 11, "f", "v"),
        ("XSETID", "{t}s", 20, "ENTRIESADDED", 40, "MAXDELETEDID", 12),
    ):
        script += [*reads, *looks, step, *looks]
    for protocol in (2, 3):
        streams.check([*script, *reads, *looks], protocol)
