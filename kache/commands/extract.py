"""Finding the keys of one command by its row.

Pure; the router calls it for what its compiled path does not know, and for COMMAND GETKEYS.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .row import KeySpec, Row

__all__ = [
    "block_position", "count_is_usable", "key_positions", "keys_of", "keys_with_flags", "located", "other_keys_of_sort",
]  # fmt: skip

_OPTION_LENGTH: Final = {b"LIMIT": 2, b"BY": 1, b"GET": 1, b"COUNT": 1}
"""Options that may stand before STORE and the words they take, so that a *value* "store" is not taken for it."""

_DESTINATIONS: Final = frozenset((b"STORE", b"STOREDIST"))


def key_positions(row: Row, args: Sequence[bytes]) -> list[int]:
    """Indexes into `args` (the arguments without command and subcommand) at which keys stand, in their order.

    Empty if there are none or if what says how many there are is not usable (``ZUNION x a``): such a command
    may go to any shard, whose handler words the error. Linear in the number of arguments.
    """
    return [position for position, _ in _located(row, args)]


def keys_of(row: Row, args: Sequence[bytes]) -> list[bytes]:
    """The keys of a command, in the order of its arguments; see `key_positions`."""
    return [args[position] for position in key_positions(row, args)]


def count_is_usable(row: Row, args: Sequence[bytes]) -> bool:
    """False if the command says how many keys it has, and the number is none or does not fit its arguments."""
    return all(
        _counted(spec, row.words, args) or _says_none(row, spec, args) for spec in row.keys if spec.kind == "count"
    )


def _says_none(row: Row, spec: KeySpec, args: Sequence[bytes]) -> bool:
    """It has no keys, which it may say."""
    place = spec.first - row.words
    return "no_mandatory_keys" in row.flags and place < len(args) and args[place] == b"0"


def keys_with_flags(row: Row, args: Sequence[bytes]) -> list[tuple[bytes, tuple[str, ...]]]:
    """The keys of a command, each with the access flags of its spec."""
    return [(args[position], spec.flags) for position, spec in _located(row, args)]


def located(row: Row, args: Sequence[bytes]) -> list[tuple[int, tuple[str, ...]]]:
    """`key_positions`, each with the access flags of its spec."""
    return [(position, spec.flags) for position, spec in _located(row, args)]


def other_keys_of_sort(args: Sequence[bytes]) -> str:
    """Which option of SORT reads keys that the command does not name, "BY" or "GET"; "" when none does."""
    place = 1
    while place + 1 < len(args):
        word = args[place].upper()
        if word == b"GET" or (word == b"BY" and b"*" in args[place + 1]):
            return word.decode()
        place += 1 + _SORT_OPTIONS.get(word, 0)
    return ""


_SORT_OPTIONS: Final = {b"LIMIT": 2, b"BY": 1, b"STORE": 1}


def _located(row: Row, args: Sequence[bytes]) -> list[tuple[int, KeySpec]]:
    found: list[tuple[int, KeySpec]] = []
    stored = False
    for spec in row.keys:
        positions: Sequence[int]
        if spec.kind == "range":
            positions = _in_range(spec, row.words, len(args))
        elif spec.kind == "count":
            positions = _counted(spec, row.words, args)
        elif spec.kind == "half":
            positions = _half_behind(spec, args)
        elif spec.keyword and not stored:
            # STORE and STOREDIST are two specs for one place: the last of them in the command wins.
            positions, stored = _destination(spec.first - row.words, args), True
        else:
            continue
        found += [(position, spec) for position in positions]
    found.sort(key=lambda entry: entry[0])
    return found


def _in_range(spec: KeySpec, words: int, count: int) -> range:
    last = count + spec.last if spec.last < 0 else min(spec.last - words, count - 1)
    return range(spec.first - words, last + 1, spec.step)


def _counted(spec: KeySpec, words: int, args: Sequence[bytes]) -> range:
    place = spec.first - words
    text = args[place] if place < len(args) else b""
    if not text.isdigit() or len(text) > 9:
        return range(0)
    first, number = place + 1, int(text)
    return range(first, first + number * spec.step, spec.step) if number * spec.step <= len(args) - first else range(0)


_READ_OPTIONS: Final = {b"BLOCK": 1, b"COUNT": 1, b"GROUP": 2, b"NOACK": 0}
"""What may stand before STREAMS, and the words it takes."""


def block_position(args: Sequence[bytes]) -> int:
    """Where in `args` XREAD and its like say how long they wait (BLOCK); -1 where they do not."""
    place = found = -1
    while place + 1 < len(args):
        word = args[place + 1].upper()
        length = _READ_OPTIONS.get(word)
        if length is None:
            break
        if word == b"BLOCK":
            found = place + 2
        place += 1 + length
    return found if found < len(args) else -1


def _half_behind(spec: KeySpec, args: Sequence[bytes]) -> range:
    place = 0
    while place < len(args) and args[place].upper() != spec.keyword.encode():
        length = _READ_OPTIONS.get(args[place].upper())
        if length is None:
            return range(0)
        place += 1 + length
    left = len(args) - place - 1
    return range(0) if left < 2 or left % 2 else range(place + 1, place + 1 + left // 2)


def _destination(start: int, args: Sequence[bytes]) -> list[int]:
    place, found = start, -1
    while place < len(args) - 1:
        word = args[place].upper()
        if word in _DESTINATIONS:
            found = place + 1
            place += 2
        else:
            place += 1 + _OPTION_LENGTH.get(word, 0)
    return [found] if found >= 0 else []
