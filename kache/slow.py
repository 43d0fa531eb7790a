"""The slow log's entries between processes: what a shard reports of a command that took long, and how words are cut."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

__all__ = ["MAX_WORDS", "MAX_WORD_BYTES", "SlowReport", "cut"]

MAX_WORDS = 32
MAX_WORD_BYTES = 128
"""As in Redis: an entry keeps the beginning of a long command, so that a log of giants stays small."""


class SlowReport(msgspec.Struct, array_like=True):
    """A command that took long, as it travels from a shard to the router that sent it."""

    now_ms: int
    took_us: int
    words: list[bytes]


def cut(words: Sequence[bytes], count: int, sizes: Sequence[int] | None = None) -> list[bytes]:
    """The first words of a command of `count` words as an entry has them; `sizes` are theirs where they are cut already."""
    kept = []
    for word, size in zip(words[:MAX_WORDS], sizes or map(len, words), strict=False):
        more = size - MAX_WORD_BYTES
        kept.append(word if more <= 0 else word[:MAX_WORD_BYTES] + b"... (%d more bytes)" % more)
    if count > MAX_WORDS or count > len(kept):
        # Its place is that of the last word an entry has room for.
        del kept[MAX_WORDS - 1 :]
        kept.append(b"... (%d more arguments)" % (count - len(kept)))
    return kept
