"""Publish and subscribe over several shards and routers: order, restarts, limits, and who is told what about clients."""

from __future__ import annotations

import random
import select
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cluster import Cluster, Connection, until

SHARDS, ROUTERS = 3, 2
CHANNELS = [b"channel:%d" % n for n in range(12)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(SHARDS, routers=ROUTERS) as running:
        yield running


class Listener(Connection):
    """A connection that listens; `read` skips nothing."""

    def __init__(self, port: int, protocol: int = 2) -> None:
        super().__init__(port)
        if protocol == 3:
            self.request("HELLO", 3)

    def listen(self, command: str, *names: bytes) -> None:
        self.send((command, *names))
        for name in names:
            assert self.read()[:2] == [command.lower().encode(), name]


def listeners(cluster: Cluster, count: int, protocol: int = 2) -> list[Listener]:
    """So many on the whole, on every router."""
    found = [Listener(cluster.port, protocol) for _ in range(count)]
    return found


def on_both_routers(cluster: Cluster) -> tuple[Listener, Listener]:
    """Two connections to different routers."""
    first, second = (cluster.of_router(index, lambda: Listener(cluster.port)) for index in range(ROUTERS))
    assert isinstance(first, Listener) and isinstance(second, Listener)
    return first, second


def test_every_subscriber_gets_every_message_in_order(cluster: Cluster) -> None:
    draw = random.Random(1)
    everybody = [*listeners(cluster, 6), *listeners(cluster, 6, 3)]
    with cluster.connect() as publisher:
        for each in everybody:
            each.listen("SUBSCRIBE", *CHANNELS)
        sent: dict[bytes, list[bytes]] = {channel: [] for channel in CHANNELS}
        for number in range(600):
            channel = draw.choice(CHANNELS)
            sent[channel].append(b"%d" % number)
            publisher.send(("PUBLISH", channel, b"%d" % number))
        assert publisher.read_many(600) == [len(everybody)] * 600
        for each in everybody:
            got: dict[bytes, list[bytes]] = {channel: [] for channel in CHANNELS}
            for kind, channel, message in each.read_many(600):
                assert kind == b"message"
                got[channel].append(message)
            assert got == sent
            each.close()


def test_a_message_follows_what_its_publisher_did_before(cluster: Cluster) -> None:
    """`SET k; PUBLISH c` in one pipeline: who is woken by the message finds the value, wherever both live."""
    with Listener(cluster.port) as listener, cluster.connect() as publisher, cluster.connect() as reader:
        listener.listen("SUBSCRIBE", *CHANNELS)
        for number in range(200):
            channel, key = CHANNELS[number % len(CHANNELS)], f"key:{number}"
            publisher.send(*[("SET", key, number)] * 20, ("PUBLISH", channel, key))
            message = listener.read()
            assert reader.request("GET", message[2]) == b"%d" % number
            assert publisher.read_many(21)[-1] == 1


def test_a_message_never_comes_before_its_confirmation_nor_behind_the_last(cluster: Cluster) -> None:
    with cluster.connect() as publisher:
        publisher.send(*[("PUBLISH", CHANNELS[n % 4], n) for n in range(4000)])
        for protocol in (2, 3):
            with Listener(cluster.port, protocol) as listener:
                for _ in range(60):
                    listener.send(("SUBSCRIBE", *CHANNELS[:4]), ("UNSUBSCRIBE", *CHANNELS[:4]), ("PING", "end"))
                    active: set[bytes] = set()
                    while True:
                        found = listener.read()
                        if found in (b"end", [b"pong", b"end"]):
                            break
                        kind, channel = found[0], found[1]
                        if kind == b"subscribe":
                            active.add(channel)
                        elif kind == b"unsubscribe":
                            active.remove(channel)
                        else:
                            assert kind == b"message" and channel in active
                    assert not active
        publisher.read_many(4000)


def test_who_comes_and_goes_between_two_messages_of_a_channel(cluster: Cluster) -> None:
    """Who has a message coming is remembered between messages, and must not be once it has changed."""
    channel, pattern = CHANNELS[0], CHANNELS[0][:-1] + b"?"
    with cluster.connect() as publisher, Listener(cluster.port) as first, Listener(cluster.port, 3) as second:

        def published(message: bytes, expected: int) -> None:
            assert publisher.request("PUBLISH", channel, message) == expected

        published(b"1", 0)
        first.listen("SUBSCRIBE", channel)
        published(b"2", 1)
        second.listen("SUBSCRIBE", channel)
        published(b"3", 2)
        assert second.read()[-1] == b"3"
        second.listen("PSUBSCRIBE", pattern)
        published(b"4", 3)
        first.send(("UNSUBSCRIBE", channel))
        assert [first.read()[:2] for _ in range(4)][-1] == [b"unsubscribe", channel]
        published(b"5", 2)
        first.close()
        second.send(("UNSUBSCRIBE", channel), ("PING",))
        assert [second.read()[-1] for _ in range(5)] == [b"4", b"4", b"5", b"5", 1]
        assert second.read() == "PONG"
        assert publisher.request("PUBSUB", "NUMSUB", channel) == [channel, 0]
        published(b"6", 1)
        assert second.read() == [b"pmessage", pattern, channel, b"6"]
        second.close()
        until(lambda: publisher.request("PUBLISH", channel, b"7") == 0, "nobody is left")


def test_an_end_is_confirmed_once_the_shard_knows(cluster: Cluster) -> None:
    """A PUBLISH through another router must not count who was told that it listens no more."""
    channel = CHANNELS[0]
    shards = [cluster.pid_of("shard", index) for index in range(SHARDS)]
    for commands in ([("UNSUBSCRIBE", channel)], [("MULTI",), ("UNSUBSCRIBE", channel), ("EXEC",)]):
        with Listener(cluster.port, 3) as listener, cluster.connect() as publisher:
            listener.listen("SUBSCRIBE", channel)
            for pid in shards:
                cluster.kill(pid, signal.SIGSTOP)
            listener.send(*commands)
            readable, _, _ = select.select([listener.socket], [], [], 0.3)
            for pid in shards:
                cluster.kill(pid, signal.SIGCONT)
            told = listener.read_many(len(commands))[-1]
            assert (told if len(commands) == 1 else told[0]) == [b"unsubscribe", channel, 0]
            assert len(commands) > 1 or not readable
            assert publisher.request("PUBLISH", channel, "x") == 0


def test_counts_over_routers(cluster: Cluster) -> None:
    first, second = on_both_routers(cluster)
    with first, second, cluster.connect() as asking:
        until(lambda: asking.request("PUBSUB", "NUMPAT") == 0, "patterns of before are forgotten")
        until(lambda: asking.request("PUBSUB", "CHANNELS") == [], "and channels")
        first.listen("SUBSCRIBE", b"x", b"y")
        second.listen("SUBSCRIBE", b"x")
        second.listen("PSUBSCRIBE", b"x*", b"*")
        first.listen("PSUBSCRIBE", b"*")
        assert asking.request("PUBSUB", "NUMSUB", "x", "y", "z") == [b"x", 2, b"y", 1, b"z", 0]
        assert asking.request("PUBSUB", "NUMPAT") == 2
        assert sorted(asking.request("PUBSUB", "CHANNELS")) == [b"x", b"y"]
        assert asking.request("PUBLISH", "x", "1") == 2 + 1 + 2
        assert sorted(first.read_many(2)) == [[b"message", b"x", b"1"], [b"pmessage", b"*", b"x", b"1"]]
        assert sorted(second.read_many(3)) == [
            [b"message", b"x", b"1"], [b"pmessage", b"*", b"x", b"1"], [b"pmessage", b"x*", b"x", b"1"],
        ]  # fmt: skip
        second.close()
        until(lambda: asking.request("PUBSUB", "NUMSUB", "x") == [b"x", 1], "the other one is forgotten")
        until(lambda: asking.request("PUBSUB", "NUMPAT") == 1, "and its patterns")

        def listed() -> str:
            return bytes(asking.request("CLIENT", "LIST", "TYPE", "PUBSUB")).decode()

        until(lambda: listed().count("\n") == 1, "its connection is gone, too")
        assert "flags=P " in listed() and "sub=2 psub=1 ssub=0" in listed()


def test_a_subscription_outlives_its_shard(cluster: Cluster) -> None:
    with Listener(cluster.port) as listener, cluster.connect() as publisher:
        listener.listen("SUBSCRIBE", *CHANNELS)
        listener.listen("PSUBSCRIBE", b"chan*")
        for shard in range(SHARDS):
            cluster.kill(cluster.pid_of("shard", shard), signal.SIGKILL)
            until(lambda: all_answer(publisher), "the shard is back")
            for number, channel in enumerate(CHANNELS):
                assert publisher.request("PUBLISH", channel, number) == 2
                assert sorted(listener.read_many(2)) == [
                    [b"message", channel, b"%d" % number], [b"pmessage", b"chan*", channel, b"%d" % number],
                ]  # fmt: skip


def all_answer(publisher: Connection) -> bool:
    """Whether nobody else listens to any of the channels, but the shards of all of them answer."""
    return all(publisher.request("PUBSUB", "NUMSUB", channel) == [channel, 1] for channel in CHANNELS)


def test_a_shard_that_is_down(cluster: Cluster) -> None:
    """PUBLISH says so, never silently; SUBSCRIBE is confirmed all the same."""
    cluster.kill(cluster.pid_of("shard", 1), signal.SIGSTOP)
    with Listener(cluster.port) as listener, cluster.connect() as publisher:
        for channel in CHANNELS:
            listener.send(("SUBSCRIBE", channel))
        cluster.kill(cluster.pid_of("shard", 1), signal.SIGKILL)
        confirmed = [listener.read()[1] for _ in CHANNELS]
        assert confirmed == CHANNELS
        until(lambda: all_answer(publisher), "the shard is back and has been told")
        for channel in CHANNELS:
            assert publisher.request("PUBLISH", channel, "x") == 1
            assert listener.read() == [b"message", channel, b"x"]


def test_a_subscriber_that_never_reads_is_closed_and_the_others_do_not_notice() -> None:
    with Cluster(2, routers=2, client_output_buffer_limit="pubsub 4mb 0 0") as cluster, cluster.connect() as publisher:
        idle, reader = Listener(cluster.port), Listener(cluster.port)
        idle.listen("SUBSCRIBE", b"c")
        reader.listen("SUBSCRIBE", b"c")
        message = b"m" * 65536
        took: list[float] = []
        numbers = 0
        while publisher.request("PUBSUB", "NUMSUB", "c") == [b"c", 2]:
            assert numbers < 2000, "it was never closed"
            began = time.monotonic()
            publisher.request("PUBLISH", "c", message)
            assert reader.read() == [b"message", b"c", message]
            took.append(time.monotonic() - began)
            numbers += 1
        assert numbers > 4 << 20 >> 16
        assert publisher.request("PUBLISH", "c", "last") == 1
        assert reader.read() == [b"message", b"c", b"last"]
        with pytest.raises((ConnectionError, TimeoutError)):
            while idle.socket.recv(1 << 20):
                pass
            raise ConnectionError("closed")
        idle.close()
        reader.close()


def test_several_publishers_keep_one_order_per_channel(cluster: Cluster) -> None:
    """Whatever the order of messages from different publishers, all subscribers see the same one."""
    everybody = listeners(cluster, 8)
    publishers = [cluster.connect() for _ in range(6)]
    for each in everybody:
        each.listen("SUBSCRIBE", b"one")
    for number in range(100):
        for at, publisher in enumerate(publishers):
            publisher.send(("PUBLISH", "one", f"{at}:{number}"))
    seen = [[found[2] for found in each.read_many(600)] for each in everybody]
    assert all(each == seen[0] for each in seen) and len(set(seen[0])) == 600
    for at in range(6):
        own = [message for message in seen[0] if message.startswith(b"%d:" % at)]
        assert own == [b"%d:%d" % (at, number) for number in range(100)]
    closing: list[Any] = [*everybody, *publishers]
    for connection in closing:
        connection.close()


def test_a_router_that_dies_takes_its_subscribers_alone(cluster: Cluster) -> None:
    first, second = on_both_routers(cluster)
    with cluster.connect() as probe:
        index = first.request("CLIENT", "ID") >> 48
        first.listen("SUBSCRIBE", b"left")
        second.listen("SUBSCRIBE", b"left")
        assert probe.request("PUBSUB", "NUMSUB", "left") == [b"left", 2]
    cluster.kill(cluster.pid_of("router", index), signal.SIGKILL)
    with pytest.raises((ConnectionError, OSError)):
        first.read()

    def alone() -> bool:
        try:
            with cluster.connect() as asking:
                return bool(asking.request("PUBSUB", "NUMSUB", "left") == [b"left", 1])
        except OSError:
            return False

    until(alone, "the shards have forgotten the subscribers of the dead router")
    cluster.serves()
    with cluster.connect() as publisher:
        assert publisher.request("PUBLISH", "left", "x") == 1
    assert second.read() == [b"message", b"left", b"x"]
    first.close()
    second.close()
