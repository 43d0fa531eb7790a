"""The parts of the compiled mux stand in the order in which they build on one another."""

from __future__ import annotations

import re

import pytest
from compiled_parts import Parts

MUX = Parts("router/mux", "multiplexer")


def test_the_header_draws_them_in_their_order() -> None:
    header = MUX.text("multiplexer.pyx").split('"""')[1]
    assert re.findall(r"^    (\w+)\.pxi ", header, re.MULTILINE) == MUX.names
    assert {path.stem for path in MUX.folder.glob("*.pxi")} == set(MUX.names)
    assert MUX.sections() == [part for part in MUX.names if part in MUX.sections()]


@pytest.mark.parametrize("part", MUX.names)
def test_nothing_below_is_used_but_what_is_declared(part: str) -> None:
    assert MUX.used_too_early(part) == {}


def test_the_rule_sees_something() -> None:
    assert {"Session", "Backend", "run_planned", "MAX_SHARDS", "UP"} <= MUX.declared
    assert {"GOODBYE", "Router"} <= MUX.defined("router.pxi")
    assert {"FIRST_IN_FLIGHT", "name_of_socket"} <= MUX.defined("session.pxi")
