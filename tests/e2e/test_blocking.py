"""BLPOP and its like against a real cluster of four shards and two routers: exactly one element, in order, through failures."""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, Connection, encode, until
from waiters import blocked, empty_keys, silent, wait

from kache.errors import CommandError
from kache.replies import NULL_ARRAY

DRAIN_SECONDS = 60
"""As long would a router stay that waits for somebody."""


@pytest.fixture(scope="module")
def four() -> Iterator[Cluster]:
    with Cluster(4, routers=2, drain_seconds=DRAIN_SECONDS) as running:
        yield running


@pytest.fixture
def keys(four: Cluster) -> list[str]:
    return empty_keys(four)


@pytest.fixture
def near(four: Cluster) -> Iterator[Connection]:
    with four.of_router(0) as connection:
        yield connection


@pytest.fixture
def far(four: Cluster) -> Iterator[Connection]:
    with four.of_router(1) as connection:
        yield connection


# Served -------------------------------------------------------------------------------------------------
FORMS: list[tuple[list[str], list[str], Any]] = [
    (["blpop", "A", "0"], ["rpush", "A", "x", "y"], [b"A", b"x"]),
    (["brpop", "B", "A", "0"], ["rpush", "A", "x", "y"], [b"A", b"y"]),
    (["blpop", "A", "B", "C", "D", "0"], ["rpush", "C", "x"], [b"C", b"x"]),
    (["blmpop", "0", "1", "A", "left", "count", "2"], ["rpush", "A", "x", "y", "z"], [b"A", [b"x", b"y"]]),
    (["blmpop", "0", "3", "A", "B", "C", "right"], ["rpush", "C", "x", "y"], [b"C", [b"y"]]),
    (["bzpopmin", "A", "0"], ["zadd", "A", "1.5", "x", "2", "y"], [b"A", b"x", b"1.5"]),
    (["bzpopmax", "D", "A", "0"], ["zadd", "A", "1", "x", "2", "y"], [b"A", b"y", b"2"]),
    (["bzmpop", "0", "2", "A", "B", "min", "count", "9"], ["zadd", "B", "1", "x"], [b"B", [[b"x", b"1"]]]),
    (["blmove", "A", "A", "left", "right", "0"], ["rpush", "A", "x", "y"], b"x"),
    (["blmove", "A", "B", "right", "left", "0"], ["rpush", "A", "x", "y"], b"y"),
    (["brpoplpush", "A", "A", "0"], ["rpush", "A", "x", "y"], b"y"),
    (["brpoplpush", "A", "C", "0"], ["rpush", "A", "x", "y"], b"y"),
]


def named(value: Any, keys: list[str]) -> Any:
    """The letters as keys of the four shards."""
    if isinstance(value, list):
        return [named(each, keys) for each in value]
    word = value.decode() if isinstance(value, bytes) else value
    if word in ("A", "B", "C", "D"):
        key = keys["ABCD".index(word)]
        return key.encode() if isinstance(value, bytes) else key
    return value


@pytest.mark.parametrize(("command", "push", "reply"), FORMS, ids=[" ".join(form[0]) for form in FORMS])
def test_who_waits_is_served_from_any_router(
    four: Cluster, keys: list[str], near: Connection, far: Connection, command: list[str], push: list[str], reply: Any
) -> None:
    command, push, reply = named(command, keys), named(push, keys), named(reply, keys)
    for waiter, pusher in ((near, far), (far, near)):
        wait(four, waiter, *command)
        pushed = pusher.request(*push)
        assert pushed == len(push) - 2 or pushed * 2 == len(push) - 2, "the whole length, before anybody is served"
        assert waiter.read() == reply
        assert pusher.request("flushall") == "OK"
        pusher.request(*push)
        assert waiter.request(*command) == reply, "without waiting"
        pusher.request("flushall")


def test_a_move_over_shards_takes_and_puts(four: Cluster, keys: list[str], near: Connection, far: Connection) -> None:
    source, target, *_ = keys
    wait(four, near, "blmove", source, target, "left", "right", 0)
    assert far.request("rpush", source, 1, 2) == 2 and near.read() == b"1"
    assert far.request("lrange", source, 0, -1) == [b"2"]
    assert far.request("lrange", target, 0, -1) == [b"1"]
    assert near.request("blmove", target, source, "left", "right", 0) == b"1"
    far.request("set", target, "text")
    assert near.request("blmove", source, target, "left", "left", 0).code == "WRONGTYPE"
    assert far.request("llen", source) == 2
    far.request("del", source)
    wait(four, near, "blmove", source, target, "left", "left", 0)
    with four.connect() as behind:
        wait(four, behind, "blpop", source, 0)
        far.request("rpush", source, 1)
        assert near.read().code == "WRONGTYPE"
        assert behind.read() == [source.encode(), b"1"]


def test_a_chain_of_moves_over_shards(four: Cluster, keys: list[str], near: Connection, far: Connection) -> None:
    a, b, c, d = keys
    with four.connect() as second, four.connect() as third:
        wait(four, near, "blmove", a, b, "left", "right", 0)
        wait(four, second, "blmove", b, c, "left", "right", 0)
        wait(four, third, "blmove", c, d, "left", "right", 0)
        assert far.request("rpush", a, "x") == 1
        assert near.read() == second.read() == third.read() == b"x"
    assert far.request("lrange", d, 0, -1) == [b"x"] and far.request("exists", a, b, c) == 0


def test_keys_have_the_order_of_the_command(keys: list[str], near: Connection, far: Connection) -> None:
    for order in itertools.permutations(keys):
        for key in keys:
            far.request("rpush", key, key)
        for key in order:
            assert near.request("blpop", *order, 0) == [key.encode(), key.encode()]
        assert far.request("exists", *keys) == 0
    far.request("set", keys[1], "text")
    far.request("rpush", keys[2], "x")
    assert near.request("blpop", keys[0], keys[1], keys[2], 0).code == "WRONGTYPE"
    assert near.request("blpop", keys[0], keys[2], keys[1], 0) == [keys[2].encode(), b"x"]


def test_exactly_one_element_when_all_shards_have_one(
    four: Cluster, keys: list[str], near: Connection, far: Connection
) -> None:
    for number in range(50):
        wait(four, near, "blpop", *keys, 0)
        far.send(*[("rpush", key, number) for key in keys])
        assert near.read()[1] == b"%d" % number
        assert far.read_many(4) == [1] * 4
        assert sum(far.request("llen", key) for key in keys) == 3
        far.request("del", *keys)


def test_waiters_of_one_key_are_served_in_their_order_whatever_else_they_wait_for(
    four: Cluster, keys: list[str], far: Connection
) -> None:
    key = keys[0]
    forms = [(key,), (key, keys[1]), (keys[2], key), (key, key), (keys[3], keys[1], key), (key,)]
    with contextlib.ExitStack() as stack:
        waiters = [stack.enter_context(four.of_router(number % 2)) for number in range(len(forms))]
        for waiter, form in zip(waiters, forms, strict=True):
            wait(four, waiter, "blpop", *form, 0)
        for number, waiter in enumerate(waiters):
            far.request("rpush", key, number)
            assert waiter.read() == [key.encode(), b"%d" % number]
        assert blocked(four) == 0


def test_the_element_is_the_last_of_one_push(four: Cluster, keys: list[str], near: Connection, far: Connection) -> None:
    wait(four, near, "blpop", keys[0], 0)
    assert far.request("lpush", keys[0], "a", "b", "c") == 3
    assert near.read() == [keys[0].encode(), b"c"]


def test_resp3_has_doubles_and_one_null(four: Cluster, keys: list[str], near: Connection, far: Connection) -> None:
    near.request("hello", 3)
    for command in (("bzpopmin", keys[0], 0), ("bzpopmin", *keys, 0)):
        wait(four, near, *command)
        far.request("zadd", keys[0], 1.5, "m")
        assert near.read() == [keys[0].encode(), b"m", 1.5]
    near.socket.sendall(encode(("blpop", keys[0], "0.01")) + encode(("blpop", *keys, "0.01")))
    received = b""
    while len(received) < 6:
        received += near.socket.recv(100)
    assert received == b"_\r\n_\r\n"


# What waits with it --------------------------------------------------------------------------------------
def test_what_follows_waits_and_others_do_not(
    four: Cluster, keys: list[str], near: Connection, far: Connection
) -> None:
    for command in (("blpop", keys[0], 0), ("blpop", *keys, 0), ("blmove", *keys[:2], "left", "left", 0)):
        near.send(command, ("ping",), ("get", keys[3]))
        assert silent(near)
        assert far.request("ping") == "PONG"
        far.request("rpush", keys[0], "x")
        near.read()
        assert near.read_many(2) == ["PONG", None]
        far.request("flushall")


def test_one_wait_after_the_other(four: Cluster, keys: list[str], near: Connection, far: Connection) -> None:
    """The reply leaves before the coroutine that led the wait has ended: the next command begins behind the reply."""
    near.send(*[("BLPOP", *keys, 0)] * 20, ("PING",))
    for number in range(20):
        key = keys[number % len(keys)]
        far.request("RPUSH", key, number)
        assert near.read() == [key.encode(), b"%d" % number]
    assert near.read() == "PONG"
    until(lambda: b"blocked_clients:0\r\n" in far.request("INFO", "clients"), "nobody waits")
    assert far.request("EXISTS", *keys) == 0


def test_client_list_and_info_tell_who_waits(four: Cluster, keys: list[str], near: Connection, far: Connection) -> None:
    number = near.request("client", "id")
    for command in (("blpop", keys[0], 0), ("bzpopmin", *keys, 0), ("wait", 1, 0)):
        wait(four, near, *command)
        line = far.request("client", "list", "id", number)
        assert b" flags=b " in line and b" cmd=%s " % str(command[0]).encode() in line
        assert far.request("client", "unblock", number) == 1
        near.read()
        assert b" flags=N " in far.request("client", "list", "id", number)


def test_info_tells_what_is_waited_for_and_watched(
    four: Cluster, keys: list[str], near: Connection, far: Connection
) -> None:
    names = ("clients_in_timeout_table", "total_watched_keys", "total_blocking_keys", "total_blocking_keys_on_nokey")

    def counted() -> list[int]:
        told = dict(line.split(":") for line in far.request("INFO", "clients").decode().splitlines() if ":" in line)
        return [int(told[name]) for name in names]

    until(lambda: counted() == [0, 0, 0, 0], "nobody waits")
    with four.connect() as watcher, four.connect() as alone, four.connect() as reader:
        watcher.request("WATCH", *keys[:2])
        watcher.request("XGROUP", "CREATE", "a stream", "g", "$", "MKSTREAM")
        near.send(("BLPOP", *keys, 60))
        alone.send(("BLPOP", keys[0], 60))
        reader.send(("XREADGROUP", "GROUP", "g", "c", "BLOCK", 0, "STREAMS", "a stream", ">"))
        until(lambda: counted() == [2, 2, 5, 1], "all of them wait")
        watcher.request("UNWATCH")
        watcher.request("RPUSH", keys[0], "1", "2")
        watcher.request("DEL", "a stream")
        assert near.read()[1] in (b"1", b"2") and alone.read()[1] in (b"1", b"2")
        assert str(reader.read()).startswith("UNBLOCKED")
        # The other shards are told behind the reply.
        until(lambda: counted() == [0, 0, 0, 0], "nobody waits")


def test_unblock_over_routers(four: Cluster, keys: list[str], near: Connection, far: Connection) -> None:
    number = near.request("client", "id")
    for command in (
        ("blpop", keys[0], 0),
        ("blpop", *keys, 0),
        ("blmove", *keys[:2], "left", "left", 0),
        ("wait", 1, 0),
    ):
        nothing = 0 if command[0] == "wait" else NULL_ARRAY
        for reason, reply in ((), nothing), (("timeout",), nothing), (("ERROR",), "UNBLOCKED"):
            for asking in (far, four.connect()):
                wait(four, near, *command)
                assert asking.request("client", "unblock", number, *reason) == 1
                found = near.read()
                assert found == reply or found.code == reply
                assert asking.request("client", "unblock", number, *reason) == 0
                if asking is not far:
                    asking.close()
    assert far.request("client", "unblock", 1 << 60) == 0
    assert (
        far.request("client", "unblock", number, "soon").message
        == "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"
    )
    assert far.request("rpush", keys[0], "x") == 1 and far.request("llen", keys[0]) == 1


@pytest.mark.parametrize("form", ["one shard", "four shards", "a move", "wait"])
def test_time_is_kept_within_ten_milliseconds(keys: list[str], near: Connection, form: str) -> None:
    # The clock of a timeout ticks in milliseconds. A busy machine may be late often, as it is with a reply that need not
    # wait; who only looks ten times a second would hardly be in time three times of nine.
    for _ in range(10):
        late, usual = [], []
        for seconds in (0.05, 0.123, 0.2, 0.001, 0.077, 0.03, 0.11, 0.01, 0.06):
            late.append(lateness(keys, near, form, seconds))
            began = time.monotonic()
            near.request("get", keys[0])
            usual.append(time.monotonic() - began)
        assert min(late) > -0.002
        if sorted(late)[2] < 0.01 + sorted(usual)[5]:
            return
    raise AssertionError(f"late in each of ten attempts, in the last one by {late}; usual is {usual}")


def lateness(keys: list[str], near: Connection, form: str, seconds: float) -> float:
    """How long after its time a command that waits in vain is answered, in seconds."""
    began = time.monotonic()
    if form == "one shard":
        assert near.request("blpop", keys[0], seconds) is NULL_ARRAY
    elif form == "four shards":
        assert near.request("bzpopmax", *keys, seconds) is NULL_ARRAY
    elif form == "a move":
        assert near.request("blmove", *keys[:2], "left", "left", seconds) is NULL_ARRAY
    else:
        assert near.request("wait", 1, round(seconds * 1000)) == 0
    return time.monotonic() - began - seconds


def test_wait_has_no_replicas_to_wait_for(near: Connection) -> None:
    assert near.request("wait", 0, 0) == 0 and near.request("wait", -1, 0) == 0
    assert near.request("wait", 1, -1).message == "ERR timeout is negative"
    assert near.request("wait", "x", 1).message == "ERR value is not an integer or out of range"
    assert near.request("wait", 1, "1.5").message == "ERR timeout is not an integer or out of range"


def test_a_pause_of_all_clients_holds_the_pushes_and_not_the_time(
    four: Cluster, keys: list[str], near: Connection, far: Connection
) -> None:
    wait(four, near, "blpop", keys[0], 0)
    with four.connect() as other, four.connect() as third:
        wait(four, other, "blpop", keys[1], "0.3")
        began = time.monotonic()
        assert third.request("client", "pause", 600) == "OK"
        far.send(("rpush", keys[0], "x"))
        assert other.read() is NULL_ARRAY
        assert near.read() == [keys[0].encode(), b"x"]
        assert time.monotonic() - began > 0.55
        assert far.read() == 1


# Clients that go away -------------------------------------------------------------------------------------
@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_a_client_that_goes_while_it_waits_takes_nothing(
    four: Cluster, keys: list[str], far: Connection, how: str
) -> None:
    for command in (("blpop", keys[0], 0), ("blpop", *keys, 0), ("blmove", *keys[:2], "left", "left", 0)):
        for behind in ((), (("ping",),) * 3):
            client = four.connect()
            wait(four, client, *command)
            if behind:
                client.send(*behind)
            if how == "reset":
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if how == "half":
                client.socket.shutdown(socket.SHUT_WR)
                assert client.socket.recv(100) == b""
            client.close()
            until(lambda: blocked(four) == 0, "it is gone")
            assert far.request("rpush", keys[0], "x") == 1
            assert far.request("lrange", keys[0], 0, -1) == [b"x"]
            far.request("flushall")


def test_a_half_closed_client_has_the_reply_of_what_need_not_wait(
    keys: list[str], near: Connection, far: Connection
) -> None:
    far.request("rpush", keys[3], "x", "y")
    near.send(("ping",), ("blpop", keys[3], 0), ("blpop", *keys, 0))
    near.socket.shutdown(socket.SHUT_WR)
    assert near.read_many(3) == ["PONG", [keys[3].encode(), b"x"], [keys[3].encode(), b"y"]]
    assert near.socket.recv(100) == b""


@pytest.mark.parametrize("form", ["one shard", "four shards"])
def test_between_serving_and_delivery_nothing_is_lost(
    four: Cluster, keys: list[str], far: Connection, form: str
) -> None:
    """Clients go at any moment around the push; whatever they were not sent is in the list again."""
    draw = random.Random(form)
    waited = [keys[0]] if form == "one shard" else keys
    delivered = []
    for number in range(150):
        with four.connect() as client:
            client.send(("blpop", *waited, 0))
            time.sleep(draw.choice((0, 0.001, 0.003)))
            far.send(("rpush", keys[0], number))
            time.sleep(draw.choice((0, 0, 0.0003)))
            client.socket.shutdown(socket.SHUT_WR)
            received = b""
            while part := client.socket.recv(1000):
                received += part
            assert far.read() in range(1, 300)
            if received:
                delivered.append(int(received.rsplit(b"\r\n")[-2]))
    until(lambda: blocked(four) == 0, "all are gone")

    def left() -> list[int]:
        return [int(each) for each in far.request("lrange", keys[0], 0, -1)]

    until(lambda: len(delivered) + len(left()) == 150, "what reached nobody is back")
    assert sorted(delivered + left()) == list(range(150))


# Processes that go away -----------------------------------------------------------------------------------
def test_a_rolling_restart_is_not_seen_by_who_waits(four: Cluster, keys: list[str], far: Connection) -> None:
    commands = [
        ("blpop", keys[0], 0),
        ("blpop", keys[0], *keys[2:], 0),  # not where the last one moves to: it would take what was moved
        ("bzpopmin", keys[2], keys[3], 30),
        ("blmove", *keys[:2], "left", "left", 0),
    ]
    with contextlib.ExitStack() as stack:
        waiters = [stack.enter_context(four.connect()) for _ in commands]
        for waiter, command in zip(waiters, commands, strict=True):
            wait(four, waiter, *command)
        short = stack.enter_context(four.connect())
        began = time.monotonic()
        wait(four, short, "blpop", keys[1], "0.6")
        for shard in range(4):
            four.kache("cluster", "restart", "--shard", shard, "--yes")
        assert short.read() is NULL_ARRAY and time.monotonic() - began > 0.55
        assert silent(*waiters)
        four.serves()
        until(lambda: blocked(four) == 4, "all wait again")
        assert far.request("zadd", keys[3], 1, "m") == 1
        assert waiters[2].read() == [keys[3].encode(), b"m", b"1"]
        assert far.request("rpush", keys[0], "x", "y", "z") == 3
        moved = waiters[3].read()
        assert sorted([waiters[0].read()[1], waiters[1].read()[1], moved]) == [b"x", b"y", b"z"]
        assert far.request("lrange", keys[1], 0, -1) == [moved]
        assert far.request("exists", keys[0]) == 0


def test_a_restart_leaves_everybody_in_line(four: Cluster, keys: list[str], near: Connection, far: Connection) -> None:
    """Clients of two routers, in turn: each router has its own back on the shard at once, so they come out of order."""
    key = keys[0]
    forms = [
        ("blpop", key, 0),
        ("blmove", key, keys[1], "left", "left", 0),
        ("blpop", key, keys[2], 0),
        ("blmpop", 0, 1, key, "left"),
        ("brpoplpush", key, keys[3], 60),
        ("blmove", key, key, "left", "right", 60),
    ]
    with contextlib.ExitStack() as stack:
        waiters = [stack.enter_context(four.of_router(1 - number % 2)) for number in range(len(forms))]
        for waiter, form in zip(waiters, forms, strict=True):
            wait(four, waiter, *form)
        for _ in range(2):
            four.kache("cluster", "restart", "--shard", 0, "--yes")
            for each in (near, far):
                # Behind what its router has said to the shard since it is back.
                until(lambda each=each: each.request("exists", key) == 0, "the shard is back")
        for number, waiter in enumerate(waiters):
            assert silent(*waiters[number:])
            far.request("rpush", key, f"x{number}")
            reply = waiter.read()
            assert b"x%d" % number in (reply if isinstance(reply, bytes) else repr(reply).encode())


def test_a_shard_that_dies(four: Cluster, keys: list[str], far: Connection) -> None:
    with four.connect() as one, four.connect() as several, four.connect() as elsewhere:
        wait(four, one, "blpop", keys[0], 0)
        wait(four, several, "blpop", *keys, 0)
        wait(four, elsewhere, "blpop", keys[1], 0)
        killed = four.pid_of("shard", 0)
        four.kill(killed)
        assert one.read().code == "UNCERTAIN"
        assert silent(several, elsewhere)
        four.replaced("shard", 0, killed)
        until(lambda: not isinstance(far.request("rpush", keys[0], "x"), CommandError), "it is served again")
        assert several.read() == [keys[0].encode(), b"x"]
        far.request("rpush", keys[1], "y")
        assert elsewhere.read() == [keys[1].encode(), b"y"]


def test_a_router_that_dies_takes_nothing(four: Cluster, keys: list[str], near: Connection, far: Connection) -> None:
    with four.of_router(0) as one, four.of_router(0) as several:
        wait(four, one, "blpop", keys[0], 0)
        wait(four, several, "blpop", *keys, 0)
        wait(four, near, "blmove", *keys[:2], "left", "left", 0)
        killed = four.pid_of("router", 0)
        four.kill(killed)
        for each in (one, several, near):
            with pytest.raises((ConnectionError, AssertionError)):
                each.read()
    four.replaced("router", 0, killed)
    for key in keys:
        assert far.request("rpush", key, "x") == 1 and far.request("llen", key) == 1
    with four.of_router(0) as again:
        assert again.request("blpop", *keys, 0) == [keys[0].encode(), b"x"]
        far.request("del", *keys)
        wait(four, again, "blpop", *keys, 0)
        far.request("rpush", keys[2], "y")
        assert again.read() == [keys[2].encode(), b"y"]


def test_a_router_that_leaves_closes_who_waits_and_takes_nothing(four: Cluster, keys: list[str]) -> None:
    with four.connect() as one, four.connect() as several:
        wait(four, one, "blpop", keys[0], 0)
        wait(four, several, "blpop", *keys, 0)
        began = time.monotonic()
        four.kache("cluster", "restart", "--router")
        for each in (one, several):
            assert each.socket.recv(100) == b""
        assert time.monotonic() - began < DRAIN_SECONDS, "nobody waits for who waits"
    assert four.request("rpush", keys[0], "x") == 1 and four.request("llen", keys[0]) == 1


def test_a_stopped_shard_keeps_nobody_beyond_the_time(four: Cluster, keys: list[str], far: Connection) -> None:
    stopped = four.pid_of("shard", 0)
    with four.connect() as several, four.connect() as other, four.connect() as one:
        began = time.monotonic()
        wait(four, several, "blpop", *keys, 4)
        wait(four, other, "blpop", *keys, 0)
        wait(four, one, "blpop", keys[0], 3)
        four.kill(stopped, signal.SIGSTOP)
        try:
            assert several.read() is NULL_ARRAY
            assert 3.9 < time.monotonic() - began < 20
            far.request("rpush", keys[1], "x")
            assert other.read() == [keys[1].encode(), b"x"], "the others serve"
            assert silent(one)
        finally:
            four.kill(stopped, signal.SIGCONT)
        assert one.read() is NULL_ARRAY
        assert far.request("rpush", keys[0], "y") == 1 and far.request("llen", keys[0]) == 1


def test_many_clients_wait_and_leave_at_little_cost(four: Cluster, keys: list[str], far: Connection) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(four.connect()) for _ in range(300)]
        for number, client in enumerate(clients):
            client.send(("blpop", *(keys if number % 2 else keys[:1]), 0))
        until(lambda: blocked(four) == 300, "all wait")
        far.send(*[("rpush", keys[0], number) for number in range(300)])
        assert sorted(int(client.read()[1]) for client in clients) == list(range(300))
        assert far.read_many(300) == [1] * 300
        for client in clients:
            client.send(("blpop", *keys, 0))
        until(lambda: blocked(four) == 300, "all wait again")
    until(lambda: blocked(four) == 0, "all are gone")


# Transactions -------------------------------------------------------------------------------------------
def test_nothing_waits_behind_multi(keys: list[str], near: Connection) -> None:
    commands: list[tuple[Any, ...]] = [
        ("blpop", keys[0], 0),
        ("blmpop", 0, 1, keys[0], "left"),
        ("bzpopmin", keys[0], 0),
        ("blmove", keys[0], keys[0], "left", "left", 0),
        ("wait", 1, 0),
    ]
    several: list[tuple[Any, ...]] = [
        ("brpop", *keys, 0),
        ("bzmpop", 0, 4, *keys, "min"),
        ("blmove", *keys[:2], "left", "left", 0),
    ]
    for queued in (commands, several, commands + several):
        near.send(("multi",), *queued, ("exec",))
        assert near.read_many(1 + len(queued)) == ["OK", *["QUEUED"] * len(queued)]
        found = near.read()
        expected = {"wait": 0, "blmove": None}
        assert found == [expected.get(command[0], NULL_ARRAY) for command in queued]


def test_a_transaction_is_one_unit_for_who_waits(
    four: Cluster, keys: list[str], near: Connection, far: Connection
) -> None:
    """On one shard and over several: what is popped again inside serves nobody, and the rest is served behind it."""
    with four.connect() as second:
        for others in ((keys[0],), tuple(keys)):
            wait(four, near, "blpop", *others, 0)
            wait(four, second, "blpop", keys[0], 0)
            far.send(("multi",), *[("rpush", key, 1) for key in others], *[("lpop", key) for key in others], ("exec",))
            far.read_many(1 + 2 * len(others))
            assert far.read() == [1] * len(others) + [b"1"] * len(others)
            assert silent(near, second)
            far.send(("multi",), ("rpush", keys[0], "a", "b"), ("set", keys[-1] + "x", 1), ("llen", keys[0]), ("exec",))
            far.read_many(4)
            assert far.read() == [2, "OK", 2]
            assert near.read() == [keys[0].encode(), b"a"] and second.read() == [keys[0].encode(), b"b"]


def test_moves_and_transactions_of_others_are_waited_for(four: Cluster, keys: list[str], far: Connection) -> None:
    """Consumers, producers and transactions on the same keys of two shards: each element is had once, nobody sees an error."""
    had: list[bytes] = []
    wrong: list[Any] = []

    def consume(number: int) -> None:
        with four.connect() as connection:
            while True:
                if number % 2:
                    reply = connection.request("blpop", keys[1], keys[0], 0.5)
                else:
                    reply = connection.request("blmove", keys[0], keys[1], "left", "right", 0.5)
                if reply is NULL_ARRAY:
                    return
                if isinstance(reply, CommandError):
                    wrong.append(reply.message)
                elif number % 2:
                    had.append(reply[1])

    threads = [threading.Thread(target=consume, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for number in range(0, 200, 2):
        far.send(("multi",), ("rpush", keys[0], number), ("rpush", keys[1], number + 1), ("exec",))
        wrong += [reply for reply in far.read_many(4) if isinstance(reply, CommandError)]
    for thread in threads:
        thread.join()
    left = far.request("lrange", keys[0], 0, -1) + far.request("lrange", keys[1], 0, -1)
    assert wrong == [] and sorted(map(int, had + left)) == list(range(200))


def test_the_soak_in_short() -> None:
    """tests/soak/queues.py with few of everything."""
    program = Path(__file__).parent.parent / "soak" / "queues.py"
    done = subprocess.run(
        [sys.executable, str(program), "--elements", "8000", "--consumers", "32"],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
