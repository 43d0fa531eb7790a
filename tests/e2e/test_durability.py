"""What is kept over kills, restarts and shutdowns, as clients and operators meet it."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cluster import DEADLINE, Cluster, alive, kill_everything, until

from kache.errors import CommandError
from kache.shard.log import directory
from kache.shard.log.files import Files

pytestmark = pytest.mark.once

FILL: list[tuple[object, ...]] = [
    ("set", "string", "a b:c\n\0\xff"),
    ("set", "", "the empty key"),
    ("set", "Schlüssel 鍵", "Wert"),
    ("append", "raw", "x" * 100),
    ("set", "soon", "gone", "px", 1500),
    ("set", "later", "there", "ex", 5000),
    ("rpush", "list", *range(300)),
    ("hset", "hash", "f", "v", "g", "w"),
    ("hpexpire", "hash", 5_000_000, "fields", 1, "f"),
    ("sadd", "set", *range(200)),
    ("zadd", "zset", "-inf", "least", "1.5", "m", "inf", "most"),
    ("pfadd", "hll", *range(100)),
    ("setbit", "bits", 77, 1),
    ("geoadd", "geo", "13.361389", "38.115556", "Palermo"),
]

READ: list[tuple[object, ...]] = [
    ("get", "string"), ("get", ""), ("get", "Schlüssel 鍵"), ("get", "raw"), ("object", "encoding", "raw"), ("get", "later"),
    ("lrange", "list", 0, -1), ("hget", "hash", "f"), ("hget", "hash", "g"), ("scard", "set"), ("sismember", "set", 7),
    ("zrange", "zset", 0, -1, "withscores"), ("pfcount", "hll"), ("bitpos", "bits", 1), ("geohash", "geo", "Palermo"),
]  # fmt: skip


def contents(cluster: Cluster) -> list[Any]:
    with cluster.connect() as connection:
        connection.send(*READ)
        return connection.read_many(len(READ))


def fill(cluster: Cluster) -> None:
    for command in FILL:
        cluster.request(*command)


@pytest.mark.parametrize("policy", ["always", "everysec", "no"])
def test_every_type_survives_a_kill_of_everything(tmp_path: Path, policy: str) -> None:
    cluster = Cluster(3, dir=tmp_path, appendonly="yes", appendfsync=policy)
    cluster.start()
    try:
        fill(cluster)
        before = contents(cluster)
        kill_everything(cluster)
    finally:
        cluster._clean()
    with Cluster(3, dir=tmp_path, appendonly="yes") as again:
        assert contents(again) == before
        assert 0 < again.request("ttl", "later") <= 5000
        assert again.request("hpttl", "hash", "fields", 1, "f")[0] > 4_000_000
        until(lambda: again.request("exists", "soon") == 0, "its deadline")


def test_a_killed_shard_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """Unique values under kills: what was answered is there, once; the rest is there once or not at all."""
    draw = random.Random(11)
    with Cluster(2, dir=tmp_path, appendonly="yes", appendfsync="always") as cluster:
        acknowledged: set[str] = set()
        unsure: set[str] = set()
        kills, number = 0, 0
        began = time.monotonic()
        connection = cluster.connect()
        next_kill = time.monotonic() + 0.5
        # At least six seconds; on a busy machine as long as the kills and their answers take.
        while time.monotonic() < began + 6 or kills < 4 or len(acknowledged) <= 500:
            assert time.monotonic() < began + 90, (kills, len(acknowledged))
            if time.monotonic() > next_kill:
                shard = draw.randrange(2)
                killed = cluster.pid_of("shard", shard)
                if killed:  # else it is not back from the kill before
                    cluster.kill(killed)
                    kills += 1
                next_kill = time.monotonic() + 1
            batch = [("rpush", f"list:{draw.randrange(8)}", f"value {number + n}") for n in range(20)]
            number += 20
            connection.send(*batch)
            for (_, _, value), reply in zip(batch, connection.read_many(20), strict=True):
                (unsure if isinstance(reply, CommandError) else acknowledged).add(value)
        connection.close()
        until(lambda: all(child["state"] == "up" for child in cluster.status()["children"]), "all up")
        cluster.serves()
        found: list[str] = []
        for key in range(8):
            found += [value.decode() for value in cluster.request("lrange", f"list:{key}", 0, -1)]
    assert kills >= 4 and len(acknowledged) > 500
    assert acknowledged - set(found) == set()
    assert len(found) == len(set(found)) and set(found) <= acknowledged | unsure


def test_the_log_can_be_switched_on_and_off(tmp_path: Path) -> None:
    """OK to appendonly yes means that a kill of everything costs nothing, of what was there before either."""
    cluster = Cluster(2, dir=tmp_path)
    cluster.start()
    try:
        assert os.listdir(tmp_path) == []
        fill(cluster)
        assert cluster.request("config", "set", "appendonly", "yes", "appendfsync", "always") == "OK"
        cluster.request("set", "after", "it")
        before = contents(cluster)
        kill_everything(cluster)
    finally:
        cluster._clean()
    with Cluster(2, dir=tmp_path, appendonly="yes") as again:
        assert contents(again) == before and again.request("get", "after") == b"it"
        assert again.request("config", "set", "appendonly", "no") == "OK"
        again.request("set", "after", "that")
    with Cluster(2, dir=tmp_path) as third:
        assert third.request("get", "after") == b"it"
        assert "nothing was logged since" in third.log()


def test_a_rolling_restart_loses_nothing(tmp_path: Path) -> None:
    with Cluster(2, dir=tmp_path, appendonly="yes") as cluster:
        fill(cluster)
        before = contents(cluster)
        assert cluster.kache("cluster", "restart").stdout.count("serves again") == 3
        cluster.serves()
        assert contents(cluster) == before
        assert {child["restarts"] for child in cluster.status()["children"]} == {1}


def test_save_keeps_what_is_there(tmp_path: Path) -> None:
    with Cluster(2, dir=tmp_path) as cluster:
        fill(cluster)
        started = cluster.request("lastsave")
        assert cluster.request("save") == "OK"
        assert cluster.request("lastsave") >= started
        before = contents(cluster)
        cluster.request("set", "after", "it")
        pid = cluster.pid_of("shard", 0)
        cluster.kill(pid)
        cluster.replaced("shard", 0, pid)
        cluster.serves()
        assert contents(cluster) == before
    with Cluster(2, dir=tmp_path) as again:
        assert contents(again) == before and again.request("get", "after") is None


def test_background_saves(tmp_path: Path) -> None:
    with Cluster(2, dir=tmp_path) as cluster, cluster.connect() as connection:
        fill(cluster)
        assert connection.request("bgsave") == "Background saving started"
        # From the moment on in which the round is over, of which INFO does not say when that is.
        until(lambda: connection.request("bgsave", "schedule") == "Background saving started", "the end of it")
        assert connection.request("bgsave", "other").message == "ERR syntax error"
        until(lambda: "not in progress" in str(connection.request("bgsave", "cancel")), "the end of the scheduled one")
        assert connection.request("bgrewriteaof") == "Background append only file rewriting started"
        fields = ("in_progress:1", "status:err")
        info = until(
            lambda: (lambda text: text if not any(field in text for field in fields) else None)(
                connection.request("info", "persistence").decode()
            ),
            "the end of it",
        )
        for field in ("rdb_last_bgsave_status:ok", "aof_last_bgrewrite_status:ok", "aof_enabled:0"):
            assert field in info


def test_one_that_cannot_be_saved_says_so(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with Cluster(2, dir=tmp_path / "data") as cluster, cluster.connect() as connection:
        connection.request("set", "k", "v")
        (tmp_path / "data").rmdir()
        (tmp_path / "data").write_text("no directory")
        for command in ("save", "bgsave"):
            assert connection.request(command).message.startswith("ERR ")
        until(lambda: b"rdb_last_bgsave_status:err" in connection.request("info", "persistence"), "shards know of it")
        assert b"rdb_changes_since_last_save:1\r\n" in connection.request("info", "persistence")
        assert "nothing can be saved: " in cluster.log()
        (tmp_path / "data").unlink()
        (tmp_path / "data").mkdir()
        assert connection.request("save") == "OK"
        assert b"rdb_last_bgsave_status:ok" in connection.request("info", "persistence")


def test_save_points_and_the_snapshot_at_the_end(tmp_path: Path) -> None:
    with Cluster(2, dir=tmp_path, save="1 5") as cluster:
        for number in range(4):
            cluster.request("set", f"k{number}", number)
        started = cluster.request("lastsave")
        for number in range(4, 20):
            cluster.request("set", f"k{number}", number)
        until(lambda: "changes in" in cluster.log() and "dumped" in cluster.log(), "a save by its points")
        assert cluster.request("lastsave") >= started
        cluster.request("set", "last", "one")
    with Cluster(2, dir=tmp_path) as again:
        assert again.request("get", "last") == b"one" and again.request("dbsize") == 21


@pytest.mark.parametrize(("word", "kept"), [("save", True), ("nosave", False)])
def test_shutdown_saves_if_asked(tmp_path: Path, word: str, kept: bool) -> None:
    with Cluster(2, dir=tmp_path, save="9999 9999") as cluster:
        cluster.request("set", "k", "v")
        with cluster.connect() as connection, pytest.raises(ConnectionError):
            connection.request("shutdown", word)
        assert cluster.process.wait(DEADLINE) == 0
    with Cluster(2, dir=tmp_path) as again:
        assert again.request("get", "k") == (b"v" if kept else None)


@pytest.mark.parametrize("words", [("shutdown",), ("shutdown", "save"), ("shutdown", "save", "force", "now")])
@pytest.mark.parametrize("appendonly", ["no", "yes"])
def test_a_connection_ends_when_the_files_are_complete(tmp_path: Path, words: tuple[str, ...], appendonly: str) -> None:
    (tmp_path / "data").mkdir()
    with Cluster(2, dir=tmp_path / "data", save="9999 9999", appendonly=appendonly) as cluster:
        with cluster.connect() as connection:
            connection.send(*[("set", f"key:{number}", "v" * 100) for number in range(5000)])
            connection.read_many(5000)
            shards = [cluster.pid_of("shard", index) for index in range(2)]
            with pytest.raises(ConnectionError):
                connection.request(*words)
            assert not any(alive(pid) for pid in shards)
            shutil.copytree(tmp_path / "data", tmp_path / "copy")
        assert cluster.process.wait(DEADLINE) == 0
    with Cluster(2, dir=tmp_path / "copy", appendonly=appendonly) as again:
        assert again.request("dbsize") == 5000


@pytest.mark.parametrize("words", [("shutdown",), ("shutdown", "save")])
def test_who_cannot_save_does_not_shut_down(tmp_path: Path, words: tuple[str, ...]) -> None:
    with Cluster(2, dir=tmp_path, save="9999 9999") as cluster, cluster.connect() as connection:
        connection.request("set", "k", "v")
        shutil.rmtree(tmp_path / "epoch-1" / "shard-0000")
        assert connection.request(*words).message == "ERR Errors trying to SHUTDOWN. Check logs."
        assert connection.request("get", "k") == b"v"
        assert "SHUTDOWN of 127.0.0.1:" in cluster.log()
        assert f" is refused: shard 0: {tmp_path}/epoch-1/shard-0000 cannot be used: " in cluster.log()
        with pytest.raises(ConnectionError):
            connection.request("shutdown", "nosave")
        assert cluster.process.wait(DEADLINE) == 0


def test_the_status_is_not_behind_what_was_answered(tmp_path: Path) -> None:
    with Cluster(2, dir=tmp_path, appendonly="yes") as cluster, cluster.connect() as connection:
        fill(cluster)
        for number in range(3):
            assert connection.request("config", "set", "appendonly", "no") == "OK"
            assert [cluster.child("shard", shard)["kept"]["state"] for shard in (0, 1)] == ["off", "off"]
            assert connection.request("set", "changed", number) == "OK"
            assert connection.request("save") == "OK"
            kept = [cluster.child("shard", shard)["kept"] for shard in (0, 1)]
            assert [(each["dump"], each["changes"]) for each in kept] == [("", 0), ("", 0)]
            assert connection.request("config", "set", "appendonly", "yes") == "OK"
            assert [cluster.child("shard", shard)["kept"]["state"] for shard in (0, 1)] == ["ok", "ok"]
        connection.request("config", "set", "appendonly", "no")
        for arguments, goes in (([], "The shards go"), (["--shard", "1"], "Shard 1 goes")):
            refused = cluster.kache("cluster", "restart", *arguments, check=False)
            assert refused.returncode == 2
            assert refused.stderr.startswith(
                f"kache: {goes} back to what is on disk: what was written since then will be forgotten (appendonly no, no "
                "save points). Say --yes"
            )


def test_debug_reload_is_for_tests(tmp_path: Path) -> None:
    with Cluster(1) as cluster, pytest.raises(CommandError, match="DEBUG command not allowed"):
        cluster.request("debug", "reload")
    with Cluster(2, dir=tmp_path, enable_debug_command="yes") as cluster:
        fill(cluster)
        before = contents(cluster)
        assert cluster.request("debug", "reload") == "OK"
        assert contents(cluster) == before


def test_waitaof(tmp_path: Path) -> None:
    with Cluster(2, dir=tmp_path, appendonly="yes") as cluster, cluster.connect() as connection:
        connection.request("set", "k", "v")
        assert connection.request("waitaof", 1, 0, 5000) == [1, 0]
        assert "err" in str(connection.request("waitaof", 2, 0, 0)).lower()


def test_status_and_stats_say_what_is_kept(tmp_path: Path) -> None:
    with Cluster(2, dir=tmp_path, appendonly="yes") as cluster:
        cluster.request("set", "k", "v" * 1000)
        kept = until(
            lambda: cluster.child("shard", 0)["kept"] and cluster.child("shard", 1)["kept"], "the first figures"
        )
        assert kept["state"] == "ok"
        assert "log ok, " in cluster.kache("cluster", "status").stdout
        info = cluster.request("info", "persistence").decode()
        assert "aof_enabled:1" in info and "aof_last_write_status:ok" in info and "loading:0" in info
        owners = until(
            lambda: [shard for shard in (0, 1) if cluster.child("shard", shard)["kept"]["log"] > 1000],
            "the figure of the shard that has the key",
        )
        owner, pid = owners[0], cluster.child("shard", owners[0])["pid"]
        cluster.kill(pid)
        # The logs of its earlier lives count, since they are loaded, too.
        until(
            lambda: (
                (child := cluster.child("shard", owner))["pid"] not in (0, pid)
                and child["kept"]
                and child["kept"]["logs"] == 2
                and child["kept"]["log"] > 1000
            ),
            "the same figure in its next life",
        )


def test_what_was_not_logged_is_told(tmp_path: Path) -> None:
    with Cluster(2, dir=tmp_path, appendonly="yes") as cluster:
        cluster.request("set", "k", 1)
    with Cluster(2, dir=tmp_path) as cluster:
        assert "what is changed from now on is not kept (appendonly no, no save points)" in cluster.log()
        assert "base 0b, no log" in until(
            lambda: (said := cluster.kache("cluster", "status").stdout) and "base" in said and said, "the first figures"
        )
        cluster.request("set", "k", 2)
    with Cluster(3, dir=tmp_path, appendonly="yes") as cluster:
        for shard in (0, 1):
            assert f"shard {shard} of before: nothing was logged since" in cluster.log()
        assert cluster.request("get", "k") == b"1"


def test_another_number_of_shards(tmp_path: Path) -> None:
    with Cluster(2, dir=tmp_path, appendonly="yes") as cluster:
        fill(cluster)
        before = contents(cluster)
        for number in range(200):
            cluster.request("set", f"n{number}", number)
    for shards in (3, 1):
        with Cluster(shards, dir=tmp_path, appendonly="yes") as other:
            assert f"it is divided over {shards}" in other.log()
            assert contents(other) == before
            other.request("incr", "n7")
    with Cluster(1, dir=tmp_path, appendonly="yes") as again:
        assert contents(again) == before
        with again.connect() as connection:
            found = connection.request("mget", *(f"n{number}" for number in range(200)))
        assert found == [b"%d" % (number + 2 * (number == 7)) for number in range(200)]


def write_anew(cluster: Cluster) -> None:
    """Bases of everything, waited for."""
    assert "started" in cluster.request("bgrewriteaof")
    until(lambda: b"aof_rewrite_in_progress:0" in cluster.request("info", "persistence"), "a base")


def test_other_hashes_and_another_number_of_shards_behind_a_kill_of_everything(tmp_path: Path) -> None:
    """A base lies in the order of hashes whose seed may be another one by now, of every process that reads it."""
    draw = random.Random(5)
    before: list[Any] = []
    with contextlib.ExitStack() as stack:
        for shards in (2, 2, 3, 1):
            cluster = Cluster(shards, dir=tmp_path, appendonly="yes", appendfsync="always")
            stack.callback(cluster._clean)
            cluster.start()
            if not before:
                fill(cluster)
                for number in range(500):
                    cluster.request("hset", "large", f"f{number}", "v" * 100)  # beyond what is packed
                before = contents(cluster)
            else:
                assert contents(cluster) == before
                assert cluster.request("hlen", "large") == 500
            write_anew(cluster)
            assert cluster.request("hset", "large", "f0", f"{shards}") == 0
            kill_everything(cluster)
            files = Files()
            known = directory.read_cluster(files, str(tmp_path))
            assert known is not None
            other = msgspec.structs.replace(known, hash_seed=draw.randbytes(16))
            directory.write_cluster(files, str(tmp_path), other)


def test_what_a_start_would_not_find_is_not_saved(tmp_path: Path) -> None:
    """The directory is the cluster's by a file that every shard's data needs."""
    with Cluster(2, dir=tmp_path) as cluster, cluster.connect() as connection:
        fill(cluster)
        assert connection.request("save") == "OK"
        (tmp_path / "cluster").rename(tmp_path / "hidden")
        connection.request("set", "more", 1)
        refused = connection.request("save").message
        assert refused == "; ".join(
            f"{said}: {tmp_path}/cluster is not there any more: somebody has removed or moved it"
            for said in ("ERR shard 0", "shard 1")
        )
        assert connection.request("bgsave") == "Background saving started"
        until(lambda: b"rdb_last_bgsave_status:err" in connection.request("info", "persistence"), "its failure")
        assert b"rdb_changes_since_last_save:0\r\n" not in connection.request("info", "persistence")
        (tmp_path / "hidden").rename(tmp_path / "cluster")
        until(lambda: connection.request("save") == "OK", "the end of the one before")
        assert b"rdb_last_bgsave_status:ok" in connection.request("info", "persistence")


def test_a_save_is_in_progress_between_two_shards(tmp_path: Path) -> None:
    """From its start until the last one is done, also while no shard is at it."""
    with Cluster(3, routers=2, dir=tmp_path) as cluster, cluster.every_router() as connections:
        for connection in connections:
            assert b"rdb_bgsave_in_progress:0" in connection.request("info", "persistence")
        pid = cluster.pid_of("shard", 1)
        cluster.kill(pid, signal.SIGSTOP)
        try:
            assert connections[0].request("bgsave") == "Background saving started"
            until(lambda: "shard 0: dumped " in cluster.log(), "the end of the first turn")
            for connection in connections:
                info = connection.request("info", "persistence")
                assert b"rdb_bgsave_in_progress:1" in info and b"aof_rewrite_in_progress:0" in info
                assert b"rdb_current_bgsave_time_sec:-1" not in info
        finally:
            cluster.kill(pid, signal.SIGCONT)
        for connection in connections:
            until(lambda each=connection: b"rdb_bgsave_in_progress:0" in each.request("info", "persistence"), "its end")
        assert "shard 2: dumped " in cluster.log()
