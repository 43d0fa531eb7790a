"""What clients may cost a router: the classes of `client-output-buffer-limit`, and the size of `maxmemory-clients`.

Pure functions, but for asking the system how much memory there is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kache.config.settings import Config

__all__ = ["DEFAULT_LIMITS", "Limit", "client_budget", "flow_room", "merge_limits", "parse_limits", "show_limits"]

Limit = tuple[str, int, int, int]
"""Class, hard limit in bytes, soft limit in bytes, seconds above the soft one; 0: no limit."""

DEFAULT_LIMITS: Final[tuple[Limit, ...]] = (
    ("normal", 0, 0, 0),
    ("slave", 256 << 20, 64 << 20, 60),
    ("pubsub", 32 << 20, 8 << 20, 60),
)
"""Redis's. A cluster has no replicas; their limit is kept for tools that set it."""

# As those of the settings that are a size or a time of their own.
SIZE_MOST: Final = 2**50
SECONDS_MOST: Final = 2**31 - 1

ROOM_TO_ASK: Final = 1 << 20
"""With less nobody could connect to set it anew."""

LEAST_BUDGET: Final = 256 << 20
SHARE: Final = 8

FLOW_SHARE: Final = 2
"""Of the budget, for large replies that wait in the shards for their clients: where they cost no copy."""
FLOW_LEAST: Final = 1 << 20
FLOW_MOST: Final = 64 << 20


def parse_limits(text: str) -> tuple[Limit, ...]:
    """The classes that `text` names, such as ``normal 0 0 0 pubsub 32mb 8mb 60``; raises ValueError."""
    from kache.config.kinds import parse_size

    words = text.lower().split()
    if not words or len(words) % 4:
        raise ValueError(text)
    found = []
    for at in range(0, len(words), 4):
        name, hard, soft, seconds = words[at : at + 4]
        name = "slave" if name == "replica" else name
        if name not in ("normal", "slave", "pubsub") or not (seconds.isascii() and seconds.isdigit()):
            raise ValueError(text)
        limit = (name, parse_size(hard), parse_size(soft), int(seconds))
        if max(limit[1:3]) > SIZE_MOST or limit[3] > SECONDS_MOST:
            raise ValueError(text)
        found.append(limit)
    return tuple(found)


def merge_limits(before: Iterable[Limit], named: Iterable[Limit]) -> tuple[Limit, ...]:
    """`before` with the classes that are `named` replaced."""
    new = {limit[0]: limit for limit in named}
    return tuple(new.get(limit[0], limit) for limit in before)


def show_limits(limits: Iterable[Limit]) -> str:
    """The text of CONFIG GET."""
    return " ".join(f"{name} {hard} {soft} {seconds}" for name, hard, soft, seconds in limits)


def client_budget(config: Config) -> int:
    """Bytes that all clients of all routers may cost together."""
    if config.maxmemory_clients > 0:
        return max(config.maxmemory_clients, ROOM_TO_ASK)
    if config.maxmemory_clients < 0 and config.maxmemory:  # a percentage
        return max(config.maxmemory * -config.maxmemory_clients // 100, ROOM_TO_ASK)
    return max(LEAST_BUDGET, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // SHARE)


def flow_room(config: Config) -> int:
    """Bytes of large replies that a shard keeps for the clients of one router until they take them.

    A single one may be larger; of others that are, the router keeps the rest. They count in its share of the budget.
    """
    share = client_budget(config) // (FLOW_SHARE * max(config.routers, 1) * max(config.shards, 1))
    return min(max(share, FLOW_LEAST), FLOW_MOST)
