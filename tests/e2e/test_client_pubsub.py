"""`pubsub()` of both clients, the near cache, `kache subscribe` and `kache monitor`, against a real cluster."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cluster import DEADLINE, KACHE, Cluster, until

from kache import AsyncClient, Client, NearCache
from kache.client.errors import ClientClosedError, ConnectError
from kache.errors import CommandError

SECONDS = DEADLINE


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(3, routers=2) as running:
        yield running


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Client[bytes]]:
    with Client(port=cluster.port) as opened:
        yield opened


def test_listening(client: Client[bytes]) -> None:
    with client.pubsub() as listening:
        listening.subscribe("a", b"b")
        listening.psubscribe("x*")
        listening.ssubscribe("a")
        assert client.publish("a", "1") == 1 and client.publish("xy", b"\xff") == 1
        assert client.spublish("a", "2") == 1
        found = {listening.get(SECONDS) for _ in range(3)}
        assert {(m.channel, m.data, m.pattern, m.gap) for m in found if m is not None} == {
            (b"a", b"1", None, False), (b"xy", b"\xff", b"x*", False), (b"a", b"2", None, False),
        }  # fmt: skip
        assert listening.get(0.01) is None
        listening.unsubscribe("a")
        assert client.publish("a", "3") == 0
        listening.unsubscribe()
        listening.punsubscribe()
        listening.sunsubscribe()
        assert client.execute("pubsub", "numsub", "b") == [b"b", 0] and client.execute("pubsub", "numpat") == 0


def test_text(cluster: Cluster) -> None:
    with Client(port=cluster.port, decode=True) as client, client.pubsub() as listening:
        listening.subscribe("grüße")
        client.publish("grüße", "hallo")
        message = listening.get(SECONDS)
        assert message is not None and (message.channel, message.data) == ("grüße", "hallo")


def test_a_loop_ends_when_it_is_closed(client: Client[bytes]) -> None:
    listening = client.pubsub()
    listening.subscribe("ending")
    seen: list[bytes] = []

    def listen() -> None:
        seen.extend(message.data for message in listening)

    thread = threading.Thread(target=listen)
    thread.start()
    for number in range(100):
        client.publish("ending", number)
    until(lambda: client.execute("pubsub", "numsub", "ending") == [b"ending", 1], "it listens")
    listening.close()
    thread.join(SECONDS)
    assert not thread.is_alive()
    assert seen == [b"%d" % number for number in range(len(seen))]
    with pytest.raises(ClientClosedError):
        listening.subscribe("again")


def test_what_cannot_be_meant(client: Client[bytes]) -> None:
    with client.pubsub() as listening, pytest.raises(RuntimeError, match="subscribe before"):
        listening.get(0.1)
    with client.pubsub() as listening, pytest.raises(ValueError, match="without a name"):
        listening.subscribe()
    with pytest.raises(ConnectError), Client(port=1).pubsub() as listening:
        listening.subscribe("a")
    with pytest.raises(ValueError, match="near_cache must be at least one key, not 0"):
        Client(near_cache=0)
    with pytest.raises(TypeError, match="near_cache"):
        Client(near_cache="yes")  # type: ignore[call-overload]  # that is the point


def kill_router(cluster: Cluster, index: int) -> None:
    """Kills it once it is there: it may have been killed before, and its next life begins in a moment."""
    until(lambda: cluster.child("router", index)["state"] == "up", "the router is up")
    cluster.kill(cluster.pid_of("router", index), signal.SIGKILL)


def test_a_lost_connection_is_made_again_and_the_gap_is_seen(cluster: Cluster, client: Client[bytes]) -> None:
    with client.pubsub() as listening:
        listening.subscribe("gap:a", "gap:b")
        listening.psubscribe("gap:*")
        for index in range(2):
            kill_router(cluster, index)
        found = []
        while not found or not found[-1].gap:
            message = listening.get(SECONDS)
            assert message is not None, "no gap was seen"
            found.append(message)

        def arrives() -> bool:
            with contextlib.suppress(Exception):
                client.publish("gap:b", "back")
            message = listening.get(0.2)
            return message is not None and message.data == b"back"

        until(arrives, "messages come again")


def test_asyncio(cluster: Cluster) -> None:
    async def both() -> None:
        async with AsyncClient(port=cluster.port) as client, client.pubsub() as listening:
            await listening.subscribe("numbers")
            await listening.psubscribe("num*")
            seen: list[bytes] = []

            async def listen() -> None:
                async for message in listening:
                    if message.pattern is None:
                        seen.append(message.data)
                    if message.data == b"end" and message.pattern is not None:
                        return

            task = asyncio.create_task(listen())
            for number in range(200):
                assert await client.publish("numbers", number) == 2
            await client.publish("numbers", "end")
            await asyncio.wait_for(task, SECONDS)
            assert seen == [*(b"%d" % number for number in range(200)), b"end"]
            assert await listening.get(0.01) is None
            kill_router(cluster, 0)
            kill_router(cluster, 1)
            message = await listening.get(SECONDS)
            assert message is not None and message.gap
            await listening.unsubscribe()
            await listening.punsubscribe()

    asyncio.run(both())


# The near cache -----------------------------------------------------------------------------------------
def test_copies(cluster: Cluster) -> None:
    near = NearCache(max_keys=50)
    with Client(port=cluster.port, near_cache=near) as client, Client(port=cluster.port) as other:
        other.execute("mset", *[word for n in range(40) for word in (f"near:{n}", n)])
        for _ in range(2):
            assert [client.get(f"near:{n}") for n in range(40)] == [b"%d" % n for n in range(40)]
        assert (near.hits, near.misses, len(near)) == (40, 40, 40)
        other.set("near:7", "x")
        until(lambda: client.get("near:7") == b"x", "the copy is dropped")
        client.set("near:8", "own")
        assert client.get("near:8") == b"own", "its own change at once"
        client.execute("flushall")
        assert client.get("near:1") is None
        other.set("near:1", "again")
        until(lambda: client.get("near:1") == b"again", "that there was none is a copy, too")
        for number in range(200):
            client.get(f"bound:{number}")
        assert len(near) == 50
        other.hset("near:h", "f", "1")
        assert client.hget("near:h", "f") == b"1" == client.hget("near:h", "f")
        other.hset("near:h", "f", "2")
        until(lambda: client.hget("near:h", "f") == b"2", "fields, too")
        other.lpush("near:l", "x")
        with pytest.raises(CommandError):
            client.get("near:l")
        with pytest.raises(ValueError, match="one client"):
            Client(port=cluster.port, near_cache=near)
    with pytest.raises(ValueError, match="at least 1"):
        NearCache(0)


def test_a_copy_is_never_stale_after_its_news_was_due(cluster: Cluster) -> None:
    """Writers, FLUSHALL, SWAPDB and kills of shards and routers; what a near cache answers is compared with the server.

    A value that differs must be gone within the bound: it is asked for again until then.
    """
    draw = random.Random(5)
    keys = [f"stale:{n}" for n in range(30)]
    stop = threading.Event()
    failures: list[str] = []

    def write(seed: int) -> None:
        own = random.Random(seed)
        with Client(port=cluster.port) as writer:
            number = 0
            while not stop.is_set():
                number += 1
                with contextlib.suppress(Exception):
                    writer.set(own.choice(keys), f"{seed}:{number}")
                    if number % 200 == 0:
                        writer.execute(*own.choice([("flushall",), ("swapdb", 0, 1)]))
                time.sleep(0.0005)

    def kill() -> None:
        own = random.Random(9)
        while not stop.wait(1.5):
            with contextlib.suppress(Exception):
                cluster.kill(cluster.pid_of("shard", own.randrange(3)), signal.SIGKILL)

    workers = [threading.Thread(target=write, args=(seed,)) for seed in range(3)] + [threading.Thread(target=kill)]
    with Client(port=cluster.port, near_cache=1000) as client, Client(port=cluster.port) as plain:
        assert client.near_cache is not None
        for worker in workers:
            worker.start()
        began = time.monotonic()
        near = client.near_cache
        # Six seconds, on a slow machine as long as it takes until the cache has been of use.
        try:
            while time.monotonic() < began + 6 or near.hits <= 100 or near.dropped <= 10:
                assert time.monotonic() < began + SECONDS, (near.hits, near.dropped)
                key = draw.choice(keys)
                with contextlib.suppress(Exception):
                    client.get(key)
        finally:
            stop.set()
            for worker in workers:
                worker.join(SECONDS)
        until(lambda: answers(plain, keys) and answers(client, keys), "all shards are back, for both clients")
        deadline = time.monotonic() + SECONDS
        while any(client.get(key) != plain.get(key) for key in keys):
            if time.monotonic() > deadline:
                failures.append(str([(key, client.get(key), plain.get(key)) for key in keys]))
                break
        assert not failures


def answers(client: Client[bytes], keys: list[str]) -> bool:
    try:
        for key in keys:
            client.get(key)
    except Exception:
        return False
    return True


# The command line ---------------------------------------------------------------------------------------
def shown_by(cluster: Cluster, *words: str, when: Callable[[], Any], lines: int) -> list[str]:
    """The first lines that a command of the CLI shows; `when` makes them come, again and again."""
    command = [*KACHE, *words, "--port", str(cluster.port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    found: list[str] = []
    stop = threading.Event()

    def cause() -> None:
        while not stop.wait(0.02):
            when()

    causing = threading.Thread(target=cause)
    causing.start()
    try:
        while len(found) < lines:
            line = process.stdout.readline()
            assert line, "it ended"
            found.append(line.rstrip("\n"))
    finally:
        stop.set()
        causing.join(SECONDS)
        process.terminate()  # a shell's background job would ignore Ctrl-C
        process.wait(SECONDS)
        process.stdout.close()
    return found


def test_kache_subscribe(cluster: Cluster, client: Client[bytes]) -> None:
    found = shown_by(cluster, "subscribe", "cli", when=lambda: client.publish("cli", "hello you"), lines=2)
    assert found == ["cli: hello you"] * 2
    found = shown_by(
        cluster, "subscribe", "--pattern", "--json", "cl*", when=lambda: client.publish("cli", "x"), lines=1
    )
    assert json.loads(found[0]) == {"channel": "cli", "data": "x", "pattern": "cl*"}
    found = shown_by(cluster, "subscribe", "--json", "cli", when=lambda: client.publish("cli", b"a\n\xff"), lines=1)
    assert json.loads(found[0]) == {"channel": "cli", "data": {"base64": "YQr/"}}


def test_kache_monitor(cluster: Cluster, client: Client[bytes]) -> None:
    found = shown_by(cluster, "monitor", when=lambda: client.set("shown", "value"), lines=3)
    assert all('"set" "shown" "value"' in line for line in found)


def test_the_async_client_keeps_copies_too(cluster: Cluster) -> None:
    async def changed(client: AsyncClient[bytes], key: str, value: bytes) -> None:
        async with asyncio.timeout(SECONDS):
            while await client.get(key) != value:
                await asyncio.sleep(0.001)

    async def work() -> None:
        near = NearCache(max_keys=50)
        async with AsyncClient(port=cluster.port, near_cache=near) as client, AsyncClient(port=cluster.port) as other:
            await other.execute("mset", *[word for n in range(40) for word in (f"anear:{n}", n)])
            for _ in range(2):
                assert [await client.get(f"anear:{n}") for n in range(40)] == [b"%d" % n for n in range(40)]
            assert (near.hits, near.misses, len(near)) == (40, 40, 40)
            await other.set("anear:7", "x")
            await changed(client, "anear:7", b"x")
            await client.set("anear:8", "own")
            assert await client.get("anear:8") == b"own", "its own change at once"
            async with client.pipeline() as pipeline:
                pipeline.set("anear:9", "own")
                await pipeline.execute()
            assert await client.get("anear:9") == b"own"
            # Many at once, each key read before and behind its change.
            await asyncio.gather(*(client.get(f"anear:{n}") for n in range(40) for _ in range(3)))
            await other.execute("mset", *[word for n in range(40) for word in (f"anear:{n}", n + 100)])
            await asyncio.gather(*(changed(client, f"anear:{n}", b"%d" % (n + 100)) for n in range(40)))
            # Whoever listens is lost: nothing of before is believed any more.
            before = near.id
            await other.execute("client", "kill", "id", before)
            until(lambda: near.id not in (0, before), "it listens again")
            assert len(near) == 0
            await other.set("anear:1", "again")
            await changed(client, "anear:1", b"again")
            hits = near.hits
            assert await client.get("anear:1") == b"again" and near.hits == hits + 1
        with pytest.raises(ClientClosedError):
            await client.get("anear:1")

    asyncio.run(work())
    with pytest.raises(TypeError, match="near_cache"):
        AsyncClient(near_cache="yes")  # type: ignore[call-overload]  # that is the point
