"""Leases on keys for the length of a command in several steps, and the streams of parts between their shards.

While a key is leased nobody else writes it (writes answer TRYAGAIN), so that a value may travel in slices that keep no
shard and no router from others:

    async with Lease(router, session, [b], shared=[a]) as lease:
        await stream(lambda at: lease.ask(a, "_read_part", …, at), take)     the next part is under way meanwhile
        await lease.hold()                                                   nothing was lost: what was read is whole
        await lease.write(b, "the destination was written", "_build_put", …)

Promises: an error before the first `write` means that nothing was changed, and says so (TRYAGAIN, or the shard's own);
behind it an error becomes UNCERTAIN and names what was done. What is under construction goes with the lease.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from kache.errors import CommandError
from kache.replies import Reply

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__ = ["SLICE_BYTES", "SLICE_ELEMENTS", "Lease", "answers", "stream"]

LEASE_SECONDS = 5.0
"""A lease outlives the steps between two renewals; a router that dies leaves it to expire."""
SLICE_BYTES = 256 * 1024
"""Bytes of one part: a shard copies them in well under a millisecond, a router twice in one."""
SLICE_ELEMENTS = 8192
"""Elements of one part: a shard takes one to two milliseconds to insert so many."""
TIMEOUTS = frozenset({"TIMEOUT", "UNCERTAIN"})


class Lease:
    """Leases on keys of one database, or of several as (database, key), taken in one order by everybody.

    `shared` are keys that are only read, which others may lease in the same way.
    """

    def __init__(
        self,
        router: Router,
        session: Session,
        keys: Iterable[bytes | tuple[int, bytes]],
        shared: Iterable[bytes] = (),
    ) -> None:
        self.router = router
        self.session = session
        self.token = secrets.token_hex(8).encode()
        self.unsafe = ""
        """What has been done, for people; "" as long as nothing was changed."""
        places = {each if isinstance(each, tuple) else (session.db, each): "_lease_take" for each in keys}
        for key in shared:
            places.setdefault((session.db, key), "_lease_share")
        self._keys: dict[tuple[int, int, str], list[bytes]] = {}
        for (db, key), command in places.items():
            self._keys.setdefault((router.shard_of(key), db, command), []).append(key)
        self._held: list[tuple[int, int]] = []
        self._ends = router.clock.now() + router.config.command_timeout_ms
        self._renew_at = 0

    async def __aenter__(self) -> Lease:
        # Always in the order of the shards, so that two moves in opposite directions cannot wait for one another.
        for shard, db, command in sorted(self._keys):
            place, keys = (shard, db), self._keys[shard, db, command]
            try:
                await self._call(shard, command, [self.token, self._deadline(), *keys], db)
            except CommandError as error:
                # An unknown outcome may have left a lease behind: release it like the others.
                await self._release(self._held + ([place] if error.code in TIMEOUTS else []), "_lease_abort")
                if error.code in TIMEOUTS:
                    raise CommandError(f"TRYAGAIN nothing was changed: {error.message}") from None
                raise
            if place not in self._held:
                self._held.append(place)
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        await self._release(self._held, "_lease_abort" if error else "_lease_commit")
        if self.unsafe and isinstance(error, CommandError):
            raise CommandError(f"UNCERTAIN {self.unsafe}, then: {error.message}") from None
        if isinstance(error, CommandError) and error.code in TIMEOUTS and not self.unsafe:
            raise CommandError(f"TRYAGAIN nothing was changed: {error.message}") from None

    def ask(self, key: bytes, command: str, *args: bytes, db: int | None = None) -> Awaitable[Any]:
        """A command on the key's shard, its arguments as given."""
        return self._call(self.router.shard_of(key), command, list(args), db)

    async def read(self, key: bytes, command: str, *args: bytes, db: int | None = None) -> Any:
        """A reading command on the key."""
        return await self.ask(key, command, key, *args, db=db)

    async def write(self, key: bytes, done: str, command: str, *args: bytes, db: int | None = None) -> Any:
        """A writing command on the key under the lease; `done` says, for people, what has happened once it succeeded."""
        return await self.perform(key, done, command, key, *args, db=db)

    async def perform(self, place: bytes, done: str, command: str, *args: bytes, db: int | None = None) -> Any:
        """The same for any arguments, on the shard of the key `place`."""
        before, self.unsafe = self.unsafe, self.unsafe or f"it is not known whether {done}"
        try:
            reply = await self.ask(place, "_lease_run", self.token, command.encode(), *args, db=db)
        except CommandError as error:
            if error.code not in TIMEOUTS:
                self.unsafe = before  # refused: this step changed nothing
            raise
        self.unsafe = done
        return reply

    async def renew(self) -> None:
        """To be called now and then: the leases go on. TRYAGAIN when one is lost, or the command takes too long."""
        now = self.router.clock.now()
        if now >= self._ends:
            raise CommandError("TRYAGAIN nothing was changed: the command took longer than command-timeout-ms")
        if self.router.clock.data_now() >= self._renew_at:
            await self.hold()

    async def hold(self) -> None:
        """Every lease still holds, and does for a while: what was read under them is whole. Else TRYAGAIN."""
        until = self._deadline()
        for shard, db in self._held:
            await self._call(shard, "_lease_extend", [self.token, until], db)

    def finished(self) -> None:
        """The last step is done: errors while releasing the leases no longer matter to the client."""
        self.unsafe = ""

    def _deadline(self) -> bytes:
        now = self.router.clock.data_now()  # the shards' leases go by it
        self._renew_at = now + int(LEASE_SECONDS * 300)
        return b"%d" % (now + int(LEASE_SECONDS * 1000))

    def _call(self, shard: int, command: str, args: list[bytes], db: int | None = None) -> Awaitable[Any]:
        database = self.session.db if db is None else db
        return self.router.call(shard, command, args, db=database, session=self.session)

    async def _release(self, places: list[tuple[int, int]], command: str) -> None:
        for shard, db in places:
            try:
                await self._call(shard, command, [self.token], db)
            except CommandError:
                continue  # the lease expires by itself


async def answers(asked: Iterable[Awaitable[Any]]) -> list[Any]:
    """The replies to what was asked at once; the first error, once all have answered."""
    replies: list[Any] = []
    failure = None
    for each in asked:
        try:
            replies.append(await each)
        except CommandError as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return replies


async def stream(
    ask: Callable[[bytes], Awaitable[Any]], take: Callable[[Any], Awaitable[bool | None]], cursor: bytes = b"0"
) -> None:
    """Asks for part after part, each reply [where the next begins, …], and awaits `take` of it, until it says True.

    The next part is under way while one is taken. A reply that is none ends the stream: its key has gone.
    """
    asked: Any = ask(cursor)
    while asked is not None:
        reply: Reply = await asked
        if not isinstance(reply, list):
            raise CommandError("TRYAGAIN nothing was changed: the key has gone meanwhile")
        asked = ask(reply[0]) if reply[0] != b"0" else None
        try:
            stop = await take(reply)
        except BaseException:
            if asked is not None:
                asked.cancel()
            raise
        if stop:
            if asked is not None:
                asked.cancel()
            return
