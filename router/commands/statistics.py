"""The figures of the whole cluster at one moment, gathered for whoever shows them; and STATS, which shows them as they are.

A router asks all shards at once, over its links, and the other routers through the supervisor. What the figures mean, and
how they are totalled, is in `kache.figures` alone.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from kache import figures
from kache.config.client_limits import client_budget
from kache.errors import SYNTAX, CommandError
from kache.replies import Reply
from kache.stats import RouterStats, ShardStats, Snapshot, added

from ..peers import answers, ask
from ..registry import local
from ..scatter.blocking import Wait
from .slowlog import entries_kept

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__ = ["gather", "gather_routers", "snapshot"]

_decoder = msgspec.msgpack.Decoder(ShardStats)
_router_decoder = msgspec.msgpack.Decoder(RouterStats)


async def _asked(router: Router, shard: int) -> tuple[ShardStats | str, int]:
    """What a shard says of itself, or why it does not; and microseconds that it took."""
    began = time.monotonic_ns()
    found: ShardStats | str
    try:
        found = _decoder.decode(await router.call(shard, "_stats", []))
    except CommandError as error:
        found = error.message
    return found, (time.monotonic_ns() - began) // 1000


async def _shards(router: Router) -> tuple[list[ShardStats], dict[int, str], dict[int, int]]:
    answered = await asyncio.gather(*(_asked(router, shard) for shard in range(router.shard_count)))
    found = [one for one, _ in answered if isinstance(one, ShardStats)]
    silent = {shard: one for shard, (one, _) in enumerate(answered) if isinstance(one, str)}
    return found, silent, {shard: took for shard, (_, took) in enumerate(answered)}


async def gather(router: Router) -> tuple[list[ShardStats], dict[int, str]]:
    """The statistics of every shard that answers, and why the others did not."""
    found, silent, _ = await _shards(router)
    return found, silent


async def gather_routers(router: Router) -> RouterStats:
    """The sum over the routers that answer."""
    return added(await _routers(router, buffers=False))


async def snapshot(router: Router, *, buffers: bool = False) -> Snapshot:
    """Everything, of this moment; how full the clients' buffers are is looked at only if asked for."""
    (shards, silent, took), routers, kept = await asyncio.gather(
        _shards(router), _routers(router, buffers=buffers), entries_kept(router)
    )
    return Snapshot(
        at_ms=router.clock.now(),
        shards=shards,
        silent=silent,
        states=[link.state for link in router.links],
        routers=routers,
        round_trips_us=took,
        maxclients=router.config.maxclients,
        most_client_bytes=client_budget(router.config),
        slowlog_length=kept,
    )


async def _routers(router: Router, *, buffers: bool) -> list[RouterStats]:
    others = await ask(router, "stats", *([b"buffers"] if buffers else []))
    found = [_own(router, buffers=buffers), *map(_router_decoder.decode, others.values())]
    return sorted(found, key=lambda one: one.index)


@answers("stats")
def _own_for_another(router: Router, words: Sequence[bytes]) -> bytes:
    return msgspec.msgpack.encode(_own(router, buffers=b"buffers" in words))


def _own(router: Router, *, buffers: bool) -> RouterStats:
    sessions = router.sessions() if buffers else []
    used = resource.getrusage(resource.RUSAGE_SELF)
    return RouterStats(
        started_ms=router.started_ms,
        counters=router.statistics()
        | {"tls_expires": _tls_expires(router), "timed_waits": Wait.timed}
        | router.accounts.counters()
        | _of_backend(router),
        links=[link.in_flight for link in router.links],
        input_buffer=max((one.unparsed_bytes for one in sessions), default=0),
        output_buffer=max((one.unsent_bytes for one in sessions), default=0),
        cpu_user_s=used.ru_utime,
        cpu_system_s=used.ru_stime,
        index=router.index,
    )


def _of_backend(router: Router) -> dict[str, int]:
    """In front of a Redis Cluster."""
    if router.remote is None:
        return {}
    return {f"backend_{name}": value for name, value in router.remote.statistics().items()}


def _tls_expires(router: Router) -> int:
    return router.tls.certificate.expires if router.tls is not None and router.tls.certificate is not None else 0


@local("stats")
async def stats(router: Router, session: Session, *what: bytes) -> Reply:
    """The figures of `kache.figures`: an array of maps, one per shard, in their order.

    ALL is a map of those (``shards``), of the ``routers``, the ``total`` and the moment (``at_ms``); SNAPSHOT is what they
    are computed from, as msgpack.
    """
    wanted = b" ".join(what).upper()
    if wanted not in (b"", b"ALL", b"SNAPSHOT"):
        raise CommandError(SYNTAX)
    found = await snapshot(router)
    if wanted == b"SNAPSHOT":
        return msgspec.msgpack.encode(found)
    by_index = {shard.index: shard for shard in found.shards}
    rows = [_row(found, shard, by_index.get(shard)) for shard in range(len(found.states))]
    if not wanted:
        return rows
    return {
        b"at_ms": found.at_ms,
        b"shards": rows,
        b"routers": [{b"router": one.index, **_named(figures.router_row(one))} for one in found.routers],
        b"total": _named(figures.whole(found)),
    }


def _row(found: Snapshot, shard: int, of: ShardStats | None) -> dict[bytes, Reply]:
    row: dict[bytes, Reply] = {b"shard": shard, b"state": found.states[shard].encode()}
    if of is None:
        return row | {b"reason": found.silent.get(shard, "").encode()}
    row |= {b"policy": of.policy.encode(), b"follows": of.follows.encode()}
    return row | _named(figures.shard_row(of)) | {b"in_flight": sum(one.links[shard] for one in found.routers)}


def _named(row: dict[str, figures.Number]) -> dict[bytes, Reply]:
    return {name.encode(): value for name, value in row.items() if value is not None}


@local("advise")
async def advise(router: Router, session: Session) -> Reply:
    """JSON of every shard, in their order; of one that does not answer `shard` and `reason`."""
    replies: list[bytes] = []
    for shard in range(router.shard_count):
        try:
            found: dict[str, Any] = msgspec.msgpack.decode(await router.call(shard, "_advice", []))
        except CommandError as error:
            found = {"shard": shard, "reason": error.message}
        else:
            found["prefixes"] = [
                (name.decode("utf-8", "backslashreplace"), size, hits) for name, size, hits in found.get("prefixes", [])
            ]
        replies.append(msgspec.json.encode(found))
    return replies
