"""Values that pass by the socket of a link, in memory that router and shard share: right, bounded, gone with either."""

from __future__ import annotations

import random
import re
import sys
import threading
from pathlib import Path

import pytest
from cluster import Cluster, Connection, until

from kache.errors import CommandError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there is no such memory here")

NOISE = random.Random(5).randbytes(1 << 21)


def shared_kib(pid: int) -> list[int]:
    """What each memory that a process shares with a peer holds, in KiB."""
    found: list[int] = []
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = "memfd:kache-link" in line
        elif inside and line.startswith("Rss:"):
            found.append(int(line.split()[1]))
    return found


def value_of(key: str, version: int, size: int) -> bytes:
    head = f"{key} {version} ".encode()
    return head + NOISE[: size - len(head)]


def test_sizes_around_every_limit_in_one_pipeline() -> None:
    """More than the memory holds in flight, so that some go one way and some the other, in both protocols' order."""
    dice = random.Random(6)
    with Cluster(2) as cluster, cluster.connect() as connection:
        for dialect in (2, 3):
            connection.request("HELLO", dialect)
            asked, expected = [], []
            for number in range(150):
                size = dice.choice((10, 16_383, 16_384, 16_385, 65_536, 200_000, 1_048_570, 1_048_577))
                key = f"k{dice.randrange(40)}"
                value = value_of(key, number, size)
                asked += [("SET", key, value), ("GET", key), ("APPEND", key, "x"), ("STRLEN", key)]
                expected += ["OK", value, size + 1, size + 1]
            sender = threading.Thread(target=connection.send, args=asked)
            sender.start()
            assert [one == two for one, two in zip(connection.read_many(600), expected, strict=True)] == [True] * 600
            sender.join()


def test_it_is_used_and_given_back() -> None:
    with Cluster(2) as cluster, cluster.connect() as connection:
        processes = [cluster.pid_of("router"), cluster.pid_of("shard", 0), cluster.pid_of("shard", 1)]
        unused = [shared_kib(pid) for pid in processes]
        assert [len(kib) for kib in unused] == [2, 1, 1]
        assert max(map(max, unused)) <= 8
        both = [key for keys in cluster.keys_by_shard(3) for key in keys]

        def used() -> bool:
            """Whether it is in use in all of them: what a slow machine looks at late was given back."""
            for key in both:
                assert connection.request("SET", key, NOISE[:65_536]) == "OK"
                assert connection.request("GET", key) == NOISE[:65_536]
            found = [kib for pid in processes for kib in shared_kib(pid)]
            assert max(found) <= 300
            return min(found) >= 128

        until(used, "large values in the memory that is shared")
        until(lambda: all(kib <= 8 for pid in processes for kib in shared_kib(pid)), "what is not used goes back")
        assert connection.request("GET", both[0]) == NOISE[:65_536]


def test_a_small_budget_uses_none_of_it_and_closes_nobody() -> None:
    with Cluster(2) as cluster, cluster.connect() as connection:
        router = cluster.pid_of("router")
        until(
            lambda: connection.request("SET", "k", NOISE[:500_000]) == "OK" and max(shared_kib(router)) > 100,
            "a large value in the memory that is shared",
        )
        assert connection.request("CONFIG", "SET", "maxmemory-clients", "4mb") == "OK"
        until(lambda: max(shared_kib(router)) <= 8, "what was used before goes back")
        for _ in range(3):
            assert connection.request("SET", "k", NOISE[:500_000]) == "OK"
            assert connection.request("GET", "k") == NOISE[:500_000]
        assert max(shared_kib(router)) <= 8


@pytest.mark.parametrize("role", ["shard", "router"])
def test_kills_under_large_values(role: str) -> None:
    """No reply is another's, none is half of one; afterwards both ends share new memory, and only that."""
    with Cluster(2, routers=1) as cluster:
        stop = threading.Event()
        wrong: list[str] = []
        served = [0] * 4

        def work(number: int) -> None:
            dice = random.Random(number)
            connection: Connection | None = None
            while not stop.is_set():
                try:
                    connection = connection or cluster.connect()
                    keys = [f"{number}:{dice.randrange(10)}" for _ in range(8)]
                    connection.send(
                        *[word for key in keys for word in (("SET", key, value_of(key, number, 70_000)), ("GET", key))]
                    )
                    replies = connection.read_many(16)
                except OSError:
                    connection = None
                    continue
                for key, reply in zip(keys, replies[1::2], strict=True):
                    if isinstance(reply, CommandError) or reply is None:
                        continue
                    if reply != value_of(key, number, 70_000):
                        wrong.append(f"{key}: {reply!r:.60}")
                served[number] += 1

        workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for worker in workers:
            worker.start()
        try:
            for turn in range(4):
                before = list(served)
                until(
                    lambda before=before: all(now > then for now, then in zip(served, before, strict=True)),
                    "all are served",
                )
                index = turn % 2 if role == "shard" else 0
                pid = cluster.pid_of(role, index)
                cluster.kill(pid)
                until(lambda pid=pid, index=index: cluster.pid_of(role, index) not in (0, pid), "it is back")
        finally:
            stop.set()
            for worker in workers:
                worker.join()
        assert wrong == []
        with cluster.connect() as connection:
            until(lambda: connection.request("SET", "last", NOISE[:65_536]) == "OK", "all are up")
        cluster.serves()
        assert len(shared_kib(cluster.pid_of("router"))) == 2
        assert "Traceback" not in cluster.log()


def test_a_blocking_command_takes_more_than_a_mebibyte() -> None:
    """Its reply comes in pieces, which were waited for in vain."""
    with Cluster(1) as cluster, cluster.connect() as connection:
        assert connection.request("RPUSH", "list", NOISE) == 1
        assert connection.request("BLPOP", "list", 0) == [b"list", NOISE]
