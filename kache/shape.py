"""How many processes a cluster has where the configuration leaves that to the machine.

Pure but for looking at the cores. Used by the supervisor, when it starts and when it reads its configuration again.
"""

from __future__ import annotations

import msgspec

from kache import processes
from kache.config import MOST_ROUTERS, Config

__all__ = ["resolved", "routers_for"]


def resolved(config: Config) -> Config:
    """With the numbers of processes that 0 leaves to the machine."""
    shards = config.shards or processes.usable_cores()
    return msgspec.structs.replace(config, shards=shards, routers=config.routers or routers_for(shards))


def routers_for(shards: int) -> int:
    """As many routers as suit this machine.

    One for two cores, since a router does once to three times a shard's part of a simple command (bench/README.md).
    """
    return max(1, min(processes.usable_cores() // 2, shards, MOST_ROUTERS))
