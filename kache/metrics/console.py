"""The web console behind the metrics port: what it shows as JSON, and the few changes that it may make.

    GET  /api/now                                 figures, shards, busy and slow commands, hot and big keys, clients
    GET  /api/history                             the last minutes, for charts
    GET  /api/keys?db=0&match=*&cursor=0          a page of keys with type, time to live and size
    GET  /api/key?db=0&key=…                      one key: value by type, cut where it is long
    POST /api/key                                 {"db", "key", "do": "delete" | "expire" | "persist" | "set", …}: `console-writes`

Keys travel as base64url of their bytes. Plain functions over the clients of one visitor; raises `Refused` in words for people.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from kache import figures
from kache.errors import CommandError, KacheError
from kache.intervals import Interval
from kache.metrics.source import Visitor
from kache.quoting import name_text
from kache.stats import Snapshot

__all__ = ["Refused", "changed", "key_page", "now", "one_key"]

PAGE_KEYS = 100
"""Keys on one page of the browser; SCAN may give some more."""
SCAN_ROUNDS = 20
"""SCANs for one page at most: a rare pattern is gone on with by whoever looks."""
SHOWN_ELEMENTS = 100
SHOWN_BYTES = 4096
LISTED = 20
DATABASES = 16


class Refused(KacheError):
    """A request that cannot be answered, with its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def encoded(data: bytes) -> str:
    """base64url without its filling."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def decoded(text: str) -> bytes:
    """The bytes of `encoded`; raises Refused."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise Refused(400, "The key is not base64url.") from None


def _number(text: str, name: str, low: int, high: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise Refused(400, f"{name} must be a whole number from {low} to {high}.")
    return value


def database(text: str) -> int:
    """A number of a database; raises Refused."""
    return _number(text, "db", 0, DATABASES - 1)


# Figures --------------------------------------------------------------------------------------------------------------


async def now(visitor: Visitor, snapshot: Snapshot, interval: Interval | None) -> dict[str, Any]:
    """Everything that the page shows of this moment; `interval` is what led to it."""
    hot, big, slow, clients = await visitor.client(0).execute_many(
        [
            ("hotkeys", str(LISTED)),
            ("bigkeys", str(LISTED)),
            ("slowlog", "get", str(LISTED), "shards"),
            ("client", "list"),
        ]
    )
    return {
        "at_ms": snapshot.at_ms,
        "total": figures.whole(snapshot),
        "shards": _shard_rows(snapshot, interval),
        "routers": [
            {"router": one.index, "load": interval.routers.get(one.index) if interval else None, **figures.router_row(one)}
            for one in snapshot.routers
        ],
        "interval": None if interval is None else {
            "seconds": interval.seconds, "p50_us": interval.percentile_us(50), "p99_us": interval.percentile_us(99),
            "hit_percent": interval.hit_percent(),
        },
        "commands": [
            {"name": one.name, "per_second": one.per_second, "mean_us": one.mean_us, "failed_per_second": one.failed_per_second}
            for one in (interval.commands[:LISTED] if interval else [])
        ],
        "hot": _keys(hot),
        "big": _keys(big),
        "slow": _slow(slow),
        "clients": _clients(clients),
    }  # fmt: skip


def _shard_rows(snapshot: Snapshot, interval: Interval | None) -> list[dict[str, Any]]:
    by_index = {shard.index: shard for shard in snapshot.shards}
    rows: list[dict[str, Any]] = []
    for index, state in enumerate(snapshot.states):
        row: dict[str, Any] = {"shard": index, "state": state}
        if index in by_index:
            row |= figures.shard_row(by_index[index])
            span = interval.shards.get(index) if interval else None
            if span is not None:
                row |= {"load": span.load, "now_p99_us": span.percentile_us(99)}
        else:
            row["reason"] = snapshot.silent.get(index, "")
        rows.append(row)
    return rows


def _keys(rows: Any) -> list[dict[str, Any]]:
    if isinstance(rows, CommandError):
        return []
    found = []
    for row in rows:
        named = {_text(name): value for name, value in _pairs(row)}
        key = named.pop("key")
        found.append({"name": name_text(key), "key": encoded(key), **{n: _plain(value) for n, value in named.items()}})
    return found


def _pairs(row: Any) -> list[tuple[bytes, Any]]:
    return list(row.items()) if isinstance(row, dict) else list(zip(row[::2], row[1::2], strict=True))


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _plain(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _slow(rows: Any) -> list[dict[str, Any]]:
    if isinstance(rows, CommandError):
        return []
    return [
        {
            "at": row[1],
            "took_us": row[2],
            "command": " ".join(map(name_text, row[3])),
            "client": _text(row[4]),
            "shard": row[6] if row[6] >= 0 else None,
        }
        for row in rows
    ]


def _clients(told: Any) -> list[dict[str, str]]:
    if isinstance(told, CommandError):
        return []
    lines = _text(getattr(told, "text", told)).splitlines()
    found = [dict(pair.partition("=")[::2] for pair in line.split()) for line in lines if line]
    found.sort(key=lambda one: -int(one.get("tot-mem", 0)))
    return [
        {name: one.get(name, "") for name in ("addr", "name", "age", "idle", "db", "cmd", "tot-mem")}
        for one in found[:LISTED]
    ]


# The key browser ------------------------------------------------------------------------------------------------------


async def key_page(visitor: Visitor, query: dict[str, str]) -> dict[str, Any]:
    """Keys that match, from a cursor on: {"cursor", "keys": [{"name", "key", "type", "ttl_ms", "bytes"}]}."""
    client = visitor.client(database(query.get("db", "0")))
    cursor = str(_number(query.get("cursor", "0"), "cursor", 0, 2**53))
    words: list[bytes] = []
    if query.get("match"):
        words += [b"match", query["match"].encode()]
    if query.get("type"):
        words += [b"type", query["type"].encode()]
    found: list[bytes] = []
    for _ in range(SCAN_ROUNDS):
        following, keys = await _asked(client, "scan", cursor, *words, "count", "500")
        cursor = _text(following)
        found += keys
        if cursor == "0" or len(found) >= PAGE_KEYS:
            break
    replies = await client.execute_many(
        [(name, *before, key) for key in found for name, *before in (("type",), ("pttl",), ("memory", "usage"))]
    )
    rows = []
    for at, key in enumerate(found):
        kind, ttl, size = replies[3 * at : 3 * at + 3]
        if _kind(kind) != "none":
            row = {"name": name_text(key), "key": encoded(key), "type": _kind(kind)}
            rows.append(row | {"ttl_ms": _or_none(ttl), "bytes": _or_none(size)})
    return {"cursor": cursor, "keys": rows}


def _kind(reply: Any) -> str:
    """The type of a key; "none" for one that is not there."""
    return "none" if reply is None or isinstance(reply, CommandError) else _text(reply)


async def _asked(client: Any, *words: Any) -> Any:
    try:
        return await client.execute(*words)
    except CommandError as error:
        raise Refused(400, f"The cluster answers: {error.message}.") from None


_ELEMENTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "list": (("llen",), ("lrange", "0", str(SHOWN_ELEMENTS - 1))),
    "hash": (("hlen",), ("hscan", "0", "count", str(SHOWN_ELEMENTS))),
    "set": (("scard",), ("sscan", "0", "count", str(SHOWN_ELEMENTS))),
    "zset": (("zcard",), ("zrange", "0", str(SHOWN_ELEMENTS - 1), "withscores")),
}
"""By type: how many elements it has, and the first of them; the key goes behind the name."""


async def one_key(visitor: Visitor, query: dict[str, str]) -> dict[str, Any]:
    """One key with the beginning of its value; {"elements": [[…], …]} for all but strings."""
    client = visitor.client(database(query.get("db", "0")))
    key = decoded(query.get("key", ""))
    kind = _kind(await _asked(client, "type", key))
    if kind == "none":
        raise Refused(404, "There is no such key (any more).")
    ttl, size, encoding = await client.execute_many(
        [("pttl", key), ("memory", "usage", key), ("object", "encoding", key)]
    )
    found: dict[str, Any] = {
        "name": name_text(key), "key": encoded(key), "type": kind, "ttl_ms": _or_none(ttl), "bytes": _or_none(size),
        "encoding": _text(_or_none(encoding) or ""),
    }  # fmt: skip
    if kind == "string":
        found["count"] = await _asked(client, "strlen", key)
        data = await _asked(client, "getrange", key, "0", str(SHOWN_BYTES))
        found["value"] = _shown(data)
        found["editable"] = len(data) <= SHOWN_BYTES and _is_text(data)
    elif kind in _ELEMENTS:
        (length, *_), (first, *rest) = _ELEMENTS[kind]
        found["count"] = await _asked(client, length, key)
        found["elements"] = _rows(kind, await _asked(client, first, key, *rest))[:SHOWN_ELEMENTS]
    return found


def _or_none(value: Any) -> Any:
    return None if isinstance(value, CommandError) else value


def _shown(data: bytes) -> str:
    """Text as it is, other bytes escaped; cut where it is long."""
    cut = data[:SHOWN_BYTES]
    try:
        text = cut.decode()
    except UnicodeDecodeError:
        text = name_text(cut)
    return text if len(data) <= SHOWN_BYTES else text + "…"


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _rows(kind: str, reply: Any) -> list[list[str]]:
    if kind in ("hash", "set"):
        reply = reply[1]
    if kind == "list":
        return [[str(at), _shown(value)] for at, value in enumerate(reply)]
    if kind == "set":
        return [[_shown(value)] for value in reply]
    pairs: list[Any] = list(reply.items()) if isinstance(reply, dict) else list(reply)
    if pairs and not isinstance(pairs[0], list | tuple):
        pairs = list(zip(pairs[::2], pairs[1::2], strict=True))
    return [[_shown(first), _score(second)] for first, second in pairs]


def _score(value: Any) -> str:
    return _shown(value) if isinstance(value, bytes) else f"{value:g}"


async def changed(visitor: Visitor, body: bytes) -> dict[str, Any]:
    """Carry out a change; {"done": what the cluster answered}."""
    try:
        asked = json.loads(body)
        what, db, key = asked["do"], database(str(asked.get("db", 0))), decoded(asked["key"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Refused(400, 'Wanted is JSON: {"do", "db", "key", ...}.') from None
    client = visitor.client(db)
    if what == "delete":
        return {"done": await _asked(client, "unlink", key)}
    if what == "persist":
        return {"done": await _asked(client, "persist", key)}
    if what == "expire":
        milliseconds = _number(str(asked.get("ms", "")), "ms", 1, 2**50)
        return {"done": await _asked(client, "pexpire", key, str(milliseconds))}
    if what == "set" and isinstance(asked.get("value"), str):
        kind = _kind(await _asked(client, "type", key))
        if kind not in ("string", "none"):
            raise Refused(409, f"It is a {kind} by now: only strings are written here.")
        return {"done": await _asked(client, "set", key, asked["value"].encode(), "keepttl")}
    raise Refused(400, "There is no such change: delete, expire, persist, set.")
