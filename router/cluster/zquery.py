"""ZQUERY in front of a Redis Cluster: a script on the node of the key, since no server there knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kache.errors import NOT_FLOAT, NOT_INTEGER, WRONG_TYPE, CommandError
from kache.replies import Pairs, Reply
from kache.slots import slot_of_key

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__ = ["zquery"]

_SCRIPT: Final = b"""
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
local low = redis.call('ZCOUNT', KEYS[1], '-inf', '(' .. ARGV[1])
local high = low + redis.call('ZCOUNT', KEYS[1], ARGV[1], ARGV[1])
while low < high do
    local middle = math.floor((low + high) / 2)
    if redis.call('ZRANGE', KEYS[1], middle, middle)[1] < ARGV[2] then low = middle + 1 else high = middle end
end
local start, limit = low + tonumber(ARGV[3]), tonumber(ARGV[4])
if limit <= 0 or start < 0 then return {} end
return redis.call('ZRANGE', KEYS[1], start, start + limit - 1, 'WITHSCORES')
"""


async def zquery(router: Router, session: Session, key: bytes, score: bytes, name: bytes, *numbers: bytes) -> Reply:
    """The pairs from the first not below (score, name) on, moved by an offset, up to a limit; nil without the key."""
    try:
        if float(score) != float(score):
            raise ValueError(score)
    except ValueError:
        raise CommandError(NOT_FLOAT) from None
    for number in numbers:
        if not number.removeprefix(b"-").isdigit() or len(number) > 18:
            raise CommandError(NOT_INTEGER)
    words = [b"EVAL", _SCRIPT, b"1", key, score, name, *numbers]
    try:
        found = await router.remote.ask_slot(session, slot_of_key(key), words)
    except CommandError as error:
        if error.code == "WRONGTYPE":
            raise CommandError(WRONG_TYPE) from None  # without the script that met it
        raise
    if found is None:
        return None
    return Pairs([(member, float(score)) for member, score in zip(found[::2], found[1::2], strict=True)])
