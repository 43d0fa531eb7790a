"""What is measured: the rows, in parts with their contenders, rounds and seconds, and the profiles made of them."""

from __future__ import annotations

from dataclasses import dataclass

from generators import Row

__all__ = ["MBUF_SIZES", "PROFILES", "Part", "Profile"]

BAR_CONTENDERS = ["kache-default", "kache", "twemproxy", "twemproxy-quiet", "valkey"]
FULL_CONTENDERS = [
    "kache-default", "kache", "twemproxy", "twemproxy-quiet", "valkey", "valkey-io", "redis", "valkey-cluster", "redis-cluster",
    "memcached", "limit", "limit-one",
]  # fmt: skip

CORES_CONTENDERS = [
    "kache",
    "kache-2-routers",
    "kache-4-routers",
    "twemproxy",
    "twemproxy-quiet",
    "valkey",
    "valkey-io",
]

BAR_ROWS = [Row(command, pipeline) for pipeline in (1, 16, 64) for command in ("SET", "GET")]
LATENCY_ROWS = [Row(command, 1, connections) for connections in (1, 4) for command in ("SET", "GET")]
COMMAND_ROWS = [
    Row(command, pipeline)
    for command in ("INCR", "MGET10", "MSET10", "ZADD", "ZRANGE", "HSET", "LPUSH")
    for pipeline in (1, 16)
]
SIZE_ROWS = [
    Row(command, 1, 50, size, 2000 if size > 1024 else Row.keys) for size in (1024, 65536) for command in ("SET", "GET")
]
WIDE_ROWS = [Row(command, pipeline, 500) for pipeline in (1, 16) for command in ("SET", "GET")]
MIX_ROWS = [Row(command, pipeline) for command in ("MIX", "ORIGINAL") for pipeline in (1, 16, 64)]

MBUF_SIZES = [512, 4096, 16384, 65536]
"""Of twemproxy's buffers; the best at SET with a pipeline of 64 is what it runs with."""


@dataclass(frozen=True)
class Part:
    """Rows that share contenders, rounds and seconds; without shards those of the command line."""

    name: str
    rows: list[Row]
    contenders: list[str]
    seconds: float
    rounds: int = 5
    shards: tuple[int, ...] = ()


@dataclass(frozen=True)
class Profile:
    """The parts, and what is measured on keyspaces of `sizes`: memory of some, rows on those of `key_rows`."""

    parts: list[Part]
    memory: list[str]
    sizes: list[int]
    tune: bool = True
    key_rows: list[str] | None = None
    key_seconds: float = 0.3
    key_rounds: int = 5
    pin: bool = False


PROFILES = {
    "bars": Profile(
        parts=[Part("rows", BAR_ROWS, BAR_CONTENDERS, 1.0), Part("rows", LATENCY_ROWS, BAR_CONTENDERS, 0.3)],
        memory=["kache", "twemproxy", "valkey"],
        sizes=[10_000, 1_000_000],
    ),
    "full": Profile(
        parts=[
            Part("rows", BAR_ROWS, FULL_CONTENDERS, 0.8),
            Part("rows", LATENCY_ROWS + COMMAND_ROWS + SIZE_ROWS + WIDE_ROWS + MIX_ROWS, FULL_CONTENDERS, 0.3),
            Part("sweep", BAR_ROWS, ["kache", "twemproxy"], 0.3, shards=(1, 2, 4, 8)),
        ],
        memory=["kache", "twemproxy", "valkey", "redis", "valkey-cluster", "redis-cluster", "memcached"],
        sizes=[10_000, 1_000_000, 10_000_000],
        key_rows=["kache", "twemproxy", "valkey"],
    ),
    "cores": Profile(
        parts=[Part("rows", BAR_ROWS, CORES_CONTENDERS, 0.5, shards=(1, 2, 4, 8))], memory=[], sizes=[], pin=True
    ),
    "quick": Profile(
        parts=[Part("rows", BAR_ROWS, BAR_CONTENDERS, 0.3, rounds=3)], memory=[], sizes=[], tune=False
    ),
}  # fmt: skip
