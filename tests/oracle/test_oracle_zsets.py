"""Sorted sets against the real server."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from .harness import Oracle
from .strategies_common import Command, sequences
from .strategies_zsets import zset_algebra_commands, zset_commands, zset_random_commands

protocols = st.sampled_from([2, 3])


@settings(max_examples=500, deadline=None)
@given(script=sequences(zset_commands), protocol=protocols)
def test_zsets(oracle: Oracle, script: list[Command], protocol: int) -> None:
    oracle.check(script, protocol)


@settings(max_examples=300, deadline=None)
@given(script=sequences(zset_algebra_commands), protocol=protocols)
def test_zset_algebra(oracle: Oracle, script: list[Command], protocol: int) -> None:
    oracle.check(script, protocol)


@settings(max_examples=60, deadline=None)
@given(script=sequences(zset_random_commands, longest=8), protocol=protocols)
def test_random_members(oracle: Oracle, script: list[Command], protocol: int) -> None:
    oracle.check(script, protocol)
