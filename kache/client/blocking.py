"""`Client`: the blocking client of the binary protocol, and its pool of connections.

Owns sockets and the lock of the pool. Promises: a connection carries one exchange at a time and returns to the pool
only when every reply of it was read; after a timeout, a lost connection or an unreadable response it is closed.
Nothing is ever sent twice. Encoding and decoding are `kache.client.codec`'s, the typed methods `kache.client.commands`'.
"""

from __future__ import annotations

import math
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, overload

from kache.client.codec import MORE, Argument, Reader, Reply, encode_many, encode_request
from kache.client.commands import Commands, Key, S, T
from kache.client.errors import (
    AuthenticationError,
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
from kache.client.pipeline import Pipeline, Watching, check_stateless, executed, leave_state, leaves_state, raise_first
from kache.client.pubsub import PubSub
from kache.client.streams import Stream
from kache.client.tls import SealedSocket, Tls, refusal, tls_of
from kache.errors import CommandError

if TYPE_CHECKING:
    from ssl import SSLContext

__all__ = ["UNSET", "Client", "Unset", "check_greeting", "greeting"]

_READ_SIZE = 64 * 1024


class Unset:
    """The type of "as the client says", since None means "no timeout"."""


UNSET = Unset()


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - time.monotonic(), 0.0)


def connected(address: tuple[str, int] | str, timeout: float | None, tls: Tls | None) -> socket.socket | SealedSocket:
    """A socket connected to a host and port, or to the path of a Unix socket; raises `ConnectError`."""
    try:
        plain = _connected_socket(address, timeout)
        return plain if tls is None else SealedSocket(plain, tls)
    except OSError as error:
        reason = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or str(error)
        reason = refusal(error) or reason
        raise ConnectError(f"cannot connect to {address_text(address)}: {reason}") from error


def _connected_socket(address: tuple[str, int] | str, timeout: float | None) -> socket.socket:
    if isinstance(address, str):
        unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            unix.settimeout(timeout)
            unix.connect(address)
        except BaseException:
            unix.close()
            raise
        return unix
    tcp = socket.create_connection(address, timeout)
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return tcp


class _Connection:
    """One socket and what was read from it. Used by one thread at a time; closed by whoever finds it unusable."""

    def __init__(
        self, address: tuple[str, int] | str, timeout: float | None, decode: bool, tls: Tls | None = None
    ) -> None:
        self._socket = connected(address, timeout, tls)
        self._socket.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._reader = Reader(decode)
        self._broken = False
        self.tracked_for = 0
        """The connection that is told when what is read here changes; 0: nobody is."""

    def usable(self) -> bool:
        """False once the peer closed it: an idle connection has nothing to read, so anything readable is an end."""
        return not self._broken and not self._poll.poll(0)

    def close(self) -> None:
        self._socket.close()

    def exchange(self, data: bytes, ends: Sequence[int], timeout: float | None) -> list[Reply]:
        """Sends the frames in `data` (they end at `ends`) and returns one reply for each, errors included.

        Reads while it writes: a server that stops reading until its replies are read cannot lock up a long pipeline.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        replies: list[Reply] = []
        rest = memoryview(data)
        try:
            while len(replies) < len(ends):
                rest = self._send(rest)
                self._wait(deadline, writing=bool(rest) and not self._broken)
                self._receive(replies, len(ends))
        except TimeoutError:
            message = f"{len(ends) - len(replies)} of {len(ends)} replies did not come within {timeout:g} s"
            raise RequestTimeoutError(message, replies) from None
        except ConnectError:
            raise  # the server has refused the connection, in words
        except OSError as error:
            reason = error.strerror or str(error)
            if not replies and len(data) - len(rest) < ends[0]:
                raise ConnectError(f"the connection was lost before a request was sent: {reason}") from error
            raise ConnectionLostError(f"the connection was lost: {reason}", replies) from error
        except ProtocolError as error:
            error.replies = replies
            raise
        if self._reader.unread:
            raise ProtocolError("more replies than requests", replies)
        if rest:
            # Refused before it was whole, as too large: the server reads no more of it.
            self._broken = True
        return replies

    def _send(self, rest: memoryview) -> memoryview:
        """Sends what the socket takes; returns what it did not take."""
        if rest and not self._broken:
            try:
                return rest[self._socket.send(rest) :]
            except (BlockingIOError, InterruptedError):
                pass
            except (BrokenPipeError, ConnectionResetError):
                # The server may have said why before it closed: what it sent is still to be read.
                self._broken = True
        return rest

    def _wait(self, deadline: float | None, writing: bool) -> None:
        if writing:
            self._poll.modify(self._socket, select.POLLIN | select.POLLOUT)
        left = _left(deadline)
        # Rounded up: a wait of 0.4 ms must not become a poll that returns at once.
        events = self._poll.poll(None if left is None else int(left * 1000) + 1)
        if writing:
            self._poll.modify(self._socket, select.POLLIN)
        if not events and deadline is not None and time.monotonic() >= deadline:
            raise TimeoutError

    def _receive(self, replies: list[Reply], wanted: int) -> None:
        try:
            data = self._socket.recv(_READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        if not data:
            raise ConnectionResetError("closed by the server")
        self._reader.feed(data)
        while len(replies) < wanted and (reply := self._reader.next_reply()) is not MORE:
            replies.append(reply)


class _Pool:
    """At most `size` connections, the most recently used first; safe for threads and across fork."""

    def __init__(self, connect: Callable[[float | None], _Connection], size: int) -> None:
        self._connect = connect
        self._free = threading.BoundedSemaphore(size)
        self._size = size
        self._idle: list[_Connection] = []
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self.closed = False
        self.tracked_for: Callable[[], int] = lambda: 0
        """For whom connections must track: one that tracks for another is not used again."""

    @contextmanager
    def connection(self, timeout: float | None) -> Iterator[tuple[_Connection, Callable[[], None]]]:
        """A connection for one exchange, and what to call when it may be used again; otherwise it is closed."""
        if self.closed:
            raise ClientClosedError("this client is closed")
        if self._pid != os.getpid():
            self._after_fork()
        free = self._free
        if not free.acquire(timeout=timeout):
            raise PoolTimeoutError(f"all {self._size} connections stayed in use for {timeout:g} s")
        keep: list[_Connection] = []
        try:
            connection = self._take_idle() or self._connect(timeout)
            try:
                yield connection, lambda: keep.append(connection)
            finally:
                with self._lock:
                    if keep and not self.closed:
                        self._idle.append(connection)
                    else:
                        connection.close()
        finally:
            free.release()

    def _take_idle(self) -> _Connection | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if connection.usable() and connection.tracked_for == self.tracked_for():
                return connection
            connection.close()

    def _after_fork(self) -> None:
        # The parent goes on using its connections; this process only gives up its copies of the descriptors.
        for connection in self._idle:
            connection.close()
        self._idle, self._lock = [], threading.Lock()
        self._free = threading.BoundedSemaphore(self._size)
        self._pid = os.getpid()

    def close(self) -> None:
        self.closed = True
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


class Client(Commands[S]):
    """A blocking client of a Kache cluster: thread-safe, pooled, over the binary protocol.

    ::

        with Client() as cache:                                # 127.0.0.1:7379
            cache.set("greeting", "hello", ex=60)              # lives 60 seconds
            cache.get("greeting")                              # b"hello"; None if there were none
            cache.zadd("board", 17.5, "ada")
            cache.zquery("board", limit=3)                     # [(b"ada", 17.5)]
            cache.execute("hset", "user:1", "name", "Ada")     # any command, by its name

            with cache.pipeline(transaction=True) as pipeline: # one round trip, nobody comes between; or without it
                pipeline.incr("visits").get("greeting")
                visits, greeting = pipeline.execute()

    Parameters: ``host`` and ``port``; ``password`` (and ``username``); ``db`` 0 to 15; ``decode=True`` returns `str`
    (UTF-8) instead of `bytes`; ``timeout`` in seconds for a whole exchange, None to wait for ever; ``connect_timeout``
    in seconds for making a connection; ``max_connections`` of the pool, for one of which a thread waits at most
    ``timeout``; ``unixsocket``, the path of a Unix socket instead of host and port; ``tls``, True or an `ssl.SSLContext`, with ``ca``
    (a file of certificates to trust instead of the system's), ``cert`` and ``key`` (files of the client's own) and
    ``server_hostname`` (if it is not ``host``); ``near_cache``, a `NearCache` or a number of keys of which
    this program keeps copies, dropped when they change. `from_url` takes them from a URL. One that cannot be meant raises TypeError or ValueError, which name it.

    The default of 10 seconds is longer than the 5 within which the server begins with a command or says that it has not
    (`RequestTimeoutError`). A command that takes long, such as the union of large sets, is worth a longer ``timeout``:
    the server works on it for up to `command-timeout-ms` (60 seconds).

    Arguments are bytes, str (sent as UTF-8) or numbers. Connections are made when first needed.

    Raises, all of them a `kache.errors.KacheError` and listed in `kache.client.errors`: `CommandError` when the server
    refuses (its subclasses say why: `WrongTypeError`, `BadArgumentError`, …); `NotExecutedError` when trying again is
    safe (`ConnectError`, `UnavailableError`, `OutOfMemoryError`, …); `UncertainError` when the command was executed
    once or not at all (`RequestTimeoutError`, `ConnectionLostError`, `OutcomeUnknownError`). The client itself never
    sends anything twice.
    """

    @overload
    def __init__(
        self: Client[bytes],
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
        self: Client[str],
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
        self._pool = _Pool(self._connect, max_connections)
        self.near_cache = near_cache_of(near_cache)
        if self.near_cache is not None:
            self.near_cache.listen(self._connect_to_listen, self._greeting)
            self._pool.tracked_for = lambda: near.id if (near := self.near_cache) is not None else 0

    @overload
    @classmethod
    def from_url(cls, url: str, *, decode: Literal[False] = ..., **options: Any) -> Client[bytes]: ...
    @overload
    @classmethod
    def from_url(cls, url: str, *, decode: Literal[True], **options: Any) -> Client[str]: ...
    @classmethod
    def from_url(cls, url: str, *, decode: bool = False, **options: Any) -> Client[Any]:
        """A client for ``kache://[[user]:password@]host[:port][/db][?timeout=5]``, or ``unix:///path/of/socket``.

        ``redis://`` means the same as ``kache://``; ``kaches://`` and ``rediss://`` with TLS. Other parameters as of `Client`; what the URL says wins.
        """
        # What a URL says is known at run time only, so no overload fits.
        return cls(decode=decode, **options | url_options(url))  # type: ignore[call-overload,no-any-return]

    def _connect(self, timeout: float | None) -> _Connection:
        connection = _Connection(self._address, self._connect_timeout, self._decode, self._tls)
        listener = 0 if self.near_cache is None else self.near_cache.id
        if self._greeting or listener:
            try:
                if self._greeting:
                    check_greeting(self._greeting, connection.exchange(*encode_many(self._greeting), timeout))
                if listener:
                    request = encode_request(("client", "tracking", "on", "redirect", listener))
                    (reply,) = connection.exchange(request, (len(request),), timeout)
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

    def execute(self, *arguments: Argument, timeout: float | Unset | None = UNSET) -> Reply:
        """Any command by its name: ``execute("hset", "user:1", "name", "Ada")``.

        Returns None for "no such key or member", True for OK without a value, else int, float, bytes (str), or a list
        of these (a map is flat). Raises the reply if it is an error. ``timeout`` in seconds instead of the client's.
        """
        check_stateless(arguments)
        (reply,) = self._exchange(encode_request(arguments), None, leaves_state(arguments), timeout)
        self._note_changed((arguments,))
        if isinstance(reply, CommandError):
            raise reply
        return reply

    def _note_changed(self, requests: Sequence[Sequence[Argument]]) -> None:
        if self.near_cache is not None:
            for arguments in requests:
                self.near_cache.changed_here(arguments)

    def execute_many(
        self, requests: Sequence[Sequence[Argument]], *, timeout: float | Unset | None = UNSET
    ) -> list[Reply]:
        """Several commands in one exchange; their replies in order, errors as `CommandError` instances."""
        if not requests:
            return []
        data, ends = encode_many(requests)
        replies = self._exchange(data, ends, leave_state(requests), timeout)
        self._note_changed(requests)
        return replies

    def pipeline(self, transaction: bool = False) -> Pipeline[S]:
        """Collects commands to send them together; with ``transaction`` they are executed at once and alone. See `Pipeline`."""
        return Pipeline(self, transaction)

    def pubsub(self) -> PubSub[S]:
        """Listens to channels, over a connection of its own. See `PubSub`; `publish` sends."""
        return PubSub(self._connect_to_listen, self._greeting, self._decode, self._timeout)

    def _connect_to_listen(self, timeout: float | None) -> socket.socket | SealedSocket:
        limits = [seconds for seconds in (timeout, self._connect_timeout) if seconds is not None]
        return connected(self._address, min(limits, default=None), self._tls)

    def stream(self, key: Key) -> Stream[S]:
        """The stream at a key: adding, reading, and working through it with others. See `Stream`."""
        return Stream(self, key)

    def transaction(self, function: Callable[[Watching[S]], T], *keys: Key, attempts: int = 64) -> tuple[T, list[Any]]:
        """What ``function`` reads and then queues, as if nobody else had been there: for changes that depend on what is there.

        ::

            def move(cache):
                left = int(cache.get("stock") or 0)
                if left:
                    cache.queue.set("stock", left - 1).rpush("orders", "one more")
                return left

            left, replies = cache.transaction(move, "stock")

        ``keys`` are watched. If one of them has changed when the function has returned, nothing is executed and it is called
        again, up to ``attempts`` times, then `ConflictError` is raised. Returns what the function returned and the replies to
        what it has queued. An error reply to one of them is raised; the others were executed.
        """
        seconds = self._timeout
        for _ in range(attempts):
            with self._pool.connection(seconds) as (connection, keep):

                def send(requests: Sequence[Sequence[Argument]]) -> list[Reply]:
                    data, ends = encode_many(requests)
                    return connection.exchange(data, ends, seconds)

                raise_first(send([("watch", *keys)]) if keys else [])
                watching: Watching[S] = Watching(send)
                result = function(watching)
                replies = executed(send(watching.queue.requests()))
                # EXEC has ended the watches; an exception on the way closes the connection, and them with it.
                keep()
            if replies is not None:
                self._note_changed(watching.queue.requests())
                return result, watching.queue.shaped(replies)
        raise ConflictError(
            f"CONFLICT the watched keys changed during each of {attempts} attempts; nothing was executed"
        )

    def close(self) -> None:
        """Closes all idle connections, those in use when their exchange ends. Using the client again raises."""
        self._pool.close()
        if self.near_cache is not None:
            self.near_cache.close()

    def _run(self, arguments: Sequence[Argument], convert: Callable[[Reply], T]) -> T:
        near = self.near_cache
        if near is not None and arguments[0] in NEAR_READS:
            reply = near.read(arguments, lambda: self._ask_tracked(arguments))
        else:
            (reply,) = self._exchange(encode_request(arguments), None, False, UNSET)
            if near is not None:
                near.changed_here(arguments)
        if isinstance(reply, CommandError):
            raise reply
        return convert(reply)

    def _ask_tracked(self, arguments: Sequence[Argument]) -> tuple[Reply, int]:
        """A reply, and which connection is told when it is not true any more."""
        data = encode_request(arguments)
        with self._pool.connection(self._timeout) as (connection, keep):
            (reply,) = connection.exchange(data, (len(data),), self._timeout)
            keep()
            return reply, connection.tracked_for

    def _wait(self, arguments: Sequence[Argument], convert: Callable[[Reply], T], seconds: float) -> T:
        (reply,) = self._exchange(encode_request(arguments), None, False, UNSET, seconds or math.inf)
        self._note_changed((arguments,))
        if isinstance(reply, CommandError):
            raise reply
        return convert(reply)

    def _exchange(
        self,
        data: bytes,
        ends: list[int] | None,
        stateful: bool,
        timeout: float | Unset | None,
        waits: float = 0.0,
    ) -> list[Reply]:
        """One exchange. Its time, but not that for a connection of the pool, is `waits` seconds longer."""
        seconds = self._timeout if isinstance(timeout, Unset) else check_seconds("timeout", timeout)
        with self._pool.connection(seconds) as (connection, keep):
            limit = None if seconds is None or waits == math.inf else seconds + waits
            replies = connection.exchange(data, ends or (len(data),), limit)
            if not stateful:
                keep()
            return replies

    def __enter__(self) -> Client[S]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def greeting(password: str | None, username: str | None, db: int) -> list[tuple[Any, ...]]:
    """What a new connection says first."""
    if username is not None and password is None:
        raise ValueError("a username needs a password")
    requests: list[tuple[Any, ...]] = []
    if password is not None:
        requests.append(("auth", password) if username is None else ("auth", username, password))
    if db:
        requests.append(("select", db))
    return requests


def check_greeting(requests: Sequence[Sequence[Any]], replies: Sequence[Reply]) -> None:
    """Raises the first error among the replies to a greeting, if there is one; whatever AUTH answers is an
    `AuthenticationError`, such as that no password is set."""
    for request, reply in zip(requests, replies, strict=True):
        if isinstance(reply, CommandError):
            is_ours = request[0] != "auth" or isinstance(reply, AuthenticationError)
            raise reply if is_ours else AuthenticationError(reply.message)
