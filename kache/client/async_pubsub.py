"""`AsyncPubSub`: listening to channels, for programs that await. It promises what `kache.client.pubsub` promises."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Generic

from kache.client.errors import ClientClosedError, ConnectError, RequestTimeoutError, UncertainError
from kache.client.messages import Listening, Message, S
from kache.client.pubsub import FIRST_RETRY, LONGEST_RETRY, QUIET_SECONDS, Name, greeting_bytes, names_of
from kache.errors import CommandError

__all__ = ["AsyncPubSub", "Streams"]

_READ_SIZE = 256 * 1024

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class AsyncPubSub(Generic[S]):
    """Listens to channels, patterns and shard channels; see `AsyncClient.pubsub`. One task at a time uses it.

    ::

        async with cache.pubsub() as listening:
            await listening.subscribe("news", "weather")
            async for message in listening:
                print(message.channel, message.data)       # `message.gap`: the connection was lost and is back
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Streams]],
        greeting: Sequence[Sequence[Any]],
        decode: bool,
        timeout: float | None,
    ) -> None:
        self._connect = connect
        self._greeting = greeting
        self._timeout = timeout
        self._core: Listening[S] = Listening(decode)
        self._waiting: deque[Message[S]] = deque()
        self._streams: Streams | None = None
        self._was_connected = False
        self._retry = FIRST_RETRY
        self._next_try = 0.0
        self.closed = False

    # What is listened to --------------------------------------------------------------------------------
    async def subscribe(self, *channels: Name) -> None:
        """Listens to these channels, too; returns when that is confirmed. Raises `ConnectError`, `RequestTimeoutError`."""
        await self._change(self._core.begin, "message", channels)

    async def psubscribe(self, *patterns: Name) -> None:
        """Listens to all channels whose names match (``*``, ``?``, ``[ab]``)."""
        await self._change(self._core.begin, "pmessage", patterns)

    async def ssubscribe(self, *channels: Name) -> None:
        """Listens to shard channels, which have names of their own (SPUBLISH)."""
        await self._change(self._core.begin, "smessage", channels)

    async def unsubscribe(self, *channels: Name) -> None:
        """Listens to these channels no longer; without names to none."""
        await self._change(self._core.end, "message", channels)

    async def punsubscribe(self, *patterns: Name) -> None:
        """The same for patterns."""
        await self._change(self._core.end, "pmessage", patterns)

    async def sunsubscribe(self, *channels: Name) -> None:
        """The same for shard channels."""
        await self._change(self._core.end, "smessage", channels)

    async def _change(self, change: Callable[[str, Sequence[bytes]], bytes], kind: str, names: Sequence[Name]) -> None:
        if self.closed:
            raise ClientClosedError("this AsyncPubSub is closed")
        request = change(kind, names_of(names))
        try:
            async with asyncio.timeout(self._timeout):
                if self._streams is None:
                    await self._open()
                else:
                    self._streams[1].write(request)
                while self._core.unconfirmed:
                    await self._read()
        except TimeoutError:
            raise RequestTimeoutError(f"no confirmation within {self._timeout:g} s", []) from None

    # Messages -------------------------------------------------------------------------------------------
    async def get(self, timeout: float | None = None) -> Message[S] | None:
        """The next message; None when none comes within ``timeout`` seconds (None: it waits), or this was closed."""
        try:
            async with asyncio.timeout(timeout):
                while not self._waiting:
                    if self.closed:
                        return None
                    await self._read()
        except TimeoutError:
            return None
        return self._waiting.popleft()

    async def __aiter__(self) -> AsyncIterator[Message[S]]:
        while (message := await self.get()) is not None:
            yield message

    async def close(self) -> None:
        """Ends it, and the loop over its messages."""
        self.closed = True
        self._lose()

    async def __aenter__(self) -> AsyncPubSub[S]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # The connection -------------------------------------------------------------------------------------
    async def _open(self) -> None:
        """A connection that listens to everything; raises `ConnectError` or what the server answers."""
        reader, writer = await self._connect()
        try:
            said, answers = greeting_bytes(self._greeting)
            again = self._core.again()
            writer.write(said)
            while answers:
                data = await reader.read(_READ_SIZE)
                if not data:
                    raise ConnectError("the server closed the connection before it listened")
                self._core.feed(data)
                for reply in self._core.replies():
                    if isinstance(reply, CommandError):
                        raise reply
                    answers -= 1
            writer.write(again)
        except OSError as error:
            writer.close()
            raise ConnectError(f"the connection was lost before it listened: {error}") from error
        except BaseException:
            writer.close()
            raise
        self._streams = (reader, writer)
        self._retry = FIRST_RETRY
        if self._was_connected:
            self._waiting.append(self._core.gap())
        self._was_connected = True

    def _lose(self) -> None:
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()

    async def _read(self) -> None:
        """Takes what comes next; a lost connection is made again."""
        if self._streams is None:
            await self._reconnect()
            return
        reader, writer = self._streams
        try:
            try:
                async with asyncio.timeout(QUIET_SECONDS) as quiet:
                    data = await reader.read(_READ_SIZE)
            except TimeoutError:
                if not quiet.expired():
                    raise
                if self._core.unanswered:
                    raise ConnectionResetError("the server does not answer") from None
                writer.write(self._core.ping())
                return
            if not data:
                raise ConnectionResetError("closed by the server")
        except OSError:
            self._lose()
            return
        self._core.feed(data)
        self._waiting.extend(self._core.messages())

    async def _reconnect(self) -> None:
        if not self._core.anything and not self._was_connected:
            raise RuntimeError("subscribe before waiting for messages")
        await asyncio.sleep(max(self._next_try - time.monotonic(), 0.0))
        try:
            await self._open()
        except (ConnectError, UncertainError):
            self._next_try = time.monotonic() + self._retry
            self._retry = min(2 * self._retry, LONGEST_RETRY)
