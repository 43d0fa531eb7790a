"""redis-py as an application uses it, synchronously. Run: python redis_sync.py PORT PROTOCOL (2 or 3; RESP3 is its default)."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

import redis


def connect(port: int, protocol: int, **options: object) -> redis.Redis:
    # Version 8 speaks RESP3 without being told; version 7 is told.
    return redis.Redis(port=port, protocol=protocol, decode_responses=True, socket_timeout=60, **options)


def strings(client: redis.Redis) -> None:
    assert client.ping()
    assert client.set("name", "kache") is True
    assert client.get("name") == "kache"
    assert client.set("name", "other", nx=True) is None
    assert client.set("name", "third", get=True) == "kache"
    assert client.get("nothing") is None
    assert client.setex("soon", 100, "gone") is True
    assert 0 < client.ttl("soon") <= 100
    assert client.getex("soon", persist=True) == "gone"
    assert client.ttl("soon") == -1
    assert client.incr("counter") == 1 and client.incrby("counter", 41) == 42
    assert client.incrbyfloat("half", 0.5) == 0.5
    assert client.append("name", "!") == 6
    assert client.mset({f"k{i}": i for i in range(50)}) is True
    assert client.mget([f"k{i}" for i in range(50)] + ["none"]) == [str(i) for i in range(50)] + [None]
    assert client.delete(*[f"k{i}" for i in range(50)]) == 50
    assert client.exists("name", "counter", "none") == 2


def collections(client: redis.Redis) -> None:
    assert client.hset("h", mapping={"a": 1, "b": 2}) == 2
    assert client.hgetall("h") == {"a": "1", "b": "2"}
    assert client.hincrby("h", "a", 9) == 10
    assert client.rpush("l", *"abc") == 3
    assert client.lrange("l", 0, -1) == ["a", "b", "c"]
    assert client.lpop("l", 2) == ["a", "b"]
    assert client.sadd("s1", 1, 2, 3) == 3 and client.sadd("s2", 2, 3, 4) == 3
    assert client.sinter("s1", "s2") == {"2", "3"}
    assert client.sunionstore("s3", "s1", "s2") == 4
    assert client.zadd("z", {"one": 1, "two": 2, "half": 2.5}) == 3
    assert client.zrange("z", 0, -1, withscores=True) in (
        [("one", 1.0), ("two", 2.0), ("half", 2.5)],
        [["one", 1.0], ["two", 2.0], ["half", 2.5]],
    )
    assert client.zscore("z", "half") == 2.5
    assert client.zrevrangebyscore("z", "+inf", 2, start=0, num=1) == ["half"]
    assert client.rename("z", "elsewhere") is True
    assert client.zcard("elsewhere") == 3
    assert client.pfadd("hll", *map(str, range(100))) == 1
    assert 95 <= client.pfcount("hll") <= 105


def pipelines(client: redis.Redis) -> None:
    with client.pipeline(transaction=False) as pipe:
        for i in range(500):
            pipe.set(f"pipe:{i}", i)
            pipe.get(f"pipe:{i}")
        answers = pipe.execute()
    assert answers[1::2] == [str(i) for i in range(500)]
    keys = set(client.scan_iter(match="pipe:*", count=100))
    assert keys == {f"pipe:{i}" for i in range(500)}


def server(client: redis.Redis) -> None:
    assert client.info("server")["redis_version"] == "7.4.2"
    assert client.info()["maxclients"] > 0
    assert client.config_get("maxmemory-policy")
    assert client.client_setname("tester") and client.client_getname() == "tester"
    assert any(line["name"] == "tester" for line in client.client_list())
    assert client.command_count() > 150
    assert client.dbsize() > 0
    assert client.type("h") == "hash"
    assert client.object("encoding", "h") == "listpack"
    assert client.memory_usage("h") > 0


def errors(client: redis.Redis) -> None:
    for command, text in (
        (("NOSUCH", "a", "b"), "unknown command 'NOSUCH', with args beginning with: 'a' 'b'"),
        (("GET",), "wrong number of arguments for 'get' command"),
        (("LPUSH", "name", "x"), "Operation against a key holding the wrong kind of value"),
    ):
        try:
            client.execute_command(*command)
        except redis.ResponseError as error:
            assert text in str(error), error
        else:
            raise AssertionError(f"{command} was not refused")
    assert client.ping()


def lock(client: redis.Redis) -> None:
    # What redis-py's Lock sends to acquire; releasing needs scripts.
    assert client.set("lock", "token", nx=True, px=1500) is True
    assert client.set("lock", "other", nx=True, px=1500) is None
    deadline = time.monotonic() + 60
    while client.exists("lock"):
        assert time.monotonic() < deadline


def waiting(client: redis.Redis) -> None:
    """What waits, in a thread of its own; the keys lie on several shards."""

    def served(wait: Callable[[], object], serve: Callable[[], object]) -> object:
        found: list[object] = []
        deadline = time.monotonic() + 60
        while client.info("clients")["blocked_clients"] != 0:
            assert time.monotonic() < deadline, "somebody waits still"
        thread = threading.Thread(target=lambda: found.append(wait()))
        thread.start()
        while client.info("clients")["blocked_clients"] == 0:
            assert time.monotonic() < deadline, "nobody waits"
        serve()
        thread.join(60)
        return found[0]

    queues = [f"queue:{number}" for number in range(8)]
    assert client.blpop("queue:0", timeout=0.01) is None
    assert client.brpop(queues, timeout=0.01) is None
    for queue in ("queue:0", "queue:5"):
        assert list(served(lambda: client.blpop(queues), lambda queue=queue: client.rpush(queue, "x"))) == [queue, "x"]
    assert list(served(lambda: client.brpop("queue:1"), lambda: client.lpush("queue:1", "x"))) == ["queue:1", "x"]
    moved = served(lambda: client.blmove("queue:1", "queue:2", 0), lambda: client.rpush("queue:1", "x"))
    assert moved == "x" and client.lrange("queue:2", 0, -1) == ["x"]
    assert client.brpoplpush("queue:2", "queue:3", 1) == "x"
    client.delete(*queues)
    popped = served(
        lambda: client.blmpop(0, 8, *queues, direction="LEFT", count=2), lambda: client.rpush("queue:4", 1, 2)
    )
    assert popped == ["queue:4", ["1", "2"]]
    key, member, score = served(lambda: client.bzpopmin(queues), lambda: client.zadd("queue:6", {"m": 1.5}))
    assert (key, member, float(score)) == ("queue:6", "m", 1.5)
    assert served(lambda: client.bzpopmax("queue:6", 5), lambda: unblock(client)) is None


def unblock(client: redis.Redis) -> None:
    (blocked,) = [line for line in client.client_list() if "b" in line["flags"]]
    assert client.client_unblock(int(blocked["id"])) is True


def main() -> None:
    port, protocol = int(sys.argv[1]), int(sys.argv[2])
    client = connect(port, protocol)
    client.flushall()
    for part in (strings, collections, pipelines, server, errors, lock, waiting):
        part(client)
    other = connect(port, protocol, db=5)
    assert other.dbsize() == 0 and other.set("only", "here") and client.get("only") is None
    assert client.flushall()
    print(f"redis-py {redis.__version__}, RESP{protocol}: fine")


main()
