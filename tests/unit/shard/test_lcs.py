"""The longest common subsequence against the textbook's table."""

from __future__ import annotations

import random
import time

from kache.shard.commands.lcs import common_length, matches


def _textbook(left: bytes, right: bytes) -> bytes:
    """The subsequence that walking back through the full table finds, preferring to shorten `right`."""
    table = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, one in enumerate(left, 1):
        for j, other in enumerate(right, 1):
            table[i][j] = table[i - 1][j - 1] + 1 if one == other else max(table[i - 1][j], table[i][j - 1])
    found = bytearray()
    i, j = len(left), len(right)
    while i and j:
        if left[i - 1] == right[j - 1]:
            found.append(left[i - 1])
            i, j = i - 1, j - 1
        elif table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return bytes(reversed(found))


def test_random_strings() -> None:
    chance = random.Random(11)
    for _ in range(2000):
        left = bytes(chance.choice(b"abcd") for _ in range(chance.randint(0, 20)))
        right = bytes(chance.choice(b"abcd") for _ in range(chance.randint(0, 20)))
        runs = matches(left, right)
        text = b"".join(left[run.left_start : run.left_end + 1] for run in reversed(runs))
        assert text == _textbook(left, right), (left, right)
        assert common_length(left, right) == len(text) == sum(run.size for run in runs)
        for run in runs:
            assert left[run.left_start : run.left_end + 1] == right[run.right_start : run.right_end + 1]


def test_large_strings_do_not_stall() -> None:
    chance = random.Random(12)
    left, right = chance.randbytes(8_000), chance.randbytes(8_000)
    started = time.process_time()
    matches(left, right)
    assert time.process_time() - started < 2.0
