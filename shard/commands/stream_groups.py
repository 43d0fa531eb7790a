"""Handlers of consumer groups: XGROUP, XACK, XPENDING, XCLAIM, XAUTOCLAIM. What a group reads is in stream_reads.py."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kache.errors import SYNTAX, CommandError
from kache.replies import NULL_ARRAY, OK, Reply

from ..engine.engine import Keyspace
from .arguments import INT64_MAX, bounded_integer, integer
from .registry import command
from .stream_ids import first_of, id_text, interval, parse_id

if TYPE_CHECKING:
    from ..engine.consumer_groups import Group
    from ..engine.engine import Context, Deferred
    from ..engine.stream import Stream

__all__ = ["group_of", "no_group"]

_NO_KEY: Final = (
    "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option "
    "to create an empty stream automatically."
)
_MANY: Final = 2000
"""Pending entries from which a consumer is deleted in slices: fewer take some two milliseconds."""
_AT_ONCE: Final = 50
_SLICE_NS: Final = 500_000
_ATTEMPTS: Final = 10
"""Entries that XAUTOCLAIM looks at for each that it may return."""


def _text(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")


def no_group(key: bytes, group: bytes) -> CommandError:
    """The error of a group that is named and not there, where the key is."""
    return CommandError(f"NOGROUP No such consumer group '{_text(group)}' for key name '{_text(key)}'")


def group_of(ks: Keyspace, key: bytes, name: bytes) -> tuple[Stream, Group] | None:
    """The stream and its group, None without either; WRONGTYPE for another type."""
    stream = ks.stream_get(key)
    group = None if stream is None else stream.group(name)
    return None if stream is None or group is None else (stream, group)


def _required(ks: Keyspace, key: bytes, name: bytes) -> tuple[Stream, Group]:
    found = group_of(ks, key, name)
    if found is None:
        raise CommandError(f"NOGROUP No such key '{_text(key)}' or consumer group '{_text(name)}'")
    return found


# XGROUP --------------------------------------------------------------------------------------------
def _group_options(name: str, args: tuple[bytes, ...]) -> tuple[bool, int]:
    """(MKSTREAM, ENTRIESREAD or -1)."""
    make, read = False, -1
    place = 0
    while place < len(args):
        word = args[place].upper()
        if name == "CREATE" and word == b"MKSTREAM":
            make = True
        elif word == b"ENTRIESREAD" and place + 1 < len(args):
            read = integer(args[place + 1])
            if read < -1:
                raise CommandError("ERR value for ENTRIESREAD must be positive or -1")
            place += 1
        else:
            raise _bad_subcommand(name)
        place += 1
    return make, read


def _bad_subcommand(name: str) -> CommandError:
    return CommandError(f"ERR unknown subcommand or wrong number of arguments for '{name}'. Try XGROUP HELP.")


def _existing(ks: Keyspace, key: bytes) -> Stream:
    stream = ks.stream_get(key)
    if stream is None:
        raise CommandError(_NO_KEY)
    return stream


@command("xgroup|create")
def xgroup_create(ctx: Context, key: bytes, name: bytes, raw: bytes, *args: bytes) -> Reply:
    ks = ctx.keys
    make, read = _group_options("CREATE", args)
    stream = ks.stream_get(key)
    if stream is None and not make:
        raise CommandError(_NO_KEY)
    if len(args) > 3:
        raise _bad_subcommand("CREATE")
    last = (0 if stream is None else stream.last_id) if raw == b"$" else parse_id(raw)
    if stream is not None and stream.group(name) is not None:
        raise CommandError("BUSYGROUP Consumer Group name already exists")
    if stream is None:
        ks.stream_set_meta(key, 0, 0, 0)
    ks.group_put(key, name, last, read, event="xgroup-create")
    return OK


@command("xgroup|setid")
def xgroup_setid(ctx: Context, key: bytes, name: bytes, raw: bytes, *args: bytes) -> Reply:
    _, read = _group_options("SETID", args)
    stream = _existing(ctx.keys, key)
    if stream.group(name) is None:
        raise no_group(key, name)
    if len(args) > 2:
        raise _bad_subcommand("SETID")
    ctx.keys.group_put(key, name, stream.last_id if raw == b"$" else parse_id(raw), read, event="xgroup-setid")
    return OK


@command("xgroup|destroy")
def xgroup_destroy(ctx: Context, key: bytes, name: bytes) -> Reply:
    _existing(ctx.keys, key)
    return int(ctx.keys.group_drop(key, name))


@command("xgroup|createconsumer")
def xgroup_createconsumer(ctx: Context, key: bytes, name: bytes, consumer: bytes) -> Reply:
    stream = _existing(ctx.keys, key)
    group = stream.group(name)
    if group is None:
        raise no_group(key, name)
    if consumer in group.consumers:
        return 0
    ctx.keys.consumer_put(key, name, consumer, ctx.keys.now_ms, -1, event="xgroup-createconsumer")
    return 1


@dataclass(slots=True)
class _Leaving:
    """What a consumer has is taken from it in slices before it is deleted, where others of its group have something, too.

    Alone it would go as a whole (`Group.detach_all`).
    """

    ks: Keyspace
    key: bytes
    name: bytes
    consumer: bytes
    dropped: int = 0

    def step(self) -> bool:
        """Takes some; whether there is enough left for another slice. The key may have expired meanwhile."""
        ks = self.ks
        ends = time.perf_counter_ns() + _SLICE_NS
        while True:
            found = group_of(ks, self.key, self.name) if ks.type_of(self.key) == "stream" else None
            known = None if found is None else found[1].consumers.get(self.consumer)
            if known is None or known.count < _AT_ONCE:
                return False
            self.dropped += ks.pending_drop(self.key, self.name, known.last(_AT_ONCE))
            if time.perf_counter_ns() >= ends:
                return True


@command("xgroup|delconsumer")
def xgroup_delconsumer(ctx: Context, key: bytes, name: bytes, consumer: bytes) -> Reply | Deferred:
    stream = _existing(ctx.keys, key)
    group = stream.group(name)
    if group is None:
        raise no_group(key, name)
    done = ctx.shard.locks.work_done(ctx)
    known = group.consumers.get(consumer)
    if done is None and known is not None and _MANY <= known.count < len(group):
        leaving = _Leaving(Keyspace(ctx.keys.store, ctx.keys.db), key, name, consumer)
        waits = ctx.shard.locks.work_first(ctx, "xgroup|delconsumer", (key, name, consumer), key, leaving)
        if waits is not None:
            return waits
    before = done.dropped if isinstance(done, _Leaving) else 0
    return before + (ctx.keys.consumer_drop(key, name, consumer) or 0)


# What is pending -----------------------------------------------------------------------------------
@command("xack")
def xack(ctx: Context, key: bytes, name: bytes, *args: bytes) -> Reply:
    if group_of(ctx.keys, key, name) is None:
        return 0
    return ctx.keys.pending_drop(key, name, [parse_id(raw) for raw in args])


@command("xpending")
def xpending(ctx: Context, key: bytes, name: bytes, *args: bytes) -> Reply:
    if args and not 3 <= len(args) <= 6:
        raise CommandError(SYNTAX)
    min_idle = 0
    if args and args[0].upper() == b"IDLE":
        min_idle = integer(args[1])
        if len(args) < 5:
            raise CommandError(SYNTAX)
        args = args[2:]
    if not args:
        return _pending_summary(_required(ctx.keys, key, name)[1])
    count = max(integer(args[2]), 0)
    first, last = interval(args[0], args[1])
    _, group = _required(ctx.keys, key, name)
    order = group.order
    if len(args) > 3:
        consumer = group.consumers.get(args[3])
        if consumer is None:
            return []
        order = consumer
    found: list[Any] = []
    for number in order.from_id(first):
        if number > last or len(found) == count:
            break
        pending = group.pending[number]
        idle = ctx.keys.now_ms - pending.delivered
        if idle >= min_idle or not min_idle:
            found.append([id_text(number), pending.consumer, max(idle, 0), pending.count])
    return found


def _pending_summary(group: Group) -> Reply:
    bounds = group.bounds()
    if bounds is None:
        return [0, None, None, NULL_ARRAY]
    counts = [[name, b"%d" % each.count] for name, each in sorted(group.consumers.items()) if each.count]
    return [len(group.pending), id_text(bounds[0]), id_text(bounds[1]), counts]


# Claims --------------------------------------------------------------------------------------------
@dataclass(slots=True)
class _Claim:
    """Who claims entries of a group, and what becomes of them."""

    ks: Keyspace
    key: bytes
    name: bytes
    consumer: bytes
    group: Group
    stream: Stream
    min_idle: int
    delivered: int
    times: int = -1
    force: bool = False
    only_ids: bool = False
    last: int = 0
    met: bool = False

    def take(self, number: int) -> bool:
        """Claims one entry that is there; whether its consumer has it now."""
        pending = self.group.pending.get(number)
        if pending is None and not self.force:
            return False
        if pending is not None and self.min_idle and self.ks.now_ms - pending.delivered < self.min_idle:
            return False
        if not self.met:
            self.met = True
            now = self.ks.now_ms
            self.ks.consumer_put(self.key, self.name, self.consumer, now, now, event="xgroup-createconsumer")
        times = 1 if pending is None else pending.count
        if self.times >= 0:
            times = self.times
        elif not self.only_ids:
            times += 1
        self.ks.pending_put(self.key, self.name, self.consumer, self.delivered, times, [number])
        return True

    def told(self, number: int) -> Reply:
        """The entry as it is answered."""
        return id_text(number) if self.only_ids else [id_text(number), self.stream.get(number)]


def _claim_options(claim: _Claim, args: tuple[bytes, ...]) -> None:
    place = 0
    while place < len(args):
        word, more = args[place].upper(), place + 1 < len(args)
        if word == b"FORCE":
            claim.force = True
        elif word == b"JUSTID":
            claim.only_ids = True
        elif word in (b"IDLE", b"TIME", b"RETRYCOUNT") and more:
            value = integer(args[place + 1], f"ERR Invalid {word.decode()} option argument for XCLAIM")
            if word == b"RETRYCOUNT":
                claim.times = value
            else:
                claim.delivered = claim.ks.now_ms - value if word == b"IDLE" else value
            place += 1
        elif word == b"LASTID" and more:
            claim.last = parse_id(args[place + 1])
            place += 1
        else:
            raise CommandError(f"ERR Unrecognized XCLAIM option '{_text(args[place])}'")
        place += 1
    if not 0 <= claim.delivered <= claim.ks.now_ms:
        claim.delivered = claim.ks.now_ms


def _leading_ids(args: tuple[bytes, ...]) -> list[int]:
    """The ids up to the first argument that is none."""
    ids = []
    for raw in args:
        try:
            ids.append(parse_id(raw))
        except CommandError:
            break
    return ids


@command("xclaim")
def xclaim(ctx: Context, key: bytes, name: bytes, consumer: bytes, raw: bytes, *args: bytes) -> Reply:
    ks = ctx.keys
    stream, group = _required(ks, key, name)
    min_idle = max(integer(raw, "ERR Invalid min-idle-time argument for XCLAIM"), 0)
    ids = _leading_ids(args)
    claim = _Claim(ks, key, name, consumer, group, stream, min_idle, ks.now_ms)
    _claim_options(claim, args[len(ids) :])
    if claim.last > group.last:
        ks.group_put(key, name, claim.last, group.read)
    found = []
    for number in ids:
        if not stream.contains(number):
            # What was deleted meanwhile is pending no longer.
            ks.pending_drop(key, name, [number])
        elif claim.take(number):
            found.append(claim.told(number))
    return found


@command("xautoclaim")
def xautoclaim(ctx: Context, key: bytes, name: bytes, consumer: bytes, raw: bytes, start: bytes, *args: bytes) -> Reply:
    ks = ctx.keys
    min_idle = max(integer(raw, "ERR Invalid min-idle-time argument for XAUTOCLAIM"), 0)
    first = first_of(start)
    count, only_ids = _autoclaim_options(args)
    stream, group = _required(ks, key, name)
    claim = _Claim(ks, key, name, consumer, group, stream, min_idle, ks.now_ms, only_ids=only_ids)
    found: list[Reply] = []
    deleted: list[int] = []
    following = 0
    # Deleted ones are dropped behind the walk: nothing may be taken away during it.
    for attempts, number in enumerate(group.order.from_id(first)):
        if attempts == count * _ATTEMPTS or len(found) + len(deleted) == count:
            following = number
            break
        if not stream.contains(number):
            deleted.append(number)
        elif claim.take(number):
            found.append(claim.told(number))
    ks.pending_drop(key, name, deleted)
    return [id_text(following), found, [id_text(number) for number in deleted]]


def _autoclaim_options(args: tuple[bytes, ...]) -> tuple[int, bool]:
    count, only_ids = 100, False
    place = 0
    while place < len(args):
        word = args[place].upper()
        if word == b"COUNT" and place + 1 < len(args):
            count = bounded_integer(args[place + 1], 1, INT64_MAX // 16, "ERR COUNT must be > 0")
            place += 1
        elif word == b"JUSTID":
            only_ids = True
        else:
            raise CommandError(SYNTAX)
        place += 1
    return count, only_ids
