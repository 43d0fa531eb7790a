"""Both clients against a small server of the binary protocol, well-behaved and otherwise."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop
from cluster import until

from kache import AsyncClient, Client
from kache.client.errors import (
    AuthenticationError,
    ClientClosedError,
    CommandError,
    ConnectError,
    ConnectionLostError,
    KacheError,
    NotExecutedError,
    PoolTimeoutError,
    ProtocolError,
    RequestTimeoutError,
    UnavailableError,
    UncertainError,
    UnknownCommandError,
)


def reply(status: int, value: bytes) -> bytes:
    return struct.pack("<II", 4 + len(value), status) + value


def text(status: int, tag: int, data: bytes) -> bytes:
    return reply(status, struct.pack("<BI", tag, len(data)) + data)


OK, MISSING = reply(0, b"\0"), reply(2, b"\0")


class FakeServer:
    """A dict behind the binary protocol, a thread per connection; `seen` holds every request received."""

    def __init__(self, password: bytes | None = None) -> None:
        self.values: dict[bytes, bytes] = {}
        self.seen: list[list[bytes]] = []
        self.accepted = 0
        self.password = password
        self.release = threading.Event()
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.connections: list[socket.socket] = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.accepted += 1
            self.connections.append(connection)
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        trusted = self.password is None
        try:
            with connection, connection.makefile("rb") as stream:
                while len(head := stream.read(4)) == 4:
                    body = stream.read(struct.unpack("<I", head)[0])
                    arguments = self.parse(body)
                    self.seen.append(arguments)
                    if arguments[0] == b"auth":
                        trusted = arguments[-1] == self.password
                        answer = OK if trusted else text(7, 1, b"WRONGPASS invalid password")
                    elif not trusted:
                        answer = text(7, 1, b"NOAUTH Authentication required.")
                    else:
                        answer = self.answer(arguments)
                    if answer == b"":
                        return
                    connection.sendall(answer)
        except OSError:
            return

    @staticmethod
    def parse(body: bytes) -> list[bytes]:
        (count,) = struct.unpack_from("<I", body)
        arguments, at = [], 4
        for _ in range(count):
            (size,) = struct.unpack_from("<I", body, at)
            arguments.append(body[at + 4 : at + 4 + size])
            at += 4 + size
        assert at == len(body)
        return arguments

    def answer(self, arguments: list[bytes]) -> bytes:
        name, rest = arguments[0].lower(), arguments[1:]
        with self.lock:
            if name == b"set":
                self.values[rest[0]] = rest[1]
                return OK
            if name == b"get":
                value = self.values.get(rest[0])
                return MISSING if value is None else text(0, 2, value)
            if name == b"incr":
                number = int(self.values.get(rest[0], b"0")) + 1
                self.values[rest[0]] = b"%d" % number
                return reply(0, struct.pack("<Bq", 3, number))
        if name == b"ping":
            return text(0, 2, b"PONG")
        if name == b"select":
            return OK
        if name == b"sleep":
            self.release.wait(float(rest[0]))
            return OK
        if name == b"die":
            return b""
        if name == b"garbage":
            return b"HTTP/1.1 400 Bad Request\r\n\r\n"
        if name == b"twice":
            return OK + OK
        return text(1, 1, b"ERR unknown command '" + name + b"'")

    def drop_all(self) -> None:
        for connection in self.connections:
            connection.shutdown(socket.SHUT_RDWR)
        self.connections.clear()

    def close(self) -> None:
        self.release.set()
        self.listener.close()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    yield fake
    fake.close()


@pytest.fixture
def guarded() -> Iterator[FakeServer]:
    fake = FakeServer(b"secret")
    yield fake
    fake.close()


class Waiting:
    """An `AsyncClient` used like a `Client`, so that one test covers both."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._client = AsyncClient(*arguments, **named)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            return self._loop.run_until_complete(getattr(self._client, name)(*arguments, **named))

        return call

    def pipeline(self) -> Any:
        loop = self._loop
        pipeline: Any = self._client.pipeline()
        send = pipeline.execute
        pipeline.execute = lambda **named: loop.run_until_complete(send(**named))
        return pipeline

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


@pytest.fixture(params=[Client, Waiting], ids=["blocking", "asyncio"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_values_and_reuse_of_one_connection(server: FakeServer, kind: Any) -> None:
    with kind(port=server.port) as cache:
        assert cache.set("k", "é") is True
        assert cache.get("k") == "é".encode()
        assert cache.get("none") is None
        assert cache.ping() is True
        assert cache.incr("n") == 1
        assert cache.execute("GET", b"k") == "é".encode()
    assert server.accepted == 1


def test_decode(server: FakeServer, kind: Any) -> None:
    with kind(port=server.port, decode=True) as cache:
        cache.set("k", "é")
        assert cache.get("k") == "é"
        cache.set("k", b"\xff")
        with pytest.raises(UnicodeDecodeError):
            cache.get("k")
        assert cache.ping()


def test_error_reply_is_raised_and_the_connection_stays(server: FakeServer, kind: Any) -> None:
    with kind(port=server.port) as cache:
        with pytest.raises(UnknownCommandError, match="unknown command 'nonsense'") as caught:
            cache.execute("nonsense")
        assert isinstance(caught.value, NotExecutedError)
        assert isinstance(caught.value, CommandError)
        assert cache.ping()
    assert server.accepted == 1


def test_pipeline(server: FakeServer, kind: Any) -> None:
    with kind(port=server.port) as cache:
        pipeline = cache.pipeline()
        pipeline.set("a", 1).incr("a").command("get", "a").get("none")
        assert len(pipeline) == 4
        assert pipeline.execute() == [True, 2, b"2", None]
        assert len(pipeline) == 0
        assert pipeline.execute() == []
        replies = pipeline.command("nonsense").incr("a").execute(raise_errors=False)
        assert isinstance(replies[0], UnknownCommandError)
        assert replies[1] == 3
        with pytest.raises(UnknownCommandError):
            pipeline.command("nonsense").incr("a").execute()
        assert cache.get("a") == b"4"
        with pytest.raises(AttributeError, match="no command 'nonsense'"):
            pipeline.nonsense()
    assert server.accepted == 1


def test_pipeline_larger_than_every_buffer(server: FakeServer, kind: Any) -> None:
    # The server answers each request before it reads the next: sending all before reading anything would lock up.
    with kind(port=server.port, timeout=30.0) as cache:
        cache.set("big", b"x" * 100_000)
        requests = [("get", "big"), ("set", "k", b"y" * 100_000)] * 200
        replies = cache.execute_many(requests)
        assert replies == [b"x" * 100_000, True] * 200


def test_timeout_closes_the_connection(server: FakeServer, kind: Any) -> None:
    with kind(port=server.port, timeout=1.5) as cache:
        cache.set("k", "v")
        begun = time.monotonic()
        with pytest.raises(RequestTimeoutError, match=r"1 of 1 replies did not come within 1\.5 s") as caught:
            cache.execute("sleep", 60)
        assert 1.49 < time.monotonic() - begun < 30
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value, UncertainError)
        assert cache.get("k") == b"v"  # on another connection: the reply of "sleep" is never taken for this one
    assert server.accepted == 2


def test_timeout_of_one_call(server: FakeServer, kind: Any) -> None:
    with kind(port=server.port, timeout=0.05) as cache:
        assert cache.execute("sleep", 0.2, timeout=60) is True
        with pytest.raises(RequestTimeoutError):
            cache.execute_many([("ping",), ("sleep", 5)], timeout=0.1)


def test_broken_pipeline_carries_the_replies_that_came(server: FakeServer, kind: Any) -> None:
    with kind(port=server.port) as cache:
        with pytest.raises(ConnectionLostError) as caught:
            cache.execute_many([("set", "a", 1), ("incr", "a"), ("die",), ("incr", "a")])
        assert caught.value.replies == [True, 2]
        assert isinstance(caught.value, ConnectionError)
        assert isinstance(caught.value, UncertainError)
        assert cache.get("a") == b"2"


def test_nothing_is_sent_twice(server: FakeServer, kind: Any) -> None:
    with kind(port=server.port) as cache, pytest.raises(ConnectionLostError):
        cache.execute("die")
    assert server.seen == [[b"die"]]


def test_idle_connections_that_died_are_replaced(server: FakeServer, kind: Any) -> None:
    with kind(port=server.port) as cache:
        cache.set("k", "v")
        server.drop_all()
        time.sleep(0.05)
        if kind is Waiting:
            cache._loop.run_until_complete(asyncio.sleep(0.05))
        assert cache.get("k") == b"v"
    assert server.accepted == 2


def test_not_the_binary_protocol(server: FakeServer, kind: Any) -> None:
    with kind(port=server.port) as cache:
        with pytest.raises(ProtocolError):
            cache.execute("garbage")
        with pytest.raises(ProtocolError, match="more replies"):
            cache.execute("twice")
        assert cache.ping()
    assert server.accepted == 3


def test_password_and_database(guarded: FakeServer, kind: Any) -> None:
    with kind(port=guarded.port, password="secret", username="me", db=3) as cache:
        assert cache.ping()
        assert cache.ping()
    assert guarded.seen == [[b"auth", b"me", b"secret"], [b"select", b"3"], [b"ping"], [b"ping"]]
    with kind(port=guarded.port, password="wrong") as cache, pytest.raises(AuthenticationError, match="WRONGPASS"):
        cache.ping()
    with kind(port=guarded.port) as cache, pytest.raises(AuthenticationError, match="NOAUTH"):
        cache.ping()
    with pytest.raises(ValueError, match="username needs a password"):
        kind(username="me")


def test_nobody_listens(kind: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with kind(port=port) as cache, pytest.raises(ConnectError, match=f"127.0.0.1:{port}") as caught:
        cache.ping()
    assert isinstance(caught.value, NotExecutedError)
    assert isinstance(caught.value, ConnectionError)


def test_the_reason_of_a_refused_connection_is_heard(kind: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(text(8, 1, b"TRYAGAIN max number of clients reached"))
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass

        thread = threading.Thread(target=refuse)
        thread.start()
        with kind(port=listener.getsockname()[1]) as cache, pytest.raises(UnavailableError, match="max number"):
            cache.ping()
        thread.join()


def test_closed_client(server: FakeServer, kind: Any) -> None:
    cache = kind(port=server.port)
    with cache:
        cache.ping()
    if kind is Client:
        with pytest.raises(ClientClosedError):
            cache.ping()


def test_commands_that_belong_to_one_connection(server: FakeServer, kind: Any) -> None:
    with kind(port=server.port) as cache:
        with pytest.raises(ValueError, match=r"SELECT concerns one connection.*db="):
            cache.execute("select", 1)
        cache.execute_many([("select", 1), ("ping",)])
        cache.ping()  # not on the connection that is in database 1 now
    assert server.accepted == 2


def test_pool_is_shared_by_threads(server: FakeServer) -> None:
    with Client(port=server.port, max_connections=4) as cache:

        def work() -> None:
            for _ in range(50):
                cache.incr("n")

        threads = [threading.Thread(target=work) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert cache.get("n") == b"600"
    assert server.accepted <= 4


def test_pool_exhausted(server: FakeServer) -> None:
    with Client(port=server.port, max_connections=1, timeout=1.5) as cache:
        busy = threading.Thread(target=lambda: cache.execute("sleep", 60, timeout=60))
        busy.start()
        until(lambda: any(words[0] == b"sleep" for words in server.seen), "the one connection is in use")
        with pytest.raises(PoolTimeoutError, match="all 1 connections") as caught:
            cache.ping()
        assert isinstance(caught.value, NotExecutedError)
        server.release.set()
        busy.join()
        assert cache.ping()


def test_after_fork_the_child_has_connections_of_its_own(server: FakeServer) -> None:
    with Client(port=server.port) as cache:
        cache.set("k", "v")
        child = os.fork()
        if child == 0:
            os._exit(0 if cache.get("k") == b"v" else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert cache.get("k") == b"v"
    assert server.accepted == 2


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_tasks_share_the_pool_and_cancellation_closes(
    server: FakeServer, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def main() -> None:
        async with AsyncClient(port=server.port, max_connections=8) as cache:
            await asyncio.gather(*(cache.incr("n") for _ in range(200)))
            assert await cache.get("n") == b"200"
            assert server.accepted <= 8
            slow = asyncio.create_task(cache.execute("sleep", 5))
            await asyncio.sleep(0.05)
            slow.cancel()
            with pytest.raises(asyncio.CancelledError):
                await slow
            assert await asyncio.gather(*(cache.get("n") for _ in range(20))) == [b"200"] * 20

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


def test_every_failure_is_one_family() -> None:
    for error in (ConnectError, RequestTimeoutError, PoolTimeoutError, ProtocolError, ClientClosedError, CommandError):
        assert issubclass(error, KacheError)
