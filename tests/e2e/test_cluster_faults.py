"""A real cluster under load while its processes are killed, stopped, restarted and ended."""

from __future__ import annotations

import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from cluster import DEADLINE, Cluster, Connection, in_time, until
from waiters import readable

from kache.errors import CommandError

NOT_EXECUTED = {"CLUSTERDOWN", "TRYAGAIN", "LOADING"}
UNCERTAIN = {"UNCERTAIN", "TIMEOUT"}
TIMEOUT_MS = 1500


class Load(threading.Thread):
    """Pipelines of ECHO, SET and GET until `stop`: checks that every command gets its own reply, in order."""

    def __init__(self, port: int, keys: list[str], depth: int = 200) -> None:
        super().__init__(daemon=True)
        self.port, self.keys, self.depth = port, keys, depth
        self.codes: Counter[str] = Counter()
        self.answered = self.closed = self.refused = 0
        self.wrong: list[str] = []
        self.going = True

    def run(self) -> None:
        source = random.Random(len(self.keys))
        while self.going:
            try:
                connection = Connection(self.port)
            except ConnectionRefusedError:
                self.refused += 1
                time.sleep(0.01)
                continue
            except OSError:
                continue
            with connection:
                try:
                    while self.going:
                        self._round(connection, source)
                except TimeoutError:
                    self.wrong.append("no reply in 20 s")
                    return
                except (ConnectionError, OSError):
                    self.closed += 1

    def _round(self, connection: Connection, source: random.Random) -> None:
        marks = [f"{source.getrandbits(40)}" for _ in range(self.depth)]
        commands: list[tuple[Any, ...]] = []
        for mark in marks:
            key = source.choice(self.keys)
            commands += [("set", key, mark), ("get", key), ("echo", mark)]
        connection.send(*commands)
        for mark in marks:
            self._check(connection.read(), "OK")
            self._check(connection.read(), None)
            self._check(connection.read(), mark.encode())

    def _check(self, reply: Any, wanted: object) -> None:
        if isinstance(reply, CommandError):
            self.codes[reply.code] += 1
            if reply.code not in NOT_EXECUTED | UNCERTAIN:
                self.wrong.append(reply.message)
        elif (wanted is not None and reply != wanted) or (wanted is None and not isinstance(reply, bytes | None)):
            self.wrong.append(f"{reply!r} instead of {wanted!r}")
        self.answered += 1

    def stop(self) -> None:
        self.going = False
        self.join(30)
        assert not self.is_alive()


def under_load(cluster: Cluster, keys: list[list[str]], fault: Callable[[], None]) -> list[Load]:
    """Run `fault` while one client per list of keys works; returns the clients, stopped and checked."""
    loads = [Load(cluster.port, mine) for mine in keys]
    for load in loads:
        load.start()
    until(lambda: all(load.answered > 1000 for load in loads), "load")
    try:
        fault()
        counts = [load.answered for load in loads]
        until(lambda: all(load.answered > count + 1000 for load, count in zip(loads, counts, strict=True)), "more load")
    finally:
        for load in loads:
            load.stop()
    for load in loads:
        assert not load.wrong, load.wrong[:5]
        assert load.refused == 0
    return loads


def test_a_killed_shard_is_back_and_the_others_notice_nothing() -> None:
    with Cluster(4) as cluster:
        keys = cluster.keys_by_shard(20)
        took: list[float] = []

        def is_back() -> None:
            before = cluster.pid_of("shard", 1)
            started = time.monotonic()
            cluster.kill(before)

            def serves() -> bool:
                with cluster.connect() as connection:
                    return not isinstance(connection.request("get", keys[1][0]), CommandError)

            until(lambda: not serves() or cluster.pid_of("shard", 1) not in (0, before), "its end")
            until(serves, "its return")
            took.append(time.monotonic() - started)

        def fault() -> None:
            while len(took) < 3 or (min(took) >= 1.0 and len(took) < 6):  # a busy machine may hold up any one
                is_back()
            assert min(took) < 1.0, took

        loads = under_load(cluster, keys, fault)
        for index in (0, 2, 3):
            assert (loads[index].codes, loads[index].closed) == (Counter(), 0)
        assert loads[1].closed == 0
        assert cluster.child("shard", 1)["restarts"] == len(took)


def test_a_killed_router_is_back_and_no_connection_is_refused() -> None:
    with Cluster(2) as cluster:

        def fault() -> None:
            def answers() -> float:
                before = cluster.pid_of("router")
                started = time.monotonic()
                cluster.kill(before)
                assert cluster.request("ping") == "PONG"
                took = time.monotonic() - started
                cluster.replaced("router", 0, before)
                return took

            in_time(answers, 2.0)

        loads = under_load(cluster, cluster.keys_by_shard(20), fault)
        assert all(load.closed >= 1 for load in loads)
        assert all(not load.codes for load in loads)


def test_rolling_restart_under_load() -> None:
    with Cluster(3) as cluster:
        keys = cluster.keys_by_shard(20)
        loads = under_load(cluster, keys, lambda: cluster.kache("cluster", "restart", "--yes") and None)
        for load in loads:
            assert set(load.codes) <= NOT_EXECUTED, load.codes
        assert all(child["restarts"] == 1 for child in cluster.status()["children"])


def test_sigterm_under_load_answers_what_is_in_flight() -> None:
    with Cluster(2) as cluster:
        connection = cluster.connect()
        keys = [key for mine in cluster.keys_by_shard(50) for key in mine]
        connection.send(*[("set", key, "x") for key in keys])
        for _ in keys:
            assert connection.read() == "OK"
        connection.send(*[("append", key, "y") for key in keys])
        until(lambda: cluster.request("strlen", keys[-1]) == 2, "the pipeline's arrival")
        started = time.monotonic()
        cluster.process.send_signal(signal.SIGTERM)
        replies = [connection.read() for _ in keys]
        assert replies == [2] * len(keys)
        with pytest.raises(ConnectionError):
            connection.read()
        connection.close()
        assert cluster.process.wait(DEADLINE) == 0
        assert time.monotonic() - started < 10


def test_half_close_gets_all_replies_then_the_end() -> None:
    with Cluster(4) as cluster, cluster.connect() as connection:
        connection.send(*[("set", f"key:{n}", n) for n in range(1000)], *[("get", f"key:{n}") for n in range(1000)])
        connection.socket.shutdown(socket.SHUT_WR)
        assert [connection.read() for _ in range(2000)] == ["OK"] * 1000 + [b"%d" % n for n in range(1000)]
        with pytest.raises(ConnectionError):
            connection.read()


def test_a_hundred_thousand_commands_in_one_send() -> None:
    count = 100_000
    with Cluster(4) as cluster, cluster.connect() as connection:
        commands = [("incr", f"key:{n % 1000}") for n in range(count)]
        sender = threading.Thread(target=connection.send, args=commands)
        sender.start()
        assert [connection.read_many(1000) for _ in range(count // 1000)] == [
            [n + 1] * 1000 for n in range(count // 1000)
        ]
        sender.join()


def test_a_stopped_shard_times_out_alone() -> None:
    with Cluster(2, request_timeout_ms=TIMEOUT_MS) as cluster:
        keys = cluster.keys_by_shard(1)
        stopped = cluster.pid_of("shard", 0)
        with cluster.connect() as slow, cluster.connect() as fast:
            assert slow.request("set", keys[0][0], "first") == "OK"

            def times_out() -> float:
                cluster.kill(stopped, signal.SIGSTOP)
                try:
                    started = time.monotonic()
                    slow.send(("incr", "x"), ("get", keys[0][0]), ("get", keys[1][0]))
                    assert fast.request("set", keys[1][0], "v") == "OK"
                    replies = [slow.read() for _ in range(3)]
                    spent = time.monotonic() - started
                    assert replies[1].code == "TIMEOUT"
                    assert spent > 0.8 * TIMEOUT_MS / 1000
                    assert fast.request("get", keys[1][0]) == b"v"
                finally:
                    cluster.kill(stopped, signal.SIGCONT)
                until(lambda: not isinstance(slow.request("get", keys[0][0]), CommandError), "its recovery")
                return spent

            in_time(times_out, 1.2 * TIMEOUT_MS / 1000)
            # No late reply may reach another request.
            until(lambda: not isinstance(slow.request("get", keys[0][0]), CommandError), "its recovery")
            assert slow.request("get", keys[0][0]) == b"first"
            assert [slow.request("echo", n) for n in range(50)] == [b"%d" % n for n in range(50)]


def fill(connection: Connection, key: str, elements: int) -> tuple[str, ...]:
    """A list on the shard of `key`, and the command that sorts it by what does not exist, which takes its time."""
    for _ in range(elements // 50_000):
        connection.request("rpush", f"{{{key}}}list", *range(50_000))
    return ("sort", f"{{{key}}}list", "by", f"{{{key}}}*->weight", "limit", "0", "1")


def test_a_command_at_work_is_never_told_timeout() -> None:
    """One that takes longer than the request timeout is answered; one behind it, which was not begun, is not kept waiting."""
    with Cluster(2, request_timeout_ms=300) as cluster:
        key = cluster.keys_by_shard(1)[0][0]
        with cluster.connect() as long, cluster.connect() as short:
            command = fill(long, key, 2_000_000)

            def told_in_time() -> bool:
                """Whether it was at work when it was heard that what is behind it had timed out: who looks late has missed that."""
                started = time.monotonic()
                long.send(command)
                time.sleep(0.1)  # it has begun: no event says so
                behind = short.request("get", key)
                waited = time.monotonic() - started
                seen = not readable(long)
                assert long.read() == [b"0"]
                if time.monotonic() - started < 0.8:
                    fill(long, key, 1_000_000)  # too short to show anything
                    return False
                assert behind is None or behind.code == "TIMEOUT"
                assert behind is None or waited > 0.35
                return seen and behind is not None

            until(told_in_time, "a TIMEOUT while the command before is at work")
            until(lambda: short.request("get", key) is None, "it is served again")


def test_a_shard_stopped_at_work_times_out() -> None:
    with Cluster(2, request_timeout_ms=300) as cluster:
        key = cluster.keys_by_shard(1)[0][0]
        with cluster.connect() as connection:
            command = fill(connection, key, 2_000_000)
            stopped = cluster.pid_of("shard", 0)

            def times_out() -> bool:
                """Whether it was stopped at work: who is late stops it when it has done all."""
                connection.send(command)
                time.sleep(0.4)  # past the deadline, at work: no event says so
                cluster.kill(stopped, signal.SIGSTOP)
                try:
                    started = time.monotonic()
                    reply = connection.read()
                    if reply == [b"0"]:
                        return False
                    assert reply.code == "TIMEOUT"
                    assert time.monotonic() - started > 0.5
                    return True
                finally:
                    cluster.kill(stopped, signal.SIGCONT)

            until(times_out, "a TIMEOUT of a shard that is stopped at work")
            until(lambda: not isinstance(connection.request("get", key), CommandError), "its recovery")


def test_config_set_reaches_every_process_and_outlives_restarts() -> None:
    with Cluster(2, maxmemory="100mb") as cluster:
        assert cluster.request("config", "set", "maxmemory", "200mb", "maxmemory-policy", "noeviction") == "OK"
        cluster.kill(cluster.pid_of("shard", 1))
        until(lambda: cluster.child("shard", 1)["restarts"] == 1 and cluster.child("shard", 1)["state"] == "up", "it")
        cluster.kill(cluster.pid_of("router"))
        settings = cluster.request("config", "get", "maxmemory*")
        found = dict(zip(settings[::2], settings[1::2], strict=True))
        assert found[b"maxmemory"] == b"209715200"
        assert found[b"maxmemory-policy"] == b"noeviction"
