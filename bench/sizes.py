"""What a key costs: `used_memory` and resident memory per key of common shapes. Run: python bench/sizes.py [--keys N].

Resident memory is PSS of the shard's process, its growth over the empty one. `docs/sizing.md` quotes the figures.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kache.testing import LocalCluster

Put = Callable[[Any, str], Any]
MEMBERS = [b"%016d" % number for number in range(10)]
SHAPES: dict[str, Put] = {
    "string of 32 bytes": lambda p, key: p.set(key, bytes(32)),
    "the same with a TTL": lambda p, key: p.set(key, bytes(32), ex=86400),
    "string of 100 bytes": lambda p, key: p.set(key, bytes(100)),
    "string of 1,000 bytes": lambda p, key: p.set(key, bytes(1000)),
    "integer": lambda p, key: p.set(key, int(key[4:])),
    "hash, 10 fields of 16 bytes": lambda p, key: p.hset(key, dict.fromkeys(MEMBERS, bytes(16))),
    "list, 10 of 16 bytes": lambda p, key: p.rpush(key, *MEMBERS),
    "set, 10 of 16 bytes": lambda p, key: p.sadd(key, *MEMBERS),
    "sorted set, 10 of 16 bytes": lambda p, key: p.zadd(key, dict.fromkeys(MEMBERS, 1.0)),
}


def resident(pid: int) -> int:
    """Proportional resident memory of a process, bytes."""
    found = re.search(r"^Pss: +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def measure(put: Put, keys: int) -> tuple[float, float]:
    """Bytes per key: as accounted, and as resident."""
    with LocalCluster(shards=1) as cluster:
        cache = cluster.client()
        pid = int(cache.stats()[0]["pid"])
        empty, before = int(cache.stats()[0]["used_memory"]), resident(pid)
        pipeline = cache.pipeline()
        for number in range(keys):
            put(pipeline, f"key:{number:012d}")
            if len(pipeline) == 1000:
                pipeline.execute()
        pipeline.execute()
        return (int(cache.stats()[0]["used_memory"]) - empty) / keys, (resident(pid) - before) / keys


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=100_000)
    keys = parser.parse_args().keys
    print(f"{'keys of 16 bytes':<32}{'used':>8}{'resident':>10}")
    for name, put in SHAPES.items():
        used, real = measure(put, keys)
        print(f"{name:<32}{used:>8.0f}{real:>10.0f}", flush=True)


if __name__ == "__main__":
    main()
