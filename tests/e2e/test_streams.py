"""Streams against a real cluster of four shards and two routers: reads over shards, waiting, groups, restarts."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, Connection, until
from waiters import blocked, empty_keys, wait

from kache.client import AsyncClient, Client
from kache.errors import CommandError
from kache.replies import NULL_ARRAY


@pytest.fixture(scope="module")
def four() -> Iterator[Cluster]:
    with Cluster(4, routers=2) as running:
        yield running


@pytest.fixture
def keys(four: Cluster) -> list[str]:
    return empty_keys(four)


@pytest.fixture
def reader(four: Cluster) -> Iterator[Connection]:
    with four.connect() as connection:
        yield connection


def entry(number: str, *fields: bytes) -> list[Any]:
    return [number.encode(), list(fields)]


def refused(reply: Any, text: str) -> bool:
    """Whether it is an error with this text."""
    return isinstance(reply, CommandError) and text in reply.message


ONE = entry("1-0", b"f", b"v")


def test_parts_come_in_the_order_of_the_command(four: Cluster, keys: list[str], reader: Connection) -> None:
    for key in (keys[2], keys[0]):
        four.request("xadd", key, "1", "f", "v")
    read = ["xread", "streams", *keys, *["0"] * len(keys)]
    assert reader.request(*read) == [[keys[0].encode(), [ONE]], [keys[2].encode(), [ONE]]]
    backwards = ["xread", "streams", *reversed(keys), *["0"] * len(keys)]
    assert reader.request(*backwards) == [[keys[2].encode(), [ONE]], [keys[0].encode(), [ONE]]]
    assert reader.request("xread", "streams", *keys, *["$"] * len(keys)) is NULL_ARRAY
    reader.request("hello", "3")
    assert reader.request(*read) == {keys[0].encode(): [ONE], keys[2].encode(): [ONE]}
    assert reader.request("xread", "streams", keys[0], "0") == {keys[0].encode(): [ONE]}


def test_who_waits_on_several_shards_is_served_once(four: Cluster, keys: list[str], reader: Connection) -> None:
    four.request("xadd", keys[3], "5", "old", "old")
    for key in keys:
        wait(four, reader, "xread", "block", "0", "streams", *keys, *["$"] * len(keys))
        four.request("xadd", key, "7", "f", "v")
        assert reader.read() == [[key.encode(), [entry("7-0", b"f", b"v")]]]
        four.request("del", key)
    wait(four, reader, "xread", "block", "100", "streams", *keys, *["$"] * len(keys))
    assert reader.read() is NULL_ARRAY


def test_all_who_read_are_served_by_one_entry(four: Cluster, keys: list[str]) -> None:
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(four.connect()) for _ in range(4)]
        for number, each in enumerate(readers):
            streams = [keys[0]] if number % 2 else [keys[0], keys[1]]
            wait(four, each, "xread", "block", "0", "streams", *streams, *["$"] * len(streams))
        four.request("xadd", keys[0], "1", "f", "v")
        assert [each.read() for each in readers] == [[[keys[0].encode(), [ONE]]]] * 4


def test_members_of_a_group_share_what_comes(four: Cluster, keys: list[str]) -> None:
    for key in keys:
        four.request("xgroup", "create", key, "g", "$", "mkstream")
    with contextlib.ExitStack() as stack:
        members = [stack.enter_context(four.connect()) for _ in range(3)]
        for number, each in enumerate(members):
            words = ["xreadgroup", "group", "g", f"m{number}", "block", "0", "streams", *keys, *[">"] * len(keys)]
            wait(four, each, *words)
        for number, each in enumerate(members):
            four.request("xadd", keys[number], "1", "f", "v")
            assert each.read() == [[keys[number].encode(), [ONE]]]
    for number in range(3):
        assert four.request("xpending", keys[number], "g")[0] == 1
        assert four.request("xack", keys[number], "g", "1") == 1


def test_a_command_that_is_refused_delivers_nothing(four: Cluster, keys: list[str], reader: Connection) -> None:
    for key in keys[:3]:
        four.request("xadd", key, "1", "f", "v")
    for key in keys[:2]:
        four.request("xgroup", "create", key, "g", "0")
    words = ["xreadgroup", "group", "g", "me", "streams", *keys[:3], ">", ">", ">"]
    assert refused(reader.request(*words), "NOGROUP No such key")
    four.request("set", keys[3], "text")
    assert refused(reader.request("xreadgroup", "group", "g", "me", "streams", keys[0], keys[3], ">", ">"), "WRONGTYPE")
    assert four.request("xpending", keys[0], "g")[0] == 0
    assert refused(reader.request("xread", "block", "-1", "streams", *keys[:2], "0", "0"), "timeout is negative")
    assert refused(reader.request("xread", "streams", *keys[:2], "0"), "Unbalanced")


@pytest.mark.parametrize("how", ["del", "set", "destroy", "flushall"])
@pytest.mark.parametrize("shards", [1, 2])
def test_a_group_that_goes_ends_the_wait(
    four: Cluster, keys: list[str], reader: Connection, how: str, shards: int
) -> None:
    for key in keys[:shards]:
        four.request("xgroup", "create", key, "g", "$", "mkstream")
    wait(
        four, reader, "xreadgroup", "group", "g", "me", "block", "0", "streams", *keys[:shards], *[">"] * shards
    )  # fmt: skip
    command = {"del": ["del", keys[0]], "set": ["set", keys[0], "v"], "flushall": ["flushall"]}
    four.request(*command.get(how, ["xgroup", "destroy", keys[0], "g"]))
    assert refused(reader.read(), "no longer exists")


def test_time_and_unblock(four: Cluster, keys: list[str], reader: Connection) -> None:
    number = reader.request("client", "id")
    for streams in ([keys[0]], keys):
        words = ["xread", "block", "0", "streams", *streams, *["$"] * len(streams)]
        wait(four, reader, *words)
        four.request("client", "unblock", number)
        assert reader.read() is NULL_ARRAY
        wait(four, reader, *words)
        four.request("client", "unblock", number, "error")
        assert refused(reader.read(), "UNBLOCKED")


def test_nothing_waits_in_a_transaction(four: Cluster, keys: list[str], reader: Connection) -> None:
    for streams in ([keys[0]], keys):
        words = ["xread", "block", "0", "streams", *streams, *["0"] * len(streams)]
        reader.send(["multi"], ["xadd", keys[1], "9", "f", "v"], ["xlen", keys[1]], words, ["exec"])
        assert [reader.read() for _ in range(4)] == ["OK", "QUEUED", "QUEUED", "QUEUED"]
        found = reader.read()
        four.request("del", keys[1])
        expected = NULL_ARRAY if streams == [keys[0]] else [[keys[1].encode(), [entry("9-0", b"f", b"v")]]]
        assert found == [b"9-0", 1, expected]


def test_streams_move_between_shards_with_their_groups(four: Cluster, keys: list[str]) -> None:
    source, target = keys[0], keys[1]
    for number in range(1, 3001):
        four.request("xadd", source, number, "f", "v" * 20)
    four.request("xgroup", "create", source, "g", "0")
    four.request("xreadgroup", "group", "g", "me", "count", "2500", "streams", source, ">")
    four.request("xdel", source, "7", "2999")
    before = four.request("xinfo", "stream", source, "full", "count", "0")
    four.request("copy", source, target)
    four.request("rename", source, keys[2])
    for key in (target, keys[2]):
        found = four.request("xinfo", "stream", key, "full", "count", "0")
        # Chunks are filled anew, and so the nodes are others.
        assert found[6:] == before[6:] and found[:2] == before[:2]
    payload = four.request("dump", target)
    four.request("restore", keys[3], "0", payload)
    assert four.request("xinfo", "stream", keys[3], "full", "count", "0")[6:] == before[6:]


def test_a_restart_keeps_streams_and_groups(tmp_path: Path) -> None:
    with Cluster(2, appendonly="yes", dir=str(tmp_path)) as two:
        keys = [found[0] for found in two.keys_by_shard()]
        for key in keys:
            for number in range(1, 300):
                two.request("xadd", key, number, "f", "v")
            two.request("xgroup", "create", key, "g", "0")
            two.request("xreadgroup", "group", "g", "me", "count", "200", "streams", key, ">")
            two.request("xdel", key, "5")
            two.request("xack", key, "g", "7", "8")
            two.request("xtrim", key, "maxlen", "250")
        before = [two.request("xinfo", "stream", key, "full", "count", "0") for key in keys]
        for shard in range(2):
            two.kache("cluster", "restart", "--shard", shard, "--yes")
        two.serves()
        assert [two.request("xinfo", "stream", key, "full", "count", "0") for key in keys] == before


def test_a_rolling_restart_is_not_seen_by_who_reads(four: Cluster, keys: list[str], reader: Connection) -> None:
    with four.connect() as both:
        wait(four, reader, "xread", "block", "0", "streams", keys[0], "$")
        wait(four, both, "xread", "block", "0", "streams", *keys, *["$"] * len(keys))
        for shard in range(4):
            four.kache("cluster", "restart", "--shard", shard, "--yes")
        four.serves()
        until(lambda: blocked(four) == 2, "they wait again")
        four.request("xadd", keys[0], "2", "f", "v")
        expected = [[keys[0].encode(), [entry("2-0", b"f", b"v")]]]
        assert reader.read() == expected and both.read() == expected


# Our own clients -----------------------------------------------------------------------------------
def test_the_client_works_through_a_stream(four: Cluster, keys: list[str]) -> None:
    with Client(port=four.port, decode=True) as cache:
        orders = cache.stream(keys[0])
        numbers = [orders.add({"n": n}) for n in range(25)]
        assert len(orders) == 25
        assert [each.id for each in orders.range(count=3)] == numbers[:3]
        assert [each.id for each in orders.range(reverse=True, count=1)] == numbers[-1:]
        with pytest.raises(ValueError, match="nothing to acknowledge"):
            orders.range(count=1)[0].ack()
        lost = orders.consume("billing", "first", count=10, seconds=0.05)
        assert [next(lost).id for _ in range(10)] == numbers[:10]
        # A second life has what the first was given; another consumer takes it over when it is left alone.
        again = orders.consume("billing", "first", count=4, seconds=0.05)
        assert next(again).id == numbers[0]
        done = [each for each in orders.consume("billing", "second", seconds=0.05, claim_after=0.0) if each.ack()]
        assert sorted(each.id for each in done) == sorted(numbers)
        assert done[0].fields == {"n": "0"}
        assert orders.ack("billing", *numbers) == 0
        with pytest.raises(ValueError, match="count"):
            next(orders.consume("billing", "first", count=0))
        with pytest.raises(ValueError, match="field"):
            orders.add({})


def test_the_async_client_works_through_a_stream(four: Cluster, keys: list[str]) -> None:
    async def work() -> list[str]:
        async with AsyncClient(port=four.port, decode=True) as cache:
            orders = cache.stream(keys[1])
            numbers = [await orders.add({"n": n}, maxlen=1000) for n in range(12)]
            assert await orders.length() == 12
            assert [each.id for each in await orders.range()] == numbers
            found = []
            async for each in orders.consume("billing", "me", count=5, seconds=0.05):
                found.append(each.id)
                assert await each.ack()
            assert found == numbers
            return numbers

    assert len(asyncio.run(work())) == 12


def test_the_soak_in_short() -> None:
    """tests/soak/streams.py with few of everything."""
    program = Path(__file__).parent.parent / "soak" / "streams.py"
    done = subprocess.run(
        [sys.executable, str(program), "--entries", "4000", "--consumers", "10", "--groups", "2"],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
