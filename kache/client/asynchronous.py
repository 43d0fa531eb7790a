"""`AsyncClient`: the asyncio client of the binary protocol, and its pool of connections.

Owns transports. Promises what `kache.client.blocking` promises; a cancelled exchange closes its connection too, because its
replies may still come. A client belongs to the event loop it is used on; when that has ended, to the next one.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from ssl import SSLContext
from types import TracebackType
from typing import Any, Literal, cast, overload

from kache.client.async_commands import AsyncCommands
from kache.client.async_pubsub import AsyncPubSub, Streams
from kache.client.blocking import UNSET, Unset, check_greeting, connected, greeting
from kache.client.codec import MORE, Argument, Reader, Reply, encode_many, encode_request
from kache.client.commands import Key, S, T
from kache.client.errors import (
    ClientClosedError,
    ConflictError,
    ConnectError,
    ConnectionLostError,
    PoolTimeoutError,
    ProtocolError,
    RequestTimeoutError,
    UncertainError,
)
from kache.client.near import NEAR_READS, NearCache, near_cache_of
from kache.client.options import TIMEOUT_SECONDS, address_text, check_options, check_seconds, url_options
from kache.client.pipeline import (
    AsyncPipeline,
    Recorder,
    check_stateless,
    executed,
    leave_state,
    leaves_state,
    raise_first,
)
from kache.client.streams import AsyncStream
from kache.client.tls import SealedSocket, Tls, refusal, tls_of
from kache.errors import CommandError

__all__ = ["AsyncClient"]


class _Connection(asyncio.Protocol):
    """One transport, and the exchange that waits on it."""

    def __init__(self, decode: bool) -> None:
        self._reader = Reader(decode)
        self._transport: asyncio.Transport | None = None
        self._replies: list[Reply] = []
        self._wanted = 0
        self._done: asyncio.Future[None] | None = None
        self._open = self._heard = False
        self.tracked_for = 0
        """The connection that is told when what is read here changes; 0: nobody is."""

    @property
    def usable(self) -> bool:
        """False once the peer closed it or said something unasked."""
        if not self._open or self._reader.unread:
            return False
        # Unsent is what was refused before it was whole, as too large: the server reads no more of it.
        return self._transport is not None and self._transport.get_write_buffer_size() == 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is none by its class, only by what it can do.
        self._transport = cast(asyncio.Transport, transport)
        self._open = True

    def data_received(self, data: bytes) -> None:
        self._heard = True
        self._reader.feed(data)
        if self._done is not None:
            self._collect()

    def _collect(self) -> None:
        """Takes the replies that are there; ends the exchange when they are all in, or are none."""
        try:
            while len(self._replies) < self._wanted and (reply := self._reader.next_reply()) is not MORE:
                self._replies.append(reply)
            if len(self._replies) == self._wanted and self._reader.unread:
                raise ProtocolError("more replies than requests")
        except Exception as error:  # UnicodeDecodeError as well: whoever waits must hear of it
            self._finish(error)
        else:
            if len(self._replies) == self._wanted:
                self._finish(None)

    def eof_received(self) -> None:
        self.connection_lost(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._open = False
        why = refusal(error) if isinstance(error, OSError) and not self._heard else ""
        if why:
            # A client without the certificate that the server wants is told behind its handshake.
            error = ConnectError(f"the server refuses TLS with this client: {why}")
        self._finish(error or ConnectionResetError("closed by the server"))

    def _finish(self, error: Exception | None) -> None:
        done, self._done = self._done, None
        if error is not None:
            self.close()
        if done is not None and not done.done():
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

    def close(self) -> None:
        self._open = False
        if self._transport is not None:
            self._transport.abort()

    async def exchange(self, data: bytes, count: int, timeout: float | None) -> list[Reply]:
        """Sends the frames in `data` and returns `count` replies, errors included."""
        assert self._transport is not None
        if not self._open and not self._reader.unread:
            raise ConnectError("the connection was lost before a request was sent: closed by the server")
        self._replies, self._wanted = [], count
        done = self._done = asyncio.get_running_loop().create_future()
        if self._open:
            self._transport.write(data)
        # A server that refuses the connection has answered already.
        self._collect()
        if not self._open:
            self._finish(ConnectionResetError("closed by the server"))
        try:
            async with asyncio.timeout(timeout):
                await done
        except TimeoutError:
            message = f"{count - len(self._replies)} of {count} replies did not come within {timeout:g} s"
            raise RequestTimeoutError(message, self._replies) from None
        except ConnectError:
            raise  # the server has refused the connection, in words
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConnectionLostError(f"the connection was lost: {reason}", self._replies) from error
        except ProtocolError as error:
            error.replies = self._replies
            raise
        finally:
            self._done = None
        return self._replies


def _ssl_arguments(tls: Tls | None) -> dict[str, Any]:
    return {} if tls is None else {"ssl": tls[0], "server_hostname": tls[1]}


async def _connected(address: tuple[str, int] | str, decode: bool, tls: Tls | None) -> _Connection:
    """A connection to a host and port, or to the path of a Unix socket."""
    loop = asyncio.get_running_loop()
    if isinstance(address, str):
        _, connection = await loop.create_unix_connection(lambda: _Connection(decode), address)
    else:
        _, connection = await loop.create_connection(lambda: _Connection(decode), *address, **_ssl_arguments(tls))
    return connection


class _Pool:
    """At most `size` connections of one event loop, the most recently used first."""

    def __init__(self, connect: Callable[[float | None], Awaitable[_Connection]], size: int) -> None:
        self._connect = connect
        self._size = size
        self._free = asyncio.Semaphore(size)
        self._idle: list[_Connection] = []
        self.loop: asyncio.AbstractEventLoop | None = None
        self.closed = False
        self.tracked_for: Callable[[], int] = lambda: 0
        """For whom connections must track: one that tracks for another is not used again."""

    @asynccontextmanager
    async def connection(self, timeout: float | None) -> AsyncIterator[tuple[_Connection, Callable[[], None]]]:
        """A connection for one exchange, and what to call when it may be used again; otherwise it is closed."""
        if self.closed:
            raise ClientClosedError("this client is closed")
        try:
            async with asyncio.timeout(timeout):
                await self._free.acquire()
        except TimeoutError:
            raise PoolTimeoutError(f"all {self._size} connections stayed in use for {timeout:g} s") from None
        keep: list[_Connection] = []
        try:
            connection = self._take_idle() or await self._connect(timeout)
            try:
                yield connection, lambda: keep.append(connection)
            finally:
                if keep and not self.closed and connection.usable:
                    self._idle.append(connection)
                else:
                    connection.close()
        finally:
            self._free.release()

    def _take_idle(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and connection.tracked_for == self.tracked_for():
                return connection
            connection.close()
        return None

    def close(self) -> None:
        self.closed = True
        if self.loop is not None and self.loop.is_closed():
            self._idle.clear()  # their transports have ended with it
        while self._idle:
            self._idle.pop().close()


class AsyncWatching(AsyncCommands[S]):
    """The same for ``AsyncClient.transaction``; its methods are awaited, those of `queue` are not."""

    def __init__(self, send: Callable[[Sequence[Sequence[Argument]]], Awaitable[list[Reply]]]) -> None:
        self._send = send
        self.queue: Recorder[S] = Recorder()

    async def execute(self, *arguments: Argument) -> Reply:
        """Any command at once, by its name."""
        (reply,) = await self._send([arguments])
        if isinstance(reply, CommandError):
            raise reply
        return reply

    async def _run(self, arguments: Sequence[Argument], convert: Callable[[Reply], T]) -> T:
        return convert(await self.execute(*arguments))

    async def _wait(self, arguments: Sequence[Argument], convert: Callable[[Reply], T], seconds: float) -> T:
        return await self._run(arguments, convert)


class AsyncClient(AsyncCommands[S]):
    """An asyncio client of a Kache cluster: pooled, over the binary protocol.

    ::

        async with AsyncClient() as cache:                     # 127.0.0.1:7379
            await cache.set("greeting", "hello", ex=60)        # lives 60 seconds
            await cache.get("greeting")                        # b"hello"; None if there were none
            await cache.execute("hset", "user:1", "name", "Ada")

            async with cache.pipeline() as pipeline:           # one round trip for all of it
                pipeline.incr("visits").get("greeting")
                visits, greeting = await pipeline.execute()

            async for key in cache.scan_iter("user:*"):
                ...

    Parameters, methods, arguments, results and exceptions are those of `kache.Client`. Any number of tasks may use one
    client; each exchange has a connection of its own while it lasts, so a slow command holds up no other one.
    """

    @overload
    def __init__(
        self: AsyncClient[bytes],
        host: str = ...,
        port: int = ...,
        *,
        password: str | None = ...,
        username: str | None = ...,
        db: int = ...,
        decode: Literal[False] = ...,
        timeout: float | None = ...,
        connect_timeout: float | None = ...,
        max_connections: int = ...,
        unixsocket: str | None = ...,
        tls: bool | SSLContext = ...,
        ca: str | None = ...,
        cert: str | None = ...,
        key: str | None = ...,
        server_hostname: str | None = ...,
        near_cache: NearCache | int | None = ...,
    ) -> None: ...

    @overload
    def __init__(
        self: AsyncClient[str],
        host: str = ...,
        port: int = ...,
        *,
        password: str | None = ...,
        username: str | None = ...,
        db: int = ...,
        decode: Literal[True],
        timeout: float | None = ...,
        connect_timeout: float | None = ...,
        max_connections: int = ...,
        unixsocket: str | None = ...,
        tls: bool | SSLContext = ...,
        ca: str | None = ...,
        cert: str | None = ...,
        key: str | None = ...,
        server_hostname: str | None = ...,
        near_cache: NearCache | int | None = ...,
    ) -> None: ...

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 7379,
        *,
        password: str | None = None,
        username: str | None = None,
        db: int = 0,
        decode: bool = False,
        timeout: float | None = TIMEOUT_SECONDS,
        connect_timeout: float | None = 2.0,
        max_connections: int = 64,
        unixsocket: str | None = None,
        tls: bool | SSLContext = False,
        ca: str | None = None,
        cert: str | None = None,
        key: str | None = None,
        server_hostname: str | None = None,
        near_cache: NearCache | int | None = None,
    ) -> None:
        check_options(host, port, password, username, db, decode, timeout, connect_timeout, max_connections, unixsocket)
        self._address: tuple[str, int] | str = (host, port) if unixsocket is None else unixsocket
        self._tls = tls_of(tls, ca, cert, key, server_hostname, host, unixsocket)
        self._greeting = greeting(password, username, db)
        self._decode = decode
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._max_connections = max_connections
        self.near_cache = near_cache_of(near_cache)
        self._pool = self._new_pool()
        if self.near_cache is not None:
            self.near_cache.listen(self._connect_listener, self._greeting)

    def _new_pool(self) -> _Pool:
        pool = _Pool(self._connect, self._max_connections)
        pool.tracked_for = lambda: near.id if (near := self.near_cache) is not None else 0
        return pool

    def _connect_listener(self, timeout: float | None) -> socket.socket | SealedSocket:
        """For the thread of the near cache."""
        limits = [seconds for seconds in (timeout, self._connect_timeout) if seconds is not None]
        return connected(self._address, min(limits, default=None), self._tls)

    @overload
    @classmethod
    def from_url(cls, url: str, *, decode: Literal[False] = ..., **options: Any) -> AsyncClient[bytes]: ...
    @overload
    @classmethod
    def from_url(cls, url: str, *, decode: Literal[True], **options: Any) -> AsyncClient[str]: ...
    @classmethod
    def from_url(cls, url: str, *, decode: bool = False, **options: Any) -> AsyncClient[Any]:
        """A client for ``kache://[[user]:password@]host[:port][/db][?timeout=5]``, or ``unix:///path/of/socket``.

        ``redis://`` means the same as ``kache://``; ``kaches://`` and ``rediss://`` with TLS. Other parameters as of `AsyncClient`; what the URL says wins.
        """
        # What a URL says is known at run time only, so no overload fits.
        return cls(decode=decode, **options | url_options(url))  # type: ignore[call-overload,no-any-return]

    async def _connect(self, timeout: float | None) -> _Connection:
        try:
            async with asyncio.timeout(self._connect_timeout):
                connection = await _connected(self._address, self._decode, self._tls)
        except OSError as error:
            raise self._not_connected(error) from error
        listener = 0 if self.near_cache is None else await self._listener_of(self.near_cache)
        if self._greeting or listener:
            try:
                if self._greeting:
                    data, ends = encode_many(self._greeting)
                    check_greeting(self._greeting, await connection.exchange(data, len(ends), timeout))
                if listener:
                    request = encode_request(("client", "tracking", "on", "redirect", listener))
                    (reply,) = await connection.exchange(request, 1, timeout)
                    # One that has just gone: what is read here is not kept.
                    connection.tracked_for = 0 if isinstance(reply, CommandError) else listener
            except UncertainError as error:
                # Uncertain is only the greeting: the command itself has not been sent.
                connection.close()
                raise ConnectError(f"the server did not accept the connection: {error}") from error
            except BaseException:
                connection.close()
                raise
        return connection

    async def execute(self, *arguments: Argument, timeout: float | Unset | None = UNSET) -> Reply:
        """Any command by its name; see `kache.Client.execute`."""
        check_stateless(arguments)
        (reply,) = await self._exchange(encode_request(arguments), 1, leaves_state(arguments), timeout)
        self._note_changed((arguments,))
        if isinstance(reply, CommandError):
            raise reply
        return reply

    async def execute_many(
        self, requests: Sequence[Sequence[Argument]], *, timeout: float | Unset | None = UNSET
    ) -> list[Reply]:
        """Several commands in one exchange; their replies in order, errors as `CommandError` instances."""
        if not requests:
            return []
        data, ends = encode_many(requests)
        replies = await self._exchange(data, len(ends), leave_state(requests), timeout)
        self._note_changed(requests)
        return replies

    def _note_changed(self, requests: Sequence[Sequence[Argument]]) -> None:
        if self.near_cache is not None:
            for arguments in requests:
                self.near_cache.changed_here(arguments)

    def pipeline(self, transaction: bool = False) -> AsyncPipeline[S]:
        """Collects commands to send them together; with ``transaction`` they are executed at once and alone."""
        return AsyncPipeline(self, transaction)

    def pubsub(self) -> AsyncPubSub[S]:
        """Listens to channels, over a connection of its own. See `AsyncPubSub`."""
        return AsyncPubSub(self._connect_to_listen, self._greeting, self._decode, self._timeout)

    async def _connect_to_listen(self) -> Streams:
        try:
            async with asyncio.timeout(self._connect_timeout):
                if isinstance(self._address, str):
                    return await asyncio.open_unix_connection(self._address)
                return await asyncio.open_connection(*self._address, **_ssl_arguments(self._tls))
        except OSError as error:
            raise self._not_connected(error) from error

    def _not_connected(self, error: OSError) -> ConnectError:
        reason = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or str(error)
        return ConnectError(f"cannot connect to {address_text(self._address)}: {refusal(error) or reason}")

    def stream(self, key: Key) -> AsyncStream[S]:
        """The stream at a key: adding, reading, and working through it with others. See `AsyncStream`."""
        return AsyncStream(self, key)

    async def transaction(
        self, function: Callable[[AsyncWatching[S]], Awaitable[T]], *keys: Key, attempts: int = 64
    ) -> tuple[T, list[Any]]:
        """What the coroutine function reads and then queues, as if nobody else had been there; `Client.transaction`."""
        seconds = self._timeout
        for _ in range(attempts):
            async with self._pool.connection(seconds) as (connection, keep):

                async def send(requests: Sequence[Sequence[Argument]]) -> list[Reply]:
                    data, ends = encode_many(requests)
                    return await connection.exchange(data, len(ends), seconds)

                raise_first(await send([("watch", *keys)]) if keys else [])
                watching: AsyncWatching[S] = AsyncWatching(send)
                result = await function(watching)
                replies = executed(await send(watching.queue.requests()))
                keep()
            if replies is not None:
                self._note_changed(watching.queue.requests())
                return result, watching.queue.shaped(replies)
        raise ConflictError(
            f"CONFLICT the watched keys changed during each of {attempts} attempts; nothing was executed"
        )

    async def close(self) -> None:
        """Closes all idle connections, those in use when their exchange ends. Using the client again raises."""
        self._pool.close()
        if self.near_cache is not None:
            self.near_cache.close()

    async def _run(self, arguments: Sequence[Argument], convert: Callable[[Reply], T]) -> T:
        near = self.near_cache
        if near is not None and arguments[0] in NEAR_READS:
            reply = await self._read_near(near, arguments)
        else:
            (reply,) = await self._exchange(encode_request(arguments), 1, False, UNSET)
            if near is not None:
                near.changed_here(arguments)
        if isinstance(reply, CommandError):
            raise reply
        return convert(reply)

    async def _listener_of(self, near: NearCache) -> int:
        """The connection that listens; whoever asks first waits until it is there."""
        return near.id if near.begun or self._pool.closed else await asyncio.to_thread(lambda: near.id)

    async def _read_near(self, near: NearCache, arguments: Sequence[Argument]) -> Reply:
        """The copy of a reply, or the reply, which is kept."""
        await self._listener_of(near)
        copy, token = near.look(arguments)
        if token is None:
            return copy
        reply: Reply = None
        tracked_for = 0
        try:
            async with self._pool_here().connection(self._timeout) as (connection, keep):
                (reply,) = await connection.exchange(encode_request(arguments), 1, self._timeout)
                tracked_for = connection.tracked_for
                keep()
        finally:
            near.keep(arguments, token, reply, tracked_for)
        return reply

    async def _wait(self, arguments: Sequence[Argument], convert: Callable[[Reply], T], seconds: float) -> T:
        (reply,) = await self._exchange(encode_request(arguments), 1, False, UNSET, seconds or math.inf)
        self._note_changed((arguments,))
        if isinstance(reply, CommandError):
            raise reply
        return convert(reply)

    async def _exchange(
        self, data: bytes, count: int, stateful: bool, timeout: float | Unset | None, waits: float = 0.0
    ) -> list[Reply]:
        """One exchange. Its time, but not that for a connection of the pool, is `waits` seconds longer."""
        seconds = self._timeout if isinstance(timeout, Unset) else check_seconds("timeout", timeout)
        async with self._pool_here().connection(seconds) as (connection, keep):
            limit = None if seconds is None or waits == math.inf else seconds + waits
            replies = await connection.exchange(data, count, limit)
            if not stateful:
                keep()
            return replies

    def _pool_here(self) -> _Pool:
        """The pool of the running event loop; a new one where that of the connections so far has ended."""
        loop, pool = asyncio.get_running_loop(), self._pool
        if pool.loop is None:
            pool.loop = loop
        elif pool.loop is not loop:
            if pool.loop.is_running():
                raise RuntimeError(
                    "this AsyncClient is in use on another event loop, which still runs: make one for each loop"
                )
            closed = pool.closed
            pool.close()
            pool = self._pool = self._new_pool()
            pool.loop, pool.closed = loop, closed
        return pool

    async def __aenter__(self) -> AsyncClient[S]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
