"""The scripts and functions that run in the shards, as routers see them: a page, since a shard that runs one answers nothing.

For each shard a part of `_EACH` bytes, of 64-bit numbers in the machine's byte order and a text:

    since      ms (CLOCK_MONOTONIC) when what runs now was begun; 0: nothing runs, or not for long
    wrote      1: it has executed a command that writes, and cannot be ended
    kill       1: it is to end; written by routers, set back by the shard when it shows the next one
    function   1: it is a function, 0: a script
    libraries  how many libraries of functions the shard has, and
    functions  how many functions
    length     bytes of the text: msgpack of (name, the words of its command), those that find room
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import msgspec

from kache.cluster import pages

__all__ = ["Running", "create"]

_EACH: Final = 4096
_SINCE, _WROTE, _KILL, _FUNCTION, _LIBRARIES, _FUNCTIONS, _LENGTH, _NUMBERS = range(8)
_ROOM: Final = _EACH - 8 * _NUMBERS
_WORDS: Final = 64
_WORD: Final = _ROOM // 64 - 8
"""So many words of so many bytes find room whatever they are."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[bytes, list[bytes]])


def create(directory: str, shards: int) -> int:
    """A page that says that nothing runs. Raises OSError."""
    return pages.create(directory, _EACH * shards)


class Running:
    """The page, mapped by its descriptor, which it takes over; None: of a shard that is alone, in a test."""

    def __init__(self, fd: int | None = None, shards: int = 1) -> None:
        memory = bytearray(_EACH * shards) if fd is None else pages.mapped(fd)
        self._bytes = memoryview(memory)
        self._numbers = self._bytes.cast("Q")
        self.shards = len(memory) // _EACH

    # Of a shard ---------------------------------------------------------------------------------------
    def show(self, shard: int, function: tuple[bytes, Sequence[bytes]] | None = None, wrote: bool = False) -> None:
        """Something runs from now on: a function, by its name and the words of its command, or a script. It has written or
        not: whoever sees that it runs sees that, too."""
        at = _EACH // 8 * shard
        self._numbers[at + _KILL] = 0
        self._numbers[at + _WROTE] = wrote
        self._numbers[at + _FUNCTION] = function is not None
        if function is not None:
            name, words = function
            text = _encoder.encode((name, words))
            if len(text) > _ROOM:
                text = _encoder.encode((name[:_WORD], [word[:_WORD] for word in words[: _WORDS - 2]]))
            start = _EACH * shard + 8 * _NUMBERS
            self._bytes[start : start + len(text)] = text
            self._numbers[at + _LENGTH] = len(text)
        self._numbers[at + _SINCE] = _now_ms()

    def show_written(self, shard: int, wrote: bool = True) -> None:
        """It writes from here on, or does not after all. What a router has said before is looked at afterwards (`is_killed`)."""
        self._numbers[_EACH // 8 * shard + _WROTE] = wrote

    def clear(self, shard: int) -> None:
        """None runs any more."""
        self._numbers[_EACH // 8 * shard + _SINCE] = 0

    def is_killed(self, shard: int) -> bool:
        """Whether a router wants it to end."""
        return self._numbers[_EACH // 8 * shard + _KILL] != 0

    def count(self, shard: int, libraries: int, functions: int) -> None:
        """So many there are."""
        at = _EACH // 8 * shard
        self._numbers[at + _LIBRARIES], self._numbers[at + _FUNCTIONS] = libraries, functions

    # Of routers ---------------------------------------------------------------------------------------
    def runs_for(self, shard: int) -> int:
        """For how many ms a script or function has been running there; -1: none is."""
        since = self._numbers[_EACH // 8 * shard + _SINCE]
        return max(_now_ms() - since, 0) if since else -1

    def is_function(self, shard: int) -> bool:
        """Whether what runs is a function."""
        return self._numbers[_EACH // 8 * shard + _FUNCTION] != 0

    def has_written(self, shard: int) -> bool:
        """Whether it has written."""
        return self._numbers[_EACH // 8 * shard + _WROTE] != 0

    def kill(self, shard: int) -> bool:
        """Asks for its end. False: it has written, or is about to, and may go on."""
        self._numbers[_EACH // 8 * shard + _KILL] = 1
        return not self.has_written(shard)

    def counts(self, shard: int) -> tuple[int, int]:
        """(libraries, functions) that the shard has."""
        at = _EACH // 8 * shard
        return self._numbers[at + _LIBRARIES], self._numbers[at + _FUNCTIONS]

    def described(self, shard: int) -> tuple[bytes, list[bytes]] | None:
        """(name, the words of its command) of the function that runs; None where none does, or another one by now."""
        at = _EACH // 8 * shard
        since, start = self._numbers[at + _SINCE], _EACH * shard + 8 * _NUMBERS
        if not since or not self._numbers[at + _FUNCTION]:
            return None
        text = bytes(self._bytes[start : start + min(self._numbers[at + _LENGTH], _ROOM)])
        if self._numbers[at + _SINCE] != since:
            return None
        try:
            return _decoder.decode(text)
        except msgspec.MsgspecError:
            return None  # written anew meanwhile


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
