"""COMMAND and the HELP texts: what the command table says of itself, and what MEMORY says of the cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kache.commands import TABLE, lookup
from kache.commands.describe import (
    categories,
    command_keys,
    command_keys_with_flags,
    docs,
    help_lines,
    info,
    listed,
    subcommands,
)
from kache.config.kinds import format_size
from kache.errors import SYNTAX, CommandError
from kache.glob import compile_glob
from kache.replies import Reply, SetReply, Verbatim
from kache.stats import MemoryUse, ShardStats

from ..registry import local
from .arguments import text
from .statistics import gather, gather_routers

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__: list[str] = []


@local("command")
def command(router: Router, session: Session) -> Reply:
    """Every command as COMMAND INFO describes it."""
    return [info(row, session.dialect) for row in listed(session.dialect, router.module_rows)]


@local("command|count")
def command_count(router: Router, session: Session) -> Reply:
    """How many commands there are, subcommands not counted."""
    return len(listed(session.dialect, router.module_rows))


@local("command|info")
def command_info(router: Router, session: Session, *names: bytes) -> Reply:
    """The asked commands, null for an unknown one."""
    if not names:
        return command(router, session)
    rows = [lookup(name, session.dialect, router.module_rows) for name in names]
    return [None if row is None else info(row, session.dialect) for row in rows]


@local("command|docs")
def command_docs(router: Router, session: Session, *names: bytes) -> Reply:
    """A map of name and documentation; unknown names are left out."""
    rows = (
        [lookup(name, session.dialect, router.module_rows) for name in names]
        if names
        else list(listed(session.dialect, router.module_rows))
    )
    return {row.name.encode(): docs(row, session.dialect) for row in rows if row is not None}


@local("command|getkeys")
def command_getkeys(router: Router, session: Session, *words: bytes) -> Reply:
    """The keys of a complete command."""
    return command_keys(words, session.dialect, router.module_rows)


@local("command|getkeysandflags")
def command_getkeysandflags(router: Router, session: Session, *words: bytes) -> Reply:
    """The same with what is done with each of them."""
    return [
        [key, SetReply(flags)] for key, flags in command_keys_with_flags(words, session.dialect, router.module_rows)
    ]


@local("command|list")
def command_list(router: Router, session: Session, *options: bytes) -> Reply:
    """Names, those of subcommands too; optionally FILTERBY MODULE|ACLCAT|PATTERN."""
    dialect = session.dialect
    everything = [each for row in listed(dialect, router.module_rows) for each in (row, *subcommands(row, dialect))]
    if not options:
        return [row.name.encode() for row in everything]
    if len(options) != 3 or options[0].upper() != b"FILTERBY":
        raise CommandError(SYNTAX)
    kind, value = options[1].upper(), options[2]
    if kind == b"MODULE":
        return [row.name.encode() for row in router.modules.get(value.decode("utf-8", "replace"), ())]
    if kind == b"ACLCAT":
        wanted = f"@{text(value).lower()}"
        return [row.name.encode() for row in everything if wanted in categories(row)]
    if kind == b"PATTERN":
        matches = compile_glob(value.lower())
        return [row.name.encode() for row in everything if matches(row.name.encode())]
    raise CommandError(SYNTAX)


def _helper(container: str) -> Callable[..., Reply]:
    def show(router: Router, session: Session) -> Reply:
        return help_lines(container)

    return show


def _register_helps() -> None:
    for row in TABLE:
        if row.name.endswith("|help") and row.route == "local":
            local(row.key)(_helper(row.name.partition("|")[0]))


_register_helps()


@local("memory|doctor")
async def memory_doctor(router: Router, session: Session) -> Reply:
    """One paragraph about what is unusual, for people."""
    shards, silent = await gather(router)
    remarks = [f"Shard {index} does not answer: {reason}" for index, reason in sorted(silent.items())]
    remarks += _about_the_limit(shards)
    for shard in shards:
        ratio = MemoryUse([shard]).fragmentation
        if shard.used_memory > 50 * 1024 * 1024 and ratio > 1.5:
            remarks.append(
                f"Shard {shard.index} holds {ratio:.1f} times the memory of its data: fragmentation, or a peak that "
                "was larger."
            )
    return Verbatim(("\n".join(remarks) if remarks else "Nothing unusual.").encode())


def _about_the_limit(shards: list[ShardStats]) -> list[str]:
    """What there is to say when maxmemory is reached, which is one limit for all shards."""
    limit = max((shard.maxmemory for shard in shards), default=0)
    used = sum(shard.used_memory for shard in shards)
    if not limit or used <= 0.95 * limit:
        return []
    does = "refuses writes" if shards[0].policy == "noeviction" else f"evicts by {shards[0].policy}"
    share = limit // len(shards)
    return [
        f"The cluster is full: {format_size(used)} of {format_size(limit)} are used, and it {does}.",
        *(
            f"Shard {shard.index} uses {format_size(shard.used_memory)}, more than its share of {format_size(share)}: it "
            "gives way when others need theirs."
            for shard in shards
            if shard.used_memory > 1.25 * share
        ),
    ]


@local("memory|stats")
async def memory_stats(router: Router, session: Session) -> Reply:
    """Sums over the shards, with the field names of Redis that have a meaning here."""
    shards, _silent = await gather(router)
    counters = (await gather_routers(router)).counters
    use = MemoryUse(shards, int(counters["client_bytes"]), int(counters["client_bytes_peak"]))
    keys = sum(one.keys for shard in shards for one in shard.databases)
    return {
        b"peak.allocated": use.peak,
        b"total.allocated": use.used,
        b"startup.allocated": 0,
        b"shards.startup": use.startup,
        b"cluster.links": use.links,
        b"clients.normal": use.clients,
        b"aof.buffer": use.log,
        b"slot.tables": use.slots,
        b"overhead.total": use.overhead,
        b"keys.count": keys,
        b"keys.bytes-per-key": use.dataset // keys if keys else 0,
        b"dataset.bytes": use.dataset,
        b"dataset.percentage": 100.0 * use.dataset / use.used if use.used else 0.0,
        b"peak.percentage": 100.0 * use.used / use.peak if use.peak else 0.0,
        b"fragmentation": use.fragmentation,
        b"rss.bytes": use.resident,
        b"maxmemory": max((shard.maxmemory for shard in shards), default=0),
        **{
            b"shard.%d" % shard.index: {
                b"dataset.bytes": shard.used_memory,
                b"allowed.bytes": shard.allowed_memory,
                b"rss.bytes": shard.resident_memory,
            }
            for shard in shards
        },
    }
