"""Commands that wait for keys on several shards: BLPOP and its like, BLMOVE to another shard, and WAIT.

    look       the first key is tried on its shard, and the others say what they have: one round trip
    register   nothing anywhere: the client waits on every shard, with one claim (kache/wire/claims.pyx)
    outcome    one shard takes the claim and serves it; or the router does, when its time is over, for CLIENT UNBLOCK, or
               when the client goes away. Exactly one of them succeeds, and whoever loses against a shard has its reply coming

A shard that is restarted, or lost without having taken the claim, is registered with again when it is back. When it has
taken the claim and is lost the reply is UNCERTAIN. Commands with all keys on one shard do not come here (mux/blocked.pxi).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from kache.commands import BY_KEY
from kache.commands.extract import key_positions
from kache.errors import SYNTAX, WRONG_TYPE, CommandError
from kache.replies import NULL_ARRAY, Reply
from kache.timeouts import timeout_ms
from kache.wire.claims import ROUTER

from ..commands.arguments import integer
from ..registry import UNBLOCKED, ShardLeaves, local, move
from . import moves

if TYPE_CHECKING:
    from ..mux.multiplexer import Registration, Router, Session

__all__: list[str] = []

POPS = {
    "blpop": b"list",
    "brpop": b"list",
    "blmpop": b"list",
    "bzpopmin": b"zset",
    "bzpopmax": b"zset",
    "bzmpop": b"zset",
}
"""The type of the keys of each."""
TOO_MANY = "TRYAGAIN too many clients of this router wait on several shards"
LONGEST_MS = 2**63 - 1
BUSY_SECONDS = 0.005
"""How long a move waits before it tries again when others have its keys."""


class Wait:
    """One client's wait: what ends it is its `outcome`. `nothing` is the reply when its time is over; it waits `since` then
    (CLOCK_MONOTONIC, nanoseconds), which decides on its place where it registers again.

    Without a claim there is nobody to decide with: whoever comes first ends it. With one, what a shard serves is the reply,
    and leaves as it comes: `result` returns behind that.
    """

    timed: ClassVar[int] = 0
    """How many of this process end by time."""

    def __init__(
        self,
        router: Router,
        session: Session,
        until: int,
        nothing: Reply,
        claim: tuple[int, int] | None = None,
        since: int = 0,
    ):
        self.since = since or time.monotonic_ns()
        self.router = router
        self.session = session
        self.nothing = nothing
        self.claim = claim
        self.outcome: Any = router.loop.create_future()
        self.registrations: dict[int, Registration] = {}
        self.timer: Any = None
        self.closed = False
        if until:
            left = max(until - router.clock.now(), 0)
            self.timer = router.loop.call_later(left / 1000, self._time_over)
            Wait.timed += 1
            router.yield_to_loop()

    # Shards -----------------------------------------------------------------------------------------
    def register(self, shard: int, command: str, words: Sequence[bytes], since: int = 0) -> None:
        """The client waits on this shard, too, until `close`."""

        def again() -> None:
            if not self.outcome.done():
                self.register(shard, command, words, self.since)

        if self.router.comes_back(shard):
            self.router.when_back(shard, again)
            return
        served = None if self.claim is None else self._served
        registration = self.router.block(shard, command, words, self.session, since, served)
        self.registrations[shard] = registration
        registration.future.add_done_callback(lambda future: self._on_reply(shard, future, again))

    def _on_reply(self, shard: int, future: Any, again: Callable[[], None]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if self.outcome.done():
            return
        if error is None:
            if future.result() is not None and future.result() is not NULL_ARRAY:
                self.finish(future.result())
        elif isinstance(error, ShardLeaves) or not isinstance(error, CommandError):
            self.router.when_back(shard, again)
        elif error.code in ("LOADING", "TRYAGAIN"):
            self._when_loaded(shard, again)
        elif self.claim is not None and self.router.claims.owner(self.claim[0]) == shard:
            self.finish(error)
        elif error.code == "UNCERTAIN" and self.claim is not None:
            # Whatever it did, it did nothing for this client.
            self.router.when_back(shard, again)
        else:
            self.end(error)

    def _when_loaded(self, shard: int, again: Callable[[], None]) -> None:
        """A shard that was loading when it answered may be back by now: it does not say so a second time. One whose keys a
        transaction kept for long is there."""
        if self.router.serves(shard):
            self.router.loop.call_soon(again)
            self.router.yield_to_loop()
        else:
            self.router.when_back(shard, again)

    def _served(self, value: Reply) -> None:
        """A shard has taken the claim, and this came from it. The others are told behind the reply."""
        if not self.outcome.done():
            self.outcome.set_result(value)
            self.session.unblocked()
            self.session.answer_now(value)
            self.close()

    # Ends -------------------------------------------------------------------------------------------
    def end(self, value: Reply | CommandError) -> None:
        """It ends like this, unless a shard is serving it."""
        if self.claim is None or self.router.claims.take(*self.claim, ROUTER):
            self.finish(value)

    def finish(self, value: Reply | CommandError | None) -> None:
        """This is its outcome, if it has none yet."""
        if not self.outcome.done():
            self.outcome.set_result(value)

    def _time_over(self) -> None:
        self.timer = None
        Wait.timed -= 1
        self.end(self.nothing)

    def unblock(self, error: bool) -> None:
        """CLIENT UNBLOCK."""
        self.end(CommandError(UNBLOCKED) if error else self.nothing)

    def deny(self, refusal: CommandError) -> None:
        """Its user may not wait for these keys any longer."""
        self.end(refusal)

    def leave(self) -> None:
        """The client is gone. What a shard serves all the same is given back."""
        if self.claim is not None:
            self.router.claims.take(*self.claim, ROUTER)
        self.finish(None)

    async def result(self) -> Reply:
        """The outcome; raises it if it is an error."""
        self.session.block_with(self)
        try:
            value = await self.outcome
        finally:
            self.close()
        if isinstance(value, CommandError):
            raise value
        found: Reply = value
        return found

    def close(self) -> None:
        """Nothing waits any longer, anywhere. A second time it does nothing: its client may wait for something else by then."""
        if self.closed:
            return
        self.closed = True
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
            Wait.timed -= 1
        for registration in self.registrations.values():
            registration.cancel()
        self.registrations.clear()
        if self.claim is not None:
            self.router.claims.close(self.claim[0])
        self.session.unblocked()


def is_for_now(router: Router, session: Session, shard: int, error: CommandError) -> bool:
    """Whether a shard refused a command for a while only, without executing it, so that who waits, waits on: it is being
    restarted, or was when it answered, or a transaction kept the keys for long."""
    # Inside EXEC it is not asked again.
    if error.code in ("CLUSTERDOWN", "LOADING"):
        return router.comes_back(shard) or (router.serves(shard) and not session.transaction)
    there = router.serves(shard) or router.comes_back(shard)
    return error.code == "TRYAGAIN" and there and not session.transaction


async def rest(router: Router, session: Session) -> None:
    """A moment, before something is asked again."""
    await Wait(router, session, router.clock.now() + int(BUSY_SECONDS * 1000), None).outcome


# Pops ---------------------------------------------------------------------------------------------------
class _Pop:
    """One pop from the first of several keys, on several shards."""

    def __init__(self, router: Router, session: Session, name: str, args: tuple[bytes, ...]) -> None:
        self.router = router
        self.session = session
        row = BY_KEY[name]
        places = key_positions(row, args)
        self.keys = list(dict.fromkeys(args[place] for place in places))
        counted = {1} if row.keys[0].kind == "count" else set()
        others = [word for place, word in enumerate(args) if place not in counted | set(places)]
        self.words = [name.encode(), *others]
        self.kind = POPS[name]
        self.shards: dict[int, list[bytes]] = {}
        for key in self.keys:
            self.shards.setdefault(router.shard_of(key), []).append(key)
        began = router.clock.now()
        timeout = timeout_ms(others[0], began)
        self.until = began + timeout if timeout else 0

    async def run(self) -> Reply:
        while True:
            reply = await self._look()
            # Inside EXEC nothing waits.
            if reply is not NULL_ARRAY or self.session.gone or self.session.transaction:
                return reply
            reply = await self._wait()
            if reply is not None or self.session.gone:
                return reply

    async def _look(self) -> Reply:
        """What the first key that is there gives; NULL_ARRAY when none is."""
        while True:
            home = self.router.shard_of(self.keys[0])
            own = self._leading(home)
            first = self._ask(home, "_take", own, self.words)
            others = {shard: [key for key in keys if key not in own] for shard, keys in self.shards.items()}
            asked = {
                shard: (keys, self._ask(shard, "_first", keys, [self.kind])) for shard, keys in others.items() if keys
            }
            replies = {shard: (keys, await _settled(question)) for shard, (keys, question) in asked.items()}
            reply = self._checked(home, await _settled(first))
            if not _is_nothing(reply):
                return reply
            key = self._nearest(replies)
            if key is None:
                return NULL_ARRAY
            reply = await self._ask(self.router.shard_of(key), "_take", [key], self.words)
            if not _is_nothing(reply):
                return reply

    def _leading(self, shard: int) -> list[bytes]:
        """The keys up to the first of another shard."""
        own: list[bytes] = []
        for key in self.keys:
            if self.router.shard_of(key) != shard:
                break
            own.append(key)
        return own

    def _nearest(self, replies: dict[int, tuple[list[bytes], Any]]) -> bytes | None:
        """Of what the shards say of their keys the first in the client's order."""
        found: dict[bytes, int] = {}
        for shard, (keys, answer) in replies.items():
            reply = self._checked(shard, answer)
            if reply is not None:
                found[keys[reply[0]]] = reply[1]
        key = next((key for key in self.keys if key in found), None)
        if key is not None and not found[key]:
            raise CommandError(WRONG_TYPE)
        return key

    def _checked(self, shard: int, answer: Any) -> Any:
        """The reply; a shard that is being restarted, or was when it answered, has nothing for now."""
        if isinstance(answer, CommandError):
            if is_for_now(self.router, self.session, shard, answer):
                return None
            raise answer
        return answer

    async def _wait(self) -> Reply:
        claim = self.router.claims.open()
        if claim is None:
            raise CommandError(TOO_MANY)
        wait = Wait(self.router, self.session, self.until, NULL_ARRAY, claim)
        for shard, keys in self.shards.items():
            cell, generation = claim
            wait.register(shard, "_wait", [b"%d" % len(keys), *keys, b"%d" % cell, b"%d" % generation, *self.words])
        return await wait.result()

    def _ask(self, shard: int, command: str, keys: Sequence[bytes], words: Sequence[bytes]) -> Any:
        request = [b"%d" % len(keys), *keys, *words]
        return self.router.call(shard, command, request, db=self.session.db, session=self.session)


async def _settled(question: Any) -> Any:
    try:
        return await question
    except CommandError as error:
        return error


def _is_nothing(reply: Any) -> bool:
    return reply is None or reply is NULL_ARRAY


def _pop(name: str) -> Callable[..., Any]:
    async def run(router: Router, session: Session, *args: bytes) -> Reply:
        return await _Pop(router, session, name, args).run()

    return run


for _name in POPS:
    move(_name)(_pop(_name))


# Moves --------------------------------------------------------------------------------------------------
@move("blmove")
async def blmove(
    router: Router, session: Session, source: bytes, target: bytes, from_side: bytes, to_side: bytes, raw: bytes
) -> Reply:
    """The source's shard says when there is something, and keeps it for this client while it is carried over."""
    for side in (from_side, to_side):
        if side.upper() not in (b"LEFT", b"RIGHT"):
            raise CommandError(SYNTAX)
    began = router.clock.now()
    timeout = timeout_ms(raw, began)
    until = began + timeout if timeout else 0
    shard = router.shard_of(source)
    number = b""
    since = time.monotonic_ns()
    while True:
        element = await _carried(router, session, source, target, from_side, to_side, until)
        if not _is_nothing(element) or session.gone or session.transaction:
            if number:
                _settle(router, session, shard, source, number)
            return element
        wait = Wait(router, session, until, NULL_ARRAY, since=since)
        if number:
            wait.register(shard, "_settle", [source, number, b"1"])
        else:
            wait.register(shard, "_await", [source])
        found: Any = await wait.result()
        if not isinstance(found, int):
            return found
        number = b"%d" % found


async def _carried(
    router: Router, session: Session, source: bytes, target: bytes, from_side: bytes, to_side: bytes, until: int
) -> Reply:
    """LMOVE; while others have the keys, or a shard of theirs is being restarted, it is tried again, as long as its client waits
    anyway."""
    shards = {router.shard_of(source), router.shard_of(target)}
    while True:
        over = session.gone or (until and router.clock.now() >= until)
        # Not begun before both are there: what is locked on one would keep others waiting for the other's return.
        if session.transaction or not any(router.comes_back(shard) for shard in shards):
            try:
                return await moves.lmove(router, session, source, target, from_side, to_side)
            except CommandError as error:
                # One of the two has said it; the other is there, or comes back as well.
                returns = all(router.serves(shard) or is_for_now(router, session, shard, error) for shard in shards)
                if session.transaction or not returns or error.code not in ("CLUSTERDOWN", "LOADING", "TRYAGAIN"):
                    raise
        if over:
            return None
        await rest(router, session)


def _settle(router: Router, session: Session, shard: int, source: bytes, number: bytes) -> None:
    """The element is moved: others are served again. It needs no answer, and a shard that is gone holds nothing."""
    asked = router.call(shard, "_settle", [source, number, b"0"], db=session.db, session=session)
    asked.add_done_callback(lambda future: future.exception())


@move("brpoplpush")
async def brpoplpush(router: Router, session: Session, source: bytes, target: bytes, raw: bytes) -> Reply:
    """BLMOVE source target RIGHT LEFT."""
    return await blmove(router, session, source, target, b"RIGHT", b"LEFT", raw)


# Replicas -----------------------------------------------------------------------------------------------
@local("wait")
def wait(router: Router, session: Session, replicas: bytes, timeout: bytes) -> Reply:
    """How many replicas have what this client wrote: none, since there are none. Who wants some waits in vain."""
    wanted = integer(replicas)
    milliseconds = integer(timeout, "ERR timeout is not an integer or out of range")
    if milliseconds < 0:
        raise CommandError("ERR timeout is negative")
    now = router.clock.now()
    if milliseconds > LONGEST_MS - now:
        raise CommandError("ERR timeout is out of range")
    if wanted <= 0 or session.transaction:
        return 0
    waiting: Any = Wait(router, session, now + milliseconds if milliseconds else 0, 0).result()
    return waiting
