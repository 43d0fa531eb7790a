"""Which shards a command goes to when the compiled fast path cannot tell: a pure function over its keys."""

from __future__ import annotations

import hashlib
import itertools
from typing import TYPE_CHECKING

from kache.commands import Row
from kache.commands.extract import key_positions
from kache.errors import CommandError
from kache.slots import slot_of_key

from ..registry import NeedsMove, Part

if TYPE_CHECKING:
    from ..mux.multiplexer import Router

__all__ = ["CROSS_SLOT", "home_of_script", "keys", "split"]

CROSS_SLOT = "CROSSSLOT Keys in request don't hash to the same slot"


def keys(row: Row, args: tuple[bytes, ...]) -> list[int]:
    """Where in `args` (the arguments without the command's words) the keys are."""
    return key_positions(row, args)


def split(row: Row, args: tuple[bytes, ...], router: Router) -> list[Part]:
    """The parts of a command, one per shard that it concerns.

    Raises CROSSSLOT for a command that must find all its keys on one shard and does not, and `NeedsMove`
    for one that then needs several steps.
    """
    if row.route == "all":
        return [Part(shard, row.key, args) for shard in range(router.shard_count)]
    positions = key_positions(row, args)
    if row.name in ("sort", "sort_ro") and router.shard_count > 1:
        _check_patterns(args, router)
    if row.route in ("split", "move") and row.keys[0].kind == "range" and len(args) % row.keys[0].step:
        # MSET with a key that has no value: no part of it may be executed, so one shard refuses the whole.
        return [Part(0, row.key, args)]
    owners = [router.shard_of(args[position]) for position in positions]
    if row.route == "script" and not owners:
        return [Part(home_of_script(row, args, router), row.key, args)]
    if len(set(owners)) <= 1:
        # Without keys the arguments are wrong in some way: any shard words the error.
        return [Part(owners[0] if owners else 0, row.key, args, tuple(range(len(positions))))]
    if row.route in ("move", "script"):
        raise NeedsMove
    if row.route != "split":
        raise CommandError(CROSS_SLOT)
    step = row.keys[0].step
    parts: dict[int, tuple[list[bytes], list[int]]] = {}
    for number, (position, owner) in enumerate(zip(positions, owners, strict=True)):
        words, numbers = parts.setdefault(owner, ([], []))
        words += args[position : position + step]
        numbers.append(number)
    return [Part(owner, row.key, words, tuple(numbers)) for owner, (words, numbers) in parts.items()]


def home_of_script(row: Row, args: tuple[bytes, ...], router: Router) -> int:
    """Where a script without keys runs: always on the same shard, which then knows it."""
    name = args[0].lower()
    if row.name.startswith("eval") and not row.name.startswith("evalsha"):
        name = hashlib.sha1(args[0], usedforsecurity=False).hexdigest().encode()
    return router.shard_of_slot(slot_of_key(name))


def _check_patterns(args: tuple[bytes, ...], router: Router) -> None:
    """SORT's BY and GET patterns name keys that only exist while it runs: they must be on the sorted key's shard."""
    home = router.shard_of(args[0])
    for word, pattern in itertools.pairwise(args):
        if word.upper() in (b"BY", b"GET") and b"*" in pattern:
            tag = pattern.partition(b"{")[2].partition(b"}")
            if not (tag[0] and tag[1]) or b"*" in tag[0] or router.shard_of(pattern) != home:
                raise CommandError(CROSS_SLOT)
