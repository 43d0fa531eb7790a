"""`NearCache`: copies of replies in the program itself, dropped when the server says that their keys have changed.

    get k ── a copy ──► returned
        └─ none ──► a token is laid down for k, then the server is asked; the copy is kept if the token is still there
    the server: k has changed (CLIENT TRACKING, redirected to one connection that only listens) ──► copy and tokens go

Whatever changes a key after it was read is told after the token was laid, so no copy outlives the news of its change. How
late that news may be is the bound: the way from shard to client, microseconds to milliseconds. A connection that listens
and is lost takes all copies with it, and none are made until there is another. What this client itself changes is dropped
at once.

Owns the copies and the thread that listens, of an `AsyncClient` too: its news do not wait for the event loop. Threads may use
it at the same time. The pool of the client tells its connections to track for it.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

from kache.client.codec import MORE, Argument, Reply
from kache.client.errors import ConnectError, ProtocolError
from kache.client.messages import Push, RespReader, encode_resp
from kache.client.pubsub import FIRST_RETRY, LONGEST_RETRY, QUIET_SECONDS, greeting_bytes
from kache.client.tls import SealedSocket
from kache.errors import CommandError

__all__ = ["NEAR_READS", "NearCache", "near_cache_of"]

NEAR_READS: Final = frozenset(
    {"get", "strlen", "hget", "hexists", "hlen", "llen", "scard", "sismember", "zcard", "zscore", "type"}
)
"""Commands whose replies are kept: they read one key, their first argument, and answer one immutable value."""
_EVERYTHING: Final = frozenset({"flushall", "flushdb", "swapdb"})
DEFAULT_KEYS: Final = 10_000
_READ_SIZE: Final = 256 * 1024


class NearCache:
    """Up to ``max_keys`` keys, those longest unused dropped first. ``hits``, ``misses`` and ``dropped`` count.

    Given to a client: ``Client(near_cache=NearCache(max_keys=1000))``, or just ``Client(near_cache=1000)``, and likewise to an
    `AsyncClient`. It belongs to that client alone.
    """

    def __init__(self, max_keys: int = DEFAULT_KEYS) -> None:
        if not isinstance(max_keys, int) or isinstance(max_keys, bool):
            raise TypeError(f"max_keys must be an int, not {max_keys!r}")
        if max_keys < 1:
            raise ValueError(f"max_keys must be at least 1, not {max_keys}")
        self.max_keys = max_keys
        self.hits = 0
        self.misses = 0
        self.dropped = 0
        """Keys whose copies were dropped because they have changed."""
        self._copies: OrderedDict[bytes, dict[tuple[Argument, ...], Reply]] = OrderedDict()
        self._tokens: dict[bytes, set[object]] = {}
        self._lock = threading.Lock()
        self._listener: _Listener | None = None

    def __len__(self) -> int:
        return len(self._copies)

    # Of the client ----------------------------------------------------------------------------------------
    def listen(
        self, connect: Callable[[float | None], socket.socket | SealedSocket], greeting: Sequence[Sequence[Any]]
    ) -> None:
        """Begins to listen in a thread of its own."""
        if self._listener is not None:
            raise ValueError("a NearCache belongs to one client: make one for each")
        self._listener = _Listener(self, connect, greeting)

    @property
    def begun(self) -> bool:
        """Whether `id` answers at once: its first call connects."""
        return self._listener is not None and self._listener.begun

    @property
    def id(self) -> int:
        """The connection that listens, as the server numbers it; 0 while there is none, and nothing is kept."""
        return 0 if self._listener is None else self._listener.current()

    def read(self, arguments: Sequence[Argument], ask: Callable[[], tuple[Reply, int]]) -> Reply:
        """The copy of a reply, or what `ask` answers: the reply, and for which listening connection it is tracked."""
        copy, token = self.look(arguments)
        if token is None:
            return copy
        try:
            reply, tracked_for = ask()
        except BaseException:
            self.keep(arguments, token, None, 0)
            raise
        self.keep(arguments, token, reply, tracked_for)
        return reply

    def look(self, arguments: Sequence[Argument]) -> tuple[Reply, object | None]:
        """The copy of a reply and None; or a token to be given to `keep` with what the server answers."""
        _ = self.id  # begins to listen, if nobody does yet: no token is older than that
        key = key_bytes(arguments[1])
        request = tuple(arguments)
        with self._lock:
            copies = self._copies.get(key)
            if copies is not None and request in copies:
                self._copies.move_to_end(key)
                self.hits += 1
                return copies[request], None
            self.misses += 1
            token = object()
            self._tokens.setdefault(key, set()).add(token)
        return None, token

    def keep(self, arguments: Sequence[Argument], token: object, reply: Reply, tracked_for: int) -> None:
        """A reply, and for which listening connection its key is tracked; 0: it is not kept, and the token ends."""
        fresh = tracked_for != 0 and tracked_for == self.id and not isinstance(reply, CommandError)
        self._keep(key_bytes(arguments[1]), token, tuple(arguments) if fresh else None, reply)

    def _keep(self, key: bytes, token: object, request: tuple[Argument, ...] | None, reply: Reply) -> None:
        with self._lock:
            tokens = self._tokens.get(key)
            if tokens is None or token not in tokens:
                return  # it has changed meanwhile
            tokens.discard(token)
            if not tokens:
                del self._tokens[key]
            if request is None:
                return
            self._copies.setdefault(key, {})[request] = reply
            self._copies.move_to_end(key)
            if len(self._copies) > self.max_keys:
                self._copies.popitem(last=False)

    def changed_here(self, arguments: Sequence[Argument]) -> None:
        """This client has executed a command: whatever it may have changed is not kept."""
        name = arguments[0]
        name = (
            name if isinstance(name, str) else bytes(name).decode("latin-1") if isinstance(name, bytes) else ""
        ).lower()
        if name in NEAR_READS:
            return
        if name in _EVERYTHING:
            self.drop_all()
            return
        with self._lock:
            for argument in arguments[1:]:
                if isinstance(argument, bytes | str):
                    self._drop(key_bytes(argument))

    # Of the server ----------------------------------------------------------------------------------------
    def drop(self, keys: Sequence[bytes]) -> None:
        """These keys have changed."""
        with self._lock:
            for key in keys:
                self._drop(key)

    def _drop(self, key: bytes) -> None:
        self._tokens.pop(key, None)
        if self._copies.pop(key, None) is not None:
            self.dropped += 1

    def drop_all(self) -> None:
        """Everything may have changed."""
        with self._lock:
            self.dropped += len(self._copies)
            self._copies.clear()
            self._tokens.clear()

    def close(self) -> None:
        """Ends the thread that listens."""
        if self._listener is not None:
            self._listener.close()
        self.drop_all()


def near_cache_of(given: object) -> NearCache | None:
    """What a client was given as `near_cache`; TypeError or ValueError for what is none."""
    if given is None or isinstance(given, NearCache):
        return given
    if isinstance(given, int) and not isinstance(given, bool):
        if given < 1:
            raise ValueError(f"near_cache must be at least one key, not {given}; None is no cache")
        return NearCache(given)
    raise TypeError(f"near_cache must be a NearCache, a number of keys or None, not {given!r}")


def key_bytes(key: Argument) -> bytes:
    """A key as the server names it."""
    return (
        key
        if isinstance(key, bytes)
        else str(key).encode()
        if not isinstance(key, bytearray | memoryview)
        else bytes(key)
    )


class _Listener:
    """The connection that is told of changes, and the thread that reads it."""

    def __init__(
        self,
        cache: NearCache,
        connect: Callable[[float | None], socket.socket | SealedSocket],
        greeting: Sequence[Sequence[Any]],
    ) -> None:
        self._cache = cache
        self._connect = connect
        self._greeting = greeting
        self._id = 0
        self._socket: socket.socket | SealedSocket | None = None
        self._closed = threading.Event()
        self._pid = 0
        self._starting = threading.Lock()

    @property
    def begun(self) -> bool:
        """Whether this process has begun to listen."""
        return self._pid == os.getpid()

    def current(self) -> int:
        """The number of the connection, 0 while there is none. The first call, and the first behind a fork, begins."""
        if not self.begun:
            self._start()
        return self._id

    def _start(self) -> None:
        with self._starting:
            if self.begun or self._closed.is_set():
                return
            self._id = 0
            self._cache.drop_all()
            try:
                self._open()
            except (OSError, CommandError, ConnectError, ProtocolError):
                self._lose()  # the thread tries again
            # Only now: whoever sees that it has begun, and does not wait, is not told that nobody listens.
            self._pid = os.getpid()
            threading.Thread(target=self._run, name="kache near cache", daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        self._lose()

    def _lose(self) -> None:
        """Nothing is known any more."""
        self._id = 0
        connection, self._socket = self._socket, None
        if connection is not None:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            connection.close()
        self._cache.drop_all()

    def _open(self) -> None:
        connection = self._connect(None)
        try:
            connection.settimeout(QUIET_SECONDS)
            said, answers = greeting_bytes(self._greeting)
            connection.sendall(said + encode_resp("CLIENT", "ID"))
            self._reader = RespReader()
            replies: list[Any] = []
            while len(replies) < answers + 1:
                data = connection.recv(_READ_SIZE)
                if not data:
                    raise ConnectionResetError("closed by the server")
                self._reader.feed(data)
                while (reply := self._reader.next_value()) is not MORE:
                    if isinstance(reply, CommandError):
                        raise reply
                    replies.append(reply)
        except BaseException:
            connection.close()
            raise
        self._unanswered = 0
        self._socket = connection
        self._id = int(replies[-1])

    def _run(self) -> None:
        retry = FIRST_RETRY
        while not self._closed.is_set():
            try:
                if self._socket is None:
                    self._open()
                retry = FIRST_RETRY
                self._read(self._socket)
            except (OSError, CommandError, ConnectError, ProtocolError):
                self._lose()
                self._closed.wait(retry)
                retry = min(2 * retry, LONGEST_RETRY)
        self._lose()

    def _read(self, connection: socket.socket | SealedSocket | None) -> None:
        while connection is not None and connection is self._socket:
            try:
                data = connection.recv(_READ_SIZE)
            except TimeoutError:
                if self._unanswered:
                    raise ConnectionResetError("the server does not answer") from None
                self._unanswered = 1
                connection.sendall(encode_resp("PING"))
                continue
            if not data:
                raise ConnectionResetError("closed by the server")
            self._unanswered = 0
            self._reader.feed(data)
            while (value := self._reader.next_value()) is not MORE:
                if isinstance(value, Push) and value[0] == b"invalidate":
                    if value[1] is None:
                        self._cache.drop_all()
                    else:
                        self._cache.drop(value[1])
