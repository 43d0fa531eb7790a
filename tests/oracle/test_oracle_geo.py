"""Geo commands against the real server."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from .harness import Oracle
from .strategies_common import Command, sequences
from .strategies_geo import geo_commands


@settings(max_examples=300, deadline=None)
@given(script=sequences(geo_commands, longest=15), protocol=st.sampled_from([2, 3]))
def test_geo(oracle: Oracle, script: list[Command], protocol: int) -> None:
    oracle.check(script, protocol)
