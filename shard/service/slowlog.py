"""The slow log of one shard: commands that took longer than a limit, newest first, at most a fixed number."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from kache.replies import Reply

__all__ = ["SlowLog"]

MAX_WORDS = 32
MAX_WORD_BYTES = 128
"""As in Redis: an entry keeps the beginning of a long command, so that a log of giants stays small."""


class SlowLog:
    """`limit_us` is the time in microseconds from which a command enters; -1 logs none, 0 all."""

    def __init__(self, limit_us: int = 10_000, length: int = 128) -> None:
        self.limit_us = limit_us
        self._entries: deque[list[Reply]] = deque(maxlen=length)
        self._next_id = 0

    def configure(self, limit_us: int, length: int) -> None:
        """New limits; the newest entries are kept."""
        self.limit_us = limit_us
        if length != self._entries.maxlen:
            self._entries = deque(list(self._entries)[:length], maxlen=length)

    def add(self, now_ms: int, took_us: int, session: int, words: Sequence[bytes]) -> None:
        """Enters a command, `words` with its name."""
        kept = [_shortened(word) for word in words[:MAX_WORDS]]
        if len(words) > MAX_WORDS:
            kept[-1] = b"... (%d more arguments)" % (len(words) - MAX_WORDS + 1)
        self._entries.appendleft([self._next_id, now_ms // 1000, took_us, kept, session])
        self._next_id += 1

    def newest(self, count: int) -> list[list[Reply]]:
        """Up to `count` entries (all for a negative number): [id, unix seconds, microseconds, words, session]."""
        entries = list(self._entries)
        return entries if count < 0 else entries[:count]

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Forgets everything but the numbering."""
        self._entries.clear()


def _shortened(word: bytes) -> bytes:
    if len(word) <= MAX_WORD_BYTES:
        return word
    return word[:MAX_WORD_BYTES] + b"... (%d more bytes)" % (len(word) - MAX_WORD_BYTES)
