"""A disk that is really full, a small one mounted for the purpose; where nobody may mount, these tests are skipped."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cluster import DEADLINE, Cluster, Connection, kill_everything, until

from kache.errors import CommandError

pytestmark = pytest.mark.once

DISK = 48 << 20
BALLAST = 16 << 20
VALUE = 10_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A directory with room for 48 MiB, of which a third is in use by somebody else."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "kache-test", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True, timeout=DEADLINE, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("nothing can be mounted here")
    try:
        (place / "ballast").write_bytes(bytes(BALLAST))
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True, timeout=DEADLINE)


class Written:
    """What one client has written, by the answers."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}
        self.refusals: set[str] = set()

    def some(self, connection: Connection) -> bool:
        """Twenty more values; whether all of them were taken."""
        keys = [f"key:{len(self.outcomes) + n}" for n in range(20)]
        connection.send(*(("set", key, f"{key} {'x' * VALUE}") for key in keys))
        taken = True
        for key, reply in zip(keys, connection.read_many(len(keys)), strict=True):
            if not isinstance(reply, CommandError):
                self.outcomes[key] = "there"
                continue
            taken = False
            self.outcomes[key] = "absent" if reply.code in ("MISCONF", "TRYAGAIN", "CLUSTERDOWN") else "unsure"
            self.refusals.add(reply.message)
        return taken

    def wrong(self, cluster: Cluster) -> list[tuple[str, str, Any]]:
        """What is not as it was answered."""
        keys = list(self.outcomes)
        with cluster.connect() as connection:
            connection.send(*(("strlen", key) for key in keys))
            found = dict(zip(keys, connection.read_many(len(keys)), strict=True))
        lengths = {key: len(f"{key} ") + VALUE for key in keys}
        return [
            (key, outcome, found[key])
            for key, outcome in self.outcomes.items()
            if found[key] not in (0, lengths[key])
            or (outcome != "unsure" and found[key] != (lengths[key] if outcome == "there" else 0))
        ]


def info(cluster: Cluster) -> str:
    text: str = cluster.request("info", "persistence").decode()
    return text


@pytest.mark.parametrize("policy", ["everysec", "always"])
def test_writes_are_refused_and_come_back_with_the_room(disk: Path, policy: str) -> None:
    settings: dict[str, Any] = {
        "dir": disk,
        "appendonly": "yes",
        "appendfsync": policy,
        "auto_aof_rewrite_percentage": 0,
    }
    cluster = Cluster(1, **settings)
    cluster.start()
    try:
        written = Written()
        with cluster.connect() as connection:
            until(lambda: not written.some(connection), "the disk is full")
            until(lambda: isinstance(connection.request("set", "x", 1), CommandError), "all of it is refused")
            assert any(
                text.startswith("MISCONF Errors writing to the AOF file: No space left on device")
                for text in written.refusals
            ), written.refusals
            assert connection.request("strlen", "key:0") > VALUE, "reads go on"
            assert "aof_last_write_status:err" in info(cluster)
            until(lambda: "No space left" in cluster.kache("cluster", "status").stdout, "the status says so")
            assert written.wrong(cluster) == []
            (disk / "ballast").unlink()
            until(lambda: connection.request("set", "x", 1) == "OK", "the way back", 10)
            assert written.some(connection) and written.some(connection)
        kill_everything(cluster)
    finally:
        cluster._clean()
    with Cluster(1, **settings) as again:
        assert written.wrong(again) == [] and again.request("get", "x") == b"1"
        assert "were not written to the end" not in again.log()
    checked = cluster.kache("check-aof", str(disk))
    assert checked.returncode == 0, checked.stdout


def test_a_dump_without_room_changes_nothing(disk: Path) -> None:
    settings: dict[str, Any] = {"dir": disk, "appendonly": "yes", "auto_aof_rewrite_percentage": 0}
    cluster = Cluster(1, **settings)
    cluster.start()
    try:
        written = Written()
        with cluster.connect() as connection:
            while len(written.outcomes) < 1200:
                assert written.some(connection)
            assert "started" in connection.request("bgrewriteaof")
            until(lambda: "aof_last_bgrewrite_status:err" in info(cluster), "the dump fails")
            until(lambda: "aof_rewrite_in_progress:0" in info(cluster), "it is over")
            until(lambda: not list(disk.glob("epoch-*/shard-*/*.base")), "its base is removed")
            assert "the dump has failed" in cluster.log()
            (disk / "ballast").unlink()
            until(lambda: connection.request("set", "x", 1) == "OK", "the way back")
            assert written.some(connection)
        kill_everything(cluster)
    finally:
        cluster._clean()
    with Cluster(1, **settings) as again:
        assert written.wrong(again) == []


def test_a_start_without_room_serves_what_is_there(disk: Path) -> None:
    settings: dict[str, Any] = {"dir": disk, "appendonly": "yes", "auto_aof_rewrite_percentage": 0}
    written = Written()
    with Cluster(1, **settings) as cluster, cluster.connect() as connection:
        for _ in range(10):
            assert written.some(connection)
    with suppress(OSError), (disk / "more").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    again = Cluster(1, **settings)
    again.start()
    try:
        assert written.wrong(again) == []
        with again.connect() as connection:
            refused = connection.request("set", "x", 1)
            assert isinstance(refused, CommandError)
            assert refused.message.startswith("MISCONF Errors writing to the AOF file: No space left on device"), (
                refused
            )
            assert "aof_last_write_status:err" in info(again) and "aof_enabled:1" in info(again)
            until(lambda: "No space left" in again.kache("cluster", "status").stdout, "the status says so")
            (disk / "ballast").unlink()
            until(lambda: connection.request("set", "x", 1) == "OK", "the way back")
            assert written.some(connection)
        kill_everything(again)
    finally:
        again._clean()
    with Cluster(1, **settings) as last:
        assert written.wrong(last) == [] and last.request("get", "x") == b"1"


def test_what_finds_no_room_is_not_lost_by_the_end(disk: Path) -> None:
    written = Written()
    with Cluster(1, dir=disk, save="9999 9999") as cluster:
        with cluster.connect() as connection:
            while len(written.outcomes) < 1500:
                assert written.some(connection)
        (disk / "more").write_bytes(bytes(DISK - BALLAST - (10 << 20)))  # 10 MiB are left, for 15 MB
        refused = cluster.kache("cluster", "stop", check=False)
        assert refused.returncode == 1
        place = disk / "epoch-1" / "shard-0000"
        assert f" goes on, since its data cannot be saved (shard 0: {place}" in refused.stderr
        assert "No space left on device" in refused.stderr
        until(lambda: cluster.child("router")["state"] == "up", "the routers come back")
        assert written.wrong(cluster) == []
        for name in ("ballast", "more"):
            (disk / name).unlink()
        assert cluster.kache("cluster", "stop").stdout == f"The cluster on port {cluster.port} has stopped.\n"
        assert cluster.process.wait(DEADLINE) == 0
    with Cluster(1, dir=disk) as again:
        assert written.wrong(again) == []
