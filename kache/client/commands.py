"""The commands as typed methods, for the blocking client; `kache.client.async_commands` is the same list with ``await``.

A method builds the arguments (`kache.client.arguments`) and names the shape of the reply (`kache.client.codec`); sending is
left to `_run`, which the client and its pipeline provide. Times are in the unit the name of the parameter says, or a
timedelta. A reply "no such key" is ``None``, or the empty value where the type has one. Whatever has no method here goes
through ``execute``. `kache/client/recorded.pyi` is made of this list: ``python -m kache.client.stubs``.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Generic, Literal, TypeVar, overload

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

__all__ = ["Commands", "Key", "S", "Side"]

S = TypeVar("S", bytes, str)
T = TypeVar("T")

Key = bytes | str

Side = Literal["left", "right"]
"""An end of a list."""


class Commands(Generic[S]):
    """One method per command. ``S`` is `bytes`, or `str` in a client with ``decode=True``."""

    def _run(self, arguments: Sequence[Argument], convert: Callable[[Reply], T]) -> T:
        raise NotImplementedError

    def _wait(self, arguments: Sequence[Argument], convert: Callable[[Reply], T], seconds: float) -> T:
        """`_run` of a command that may take so much longer; 0: any time."""
        raise NotImplementedError

    def _value(self, *arguments: Argument) -> S | None:
        value: S | None = self._run(arguments, shape.as_is)
        return value

    def _text(self, *arguments: Argument) -> S:
        text: S = self._run(arguments, shape.as_is)
        return text

    # Server ------------------------------------------------------------------------------------------------------

    def ping(self) -> bool:
        """True when the server answers."""
        return self._run(("ping",), shape.as_bool)

    def echo(self, message: Argument) -> S:
        """The message, sent back."""
        return self._text("echo", message)

    def dbsize(self) -> int:
        """How many keys the database holds."""
        return self._run(("dbsize",), shape.as_count)

    def flushall(self) -> bool:
        """Deletes every key of every database."""
        return self._run(("flushall",), shape.as_bool)

    def flushdb(self) -> bool:
        """Deletes every key of this database."""
        return self._run(("flushdb",), shape.as_bool)

    def stats(self) -> list[dict[str, Any]]:
        """The statistics of every shard, in their order: ``shard``, ``state``, ``keys``, ``used_memory``, ``hits``, …"""
        return self._run(("stats",), shape.as_stats)

    def info(self, *sections: str) -> dict[str, str]:
        """INFO as a dict of field and text, all sections in one."""
        return self._run(("info", *sections), shape.as_fields)

    # Keys --------------------------------------------------------------------------------------------------------

    def delete(self, *keys: Key) -> int:
        """Deletes; returns how many existed."""
        return self._run(("del", *some("delete", "key", keys)), shape.as_count)

    def unlink(self, *keys: Key) -> int:
        """Deletes, freeing memory in the background; returns how many existed."""
        return self._run(("unlink", *some("unlink", "key", keys)), shape.as_count)

    def exists(self, *keys: Key) -> int:
        """How many of the keys exist; one named twice counts twice."""
        return self._run(("exists", *some("exists", "key", keys)), shape.as_count)

    def touch(self, *keys: Key) -> int:
        """Marks as used; returns how many exist."""
        return self._run(("touch", *some("touch", "key", keys)), shape.as_count)

    def expire(self, key: Key, seconds: Time) -> bool:
        """Lets the key live this much longer (0 or less deletes it); False when there is no such key."""
        return self._run(("expire", key, in_milliseconds(seconds, 1000)), shape.as_bool)

    def pexpire(self, key: Key, milliseconds: int | timedelta) -> bool:
        """`expire` in milliseconds."""
        return self._run(("expire", key, in_milliseconds(milliseconds, 1)), shape.as_bool)

    def persist(self, key: Key) -> bool:
        """Takes the TTL away, if there is one; False when there is no such key."""
        return self._run(("persist", key), shape.as_bool)

    def ttl(self, key: Key) -> int:
        """Seconds left to live; -1 without a TTL, -2 when there is no such key."""
        return self._run(("ttl", key), shape.as_count)

    def pttl(self, key: Key) -> int:
        """Milliseconds left to live; -1 without a TTL, -2 when there is no such key."""
        return self._run(("pttl", key), shape.as_count)

    def type(self, key: Key) -> str:
        """``string``, ``list``, ``hash``, ``set``, ``zset``, or ``none``."""
        return self._run(("type", key), shape.as_text)

    def rename(self, source: Key, destination: Key) -> bool:
        """Renames, replacing the destination; a missing source raises `CommandError`."""
        return self._run(("rename", source, destination), shape.as_bool)

    def keys(self, pattern: Key = "*") -> list[S]:
        """All keys that match the glob, at once; prefer `scan_iter` where there may be many."""
        return self._run(("keys", pattern), shape.as_list)

    def scan(
        self, cursor: int = 0, match: Key | None = None, count: int | None = None, type: str | None = None
    ) -> tuple[int, list[S]]:
        """A part of the keys and the cursor to go on with, 0 at the end."""
        options = {"match": match, "count": count, "type": type}
        words: list[Argument] = flatten({word: value for word, value in options.items() if value is not None})
        return self._run(("scan", cursor, *words), shape.as_scan)

    def scan_iter(self, match: Key | None = None, count: int | None = None, type: str | None = None) -> Iterator[S]:
        """All keys, a part at a time; a key that comes and goes meanwhile may be missing or be seen twice."""
        cursor = 0
        while True:
            cursor, keys = self.scan(cursor, match, count, type)
            yield from keys
            if cursor == 0:
                return

    # Strings -----------------------------------------------------------------------------------------------------

    def set(
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
        return self._run(set_arguments(key, value, ex, px, nx, xx, keep_ttl), shape.as_bool)

    def setex(self, key: Key, seconds: Time, value: Argument) -> bool:
        """Stores a value that lives this long."""
        return self._run(("psetex", key, in_milliseconds(seconds, 1000), value), shape.as_bool)

    def get(self, key: Key) -> S | None:
        """The value, or None."""
        return self._value("get", key)

    def getdel(self, key: Key) -> S | None:
        """The value, or None; the key is deleted."""
        return self._value("getdel", key)

    def mget(self, *keys: Key | Iterable[Key]) -> list[S | None]:
        """The values in the order of the keys (several, or one list), None for each that does not exist or is no string."""
        return self._run(("mget", *several("mget", "key", keys)), shape.as_list)

    def mset(self, values: Mapping[Any, Argument]) -> bool:
        """Stores several; each alone is atomic, together only on one shard."""
        return self._run(("mset", *flatten(some("mset", "key", values))), shape.as_bool)

    def append(self, key: Key, value: Argument) -> int:
        """Appends; returns the new length in bytes."""
        return self._run(("append", key, value), shape.as_count)

    def strlen(self, key: Key) -> int:
        """Length in bytes, 0 when there is no such key."""
        return self._run(("strlen", key), shape.as_count)

    def getrange(self, key: Key, start: int, stop: int) -> S:
        """The bytes from start to stop, both included, negative from the end."""
        return self._text("getrange", key, start, stop)

    def incr(self, key: Key, amount: int = 1) -> int:
        """Adds 1, or the amount; returns the new number."""
        return self._run(("incr", key) if amount == 1 else ("incrby", key, amount), shape.as_count)

    def decr(self, key: Key, amount: int = 1) -> int:
        """Subtracts 1, or the amount; returns the new number."""
        return self._run(("decr", key) if amount == 1 else ("decrby", key, amount), shape.as_count)

    def incrby(self, key: Key, amount: int) -> int:
        """Adds; returns the new number."""
        return self._run(("incrby", key, amount), shape.as_count)

    def decrby(self, key: Key, amount: int) -> int:
        """Subtracts; returns the new number."""
        return self._run(("decrby", key, amount), shape.as_count)

    def incrbyfloat(self, key: Key, amount: float) -> float:
        """Adds; returns the new number."""
        return self._run(("incrbyfloat", key, float(amount)), float)

    # Hashes ------------------------------------------------------------------------------------------------------

    @overload
    def hset(self, key: Key, fields: Mapping[Any, Argument]) -> int: ...
    @overload
    def hset(self, key: Key, *, mapping: Mapping[Any, Argument]) -> int: ...
    @overload
    def hset(self, key: Key, fields: Key, value: Argument, *, mapping: Mapping[Any, Argument] | None = None) -> int: ...
    def hset(
        self,
        key: Key,
        fields: Mapping[Any, Argument] | Key | None = None,
        value: Argument | None = None,
        *,
        mapping: Mapping[Any, Argument] | None = None,
    ) -> int:
        """Stores fields, a mapping or one and its value; returns how many are new."""
        return self._run(hash_arguments(key, fields, value, mapping), shape.as_count)

    def hget(self, key: Key, field: Key) -> S | None:
        """A field's value, or None."""
        return self._value("hget", key, field)

    def hmget(self, key: Key, *fields: Key | Iterable[Key]) -> list[S | None]:
        """Values in the order of the fields (several, or one list), None where there is none."""
        return self._run(("hmget", key, *several("hmget", "field", fields)), shape.as_list)

    def hgetall(self, key: Key) -> dict[S, S]:
        """All fields and values, empty when there is no such key."""
        return self._run(("hgetall", key), shape.as_dict)

    def hdel(self, key: Key, *fields: Key) -> int:
        """Deletes fields; returns how many existed."""
        return self._run(("hdel", key, *some("hdel", "field", fields)), shape.as_count)

    def hexists(self, key: Key, field: Key) -> bool:
        """Whether the field exists."""
        return self._run(("hexists", key, field), shape.as_bool)

    def hlen(self, key: Key) -> int:
        """How many fields the hash has."""
        return self._run(("hlen", key), shape.as_count)

    def hkeys(self, key: Key) -> list[S]:
        """All fields."""
        return self._run(("hkeys", key), shape.as_list)

    def hvals(self, key: Key) -> list[S]:
        """All values."""
        return self._run(("hvals", key), shape.as_list)

    def hincrby(self, key: Key, field: Key, amount: int = 1) -> int:
        """Adds to a field; returns the new number."""
        return self._run(("hincrby", key, field, amount), shape.as_count)

    # Lists -------------------------------------------------------------------------------------------------------

    def lpush(self, key: Key, *values: Argument) -> int:
        """Puts values at the front, one after the other; returns the new length."""
        return self._run(("lpush", key, *some("lpush", "value", values)), shape.as_count)

    def rpush(self, key: Key, *values: Argument) -> int:
        """Puts values at the end; returns the new length."""
        return self._run(("rpush", key, *some("rpush", "value", values)), shape.as_count)

    def lpop(self, key: Key) -> S | None:
        """Takes the first element, or None."""
        return self._value("lpop", key)

    def rpop(self, key: Key) -> S | None:
        """Takes the last element, or None."""
        return self._value("rpop", key)

    def llen(self, key: Key) -> int:
        """Length of the list."""
        return self._run(("llen", key), shape.as_count)

    def lrange(self, key: Key, start: int = 0, stop: int = -1) -> list[S]:
        """Elements from start to stop, both included, negative from the end."""
        return self._run(("lrange", key, start, stop), shape.as_list)

    def lindex(self, key: Key, index: int) -> S | None:
        """The element at the index, negative from the end, or None."""
        return self._value("lindex", key, index)

    def lrem(self, key: Key, count: int, value: Argument) -> int:
        """Removes occurrences (``count`` > 0 from the front, < 0 from the end, 0 all); returns how many."""
        return self._run(("lrem", key, count, value), shape.as_count)

    def ltrim(self, key: Key, start: int, stop: int) -> bool:
        """Keeps only the elements from start to stop."""
        return self._run(("ltrim", key, start, stop), shape.as_bool)

    # Sets --------------------------------------------------------------------------------------------------------

    def sadd(self, key: Key, *members: Argument) -> int:
        """Adds members; returns how many are new."""
        return self._run(("sadd", key, *some("sadd", "member", members)), shape.as_count)

    def srem(self, key: Key, *members: Argument) -> int:
        """Removes members; returns how many were there."""
        return self._run(("srem", key, *some("srem", "member", members)), shape.as_count)

    def smembers(self, key: Key) -> builtins.set[S]:
        """All members."""
        return self._run(("smembers", key), shape.as_set)

    def sismember(self, key: Key, member: Argument) -> bool:
        """Whether it is a member."""
        return self._run(("sismember", key, member), shape.as_bool)

    def scard(self, key: Key) -> int:
        """How many members the set has."""
        return self._run(("scard", key), shape.as_count)

    # Sorted sets -------------------------------------------------------------------------------------------------

    @overload
    def zadd(self, key: Key, score: float, name: Argument) -> bool: ...
    @overload
    def zadd(self, key: Key, score: Mapping[Any, float]) -> int: ...
    def zadd(self, key: Key, score: float | Mapping[Any, float], name: Argument | None = None) -> bool | int:
        """Gives one member its score; or, as `zadd_many`, several theirs, and says how many are new."""
        if isinstance(score, Mapping):
            if name is not None:
                raise TypeError("zadd takes a score and a member, or a mapping of members to scores, not both")
            return self._run(score_arguments(key, score, {}), shape.as_count)
        if name is None:
            raise TypeError("zadd takes a score and a member, or a mapping of members to scores")
        return self._run(("zadd", key, float(score), name), shape.as_bool)

    def zadd_many(
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
        return self._run(score_arguments(key, scores, options), shape.as_count)

    def zscore(self, key: Key, name: Argument) -> float | None:
        """A member's score, or None."""
        return self._run(("zscore", key, name), shape.as_score)

    def zrem(self, key: Key, *names: Argument) -> int:
        """Removes members; returns how many were there."""
        return self._run(("zrem", key, *some("zrem", "member", names)), shape.as_count)

    def zquery(
        self, key: Key, score: float = float("-inf"), name: Argument = b"", offset: int = 0, limit: int = 10
    ) -> list[tuple[S, float]]:
        """At most ``limit`` (member, score) pairs, ordered by (score, name).

        Seeks the first pair at or after (``score``, ``name``) and moves ``offset`` pairs from there (negative: back).
        """
        return self._run(("zquery", key, float(score), name, offset, limit), shape.as_scored)

    def zrange(self, key: Key, start: int = 0, stop: int = -1, *, reverse: bool = False) -> list[S]:
        """Members by rank from start to stop, both included, negative from the end."""
        words: list[str] = ["rev"] if reverse else []
        return self._run(("zrange", key, start, stop, *words), shape.as_list)

    def zrange_scored(
        self, key: Key, start: int = 0, stop: int = -1, *, reverse: bool = False
    ) -> list[tuple[S, float]]:
        """`zrange` as (member, score) pairs."""
        words: list[str] = ["rev", "withscores"] if reverse else ["withscores"]
        return self._run(("zrange", key, start, stop, *words), shape.as_scored)

    def zcard(self, key: Key) -> int:
        """How many members the sorted set has."""
        return self._run(("zcard", key), shape.as_count)

    def zrank(self, key: Key, name: Argument) -> int | None:
        """A member's rank from 0, or None."""
        return self._run(("zrank", key, name), shape.as_rank)

    def zcount(self, key: Key, low: float | str = "-inf", high: float | str = "+inf") -> int:
        """How many members have a score from low to high, both included (``"(1.5"``: excluded)."""
        return self._run(("zcount", key, low, high), shape.as_count)

    def zincrby(self, key: Key, amount: float, name: Argument) -> float:
        """Adds to a member's score; returns the new one."""
        return self._run(("zincrby", key, float(amount), name), float)

    def zpopmin(self, key: Key, count: int = 1) -> list[tuple[S, float]]:
        """Takes the members with the lowest scores, as (member, score) pairs."""
        return self._run(("zpopmin", key, count), shape.as_scored)

    # Messages ----------------------------------------------------------------------------------------------------

    def publish(self, channel: Key, message: Argument) -> int:
        """Sends a message to whoever listens to the channel (`pubsub`); returns how many do."""
        return self._run(("publish", channel, message), shape.as_count)

    def spublish(self, channel: Key, message: Argument) -> int:
        """The same on a shard channel."""
        return self._run(("spublish", channel, message), shape.as_count)

    # Waiting -----------------------------------------------------------------------------------------------------

    def blpop(self, *keys: Key, timeout: float = 0) -> tuple[S, S] | None:
        """Takes the first element of the first list that has one, as (key, element).

        With all of them empty it waits for one: up to ``timeout`` seconds, then None; 0 for ever. The client's own
        ``timeout`` starts behind that. Who waits longest is served first. A connection is in use while it waits.
        """
        return self._wait(("blpop", *keys, waited(timeout)), shape.as_popped, timeout)

    def brpop(self, *keys: Key, timeout: float = 0) -> tuple[S, S] | None:
        """`blpop` of the last element."""
        return self._wait(("brpop", *keys, waited(timeout)), shape.as_popped, timeout)

    def blmove(
        self, source: Key, destination: Key, take: Side = "left", put: Side = "right", *, timeout: float = 0
    ) -> S | None:
        """Moves the element at one end of a list to an end of another (or the same), and returns it.

        Waits for one as `blpop` does; None when the time is over. The element is in one of the lists at any time.
        """
        arguments = ("blmove", source, destination, take, put, waited(timeout))
        value: S | None = self._wait(arguments, shape.as_is, timeout)
        return value

    def blmpop(self, *keys: Key, side: Side = "left", count: int = 1, timeout: float = 0) -> tuple[S, list[S]] | None:
        """`blpop` of up to ``count`` elements from one end, as (key, elements)."""
        arguments = ("blmpop", waited(timeout), len(keys), *keys, side, "count", count)
        return self._wait(arguments, shape.as_popped, timeout)

    def bzpopmin(self, *keys: Key, timeout: float = 0) -> tuple[S, S, float] | None:
        """Takes the member with the lowest score of the first sorted set that has one, as (key, member, score).

        Waits for one as `blpop` does; None when the time is over.
        """
        return self._wait(("bzpopmin", *keys, waited(timeout)), shape.as_popped_scored, timeout)

    def bzpopmax(self, *keys: Key, timeout: float = 0) -> tuple[S, S, float] | None:
        """`bzpopmin` of the member with the highest score."""
        return self._wait(("bzpopmax", *keys, waited(timeout)), shape.as_popped_scored, timeout)

    def bzmpop(
        self, *keys: Key, side: Literal["min", "max"] = "min", count: int = 1, timeout: float = 0
    ) -> tuple[S, list[tuple[S, float]]] | None:
        """`bzpopmin` or `bzpopmax` of up to ``count`` members, as (key, [(member, score), …])."""
        arguments = ("bzmpop", waited(timeout), len(keys), *keys, side, "count", count)
        return self._wait(arguments, shape.as_popped_pairs, timeout)
