"""How two raw replies are compared, and the written list of differences that are allowed.

By default replies must be equal byte for byte. A command whose answer Redis leaves open (an order, a random
choice, a clock) names another comparison in `COMPARISONS`; a difference that is meant has a line with its
reason in ``allowed_differences.txt``. Nothing else passes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from .wire import Arg, RawReply, to_bytes

Comparison = Callable[[Sequence[bytes], RawReply, RawReply], bool]
"""(argv, Kache's reply, Valkey's reply) -> whether they agree."""

COMPARISONS: dict[bytes, Comparison] = {}
"""Lower-case command name -> comparison; strategies of each type add their own with `compare_as`."""


def compare_as(comparison: Comparison, *names: str) -> None:
    """Use `comparison` for these commands ("config|get" names are not needed: the first word decides)."""
    for name in names:
        COMPARISONS[name.encode()] = comparison


def exact(argv: Sequence[bytes], ours: RawReply, theirs: RawReply) -> bool:
    """Equal bytes."""
    return ours.raw == theirs.raw


def unordered(argv: Sequence[bytes], ours: RawReply, theirs: RawReply) -> bool:
    """Equal aggregates in any order of their elements (KEYS, SMEMBERS, HKEYS …)."""
    if ours.raw == theirs.raw:
        return True
    if ours.kind != theirs.kind or len(ours.items) != len(theirs.items):
        return False
    return sorted(item.raw for item in ours.items) == sorted(item.raw for item in theirs.items)


def pairs(argv: Sequence[bytes], ours: RawReply, theirs: RawReply) -> bool:
    """Equal maps, or flat arrays of (name, value), in any order of their pairs (HGETALL …)."""
    if ours.kind != theirs.kind or len(ours.items) != len(theirs.items):
        return ours.raw == theirs.raw

    def sorted_pairs(reply: RawReply) -> list[tuple[bytes, bytes]]:
        raws = [item.raw for item in reply.items]
        return sorted(zip(raws[::2], raws[1::2], strict=False))

    return sorted_pairs(ours) == sorted_pairs(theirs)


def same_shape(argv: Sequence[bytes], ours: RawReply, theirs: RawReply) -> bool:
    """Equal kinds and lengths all the way down, whatever the texts (SPOP's, RANDOMKEY's choice); equal errors."""
    if theirs.is_error or ours.is_error:
        return ours.raw == theirs.raw
    if (ours.kind, ours.is_null, len(ours.items)) != (theirs.kind, theirs.is_null, len(theirs.items)):
        return False
    return all(same_shape(argv, mine, other) for mine, other in zip(ours.items, theirs.items, strict=True))


def within(tolerance: int) -> Comparison:
    """Equal, or integers (or arrays of integers) that differ by at most `tolerance`; negative ones must be equal.

    For remaining times: the two servers execute a command some milliseconds apart.
    """

    def compare(argv: Sequence[bytes], ours: RawReply, theirs: RawReply) -> bool:
        if ours.raw == theirs.raw:
            return True
        if ours.kind == theirs.kind == b":":
            mine, other = int(ours.text), int(theirs.text)
            return mine >= 0 and other >= 0 and abs(mine - other) <= tolerance
        if ours.kind == theirs.kind == b"*" and len(ours.items) == len(theirs.items):
            return all(compare(argv, mine, other) for mine, other in zip(ours.items, theirs.items, strict=True))
        return False

    return compare


@dataclass(frozen=True, slots=True)
class Allowed:
    """One line of the allow-list: which command, which pair of replies, and why."""

    command: re.Pattern[bytes]
    ours: re.Pattern[bytes]
    theirs: re.Pattern[bytes]
    reason: str


@lru_cache(maxsize=1)
def allowed_differences() -> tuple[Allowed, ...]:
    """The allow-list; ValueError for a line without a reason."""
    lines = []
    for line in Path(__file__).with_name("allowed_differences.txt").read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        parts = [part.strip() for part in line.split(" | ")]
        if len(parts) != 4 or not parts[3]:
            raise ValueError(f"an allowed difference needs command | ours | theirs | reason: {line!r}")
        command, ours, theirs = (re.compile(part.encode(), re.DOTALL | re.IGNORECASE) for part in parts[:3])
        lines.append(Allowed(command, ours, theirs, parts[3]))
    return tuple(lines)


def agree(argv: Sequence[Arg], ours: RawReply, theirs: RawReply) -> bool:
    """Whether two replies to one command agree: by its comparison, or by a line of the allow-list."""
    words = [to_bytes(arg) for arg in argv]
    if ours.raw == theirs.raw:
        return True
    if COMPARISONS.get(words[0].lower(), exact)(words, ours, theirs):
        return True
    sent = b" ".join(words)
    return any(
        line.command.fullmatch(sent)
        and line.ours.fullmatch(ours.raw.strip())
        and line.theirs.fullmatch(theirs.raw.strip())
        for line in allowed_differences()
    )


# What `harness.state_commands` reads after every script, and other commands without an order or with a clock.
compare_as(within(5000), "pttl", "pexpiretime")
compare_as(within(5), "ttl", "expiretime")
compare_as(unordered, "keys", "smembers")
compare_as(pairs, "hgetall")
