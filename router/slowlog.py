"""The slow log of one router: the commands of its clients that took longer than a limit.

One entry is one command of a client, as it was sent, whoever executed it: the router notes what it answers, leads or
divides over shards; a shard reports what it executed, with the time it took there, and how long its part of a divided
one took. The numbers of entries rise over all routers; SLOWLOG (commands/slowlog.py) puts the logs together.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from kache.commands.redact import redacted
from kache.slow import MAX_WORD_BYTES, MAX_WORDS, SlowReport, cut

__all__ = ["Entry", "SlowLog", "unframed", "unpacked"]

_SIZE = struct.Struct("=q")
_BINARY_SIZE = struct.Struct("<I")


class Entry(msgspec.Struct, array_like=True):
    """One command, in the order of SLOWLOG GET's fields."""

    number: int
    seconds: int
    took_us: int
    words: Sequence[bytes]
    address: bytes
    name: bytes
    shard: int = -1
    """That executed it; -1: the router answered, led or divided it."""


class SlowLog:
    """Newest first, at most `length`; `numbers` gives every entry its own."""

    def __init__(self, numbers: Iterable[int], length: int = 128) -> None:
        self._numbers = iter(numbers)
        self._entries: deque[Entry] = deque(maxlen=length)
        self._decoder = msgspec.msgpack.Decoder(SlowReport)

    def number_by(self, numbers: Iterable[int]) -> None:
        """Where numbers come from, from now on."""
        self._numbers = iter(numbers)

    def configure(self, length: int) -> None:
        """How many are kept; the newest stay."""
        if length != self._entries.maxlen:
            self._entries = deque(list(self._entries)[:length], maxlen=length)

    def note(
        self, now_ms: int, took_us: int, address: str, name: bytes, words: list[bytes], sizes: list[int], count: int
    ) -> None:
        """A command of this router: its first words, at least their beginning, their full sizes, how many it has in all."""
        self._add(now_ms, took_us, redacted(cut(words, count, sizes)), address, name)

    def report(self, packed: bytes, address: str, name: bytes, shard: int) -> None:
        """A command that this shard executed."""
        report = self._decoder.decode(packed)
        self._add(report.now_ms, report.took_us, report.words, address, name, shard)

    def _add(
        self, now_ms: int, took_us: int, words: Sequence[bytes], address: str, name: bytes, shard: int = -1
    ) -> None:
        if self._entries.maxlen:
            entry = Entry(next(self._numbers), now_ms // 1000, took_us, words, address.encode(), name, shard)
            self._entries.appendleft(entry)

    def newest(self, count: int) -> list[Entry]:
        """Up to `count` entries; all for a negative number."""
        entries = list(self._entries)
        return entries if count < 0 else entries[:count]

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Forgets everything but the numbering."""
        self._entries.clear()


def unpacked(start: bytes) -> tuple[list[bytes], list[int]]:
    """(words, their full sizes) of first words that were cut and put one behind the other, each behind its full size."""
    words, sizes, at = [], [], 0
    while at < len(start):
        size = _SIZE.unpack_from(start, at)[0]
        at += _SIZE.size
        kept = min(size, MAX_WORD_BYTES)
        words.append(start[at : at + kept])
        sizes.append(size)
        at += kept
    return words, sizes


def unframed(start: bytes, first: int, count: int, binary: bool) -> tuple[list[bytes], list[int]]:
    """(words, their full sizes) of a request from its first word, which is so long, up to where it was cut off."""
    words: list[bytes] = []
    sizes: list[int] = []
    at, size = 0, first
    while len(words) < min(count, MAX_WORDS) and at + min(size, MAX_WORD_BYTES) <= len(start):
        words.append(start[at : at + min(size, MAX_WORD_BYTES)])
        sizes.append(size)
        at += size
        if binary:
            if at + _BINARY_SIZE.size > len(start):
                break
            size = _BINARY_SIZE.unpack_from(start, at)[0]
            at += _BINARY_SIZE.size
        else:
            # Between two words stands "\r\n$<size>\r\n".
            end = start.find(b"\r\n", at + 3)
            if end < 0:
                break
            size = int(start[at + 3 : end])
            at = end + 2
    return words, sizes
