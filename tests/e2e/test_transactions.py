"""MULTI, EXEC, WATCH over real shards and routers: what a client sees, and that nobody sees a part of a transaction."""

from __future__ import annotations

import importlib
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, Connection, until

from kache.client import Client
from kache.errors import CommandError

pytestmark = pytest.mark.once

BEFORE = "EXECABORT Transaction discarded because of previous errors."


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(shards=4, routers=2) as running:
        yield running


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Connection]:
    with cluster.connect() as connection:
        connection.request("FLUSHALL")
        yield connection


def run(client: Connection, *commands: str) -> list[Any]:
    """The replies of commands given as lines, as values; errors as their text."""
    return [shown(client.request(*line.split())) for line in commands]


def shown(reply: Any) -> Any:
    if isinstance(reply, CommandError):
        return reply.message
    if isinstance(reply, list):
        return [shown(each) for each in reply]
    if isinstance(reply, bytes):
        return reply.decode()
    return None if repr(reply) == "NULL_ARRAY" else reply


def transaction(client: Connection, *commands: str) -> Any:
    """What EXEC answers."""
    assert run(client, "MULTI", *commands) == ["OK", *["QUEUED"] * len(commands)]
    return shown(client.request("EXEC"))


# What a client sees -------------------------------------------------------------------------------
def test_the_replies_come_in_the_order_of_the_commands(client: Connection) -> None:
    assert transaction(client, "SET {t}a 1", "PING", "INCR {t}a", "GET {t}a", "ECHO x") == ["OK", "PONG", 2, "2", "x"]
    everywhere = [f"SET k{n} {n}" for n in range(20)]
    assert transaction(client, *everywhere, "PING", "MGET k3 k19 none k0", "DEL k0 k1 none {t}a", "EXISTS k3 k4 k0") == [
        *["OK"] * 20, "PONG", ["3", "19", None, "0"], 3, 2,
    ]  # fmt: skip
    assert transaction(client, "DBSIZE", "KEYS k19", "FLUSHDB", "DBSIZE", "SET a 1", "DBSIZE") == [
        18, ["k19"], "OK", 0, "OK", 1,
    ]  # fmt: skip


def test_what_is_refused_by_itself_has_its_place_among_commands_of_one_shard(client: Connection) -> None:
    """A SORT that looks at keys of other shards is not executed, and the others are."""
    found = transaction(client, "SET {t}a 1", "PING", "SORT {t}l BY w_*", "INCR {t}a")
    assert found[:2] == ["OK", "PONG"] and found[2].startswith("CROSSSLOT") and found[3] == 2
    found = transaction(client, "SORT {t}l BY w_*", "PING")
    assert found[0].startswith("CROSSSLOT") and found[1] == "PONG"
    assert run(client, "GET {t}a") == ["2"]


def test_nothing_happens_before_exec(cluster: Cluster, client: Connection) -> None:
    run(client, "MULTI", "SET a 1", "SET b 2")
    assert cluster.request("EXISTS", "a", "b") == 0
    assert run(client, "DISCARD", "EXISTS a b", "EXEC", "DISCARD") == [
        "OK", 0, "ERR EXEC without MULTI", "ERR DISCARD without MULTI",
    ]  # fmt: skip


def test_what_cannot_be_queued_ends_it(client: Connection) -> None:
    for wrong in ("NOSUCH x", "GET", "GET a b", "CLIENT NOSUCH", "CONFIG", "CLIENT REPLY OFF"):
        assert run(client, "MULTI", "SET a 1")[1] == "QUEUED"
        assert run(client, wrong)[0].startswith("ERR ")
        assert run(client, "SET b 1", "EXEC", "EXISTS a b", "EXEC") == [
            "QUEUED", BEFORE, 0, "ERR EXEC without MULTI",
        ], wrong  # fmt: skip


def test_what_is_refused_without_ending_it(client: Connection) -> None:
    assert run(client, "MULTI", "SET a 1", "MULTI", "WATCH x", "EXEC") == [
        "OK", "QUEUED", "ERR MULTI calls can not be nested", "ERR WATCH inside MULTI is not allowed", ["OK"],
    ]  # fmt: skip


def test_a_command_that_fails_is_one_element(client: Connection) -> None:
    found = transaction(client, "SET a x", "INCR a", "LPUSH a y", "SET b 1", "RENAME none c", "SORT l BY w_*", "INCR b")
    assert found[0] == found[3] == "OK" and found[6] == 2
    assert found[1].startswith("ERR value is not an integer") and found[2].startswith("WRONGTYPE")
    assert found[4] == "ERR no such key" and found[5].startswith("CROSSSLOT")


def test_an_empty_transaction(client: Connection) -> None:
    assert transaction(client) == []
    assert run(client, "WATCH a b c d", "MULTI", "EXEC") == ["OK", "OK", []]
    assert run(client, "WATCH a b c d", "SET c 1", "MULTI", "EXEC", "MULTI", "EXEC") == [
        "OK",
        "OK",
        "OK",
        None,
        "OK",
        [],
    ]


def test_databases(client: Connection) -> None:
    """What is queued behind a SELECT is for its database; a refused EXEC leaves the one before selected."""
    assert transaction(client, "SET k zero", "SELECT 5", "SET k five", "SELECT 99", "GET k") == [
        "OK", "OK", "OK", "ERR DB index is out of range", "five",
    ]  # fmt: skip
    assert run(client, "GET k", "SELECT 0", "GET k") == ["five", "OK", "zero"]
    assert transaction(client, "SELECT 5", "GET k") == ["OK", "five"]
    run(client, "SELECT 0", "WATCH k", "SET k 1", "MULTI", "SELECT 5", "SET k 2")
    assert run(client, "EXEC", "GET k") == [None, "1"]
    assert transaction(client, "SELECT 5", "RENAME k other", "SELECT 0", "GET k") == ["OK", "OK", "OK", "1"]
    run(client, "FLUSHALL")


def test_commands_in_several_steps(client: Connection) -> None:
    run(client, "RPUSH from 1 2 3", "SADD s1 a b", "SADD s2 b c", "SET x 1")
    assert transaction(
        client, "LMOVE from to LEFT RIGHT", "LRANGE to 0 -1", "SINTERSTORE s3 s1 s2", "SMEMBERS s3", "RENAME x y", "GET y",
        "MSETNX n1 1 n2 2 n3 3", "MSETNX n3 1 n4 2", "COPY y z", "SMOVE s1 s2 a", "ZADD z1 1 m", "ZUNIONSTORE z2 2 z1 s2",
        "SCAN 0 COUNT 1000", "RANDOMKEY", "INFO server", "BLPOP none nothing 0", "BLPOP to 0", "WAIT 1 0",
    )[:12] == ["1", ["1"], 1, ["b"], "OK", "1", 1, 0, 1, 1, 1, 4]  # fmt: skip
    assert transaction(client, "BLPOP e1 e2 e3 0", "BRPOPLPUSH e1 e2 0", "LPUSH e3 v", "BLPOP e1 e2 e3 0")[0::3] == [
        None, ["e3", "v"],
    ]  # fmt: skip


def test_a_pipeline_around_it_keeps_its_order(client: Connection) -> None:
    commands: list[tuple[Any, ...]] = []
    expected: list[Any] = []
    for number in range(200):
        keys = [f"order:{number % 7}", f"order:{number % 5 + 10}", f"order:{number % 3 + 20}"]
        commands += [("APPEND", keys[0], "."), ("MULTI",), *(("APPEND", key, ".") for key in keys), ("EXEC",)]
        commands += [("STRLEN", keys[1])]
    lengths: dict[str, int] = {}
    for words in commands:
        if words[0] == "APPEND":
            lengths[words[1]] = lengths.get(words[1], 0) + 1
        expected.append(lengths.get(words[1], 0) if words[0] == "STRLEN" else None)
    client.send(*commands)
    for words, wanted in zip(commands, client.read_many(len(commands)), strict=True):
        reply = expected.pop(0)
        if words[0] == "STRLEN":
            assert wanted == reply


def test_a_hundred_thousand_queued_commands(client: Connection) -> None:
    n = 100_000
    client.send(("MULTI",), *(("INCR", f"many:{number % 1000}") for number in range(n)), ("EXEC",))
    replies = client.read_many(n + 2)
    assert replies[0] == "OK" and set(map(str, replies[1:-1])) == {"QUEUED"}
    assert replies[-1] == [number // 1000 + 1 for number in range(n)]


def test_64_mebibytes_in_one(cluster: Cluster, client: Connection) -> None:
    value = "x" * (8 << 20)
    client.send(
        ("MULTI",), *(("SET", f"big:{n}", value) for n in range(8)), *(("GET", f"big:{n}") for n in range(8)), ("EXEC",)
    )
    found = client.read_many(18)[-1]
    assert found[:8] == ["OK"] * 8 and [len(each) for each in found[8:]] == [8 << 20] * 8


def test_queued_bytes_are_counted_and_limited() -> None:
    with (
        Cluster(shards=2, client_query_buffer_limit="1mb") as cluster,
        cluster.connect() as client,
        cluster.connect() as other,
    ):
        client.send(("MULTI",), *(("SET", f"k{n}", "x" * 100_000) for n in range(5)))
        client.read_many(6)
        line = next(each for each in other.request("CLIENT", "LIST").decode().splitlines() if "multi=5" in each)
        fields = dict(word.partition("=")[::2] for word in line.split())
        assert 500_000 < int(fields["multi-mem"]) < 600_000 and fields["flags"] == "x"
        client.send(*(("SET", f"k{n}", "x" * 100_000) for n in range(10)))
        with pytest.raises((ConnectionError, OSError)):
            client.read_many(11)
        assert int(other.request("EXISTS", "k0", "k1")) == 0


@pytest.mark.parametrize("how", ["RESET", "DISCARD", "UNWATCH", "QUIT"])
def test_what_ends_a_queue_and_its_watches(cluster: Cluster, client: Connection, how: str) -> None:
    run(client, "SET w 1", "WATCH w", "SET w 2")
    if how != "UNWATCH":
        run(client, "MULTI", "SET a 1")
    assert run(client, how)[0] in ("RESET", "OK")
    if how != "QUIT":
        assert transaction(client, "GET w", "EXISTS a") == ["2", 0]
    else:
        assert cluster.request("EXISTS", "a") == 0


def test_watches_over_shards(cluster: Cluster, client: Connection) -> None:
    """Another client changes one of them, on whatever shard; or none of them."""
    keys = [key for own in cluster.keys_by_shard() for key in own]
    with cluster.connect() as other:
        for changed in (*keys, None):
            run(client, "WATCH " + " ".join(keys), f"GET {keys[0]}")
            if changed:
                other.request("INCR", changed)
            assert transaction(client, "SET x 1", "SET y 1", "SET z 1") == (None if changed else ["OK"] * 3)
        run(client, "WATCH " + keys[0])
        other.request("FLUSHALL")
        assert transaction(client, "SET x 1") is None
        client.send(
            ("SET", keys[1], 1, "PX", 100), ("WATCH", keys[1])
        )  # at once, so that it is there when it is watched
        assert client.read_many(2) == ["OK", "OK"]
        until(lambda: other.request("EXISTS", keys[1]) == 0, "the key's end")
        assert transaction(client, "SET x 1") is None


def test_in_resp3_and_in_the_binary_protocol(cluster: Cluster, client: Connection) -> None:
    client.request("HELLO", "3")
    client.request("SADD", "set", "a")
    client.request("HSET", "hash", "f", "v")
    run(client, "MULTI")
    for words in (("SMEMBERS", "set"), ("HGETALL", "hash"), ("GET", "none"), ("SET", "x", "1")):
        client.request(*words)
    client.send(("EXEC",))
    client.buffer.clear()
    data = b""
    while data.count(b"\r\n") < 11:
        data += client.socket.recv(4096)
    assert data == b"*4\r\n~1\r\n$1\r\na\r\n%1\r\n$1\r\nf\r\n$1\r\nv\r\n_\r\n+OK\r\n"
    with Client(port=cluster.port) as binary:
        words = ["set a 1", "get a", "incr b", "get none", "lpush a x", "mget a b none"]
        replies = binary.execute_many([["multi"], *(line.split() for line in words), ["exec"]])
    assert replies[:-1] == [True, *[b"QUEUED"] * len(words)]
    assert replies[-1][:4] == [b"OK", b"1", 1, None] and replies[-1][5] == [b"1", b"1", None]
    assert isinstance(replies[-1][4], CommandError) and replies[-1][4].message.startswith("WRONGTYPE")


def test_client_pause_holds_a_transaction_that_writes(cluster: Cluster, client: Connection) -> None:
    run(client, "MULTI", "SET a 1")
    with cluster.connect() as other:
        other.request("CLIENT", "PAUSE", "100000", "WRITE")
        client.send(("EXEC",))
        assert other.request("EXISTS", "a") == 0
        other.request("CLIENT", "UNPAUSE")
        assert client.read() == ["OK"]


def test_a_full_memory_refuses_it_whole() -> None:
    with Cluster(shards=4, maxmemory="32mb", maxmemory_policy="noeviction") as cluster, cluster.connect() as client:
        keys = [key for own in cluster.keys_by_shard() for key in own]
        for size in (100_000, 1000, 1):
            for number in range(10_000):
                if isinstance(client.request("SET", f"fill:{size}:{number}", "x" * size), CommandError):
                    break
        until(lambda: all(isinstance(client.request("APPEND", key, "y"), CommandError) for key in keys), "full shards")
        run(client, "MULTI", *(f"APPEND {key} y" for key in keys))
        found = shown(client.request("EXEC"))
        assert found.startswith("EXECABORT Transaction discarded because of: OOM"), found
        assert transaction(client, *(f"EXISTS {key}" for key in keys)) == [
            client.request("EXISTS", key) for key in keys
        ]


# Nobody sees a part -------------------------------------------------------------------------------
def test_transfers_are_seen_whole_by_everybody(cluster: Cluster) -> None:
    """Accounts on all shards: every MULTI of reads adds up, and so does MGET inside one; waiting is all that others do."""
    keys = [key for own in cluster.keys_by_shard(2) for key in own]
    cluster.request("MSET", *(word for key in keys for word in (key, 100)))
    stop = threading.Event()
    wrong: list[Any] = []
    counts = {"transfers": 0, "sums": 0}

    def transfer(seed: int) -> None:
        chance = random.Random(seed)
        with cluster.connect() as client:
            while not stop.is_set():
                source, target = chance.sample(keys, 2)
                client.send(("MULTI",), ("DECR", source), ("INCR", target), ("EXEC",))
                reply = client.read_many(4)[-1]
                if not isinstance(reply, list):
                    wrong.append(reply)
                counts["transfers"] += 1

    def add_up(way: str) -> None:
        with cluster.connect() as client:
            while not stop.is_set():
                commands = [("GET", key) for key in keys] if way == "get" else [("MGET", *keys)]
                client.send(("MULTI",), *commands, ("EXEC",))
                reply = client.read_many(len(commands) + 2)[-1]
                values = reply if way == "get" else reply[0]
                if sum(map(int, values)) != 100 * len(keys):
                    wrong.append(reply)
                counts["sums"] += 1

    threads = [threading.Thread(target=transfer, args=(seed,)) for seed in range(4)]
    threads += [threading.Thread(target=add_up, args=(way,)) for way in ("get", "mget")]
    for thread in threads:
        thread.start()
    try:
        until(lambda: wrong or (counts["transfers"] > 1500 and counts["sums"] > 150), "enough transfers")
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert not wrong, wrong[:3]
    with cluster.connect() as client:
        assert sum(int(client.request("GET", key)) for key in keys) == 100 * len(keys)


def test_opposite_orders_do_not_wait_for_one_another(cluster: Cluster) -> None:
    a, b, c, d = (own[0] for own in cluster.keys_by_shard())
    n = 300
    failed: list[Any] = []

    def go(order: tuple[str, ...]) -> None:
        with cluster.connect() as client:
            for _ in range(n):
                client.send(("MULTI",), *(("INCR", key) for key in order), ("EXEC",))
                reply = client.read_many(len(order) + 2)[-1]
                if not isinstance(reply, list):
                    failed.append(reply)

    cluster.request("DEL", a, b, c, d)
    threads = [threading.Thread(target=go, args=(order,)) for order in ((a, b, c, d), (d, c, b, a), (b, d, a, c))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "they wait for one another"
    assert not failed, failed[:3]
    with cluster.connect() as client:
        assert [client.request("GET", key) for key in (a, b, c, d)] == [b"%d" % (3 * n)] * 4


def test_flushall_is_seen_whole(cluster: Cluster) -> None:
    keys = [key for own in cluster.keys_by_shard() for key in own]
    seen: set[int] = set()
    with cluster.connect() as writer, cluster.connect() as reader:
        for _ in range(30):
            writer.send(("MULTI",), *(("SET", key, 1) for key in keys), ("EXEC",), ("FLUSHALL",))
            reader.send(("MULTI",), ("EXISTS", *keys), ("EXEC",))
            seen.add(reader.read_many(3)[-1][0])
            assert writer.read_many(len(keys) + 3)[-1] == "OK"
    assert seen <= {0, len(keys)}


def test_nobody_gets_an_error_while_values_move(cluster: Cluster, client: Connection) -> None:
    """RENAME to and fro between shards: who reads both names in MULTI sees the value once; who writes waits."""
    (a,), (b,), *_ = cluster.keys_by_shard()
    client.request("SADD", a, *range(1000))
    stop = threading.Event()
    errors: list[Any] = []

    def move() -> None:
        with cluster.connect() as mover:
            while not stop.is_set():
                for source, target in ((a, b), (b, a)):
                    reply = mover.request("RENAME", source, target)
                    if reply != "OK":
                        errors.append(reply)

    thread = threading.Thread(target=move)
    thread.start()
    try:
        for _ in range(200):
            found = transaction(client, f"SCARD {a}", f"SCARD {b}")
            assert sorted(found) == [0, 1000], found
    finally:
        stop.set()
        thread.join(30)
    assert not errors, errors[:3]


def test_sums_stay_right_through_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """The short form of tests/soak/transactions.py."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "soak"))
    soak = importlib.import_module("transactions")
    for seconds in (8, 30, 60):  # on a slow machine it takes longer until enough has happened
        bank = soak.run(seconds, 4, 2, 3, True, False)
        assert not bank.wrong, bank.wrong[:3]
        if bank.counts["transfers"] > 200 and bank.counts["sums"] > 20 and bank.counts["crossings"] > 50:
            return
    raise AssertionError(bank.counts)


# Failures -----------------------------------------------------------------------------------------
def test_a_shard_that_is_down_or_stopped() -> None:
    with Cluster(shards=4, request_timeout_ms=2500, transaction_hold_ms=1500) as cluster:
        keys = [key for own in cluster.keys_by_shard() for key in own]
        with cluster.connect() as client:
            assert transaction(client, *(f"SET {key} 1" for key in keys)) == ["OK"] * 4
            stopped = cluster.pid_of("shard", 2)
            cluster.kill(stopped, signal.SIGSTOP)
            run(client, "MULTI", *(f"INCR {key}" for key in keys))
            assert shown(client.request("EXEC")).startswith("TRYAGAIN")
            # The others are free again, whoever holds what.
            assert [client.request("INCR", key) for key in (keys[0], keys[1], keys[3])] == [2, 2, 2]
            cluster.kill(stopped, signal.SIGCONT)
            until(lambda: client.request("GET", keys[2]) == b"1", "the stopped shard's value")
            assert transaction(client, *(f"INCR {key}" for key in keys)) == [3, 3, 2, 3]
            run(client, f"WATCH {keys[2]}", "MULTI", f"SET {keys[2]} 9")
            cluster.kill(stopped)
            cluster.replaced("shard", 2, stopped)
            cluster.serves()
            assert shown(client.request("EXEC")) is None
            assert transaction(client, *(f"INCR {key}" for key in keys)) == [4, 4, 1, 4]


def client_of(cluster: Cluster, *words: str) -> Any:
    with cluster.connect() as client:
        return client.request(*words)


def test_locks_of_a_router_that_is_stopped_or_killed_end() -> None:
    with Cluster(shards=2, routers=2, transaction_hold_ms=200) as cluster:
        (a,), (b,) = cluster.keys_by_shard()
        for number in (signal.SIGSTOP, signal.SIGKILL):
            clients = [cluster.connect() for _ in range(8)]
            for client in clients:
                client.send(*[(("MULTI",), ("INCR", a), ("INCR", b), ("EXEC",))[n % 4] for n in range(400)])
            victim = cluster.pid_of("router", 1)
            cluster.kill(victim, number)
            until(lambda: isinstance(of_router(cluster, 0, a), (bytes, type(None))), "the other router's answer")
            if number == signal.SIGSTOP:
                cluster.kill(victim, signal.SIGCONT)
            for client in clients:
                client.close()
        until(lambda: cluster.child("router", 1)["state"] == "up", "both routers are up")
        cluster.serves()
        assert cluster.request("GET", a) == cluster.request("GET", b)


def of_router(cluster: Cluster, index: int, key: str) -> Any:
    """A GET by way of a router that answers: connections are made until one is not the stopped one's."""
    with Connection(cluster.port, 1.0) as client:
        try:
            return client.request("GET", key)
        except (TimeoutError, ConnectionError):
            return ...
