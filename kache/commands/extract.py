"""Finding the keys of one command by its row.

Pure; the router calls it for what its compiled path does not know, and for COMMAND GETKEYS.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .row import KeySpec, Row

__all__ = ["count_is_usable", "key_positions", "keys_of", "keys_with_flags"]

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
    return all(_counted(spec, row.words, args) for spec in row.keys if spec.kind == "count")


def keys_with_flags(row: Row, args: Sequence[bytes]) -> list[tuple[bytes, tuple[str, ...]]]:
    """The keys of a command, each with the access flags of its spec."""
    return [(args[position], spec.flags) for position, spec in _located(row, args)]


def _located(row: Row, args: Sequence[bytes]) -> list[tuple[int, KeySpec]]:
    found: list[tuple[int, KeySpec]] = []
    stored = False
    for spec in row.keys:
        positions: Sequence[int]
        if spec.kind == "range":
            positions = _in_range(spec, row.words, len(args))
        elif spec.kind == "count":
            positions = _counted(spec, row.words, args)
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
