"""Handlers of the commands that answer differently in the binary protocol, kept as the original Kache had them.

Owns: DEL, EXPIRE, PERSIST, ZADD and ZREM of that dialect. With the options of their RESP namesakes they answer as
in RESP. ``OK`` is a NIL there, and null at the top has the status RES_NX.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kache.replies import OK, Missing, Reply

from .keys import expire_key
from .registry import command
from .zsets import zadd, zrem

if TYPE_CHECKING:
    from ..engine.engine import Context

__all__: list[str] = []


@command("binary|del")
def binary_del(ctx: Context, *keys: bytes) -> Reply:
    deleted = sum(ctx.keys.delete(key) for key in keys)
    return deleted or Missing(0)


@command("binary|expire")
def binary_expire(ctx: Context, key: bytes, milliseconds: bytes, *args: bytes) -> Reply:
    changed = expire_key(ctx.keys, key, milliseconds, args, name="expire", unit=1, base=ctx.keys.now_ms)
    if args:
        return changed
    return OK if changed else None


@command("binary|persist")
def binary_persist(ctx: Context, key: bytes) -> Reply:
    if not ctx.keys.exists(key):
        return None
    ctx.keys.deadline_clear(key)
    return OK


@command("binary|zadd")
def binary_zadd(ctx: Context, key: bytes, *args: bytes) -> Reply:
    reply = zadd(ctx, key, *args)
    return OK if len(args) == 2 else reply


@command("binary|zrem")
def binary_zrem(ctx: Context, key: bytes, *members: bytes) -> Reply:
    removed = zrem(ctx, key, *members)
    return removed if removed or len(members) > 1 else None
