"""A cluster over files that are already there: they are loaded, again after every end, and refused where they are damaged."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from cluster import Cluster, until
from log_files import CLUSTER, SEED, Record, Written, counted, write_directory

from kache.errors import CommandError
from kache.shard.log import directory
from kache.shard.log import format as log_format
from kache.shard.log.directory import ClusterFile, shard_directory
from kache.shard.log.files import Files
from kache.slots import contiguous, owners, slot_of_key

SHARDS = 2
OWNER = owners(contiguous(SHARDS), SHARDS)


def data(path: Path, keys: int, *, padding: int = 0) -> dict[str, str]:
    """A data directory of a cluster with so many keys, one a frame; what they are."""
    values = {f"key:{number}": f"value {number}" + "." * padding for number in range(keys)}
    logs = [Written(log_format.LOG, 1, 1, shard=shard, shards=SHARDS) for shard in range(SHARDS)]
    for key, value in values.items():
        log = logs[OWNER[slot_of_key(key.encode())]]
        record = bytes([8]) + counted(key.encode()) + counted(value.encode())
        log.frames.append(Record(log_format.EFFECTS, len(log.frames) + 1, time.time_ns() // 1_000_000, record))
    for shard, log in enumerate(logs):
        write_directory(Path(shard_directory(str(path), 1, shard)), [], [log])
    directory.write_cluster(Files(), str(path), ClusterFile(CLUSTER, SEED, 1, SHARDS, tuple(contiguous(SHARDS))))
    return values


def contents(cluster: Cluster, values: dict[str, str]) -> dict[str, str]:
    with cluster.connect() as connection:
        found = connection.request("mget", *values)
    return {key: value.decode() for key, value in zip(values, found, strict=True) if value is not None}


def test_what_is_there_is_loaded_and_again_when_a_shard_dies(tmp_path: Path) -> None:
    values = data(tmp_path, 300)
    with Cluster(SHARDS, dir=tmp_path) as cluster:
        assert contents(cluster, values) == values
        pid = cluster.pid_of("shard", 0)
        cluster.kill(pid)
        cluster.replaced("shard", 0, pid)
        cluster.serves()
        assert contents(cluster, values) == values
        assert "loaded " in cluster.log()


def test_clients_are_told_that_it_loads(tmp_path: Path) -> None:
    values = data(tmp_path, 60_000, padding=200)
    with Cluster(SHARDS, dir=tmp_path) as cluster:
        assert len(contents(cluster, dict(list(values.items())[:50]))) == 50
        key = next(key for key in values if OWNER[slot_of_key(key.encode())] == 0)
        seen = set()
        with cluster.connect() as connection:

            def is_back() -> bool:
                reply = connection.request("get", key)
                if isinstance(reply, CommandError):
                    seen.add(str(reply).split()[0])
                    seen.add(" ".join(str(connection.request("ready")).split()[:3]))
                return bool(reply == values[key].encode())

            for _ in range(5):  # loading takes a moment, in which a busy machine may not look
                pid = cluster.pid_of("shard", 0)
                cluster.kill(pid)
                until(lambda pid=pid: is_back() and cluster.pid_of("shard", 0) not in (0, pid), "the value")
                if {"LOADING", "NOTREADY shard 0"} <= seen:
                    break
        assert {"LOADING", "NOTREADY shard 0"} <= seen


def test_a_damaged_log_is_told_and_the_others_serve(tmp_path: Path) -> None:
    values = data(tmp_path, 100)
    path = Path(shard_directory(str(tmp_path), 1, 1)) / "000001.log"
    whole = path.read_bytes()
    path.write_bytes(whole[:20] + bytes([whole[20] ^ 1]) + whole[21:])
    with Cluster(SHARDS, dir=tmp_path, restart_backoff_ms=200) as cluster:
        assert f"shard 1 is down: exited with status 1: The header of {path} is damaged." in cluster.ready_line
        mine = {key: value for key, value in values.items() if OWNER[slot_of_key(key.encode())] == 0}
        assert contents(cluster, mine) == mine
        assert "is damaged" in cluster.child("shard", 1)["reason"]
        said, restarts = set(), cluster.child("shard", 1)["restarts"]
        with cluster.connect() as connection:
            while cluster.child("shard", 1)["restarts"] < restarts + 2:  # it is tried again meanwhile
                refused = connection.request("get", next(iter(set(values) - set(mine))))
                assert isinstance(refused, CommandError)
                said.add(str(refused).split("(")[0])
                # UNCERTAIN: it ended when it had the command.
                assert str(refused).startswith(("LOADING", "UNCERTAIN")) or "is damaged" in str(refused)
        assert any("is down" in each for each in said)
        log = cluster.log()
        assert "Traceback" not in log and "shard 0 is up" in log and "shard 1 is up" not in log
        path.write_bytes(whole)
        until(lambda: cluster.child("shard", 1)["state"] == "up", "it is there again")
        assert "shard 1 is up" in cluster.log()
        cluster.serves()
        assert contents(cluster, values) == values


def test_a_torn_end_is_left_out_with_a_warning_or_refused(tmp_path: Path) -> None:
    values = data(tmp_path, 100)
    path = Path(shard_directory(str(tmp_path), 1, 0)) / "000001.log"
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 3)
    with Cluster(SHARDS, dir=tmp_path, aof_load_truncated="no", restart_backoff_ms=100) as cluster:
        assert "shard 0 is down" in cluster.ready_line and "check-aof" in cluster.ready_line
    with Cluster(SHARDS, dir=tmp_path) as cluster:
        assert len(contents(cluster, values)) == 99
        assert f"{path} ends at byte" in cluster.log()
    with Cluster(SHARDS, dir=tmp_path, aof_load_truncated="no") as cluster:
        assert len(contents(cluster, values)) == 99  # it was told once, and noted


def test_two_clusters_cannot_have_one_directory(tmp_path: Path) -> None:
    data(tmp_path, 10)
    with Cluster(SHARDS, dir=tmp_path) as cluster:
        second = Cluster(SHARDS, dir=tmp_path)
        with pytest.raises(AssertionError, match=rf"is in use by another process \(pid {cluster.process.pid}\)"):
            second.__enter__()
        os.kill(cluster.process.pid, signal.SIGKILL)
        cluster.process.wait()
        with Cluster(SHARDS, dir=tmp_path) as again:
            assert again.request("get", "key:1") == b"value 1"
        shutil.rmtree(cluster.directory / "run")  # a killed supervisor leaves it to the next on its port


def test_the_hash_seed_outlives_the_cluster(tmp_path: Path) -> None:
    """A cursor of SCAN from before a restart still means what it meant."""
    values = data(tmp_path, 200)

    def walk(cluster: Cluster, cursor: bytes, most: int) -> tuple[bytes, list[bytes]]:
        found: list[bytes] = []
        with cluster.connect() as connection:
            while len(found) < most:
                cursor, keys = connection.request("scan", cursor, "count", 10)
                found += keys
                if cursor == b"0":
                    break
        return cursor, found

    with Cluster(SHARDS, dir=tmp_path) as cluster:
        cursor, before = walk(cluster, b"0", 100)
    with Cluster(SHARDS, dir=tmp_path) as cluster:
        _, after = walk(cluster, cursor, 1000)
    assert {key.decode() for key in before + after} == set(values) and len(before + after) == len(values)
