"""What a failed part of a split command makes of the whole."""

from __future__ import annotations

import pytest

from kache.errors import CommandError
from kache.router.scatter.outcome import failure_of

DOWN = CommandError("CLUSTERDOWN shard 1 is down")
LATE = CommandError("TIMEOUT too late")
LOST = CommandError("UNCERTAIN link lost")


@pytest.mark.parametrize(
    ("write", "replies", "code"),
    [
        (True, ["OK", "OK"], None),
        (False, [1, DOWN], "CLUSTERDOWN"),
        (False, [LATE, 1], "TIMEOUT"),
        (True, [DOWN, DOWN], "CLUSTERDOWN"),
        (True, ["OK", DOWN], "UNCERTAIN"),
        (True, [LATE, DOWN], "UNCERTAIN"),
        (True, [LOST, LOST], "UNCERTAIN"),
        (True, [CommandError("OOM command not allowed"), "OK"], "UNCERTAIN"),
    ],
)
def test_failure_of(write: bool, replies: list[object], code: str | None) -> None:
    failure = failure_of(write, [0, 1], replies)
    assert (failure and failure.code) == code


def test_it_names_what_was_done() -> None:
    failure = failure_of(True, [0, 2, 3], ["OK", DOWN, "OK"])
    assert failure is not None
    assert "done on shards 0, 3" in failure.message
    assert "shard 2: CLUSTERDOWN" in failure.message
