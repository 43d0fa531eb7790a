"""Scripts over real shards and routers: keys anywhere, undeclared ones, long ones, and what is left after a kill."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, Connection, until
from waiters import once_busy, readable

from kache.errors import CommandError

INCREMENT = "return redis.call('incr', KEYS[1])"
LONG = "while true do end"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(shards=4, routers=2) as running:
        yield running


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Connection]:
    with cluster.connect() as connection:
        connection.request("FLUSHALL")
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


def run(client: Connection, text: str, keys: list[str] = [], args: list[object] = []) -> Any:  # noqa: B006  # read only
    return ask(client, "EVAL", text, len(keys), *keys, *args)


def test_each_shard_runs_its_own(client: Connection, keys: list[str]) -> None:
    for key in keys:
        assert run(client, INCREMENT, [key]) == 1
        assert ask(client, "EVALSHA", hashlib.sha1(INCREMENT.encode()).hexdigest(), 1, key) == 2


def test_loaded_scripts_are_known_to_all(client: Connection, cluster: Cluster, keys: list[str]) -> None:
    sha = ask(client, "SCRIPT", "LOAD", INCREMENT + " ")
    assert ask(client, "SCRIPT", "EXISTS", sha, "f" * 40) == [1, 0]
    assert ask(client, "SCRIPT", "SHOW", sha) == (INCREMENT + " ").encode()
    for number in range(1, 5):
        with cluster.connect() as other:
            assert [ask(other, "EVALSHA", sha, 1, key) for key in keys] == [number] * 4
    assert ask(client, "SCRIPT", "FLUSH") == "OK"
    assert ask(client, "SCRIPT", "EXISTS", sha) == [0]
    for key in keys:
        assert str(client.request("EVALSHA", sha, 1, key)).startswith("NOSCRIPT")


def test_a_shard_that_is_started_again_knows_what_was_loaded(
    cluster: Cluster, client: Connection, keys: list[str]
) -> None:
    sha = ask(client, "SCRIPT", "LOAD", "return 'loaded'")
    cluster.kill(cluster.pid_of("shard", 1))
    until(lambda: client.request("EXISTS", keys[1]) == 0, "the shard is back")
    assert ask(client, "EVALSHA", sha, 1, keys[1]) == b"loaded"


def test_keys_of_several_shards(client: Connection, keys: list[str]) -> None:
    """Each type is read and changed at its owner, one is made, one goes."""
    ask(client, "RPUSH", keys[1], "x", "y")
    ask(client, "HSET", keys[2], "f", "1")
    ask(client, "SET", keys[3], "gone")
    text = """
    redis.call('set', KEYS[1], redis.call('lpop', KEYS[2]))
    redis.call('hincrby', KEYS[3], 'f', 5)
    redis.call('del', KEYS[4])
    return {redis.call('get', KEYS[1]), redis.call('hget', KEYS[3], 'f'), redis.call('exists', KEYS[4])}
    """
    assert run(client, text, keys) == [b"x", b"6", 0]
    assert ask(client, "GET", keys[0]) == b"x"
    assert ask(client, "LRANGE", keys[1], 0, -1) == [b"y"]
    assert ask(client, "HGET", keys[2], "f") == b"6"
    assert ask(client, "EXISTS", keys[3]) == 0


def test_commands_that_have_keys_here_and_there(client: Connection, keys: list[str]) -> None:
    here, there = keys[0], keys[1]
    ask(client, "RPUSH", here, "a", "b")
    assert run(client, "return redis.call('rename', KEYS[1], KEYS[2])", [here, there]) == "OK"
    assert ask(client, "EXISTS", here) == 0
    assert ask(client, "LRANGE", there, 0, -1) == [b"a", b"b"]
    assert run(client, "return redis.call('lmove', KEYS[2], KEYS[1], 'LEFT', 'RIGHT')", [here, there]) == b"a"
    assert ask(client, "LRANGE", here, 0, -1) == [b"a"]
    assert ask(client, "LRANGE", there, 0, -1) == [b"b"]


def test_a_failure_over_shards_keeps_what_was_changed(client: Connection, keys: list[str]) -> None:
    text = "redis.call('set', KEYS[1], 1) redis.call('set', KEYS[2], 2) error('enough')"
    reply = client.request("EVAL", text, 2, keys[0], keys[1])
    assert "enough" in str(reply)
    assert [ask(client, "GET", key) for key in keys[:2]] == [b"1", b"2"]


def test_undeclared_keys_are_found(client: Connection, keys: list[str]) -> None:
    text = "local n = 0 for _, k in ipairs(ARGV) do n = n + (tonumber(redis.call('get', k)) or 0) end return n"
    for number, key in enumerate(keys):
        ask(client, "SET", key, 10**number)
    assert run(client, text, [], keys) == 1111
    assert run(client, text, keys[:1], keys) == 1111
    write = "for _, k in ipairs(ARGV) do redis.call('get', k) end for _, k in ipairs(ARGV) do redis.call('incr', k) end return 1"
    assert run(client, write, [], keys) == 1
    assert [ask(client, "GET", key) for key in keys] == [b"2", b"11", b"101", b"1001"]


def test_an_undeclared_key_behind_a_change_is_refused(client: Connection, keys: list[str]) -> None:
    text = "redis.call('set', KEYS[1], 1) return redis.call('set', ARGV[1], 2)"
    with pytest.raises(CommandError, match="of another shard; declare it in KEYS"):
        run(client, text, keys[:1], keys[1:2])
    assert ask(client, "EXISTS", keys[1]) == 0


def test_the_order_of_a_pipeline_holds_once_it_is_known(client: Connection, keys: list[str]) -> None:
    text = "redis.call('get', ARGV[1]) return redis.call('incr', ARGV[1])"
    run(client, text, [], [keys[1]])
    client.send(*[("EVAL", text, 1, keys[0], keys[1]), ("GET", keys[1])] * 20)
    assert [client.read() for _ in range(40)] == [each for n in range(2, 22) for each in (n, b"%d" % n)]


def test_messages_go_to_any_channel(client: Connection, cluster: Cluster, keys: list[str]) -> None:
    with cluster.connect() as listener:
        listener.send(*[("SUBSCRIBE", key) for key in keys])
        for _ in keys:
            listener.read()
        run(client, "for _, c in ipairs(ARGV) do redis.call('publish', c, 'hello') end", keys[:1], keys)
        assert {bytes(listener.read()[1]).decode() for _ in keys} == set(keys)


def test_scripts_inside_of_transactions(client: Connection, keys: list[str]) -> None:
    for place in (keys[:1], keys[:2]):
        ask(client, "DEL", *keys)
        ask(client, "MULTI")
        for key in place:
            ask(client, "SET", key, 5)
        ask(client, "EVAL", "for _, k in ipairs(KEYS) do redis.call('incr', k) end return #KEYS", len(place), *place)
        assert ask(client, "EXEC") == ["OK"] * len(place) + [len(place)]
        assert [ask(client, "GET", key) for key in place] == [b"6"] * len(place)


def test_too_much_is_not_borrowed(client: Connection, keys: list[str]) -> None:
    ask(client, "SET", keys[1], "x" * 200_000)
    ask(client, "CONFIG", "SET", "script-borrow-bytes", 100_000)
    try:
        with pytest.raises(CommandError, match="script-borrow-bytes"):
            run(client, "redis.call('set', KEYS[1], 1)", keys[:2])
        assert ask(client, "EXISTS", keys[0]) == 0
    finally:
        ask(client, "CONFIG", "SET", "script-borrow-bytes", "64mb")


def test_money_is_neither_made_nor_lost(cluster: Cluster, client: Connection, keys: list[str]) -> None:
    """Transfers by scripts over shards, and sums by others, through two routers."""
    for key in keys:
        ask(client, "SET", key, 100)
    move = "redis.call('decrby', KEYS[1], ARGV[1]) redis.call('incrby', KEYS[2], ARGV[1]) return 1"
    add = "local n = 0 for _, k in ipairs(KEYS) do n = n + redis.call('get', k) end return n"
    sums: list[int] = []
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with cluster.connect() as own:
                for step in range(40):
                    if number:
                        run(own, move, [keys[(number + step) % 4], keys[(number + 3 * step + 1) % 4]], [step])
                    else:
                        sums.append(run(own, add, keys))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failures and set(sums) == {400} and len(sums) == 40
    assert sum(int(ask(client, "GET", key)) for key in keys) == 400


def test_no_update_is_lost(cluster: Cluster, client: Connection) -> None:
    """Fifty clients at one key."""
    text = "local n = tonumber(redis.call('get', KEYS[1]) or 0) redis.call('set', KEYS[1], n + 1) return n"
    connections = [cluster.connect() for _ in range(50)]
    seen: list[int] = []
    for connection in connections:
        connection.send(*[("EVAL", text, 1, "ratelimit")] * 20)
    for connection in connections:
        seen += [connection.read() for _ in range(20)]
        connection.close()
    assert sorted(seen) == list(range(1000))


@pytest.mark.parametrize("text", [LONG, "while true do pcall(function() while true do end end) end"])
def test_a_long_script_is_told_of_and_killed(cluster: Cluster, client: Connection, keys: list[str], text: str) -> None:
    assert str(client.request("SCRIPT", "KILL")).startswith("NOTBUSY")
    ask(client, "CONFIG", "SET", "busy-reply-threshold", 50)
    assert ask(client, "CONFIG", "GET", "lua-time-limit") == [b"lua-time-limit", b"50"]
    try:
        with cluster.connect() as running:
            # Its router may be another one than that of the test before, and sees a moment later that the shard is free.
            until(lambda: running.request("GET", keys[0]) is None, "nothing of before runs")
            running.send(("EVAL", text, 1, keys[0]))
            with once_busy(cluster, keys[0]) as other:
                assert other.request("GET", keys[1]) is None
                assert ask(other, "SCRIPT", "KILL") == "OK"
                assert "Script killed by user with SCRIPT KILL" in str(running.read())
                until(lambda: other.request("GET", keys[0]) is None, "the shard serves again")
    finally:
        client.request("SCRIPT", "KILL")  # of a test that failed
        ask(client, "CONFIG", "SET", "busy-reply-threshold", 5000)


def test_a_script_that_has_written_is_not_killed(cluster: Cluster, client: Connection, keys: list[str]) -> None:
    text = "redis.call('set', KEYS[1], 1) for i = 1, 2e8 do end return 'done'"
    with cluster.connect() as running:
        until(lambda: running.request("GET", keys[0]) is None, "nothing of before runs")
        running.send(("EVAL", text, 1, keys[0]))
        with cluster.connect() as other:
            found: list[str] = []

            def killed() -> bool:
                found.append(str(other.request("SCRIPT", "KILL")))
                if found[-1].startswith("UNKILLABLE"):
                    return True
                if readable(running):  # nobody has looked while it ran
                    assert running.read() == b"done"
                    running.send(("EVAL", text, 1, keys[0]))
                return False

            until(killed, "it has been seen")
            assert all(text.startswith(("NOTBUSY", "UNKILLABLE")) for text in found)
        assert running.read() == b"done"


def test_what_scripts_did_is_there_after_a_kill(tmp_path: Path) -> None:
    """With the log on, over shards and on one: random choices and times are as they were."""
    text = """
    redis.call('set', KEYS[1], math.random()) redis.call('rpush', KEYS[2], redis.call('time')[1], math.random(1000))
    redis.call('hincrby', KEYS[3], 'f', 1) redis.call('expire', KEYS[3], 1000) redis.call('spop', KEYS[4])
    return 1
    """
    with Cluster(shards=2, dir=str(tmp_path), appendonly="yes", appendfsync="always") as cluster:
        names = [f"{tag}{number}" for tag in ("a", "b") for number in range(20)]
        with cluster.connect() as client:
            for name in names:
                ask(client, "SADD", f"{name}:s", *range(10))
                run(client, text, [f"{name}:v", f"{{{name}}}l", f"{name}h", f"{name}:s"])
                run(client, INCREMENT, [f"{name}:n"])
            before = everything(client)
            for index in range(2):
                cluster.kill(cluster.pid_of("shard", index))
            until(lambda: not isinstance(client.request("DBSIZE"), CommandError), "the shards are back")
            until(lambda: len(everything(client)) == len(before), "everything is there")
            assert everything(client) == before


def everything(client: Connection) -> dict[bytes, Any]:
    """Every key with its value."""
    read = {
        "string": lambda key: ask(client, "GET", key),
        "list": lambda key: ask(client, "LRANGE", key, 0, -1),
        "hash": lambda key: ask(client, "HGETALL", key),
        "set": lambda key: sorted(ask(client, "SMEMBERS", key)),
    }
    found = {}
    for key in ask(client, "KEYS", "*"):
        found[key] = read[str(ask(client, "TYPE", key))](key)
    return found


def test_what_scripts_take_is_told(cluster: Cluster, client: Connection, keys: list[str]) -> None:
    """INFO's figures are what was loaded, and gone with SCRIPT FLUSH but for the interpreter made anew."""

    def told() -> list[int]:
        fields = dict(
            line.split(":", 1) for line in ask(client, "INFO", "memory").decode().split("\r\n") if ":" in line
        )
        return [int(fields[each]) for each in ("used_memory_lua", "used_memory_scripts", "number_of_cached_scripts")]

    ask(client, "SCRIPT", "FLUSH")
    assert told() == [0, 0, 0]
    ask(client, "SCRIPT", "LOAD", INCREMENT)
    lua, texts, scripts = told()
    assert lua > 4 * 10_000
    assert (texts, scripts) == (4 * len(INCREMENT), 1)
    assert run(client, INCREMENT + " + 1", [keys[0]]) == 2
    assert told()[1:] == [5 * len(INCREMENT) + 4, 2]
