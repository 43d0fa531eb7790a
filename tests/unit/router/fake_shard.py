"""A shard for tests of the router: the link protocol and a dict, on the test's own event loop.

It speaks only from kache.wire.link and the codecs, so the compiled link is tested against a second implementation.
`chop` cuts its answers into pieces of random size; `hold` keeps answers back; `die` drops every connection. What `defer` or
`block` names is answered after `delay` seconds, as a parked or a blocked command. Replies to
clients that are larger than a mebibyte flow, as much as the router asks for.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Callable
from typing import Any, cast

from kache.commands import DIGEST, TABLE
from kache.errors import CommandError
from kache.replies import Missing
from kache.slots import slot_of_key
from kache.wire import link as wire_link
from kache.wire.codec import encode_reply

SLOT_SHIFT = 39
INTERNAL = 1


class FakeShard:
    """One shard behind a Unix socket; `data` maps (db, key) to bytes."""

    def __init__(self, path: str, index: int, seed: int = 0) -> None:
        self.path = path
        self.index = index
        self.random = random.Random(seed)
        self.data: dict[tuple[int, bytes], bytes] = {}
        self.executed: list[tuple[str, list[bytes]]] = []
        self.cancelled: list[int] = []
        self.sessions: list[int] = []
        self.transactions: list[int] = []
        self.users: list[int] = []
        self.credits: list[int] = []
        self.chop = False
        self.hold = False
        self.expired = False
        self.slow_ns = 0
        self.answer_handshake = True
        self.defer: Callable[[str], bool] = lambda name: False
        self.block: Callable[[str], bool] = lambda name: False
        self.delay: Callable[[], float] = lambda: 0.002 * self.random.random()
        self.connections: list[_Connection] = []
        self.server: asyncio.AbstractServer | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_unix_server(lambda: _Connection(self), self.path)

    def die(self) -> None:
        """Drops every connection with whatever is unanswered."""
        for connection in list(self.connections):
            connection.transport.abort()

    async def stop(self) -> None:
        assert self.server is not None
        self.server.close()
        self.die()

    def drain(self) -> None:
        """Announces on every link that nothing more may be sent; connections end behind the last run."""
        for connection in self.connections:
            body = struct.pack("<BB", wire_link.NOTICE, wire_link.DRAINING) + bytes(2)
            connection.transport.write(struct.pack("<I", len(body)) + body)

    def push(self, session: int, data: bytes) -> None:
        """Sends something out of band to a client."""
        body = struct.pack("<B3xIQ", wire_link.PUSH, 0, session) + data
        self.connections[0].transport.write(struct.pack("<I", len(body)) + body)

    def publish(self, channel: bytes, message: bytes) -> None:
        """Passes on what somebody has published."""
        body = struct.pack("<BB2xIQ", wire_link.PUBLISHED, wire_link.CHANNEL, len(channel), 0) + channel + message
        self.connections[0].transport.write(struct.pack("<I", len(body)) + body)

    def release(self) -> None:
        """Sends what `hold` kept back."""
        self.hold = False
        for connection in self.connections:
            connection.send(b"")

    def execute(self, name: str, db: int, args: list[bytes]) -> Any:
        self.executed.append((name, args))
        data = self.data
        if name in ("get", "binary|get"):
            return data.get((db, args[0]))
        if name == "set":
            data[db, args[0]] = args[1]
            return "OK"
        if name in ("del", "binary|del", "unlink"):
            deleted = sum(data.pop((db, key), None) is not None for key in args)
            return Missing(0) if name == "binary|del" and not deleted else deleted
        if name in ("exists", "touch"):
            return sum((db, key) in data for key in args)
        if name == "mget":
            return [data.get((db, key)) for key in args]
        if name == "keys":
            return [key for at, key in data if at == db]
        if name == "blpop":
            return [args[0], data[db, args[0]]]
        if name == "mset":
            if len(args) % 2:
                return CommandError("ERR wrong number of arguments for 'mset' command")
            for key, value in zip(args[::2], args[1::2], strict=True):
                data[db, key] = value
            return "OK"
        if name == "incr":
            value = int(data.get((db, args[0]), b"0")) + 1
            data[db, args[0]] = b"%d" % value
            return value
        if name == "_scan":
            return self.scan(db, int(args[0]), int(args[1]), int(args[-1]) if len(args) > 2 else 10)
        if name == "dbsize":
            return sum(1 for at, _ in data if at == db)
        return CommandError(f"ERR the fake shard does not know {name}")

    def scan(self, db: int, cursor: int, last: int, count: int) -> list[Any]:
        """As a real shard: slot after slot up to `last`; a place is a key's number in its slot."""
        places: dict[int, list[bytes]] = {}
        for at, key in sorted(self.data):
            if at == db:
                places.setdefault(slot_of_key(key), []).append(key)
        found: list[bytes] = []
        slot, place = cursor >> SLOT_SHIFT, cursor & (1 << SLOT_SHIFT) - 1
        while slot <= last and len(found) < count:
            keys = places.get(slot, [])[place : place + count - len(found)]
            found += keys
            place += len(keys)
            if place >= len(places.get(slot, [])):
                slot, place = slot + 1, 0
        return [b"%d" % (slot << SLOT_SHIFT | place if slot <= last else 0), found, count - len(found)]


class _Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, shard: FakeShard) -> None:
        self.shard = shard
        self.input = b""
        self.held = b""
        self.tokens = 0
        self.uploads: dict[int, dict[int, bytes]] = {}
        self.flows: dict[int, tuple[int, bytes]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.shard.connections.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.shard.connections.remove(self)

    def data_received(self, data: bytes) -> None:
        self.input += data
        while len(self.input) >= 4:
            length = int.from_bytes(self.input[:4], "little")
            if len(self.input) < 4 + length:
                return
            message, self.input = self.input[: 4 + length], self.input[4 + length :]
            self.take(message)

    def take(self, message: bytes) -> None:
        kind = message[4]
        if kind == wire_link.HELLO:
            _, version, _, digest, _, _ = struct.unpack_from("<BBH8sQI", message, 4)
            assert version == wire_link.VERSION == 10
            assert digest == DIGEST
            if self.shard.answer_handshake:
                body = struct.pack("<BBHBQ", wire_link.HELLO_OK, wire_link.VERSION, self.shard.index, 0, 4711)
                self.transport.write(struct.pack("<I", len(body)) + body)
        elif kind == wire_link.RUN:
            self.run(message)
        elif kind == wire_link.CANCEL:
            (session,) = struct.unpack_from("<Q", message, 12)
            self.shard.cancelled.append(session)
            self.uploads.pop(session, None)
            self.flows = {token: flow for token, flow in self.flows.items() if flow[0] != session}
        elif kind == wire_link.PART:
            argument, session = struct.unpack_from("<IQ", message, 8)
            if argument == wire_link.DROPPED_PARTS:
                self.uploads.pop(session, None)
            else:
                came = self.uploads.setdefault(session, {})
                came[argument] = came.get(argument, b"") + message[20:]
        elif kind == wire_link.CREDIT:
            self.flow_on(*struct.unpack_from("<QQ", message, 12))
        else:
            raise AssertionError(f"message of kind {kind}")

    def flow_on(self, token: int, credit: int) -> None:
        """So much more of a large reply, in pieces; nothing more of it for 0."""
        session, reply = self.flows.pop(token, (0, b""))
        self.shard.credits.append(credit)
        more, left = reply[:credit], reply[credit:]
        if credit and left:
            self.flows[token] = session, left
        at = 0
        while at < len(more):
            n = self.shard.random.randint(1, 200_000)
            body = struct.pack("<B3xIQ", wire_link.PART, 0, token) + more[at : at + n]
            self.send(struct.pack("<I", len(body)) + body)
            at += n

    def run(self, message: bytes) -> None:
        _, _, dialect, db, flags, count, session, _, transaction, user = struct.unpack_from("<IBBBBIQQQI", message)
        self.shard.sessions.append(session)
        self.shard.transactions.append(transaction)
        self.shard.users.append(user)
        at = wire_link.RUN_HEADER_BYTES
        replies: list[bytes] = []
        later: list[bytes] = []
        for _ in range(count):
            size, command, _, argc = struct.unpack_from("<IHHI", message, at)
            end = at + 4 + size
            at += 12
            args = []
            for _ in range(argc):
                (n,) = struct.unpack_from("<I", message, at)
                args.append(message[at + 4 : at + 4 + n])
                at += 4 + n
            assert at == end
            if flags & wire_link.UPLOADED:
                for argument, came in self.uploads.pop(session).items():
                    assert args[argument] == b""
                    args[argument] = came
            name = TABLE[command & ~wire_link.CAPITALS].key
            reply = encode_reply(self.shard.execute(name, db, args), dialect)
            if self.shard.expired:
                replies.append(struct.pack("<I", wire_link.EXPIRED_REPLY))
            elif self.shard.defer(name) or self.shard.block(name):
                self.tokens += 1
                mark = wire_link.BLOCKED_REPLY if self.shard.block(name) else wire_link.PARKED_REPLY
                replies.append(struct.pack("<IQ", mark, self.tokens))
                body = struct.pack("<B3xIQ", wire_link.DEFERRED, 0, self.tokens) + reply
                if len(reply) > wire_link.LARGE_BYTES and dialect != INTERNAL:
                    flow = self.tokens + (1 << 63)
                    self.flows[flow] = session, reply
                    body = struct.pack("<B3xI", wire_link.DEFERRED, wire_link.LARGE_FORM)
                    body += struct.pack("<QQQQ", self.tokens, 1000, flow, len(reply))
                later.append(struct.pack("<I", len(body)) + body)
            elif len(reply) > wire_link.LARGE_BYTES and dialect != INTERNAL:
                self.tokens += 1
                self.flows[self.tokens] = session, reply
                replies.append(struct.pack("<IQQ", wire_link.LARGE_REPLY, self.tokens, len(reply)))
            else:
                replies.append(struct.pack("<I", len(reply)) + reply)
        assert at == len(message)
        if self.shard.slow_ns:
            body = struct.pack("<B3x4xQ", wire_link.SLOW_PART, self.shard.slow_ns)
            self.send(struct.pack("<I", len(body)) + body)
        # A shard may answer one run in several messages.
        while replies:
            n = self.shard.random.randint(1, len(replies))
            body = struct.pack("<BBHIQ", wire_link.REPLY, 0, 0, n, session) + b"".join(replies[:n])
            self.send(struct.pack("<I", len(body)) + body)
            del replies[:n]
        for message in later:
            asyncio.get_running_loop().call_later(self.shard.delay(), self.send, message)

    def send(self, data: bytes) -> None:
        self.held += data
        if self.shard.hold or self.transport.is_closing():
            return
        data, self.held = self.held, b""
        if not self.shard.chop:
            self.transport.write(data)
            return
        at = 0
        while at < len(data):
            n = self.shard.random.randint(1, 40)
            self.transport.write(data[at : at + n])
            at += n
