"""Nodes of a Redis Cluster that do what a test says: any answer at any place, replies in pieces, silence, closed connections.

All nodes share one set of data, so a command is executed by whichever node the test lets execute it; `executed` has all of
them in their order. A rule sees every command of data first, and decides what becomes of it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

from kache.backend.conversation import command

Rule = Callable[[int, list[bytes], bool], bytes | None]
"""(node, words, behind ASKING) -> an answer instead of the execution, `CLOSE`, `CLOSE_AFTER`, `SILENT`; None: execute it."""

CLOSE = b"close"
"""The connection is closed instead."""
CLOSE_AFTER = b"close after"
"""It is executed, and then closed without an answer."""
SILENT = b"silent"
"""It is not answered, nor is anything else on this connection."""


def bulk(value: bytes | None) -> bytes:
    return b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


class FakeNodes:
    """`count` nodes that share the slots evenly; a context manager."""

    def __init__(self, count: int = 2, *, pieces: int = 0) -> None:
        self.pieces = pieces
        """Bytes of a reply that are sent at a time; 0: all of it."""
        self.rule: Rule = lambda node, words, asking: None
        self.values: dict[bytes, Any] = {}
        self.executed: list[list[bytes]] = []
        self.received: list[tuple[int, list[bytes]]] = []
        self.lock = threading.Lock()
        self.listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
        self.ports = [each.getsockname()[1] for each in self.listeners]
        edges = [16384 * index // count for index in range(count + 1)]
        self.ranges = [(edges[index], edges[index + 1] - 1, index) for index in range(count)]
        self.views: dict[int, list[tuple[int, int, int]]] = {}
        """Ranges as a node that lags behind sees them."""
        self.epochs: dict[tuple[int, int], int] = {}
        """The config epoch of a node (the second) as another one (the first) sees it; 0 if it is not said."""
        self.connections: list[socket.socket] = []
        self.closing = False
        self.threads: list[threading.Thread] = []

    def __enter__(self) -> FakeNodes:
        for index, listener in enumerate(self.listeners):
            self._thread(self._accept, index, listener)
        return self

    def __exit__(self, *_: object) -> None:
        self.closing = True
        for each in (*self.listeners, *self.connections):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self.threads:
            thread.join(10)

    @property
    def url(self) -> str:
        return "redis-cluster://" + ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def address(self, index: int) -> bytes:
        return b"127.0.0.1:%d" % self.ports[index]

    def _thread(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self, index: int, listener: socket.socket) -> None:
        while not self.closing:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections.append(connection)
            self._thread(self._serve, index, connection)

    def _serve(self, index: int, connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        asking = False
        null = b"$-1\r\n"
        with contextlib.suppress(OSError, ValueError):
            while line := stream.readline():
                words = []
                for _ in range(int(line[1:])):
                    size = int(stream.readline()[1:])
                    words.append(stream.read(size + 2)[:-2])
                answer = self._answer(index, words, asking)
                asking = words[0].upper() == b"ASKING"
                if words[0].upper() == b"HELLO":
                    null = b"_\r\n"
                answer = answer.replace(b"$-1\r\n", null)
                if answer == SILENT:
                    while connection.recv(65536):
                        pass
                    return
                if answer == CLOSE:
                    connection.shutdown(socket.SHUT_RDWR)
                    return
                step = self.pieces or len(answer)
                for at in range(0, len(answer), step):
                    connection.sendall(answer[at : at + step])

    def _answer(self, index: int, words: list[bytes], asking: bool) -> bytes:
        name = words[0].upper()
        if name in (b"AUTH", b"ASKING", b"CLIENT"):
            return b"+OK\r\n"
        if name == b"HELLO":
            return b"%3\r\n$6\r\nserver\r\n$4\r\nfake\r\n$5\r\nproto\r\n:3\r\n$7\r\nmodules\r\n*0\r\n"
        if name == b"PING":
            return b"+PONG\r\n"
        if name == b"CLUSTER":
            return self._slots(index) if words[1].upper() == b"SLOTS" else bulk(self._nodes(index))
        with self.lock:
            self.received.append((index, words))
            answer = self.rule(index, words, asking)
            if answer is not None and answer != CLOSE_AFTER:
                return answer
            self.executed.append(words)
            executed = self._execute(name, words)
        return CLOSE if answer == CLOSE_AFTER else executed

    def _slots(self, asked: int) -> bytes:
        ranges = self.views.get(asked, self.ranges)
        entries = b"".join(
            b"*3\r\n:%d\r\n:%d\r\n*3\r\n%b:%d\r\n%b"
            % (first, last, bulk(b"127.0.0.1"), self.ports[index], bulk(b"node%d" % index))
            for first, last, index in ranges
        )
        return b"*%d\r\n" % len(ranges) + entries

    def _nodes(self, asked: int) -> bytes:
        return b"".join(
            b"node%d 127.0.0.1:%d@1 %bmaster - 0 0 %d connected\n"
            % (index, port, b"myself," if index == asked else b"", self.epochs.get((asked, index), 0))
            for index, port in enumerate(self.ports)
        )

    def _execute(self, name: bytes, words: list[bytes]) -> bytes:
        key = words[1] if len(words) > 1 else b""
        if name == b"SET":
            self.values[key] = words[2]
            return b"+OK\r\n"
        if name == b"GET":
            return bulk(self.values.get(key))
        if name == b"MGET":
            return b"*%d\r\n" % (len(words) - 1) + b"".join(bulk(self.values.get(each)) for each in words[1:])
        if name == b"MSET":
            self.values.update(zip(words[1::2], words[2::2], strict=True))
            return b"+OK\r\n"
        if name == b"DEL":
            return b":%d\r\n" % sum(self.values.pop(each, None) is not None for each in words[1:])
        if name == b"RPUSH":
            self.values.setdefault(key, []).extend(words[2:])
            return b":%d\r\n" % len(self.values[key])
        if name == b"LRANGE":
            values = self.values.get(key, [])
            return b"*%d\r\n" % len(values) + b"".join(map(bulk, values))
        return b"-ERR unknown command '%b'\r\n" % name


def request(*words: str | bytes) -> bytes:
    """A command as RESP."""
    return command(*words)
