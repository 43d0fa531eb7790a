"""Usable cores from affinity and cgroups, restart waits, the port lock."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kache import counts, processes
from kache.children import Child
from kache.run_dir import PortLock, RunDirError, make_private
from kache.shape import routers_for


def cgroup(tmp_path: Path, membership: str, files: dict[str, str]) -> float | None:
    (tmp_path / "cgroup").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return processes._cgroup_quota(str(tmp_path / "fs"), str(tmp_path / "cgroup"))


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "max 100000\n"}, 2.0),
        ("0::/not/here\n", {"cpu.max": "50000 100000\n"}, 0.5),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3.0),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("0::/\n", {"cpu.max": "garbage"}, None),
        ("0::/\n", {}, None),
    ],
)
def test_cgroup_quota(tmp_path: Path, membership: str, files: dict[str, str], quota: float | None) -> None:
    assert cgroup(tmp_path, membership, files) == quota


def test_no_cgroups_at_all() -> None:
    assert processes._cgroup_quota("/no/such", "/no/such") is None


def test_cores_are_never_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_cgroup_quota", lambda: 0.2)
    assert processes.usable_cores() == 1


@pytest.mark.parametrize(
    ("cores", "shards", "routers"), [(1, 1, 1), (2, 2, 1), (3, 3, 1), (4, 4, 2), (16, 16, 8), (16, 4, 4), (64, 64, 16)]
)
def test_routers_follow_cores_and_shards(
    monkeypatch: pytest.MonkeyPatch, cores: int, shards: int, routers: int
) -> None:
    monkeypatch.setattr(processes, "usable_cores", lambda: cores)
    assert routers_for(shards) == routers


def test_clients_are_counted_for_all_to_see(tmp_path: Path) -> None:
    counts.create(str(tmp_path), 3)
    one, other = (memoryview(counts.shared(str(tmp_path))).cast("q") for _ in range(2))
    one[1], one[2] = 7, 8
    assert other.tolist() == [0, 7, 8]
    counts.clear(str(tmp_path), 1)
    assert one.tolist() == other.tolist() == [0, 0, 8]
    with pytest.raises(FileExistsError):
        counts.create(str(tmp_path), 3)


def test_waits_grow_and_start_anew_after_steady_service() -> None:
    child = Child("shard", 0, "title")
    assert [child.wait_before_restart(0.0, 1.0) for _ in range(7)] == [0.0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    child.ready_at = 100.0
    assert child.wait_before_restart(100.1, 1.0) == 1.0
    assert child.wait_before_restart(101.0, 1.0) == 0.0


def test_port_lock(tmp_path: Path) -> None:
    first = PortLock(str(tmp_path), 7379)
    with pytest.raises(RunDirError, match=f"Port 7379 already has a cluster: pid {os.getpid()}."):
        PortLock(str(tmp_path), 7379)
    PortLock(str(tmp_path), 7380).release()
    first.release()
    assert list(tmp_path.iterdir()) == []
    assert not PortLock(str(tmp_path), 7379).abandoned


def test_a_lock_left_by_a_dead_process_is_taken(tmp_path: Path) -> None:
    (tmp_path / "7379.lock").write_text("pid 1\n")
    lock = PortLock(str(tmp_path), 7379)
    assert lock.abandoned
    lock.release()


def test_private_directory(tmp_path: Path) -> None:
    make_private(str(tmp_path / "new"))
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    (tmp_path / "link").symlink_to(tmp_path / "new")
    for path in (tmp_path / "link", Path(__file__)):
        with pytest.raises(RunDirError, match="is not a directory of yours"):
            make_private(str(path))
