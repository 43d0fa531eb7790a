"""Commands in front of a Redis Cluster that do not simply go to the node of their keys.

`HANDLERS` are by row, ``f(router, session, *arguments) -> Reply`` or a coroutine function of the same shape; a coroutine
starts when all that its client asked before is answered, since it may concern any node. What a row of the table of
commands calls refused is refused here in its words.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kache.commands import TABLE, Row
from kache.errors import CommandError
from kache.replies import OK, Reply
from kache.slots import slot_of_key
from kache.wire.link import CHANNEL, PATTERN, SHARD_CHANNEL

from ..peers import answers, ask
from .asking import ask_all
from .binary import BINARY
from .dialects import DIALECTS
from .scan import scan
from .scripts import SCRIPTS
from .waiting import WAITING
from .watching import watch
from .zquery import zquery

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__ = ["HANDLERS"]

Handler = Callable[..., Any]

HANDLERS: Final[dict[str, Handler]] = {}


def _handler(key: str) -> Callable[[Handler], Handler]:
    def add(function: Handler) -> Handler:
        HANDLERS[key] = function
        return function

    return add


@_handler("keys")
async def keys(router: Router, session: Session, pattern: bytes) -> Reply:
    """Those of all masters."""
    return [key for found in await ask_all(router, session, b"KEYS", pattern) for key in found]


@_handler("dbsize")
async def dbsize(router: Router, session: Session) -> Reply:
    """Of all masters."""
    return sum(await ask_all(router, session, b"DBSIZE"))


@_handler("randomkey")
async def randomkey(router: Router, session: Session) -> Reply:
    """Of a master chosen by how many keys it has."""
    director = router.remote.director
    masters = director.masters()
    sizes = await ask_all(router, session, b"DBSIZE")
    if len(sizes) != len(masters) or not sum(sizes):
        return None
    chosen = random.choices(masters, weights=sizes)[0]
    return await router.remote.ask_node(await director.lane(chosen, session), [b"RANDOMKEY"])


async def _flush(router: Router, session: Session, *words: bytes) -> Reply:
    await ask_all(router, session, *words)
    return OK


@_handler("flushall")
async def flushall(router: Router, session: Session, *options: bytes) -> Reply:
    """Every master's."""
    return await _flush(router, session, b"FLUSHALL", *options)


@_handler("flushdb")
async def flushdb(router: Router, session: Session, *options: bytes) -> Reply:
    """Every master's."""
    return await _flush(router, session, b"FLUSHDB", *options)


@_handler("select")
async def select(router: Router, session: Session, index: bytes) -> Reply:
    """Every master must have it, or the error is theirs; connections of that database follow."""
    if index != b"0":
        director = router.remote.director
        await asyncio.gather(
            *[director.ask_number(each, "SELECT", index.decode("latin-1")) for each in director.masters()]
        )
    session.db = int(index)
    return OK


async def _owner_asked(router: Router, session: Session, words: Sequence[bytes], slot: bytes) -> Reply:
    if not slot.isdigit() or int(slot) >= 16384:
        raise CommandError("ERR Invalid slot")
    number = router.remote.director.map[int(slot)]
    if number is None:
        raise CommandError(f"CLUSTERDOWN slot {int(slot)} has no reachable owner; nothing was executed")
    return await router.remote.ask_node(await router.remote.director.lane(number, session), list(words))


@_handler("cluster|countkeysinslot")
async def countkeysinslot(router: Router, session: Session, slot: bytes) -> Reply:
    """As its owner counts them."""
    return await _owner_asked(router, session, (b"CLUSTER", b"COUNTKEYSINSLOT", slot), slot)


@_handler("cluster|getkeysinslot")
async def getkeysinslot(router: Router, session: Session, slot: bytes, count: bytes) -> Reply:
    """As its owner has them."""
    return await _owner_asked(router, session, (b"CLUSTER", b"GETKEYSINSLOT", slot, count), slot)


@_handler("pubsub|channels")
async def channels(router: Router, session: Session, *pattern: bytes) -> Reply:
    """Those of all nodes."""
    return _together(await ask_all(router, session, b"PUBSUB", b"CHANNELS", *pattern))


@_handler("pubsub|shardchannels")
async def shardchannels(router: Router, session: Session, *pattern: bytes) -> Reply:
    """Those of all nodes."""
    return _together(await ask_all(router, session, b"PUBSUB", b"SHARDCHANNELS", *pattern))


def _together(found: list[Any]) -> list[bytes]:
    return list(dict.fromkeys(name for names in found for name in names))


@answers("listening")
def _listening(router: Router, words: Sequence[bytes]) -> bytes:
    return msgspec.msgpack.encode(router.listening(int(words[0])))


async def _listened(router: Router, kind: int) -> dict[bytes, int]:
    """How many clients of all routers listen to what of a kind."""
    counts = dict(router.listening(kind))
    for answer in (await ask(router, "listening", b"%d" % kind)).values():
        for name, count in msgspec.msgpack.decode(answer, type=dict[bytes, int]).items():
            counts[name] = counts.get(name, 0) + count
    return counts


@_handler("pubsub|numsub")
async def numsub(router: Router, session: Session, *names: bytes) -> Reply:
    """The clients of all routers."""
    counts = await _listened(router, CHANNEL)
    return [word for name in names for word in (name, counts.get(name, 0))]


@_handler("pubsub|shardnumsub")
async def shardnumsub(router: Router, session: Session, *names: bytes) -> Reply:
    """The clients of all routers."""
    counts = await _listened(router, SHARD_CHANNEL)
    return [word for name in names for word in (name, counts.get(name, 0))]


@_handler("pubsub|numpat")
async def numpat(router: Router, session: Session) -> Reply:
    """The patterns of the clients of all routers."""
    return len(await _listened(router, PATTERN))


@_handler("lget")
async def lget(router: Router, session: Session, key: bytes) -> Reply:
    """Sent as LRANGE key 0 -1."""
    return await router.remote.ask_slot(session, slot_of_key(key), [b"LRANGE", key, b"0", b"-1"], True)


@_handler("advise")
def advise(router: Router, session: Session, *words: bytes) -> Reply:
    """The nodes have no simulations."""
    return []


HANDLERS["scan"] = scan
HANDLERS.update(SCRIPTS)
HANDLERS.update(DIALECTS)
HANDLERS.update(BINARY)
HANDLERS["watch"] = watch
HANDLERS.update(WAITING)
HANDLERS["zquery"] = zquery


def _refusing(text: str) -> Handler:
    def refuse(router: Router, session: Session, *arguments: bytes) -> Reply:
        raise CommandError(text)

    return refuse


def _shown(row: Row) -> str:
    return row.name.replace("|", " ").upper()


for _row in TABLE:
    if "internal" in _row.flags or _row.dialect == "binary":
        continue
    if _row.cluster == "refused":
        HANDLERS[_row.key] = _refusing(
            f"ERR {_shown(_row)} is refused in front of a Redis Cluster: {_row.cluster_text}"
        )
