"""Hashes against the real server."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from .harness import Oracle
from .strategies_common import Command, sequences
from .strategies_hashes import hash_commands, hash_random_commands, hash_ttl_commands

protocols = st.sampled_from([2, 3])


@settings(max_examples=200, deadline=None)
@given(script=sequences(hash_commands), protocol=protocols)
def test_hashes(oracle: Oracle, script: list[Command], protocol: int) -> None:
    oracle.check(script, protocol)


@settings(max_examples=200, deadline=None)
@given(script=sequences(hash_ttl_commands), protocol=protocols)
def test_field_ttls(oracle: Oracle, script: list[Command], protocol: int) -> None:
    oracle.check(script, protocol)


@settings(max_examples=60, deadline=None)
@given(script=sequences(hash_random_commands, longest=8), protocol=protocols)
def test_random_fields(oracle: Oracle, script: list[Command], protocol: int) -> None:
    oracle.check(script, protocol)
