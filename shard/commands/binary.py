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
    from ..engine.keyspace import Keyspace

__all__: list[str] = []


@command("binary|del")
def binary_del(ks: Keyspace, *keys: bytes) -> Reply:
    deleted = sum(ks.delete(key) for key in keys)
    return deleted or Missing(0)


@command("binary|expire")
def binary_expire(ks: Keyspace, key: bytes, milliseconds: bytes, *args: bytes) -> Reply:
    changed = expire_key(ks, key, milliseconds, args, name="expire", unit=1, base=ks.now_ms)
    if args:
        return changed
    return OK if changed else None


@command("binary|persist")
def binary_persist(ks: Keyspace, key: bytes) -> Reply:
    if not ks.exists(key):
        return None
    ks.deadline_clear(key)
    return OK


@command("binary|zadd")
def binary_zadd(ks: Keyspace, key: bytes, *args: bytes) -> Reply:
    reply = zadd(ks, key, *args)
    return OK if len(args) == 2 else reply


@command("binary|zrem")
def binary_zrem(ks: Keyspace, key: bytes, *members: bytes) -> Reply:
    removed = zrem(ks, key, *members)
    return removed if removed or len(members) > 1 else None
