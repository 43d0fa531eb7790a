"""Handlers of streams: what is added, removed, and read by range. Groups are in stream_groups.py, XREAD in stream_reads.py.

Promises: trimming by ``~`` is decided here, once; what the keyspace is told, and so the log, is exact.
Called only by the shard's execution point, through the registry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kache.errors import NO_SUCH_KEY, SYNTAX, CommandError
from kache.replies import NULL_ARRAY, OK, Reply

from ..engine.stream_chunks import node_entries
from .arguments import integer
from .registry import command
from .stream_ids import interval, parse_id, parse_partial

if TYPE_CHECKING:
    from ..engine.engine import Context, Keyspace

__all__: list[str] = []

_NODES: Final = 100
"""How many chunks a trim with ``~`` looks at, unless LIMIT says otherwise."""
_LONGEST_TRIM: Final = 1_000_000
_BOTH: Final = "ERR syntax error, MAXLEN and MINID options at the same time are not compatible"


# Adding and trimming -------------------------------------------------------------------------------
@dataclass(slots=True)
class _Options:
    """What XADD and XTRIM are told beside the entry. `by`: b"MAXLEN", b"MINID" or empty; `most`: 0 for any number."""

    by: bytes = b""
    threshold: int = 0
    whole_nodes: bool = False
    most: int = 0
    limited: bool = False
    no_stream: bool = False
    ms: int | None = None
    seq: int | None = None

    def check(self, adds: bool) -> None:
        """The errors about options that do not go together, and the limit where none was given."""
        if self.most and not self.by:
            raise CommandError("ERR syntax error, LIMIT cannot be used without specifying a trimming strategy")
        if not adds and not self.by:
            raise CommandError("ERR syntax error, XTRIM must be called with a trimming strategy")
        if self.limited and not self.whole_nodes:
            raise CommandError("ERR syntax error, LIMIT cannot be used without the special ~ option")
        if not self.limited and self.whole_nodes:
            self.most = min(_NODES * node_entries() or 10_000, _LONGEST_TRIM)


def _read_threshold(options: _Options, word: bytes, args: tuple[bytes, ...], place: int) -> int:
    """MAXLEN or MINID at `place` and what follows it; the place behind."""
    if options.by:
        raise CommandError(_BOTH)
    options.whole_nodes = False
    place += 1
    if len(args) - place >= 2 and args[place] in (b"~", b"="):
        options.whole_nodes = args[place] == b"~"
        place += 1
    if word == b"MAXLEN":
        options.threshold = integer(args[place])
        if options.threshold < 0:
            raise CommandError("ERR The MAXLEN argument must be >= 0.")
    else:
        options.threshold = parse_id(args[place])
    options.by = word
    return place + 1


def _read_options(args: tuple[bytes, ...], *, adds: bool) -> tuple[_Options, int]:
    """The options of XADD or XTRIM, and for XADD where the fields begin."""
    options = _Options()
    place = 0
    while place < len(args):
        raw = args[place]
        word = raw.upper()
        more = place + 1 < len(args)
        if adds and raw == b"*":
            place += 1
            break
        if word in (b"MAXLEN", b"MINID") and more:
            place = _read_threshold(options, word, args, place)
        elif word == b"LIMIT" and more:
            options.most = integer(args[place + 1])
            if options.most < 0:
                raise CommandError("ERR The LIMIT argument must be >= 0.")
            options.limited = True
            place += 2
        elif adds and word == b"NOMKSTREAM":
            options.no_stream = True
            place += 1
        elif adds:
            options.ms, options.seq = parse_partial(raw)
            place += 1
            break
        else:
            raise CommandError(SYNTAX)
    else:
        # Without an id there are no fields either.
        place += 1
    options.check(adds)
    return options, place


def _trim(ks: Keyspace, key: bytes, options: _Options) -> int:
    stream = ks.stream_get(key)
    if stream is None:
        return 0
    decide = stream.until_length if options.by == b"MAXLEN" else stream.until_id
    found = decide(options.threshold, options.whole_nodes, options.most)
    return 0 if found is None else ks.stream_trim(key, found[0])


@command("xadd")
def xadd(ctx: Context, key: bytes, *args: bytes) -> Reply:
    options, place = _read_options(args, adds=True)
    fields = args[place:]
    if len(fields) < 2 or len(fields) % 2:
        raise CommandError("ERR wrong number of arguments for 'xadd' command")
    if options.ms == 0 and options.seq == 0:
        raise CommandError("ERR The ID specified in XADD must be greater than 0-0")
    if ctx.keys.stream_get(key) is None and options.no_stream:
        return None
    found = ctx.keys.stream_add(key, fields, options.ms, options.seq)
    if options.by:
        _trim(ctx.keys, key, options)
    return found


@command("xtrim")
def xtrim(ctx: Context, key: bytes, *args: bytes) -> Reply:
    options, _ = _read_options(args, adds=False)
    return _trim(ctx.keys, key, options)


@command("xdel")
def xdel(ctx: Context, key: bytes, *args: bytes) -> Reply:
    if ctx.keys.stream_get(key) is None:
        return 0
    return ctx.keys.stream_delete(key, [parse_id(raw) for raw in args])


@command("xsetid")
def xsetid(ctx: Context, key: bytes, raw: bytes, *args: bytes) -> Reply:
    last = parse_id(raw)
    added, max_deleted = _set_options(last, args)
    stream = ctx.keys.stream_get(key)
    if stream is None:
        raise CommandError(NO_SUCH_KEY)
    if stream.length:
        if last < stream.last_entry_id:
            raise CommandError("ERR The ID specified in XSETID is smaller than the target stream top item")
        if added is not None and stream.length > added:
            raise CommandError("ERR The entries_added specified in XSETID is smaller than the target stream length")
    if last < stream.max_deleted_id:
        raise CommandError("ERR The ID specified in XSETID is smaller than current max_deleted_entry_id")
    ctx.keys.stream_set_meta(
        key, last, stream.added if added is None else added, max_deleted or stream.max_deleted_id, event="xsetid"
    )
    return OK


def _set_options(last: int, args: tuple[bytes, ...]) -> tuple[int | None, int]:
    """ENTRIESADDED and MAXDELETEDID."""
    added, max_deleted = None, 0
    for place in range(0, len(args), 2):
        word, more = args[place].upper(), place + 1 < len(args)
        if word == b"ENTRIESADDED" and more:
            added = integer(args[place + 1])
            if added < 0:
                raise CommandError("ERR entries_added must be positive")
        elif word == b"MAXDELETEDID" and more:
            max_deleted = parse_id(args[place + 1])
            if last < max_deleted:
                raise CommandError("ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id")
        else:
            raise CommandError(SYNTAX)
    return added, max_deleted


# Reading by range ----------------------------------------------------------------------------------
@command("xlen")
def xlen(ctx: Context, key: bytes) -> Reply:
    stream = ctx.keys.stream_get(key)
    return 0 if stream is None else stream.length


def _range(ctx: Context, key: bytes, first: bytes, last: bytes, args: tuple[bytes, ...], *, reverse: bool) -> Reply:
    bounds = interval(first, last)
    count = -1
    for place in range(0, len(args), 2):
        if args[place].upper() != b"COUNT" or place + 1 == len(args):
            raise CommandError(SYNTAX)
        count = max(integer(args[place + 1]), 0)
    stream = ctx.keys.stream_get(key)
    if stream is None:
        return []
    return NULL_ARRAY if count == 0 else stream.range(*bounds, count, reverse)


@command("xrange")
def xrange(ctx: Context, key: bytes, first: bytes, last: bytes, *args: bytes) -> Reply:
    return _range(ctx, key, first, last, args, reverse=False)


@command("xrevrange")
def xrevrange(ctx: Context, key: bytes, last: bytes, first: bytes, *args: bytes) -> Reply:
    return _range(ctx, key, first, last, args, reverse=True)
