"""Ordinary commands in front of real clusters of redis-server and valkey-server, three masters and three replicas each."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis
from six_nodes import PATIENT, SixNodes, until

from kache.backend.conversation import command
from kache.commands import TABLE
from kache.slots import slot_of_key
from kache.testing.cluster import LocalCluster


@pytest.fixture(params=[2, 3])
def client(front: LocalCluster, request: pytest.FixtureRequest) -> redis.Redis:
    client = redis.Redis(port=front.port, protocol=request.param)
    client.flushall()
    return client


def direct(nodes: SixNodes, key: bytes) -> redis.Redis:
    return nodes.client(nodes.owner_of(key))


def test_one_key_goes_to_its_node(client: redis.Redis, nodes: SixNodes) -> None:
    for number in range(200):
        key = b"key:%d" % number
        assert client.set(key, number) is True
        assert direct(nodes, key).get(key) == b"%d" % number
    assert client.get("key:7") == b"7"
    assert client.incr("key:7") == 8
    assert client.hset("h", mapping={"a": 1, "b": 2}) == 2
    assert client.hgetall("h") == {b"a": b"1", b"b": b"2"}
    assert client.rpush("l", *range(5)) == 5
    assert client.lrange("l", 0, -1) == [b"0", b"1", b"2", b"3", b"4"]
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        client.incr("l")


def test_a_pipeline_is_answered_in_its_order(client: redis.Redis) -> None:
    generator = random.Random(1)
    keys = [f"p:{generator.randrange(100)}" for _ in range(3000)]
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.incr(key)
        answers = pipe.execute()
    counted: dict[str, int] = {}
    for key, answer in zip(keys, answers, strict=True):
        counted[key] = counted.get(key, 0) + 1
        assert answer == counted[key]


def test_several_slots_are_divided(client: redis.Redis) -> None:
    names = [f"m:{number}" for number in range(300)]
    assert client.mset({name: name.encode() for name in names}) is True
    assert client.mget([*names, "none", names[0]]) == [*(name.encode() for name in names), None, names[0].encode()]
    assert client.exists(*names, "none", names[0]) == 301
    assert client.touch(*names) == 300
    assert client.delete(*names[:100], "none") == 100
    assert client.unlink(*names) == 200
    assert client.mget(names[:3]) == [None, None, None]


def test_sets_of_several_slots(client: redis.Redis) -> None:
    client.sadd("s1", "a", "b", "c", "d")
    client.sadd("s2", "b", "c")
    client.sadd("{s1}3", "d", "c")
    assert client.sunion("s1", "s2", "none") == {b"a", b"b", b"c", b"d"}
    assert client.sinter("s1", "s2", "{s1}3") == {b"c"}
    assert client.sdiff("s1", "s2", "{s1}3") == {b"a"}
    assert client.sinter("s1", "none") == set()
    client.set("text", 1)
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        client.sunion("s1", "text")


def test_an_error_of_one_part_is_the_answer(client: redis.Redis) -> None:
    with pytest.raises(redis.ResponseError, match="wrong number of arguments for 'mset'"):
        client.execute_command("MSET", "a", "1", "b", "2", "c")


def test_large_values_and_many_keys(client: redis.Redis) -> None:
    value = random.Random(2).randbytes(5_000_000)
    assert client.set("large", value)
    assert client.get("large") == value
    assert client.mset({"large2": value, "small": "x"})
    assert client.mget("small", "large2", "large") == [b"x", value, value]


def test_keys_of_several_slots_are_refused_where_a_cluster_refuses_them(client: redis.Redis) -> None:
    client.set("a", 1)
    client.set("b", 2)
    for words in (
        ["RENAME", "a", "b"],
        ["PFCOUNT", "a", "b"],
        ["MSETNX", "a", "1", "b", "2"],
        ["LMOVE", "a", "b", "LEFT", "LEFT"],
    ):
        with pytest.raises(redis.ResponseError, match=r"CROSSSLOT|Keys in request don't hash"):
            client.execute_command(*words)
    client.set("{t}a", 1)
    assert client.rename("{t}a", "{t}b") is True


def test_scripts_pass(client: redis.Redis) -> None:
    assert client.eval("return redis.call('INCR', KEYS[1])", 1, "script:key") == 1
    with pytest.raises(redis.ResponseError, match=r"(?i)slot"):
        client.eval("return 1", 2, "a", "b")
    digest = client.script_load("return redis.call('GET', KEYS[1])")
    assert client.script_exists(digest) == [True]
    for number in range(20):
        client.set(f"of:{number}", number)
        assert client.evalsha(digest, 1, f"of:{number}") == b"%d" % number
    assert client.script_flush()
    with pytest.raises(redis.exceptions.NoScriptError):
        client.evalsha(digest, 1, "of:1")


def test_scripts_are_for_users_who_may_do_everything(client: redis.Redis, front: LocalCluster) -> None:
    """The nodes would run them with the rights of the routers."""
    assert client.execute_command("ACL", "SETUSER", "alice", "on", ">pw", "+@all", "~a*", "&*") == b"OK"
    try:
        with redis.Redis(port=front.port, username="alice", password="pw") as alice:
            assert alice.set("a", 1) is True
            with pytest.raises(
                redis.exceptions.NoPermissionError, match="scripts are only for users who may do everything"
            ):
                alice.eval("return redis.call('GET', 'b')", 1, "a")
            assert client.execute_command("ACL", "SETUSER", "alice", "~*") == b"OK"
            assert alice.eval("return redis.call('GET', KEYS[1])", 1, "a") == b"1"
    finally:
        client.execute_command("ACL", "DELUSER", "alice")


def test_what_concerns_all_nodes(client: redis.Redis) -> None:
    names = {b"all:%d" % number for number in range(100)}
    for name in names:
        client.set(name, 1)
    assert client.dbsize() == 100
    assert set(client.keys("all:*")) == names
    assert client.randomkey() in names
    slot = slot_of_key(b"all:1")
    assert client.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot) >= 1
    assert b"all:1" in client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 10)
    assert client.flushall() is True
    assert client.dbsize() == 0


def test_scan_finds_all_of_them(client: redis.Redis) -> None:
    names = {b"scan:%d" % number for number in range(2000)} | {b"{one}%d" % number for number in range(300)}
    client.mset(dict.fromkeys(names, 1))
    client.sadd("a set", 1)
    found = list(client.scan_iter(count=100))
    assert set(found) == names | {b"a set"} and len(found) == len(names) + 1
    assert set(client.scan_iter(match="{one}1*")) == {name for name in names if name.startswith(b"{one}1")}
    assert list(client.scan_iter(_type="set")) == [b"a set"]


def test_what_is_not_served_says_so(client: redis.Redis) -> None:
    for words, text in (
        (["SWAPDB", 0, 1], "refused in front of a Redis Cluster"),
        (["MOVE", "a", 1], "refused in front of a Redis Cluster"),
        (["SAVE"], "refused in front of a Redis Cluster"),
        (["SELECT", 1], r"(?i)select is not allowed in cluster mode|out of range"),
        (["SELECT", "x"], r"(?i)invalid|integer"),
    ):
        with pytest.raises(redis.ResponseError, match=text):
            client.execute_command(*words)


LEFT_OUT = {
    "shutdown", "quit", "reset", "multi", "client|reply", "client|pause", "client|kill", "auth", "hello", "debug|reload",
    "subscribe", "psubscribe", "ssubscribe", "unsubscribe", "punsubscribe", "sunsubscribe", "client|no-evict", "monitor",
}  # fmt: skip
"""They end the connection, or change what it may do."""


def test_no_command_fails_inside(client: redis.Redis) -> None:
    """Each with as many words as it needs, whether they make sense or not: answered by the node, or refused in a sentence."""
    connection = client.connection_pool.get_connection()
    for row in TABLE:
        if "internal" in row.flags or row.dialect == "binary" or row.key in LEFT_OUT or "blocking" in row.flags:
            continue
        words = row.name.split("|")
        words += ["1"] * (abs(row.arity) - len(words))
        connection.send_command(*words)
        try:
            connection.read_response()
        except redis.ResponseError as error:
            assert "internal error" not in str(error), row.key
    client.connection_pool.release(connection)
    assert client.ping()


def test_the_binary_protocol(client: redis.Redis, front: LocalCluster) -> None:
    ours = front.client()
    assert ours.set("k", "v") in (True, None, b"OK", "OK")
    assert ours.get("k") == b"v"
    assert ours.get("none") is None
    ours.mset({f"k{number}": number for number in range(20)})
    assert list(ours.mget([f"k{number}" for number in range(20)]))[:3] == [b"0", b"1", b"2"]
    assert ours.hset("h", "f", "v") == 1
    assert ours.hgetall("h") == {b"f": b"v"}
    assert ours.delete("k", "k1", "none") == 2
    assert ours.delete("none") == 0
    assert client.get("k2") == b"2"


def test_a_transaction_of_the_binary_protocol(client: redis.Redis, front: LocalCluster) -> None:
    """Byte for byte what shards answer, with and without WATCH."""
    with LocalCluster(shards=1) as shards:

        def answers(cluster: LocalCluster) -> list[object]:
            found: list[object] = []
            ours = cluster.client()
            for _ in range(2):
                with ours.pipeline(transaction=True) as pipe:
                    pipe.set("{b}k", "v").expire("{b}k", 100).persist("{b}k").persist("{b}k").persist("{b}none")
                    pipe.expire("{b}none", 100).zadd("{b}z", {"m": 1}).zadd("{b}z", {"m": 2, "n": 3})
                    pipe.zrem("{b}z", "none").zrem("{b}z", "m").delete("{b}k", "{b}none").delete("{b}none")
                    found.append(pipe.execute())
            found.append(ours.transaction(lambda watching: watching.queue.zadd("{b}y", {"m": 1}), "{b}y")[1])
            return found

        assert answers(front) == answers(shards)


def test_zquery_is_a_script(client: redis.Redis) -> None:
    client.zadd("z", {f"m{number}": number // 3 for number in range(30)})
    answer = client.execute_command("ZQUERY", "z", "4", "m13", "1", "2")
    flat = [value for pair in answer for value in (pair if isinstance(pair, list) else [pair])]
    assert [float(value) if at % 2 else value for at, value in enumerate(flat)] == [b"m14", 4.0, b"m15", 5.0]
    assert client.execute_command("ZQUERY", "z", "0", "", "-1", "5") == []
    assert client.execute_command("ZQUERY", "none", "0", "", "0", "5") is None
    client.set("s", 1)
    with pytest.raises(
        redis.ResponseError, match=r"WRONGTYPE Operation against a key holding the wrong kind of value$"
    ):
        client.execute_command("ZQUERY", "s", "0", "", "0", "5")
    with pytest.raises(redis.ResponseError, match="not a valid float"):
        client.execute_command("ZQUERY", "z", "x", "", "0", "5")


def test_a_change_of_the_dialect_overtakes_nothing(front: LocalCluster) -> None:
    """In one pipeline: what is asked in one dialect sees what was written in the other."""
    with socket.create_connection(("127.0.0.1", front.port), 20) as connection:
        for number in range(200):
            key, value = f"dialect:{number}", f"value{number}".encode()
            hello = command("HELLO", "3" if number % 2 == 0 else "2")
            connection.sendall(command("SET", key, value) + hello + command("GET", key))
            end = b"$%d\r\n%b\r\n" % (len(value), value)
            received = b""
            while not received.endswith(end):
                more = connection.recv(65536)
                assert more and not received.endswith((b"$-1\r\n", b"_\r\n")), received
                received += more


def test_lget_is_a_range(client: redis.Redis) -> None:
    client.rpush("l", "a", "b")
    assert client.execute_command("LGET", "l") == [b"a", b"b"]


def test_info_and_the_like_answer(client: redis.Redis) -> None:
    assert client.info("server")["redis_mode"]
    assert client.info()
    assert client.ping()
    assert client.client_list()
    assert client.config_get("backend-connections") == {"backend-connections": "1"}
    client.set("one", 1)
    assert client.info("keyspace")["db0"]["keys"] == 1
    client.set("passes", 1, ex=1000)
    assert client.info("keyspace")["db0"]["expires"] == 1
    backend = client.info("backend")
    assert backend["slots_owned"] == 16384 and backend["connections"] >= 3 and backend["node0"]["state"] == "ok"
    with pytest.raises(redis.ResponseError, match="set it on the nodes"):
        client.config_set("maxmemory", "1gb")


def test_a_script_that_a_node_has_lost_is_told_again(client: redis.Redis, nodes: SixNodes) -> None:
    digest = client.script_load("return redis.call('INCR', KEYS[1])")
    for index in nodes.masters():
        nodes.client(index).script_flush()
    assert [client.evalsha(digest, 1, f"lost:{number}") for number in range(10)] == [1] * 10
    seen = "return {KEYS[1], redis.call('GET', KEYS[1])}"
    assert client.eval(seen, 1, "lost:1") == [b"lost:1", b"1"]
    for index in nodes.masters():
        nodes.client(index).script_flush()
    known = hashlib.sha1(seen.encode()).hexdigest()
    assert client.evalsha(known.upper(), 1, "lost:2") == [b"lost:2", b"1"]
    # Not behind what its client has sent after it: nothing overtakes anything.
    nodes.client(nodes.owner_of(b"lost:3")).script_flush()
    with client.pipeline(transaction=False) as pipe:
        pipe.evalsha(digest, 1, "lost:3")
        pipe.set("lost:3", "10")
        pipe.get("lost:3")
        answers = pipe.execute(raise_on_error=False)
    assert answers[1:] == [True, b"10"] and isinstance(answers[0], redis.exceptions.NoScriptError | int)
    client.script_flush()
    with pytest.raises(redis.exceptions.NoScriptError):
        client.evalsha(digest, 1, "lost:4")


def test_wait_asks_the_nodes_that_were_written_to(client: redis.Redis, nodes: SixNodes) -> None:
    for number in range(20):
        client.set(f"wait:{number}", number)
    assert client.wait(1, 30000) == 1
    assert client.wait(0, 100) in (0, 1)
    assert client.wait(2, 300) in (0, 1)  # there is one replica, and it may be late
    owner = nodes.owner_of(b"wait:1")
    replica = next(
        index for index in range(3, 6) if nodes.client(index).info("replication")["master_port"] == nodes.ports[owner]
    )
    nodes.stop_node(replica)
    try:
        client.set("wait:1", "unseen")
        begun = time.monotonic()
        assert client.wait(1, 300) == 0
        assert 0.25 < time.monotonic() - begun < 20
        assert client.get("wait:1") == b"unseen"
    finally:
        nodes.continue_node(replica)
    assert client.wait(1, 30000) == 1
    with pytest.raises(redis.ResponseError, match=r"(?i)integer|timeout"):
        client.execute_command("WAIT", "x", "1")
    if nodes.client(0).info("server").get("valkey_version"):
        assert client.execute_command("WAITAOF", 0, 0, 100) == [0, 0]
    else:
        with pytest.raises(redis.ResponseError, match="unknown command"):
            client.execute_command("WAITAOF", 0, 0, 100)


def test_reads_go_to_replicas_and_to_masters_when_these_are_silent(nodes: SixNodes) -> None:
    settings = PATIENT | {"backend_silence_ms": 3000}
    with (
        LocalCluster(shards=0, backend=nodes.url, backend_read_from="replica", **settings) as front,
        redis.Redis(port=front.port) as client,
    ):
        client.mset({f"read:{number}": number for number in range(50)})
        assert client.wait(1, 30000) == 1

        def read() -> None:
            assert [client.get(f"read:{number}") for number in range(50)] == [b"%d" % number for number in range(50)]
            assert client.mget("read:1", "read:2", "none") == [b"1", b"2", None]

        def gets(index: int) -> int:
            return int(nodes.client(index).info("commandstats").get("cmdstat_get", {"calls": 0})["calls"])

        def go_to_replicas() -> bool:
            before = sum(map(gets, range(6))), sum(map(gets, nodes.masters()))
            read()
            after = sum(map(gets, range(6))), sum(map(gets, nodes.masters()))
            return after[0] - before[0] == 50 and after[1] == before[1]

        until(go_to_replicas)
        nodes.stop_node(3)
        try:
            read()
            assert client.set("read:1", "1")
        finally:
            nodes.continue_node(3)
        read()


def test_monitor_shows_the_commands_of_all_routers(nodes: SixNodes) -> None:
    with LocalCluster(shards=0, routers=2, backend=nodes.url, **PATIENT) as front, contextlib.ExitStack() as stack:
        by_router: dict[int, redis.Redis] = {}
        while len(by_router) < 2:
            one = stack.enter_context(redis.Redis(port=front.port, single_connection_client=True))
            by_router[one.client_id() >> 48] = one
        watching = by_router[0].connection_pool.get_connection()
        watching.send_command("MONITOR")
        assert watching.read_response() == b"OK"
        wanted = (
            b'"SET" "watched:1" "value\\r\\n"', b'"SET" "{watched}2" "1"', b'"EXEC"', b'"ECHO" "own"',
            b'"MGET" "watched:3" "watched:4"',
        )  # fmt: skip
        seen: list[bytes] = []

        def shown() -> bool:
            # Another router notices on its own time that somebody watches.
            by_router[1].set("watched:1", "value\r\n")
            with by_router[1].pipeline() as pipe:
                pipe.set("{watched}2", 1)
                pipe.echo("own")
                pipe.execute()
            by_router[1].mget("watched:3", "watched:4")
            while watching.can_read(timeout=0.2):
                seen.append(watching.read_response())
            return all(any(part in line for line in seen) for part in wanted)

        until(shown)


PAGE = Path(__file__).parent.parent.parent / "docs" / "past-one-machine.md"


def test_the_program_of_the_page_copies_all_types(front: LocalCluster, tmp_path: Path) -> None:
    program = tmp_path / "copy_keys.py"
    program.write_text(PAGE.read_text().partition("```python\n")[2].partition("```")[0])
    with (
        LocalCluster(shards=2) as old,
        redis.Redis(port=old.port) as source,
        redis.Redis(port=front.port) as client,
    ):
        client.flushall()
        source.mset({f"copied:{number}": os.urandom(20) for number in range(50)})
        source.set("passes", "v", ex=1000)
        source.hset("hash", mapping={f"f{number}": number for number in range(300)})
        source.sadd("set", *range(300), b"\xff\x00")
        source.zadd("zset", {f"m{number}": number / 3 for number in range(300)})
        source.rpush("list", *range(2500))
        for number in range(1, 20):
            source.xadd("stream", {"n": number}, id=f"{number}-1")
        client.set("hash", "in the way")
        urls = [f"redis://127.0.0.1:{port}" for port in (old.port, front.port)]
        subprocess.run([sys.executable, str(program), *urls], check=True, timeout=100)
        assert client.dbsize() == source.dbsize()
        assert client.mget([f"copied:{number}" for number in range(50)]) == source.mget(
            [f"copied:{number}" for number in range(50)]
        )
        assert client.hgetall("hash") == source.hgetall("hash") and client.smembers("set") == source.smembers("set")
        assert client.lrange("list", 0, -1) == source.lrange("list", 0, -1)
        assert dict(client.zrange("zset", 0, -1, withscores=True)) == dict(
            source.zrange("zset", 0, -1, withscores=True)
        )
        assert client.xlen("stream") == 19 and 900 < client.ttl("passes") <= 1000
