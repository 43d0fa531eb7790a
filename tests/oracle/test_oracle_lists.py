"""Lists against the real server."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from .harness import Oracle
from .strategies_common import Command, sequences
from .strategies_lists import list_commands


@settings(max_examples=400, deadline=None)
@given(script=sequences(list_commands), protocol=st.sampled_from([2, 3]))
def test_lists(oracle: Oracle, script: list[Command], protocol: int) -> None:
    oracle.check(script, protocol)
