"""XREAD and XREADGROUP of streams on several shards.

ids       with BLOCK or a group each shard checks its share, and says what ``$`` means now: nothing is delivered by a
          command that is refused; with BLOCK a shard that is being restarted is asked again
read      each shard reads its own streams; the parts are put together in the client's order
wait      nothing anywhere: the client waits on every shard with one claim, as for pops (blocking.py)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kache.commands import BY_KEY, key_positions
from kache.commands.extract import block_position
from kache.errors import CommandError
from kache.replies import NULL_ARRAY, Keyed, Reply
from kache.timeouts import block_ms

from ..registry import move
from .blocking import TOO_MANY, Wait, is_for_now, rest

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__: list[str] = []


class _Read:
    """One command that reads streams on several shards."""

    def __init__(self, router: Router, session: Session, name: str, args: tuple[bytes, ...]) -> None:
        self.router = router
        self.session = session
        self.name = name
        places = key_positions(BY_KEY[name], args)
        first = places[0]
        self.keys = [args[place] for place in places]
        self.ids = list(args[first + len(places) :])
        self.timeout: int | None = None
        self.began = router.clock.now()
        at = block_position(args)
        self.options = list(args[: first - 1])
        if at >= 0:
            self.timeout = block_ms(args[at], self.began)
            del self.options[at - 1 : at + 1]
        self.shards: dict[int, list[int]] = {}
        for number, key in enumerate(self.keys):
            self.shards.setdefault(router.shard_of(key), []).append(number)

    async def run(self) -> Reply:
        if (self.timeout is not None or self.name == "xreadgroup") and not await self._resolve():
            return NULL_ARRAY
        while True:
            found = await self._look()
            # Inside EXEC nothing waits.
            if found is not None or self.timeout is None or self.session.gone or self.session.transaction:
                return NULL_ARRAY if found is None else found
            reply = await self._wait()
            if reply is not None or self.session.gone:
                return reply

    def _words(self, numbers: Sequence[int]) -> list[bytes]:
        """The arguments of the command for some of its streams, without BLOCK."""
        return [
            *self.options,
            b"STREAMS",
            *(self.keys[number] for number in numbers),
            *(self.ids[number] for number in numbers),
        ]

    def _named(self, numbers: Sequence[int], *words: bytes) -> list[bytes]:
        """The arguments of an internal command: the keys, `words`, and the command."""
        keys = [self.keys[number] for number in numbers]
        return [b"%d" % len(keys), *keys, *words, self.name.encode(), *self._words(numbers)]

    async def _ask(self, command: str, words: dict[int, list[bytes]]) -> dict[int, Any]:
        """The replies of the shards, None of one that refuses for now while the client waits anyway; any other error, the first of
        them once all have answered."""
        asked = {
            shard: self.router.call(shard, command, each, db=self.session.db, session=self.session)
            for shard, each in words.items()
        }
        found: dict[int, Any] = {}
        first: CommandError | None = None
        for shard, reply in asked.items():
            try:
                found[shard] = await reply
            except CommandError as error:
                if self.timeout is not None and is_for_now(self.router, self.session, shard, error):
                    found[shard] = None
                else:
                    first = first or error
        if first is not None:
            raise first
        return found

    async def _resolve(self) -> bool:
        """What the ids mean now; False when the time is over before a shard is back that knows."""
        missing = {shard: self._named(each) for shard, each in self.shards.items()}
        while True:
            for shard, ids in (await self._ask("_read_ids", missing)).items():
                if ids is not None:
                    del missing[shard]
                    for number, raw in zip(self.shards[shard], ids, strict=True):
                        self.ids[number] = raw
            if not missing:
                return True
            if self.session.gone or (self.timeout and self.router.clock.now() >= self.began + self.timeout):
                return False
            await rest(self.router, self.session)

    async def _look(self) -> Keyed | None:
        """What all shards have, in the client's order; None for nothing."""
        replies = await self._ask(self.name, {shard: self._words(each) for shard, each in self.shards.items()})
        parts: dict[int, tuple[bytes, Any]] = {}
        for shard, reply in replies.items():
            pairs = list(reply.pairs) if isinstance(reply, Keyed) else []
            for number in self.shards[shard]:
                if pairs and pairs[0][0] == self.keys[number]:
                    parts[number] = pairs.pop(0)
        return Keyed(parts[number] for number in sorted(parts)) if parts else None

    async def _wait(self) -> Reply:
        claim = self.router.claims.open()
        if claim is None:
            raise CommandError(TOO_MANY)
        until = self.began + self.timeout if self.timeout else 0
        wait = Wait(self.router, self.session, until, NULL_ARRAY, claim)
        cell, generation = claim
        for shard, numbers in self.shards.items():
            wait.register(shard, "_read_wait", self._named(numbers, b"%d" % cell, b"%d" % generation))
        return await wait.result()


@move("xread")
async def xread(router: Router, session: Session, *args: bytes) -> Reply:
    """Entries of several streams behind an id each."""
    return await _Read(router, session, "xread", args).run()


@move("xreadgroup")
async def xreadgroup(router: Router, session: Session, *args: bytes) -> Reply:
    """Entries of several streams for one member of a group of each."""
    return await _Read(router, session, "xreadgroup", args).run()
