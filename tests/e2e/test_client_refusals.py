"""What both clients make of a server that does not want them: the right exception, and whether anything was executed."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster

from kache import (
    AsyncClient,
    AuthenticationError,
    Client,
    ConnectError,
    NotExecutedError,
    ProtocolError,
    RequestTooLargeError,
    UncertainError,
)

MIB = 1024 * 1024


class Awaited:
    """An `AsyncClient` whose methods are called like those of `Client`, on a loop of its own."""

    def __init__(self, **options: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.client: AsyncClient[bytes] = AsyncClient(**options)

    def __getattr__(self, name: str) -> Any:
        return lambda *given, **named: self.loop.run_until_complete(getattr(self.client, name)(*given, **named))

    def __enter__(self) -> Awaited:
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.run_until_complete(self.client.close())
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()


@pytest.fixture(params=[Client, Awaited], ids=["blocking", "asyncio"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    path = tmp_path_factory.mktemp("socket") / "k.sock"
    with Cluster(shards=2, unixsocket=path) as running:
        running.path = str(path)  # type: ignore[attr-defined]  # of these tests alone
        yield running


def test_too_many_clients(cluster: Cluster, kind: Any) -> None:
    before = cluster.request("config", "get", "maxclients")[1]
    with cluster.connect() as first:
        first.request("config", "set", "maxclients", 1)
        try:
            with kind(port=cluster.port) as cache:
                with pytest.raises(ConnectError, match="refused the connection: ERR max number of clients") as found:
                    cache.set("k", "v")
                assert isinstance(found.value, NotExecutedError) and not isinstance(found.value, UncertainError)
                first.request("config", "set", "maxclients", before)
                assert cache.set("k", "v")
        finally:
            first.request("config", "set", "maxclients", before)


def test_a_password_where_none_is_set(cluster: Cluster, kind: Any) -> None:
    wrong = pytest.raises(AuthenticationError, match="without any password configured")
    with kind(port=cluster.port, password="secret") as cache, wrong:
        cache.get("k")


def test_a_request_beyond_max_frame_bytes(cluster: Cluster, kind: Any) -> None:
    with kind(port=cluster.port) as cache:
        cache.set("large", "before")
        with pytest.raises(RequestTooLargeError, match="the limit is 67108864") as found:
            cache.set("large", bytes(100 * MIB))
        assert isinstance(found.value, NotExecutedError) and not isinstance(found.value, UncertainError)
        assert cache.get("large") == b"before"
        cluster.request("config", "set", "max-frame-bytes", "143mb")
        try:
            assert cache.set("large", bytes(100 * MIB))
            assert cache.strlen("large") == 100 * MIB and len(cache.get("large")) == 100 * MIB
        finally:
            cache.delete("large")
            cluster.request("config", "set", "max-frame-bytes", "64mb")


def test_a_request_that_no_server_takes(cluster: Cluster, kind: Any) -> None:
    with kind(port=cluster.port) as cache, pytest.raises(RequestTooLargeError, match=r"143 MiB"):
        cache.set("large", bytearray(600 * MIB))


def test_somebody_else_answers(kind: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with kind(port=listener.getsockname()[1]) as cache, pytest.raises(ProtocolError, match=r"answers 'HTTP/1\.1"):
            cache.ping()
        thread.join()


def test_urls_and_unix_sockets(cluster: Cluster) -> None:
    with Client.from_url(f"redis://127.0.0.1:{cluster.port}/3?timeout=5", decode=True) as cache:
        cache.set("where", "three")
    with Client.from_url(f"unix://{cluster.path}?db=3") as cache:  # type: ignore[attr-defined]  # see there
        assert cache.get("where") == b"three"

    async def awaited() -> bytes | None:
        async with AsyncClient(unixsocket=cluster.path, db=3) as cache:  # type: ignore[attr-defined]  # see there
            return await cache.get("where")

    assert asyncio.run(awaited()) == b"three"


def test_a_unix_socket_that_is_not_there(tmp_path: Path, kind: Any) -> None:
    path = str(tmp_path / "none.sock")
    with kind(unixsocket=path) as cache, pytest.raises(ConnectError, match=f"cannot connect to {path}: No such file"):
        cache.ping()


@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")
def test_one_asyncio_client_on_one_loop_after_another(cluster: Cluster) -> None:
    client = AsyncClient(port=cluster.port)
    assert asyncio.run(client.set("loops", "1"))
    assert asyncio.run(client.get("loops")) == b"1"
    other = asyncio.new_event_loop()
    assert other.run_until_complete(client.get("loops")) == b"1"
    assert asyncio.run(client.get("loops")) == b"1"
    other.run_until_complete(client.close())
    other.close()


def test_one_asyncio_client_on_two_loops_at_once_says_so(cluster: Cluster) -> None:
    async def here() -> None:
        async with AsyncClient(port=cluster.port) as client:
            await client.ping()
            with pytest.raises(RuntimeError, match="in use on another event loop"):
                await asyncio.to_thread(lambda: asyncio.run(client.ping()))
            assert await client.ping()

    asyncio.run(here())
