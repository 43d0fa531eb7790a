"""The bit commands against a real Valkey."""

from __future__ import annotations

import os

from hypothesis import given, settings
from hypothesis import strategies as st

from .harness import Command, Oracle
from .strategies_bits import bit_commands

EXAMPLES = int(os.environ.get("KACHE_ORACLE_EXAMPLES", "300"))


@settings(max_examples=EXAMPLES, deadline=None)
@given(script=st.lists(bit_commands, min_size=1, max_size=25), protocol=st.sampled_from([2, 3]))
def test_random_bit_commands(oracle: Oracle, script: list[Command], protocol: int) -> None:
    oracle.check(script, protocol)
