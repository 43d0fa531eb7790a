"""HyperLogLogs against the real server, their stored bytes included."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from .harness import Oracle
from .strategies_common import Command, sequences
from .strategies_hyperloglog import hyperloglog_commands


@settings(max_examples=200, deadline=None)
@given(script=sequences(hyperloglog_commands, longest=12), protocol=st.sampled_from([2, 3]))
def test_hyperloglogs(oracle: Oracle, script: list[Command], protocol: int) -> None:
    oracle.check(script, protocol)
