"""Commands whose keys lie on different shards and that no merge of replies can answer.

Two ways, both bounded by the request's deadline and none atomic for an observer of several keys:

**Compute where it lands.** Everything that only *reads* foreign keys (SINTER, ZUNIONSTORE, BITOP, COPY,
PFMERGE, LCS, …) is executed by the one shard that owns the destination (or the first key), with copies
of the foreign keys laid beside its own for the length of that one command (the internal command
``_with``). The handler, its errors and its reply are those of a single server.

**Move under leases.** What takes an element or a value away from one shard and gives it to another
(RENAME, SMOVE, LMOVE) holds a lease on both keys, so nobody writes them in between:

      lease both ── read source ── write destination ── remove source ── release
                                          |                   |
         fails: nothing was changed       |                   |
         fails or unknown: UNCERTAIN -----+-------------------+   the value may be in both places, never in none

LMPOP and ZMPOP need neither: they try key after key, each on its own shard.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from kache.commands import TABLE, Row, keys_with_flags
from kache.errors import NO_SUCH_KEY, SYNTAX, WRONG_TYPE, CommandError
from kache.replies import NULL_ARRAY, OK, Reply

from ..commands.arguments import integer
from ..registry import MOVES, move

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__: list[str] = []

# A lease outlives the steps between its taking and its release; a router that dies leaves it to expire.
LEASE_SECONDS = 5.0
TIMEOUTS = frozenset({"TIMEOUT", "UNCERTAIN"})


# Compute where it lands ---------------------------------------------------------------------------
async def compute(router: Router, session: Session, row: Row, args: tuple[bytes, ...]) -> Reply:
    """Runs `row` on the shard of the key it writes (else its first), with copies of the keys that live elsewhere."""
    located = keys_with_flags(row, args)
    keys = [key for key, _flags in located]
    written = [key for key, flags in located if flags[0] in ("OW", "RW")]
    home = router.shard_of((written or keys)[0])
    foreign = list(dict.fromkeys(key for key in keys if router.shard_of(key) != home))
    copies: list[bytes] = []
    for key in foreign:
        found = await router.call(router.shard_of(key), "_read", [key], db=session.db, session=session)
        if found is not None:
            _type, deadline, payload = found
            copies += [key, b"%d" % deadline, payload]
    request = [b"%d" % (len(copies) // 3), *copies, row.key.encode(), *args]
    return await router.call(home, "_with", request, db=session.db, session=session)


def _computed(row: Row) -> Callable[..., Awaitable[Reply]]:
    async def run(router: Router, session: Session, *args: bytes) -> Reply:
        return await compute(router, session, row, args)

    return run


# Move under leases --------------------------------------------------------------------------------
class Move:
    """Leases on a source and a destination key, and the steps between.

    Used as an asynchronous context manager. Errors before the first write mean that nothing changed;
    `unsafe` names what has been done, from then on an error becomes UNCERTAIN.
    """

    def __init__(self, router: Router, session: Session, source: bytes, destination: bytes) -> None:
        self.router = router
        self.session = session
        self.source = source
        self.destination = destination
        self.token = secrets.token_hex(8).encode()
        self.unsafe = ""
        self._held: list[int] = []

    async def __aenter__(self) -> Move:
        deadline = b"%d" % (self.router.clock.now() + int(LEASE_SECONDS * 1000))
        # Always in the order of the shards, so that two moves in opposite directions cannot wait for one another.
        for key in sorted((self.source, self.destination), key=self.router.shard_of):
            shard = self.router.shard_of(key)
            try:
                await self._call(shard, "_lease_take", [self.token, deadline, key])
            except CommandError as error:
                # An unknown outcome may have left a lease behind: release it like the others.
                await self._release(self._held + ([shard] if error.code in TIMEOUTS else []), "_lease_abort")
                if error.code in TIMEOUTS:
                    raise CommandError(f"TRYAGAIN nothing was changed: {error.message}") from None
                raise
            self._held.append(shard)
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        await self._release(self._held, "_lease_abort" if error else "_lease_commit")
        if self.unsafe and isinstance(error, CommandError):
            raise CommandError(f"UNCERTAIN {self.unsafe}, then: {error.message}") from None
        if isinstance(error, CommandError) and error.code in TIMEOUTS and not self.unsafe:
            raise CommandError(f"TRYAGAIN nothing was changed: {error.message}") from None

    async def read(self, key: bytes, command: str, *args: bytes) -> Reply:
        """A reading command on the key's shard."""
        return await self._call(self.router.shard_of(key), command, [key, *args])

    async def write(self, key: bytes, done: str, command: str, *args: bytes) -> Reply:
        """A writing command under the lease; `done` says, for people, what has happened once it succeeded."""
        before, self.unsafe = self.unsafe, self.unsafe or f"it is not known whether {done}"
        try:
            reply = await self._call(
                self.router.shard_of(key), "_lease_run", [self.token, command.encode(), key, *args]
            )
        except CommandError as error:
            if error.code not in TIMEOUTS:
                self.unsafe = before  # refused: this step changed nothing
            raise
        self.unsafe = done
        return reply

    def finished(self) -> None:
        """The last step is done: errors while releasing the leases no longer matter to the client."""
        self.unsafe = ""

    async def _call(self, shard: int, command: str, args: list[bytes]) -> Reply:
        return await self.router.call(shard, command, args, db=self.session.db, session=self.session)

    async def _release(self, shards: list[int], command: str) -> None:
        for shard in shards:
            try:
                await self._call(shard, command, [self.token])
            except CommandError:
                continue  # the lease expires by itself


@move("rename")
async def rename(router: Router, session: Session, source: bytes, destination: bytes) -> Reply:
    """The destination is written before the source is removed."""
    async with Move(router, session, source, destination) as steps:
        found = await steps.read(source, "_read")
        if found is None:
            raise CommandError(NO_SUCH_KEY)
        await _carry(steps, found)
    return OK


@move("renamenx")
async def renamenx(router: Router, session: Session, source: bytes, destination: bytes) -> Reply:
    """As RENAME, unless the destination exists."""
    async with Move(router, session, source, destination) as steps:
        found = await steps.read(source, "_read")
        if found is None:
            raise CommandError(NO_SUCH_KEY)
        if await steps.read(destination, "exists"):
            return 0
        await _carry(steps, found)
    return 1


async def _carry(steps: Move, found: list[object]) -> None:
    _type, deadline, payload = found
    assert isinstance(deadline, int) and isinstance(payload, bytes)
    await steps.write(steps.destination, "the destination was written", "_put", b"%d" % deadline, payload)
    await steps.write(steps.source, "the source was removed", "del")
    steps.finished()


@move("smove")
async def smove(router: Router, session: Session, source: bytes, destination: bytes, member: bytes) -> Reply:
    """The member is added before it is removed."""
    async with Move(router, session, source, destination) as steps:
        kind = await steps.read(source, "type")
        if kind == "none":
            return 0
        if kind != "set" or await steps.read(destination, "type") not in ("set", "none"):
            raise CommandError(WRONG_TYPE)
        if not await steps.read(source, "sismember", member):
            return 0
        await steps.write(destination, "the member was added to the destination", "sadd", member)
        await steps.write(source, "the member was removed from the source", "srem", member)
        steps.finished()
    return 1


@move("lmove")
async def lmove(
    router: Router, session: Session, source: bytes, destination: bytes, where_from: bytes, where_to: bytes
) -> Reply:
    """The element is pushed before it is popped."""
    from_left, to_left = _side(where_from), _side(where_to)
    async with Move(router, session, source, destination) as steps:
        kind = await steps.read(source, "type")
        if kind == "none":
            return None
        if kind != "list" or await steps.read(destination, "type") not in ("list", "none"):
            raise CommandError(WRONG_TYPE)
        element = await steps.read(source, "lindex", b"0" if from_left else b"-1")
        if element is None:
            return None  # it expired, or was evicted or flushed, since its type was asked
        push = "lpush" if to_left else "rpush"
        await steps.write(destination, "the element was pushed to the destination", push, element)
        await steps.write(source, "the element was popped from the source", "lpop" if from_left else "rpop")
        steps.finished()
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
        if row.route == "move" and row.key not in MOVES:
            move(row.key)(_computed(row))


_register_computed()
