"""READY: whether every shard executes commands at this moment, and which one does not.

PING is the router's own answer: it says that clients are served, also while shards load, are down or do not move. READY is
what a load balancer, a container's health check or a script that waits for a start wants to know. Two things are asked at
once, and both have to be well: the supervisor, which knows why a process is not up (`kache.cluster.status.unready`), and every
shard itself, with a question that it refuses when it would refuse a read; behind a Redis Cluster every master of it.

Whoever has logged in may ask, whatever else that user may do, so that the user of a probe needs no rights. Those who ask at
the same time share one answer: they cost the shards one question.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kache.cluster.control import ControlError
from kache.cluster.messages import StatusReply, StatusRequest
from kache.cluster.status import unready
from kache.errors import CommandError
from kache.replies import OK, Reply

from ..registry import local

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__: list[str] = []

PATIENCE_SECONDS = 1.0
"""How long everybody who is asked may take: less than the timeouts of probes, which then learn who did not answer."""

_under_way: dict[int, asyncio.Task[list[str]]] = {}
"""By the id of a router: what is being asked, for whoever comes meanwhile."""


@local("ready")
async def ready(router: Router, session: Session) -> Reply:
    """OK, or NOTREADY with the reasons in one line."""
    if not session.authenticated:
        raise CommandError("NOAUTH Authentication required.")
    place = id(router)
    task = _under_way.get(place)
    if task is None:
        task = _under_way[place] = asyncio.ensure_future(_reasons(router))
        task.add_done_callback(lambda _: _under_way.pop(place, None))
    reasons = await asyncio.shield(task)
    if reasons:
        raise CommandError(f"NOTREADY {'; '.join(reasons)}".replace("\r", " ").replace("\n", " "))
    return OK


async def _reasons(router: Router) -> list[str]:
    """Why not: first what the supervisor says, then what shards say of whom it had nothing to say."""
    if router.remote is not None:
        told, refused = await asyncio.gather(_told(router), _refused_by_nodes(router))
        return told + refused
    told, *asked = await asyncio.gather(
        _told(router), *(_refused(router, shard) for shard in range(router.shard_count))
    )
    known = {" ".join(reason.split(" ", 2)[:2]) for reason in told}
    return told + [reason for shard, reason in enumerate(asked) if reason and f"shard {shard}" not in known]


async def _told(router: Router) -> list[str]:
    try:
        reply = await asyncio.wait_for(router.control.request(StatusRequest(0)), PATIENCE_SECONDS)
    except TimeoutError:
        return [f"the supervisor does not answer within {PATIENCE_SECONDS:g} s"]
    except ControlError as error:
        return [str(error)]
    return unready(reply.status) if isinstance(reply, StatusReply) else []


async def _refused(router: Router, shard: int) -> str:
    """Why this shard would not execute a read; empty when it would."""
    try:
        await router.call(shard, "_slot_size", [b"0"], timeout_ms=int(1000 * PATIENCE_SECONDS))
    except CommandError as error:
        if error.code in ("TIMEOUT", "UNCERTAIN"):
            return f"shard {shard} does not answer within {PATIENCE_SECONDS:g} s"
        return _reason(f"shard {shard}", error)
    return ""


def _reason(name: str, error: CommandError) -> str:
    """What an error says of whom it is about, if it does; else that it was the answer."""
    text = error.message.removesuffix("; nothing was executed").rstrip(".")
    told = text.removeprefix("CLUSTERDOWN ")
    return told if told.startswith(f"{name} ") else f"{name} executes no commands ({text})"


async def _refused_by_nodes(router: Router) -> list[str]:
    director = router.remote.director
    masters = director.masters()
    unowned = director.map.count(None)
    reasons = [f"{unowned} slots have no owner" if masters else "no node says where the slots are"] if unowned else []
    asked = await asyncio.gather(*(director.ask_number(number, "PING") for number in masters), return_exceptions=True)
    for number, reply in zip(masters, asked, strict=True):
        if isinstance(reply, BaseException):
            if not isinstance(reply, CommandError):
                raise reply
            reasons.append(_reason(f"node {director.nodes[number].name}", reply))
    return reasons
