"""Faults on demand: each does what it says, nothing else, and is over when it is."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import DEADLINE, until

from kache import Client
from kache.client import CommandError, OutOfMemoryError, RequestTimeoutError, UnavailableError
from kache.testing import ClusterFailed, LocalCluster


@pytest.fixture(scope="module")
def shared() -> Iterator[LocalCluster]:
    with LocalCluster(shards=3, routers=2) as running:
        yield running


@pytest.fixture
def cluster(shared: LocalCluster) -> LocalCluster:
    shared.reset()
    return shared


@pytest.fixture
def cache(cluster: LocalCluster) -> Client[bytes]:
    return cluster.client()


@pytest.fixture
def keys(cluster: LocalCluster) -> list[str]:
    """One of every shard."""
    return [cluster.keys_on(shard)[0] for shard in range(3)]


def test_a_killed_shard_comes_back_empty(cluster: LocalCluster, cache: Client[bytes], keys: list[str]) -> None:
    cache.mset(dict.fromkeys(keys, "v"))
    cluster.fault.kill(shard=1)
    assert cache.mget(*keys) == [b"v", None, b"v"]
    assert cache.set(keys[1], "again")


def test_a_shard_that_stays_down(cluster: LocalCluster, cache: Client[bytes], keys: list[str]) -> None:
    with cluster.fault.kill(shard=1, restart=False):
        for _ in range(3):
            with pytest.raises(UnavailableError, match="CLUSTERDOWN shard 1 is down"):
                cache.set(keys[1], "v")
        assert cache.set(keys[0], "v") and cache.set(keys[2], "v")
        time.sleep(1.2)  # the supervisor looks after its children once a second
        with pytest.raises(UnavailableError):
            cache.get(keys[1])
    assert cache.set(keys[1], "v")


def test_a_killed_router(cluster: LocalCluster, cache: Client[bytes]) -> None:
    for index in range(2):
        cluster.fault.kill(router=index)
    assert cache.ping()


def test_a_stopped_shard_goes_on(cluster: LocalCluster, cache: Client[bytes], keys: list[str]) -> None:
    with cluster.fault.stop(shard=0):
        with pytest.raises(RequestTimeoutError):
            cache.execute("set", keys[0], "late", timeout=0.2)
        assert cache.set(keys[1], "v")
    assert cache.get(keys[0]) in (None, b"late")
    assert cache.set(keys[0], "v")


def sometimes(call: Callable[[], object], below: float) -> None:
    """It takes less than so many seconds, if not every time: a busy machine may hold up any one."""

    def quick() -> bool:
        began = time.monotonic()
        call()
        return time.monotonic() - began < below

    until(quick, f"less than {below} s")


def test_slow_replies_keep_their_order(cluster: LocalCluster, cache: Client[bytes], keys: list[str]) -> None:
    def took() -> float:
        began = time.monotonic()
        pipeline = cache.pipeline()
        for number in range(300):
            pipeline.set(keys[2], number).get(keys[2])
        assert pipeline.execute()[1::2] == [b"%d" % number for number in range(300)]
        return time.monotonic() - began

    with cluster.fault.slow(2, ms=200):
        assert took() >= 0.2
        sometimes(lambda: cache.get(keys[0]), 0.15)
        with cluster.fault.slow(ms=400):
            assert took() >= 0.4
        cache.set(keys[2], bytes(3_000_000))
        assert cache.strlen(keys[2]) == 3_000_000
    sometimes(took, 0.2)
    assert cache.set(keys[2], bytes(3_000_000)) and len(cache.get(keys[2]) or b"") == 3_000_000


def test_large_slow_replies_are_whole(cluster: LocalCluster, cache: Client[bytes], keys: list[str]) -> None:
    value = bytes(range(256)) * 40_000
    cache.set(keys[0], value)
    with cluster.fault.slow(0, ms=20):
        assert cache.get(keys[0]) == value
        assert cache.mget(*keys) == [value, None, None]


def test_what_is_late_when_the_fault_ends_still_comes(
    cluster: LocalCluster, cache: Client[bytes], keys: list[str]
) -> None:
    import threading

    replies: list[object] = []
    fault = cluster.fault.slow(0, ms=60_000)
    thread = threading.Thread(target=lambda: replies.append(cache.set(keys[0], "v")))
    thread.start()
    watcher = cluster.client()
    until(lambda: b"cmd=set" in watcher.execute("client", "list"), "the command is sent")
    fault.end()
    thread.join(DEADLINE)
    assert replies == [True]


def test_refused_writes(cluster: LocalCluster, cache: Client[bytes], keys: list[str]) -> None:
    cache.mset(dict.fromkeys(keys, "v"))
    with cluster.fault.refuse_writes():
        for command in (
            ("set", keys[0], "x"), ("del", keys[0]), ("expire", keys[1], 1), ("incr", "n"), ("mset", keys[0], 1, keys[1], 2),
            ("rename", keys[0], keys[1]), ("copy", keys[0], keys[1], "replace"), ("flushall",), ("getdel", keys[2]),
        ):  # fmt: skip
            with pytest.raises(UnavailableError, match="MISCONF"):
                cache.execute(*command)
        assert cache.mget(*keys) == [b"v"] * 3 and cache.dbsize() == 3
    assert cache.rename(keys[0], keys[1])


def test_one_shard_refuses_with_an_error_of_choice(
    cluster: LocalCluster, cache: Client[bytes], keys: list[str]
) -> None:
    with cluster.fault.refuse_writes(1, error="OOM command not allowed when used memory > 'maxmemory'."):
        with pytest.raises(OutOfMemoryError):
            cache.set(keys[1], "v")
        assert cache.set(keys[0], "v")
        cluster.fault.kill(shard=1)  # whoever takes its place plays its part
        with pytest.raises(OutOfMemoryError):
            cache.set(keys[1], "v")
    assert cache.set(keys[1], "v")


def test_several_at_once_and_clear(cluster: LocalCluster, cache: Client[bytes], keys: list[str]) -> None:
    cluster.fault.stop(shard=0)
    cluster.fault.kill(shard=1, restart=False)
    cluster.fault.slow(2, ms=100)
    cluster.fault.refuse_writes(2)
    cluster.advance(hours=1)  # whoever cannot listen does not hold it up
    with pytest.raises(CommandError, match="MISCONF"):
        cache.set(keys[2], "v")
    cluster.fault.clear()
    assert not cluster.fault.active
    sometimes(lambda: [cache.set(key, "v", ex=60) for key in keys], 0.1)
    cluster.advance(minutes=1)
    assert cache.dbsize() == 0


def test_wrong_faults(cluster: LocalCluster) -> None:
    with pytest.raises(ValueError, match="there is no shard 9: the cluster has 3 shards, the first is 0"):
        cluster.fault.kill(shard=9)
    with pytest.raises(ValueError, match="there is no router 5"):
        cluster.fault.stop(router=5)
    with pytest.raises(TypeError, match="say which process"):
        cluster.fault.kill()
    with pytest.raises(ValueError, match="ms must be above 0"):
        cluster.fault.slow(0, ms=0)
    with pytest.raises(TypeError, match="whole number of milliseconds"):
        cluster.fault.slow(0, ms=1.5)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(ValueError, match="an error is one line"):
        cluster.fault.refuse_writes(error="two\nlines")
    with pytest.raises(TypeError, match="by its index"):
        cluster.fault.slow("router", ms=5)  # type: ignore[arg-type]  # that is the point
    assert not cluster.fault.active


def test_a_cluster_that_cannot_start_says_why() -> None:
    with pytest.raises(ClusterFailed, match="maxmemory must be a size"):
        LocalCluster(maxmemory="much").start()
    with pytest.raises(ClusterFailed, match="No such option '--colour'"):
        LocalCluster(colour="blue").start()


def test_what_is_kept_survives_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with LocalCluster(shards=2, appendonly=True) as cluster:
        cache, key = cluster.client(), cluster.keys_on(1)[0]
        cache.set(key, "kept")
        cluster.fault.kill(shard=1)
        assert cache.get(key) == b"kept"
        [directory] = tmp_path.iterdir()
        assert (directory / "cluster").is_file()
    assert not list(tmp_path.iterdir())


def test_a_directory_of_the_test_outlives_its_cluster(tmp_path: Path) -> None:
    for shards, before in ((2, None), (3, b"kept")):
        with LocalCluster(shards=shards, appendonly=True, dir=tmp_path) as cluster:
            assert cluster.client().get("key") == before
            cluster.client().set("key", "kept")


def test_a_fork_does_not_direct(cluster: LocalCluster) -> None:
    program = (
        "import os, sys\n"
        "from kache.testing import LocalCluster, ClusterFailed\n"
        "with LocalCluster(shards=1) as cluster:\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        try:\n"
        "            cluster.advance(hours=1)\n"
        "        except ClusterFailed as error:\n"
        "            os._exit(7)\n"
        "        os._exit(0)\n"
        "    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7\n"
        "    cluster.advance(hours=1)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
