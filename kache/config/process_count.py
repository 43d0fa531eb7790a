"""How many processes a cluster has where the configuration leaves that to the machine.

Pure but for looking at the cores. Used by the supervisor, when it starts and when it reads its configuration again.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import msgspec

from kache.config.settings import MOST_ROUTERS, Config

__all__ = ["resolved", "routers_for", "usable_cores"]


def resolved(config: Config) -> Config:
    """With the numbers of processes that 0 leaves to the machine; in front of a backend there are no shards."""
    if config.backend:
        routers = config.routers or max(1, min(usable_cores(), MOST_ROUTERS))
        return msgspec.structs.replace(config, shards=0, routers=routers)
    shards = config.shards or usable_cores()
    return msgspec.structs.replace(config, shards=shards, routers=config.routers or routers_for(shards))


def routers_for(shards: int) -> int:
    """As many routers as suit this machine.

    One for two cores, since a router does once to three times a shard's part of a simple command (bench/README.md).
    """
    return max(1, min(usable_cores() // 2, shards, MOST_ROUTERS))


def usable_cores() -> int:
    """Cores this process may really use: its affinity, and no more than its cgroup's quota."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, min(affinity, math.ceil(quota))) if quota else max(1, affinity)


def _cgroup_quota(root: str = "/sys/fs/cgroup", membership: str = "/proc/self/cgroup") -> float | None:
    """Cores granted by cgroup v2 or v1, the tightest of all ancestors; None without a quota."""
    try:
        lines = Path(membership).read_text().splitlines()
    except OSError:
        return None
    quotas: list[float] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            quotas += _quotas_along(Path(root), path, "cpu.max")
        elif "cpu" in controllers.split(","):
            quotas += _quotas_along(Path(root) / "cpu", path, "cpu.cfs_quota_us")
    return min(quotas, default=None)


def _quotas_along(root: Path, path: str, name: str) -> list[float]:
    group = root / path.lstrip("/")
    quotas = []
    # Inside a container the path is the host's and does not exist here: the root is then the container's own group.
    for folder in {group, *group.parents, root}:
        if not folder.is_relative_to(root):
            continue
        try:
            words = (folder / name).read_text().split()
            if name != "cpu.max":
                words.append((folder / "cpu.cfs_period_us").read_text())
            if words[0] not in ("max", "-1"):
                quotas.append(int(words[0]) / int(words[1]))
        except (OSError, ValueError, IndexError, ZeroDivisionError):
            continue
    return quotas
