"""A connection to a node of a Redis Cluster that is one client's own, for as long as it waits or watches.

Replies come as Python values, in the dialect of the client. A connection that was used up to its end in order is kept for
the next client that needs one to that node; any other is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from kache.backend.conversation import command
from kache.errors import CommandError
from kache.replies import NULL_ARRAY, Reply
from kache.wire.codec import ReplyTooShort, decode_reply

if TYPE_CHECKING:
    from ..mux.multiplexer import Session
    from .director import Director

__all__ = ["Exclusive", "NodeLost", "Pool"]

RESP2: Final = 2
OPEN_SECONDS: Final = 2.0
MOST_IDLE: Final = 16


class NodeLost(Exception):
    """The connection has ended; `sent`: behind a question that may have been executed."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class Exclusive:
    """One connection; `open` makes it."""

    def __init__(
        self, number: int, dialect: int, db: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.number = number
        self.dialect = dialect
        self.db = db
        self.id = 0
        self.clean = True
        """Whether nothing of it is anybody's: no question is open, nothing is watched."""
        self._reader = reader
        self._writer = writer
        self._received = b""

    @classmethod
    async def open(cls, director: Director, number: int, dialect: int, db: int) -> Exclusive:
        """Raises NodeLost when the node is not reached, or does not want us."""
        greeting, replies = director.greeting(dialect, db)
        try:
            reader, writer = await asyncio.wait_for(director.open(director.nodes[number].address), OPEN_SECONDS)
        except (OSError, TimeoutError) as error:
            raise NodeLost(str(error) or "no answer", sent=False) from None
        one = cls(number, dialect, db, reader, writer)
        writer.write(greeting + command("CLIENT", "ID"))
        try:
            for _ in range(replies):
                reply = await asyncio.wait_for(one._next(), OPEN_SECONDS)
                if isinstance(reply, CommandError):
                    raise NodeLost(reply.message, sent=False)
            one.id = await asyncio.wait_for(one._next(), OPEN_SECONDS)
        except TimeoutError:
            one.close()
            raise NodeLost("no answer", sent=False) from None
        except NodeLost as error:
            one.close()
            raise NodeLost(str(error), sent=False) from None
        return one

    async def ask(self, *words: bytes) -> Reply:
        """The reply, an error as a CommandError that is returned. Raises NodeLost."""
        return (await self.ask_all([words]))[0]

    async def ask_all(self, commands: Sequence[Sequence[bytes]]) -> list[Reply]:
        """The replies to commands that are sent in one piece."""
        self.clean = False
        self._writer.write(b"".join([command(*words) for words in commands]))
        replies = [await self._next() for _ in commands]
        self.clean = True
        return replies

    async def ask_block(self, block: bytes, replies: int) -> Reply:
        """The last of so many replies to commands that are encoded already; what a command before it was refused with, if
        that is why the last one is."""
        self.clean = False
        self._writer.write(block)
        refusal: CommandError | None = None
        for _ in range(replies - 1):
            reply = await self._next()
            if isinstance(reply, CommandError):
                refusal = refusal or reply
        last = await self._next()
        self.clean = True
        if refusal is not None and isinstance(last, CommandError) and last.code == "EXECABORT":
            return refusal if redirect_in(refusal) else last
        return last

    @property
    def ended(self) -> bool:
        """Whether the node has closed it."""
        return self._reader.at_eof()

    async def _next(self) -> Reply:
        while True:
            try:
                reply, end = decode_reply(self._received)
            except ReplyTooShort:
                pass
            except ValueError as error:
                raise NodeLost(f"it does not speak RESP: {error}", sent=True) from None
            else:
                if reply is None and self._received.startswith(b"*"):
                    reply = NULL_ARRAY
                self._received = self._received[end:]
                return reply
            try:
                more = await self._reader.read(65536)
            except OSError as error:
                raise NodeLost(str(error), sent=True) from None
            if not more:
                raise NodeLost("closed by the node", sent=True)
            self._received += more

    def close(self) -> None:
        self._writer.close()


class Pool:
    """The connections that nobody has at the moment."""

    def __init__(self, director: Director) -> None:
        self.director = director
        self.idle: dict[tuple[int, int, int], list[Exclusive]] = {}

    async def take(self, number: int, session: Session) -> Exclusive:
        """One to that node, in the client's dialect and database. Raises NodeLost when there is none to be had."""
        dialect = RESP2 if session.dialect == RESP2 else 3
        waiting = self.idle.get((number, dialect, session.db))
        while waiting:
            one = waiting.pop()
            if not one.ended:
                return one
            one.close()
        return await Exclusive.open(self.director, number, dialect, session.db)

    def give_back(self, one: Exclusive) -> None:
        """It is not needed any longer."""
        waiting = self.idle.setdefault((one.number, one.dialect, one.db), [])
        if one.clean and len(waiting) < MOST_IDLE:
            waiting.append(one)
        else:
            one.close()

    def close(self) -> None:
        for waiting in self.idle.values():
            for one in waiting:
                one.close()
        self.idle.clear()


def redirect_in(reply: Any) -> str:
    """ "MOVED", "ASK", "WAIT" if the reply says that nothing was executed, and where or when it may be; else ""."""
    if not isinstance(reply, CommandError):
        return ""
    if reply.code in ("MOVED", "ASK"):
        return reply.code
    return "WAIT" if reply.code in ("TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY") else ""
