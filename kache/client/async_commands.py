"""The commands as typed methods, for the asyncio client: `kache.client.commands` with ``await``, method by method.

The two lists are kept equal by a test (tests/unit/client/test_client_commands.py), which compares names, parameters, results
and documentation; what they share (arguments, shapes of replies) is imported.
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Generic, Literal, overload

from kache.client import codec as shape
from kache.client.arguments import (
    Time,
    hash_arguments,
    in_milliseconds,
    score_arguments,
    set_arguments,
    several,
    some,
    waited,
)
from kache.client.codec import Argument, Reply, flatten
from kache.client.commands import Key, S, Side, T

__all__ = ["AsyncCommands"]


class AsyncCommands(Generic[S]):
    """One method per command. ``S`` is `bytes`, or `str` in a client with ``decode=True``."""

    async def _run(self, arguments: Sequence[Argument], convert: Callable[[Reply], T]) -> T:
        raise NotImplementedError

    async def _wait(self, arguments: Sequence[Argument], convert: Callable[[Reply], T], seconds: float) -> T:
        """`_run` of a command that may take so much longer; 0: any time."""
        raise NotImplementedError

    async def _value(self, *arguments: Argument) -> S | None:
        value: S | None = await self._run(arguments, shape.as_is)
        return value

    async def _text(self, *arguments: Argument) -> S:
        text: S = await self._run(arguments, shape.as_is)
        return text

    # Server ------------------------------------------------------------------------------------------------------

    async def ping(self) -> bool:
        """True when the server answers."""
        return await self._run(("ping",), shape.as_bool)

    async def echo(self, message: Argument) -> S:
        """The message, sent back."""
        return await self._text("echo", message)

    async def dbsize(self) -> int:
        """How many keys the database holds."""
        return await self._run(("dbsize",), shape.as_count)

    async def flushall(self) -> bool:
        """Deletes every key of every database."""
        return await self._run(("flushall",), shape.as_bool)

    async def flushdb(self) -> bool:
        """Deletes every key of this database."""
        return await self._run(("flushdb",), shape.as_bool)

    async def stats(self) -> list[dict[str, Any]]:
        """The statistics of every shard, in their order: ``shard``, ``state``, ``keys``, ``used_memory``, ``hits``, …"""
        return await self._run(("stats",), shape.as_stats)

    async def info(self, *sections: str) -> dict[str, str]:
        """INFO as a dict of field and text, all sections in one."""
        return await self._run(("info", *sections), shape.as_fields)

    # Keys --------------------------------------------------------------------------------------------------------

    async def delete(self, *keys: Key) -> int:
        """Deletes; returns how many existed."""
        return await self._run(("del", *some("delete", "key", keys)), shape.as_count)

    async def unlink(self, *keys: Key) -> int:
        """Deletes, freeing memory in the background; returns how many existed."""
        return await self._run(("unlink", *some("unlink", "key", keys)), shape.as_count)

    async def exists(self, *keys: Key) -> int:
        """How many of the keys exist; one named twice counts twice."""
        return await self._run(("exists", *some("exists", "key", keys)), shape.as_count)

    async def touch(self, *keys: Key) -> int:
        """Marks as used; returns how many exist."""
        return await self._run(("touch", *some("touch", "key", keys)), shape.as_count)

    async def expire(self, key: Key, seconds: Time) -> bool:
        """Lets the key live this much longer (0 or less deletes it); False when there is no such key."""
        return await self._run(("expire", key, in_milliseconds(seconds, 1000)), shape.as_bool)

    async def pexpire(self, key: Key, milliseconds: int | timedelta) -> bool:
        """`expire` in milliseconds."""
        return await self._run(("expire", key, in_milliseconds(milliseconds, 1)), shape.as_bool)

    async def persist(self, key: Key) -> bool:
        """Takes the TTL away, if there is one; False when there is no such key."""
        return await self._run(("persist", key), shape.as_bool)

    async def ttl(self, key: Key) -> int:
        """Seconds left to live; -1 without a TTL, -2 when there is no such key."""
        return await self._run(("ttl", key), shape.as_count)

    async def pttl(self, key: Key) -> int:
        """Milliseconds left to live; -1 without a TTL, -2 when there is no such key."""
        return await self._run(("pttl", key), shape.as_count)

    async def type(self, key: Key) -> str:
        """``string``, ``list``, ``hash``, ``set``, ``zset``, or ``none``."""
        return await self._run(("type", key), shape.as_text)

    async def rename(self, source: Key, destination: Key) -> bool:
        """Renames, replacing the destination; a missing source raises `CommandError`."""
        return await self._run(("rename", source, destination), shape.as_bool)

    async def keys(self, pattern: Key = "*") -> list[S]:
        """All keys that match the glob, at once; prefer `scan_iter` where there may be many."""
        return await self._run(("keys", pattern), shape.as_list)

    async def scan(
        self, cursor: int = 0, match: Key | None = None, count: int | None = None, type: str | None = None
    ) -> tuple[int, list[S]]:
        """A part of the keys and the cursor to go on with, 0 at the end."""
        options = {"match": match, "count": count, "type": type}
        words: list[Argument] = flatten({word: value for word, value in options.items() if value is not None})
        return await self._run(("scan", cursor, *words), shape.as_scan)

    async def scan_iter(
        self, match: Key | None = None, count: int | None = None, type: str | None = None
    ) -> AsyncIterator[S]:
        """All keys, a part at a time; a key that comes and goes meanwhile may be missing or be seen twice."""
        cursor = 0
        while True:
            cursor, keys = await self.scan(cursor, match, count, type)
            for key in keys:
                yield key
            if cursor == 0:
                return

    # Strings -----------------------------------------------------------------------------------------------------

    async def set(
        self,
        key: Key,
        value: Argument,
        *,
        ex: Time | None = None,
        px: int | timedelta | None = None,
        nx: bool = False,
        xx: bool = False,
        keep_ttl: bool = False,
    ) -> bool:
        """Stores a value, with a TTL of ``ex`` seconds or ``px`` milliseconds; ``nx``/``xx``: only a new/existing key.

        A TTL may be a timedelta.

        Returns False when ``nx`` or ``xx`` prevented it.
        """
        return await self._run(set_arguments(key, value, ex, px, nx, xx, keep_ttl), shape.as_bool)

    async def setex(self, key: Key, seconds: Time, value: Argument) -> bool:
        """Stores a value that lives this long."""
        return await self._run(("psetex", key, in_milliseconds(seconds, 1000), value), shape.as_bool)

    async def get(self, key: Key) -> S | None:
        """The value, or None."""
        return await self._value("get", key)

    async def getdel(self, key: Key) -> S | None:
        """The value, or None; the key is deleted."""
        return await self._value("getdel", key)

    async def mget(self, *keys: Key | Iterable[Key]) -> list[S | None]:
        """The values in the order of the keys (several, or one list), None for each that does not exist or is no string."""
        return await self._run(("mget", *several("mget", "key", keys)), shape.as_list)

    async def mset(self, values: Mapping[Any, Argument]) -> bool:
        """Stores several; each alone is atomic, together only on one shard."""
        return await self._run(("mset", *flatten(some("mset", "key", values))), shape.as_bool)

    async def append(self, key: Key, value: Argument) -> int:
        """Appends; returns the new length in bytes."""
        return await self._run(("append", key, value), shape.as_count)

    async def strlen(self, key: Key) -> int:
        """Length in bytes, 0 when there is no such key."""
        return await self._run(("strlen", key), shape.as_count)

    async def getrange(self, key: Key, start: int, stop: int) -> S:
        """The bytes from start to stop, both included, negative from the end."""
        return await self._text("getrange", key, start, stop)

    async def incr(self, key: Key, amount: int = 1) -> int:
        """Adds 1, or the amount; returns the new number."""
        return await self._run(("incr", key) if amount == 1 else ("incrby", key, amount), shape.as_count)

    async def decr(self, key: Key, amount: int = 1) -> int:
        """Subtracts 1, or the amount; returns the new number."""
        return await self._run(("decr", key) if amount == 1 else ("decrby", key, amount), shape.as_count)

    async def incrby(self, key: Key, amount: int) -> int:
        """Adds; returns the new number."""
        return await self._run(("incrby", key, amount), shape.as_count)

    async def decrby(self, key: Key, amount: int) -> int:
        """Subtracts; returns the new number."""
        return await self._run(("decrby", key, amount), shape.as_count)

    async def incrbyfloat(self, key: Key, amount: float) -> float:
        """Adds; returns the new number."""
        return await self._run(("incrbyfloat", key, float(amount)), float)

    # Hashes ------------------------------------------------------------------------------------------------------

    @overload
    async def hset(self, key: Key, fields: Mapping[Any, Argument]) -> int: ...
    @overload
    async def hset(self, key: Key, *, mapping: Mapping[Any, Argument]) -> int: ...
    @overload
    async def hset(
        self, key: Key, fields: Key, value: Argument, *, mapping: Mapping[Any, Argument] | None = None
    ) -> int: ...
    async def hset(
        self,
        key: Key,
        fields: Mapping[Any, Argument] | Key | None = None,
        value: Argument | None = None,
        *,
        mapping: Mapping[Any, Argument] | None = None,
    ) -> int:
        """Stores fields, a mapping or one and its value; returns how many are new."""
        return await self._run(hash_arguments(key, fields, value, mapping), shape.as_count)

    async def hget(self, key: Key, field: Key) -> S | None:
        """A field's value, or None."""
        return await self._value("hget", key, field)

    async def hmget(self, key: Key, *fields: Key | Iterable[Key]) -> list[S | None]:
        """Values in the order of the fields (several, or one list), None where there is none."""
        return await self._run(("hmget", key, *several("hmget", "field", fields)), shape.as_list)

    async def hgetall(self, key: Key) -> dict[S, S]:
        """All fields and values, empty when there is no such key."""
        return await self._run(("hgetall", key), shape.as_dict)

    async def hdel(self, key: Key, *fields: Key) -> int:
        """Deletes fields; returns how many existed."""
        return await self._run(("hdel", key, *some("hdel", "field", fields)), shape.as_count)

    async def hexists(self, key: Key, field: Key) -> bool:
        """Whether the field exists."""
        return await self._run(("hexists", key, field), shape.as_bool)

    async def hlen(self, key: Key) -> int:
        """How many fields the hash has."""
        return await self._run(("hlen", key), shape.as_count)

    async def hkeys(self, key: Key) -> list[S]:
        """All fields."""
        return await self._run(("hkeys", key), shape.as_list)

    async def hvals(self, key: Key) -> list[S]:
        """All values."""
        return await self._run(("hvals", key), shape.as_list)

    async def hincrby(self, key: Key, field: Key, amount: int = 1) -> int:
        """Adds to a field; returns the new number."""
        return await self._run(("hincrby", key, field, amount), shape.as_count)

    # Lists -------------------------------------------------------------------------------------------------------

    async def lpush(self, key: Key, *values: Argument) -> int:
        """Puts values at the front, one after the other; returns the new length."""
        return await self._run(("lpush", key, *some("lpush", "value", values)), shape.as_count)

    async def rpush(self, key: Key, *values: Argument) -> int:
        """Puts values at the end; returns the new length."""
        return await self._run(("rpush", key, *some("rpush", "value", values)), shape.as_count)

    async def lpop(self, key: Key) -> S | None:
        """Takes the first element, or None."""
        return await self._value("lpop", key)

    async def rpop(self, key: Key) -> S | None:
        """Takes the last element, or None."""
        return await self._value("rpop", key)

    async def llen(self, key: Key) -> int:
        """Length of the list."""
        return await self._run(("llen", key), shape.as_count)

    async def lrange(self, key: Key, start: int = 0, stop: int = -1) -> list[S]:
        """Elements from start to stop, both included, negative from the end."""
        return await self._run(("lrange", key, start, stop), shape.as_list)

    async def lindex(self, key: Key, index: int) -> S | None:
        """The element at the index, negative from the end, or None."""
        return await self._value("lindex", key, index)

    async def lrem(self, key: Key, count: int, value: Argument) -> int:
        """Removes occurrences (``count`` > 0 from the front, < 0 from the end, 0 all); returns how many."""
        return await self._run(("lrem", key, count, value), shape.as_count)

    async def ltrim(self, key: Key, start: int, stop: int) -> bool:
        """Keeps only the elements from start to stop."""
        return await self._run(("ltrim", key, start, stop), shape.as_bool)

    # Sets --------------------------------------------------------------------------------------------------------

    async def sadd(self, key: Key, *members: Argument) -> int:
        """Adds members; returns how many are new."""
        return await self._run(("sadd", key, *some("sadd", "member", members)), shape.as_count)

    async def srem(self, key: Key, *members: Argument) -> int:
        """Removes members; returns how many were there."""
        return await self._run(("srem", key, *some("srem", "member", members)), shape.as_count)

    async def smembers(self, key: Key) -> builtins.set[S]:
        """All members."""
        return await self._run(("smembers", key), shape.as_set)

    async def sismember(self, key: Key, member: Argument) -> bool:
        """Whether it is a member."""
        return await self._run(("sismember", key, member), shape.as_bool)

    async def scard(self, key: Key) -> int:
        """How many members the set has."""
        return await self._run(("scard", key), shape.as_count)

    # Sorted sets -------------------------------------------------------------------------------------------------

    @overload
    async def zadd(self, key: Key, score: float, name: Argument) -> bool: ...
    @overload
    async def zadd(self, key: Key, score: Mapping[Any, float]) -> int: ...
    async def zadd(self, key: Key, score: float | Mapping[Any, float], name: Argument | None = None) -> bool | int:
        """Gives one member its score; or, as `zadd_many`, several theirs, and says how many are new."""
        if isinstance(score, Mapping):
            if name is not None:
                raise TypeError("zadd takes a score and a member, or a mapping of members to scores, not both")
            return await self._run(score_arguments(key, score, {}), shape.as_count)
        if name is None:
            raise TypeError("zadd takes a score and a member, or a mapping of members to scores")
        return await self._run(("zadd", key, float(score), name), shape.as_bool)

    async def zadd_many(
        self,
        key: Key,
        scores: Mapping[Any, float],
        *,
        nx: bool = False,
        xx: bool = False,
        gt: bool = False,
        lt: bool = False,
        ch: bool = False,
    ) -> int:
        """Gives members their scores, with ZADD's options; returns how many are new (``ch``: new or changed)."""
        options = {"nx": nx, "xx": xx, "gt": gt, "lt": lt, "ch": ch}
        return await self._run(score_arguments(key, scores, options), shape.as_count)

    async def zscore(self, key: Key, name: Argument) -> float | None:
        """A member's score, or None."""
        return await self._run(("zscore", key, name), shape.as_score)

    async def zrem(self, key: Key, *names: Argument) -> int:
        """Removes members; returns how many were there."""
        return await self._run(("zrem", key, *some("zrem", "member", names)), shape.as_count)

    async def zquery(
        self, key: Key, score: float = float("-inf"), name: Argument = b"", offset: int = 0, limit: int = 10
    ) -> list[tuple[S, float]]:
        """At most ``limit`` (member, score) pairs, ordered by (score, name).

        Seeks the first pair at or after (``score``, ``name``) and moves ``offset`` pairs from there (negative: back).
        """
        return await self._run(("zquery", key, float(score), name, offset, limit), shape.as_scored)

    async def zrange(self, key: Key, start: int = 0, stop: int = -1, *, reverse: bool = False) -> list[S]:
        """Members by rank from start to stop, both included, negative from the end."""
        words: list[str] = ["rev"] if reverse else []
        return await self._run(("zrange", key, start, stop, *words), shape.as_list)

    async def zrange_scored(
        self, key: Key, start: int = 0, stop: int = -1, *, reverse: bool = False
    ) -> list[tuple[S, float]]:
        """`zrange` as (member, score) pairs."""
        words: list[str] = ["rev", "withscores"] if reverse else ["withscores"]
        return await self._run(("zrange", key, start, stop, *words), shape.as_scored)

    async def zcard(self, key: Key) -> int:
        """How many members the sorted set has."""
        return await self._run(("zcard", key), shape.as_count)

    async def zrank(self, key: Key, name: Argument) -> int | None:
        """A member's rank from 0, or None."""
        return await self._run(("zrank", key, name), shape.as_rank)

    async def zcount(self, key: Key, low: float | str = "-inf", high: float | str = "+inf") -> int:
        """How many members have a score from low to high, both included (``"(1.5"``: excluded)."""
        return await self._run(("zcount", key, low, high), shape.as_count)

    async def zincrby(self, key: Key, amount: float, name: Argument) -> float:
        """Adds to a member's score; returns the new one."""
        return await self._run(("zincrby", key, float(amount), name), float)

    async def zpopmin(self, key: Key, count: int = 1) -> list[tuple[S, float]]:
        """Takes the members with the lowest scores, as (member, score) pairs."""
        return await self._run(("zpopmin", key, count), shape.as_scored)

    # Messages ----------------------------------------------------------------------------------------------------

    async def publish(self, channel: Key, message: Argument) -> int:
        """Sends a message to whoever listens to the channel (`pubsub`); returns how many do."""
        return await self._run(("publish", channel, message), shape.as_count)

    async def spublish(self, channel: Key, message: Argument) -> int:
        """The same on a shard channel."""
        return await self._run(("spublish", channel, message), shape.as_count)

    # Waiting -----------------------------------------------------------------------------------------------------

    async def blpop(self, *keys: Key, timeout: float = 0) -> tuple[S, S] | None:
        """Takes the first element of the first list that has one, as (key, element).

        With all of them empty it waits for one: up to ``timeout`` seconds, then None; 0 for ever. The client's own
        ``timeout`` starts behind that. Who waits longest is served first. A connection is in use while it waits.
        """
        return await self._wait(("blpop", *keys, waited(timeout)), shape.as_popped, timeout)

    async def brpop(self, *keys: Key, timeout: float = 0) -> tuple[S, S] | None:
        """`blpop` of the last element."""
        return await self._wait(("brpop", *keys, waited(timeout)), shape.as_popped, timeout)

    async def blmove(
        self, source: Key, destination: Key, take: Side = "left", put: Side = "right", *, timeout: float = 0
    ) -> S | None:
        """Moves the element at one end of a list to an end of another (or the same), and returns it.

        Waits for one as `blpop` does; None when the time is over. The element is in one of the lists at any time.
        """
        arguments = ("blmove", source, destination, take, put, waited(timeout))
        value: S | None = await self._wait(arguments, shape.as_is, timeout)
        return value

    async def blmpop(
        self, *keys: Key, side: Side = "left", count: int = 1, timeout: float = 0
    ) -> tuple[S, list[S]] | None:
        """`blpop` of up to ``count`` elements from one end, as (key, elements)."""
        arguments = ("blmpop", waited(timeout), len(keys), *keys, side, "count", count)
        return await self._wait(arguments, shape.as_popped, timeout)

    async def bzpopmin(self, *keys: Key, timeout: float = 0) -> tuple[S, S, float] | None:
        """Takes the member with the lowest score of the first sorted set that has one, as (key, member, score).

        Waits for one as `blpop` does; None when the time is over.
        """
        return await self._wait(("bzpopmin", *keys, waited(timeout)), shape.as_popped_scored, timeout)

    async def bzpopmax(self, *keys: Key, timeout: float = 0) -> tuple[S, S, float] | None:
        """`bzpopmin` of the member with the highest score."""
        return await self._wait(("bzpopmax", *keys, waited(timeout)), shape.as_popped_scored, timeout)

    async def bzmpop(
        self, *keys: Key, side: Literal["min", "max"] = "min", count: int = 1, timeout: float = 0
    ) -> tuple[S, list[tuple[S, float]]] | None:
        """`bzpopmin` or `bzpopmax` of up to ``count`` members, as (key, [(member, score), …])."""
        arguments = ("bzmpop", waited(timeout), len(keys), *keys, side, "count", count)
        return await self._wait(arguments, shape.as_popped_pairs, timeout)
