"""The router of a real cluster under faults: stopped, killed and restarted shards, hostile clients, limits."""

from __future__ import annotations

import random
import resource
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from cluster import DEADLINE, Cluster, Connection, encode, until

from kache.errors import CommandError

LINUX = sys.platform.startswith("linux")
linux_only = pytest.mark.skipif(not LINUX, reason="reads /proc")

NOT_EXECUTED = {"CLUSTERDOWN", "TRYAGAIN", "LOADING"}
UNKNOWN = {"UNCERTAIN", "TIMEOUT"}


def resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def code(reply: Any) -> str:
    return reply.code if isinstance(reply, CommandError) else ""


@linux_only
def test_a_stopped_shard_hurts_its_own_keys_only() -> None:
    with Cluster(2, environment={"KACHE_REQUEST_TIMEOUT_MS": "1000", "KACHE_LINK_SOFT_COMMANDS": "256"}) as cluster:
        (slow, *_), (fast, *_) = cluster.keys_by_shard()
        router, shard = cluster.pid_of("router"), cluster.pid_of("shard", 0)
        with cluster.connect() as hurt, cluster.connect() as spared:
            assert hurt.request("SET", slow, "before") == "OK"
            before = resident_kib(router)
            cluster.kill(shard, signal.SIGSTOP)
            try:
                start = time.monotonic()
                hurt.send(*[("SET", slow, "x" * 1000)] * 2000)
                took: list[float] = []
                while not took or time.monotonic() - start < 0.7:
                    asked = time.monotonic()
                    assert spared.request("SET", fast, "1") == "OK"
                    took.append(time.monotonic() - asked)
                first = hurt.read()
                assert code(first) == "TIMEOUT"
                assert 0.8 <= time.monotonic() - start <= 10
                codes = {code(hurt.read()) for _ in range(1999)}
                assert codes == {"TIMEOUT", "TRYAGAIN"}
                assert resident_kib(router) - before < 64 * 1024
                assert sorted(took)[len(took) // 2] < 0.3  # those that are longer are the machine's
            finally:
                cluster.kill(shard, signal.SIGCONT)
            # No late reply reaches another request.
            until(lambda: hurt.request("GET", slow) not in (None, *UNKNOWN) or True, "an answer")
            assert hurt.request("ECHO", "sync") == b"sync"
            assert spared.request("GET", fast) == b"1"


@linux_only
def test_a_pipeline_of_100_000_commands() -> None:
    with Cluster(4) as cluster:
        router = cluster.pid_of("router")
        before = resident_kib(router)
        count = 100_000
        commands = b"".join(encode(("SET", f"k{i}", i)) if i % 2 else encode(("ECHO", i)) for i in range(count))
        with cluster.connect() as connection:
            sender = threading.Thread(target=connection.socket.sendall, args=(commands,))
            sender.start()
            time.sleep(0.2)  # the replies are not read for a while
            for i in range(count):
                assert connection.read() == ("OK" if i % 2 else b"%d" % i)
            sender.join()
        assert resident_kib(router) - before < 32 * 1024


def test_a_shard_killed_under_pipelines() -> None:
    """Every command gets one reply in order, and what was acknowledged before the kill is not mixed up."""
    with Cluster(3) as cluster:
        failures: list[str] = []
        seen: set[str] = set()

        def client(name: str) -> None:
            dice = random.Random(name)
            with cluster.connect() as connection:
                for round in range(6):
                    numbers = [dice.randrange(1000) for _ in range(1000)]
                    connection.send(*[("ECHO", n) if n % 3 == 0 else ("SETEX", f"{name}{n}", 100, n) for n in numbers])
                    for n in numbers:
                        reply = connection.read()
                        seen.add(code(reply))
                        if n % 3 == 0 and reply != b"%d" % n:
                            failures.append(f"{name} round {round}: ECHO {n} got {reply!r}")
                        elif n % 3 and reply != "OK" and code(reply) not in NOT_EXECUTED | UNKNOWN:
                            failures.append(f"{name} round {round}: SETEX got {reply!r}")

        clients = [threading.Thread(target=client, args=(f"c{i}:",)) for i in range(20)]
        for thread in clients:
            thread.start()
        for index in (1, 0, 2):
            time.sleep(0.15)
            killed = cluster.pid_of("shard", index)
            cluster.kill(killed)
        for thread in clients:
            thread.join()
        assert not failures, failures[:5]
        assert "" in seen
        cluster.replaced("shard", index, killed)
        until(lambda: all(child["state"] == "up" for child in cluster.status()["children"]), "all shards again")
        for keys in cluster.keys_by_shard():
            until(lambda key=keys[0]: cluster_takes(cluster, key), "a write")


def cluster_takes(cluster: Cluster, key: str) -> bool:
    try:
        return bool(cluster.request("SET", key, "1") == "OK")
    except CommandError:
        return False


def test_half_close() -> None:
    with Cluster(2) as cluster, cluster.connect() as connection:
        connection.send(*[("SET", f"k{i}", i) for i in range(1000)])
        connection.socket.shutdown(socket.SHUT_WR)
        assert [connection.read() for _ in range(1000)] == ["OK"] * 1000
        with pytest.raises(ConnectionError):
            connection.read()


def test_termination_under_load() -> None:
    """What is acknowledged was executed; the connection closes between replies; the exit takes less than 10 s."""
    with Cluster(2) as cluster:
        torn: list[bytes] = []

        def client(name: str) -> None:
            with cluster.connect() as connection:
                try:
                    while True:
                        connection.send(*[("INCR", name)] * 50)
                        for _ in range(50):
                            connection.read()
                except (ConnectionError, OSError):
                    torn.append(bytes(connection.buffer))

        clients = [threading.Thread(target=client, args=(f"c{i}",)) for i in range(10)]
        for thread in clients:
            thread.start()
        time.sleep(0.3)
        start = time.monotonic()
        cluster.process.send_signal(signal.SIGTERM)
        assert cluster.process.wait(DEADLINE) == 0
        assert time.monotonic() - start < 10
        for thread in clients:
            thread.join()
        assert torn == [b""] * 10


def test_rolling_restart() -> None:
    """Each shard restarted under load: a client sees values, or errors that say nothing was executed."""
    with Cluster(3) as cluster:
        stop = threading.Event()
        wrong: list[str] = []
        done = [0]

        def client(name: str) -> None:
            with cluster.connect() as connection:
                while not stop.is_set():
                    connection.send(*[("SET", f"{name}:{i}", i) for i in range(100)])
                    for _ in range(100):
                        reply = connection.read()
                        done[0] += 1
                        if reply != "OK" and code(reply) not in NOT_EXECUTED:
                            wrong.append(repr(reply))

        clients = [threading.Thread(target=client, args=(f"c{i}",)) for i in range(4)]
        for thread in clients:
            thread.start()
        for index in range(3):
            cluster.kache("cluster", "restart", "--shard", index, "--yes")
        stop.set()
        for thread in clients:
            thread.join()
        assert not wrong, wrong[:5]
        assert done[0] > 1000


@linux_only
def test_out_of_descriptors() -> None:
    with Cluster(1) as cluster:
        router = cluster.pid_of("router")
        resource.prlimit(router, resource.RLIMIT_NOFILE, (64, 64))
        clients = [Connection(cluster.port, 5) for _ in range(200)]
        replies = []
        for client in clients:
            try:
                replies.append(client.request("PING"))
            except OSError:
                replies.append(None)
        assert replies.count("PONG") > 10
        assert any("max number of clients" in str(reply) for reply in replies)
        ticks = cpu_ticks(router)
        time.sleep(1)
        assert cpu_ticks(router) - ticks < 20, "the router spins"
        for client in clients:
            client.close()
        until(lambda: pings(cluster), "recovery")


def cpu_ticks(pid: int) -> int:
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))


def pings(cluster: Cluster) -> bool:
    try:
        return bool(cluster.request("PING") == "PONG")
    except (OSError, CommandError):
        return False


def test_what_is_not_a_request() -> None:
    with Cluster(1) as cluster:
        for data, said in (
            (b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nSET a 1\r\n", "cross-protocol"),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS on the plain port"),
        ):
            with socket.create_connection(("127.0.0.1", cluster.port), DEADLINE) as sock:
                sock.sendall(data)
                try:
                    assert sock.recv(1000) == b""
                except ConnectionResetError:
                    pass
            until(lambda said=said: said in cluster.log(), "the log line")
        assert cluster.request("EXISTS", "a") == 0


@linux_only
def test_replies_that_nobody_reads() -> None:
    environment = {"KACHE_MAXMEMORY_CLIENTS": "64mb", "KACHE_REQUEST_TIMEOUT_MS": "60000"}
    with Cluster(2, environment=environment) as cluster:
        router = cluster.pid_of("router")
        with cluster.connect() as reader:
            assert reader.request("SET", "big", "x" * (1 << 20)) == "OK"
            before = resident_kib(router)
            silent = [cluster.connect() for _ in range(10)]
            for client in silent:
                client.send(*[("GET", "big")] * 500)
            highest = 0
            deadline = time.monotonic() + 3
            while time.monotonic() < deadline:
                highest = max(highest, resident_kib(router) - before)
                assert len(reader.request("GET", "big")) == 1 << 20
            assert highest < 1.1 * 64 * 1024 + 8 * 1024
            for client in silent:
                client.close()
