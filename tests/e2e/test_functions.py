"""Functions over real shards and routers: who has them, what outlives what, keys anywhere, long ones, rights."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, Connection, kill_everything, router_of, until
from waiters import once_busy, readable

from kache.errors import CommandError

LIBRARY = """#!lua name=shop
redis.register_function('add', function(keys, args) return redis.call('incrby', keys[1], args[1]) end)
redis.register_function('both', function(keys)
    redis.call('set', keys[1], 'one') redis.call('rpush', keys[2], 'two')
    return redis.call('get', keys[1])
end)
redis.register_function{function_name='sum', flags={'no-writes'}, callback=function(keys, args)
    local n = 0
    for _, k in ipairs(args) do n = n + (tonumber(redis.call('get', k)) or 0) end
    return n
end}
redis.register_function{function_name='long', flags={'no-writes'}, callback=function() while true do end end}
redis.register_function('spoil', function(keys) redis.call('set', keys[1], 1) for i = 1, 2e8 do end return 'done' end)
redis.register_function('tell', function(keys, args) return redis.call('publish', args[1], 'hello') end)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(shards=4, routers=2) as running:
        yield running


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Connection]:
    with cluster.connect() as connection:
        connection.request("FLUSHALL")
        connection.request("FUNCTION", "FLUSH")
        connection.request("SCRIPT", "FLUSH")
        yield connection


@pytest.fixture
def keys(cluster: Cluster) -> list[str]:
    """One key of every shard."""
    return [each[0] for each in cluster.keys_by_shard()]


def ask(client: Connection, *words: object) -> Any:
    reply = client.request(*words)
    if isinstance(reply, CommandError):
        raise reply
    return reply


def load(client: Connection, code: str = LIBRARY) -> Any:
    return ask(client, "FUNCTION", "LOAD", "REPLACE", code)


def lists(client: Connection) -> list[bytes]:
    return [library[1] for library in ask(client, "FUNCTION", "LIST")]


def test_every_shard_has_what_was_loaded(cluster: Cluster, client: Connection, keys: list[str]) -> None:
    assert load(client) == b"shop"
    for number in range(1, 4):
        with cluster.connect() as other:
            assert [ask(other, "FCALL", "add", 1, key, 2) for key in keys] == [2 * number] * 4
    assert ask(client, "FUNCTION", "DELETE", "shop") == "OK"
    for key in keys:
        assert str(client.request("FCALL", "add", 1, key, 2)) == "ERR Function not found"


def test_one_that_fails_changes_nothing(client: Connection, keys: list[str]) -> None:
    load(client)
    for wrong, error in (
        ("#!lua name=shop\nredis.register_function('a', 1)", "must be a function"),
        ("#!lua name=shop\nwhile true do end", "FUNCTION LOAD timeout"),
        ("#!lua name=other\nredis.register_function('ADD', function() end)", "Function ADD already exists"),
        ("#!lua name=shop\nlocal t = {} for i = 1, 1e9 do t[i] = i end", "not enough memory|FUNCTION LOAD timeout"),
    ):
        with pytest.raises(CommandError, match=error):
            load(client, wrong)
        assert lists(client) == [b"shop"]
        assert [ask(client, "FCALL", "add", 1, key, 0) for key in keys] == [0] * 4


def test_keys_of_several_shards(client: Connection, keys: list[str]) -> None:
    load(client)
    assert ask(client, "FCALL", "both", 2, keys[0], keys[1]) == b"one"
    assert ask(client, "LRANGE", keys[1], 0, -1) == [b"two"]
    for number, key in enumerate(keys[1:]):
        ask(client, "DEL", key)
        ask(client, "SET", key, 10**number)
    assert ask(client, "FCALL", "sum", 0, *keys) == 111
    assert ask(client, "FCALL_RO", "sum", 1, keys[2], *keys) == 111
    client.send(("MULTI",), ("FCALL", "add", 1, keys[2], 1), ("FCALL", "both", 2, keys[0], keys[1]), ("EXEC",))
    assert [client.read() for _ in range(3)] == ["OK", "QUEUED", "QUEUED"]
    done = client.read()
    assert done[0] == 11
    assert isinstance(done[1], CommandError)  # keys[1] is a string by now
    with pytest.raises(CommandError, match="write flag"):
        ask(client, "FCALL_RO", "add", 1, keys[0], 1)


def test_a_message_to_another_shard(cluster: Cluster, client: Connection, keys: list[str]) -> None:
    load(client)
    with cluster.connect() as listener:
        listener.send(*[("SUBSCRIBE", key) for key in keys])
        for _ in keys:
            listener.read()
        for key in keys:
            ask(client, "FCALL", "tell", 1, keys[0], key)
        assert {bytes(listener.read()[1]).decode() for _ in keys} == set(keys)


def test_a_shard_that_is_killed_has_them_again(cluster: Cluster, client: Connection, keys: list[str]) -> None:
    """And FLUSHALL, and the death of every shard, leave them alone."""
    load(client)
    ask(client, "FLUSHALL")
    for index in range(4):
        cluster.kill(cluster.pid_of("shard", index))
    for key in keys:
        until(
            lambda key=key: isinstance(client.request("FCALL", "add", 1, key, 1), int),
            "the shard is back, with its functions",
        )
    assert ask(client, "FUNCTION", "STATS")[3] == [b"LUA", [b"libraries_count", 1, b"functions_count", 6]]


def test_what_one_router_forgets_no_other_brings_back(cluster: Cluster, client: Connection, keys: list[str]) -> None:
    """A script loaded by way of one router and flushed by way of the other, behind the restart of a shard."""
    with cluster.every_router() as (first, second):
        sha = ask(first, "SCRIPT", "LOAD", "return 'loaded'")
        load(first)
        assert ask(second, "SCRIPT", "EXISTS", sha) == [1]
        assert ask(second, "SCRIPT", "FLUSH") == "OK"
        assert ask(second, "FUNCTION", "FLUSH") == "OK"
        kept = ask(second, "SCRIPT", "LOAD", "return 'kept'")
        for index in range(4):
            cluster.kill(cluster.pid_of("shard", index))
        for connection in (first, second):
            for key in keys:
                until(lambda c=connection, k=key: c.request("EXISTS", k) == 0, "the shard is back")
                assert str(connection.request("EVALSHA", sha, 1, key)).startswith("NOSCRIPT")
                assert ask(connection, "EVALSHA", kept, 1, key) == b"kept"
            assert lists(connection) == []


def test_routers_change_them_at_once(cluster: Cluster, client: Connection) -> None:
    """Two clients of two routers: one after the other, whatever they ask at the same time."""
    connections = [cluster.of_router(index) for index in range(2)]
    errors: list[object] = []

    def change(connection: Connection, number: int) -> None:
        for turn in range(20):
            code = f"#!lua name=lib{number}\nredis.register_function('f{number}', function() return {turn} end)"
            errors.extend(
                r for r in (connection.request("FUNCTION", "LOAD", "REPLACE", code),) if r != b"lib%d" % number
            )
            if connection.request("FCALL", f"f{number}", 0) != turn:
                errors.append((number, turn))

    threads = [threading.Thread(target=change, args=(c, n)) for n, c in enumerate(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for connection in connections:
        assert sorted(lists(connection)) == [b"lib0", b"lib1"]
        connection.close()
    assert not errors


def test_none_is_loaded_where_memory_is_full(client: Connection, keys: list[str]) -> None:
    """As `denyoom` says: FUNCTION LOAD and RESTORE, not SCRIPT LOAD, and nothing that takes away."""
    full = "OOM command not allowed when used memory > 'maxmemory'."
    load(client)
    payload = ask(client, "FUNCTION", "DUMP")
    for key in keys:
        ask(client, "SET", key, "1")
    policy = ask(client, "CONFIG", "GET", "maxmemory-policy")[1]
    ask(client, "CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", 1)
    try:
        until(lambda: str(client.request("SET", keys[0], "1")) == full, "memory is full")
        for words in (
            ("LOAD", "REPLACE", LIBRARY + " "),
            ("LOAD", LIBRARY.replace("name=shop", "name=other").replace("'", "'o")),
            ("RESTORE", payload, "REPLACE"),
            ("RESTORE", payload, "FLUSH"),
        ):
            assert str(client.request("FUNCTION", *words)) == full, words
        assert ask(client, "FUNCTION", "LIST", "WITHCODE")[0][-1] == LIBRARY.encode()
        assert [ask(client, "FCALL", "sum", 1, key, key) for key in keys] == [1] * 4
        assert ask(client, "SCRIPT", "LOAD", "return 1")
        assert ask(client, "FUNCTION", "DELETE", "shop") == "OK"
        assert str(client.request("FUNCTION", "RESTORE", payload)) == full
        assert lists(client) == []
    finally:
        ask(client, "CONFIG", "SET", "maxmemory", "0", "maxmemory-policy", policy)
    assert ask(client, "FUNCTION", "RESTORE", payload) == "OK"
    assert lists(client) == [b"shop"]


def test_a_stopped_shard_refuses_for_all(cluster: Cluster, client: Connection, keys: list[str]) -> None:
    """One that does not answer in time: the others go back to what was before."""
    pid = cluster.pid_of("shard", 2)
    load(client)
    cluster.kill(pid, signal.SIGSTOP)
    try:
        client.socket.settimeout(60)
        reply = client.request("FUNCTION", "DELETE", "shop")
        assert str(reply) == "TRYAGAIN shard 2 did not answer in time; nothing was changed"
    finally:
        cluster.kill(pid, signal.SIGCONT)
    for key in keys:
        until(lambda key=key: client.request("FCALL", "add", 1, key, 0) == 0, "every shard has it still")


def test_a_long_function_is_told_of_and_killed(cluster: Cluster, client: Connection, keys: list[str]) -> None:
    load(client)
    ask(client, "CONFIG", "SET", "busy-reply-threshold", 50)
    try:
        with contextlib.ExitStack() as stack:
            running = stack.enter_context(cluster.connect())
            until(lambda: running.request("GET", keys[0]) is None, "nothing of before runs")
            running.send(("FCALL_RO", "long", 1, keys[0], "word"))
            other = stack.enter_context(once_busy(cluster, keys[0]))
            assert str(other.request("GET", keys[0])).endswith("FUNCTION KILL or SHUTDOWN NOSAVE.")
            assert other.request("GET", keys[1]) is None
            for words in (("FUNCTION", "LIST"), ("FUNCTION", "FLUSH"), ("SCRIPT", "KILL")):
                assert str(other.request(*words)).startswith("BUSY"), words
            name, command, duration = ask(other, "FUNCTION", "STATS")[1][1::2]
            assert (name, command) == (b"long", [b"FCALL_RO", b"long", b"1", keys[0].encode(), b"word"])
            assert duration >= 0
            assert ask(other, "FUNCTION", "KILL") == "OK"
            assert str(running.read()).startswith("ERR Script killed by user with SCRIPT KILL... script: long")
            until(lambda: other.request("GET", keys[0]) is None, "the shard serves again")
            assert str(other.request("FUNCTION", "KILL")).startswith("NOTBUSY")
            assert ask(other, "FUNCTION", "STATS")[1] is None
            # Its router may be the other one, and sees a moment later that the shard is free.
            until(lambda: running.request("GET", keys[0]) is None, "it is free for all")
            running.send(("EVAL", "while true do end", 1, keys[0]))
            until(lambda: str(other.request("FUNCTION", "KILL")).startswith("BUSY"), "a script is no function")
            assert ask(other, "SCRIPT", "KILL") == "OK"
            running.read()
    finally:
        for kind in ("FUNCTION", "SCRIPT"):
            client.request(kind, "KILL")  # of a test that failed
        ask(client, "CONFIG", "SET", "busy-reply-threshold", 5000)


def test_a_transaction_meets_a_busy_shard(cluster: Cluster, client: Connection, keys: list[str]) -> None:
    load(client)
    ask(client, "CONFIG", "SET", "busy-reply-threshold", 50)
    try:
        with cluster.connect() as running, cluster.connect() as other:
            # Routers see at their own times that a shard is busy, and that it is free.
            index = router_of(other)
            before, third = (cluster.of_router(index) for _ in range(2))
            assert ask(before, "MULTI") == "OK"
            assert ask(before, "INCR", keys[0]) == "QUEUED"
            for connection in (running, other):
                until(lambda c=connection: c.request("GET", keys[0]) is None, "nothing of the test before is left")
            running.send(("EVAL", "while true do end", 1, keys[0]))
            once_busy(cluster, keys[0], lambda: cluster.of_router(index)).close()
            assert str(before.request("EXEC")).startswith(
                "EXECABORT Transaction discarded because of: BUSY Redis is busy"
            )
            assert str(before.request("EXEC")) == "ERR EXEC without MULTI"
            assert ask(other, "MULTI") == "OK"
            assert ask(other, "INCR", keys[1]) == "QUEUED"
            assert str(other.request("INCR", keys[0])).startswith("BUSY")
            assert str(other.request("MGET", keys[0], keys[1])).startswith("BUSY")
            with before, third:
                assert ask(third, "SCRIPT", "KILL") == "OK"
                running.read()
                until(lambda: third.request("GET", keys[0]) is None, "the shard serves again")
            assert str(other.request("EXEC")) == "EXECABORT Transaction discarded because of previous errors."
            assert ask(other, "EXISTS", *keys) == 0
    finally:
        client.request("SCRIPT", "KILL")  # of a test that failed
        ask(client, "CONFIG", "SET", "busy-reply-threshold", 5000)


def test_one_that_has_written_is_not_killed(cluster: Cluster, client: Connection, keys: list[str]) -> None:
    load(client)
    with cluster.connect() as running, cluster.connect() as other:
        until(lambda: running.request("GET", keys[0]) is None, "nothing of before runs")
        running.send(("FCALL", "spoil", 1, keys[0]))

        def refused() -> bool:
            if str(other.request("FUNCTION", "KILL")).startswith("UNKILLABLE"):
                return True
            if readable(running):  # nobody has looked while it ran
                assert running.read() == b"done"
                running.send(("FCALL", "spoil", 1, keys[0]))
            return False

        until(refused, "it has written")
        assert running.read() == b"done"


def test_a_shard_that_dies_while_it_runs_one(cluster: Cluster, client: Connection, keys: list[str]) -> None:
    """What was shown of it is gone with it: nobody is told that the new one is busy."""
    load(client)
    with cluster.connect() as running, cluster.connect() as other:
        running.send(("FCALL", "long", 1, keys[0]))
        until(lambda: ask(other, "FUNCTION", "STATS")[1] is not None, "it runs")
        cluster.kill(cluster.pid_of("shard", 0))
        running.read()
        until(lambda: isinstance(other.request("FCALL", "add", 1, keys[0], 1), int), "the shard is back")
        assert ask(other, "FUNCTION", "STATS")[1] is None


def test_rights(cluster: Cluster, client: Connection, keys: list[str]) -> None:
    load(client)
    ask(client, "ACL", "SETUSER", "clerk", "on", ">secret", f"~{keys[0]}", "+fcall", "+incrby", "+function|list")
    try:
        with cluster.connect() as clerk:
            ask(clerk, "AUTH", "clerk", "secret")
            assert ask(clerk, "FCALL", "add", 1, keys[0], 1) == 1
            assert lists(clerk) == [b"shop"]
            for words in (
                ("FCALL", "add", 1, keys[1], 1),
                ("FCALL_RO", "sum", 0),
                ("FUNCTION", "DELETE", "shop"),
                ("FUNCTION", "DUMP"),
            ):
                assert str(clerk.request(*words)).startswith("NOPERM"), words
            assert "can't run this command" in str(clerk.request("FCALL", "sum", 0, keys[0]))
            assert "can't run this command" in str(clerk.request("FCALL", "both", 1, keys[0]))
    finally:
        ask(client, "ACL", "DELUSER", "clerk")


def test_monitors_and_figures(cluster: Cluster, client: Connection, keys: list[str]) -> None:
    load(client)
    fields = dict(line.split(":", 1) for line in ask(client, "INFO", "memory").decode().split("\r\n") if ":" in line)
    assert (fields["number_of_libraries"], fields["number_of_functions"]) == ("1", "6")
    assert int(fields["used_memory_functions"]) == 4 * len(LIBRARY)
    assert int(fields["used_memory_vm_functions"]) > 4 * 10_000
    ask(client, "SCRIPT", "FLUSH")
    assert ask(client, "FCALL", "add", 1, keys[0], 1) == 1


@pytest.mark.parametrize("kept", ["appendonly", "save"])
def test_they_outlive_the_cluster(tmp_path: Path, kept: str) -> None:
    options = {"appendonly": "yes"} if kept == "appendonly" else {"save": "3600 1"}
    first = Cluster(shards=2, dir=str(tmp_path), **options)
    try:
        first.start()
        with first.connect() as client:
            load(client)
            load(client, "#!lua name=gone\nredis.register_function('gone', function() end)")
            ask(client, "FUNCTION", "DELETE", "gone")
        kill_everything(first)
    finally:
        first._clean()
    with Cluster(shards=3, dir=str(tmp_path), **options) as cluster, cluster.connect() as client:
        assert lists(client) == [b"shop"]
        for (key,) in cluster.keys_by_shard():
            assert ask(client, "FCALL", "add", 1, key, 1) == 1
        ask(client, "FUNCTION", "FLUSH")
    with Cluster(shards=3, dir=str(tmp_path), **options) as cluster, cluster.connect() as client:
        assert lists(client) == []


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    with Cluster(shards=1, dir=str(tmp_path), appendonly="yes") as cluster, cluster.connect() as client:
        load(client)
    file = tmp_path / "functions"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    with (
        pytest.raises(AssertionError, match=f"{file} is damaged: DUMP payload version or checksum are wrong"),
        Cluster(shards=1, dir=str(tmp_path), appendonly="yes"),
    ):
        pass


def test_they_are_kept_from_the_moment_that_something_is(tmp_path: Path) -> None:
    """CONFIG SET appendonly yes, with libraries that were there before."""
    with Cluster(shards=1, dir=str(tmp_path)) as cluster, cluster.connect() as client:
        load(client)
        ask(client, "CONFIG", "SET", "appendonly", "yes")
    with Cluster(shards=1, dir=str(tmp_path), appendonly="yes") as cluster, cluster.connect() as client:
        assert lists(client) == [b"shop"]
