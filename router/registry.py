"""Which Python function answers a local command, merges a split one, or moves data between shards.

Owns three tables, filled by decorators while the modules beside it are imported; `check` compares them with the
command table, so that a row without its function (or a function without its row) fails at start, not at a request.
Pure: nothing here runs a handler. The compiled router (`multiplexer.pyx`) reads the tables once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from kache.commands import Row
from kache.errors import KacheError

__all__ = [
    "BORROWERS",
    "LOCALS",
    "MERGES",
    "MOVES",
    "REPLY_OFF",
    "REPLY_ON",
    "REPLY_SKIP",
    "REPLY_SKIP_AGAIN",
    "UNBLOCKED",
    "NeedsMove",
    "Part",
    "RegistryError",
    "ShardLeaves",
    "check",
    "local",
    "merge",
    "move",
    "move_of",
]

Handler = Callable[..., Any]

REPLY_ON: Final = 0
REPLY_OFF: Final = 1
REPLY_SKIP: Final = 2
REPLY_SKIP_AGAIN: Final = 3
"""Values of `Session.reply_mode`: REPLY_SKIP silences the next command only; the last is for a SKIP that was itself
silenced, and becomes REPLY_SKIP behind it."""

MOVE_ROUTES: Final = frozenset({"move", "cursor", "weighted", "script"})
"""Routes that need a coroutine of their own, since one question to each shard does not answer them."""

LOCALS: dict[str, Handler] = {}
"""Row key → ``f(router, session, *args) -> Reply`` or a coroutine function of the same shape."""
MERGES: dict[str, Handler] = {}
"""Merge name → ``f(split, replies) -> Reply``; replies[i] answers split.parts[i] and none of them is an error."""
MOVES: dict[str, Handler] = {}
"""Row key → ``async f(router, session, *args) -> Reply``."""
BORROWERS: list[Callable[[Row], Handler]] = []
"""One function: what leads a command of a module whose keys may lie on several shards."""


UNBLOCKED: Final = "UNBLOCKED client unblocked via CLIENT UNBLOCK"


class RegistryError(KacheError):
    """The command table and the handlers do not match."""


class ShardLeaves(Exception):
    """The shard is being restarted: it has not executed what waited there, and another process takes its place."""


class NeedsMove(Exception):
    """Raised by the planner when a command's keys lie on different shards and its move must run."""


class Part(NamedTuple):
    """One shard's share of a command."""

    shard: int
    command: str
    """Row key of what the shard executes; may differ from the client's command."""
    args: Sequence[bytes]
    """Its arguments, without the command's words."""
    positions: tuple[int, ...] = ()
    """For the merge: which of the client's keys these are."""


def _adder(table: dict[str, Handler], key: str) -> Callable[[Handler], Handler]:
    def add(function: Handler) -> Handler:
        if table.setdefault(key, function) is not function:
            raise RegistryError(f"{key} has two handlers")
        return function

    return add


def local(key: str) -> Callable[[Handler], Handler]:
    """Answers the command `key` inside the router. A coroutine holds the session's further input until it is done."""
    return _adder(LOCALS, key)


def merge(name: str) -> Callable[[Handler], Handler]:
    """Makes one reply of all shards' replies."""
    return _adder(MERGES, name)


def move(key: str) -> Callable[[Handler], Handler]:
    """Carries out the command `key` in several steps; it holds the session's further input until it is done."""
    return _adder(MOVES, key)


def move_of(row: Row) -> Handler | None:
    """What carries out a command in several steps; None when nothing does."""
    if row.group == "module" and row.route == "move":
        return BORROWERS[0](row)
    return MOVES.get(row.key)


def check(table: Iterable[Row]) -> None:
    """Raises RegistryError unless rows and functions match one to one."""
    rows = [row for row in table if "internal" not in row.flags]
    wanted = {
        "local": ({row.key for row in rows if row.route == "local"}, LOCALS),
        "merge": ({row.merge for row in rows if row.route in ("split", "all") and row.merge != "first"}, MERGES),
        "move": ({row.key for row in rows if row.route in MOVE_ROUTES}, MOVES),
    }
    for kind, (names, functions) in wanted.items():
        if names != functions.keys():
            missing = ", ".join(sorted(names - functions.keys())) or "none"
            extra = ", ".join(sorted(functions.keys() - names)) or "none"
            raise RegistryError(f"{kind} handlers do not match the command table: missing {missing}; no row {extra}")
