"""Written scripts of edges that random ones hit rarely: numbers at their limits, orders of errors, odd options.

Every file of ``probes/`` is one script, one command a line; comparisons and the allow-list apply as everywhere.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from . import strategies_hashes, strategies_keys, strategies_sets, strategies_zsets  # noqa: F401  # how replies compare
from .harness import Command, Oracle

PROBES = Path(__file__).with_name("probes")
FILES = sorted(PROBES.glob("*.txt"))
# A shard alone does not have them.
ROUTER_ONLY = {"router", "blocking_router"}
if not os.environ.get("KACHE_ORACLE_PORT"):
    FILES = [path for path in FILES if path.stem not in ROUTER_ONLY]


def commands_of(path: Path) -> list[Command]:
    """The commands of a probe file; ``\\xNN`` stands for a byte."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return [
        tuple(word.encode().decode("unicode_escape").encode("latin-1") for word in shlex.split(line)) for line in lines
    ]


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_probes(oracle: Oracle, path: Path, protocol: int) -> None:
    oracle.check(commands_of(path), protocol)
