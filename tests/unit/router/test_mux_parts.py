"""The parts of the compiled mux stand in the order in which they build on one another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent.parent.parent / "router" / "mux"
INCLUDE = re.compile(r'^include "(\w+)\.pxi"$', re.MULTILINE)
DEFINED = re.compile(
    r"^(?:@cython\.\w+\n)?cdef (?:class (\w+)|[\w*\[\] ]*?(\w+)(?: =|\())|^    ([A-Z][A-Z_]+) = ", re.MULTILINE
)
PARTS = INCLUDE.findall((FOLDER / "multiplexer.pyx").read_text())


def code(name: str) -> str:
    """The text of a source without comments and documentation."""
    text = re.sub(r'""".*?"""', "", (FOLDER / name).read_text(), flags=re.DOTALL)
    return re.sub(r"#.*", "", text)


def defined(name: str) -> set[str]:
    """What a source defines at its top: classes, functions, variables, numbers."""
    return {name for found in DEFINED.findall(code(name)) for name in found if name}


DECLARED = defined("multiplexer.pxd")


def test_the_header_draws_them_in_their_order() -> None:
    header = (FOLDER / "multiplexer.pyx").read_text().split('"""')[1]
    assert re.findall(r"^    (\w+)\.pxi ", header, re.MULTILINE) == PARTS
    assert {path.stem for path in FOLDER.glob("*.pxi")} == set(PARTS)
    declared = re.findall(r"^# (\w+)\.pxi -", (FOLDER / "multiplexer.pxd").read_text(), re.MULTILINE)
    assert declared == [part for part in PARTS if part in declared]


@pytest.mark.parametrize("part", PARTS)
def test_nothing_below_is_used_but_what_is_declared(part: str) -> None:
    words = set(re.findall(r"\w+", code(f"{part}.pxi")))
    for later in PARTS[PARTS.index(part) + 1 :]:
        hidden = defined(f"{later}.pxi") - DECLARED
        assert not words & hidden, f"{part} uses what only {later} defines"


def test_the_rule_sees_something() -> None:
    assert {"Session", "Backend", "run_planned", "MAX_SHARDS", "UP"} <= DECLARED
    assert {"GOODBYE", "Router"} <= defined("router.pxi")
    assert {"PROTOCOL_RESP", "name_of_socket"} <= defined("session.pxi")
