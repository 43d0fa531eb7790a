"""Somebody sets the clock of the machine: nothing expires early, nor later than the cluster slews after the wall clock."""

from __future__ import annotations

import itertools
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, Connection, until
from preloaded import Preloaded

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the stepped clock is preloaded"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="the stepped clock is compiled here"),
]

HOUR_MS = 3_600_000
SLEW = 1.02
"""How fast the cluster's time may pass while it makes up for a step (10 ms a second), with some for the measurement."""
LATE_MS = 20_000
"""By which an expired key may be noticed late, on a busy machine; a step that counted would be an hour."""


class StepClock(Preloaded):
    """The wall clock of the cluster's processes: `step` sets it so many milliseconds off."""

    def __init__(self, folder: Path) -> None:
        super().__init__(Path(__file__).with_name("clock_shim.c"), folder, "KACHE_TEST_CLOCK", bytes(8))

    def step(self, milliseconds: int) -> None:
        self.set(milliseconds.to_bytes(8, sys.byteorder, signed=True))


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> StepClock:
    return StepClock(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="module")
def stepped(clock: StepClock) -> Iterator[Cluster]:
    with Cluster(2, environment=clock.environment()) as running:
        yield running


def server_ms(connection: Connection) -> int:
    seconds, micros = connection.request("time")
    return int(seconds) * 1000 + int(micros) // 1000


def test_the_clock_of_the_test_is_the_one_that_is_looked_at(clock: StepClock, stepped: Cluster) -> None:
    """A cluster that starts behind a step has its time."""
    clock.step(HOUR_MS)
    try:
        with Cluster(1, environment=clock.environment()) as late, late.connect() as connection:
            before = time.time() * 1000
            found = server_ms(connection) - HOUR_MS
            assert before - 1000 < found < time.time() * 1000 + 1000
    finally:
        clock.step(0)


@pytest.mark.parametrize("step", [HOUR_MS, -HOUR_MS])
def test_a_step_of_an_hour(clock: StepClock, stepped: Cluster, step: int) -> None:
    lives_ms = 2500
    with stepped.connect() as connection:
        keys = [key for keys in stepped.keys_by_shard(2) for key in keys]
        began = time.monotonic()
        for key in keys:
            assert connection.request("set", key, "v", "px", lives_ms) == "OK"
            assert connection.request("hset", f"h{key}", "f", "v") == 1
            assert connection.request("hpexpire", f"h{key}", lives_ms, "fields", 1, "f") == [1]
        written = time.monotonic()
        clock.step(step)
        try:
            seen = alive(connection, keys)
            while time.monotonic() - began < lives_ms / 1000 / SLEW:
                assert seen == 2 * len(keys), f"gone {time.monotonic() - began:.2f} s after it was written"
                seen = alive(connection, keys)
                # Of what was asked before the deadline the answer may have come behind it.
                if time.monotonic() - began >= lives_ms / 1000 / SLEW:
                    break
            until(lambda: alive(connection, keys) == 0, "the end of all keys")
            assert time.monotonic() - written < lives_ms / 1000 * SLEW + LATE_MS / 1000
            assert until(lambda: connection.request("dbsize") == 0, "nothing in memory either")
        finally:
            clock.step(0)


def alive(connection: Connection, keys: list[str]) -> int:
    connection.send(*[("exists", key) for key in keys], *[("hexists", f"h{key}", "f") for key in keys])
    return sum(connection.read_many(2 * len(keys)))


def test_the_wall_clock_is_made_up_for_slowly(clock: StepClock, stepped: Cluster) -> None:
    with stepped.connect() as connection:
        earliest = time.monotonic()
        before, latest = server_ms(connection), time.monotonic()
        clock.step(-HOUR_MS)
        try:
            until(lambda: "differs by" in stepped.log(), "the step is noticed")
            for _ in range(20):
                time.sleep(0.05)  # time itself is measured here
                least = (time.monotonic() - latest) * 1000
                passed = server_ms(connection) - before
                most = (time.monotonic() - earliest) * 1000
                assert least * (2 - SLEW) - 50 < passed < most * SLEW + 50
        finally:
            clock.step(0)


@pytest.mark.parametrize("step", [HOUR_MS, -HOUR_MS])
def test_the_second_of_everysec_is_not_one_of_the_wall_clock(clock: StepClock, tmp_path: Path, step: int) -> None:
    def unsynced(connection: Connection) -> bool:
        return b"aof_pending_bio_fsync:0\r\n" not in connection.request("info", "persistence")

    options = {"dir": tmp_path, "appendonly": "yes", "appendfsync": "everysec"}
    with Cluster(1, environment=clock.environment(), **options) as cluster, cluster.connect() as connection:
        clock.step(step)
        try:
            for number in range(3):
                assert connection.request("set", f"key:{number}", "v") == "OK"
                until(lambda: not unsynced(connection), "what was written is synced")
        finally:
            clock.step(0)


@pytest.mark.parametrize("step", [HOUR_MS, -HOUR_MS])
def test_dumps_come_when_they_are_due_behind_a_step(clock: StepClock, tmp_path: Path, step: int) -> None:
    """A log that has grown is written anew, and the seconds of a save point are none of the wall clock."""
    options = {"dir": tmp_path, "appendonly": "yes", "auto_aof_rewrite_min_size": "20kb"}
    with Cluster(1, environment=clock.environment(), **options) as cluster, cluster.connect() as connection:
        clock.step(step)
        try:
            for number in range(40):
                assert connection.request("set", f"key:{number}", "v" * 1000) == "OK"
            until(
                lambda: "rewriting" in cluster.log() and "dumped 40 keys" in cluster.log(),
                "the log is written anew",
            )
            assert connection.request("config", "set", "auto-aof-rewrite-percentage", 0, "save", "2 10") == "OK"
            numbers = itertools.count()

            def saves() -> bool:
                # How many of them it counts depends on what it has heard of the dump before.
                assert connection.request("set", f"more:{next(numbers)}", "v") == "OK"
                return "dumped" in cluster.log().partition(" s: saving")[2]

            until(saves, "a snapshot")
            assert abs(connection.request("lastsave") * 1000 - server_ms(connection)) < 60_000
        finally:
            clock.step(0)


def test_lives_a_year_apart_in_either_order(clock: StepClock, tmp_path: Path) -> None:
    """What was written is there whenever it is read; what has a deadline goes by the clock of who reads it."""
    year = 365 * 24 * HOUR_MS
    options = {"dir": tmp_path, "appendonly": "yes", "environment": clock.environment()}
    try:
        clock.step(year)
        with Cluster(1, **options) as cluster, cluster.connect() as connection:
            connection.send(
                ("set", "hour", "v", "px", HOUR_MS), ("hset", "h", "f", 1), ("hpexpire", "h", HOUR_MS, "fields", 1, "f")
            )
            assert connection.read_many(3) == ["OK", 1, [1]]
            deadline = connection.request("pexpiretime", "hour")
            assert connection.request("incr", "lives") == 1
        clock.step(0)
        with Cluster(1, **options) as cluster, cluster.connect() as connection:
            assert connection.request("pexpiretime", "hour") == deadline
            assert connection.request("incr", "lives") == 2
            assert connection.request("append", "hour", "w") == 2
        clock.step(year + 2 * HOUR_MS)
        with Cluster(1, **options) as cluster, cluster.connect() as connection:
            assert connection.request("mget", "hour", "lives") == [None, b"2"]
            assert connection.request("hget", "h", "f") is None
            assert connection.request("append", "hour", "new") == 3
        clock.step(0)
        with Cluster(1, **options) as cluster, cluster.connect() as connection:
            assert connection.request("get", "hour") == b"new"
    finally:
        clock.step(0)
