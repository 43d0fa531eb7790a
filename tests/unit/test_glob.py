"""Glob patterns: the real server's meaning, and time that no pattern can blow up."""

from __future__ import annotations

import random
import re
import time

import pytest

from kache import glob
from kache.glob import compile_glob

SLOWEST_S = 0.05


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        (b"*", b"", True),
        (b"**", b"", False),  # the real server enters its loop only with text left
        (b"", b"", True),
        (b"", b"a", False),
        (b"a*", b"a", True),
        (b"a**", b"a", True),
        (b"*a", b"a", True),
        (b"h?llo", b"hello", True),
        (b"h[ae]llo", b"hallo", True),
        (b"h[^e]llo", b"hello", False),
        (b"h[a-b]llo", b"hbllo", True),
        (b"h[b-a]llo", b"hallo", True),
        (b"[abc", b"c", True),
        (b"[", b"[", False),
        (b"[^", b"x", True),
        (b"[a-", b"-", True),
        (b"[\\]]", b"]", True),
        (b"[]a]", b"a]", False),
        (b"\\*", b"*", True),
        (b"\\*", b"a", False),
        (b"\\", b"\\", True),
        (b"[\x7f-\xff]", b"a", True),  # bytes are signed there: the range is -1 … 127
        (b"[\x80-\xff]", b"\x90", True),
        (b"?*?", b"ab", True),
        (b"?*?", b"a", False),
        (b"a*b*c", b"aXbYc", True),
        (b"a*b*c", b"aXcYb", False),
        (b"*ab*ab", b"ab", False),
        (b"a\n*", b"a\nb", True),
    ],
)
def test_meaning(pattern: bytes, text: bytes, expected: bool) -> None:
    assert compile_glob(pattern)(text) is expected


def _reference(pattern: bytes, text: bytes) -> bool:
    """Stars and question marks by way of a regular expression."""
    body = b"".join({0x2A: b".*", 0x3F: b"."}.get(byte, re.escape(bytes((byte,)))) for byte in pattern)
    return re.fullmatch(body, text, re.DOTALL) is not None


@pytest.mark.parametrize("longest_for_re", [0, 256])
def test_random_patterns_against_a_regular_expression(longest_for_re: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glob, "_LONGEST_FOR_RE", longest_for_re)
    compile_glob.cache_clear()
    chance = random.Random(7)
    for _ in range(5000):
        pattern = bytes(chance.choice(b"ab*?") for _ in range(chance.randint(0, 8)))
        text = bytes(chance.choice(b"ab") for _ in range(chance.randint(1, 10)))
        assert compile_glob(pattern)(text) == _reference(pattern, text), (pattern, text)
    compile_glob.cache_clear()


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (b"*a" * 10_000 + b"b", b"a" * 10_000),
        (b"*" + b"a" * 9_000 + b"b", b"a" * 10_000),
        (b"*" + b"a?" * 2_500 + b"b*", b"a" * 10_000),
        (b"*[ab]a" * 40 + b"*b", b"a" * 10_000),
    ],
)
def test_hostile_patterns_take_no_time(pattern: bytes, text: bytes) -> None:
    best = float("inf")
    for _ in range(3):
        compile_glob.cache_clear()
        started = time.process_time()
        assert compile_glob(pattern)(text) is False
        best = min(best, time.process_time() - started)
    assert best < SLOWEST_S
