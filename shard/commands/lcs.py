"""The LCS command: the longest common subsequence of two strings.

Owns: the computation and its reply shapes. The table of the textbook algorithm is kept as one big integer per
row, where a zero bit marks a column in which the length grows: 64 cells per machine step, and a thirty-second
of the memory. Promises: the real server's choice among equally long subsequences, and its limit on the size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kache.errors import SYNTAX, CommandError
from kache.replies import Reply

from .arguments import integer
from .registry import command

if TYPE_CHECKING:
    from ..engine.engine import Context

__all__ = ["Match", "common_length", "matches"]

_MAX_TABLE = 512 * 1024 * 1024
"""Bytes the real server would give its table of 32-bit cells; beyond it refuses, and so do we, to bound the time."""
_MAX_BYTES = 1024 * 1024
"""Of both strings together: one very long string has few cells but as many rows, and each is a step in Python."""
_TOO_LARGE = "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len"


class Match(NamedTuple):
    """One common run: its first and last position in either string."""

    left_start: int
    left_end: int
    right_start: int
    right_end: int

    @property
    def size(self) -> int:
        """Bytes in the run."""
        return self.left_end - self.left_start + 1


def _rows(left: bytes, right: bytes) -> list[int]:
    """For every byte of `left`, the row of the table as a bit vector over `right`; a zero bit is an increase."""
    full = (1 << len(right)) - 1
    positions = [0] * 256
    for index, byte in enumerate(right):
        positions[byte] |= 1 << index
    row, rows = full, []
    for byte in left:
        hits = row & positions[byte]
        row = ((row + hits) | (row - hits)) & full
        rows.append(row)
    return rows


def common_length(left: bytes, right: bytes) -> int:
    """The length of the longest common subsequence. O(len(left) * len(right) / 64)."""
    rows = _rows(left, right)
    return len(right) - rows[-1].bit_count() if rows else 0


def matches(left: bytes, right: bytes) -> list[Match]:
    """The longest common subsequence as runs, the last one first."""
    rows = _rows(left, right)
    width = (len(right) + 7) // 8
    found: list[Match] = []
    run: Match | None = None
    i, j = len(left), len(right)
    line = rows[i - 1].to_bytes(width, "little") if rows else b""
    while i > 0 and j > 0:
        if left[i - 1] == right[j - 1]:
            i, j = i - 1, j - 1
            run = Match(i, i, j, j) if run is None else run._replace(left_start=i, right_start=j)
            line = rows[i - 1].to_bytes(width, "little") if i else b""
            continue
        if run is not None:
            found.append(run)
            run = None
        if line[(j - 1) >> 3] >> ((j - 1) & 7) & 1:
            j -= 1
        else:  # the length grows in this column: the row above is the longer way
            i -= 1
            line = rows[i - 1].to_bytes(width, "little") if i else b""
    if run is not None:
        found.append(run)
    return found


@command("lcs")
def lcs(ctx: Context, left_key: bytes, right_key: bytes, *args: bytes) -> Reply:
    length_only, with_indexes, with_lengths, smallest = False, False, False, 0
    for key in (left_key, right_key):
        if ctx.keys.type_of(key) not in (None, "string"):
            raise CommandError("ERR The specified keys must contain string values")
    position = 0
    while position < len(args):
        word = args[position].upper()
        position += 1
        if word == b"IDX":
            with_indexes = True
        elif word == b"LEN":
            length_only = True
        elif word == b"WITHMATCHLEN":
            with_lengths = True
        elif word == b"MINMATCHLEN" and position < len(args):
            smallest = max(integer(args[position]), 0)
            position += 1
        else:
            raise CommandError(SYNTAX)
    if length_only and with_indexes:
        raise CommandError("ERR If you want both the length and indexes, please just use IDX.")
    left, right = ctx.keys.string_get(left_key) or b"", ctx.keys.string_get(right_key) or b""
    if (len(left) + 1) * (len(right) + 1) * 4 > _MAX_TABLE or len(left) + len(right) > _MAX_BYTES:
        raise CommandError(_TOO_LARGE)
    if length_only:
        return common_length(left, right)
    runs = matches(left, right)
    if not with_indexes:
        return b"".join(left[run.left_start : run.left_end + 1] for run in reversed(runs))
    shown = [_shown(run, with_lengths) for run in runs if run.size >= smallest]
    return {b"matches": shown, b"len": sum(run.size for run in runs)}


def _shown(run: Match, with_length: bool) -> list[Reply]:
    """A run as LCS IDX answers it."""
    ranges: list[Reply] = [[run.left_start, run.left_end], [run.right_start, run.right_end]]
    return [*ranges, run.size] if with_length else ranges
