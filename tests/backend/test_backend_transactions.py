"""MULTI, WATCH, blocking commands and messages in front of real clusters."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from six_nodes import SixNodes, until

from kache.testing.cluster import LocalCluster

pytestmark = pytest.mark.once


@pytest.fixture(params=[2, 3])
def client(front: LocalCluster, request: pytest.FixtureRequest) -> redis.Redis:
    client = redis.Redis(port=front.port, protocol=request.param)
    client.flushall()
    return client


@pytest.fixture
def divides(front: LocalCluster) -> Any:
    with redis.Redis(port=front.port) as client:
        client.config_set("backend-transactions", "split")
        yield
        client.config_set("backend-transactions", "strict")


def later(action: Callable[[], object], seconds: float = 0.2) -> threading.Timer:
    timer = threading.Timer(seconds, action)
    timer.start()
    return timer


def pair(answer: Any) -> Any:
    """As RESP2 has it; redis-py leaves RESP3's a list."""
    return tuple(answer) if isinstance(answer, list) else answer


def test_one_slot_is_one_transaction(client: redis.Redis) -> None:
    with client.pipeline() as pipe:
        pipe.set("{t}a", 1)
        pipe.incr("{t}a")
        pipe.rpush("{t}l", "x", "y")
        pipe.lrange("{t}l", 0, -1)
        pipe.hset("{t}h", mapping={"f": "v"})
        pipe.hgetall("{t}h")
        assert pipe.execute() == [True, 2, 2, [b"x", b"y"], 1, {b"f": b"v"}]


def test_several_slots_are_refused_strictly(client: redis.Redis) -> None:
    with client.pipeline() as pipe:
        pipe.set("a", 1)
        pipe.set("b", 2)
        with pytest.raises(
            redis.ResponseError, match=r"several slots.*nothing was executed.*backend-transactions split"
        ):
            pipe.execute()
    assert client.mget("a", "b") == [None, None]


def test_several_slots_are_split_if_so_wanted(client: redis.Redis, divides: None) -> None:
    with client.pipeline() as pipe:
        for number in range(50):
            pipe.set(f"s:{number}", number)
            pipe.get(f"s:{number}")
        pipe.echo("between")
        pipe.incr("s:7")
        answers = pipe.execute()
    assert answers == [value for number in range(50) for value in (True, b"%d" % number)] + [b"between", 8]


def test_commands_of_several_slots_inside(client: redis.Redis, divides: None) -> None:
    with client.pipeline() as pipe:
        pipe.mset({"x": 1, "y": 2, "z": 3})
        pipe.mget("z", "none", "x", "y")
        pipe.incr("y")
        pipe.exists("x", "y", "none")
        pipe.echo("own")
        pipe.delete("x", "y", "none")
        assert pipe.execute() == [True, [b"3", None, b"1", b"2"], 3, 2, b"own", 2]
    assert client.mget("x", "y", "z") == [None, None, b"3"]
    client.set("text", "not a number")
    with client.pipeline() as pipe:
        pipe.rename("x", "y")
        with pytest.raises(redis.ResponseError, match=r"CROSSSLOT|same slot"):
            pipe.execute()


def test_watches_of_several_slots(client: redis.Redis, front: LocalCluster, divides: None) -> None:
    client.mset({"w1": 1, "w2": 2, "free": 3})
    with client.pipeline() as pipe:
        pipe.watch("w1", "w2")
        pipe.multi()
        pipe.incr("w1")
        pipe.mget("w2", "free", "w1")
        pipe.incr("free")
        pipe.echo("own")
        assert pipe.execute() == [2, [b"2", b"3", b"2"], 4, b"own"]
    with client.pipeline() as pipe, redis.Redis(port=front.port) as other:
        pipe.watch("w1", "w2")
        other.set("w1", 10)
        pipe.multi()
        pipe.incr("free")
        pipe.incr("w1")
        with pytest.raises(redis.WatchError):
            pipe.execute()
    assert client.mget("w1", "w2", "free") == [b"10", b"2", b"4"]


def test_errors_inside(client: redis.Redis) -> None:
    client.set("{t}a", "text")
    with client.pipeline() as pipe:
        pipe.incr("{t}a")
        pipe.append("{t}a", "!")
        answers = pipe.execute(raise_on_error=False)
    assert isinstance(answers[0], redis.ResponseError) and answers[1] == 5
    client.execute_command("MULTI")
    with pytest.raises(redis.ResponseError):
        client.execute_command("SET", "{t}a")
    with pytest.raises(redis.ResponseError, match="previous errors"):
        client.execute_command("EXEC")
    with client.pipeline() as pipe:
        pipe.execute_command("RENAME", "a", "b")
        with pytest.raises(redis.ResponseError):
            pipe.execute()


def test_discard_and_empty(client: redis.Redis) -> None:
    client.execute_command("MULTI")
    client.execute_command("SET", "a", 1)
    assert client.execute_command("DISCARD") in (True, b"OK")
    assert client.get("a") is None
    client.execute_command("MULTI")
    assert client.execute_command("EXEC") == []


def test_watch_sees_whoever_writes(client: redis.Redis, nodes: SixNodes, front: LocalCluster) -> None:
    client.set("{w}k", 1)
    with client.pipeline() as pipe:
        pipe.watch("{w}k")
        assert pipe.get("{w}k") == b"1"
        pipe.multi()
        pipe.incr("{w}k")
        pipe.echo("own")
        pipe.get("{w}k")
        assert pipe.execute() == [2, b"own", b"2"]
    with client.pipeline() as pipe:
        pipe.watch("{w}k", "{w}other")
        with redis.Redis(port=front.port) as other:
            other.set("{w}other", "changed")
        pipe.multi()
        pipe.incr("{w}k")
        with pytest.raises(redis.WatchError):
            pipe.execute()
    with client.pipeline() as pipe:
        pipe.watch("{w}k")
        nodes.client(nodes.owner_of(b"{w}k")).set("{w}k", 10)
        pipe.multi()
        pipe.incr("{w}k")
        with pytest.raises(redis.WatchError):
            pipe.execute()
    with client.pipeline() as pipe:
        pipe.watch("{w}k")
        pipe.unwatch()
        client.set("{w}k", 20)
        pipe.multi()
        pipe.incr("{w}k")
        assert pipe.execute() == [21]
    with client.pipeline() as pipe, pytest.raises(redis.ResponseError, match=r"CROSSSLOT|same slot"):
        pipe.watch("a", "b")


def test_waiting_for_one_key(client: redis.Redis, front: LocalCluster) -> None:
    with redis.Redis(port=front.port) as other:
        client.rpush("list", "there")
        assert pair(client.blpop("list", 1)) == (b"list", b"there")
        begun = time.monotonic()
        assert client.blpop("list", 0.3) is None
        assert 0.25 < time.monotonic() - begun < 5
        timer = later(lambda: other.rpush("list", "new"))
        assert pair(client.blpop("list", 20)) == (b"list", b"new")
        timer.join()
        timer = later(lambda: other.lpush("{m}from", "moved"))
        assert client.blmove("{m}from", "{m}to", 20) == b"moved"
        timer.join()
        timer = later(lambda: other.zadd("z", {"m": 1.5}))
        assert client.bzpopmin("z", 20) in ((b"z", b"m", 1.5), [b"z", b"m", 1.5])
        timer.join()
        timer = later(lambda: other.xadd("stream", {"f": "v"}))
        assert client.xread({"stream": "$"}, block=20000)
        timer.join()


def test_waiting_for_keys_of_several_slots(client: redis.Redis, front: LocalCluster) -> None:
    with redis.Redis(port=front.port) as other:
        other.rpush("q2", "second")
        assert pair(client.blpop(["q1", "q2", "q3"], 1)) == (b"q2", b"second")
        assert client.blpop(["q1", "q2", "q3"], 0.2) is None
        timer = later(lambda: other.rpush("q3", "third"))
        assert pair(client.brpop(["q1", "q2", "q3"], 20)) == (b"q3", b"third")
        timer.join()
        other.zadd("z2", {"m": 2.0})
        assert client.bzpopmax(["z1", "z2"], 1) in ((b"z2", b"m", 2.0), [b"z2", b"m", 2.0])
        with pytest.raises(redis.ResponseError):
            client.blmove("q1", "q2", 1)


def test_a_waiting_client_is_unblocked_or_leaves(client: redis.Redis, front: LocalCluster) -> None:
    with redis.Redis(port=front.port) as other:
        for error in (False, True):
            name = f"waits-{error}"
            client.client_setname(name)
            number = client.client_id()
            timer = later(lambda number=number, error=error: other.client_unblock(number, error))
            if error:
                with pytest.raises(redis.ResponseError, match="UNBLOCKED"):
                    client.blpop("nothing", 20)
            else:
                assert client.blpop("nothing", 20) is None
            timer.join()
        leaving = redis.Redis(port=front.port, socket_timeout=0.3)
        with pytest.raises(redis.TimeoutError):
            leaving.blpop("gone", 20)
        leaving.close()
        until(lambda: other.info("clients")["blocked_clients"] == 0, 10)
        other.rpush("gone", "kept")
        assert other.lrange("gone", 0, -1) == [b"kept"]


def heard(listener: Any, seconds: float = 10) -> dict[str, Any]:
    message = until(lambda: listener.get_message(timeout=0.5), seconds)
    return dict(message)


def test_messages(client: redis.Redis, front: LocalCluster, nodes: SixNodes) -> None:
    listener = client.pubsub()
    listener.subscribe("news", "other")
    listener.psubscribe("ne*")
    assert [heard(listener)["type"] for _ in range(3)] == ["subscribe", "subscribe", "psubscribe"]
    with redis.Redis(port=front.port) as speaker:
        speaker.publish("news", "one")
    got = sorted((heard(listener) for _ in range(2)), key=lambda message: message["type"])
    assert [(message["type"], message["channel"], message["data"]) for message in got] == [
        ("message", b"news", b"one"),
        ("pmessage", b"news", b"one"),
    ]
    # Published at a node itself.
    nodes.client(nodes.masters()[-1]).publish("other", "direct")
    assert heard(listener)["data"] == b"direct"
    assert set(client.pubsub_channels()) >= {b"news", b"other"}
    assert client.pubsub_numsub("news", "none") == [(b"news", 1), (b"none", 0)]
    assert client.pubsub_numpat() == 1
    listener.unsubscribe("news")
    listener.punsubscribe("ne*")
    assert {heard(listener)["type"] for _ in range(2)} == {"unsubscribe", "punsubscribe"}
    with redis.Redis(port=front.port) as speaker:
        speaker.publish("news", "unheard")
        speaker.publish("other", "heard")
    assert heard(listener)["data"] == b"heard"
    listener.close()
    sharded = client.pubsub()
    sharded.ssubscribe("shard-news")
    assert until(lambda: sharded.get_message(timeout=0.5))["type"] == "ssubscribe"
    client.execute_command("SPUBLISH", "shard-news", "two")
    assert until(lambda: sharded.get_message(timeout=0.5))["data"] == b"two"
    sharded.close()
