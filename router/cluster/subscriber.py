"""What this router's clients listen to, in front of a Redis Cluster: one connection to each node that something is heard at.

A channel is listened to at the node that owns its slot, as PUBLISH goes there: one order for all. A node passes on what is
published at any other, so a pattern needs one node, the first; channels of keyspace events are every master's own. A node
counts this connection, not the clients behind it. A connection that is lost is made again, and what moved is listened to at
its new owner, before the old one is told; messages published in between are lost, as they are for any client of a node.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from kache.backend.conversation import command
from kache.errors import CommandError
from kache.slots import slot_of_key
from kache.wire.codec import ReplyTooShort, decode_reply
from kache.wire.link import CHANNEL, PATTERN, SHARD_CHANNEL

if TYPE_CHECKING:
    from .director import Director

__all__ = ["Subscriber"]

VERBS: Final = {CHANNEL: "SUBSCRIBE", PATTERN: "PSUBSCRIBE", SHARD_CHANNEL: "SSUBSCRIBE"}
EVENTS: Final = b"__key"
RETRY_SECONDS: Final = 0.2
OPEN_SECONDS: Final = 2.0
CONFIRM_SECONDS: Final = 5.0

Name = tuple[int, bytes]
"""(kind, channel or pattern)"""

_log = logging.getLogger("kache.router")


class _Ear:
    """The connection to one node: what is wanted of it, and what it has confirmed."""

    def __init__(self, subscriber: Subscriber, number: int) -> None:
        self.subscriber = subscriber
        self.number = number
        self.wanted: dict[Name, None] = {}
        self.confirmed: set[Name] = set()
        self.waiters: dict[Name, list[asyncio.Future[None]]] = {}
        self.writer: asyncio.StreamWriter | None = None
        self.task = asyncio.get_running_loop().create_task(self._run())

    def want(self, name: Name) -> None:
        if name not in self.wanted:
            self.wanted[name] = None
            self._say(VERBS[name[0]], name[1])

    def leave(self, name: Name) -> None:
        if name in self.wanted:
            del self.wanted[name]
            self.confirmed.discard(name)
            self._say(VERBS[name[0]].replace("SUB", "UNSUB"), name[1])

    def close(self) -> None:
        self.task.cancel()
        if self.writer is not None:
            self.writer.close()

    def _say(self, verb: str, name: bytes) -> None:
        if self.writer is not None:
            self.writer.write(command(verb, name))

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except (OSError, TimeoutError, EOFError, ValueError, CommandError) as error:
                self.subscriber.director.say_of(self.number, f"the connection for messages was lost: {error}")
            if self.writer is not None:
                self.writer.close()
                self.writer = None
            self.confirmed.clear()
            await asyncio.sleep(RETRY_SECONDS)
            self.subscriber.director.lost_map()

    async def _listen(self) -> None:
        director = self.subscriber.director
        address = director.nodes[self.number].address
        reader, writer = await asyncio.wait_for(director.open(address), OPEN_SECONDS)
        self.writer = writer
        greeting, _ = director.greeting(2)
        writer.write(greeting)
        for kind, name in self.wanted:
            self._say(VERBS[kind], name)
        received = b""
        at = 0
        while True:
            try:
                reply, at = decode_reply(received, at)
            except ReplyTooShort:
                more = await reader.read(65536)
                if not more:
                    raise EOFError("closed by the node") from None
                received, at = received[at:] + more, 0
                continue
            self._take(reply)

    def _take(self, reply: Any) -> None:
        if isinstance(reply, CommandError):
            if reply.code in ("MOVED", "ASK"):
                self.subscriber.director.lost_map()
                return
            raise reply
        if not isinstance(reply, list) or not reply or not isinstance(reply[0], bytes):
            return
        what, *rest = reply
        take = self.subscriber.publish
        if what == b"message":
            take(CHANNEL, rest[0], rest[0], rest[1])
        elif what == b"smessage":
            take(SHARD_CHANNEL, rest[0], rest[0], rest[1])
        elif what == b"pmessage":
            take(PATTERN, *rest)
        elif what in (b"subscribe", b"psubscribe", b"ssubscribe"):
            kind = {b"ssubscribe": SHARD_CHANNEL, b"psubscribe": PATTERN}.get(what, CHANNEL)
            self._is_confirmed((kind, rest[0]))
        elif what == b"sunsubscribe" and (SHARD_CHANNEL, rest[0]) in self.wanted:
            # Its slot has left this node.
            self.confirmed.discard((SHARD_CHANNEL, rest[0]))
            self.subscriber.director.lost_map()

    def _is_confirmed(self, name: Name) -> None:
        if name in self.wanted:
            self.confirmed.add(name)
        for waiter in self.waiters.pop(name, []):
            if not waiter.done():
                waiter.set_result(None)


class Subscriber:
    """All that this router listens to."""

    def __init__(self, director: Director) -> None:
        self.director = director
        self.names: dict[Name, list[int]] = {}
        """At which nodes each is listened to."""
        self.ears: dict[int, _Ear] = {}

    def publish(self, kind: int, name: bytes, channel: bytes, message: bytes) -> None:
        """Something was published: for those who listen to `name`."""
        self.director.router.published(kind, name, channel, message)

    async def listen(self, names: Iterable[Name]) -> None:
        """Returns when the nodes know; at the latest after a while, since a client is confirmed though its node is away."""
        loop = asyncio.get_running_loop()
        waiting = []
        for name in names:
            self._place(name)
            for number in self.names[name]:
                ear = self.ears[number]
                if name not in ear.confirmed:
                    waiter: asyncio.Future[None] = loop.create_future()
                    ear.waiters.setdefault(name, []).append(waiter)
                    waiting.append(waiter)
        if waiting:
            await asyncio.wait(waiting, timeout=CONFIRM_SECONDS)

    def forget(self, names: Iterable[Name]) -> None:
        """Nobody here listens to them any longer."""
        for name in names:
            for number in self.names.pop(name, []):
                self.ears[number].leave(name)

    def map_has_changed(self) -> None:
        """What is listened to at a node that no longer has it is listened to at another."""
        for name in list(self.names):
            self._place(name)
        masters = set(self.director.masters())
        for number, ear in list(self.ears.items()):
            if not ear.wanted and number not in masters:
                ear.close()
                del self.ears[number]

    def close(self) -> None:
        for ear in self.ears.values():
            ear.close()
        self.ears.clear()

    def _place(self, name: Name) -> None:
        before = self.names.get(name, [])
        after = self._nodes_of(name) or before
        for number in after:
            if number not in self.ears:
                self.ears[number] = _Ear(self, number)
            self.ears[number].want(name)
        for number in before:
            if number not in after:
                self.ears[number].leave(name)
        self.names[name] = after

    def _nodes_of(self, name: Name) -> list[int]:
        kind, text = name
        masters = self.director.masters()
        if text.startswith(EVENTS) and kind != SHARD_CHANNEL:
            return masters
        if kind == PATTERN:
            return masters[:1]
        owner = self.director.map[slot_of_key(text)]
        return [owner] if owner is not None else []
