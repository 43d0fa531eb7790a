"""SUBSCRIBE and its family, and PUBSUB. Who listens to what is compiled (mux/channels.pxi); PUBLISH goes to a shard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kache.errors import CommandError
from kache.replies import OK, Reply
from kache.wire import link as wire_link

from ..registry import local

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__: list[str] = []


@local("subscribe")
def subscribe(router: Router, session: Session, *channels: bytes) -> Reply:
    """A confirmation for each channel, once its shard knows."""
    return session.subscribe(wire_link.CHANNEL, channels)


@local("psubscribe")
def psubscribe(router: Router, session: Session, *patterns: bytes) -> Reply:
    """The same for patterns, once all shards know."""
    return session.subscribe(wire_link.PATTERN, patterns)


@local("ssubscribe")
def ssubscribe(router: Router, session: Session, *channels: bytes) -> Reply:
    """The same for shard channels, which have names of their own."""
    return session.subscribe(wire_link.SHARD_CHANNEL, channels)


@local("unsubscribe")
def unsubscribe(router: Router, session: Session, *channels: bytes) -> Reply:
    """A confirmation for each channel, or for each that there was."""
    return session.unsubscribe(wire_link.CHANNEL, channels)


@local("punsubscribe")
def punsubscribe(router: Router, session: Session, *patterns: bytes) -> Reply:
    """The same for patterns."""
    return session.unsubscribe(wire_link.PATTERN, patterns)


@local("sunsubscribe")
def sunsubscribe(router: Router, session: Session, *channels: bytes) -> Reply:
    """The same for shard channels."""
    return session.unsubscribe(wire_link.SHARD_CHANNEL, channels)


@local("monitor")
async def monitor(router: Router, session: Session) -> Reply:
    """Every command of the cluster from here on."""
    if session.led is not None:
        raise CommandError("ERR MONITOR isn't allowed for DENY BLOCKING client")
    await session.monitor()
    return OK


@local("pubsub|channels")
async def pubsub_channels(router: Router, session: Session, *pattern: bytes) -> Reply:
    """The channels that anybody listens to, in the cluster."""
    return await listened(router, wire_link.CHANNEL, "CHANNELS", pattern)


@local("pubsub|shardchannels")
async def pubsub_shardchannels(router: Router, session: Session, *pattern: bytes) -> Reply:
    """The shard channels that anybody listens to."""
    return await listened(router, wire_link.SHARD_CHANNEL, "SHARDCHANNELS", pattern)


async def listened(router: Router, kind: int, command: str, pattern: tuple[bytes, ...]) -> list[bytes]:
    """The names that anybody listens to; some are known to every shard."""
    if len(pattern) > 1:
        raise CommandError(f"ERR unknown subcommand or wrong number of arguments for '{command}'. Try PUBSUB HELP.")
    found: dict[bytes, None] = {}
    for names in await router.call_all("_listened", [b"%d" % kind, *pattern]):
        found.update(dict.fromkeys(names))
    return list(found)


@local("pubsub|numsub")
async def pubsub_numsub(router: Router, session: Session, *channels: bytes) -> Reply:
    """Each channel with the number of its listeners, in the order of the request."""
    return await _counted(router, wire_link.CHANNEL, channels)


@local("pubsub|shardnumsub")
async def pubsub_shardnumsub(router: Router, session: Session, *channels: bytes) -> Reply:
    """The same for shard channels."""
    return await _counted(router, wire_link.SHARD_CHANNEL, channels)


async def _counted(router: Router, kind: int, channels: tuple[bytes, ...]) -> dict[bytes, int] | list[bytes | int]:
    by_shard: dict[int, list[bytes]] = {}
    for channel in dict.fromkeys(channels):
        by_shard.setdefault(router.shard_of(channel), []).append(channel)
    asked = [(own, router.call(shard, "_listeners", [b"%d" % kind, *own])) for shard, own in by_shard.items()]
    counts: dict[bytes, int] = {}
    for own, answer in asked:
        counts.update(zip(own, await answer, strict=True))
    return [word for channel in channels for word in (channel, counts[channel])]


@local("pubsub|numpat")
async def pubsub_numpat(router: Router, session: Session) -> Reply:
    """Every shard knows all patterns: whichever is up is asked."""
    shard = next((link.index for link in router.links if link.state == "up"), 0)
    return len(await router.call(shard, "_listened", [b"%d" % wire_link.PATTERN]))
