"""The parts of the compiled engine stand in the order in which they build on one another."""

from __future__ import annotations

import re

import pytest
from compiled_parts import Parts

ENGINE = Parts("shard/engine", "engine")
OTHERS = {"chunks", "pages", "ranks", "simulated_lfu", "simulated_lru", "simulated_s3fifo"}
"""Parts of the structures' own modules."""


def test_the_header_draws_them_in_their_order() -> None:
    header = ENGINE.text("engine.pyx").split('"""')[1]
    drawn = re.findall(r"^    ((?:\w+, )*\w+),?(?:  .*)?$", header, re.MULTILINE)
    assert [name for line in drawn for name in line.split(", ")] == ENGINE.names
    assert {path.stem for path in ENGINE.folder.glob("*.pxi")} == set(ENGINE.names) | OTHERS
    assert ENGINE.sections() == [part for part in ENGINE.names if part in ENGINE.sections()]


@pytest.mark.parametrize("part", ENGINE.names)
def test_nothing_below_is_used_but_what_is_declared(part: str) -> None:
    assert ENGINE.used_too_early(part) == {}


def test_the_rule_sees_something() -> None:
    assert {"Store", "Executor", "string_set", "DATABASES", "Place"} - ENGINE.declared <= {"Place"}
    assert {"tell", "key_delete"} <= ENGINE.defined("keys.pxi")


def test_blocks_are_freed_by_the_heap_they_come_from() -> None:
    """libc's free() does not take the engine's blocks: who allocates them takes `free` from `memory`."""
    for path in ENGINE.folder.glob("*.pyx"):
        text = path.read_text()
        if path.stem != "blocks" and re.search(r"kache_(malloc|calloc|realloc)|entry_new|block_new", text):
            assert not re.search(r"from libc\.stdlib cimport .*\bfree\b", text), path.name
