"""A script, or its like, that has keys of other shards at hand: their values lie beside this shard's own while it runs.

What it does to them is no change here: what has become of each is sent back to its owner, under the same transaction.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from kache.errors import CommandError
from kache.replies import Reply
from kache.wire.codec import decode_reply

from ..engine.engine import Building, KeyElsewhere, Raw, RecordError, image_of

if TYPE_CHECKING:
    from ..engine.engine import Context, Program, Store

__all__ = ["Runs", "run_lent"]


class Runs(Protocol):
    """What is run: scripts, functions of libraries, commands of modules, by their names."""

    def program(
        self,
        ctx: Context,
        name: bytes,
        /,
        *,
        read_only: bool = ...,
        lent: set[bytes] | None = ...,
        publishes: bool = ...,
    ) -> Program:
        """What it will run as. CommandError when there is none, or it may not be run so."""

    def run_program(
        self, ctx: Context, program: Program, name: bytes, keys: tuple[bytes, ...], args: tuple[bytes, ...], /
    ) -> Reply:
        """Its reply. CommandError; KeyElsewhere, when nothing was done yet."""


def run_lent(
    runner: Runs,
    ctx: Context,
    sha: bytes,
    keys: tuple[bytes, ...],
    args: tuple[bytes, ...],
    images: dict[bytes, bytes],
    *,
    read_only: bool,
) -> Reply:
    """[again, keys], or [done or failed, reply or text, [[key, image or null], …] of what changed, what is published].

    `images` of the keys that are lent, empty for those that do not exist.
    """
    db = ctx.keys.db
    try:
        before = _place(ctx, images)
        try:
            return _run(runner, ctx, sha, keys, args, before, read_only)
        except KeyElsewhere as elsewhere:
            return [b"again", elsewhere.keys]
    finally:
        ctx.keys.db = db
        with _aside(ctx.keys.store):
            for key in images:
                ctx.keys.delete(key)


def _run(
    runner: Runs,
    ctx: Context,
    sha: bytes,
    keys: tuple[bytes, ...],
    args: tuple[bytes, ...],
    before: dict[bytes, bytes | None],
    read_only: bool,
) -> Reply:
    program = runner.program(ctx, sha, read_only=read_only, lent=set(before))
    program.retell = functools.partial(_retell, ctx)
    try:
        reply = runner.run_program(ctx, program, sha, keys, args)
        found: list[Any] = [b"done", decode_reply(reply.data)[0] if type(reply) is Raw else reply]
    except KeyElsewhere:
        raise
    except CommandError as error:
        found = [b"failed", error.message.encode("utf-8", "surrogateescape")]
    changed = []
    for key, image in before.items():
        after = image_of(ctx.keys, key)
        if (None if after is None else after[1]) != image:
            changed.append([key, None if after is None else after[1]])
    return [*found, changed, [list(message) for message in program.published]]


def _retell(ctx: Context, key: bytes, existed: bool) -> None:
    """A command with keys here and there has made this of one of ours, unheard: it is told as one change."""
    found = image_of(ctx.keys, key)
    if found is not None:
        building = Building(ctx.keys.store, key)
        building.add(found[1])
        building.put(ctx.keys)
    elif existed:
        # It has gone where nobody was told.
        with _aside(ctx.keys.store):
            ctx.keys.string_set(key, b"")
        ctx.keys.delete(key)


def _place(ctx: Context, images: dict[bytes, bytes]) -> dict[bytes, bytes | None]:
    """Puts the values beside the data; what each looks like then, None for those that do not exist."""
    before: dict[bytes, bytes | None] = {}
    with _aside(ctx.keys.store):
        for key, image in images.items():
            before[key] = None
            if image:
                building = Building(ctx.keys.store, key)
                try:
                    building.add(image)
                    building.put(ctx.keys)
                except RecordError:
                    raise CommandError("ERR a value between shards is damaged") from None
                found = image_of(ctx.keys, key)
                before[key] = None if found is None else found[1]
    return before


@contextmanager
def _aside(store: Store) -> Iterator[None]:
    store.set_aside(True)
    try:
        yield
    finally:
        store.set_aside(False)
