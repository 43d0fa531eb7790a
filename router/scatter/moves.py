"""Commands whose keys lie on different shards and that no merge of replies can answer.

What writes is a transaction of one command (transaction.py): others wait for its keys, and see all of it or nothing.

**Compute where it lands.** What only *reads* foreign keys (ZINTER, BITOP, PFMERGE, LCS, …) is executed by the one shard
that owns the destination (or the first key), with copies of the foreign keys laid beside its own for the length of that
one command (the internal command ``_with``). The handler, its errors and its reply are those of a single server.

**Move.** What takes an element or a value away from one shard and gives it to another (RENAME, COPY, SMOVE, LMOVE):

      lock both ── read source ── write destination ── remove source ── commit ── unlock
                                          |                   |            |
         fails: nothing was changed       |                   |            |    with a log; see transaction.py
         fails or unknown: UNCERTAIN -----+-------------------+------------+    the value may be in both places, never in none

A large value travels in parts and is put together beside the destination, which it becomes in one step.

**Algebra of large sets** is in algebra.py. LMPOP and ZMPOP need none of these: they try key after key.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from kache.commands import TABLE, Row, keys_with_flags
from kache.errors import NO_SUCH_KEY, SYNTAX, WRONG_TYPE, CommandError
from kache.replies import NULL_ARRAY, OK, Reply

from ..commands.arguments import integer
from ..registry import MOVES, move
from . import algebra
from .transaction import SLICE_BYTES, SLICE_ELEMENTS, Transaction, answers, stream

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__: list[str] = []

DATABASES = 16
LARGE = 10_000
"""Elements of sets from which algebra goes in slices; fewer take their shard a millisecond or two."""

_BYTES, _ELEMENTS = b"%d" % SLICE_BYTES, b"%d" % SLICE_ELEMENTS


# Compute where it lands ---------------------------------------------------------------------------
async def compute(router: Router, session: Session, row: Row, args: tuple[bytes, ...]) -> Reply:
    """Runs `row` on the shard of the key it writes (else its first), with copies of the keys that live elsewhere."""
    located = keys_with_flags(row, args)
    keys = list(dict.fromkeys(key for key, _flags in located))
    written = [key for key, flags in located if flags[0] in ("OW", "RW")]
    home = (written or keys)[0]
    foreign = [key for key in keys if router.shard_of(key) != router.shard_of(home)]
    request = algebra.parse(row.name, args) if row.key in algebra.NAMES else None
    if row.is_write:
        async with Transaction(router, session, keys) as held:
            copies, large = await _read_small(router, session, home, foreign, request)
            if not large:
                words = [b"%d" % (len(copies) // 2), *copies, row.key.encode(), *args]
                reply = await held.perform(home, "the destination was written", "_with", *words)
                await held.finished()
                return reply
    else:
        copies, large = await _read_small(router, session, home, foreign, request)
        if not large:
            words = [b"%d" % (len(copies) // 2), *copies, row.key.encode(), *args]
            return await router.call(router.shard_of(home), "_with", words, db=session.db, session=session)
    if request is not None:
        return await algebra.run_large(router, session, request)
    return await _compute_with_large(router, session, row, args, keys, home)


async def _read_small(
    router: Router, session: Session, home: bytes, foreign: list[bytes], request: algebra.Request | None
) -> tuple[list[bytes], bool]:
    """Copies of the foreign keys, [key, image, …], and whether one does not fit, or the sets at home are large."""
    part = [b"0", _BYTES, _ELEMENTS]
    here = [key for key in request.keys if router.shard_of(key) == router.shard_of(home)] if request else []
    asked = [
        router.call(router.shard_of(key), "_read_part", [key, *part], db=session.db, session=session) for key in foreign
    ]
    if here:
        asked.append(router.call(router.shard_of(home), "_sizes", here, db=session.db, session=session))
    replies = await answers(asked)
    large = bool(here) and sum(size for _type, size in replies.pop()) >= LARGE
    copies: list[bytes] = []
    for key, found in zip(foreign, replies, strict=True):
        if found is not None:
            following, image = found
            large = large or following != b"0"
            copies += [key, image]
    return copies, large


async def _compute_with_large(
    router: Router,
    session: Session,
    row: Row,
    args: tuple[bytes, ...],
    keys: list[bytes],
    home: bytes,
) -> Reply:
    """The same when a copy is too large for one part: copies are put together at the home shard first."""
    async with Transaction(router, session, keys, reads=True, shares=not row.is_write) as held:
        copies: list[bytes] = []
        for key in keys:
            if router.shard_of(key) == router.shard_of(home):
                continue
            if await _type(held, key) != b"none":
                await _build(held, key, home, key)
                copies += [key, b""]
        await held.hold()
        request = [b"%d" % (len(copies) // 2), *copies, row.key.encode(), *args]
        if not row.is_write:
            return await held.ask(home, "_with", *request)
        reply = await held.perform(home, "the destination was written", "_with", *request)
        await held.finished()
        return reply


def _computed(row: Row) -> Callable[..., Awaitable[Reply]]:
    async def run(router: Router, session: Session, *args: bytes) -> Reply:
        return await compute(router, session, row, args)

    return run


async def _build(held: Transaction, source: bytes, home: bytes, name: bytes, first: list[Any] | None = None) -> None:
    """Puts the value of `source` together at the shard of `home`, under construction for the key `name`.

    `first` is its first part, if that was read already.
    """

    async def take(reply: list[Any]) -> None:
        await held.renew()
        await held.ask(home, "_build", name, reply[1])

    def ask(cursor: bytes) -> Awaitable[Any]:
        return held.ask(source, "_read_part", source, cursor, _BYTES, _ELEMENTS)

    cursor = b"0"
    if first is not None:
        await take(first)
        cursor = first[0]
    await stream(ask, take, cursor)


# Move ---------------------------------------------------------------------------------------------
async def _first_part(held: Transaction, source: bytes) -> list[Any] | None:
    found = await held.read(source, "_read_part", b"0", _BYTES, _ELEMENTS)
    assert found is None or isinstance(found, list)
    return found


async def _type(held: Transaction, key: bytes, db: int | None = None) -> bytes:
    """b"none" without the key; a look at what is to be written, and no read of the client's."""
    found = await held.read(key, "_types", db=db)
    assert isinstance(found, list)
    kind: bytes = found[0]
    return kind


async def _put(held: Transaction, source: bytes, destination: bytes, first: list[Any], event: str, db: int) -> None:
    """The value of `source`, whose first part this is, becomes that of `destination`."""
    done = "the destination was written"
    if first[0] == b"0":
        await held.write(destination, done, "_put", first[1], event.encode(), db=db)
        return
    await held.let_read()
    await _build(held, source, destination, destination, first)
    await held.hold()
    await held.write(destination, done, "_build_put", event.encode(), db=db)


@move("rename")
async def rename(router: Router, session: Session, source: bytes, destination: bytes) -> Reply:
    """The destination is written before the source is removed."""
    async with Transaction(router, session, [source, destination], writes=True) as held:
        first = await _first_part(held, source)
        if first is None:
            raise CommandError(NO_SUCH_KEY)
        await _carry(held, source, destination, first)
    return OK


@move("renamenx")
async def renamenx(router: Router, session: Session, source: bytes, destination: bytes) -> Reply:
    """As RENAME, unless the destination exists."""
    async with Transaction(router, session, [source, destination], writes=True) as held:
        first = await _first_part(held, source)
        if first is None:
            raise CommandError(NO_SUCH_KEY)
        if await _type(held, destination) != b"none":
            return 0
        await _carry(held, source, destination, first)
    return 1


async def _carry(held: Transaction, source: bytes, destination: bytes, first: list[Any]) -> None:
    await _put(held, source, destination, first, "rename_to", held.session.db)
    await held.write(source, "the source was removed", "_remove", b"rename_from")
    await held.finished()


@move("copy")
async def copy(router: Router, session: Session, source: bytes, destination: bytes, *options: bytes) -> Reply:
    """The source stays; in another database or over what is there if the options say so."""
    db, replace = _copy_options(session.db, options)
    async with Transaction(router, session, [source, destination]) as held:
        first = await _first_part(held, source)
        if first is None:
            await held.read(source, "exists")  # a miss, which is counted and told
            return 0
        if not replace and await _type(held, destination, db) != b"none":
            return 0
        await _put(held, source, destination, first, "copy_to", db)
        await held.finished()
    return 1


def _copy_options(db: int, options: tuple[bytes, ...]) -> tuple[int, bool]:
    """The database and whether to replace, as the shard's own handler reads them."""
    replace = False
    position = 0
    while position < len(options):
        word = options[position].upper()
        if word == b"REPLACE":
            replace = True
        elif word == b"DB" and position + 1 < len(options):
            position += 1
            db = integer(options[position])
            if not 0 <= db < DATABASES:
                raise CommandError("ERR DB index is out of range")
        else:
            raise CommandError(SYNTAX)
        position += 1
    return db, replace


@move("smove")
async def smove(router: Router, session: Session, source: bytes, destination: bytes, member: bytes) -> Reply:
    """The member is added before it is removed."""
    async with Transaction(router, session, [source, destination], writes=True) as held:
        kind = await _type(held, source)
        if kind == b"none":
            return 0
        if kind != b"set" or await _type(held, destination) not in (b"set", b"none"):
            raise CommandError(WRONG_TYPE)
        if not await held.read(source, "sismember", member):
            return 0
        await held.write(destination, "the member was added to the destination", "sadd", member)
        await held.write(source, "the member was removed from the source", "srem", member)
        await held.finished()
    return 1


@move("lmove")
async def lmove(
    router: Router, session: Session, source: bytes, destination: bytes, where_from: bytes, where_to: bytes
) -> Reply:
    """The element is pushed before it is popped."""
    from_left, to_left = _side(where_from), _side(where_to)
    async with Transaction(router, session, [source, destination], writes=True) as held:
        kind = await _type(held, source)
        if kind == b"none":
            return None
        if kind != b"list" or await _type(held, destination) not in (b"list", b"none"):
            raise CommandError(WRONG_TYPE)
        element = await held.read(source, "lindex", b"0" if from_left else b"-1")
        if element is None:
            return None  # it expired, or was evicted or flushed, since its type was asked
        push = "lpush" if to_left else "rpush"
        await held.write(destination, "the element was pushed to the destination", push, element)
        await held.write(source, "the element was popped from the source", "lpop" if from_left else "rpop")
        await held.finished()
    return element


@move("rpoplpush")
async def rpoplpush(router: Router, session: Session, source: bytes, destination: bytes) -> Reply:
    """LMOVE source destination RIGHT LEFT."""
    return await lmove(router, session, source, destination, b"RIGHT", b"LEFT")


def _side(word: bytes) -> bool:
    sides = {b"left": True, b"right": False}
    if word.lower() not in sides:
        raise CommandError(SYNTAX)
    return sides[word.lower()]


# Strings on several shards -----------------------------------------------------------------------
@move("msetnx")
async def msetnx(router: Router, session: Session, *args: bytes) -> Reply:
    """All of them, unless one exists."""
    shards = _pairs_by_shard(router, args)
    async with Transaction(router, session, args[::2], writes=True) as held:
        if await _existing(router, session, shards):
            return 0
        for words in shards.values():
            await held.perform(words[0], "some of the keys were set", "mset", *words)
        await held.finished()
    return 1


@move("msetex")
async def msetex(router: Router, session: Session, numkeys: bytes, *args: bytes) -> Reply:
    """The same with a condition on all keys, and one time to live."""
    end = 2 * integer(numkeys)
    condition, options = _condition(args[end:])
    shards = _pairs_by_shard(router, args[:end])
    async with Transaction(router, session, args[0:end:2], writes=True) as held:
        if condition:
            existing = await _existing(router, session, shards)
            if existing if condition == b"NX" else existing < len(set(args[0:end:2])):
                return 0
        for words in shards.values():
            request = [b"%d" % (len(words) // 2), *words, *options]
            await held.perform(words[0], "some of the keys were set", "msetex", *request)
        await held.finished()
    return 1


def _pairs_by_shard(router: Router, args: tuple[bytes, ...]) -> dict[int, list[bytes]]:
    shards: dict[int, list[bytes]] = {}
    for key, value in zip(args[::2], args[1::2], strict=True):
        shards.setdefault(router.shard_of(key), []).extend((key, value))
    return shards


async def _existing(router: Router, session: Session, shards: dict[int, list[bytes]]) -> int:
    """How many of the keys exist."""
    asked = [
        router.call(shard, "_types", list(dict.fromkeys(words[::2])), db=session.db, session=session)
        for shard, words in shards.items()
    ]
    return sum(kind != b"none" for kinds in await answers(asked) for kind in kinds)


def _condition(options: tuple[bytes, ...]) -> tuple[bytes, list[bytes]]:
    """NX, XX or nothing, and the other options of MSETEX; a syntax error for what it does not have."""
    condition = b""
    rest: list[bytes] = []
    place = 0
    while place < len(options):
        word = options[place].upper()
        if word in (b"NX", b"XX") and not condition:
            condition = word
        elif word == b"KEEPTTL" and not rest:
            rest = [word]
        elif word in (b"EX", b"PX", b"EXAT", b"PXAT") and not rest and place + 1 < len(options):
            place += 1
            rest = [word, options[place]]
        else:
            raise CommandError(SYNTAX)
        place += 1
    return condition, rest


# Key after key ------------------------------------------------------------------------------------
async def pop_first(router: Router, session: Session, command: str, args: tuple[bytes, ...]) -> Reply:
    """LMPOP and ZMPOP: the first key that has something answers; each is asked on its own shard."""
    count = integer(args[0], "ERR numkeys should be greater than 0")
    keys, options = args[1 : 1 + count], args[1 + count :]
    if not options:
        # Too short for a part of it, which would then complain of its arity instead.
        raise CommandError(SYNTAX)
    start = 0
    while start < len(keys):
        shard = router.shard_of(keys[start])
        end = start + 1
        while end < len(keys) and router.shard_of(keys[end]) == shard:
            end += 1
        request = [b"%d" % (end - start), *keys[start:end], *options]
        reply = await router.call(shard, command, request, db=session.db, session=session)
        if reply is not None and reply is not NULL_ARRAY:
            return reply
        start = end
    return NULL_ARRAY


@move("lmpop")
async def lmpop(router: Router, session: Session, *args: bytes) -> Reply:
    """See `pop_first`."""
    return await pop_first(router, session, "lmpop", args)


@move("zmpop")
async def zmpop(router: Router, session: Session, *args: bytes) -> Reply:
    """See `pop_first`."""
    return await pop_first(router, session, "zmpop", args)


def _register_computed() -> None:
    for row in TABLE:
        if row.route == "move" and "blocking" not in row.flags and row.key not in MOVES:
            move(row.key)(_computed(row))


_register_computed()
