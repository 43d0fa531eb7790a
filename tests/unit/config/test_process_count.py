"""Usable cores from affinity and cgroups, and how many processes they get."""

from __future__ import annotations

from pathlib import Path

import pytest

from kache.config import process_count
from kache.config.process_count import routers_for


def cgroup(tmp_path: Path, membership: str, files: dict[str, str]) -> float | None:
    (tmp_path / "cgroup").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return process_count._cgroup_quota(str(tmp_path / "fs"), str(tmp_path / "cgroup"))


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
    assert process_count._cgroup_quota("/no/such", "/no/such") is None


def test_cores_are_never_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_count, "_cgroup_quota", lambda: 0.2)
    assert process_count.usable_cores() == 1


@pytest.mark.parametrize(
    ("cores", "shards", "routers"), [(1, 1, 1), (2, 2, 1), (3, 3, 1), (4, 4, 2), (16, 16, 8), (16, 4, 4), (64, 64, 16)]
)
def test_routers_follow_cores_and_shards(
    monkeypatch: pytest.MonkeyPatch, cores: int, shards: int, routers: int
) -> None:
    monkeypatch.setattr(process_count, "usable_cores", lambda: cores)
    assert routers_for(shards) == routers
