"""Sets against the real server."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from .harness import Oracle
from .strategies_common import Command, sequences
from .strategies_sets import set_commands, set_random_commands, whole_set_commands

protocols = st.sampled_from([2, 3])


@settings(max_examples=300, deadline=None)
@given(script=sequences(set_commands), protocol=protocols)
def test_sets(oracle: Oracle, script: list[Command], protocol: int) -> None:
    oracle.check(script, protocol)


@settings(max_examples=60, deadline=None)
@given(script=sequences(set_random_commands, longest=8), protocol=protocols)
def test_random_members(oracle: Oracle, script: list[Command], protocol: int) -> None:
    oracle.check(script, protocol)


@settings(max_examples=60, deadline=None)
@given(script=sequences(whole_set_commands, longest=8), protocol=protocols)
def test_popping_whole_sets(oracle: Oracle, script: list[Command], protocol: int) -> None:
    oracle.check(script, protocol)
