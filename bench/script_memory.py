"""What scripts cost a shard in memory: before there was one, with one, with many.

    python bench/script_memory.py [--shards 4]

Prints the PSS of the shards' processes in MiB. Exit status 1 when one has mapped anything of Lua before the first script.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from cluster import Cluster, Connection

RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return {}"
SETTLE_SECONDS = 2.0
MANY = 500


def pss_mib(pid: int) -> float:
    """Proportional resident memory of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("Pss:"))) / 1024


def has_lua(pid: int) -> bool:
    """Whether anything of lupa, or of what is compiled to run scripts, is mapped there."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return "lupa" in maps or "/scripting/" in maps


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shards", type=int, default=4)
    options = parser.parse_args()
    with Cluster(shards=options.shards) as cluster, Connection(cluster.port) as connection:
        shards = [child["pid"] for child in cluster.status()["children"] if child["role"] == "shard"]

        def shown(title: str) -> None:
            time.sleep(SETTLE_SECONDS)  # what is given back is given back by then
            each = [pss_mib(pid) for pid in shards]
            print(f"{title:<28} {statistics.mean(each):6.2f} MiB a shard, most {max(each):.2f}", flush=True)

        keys = [f"key:{number}" for number in range(64 * options.shards)]
        for key in keys:
            connection.request("GET", key)
        shown("no script yet")
        early = any(map(has_lua, shards))
        print(f"of Lua mapped by then: {'something' if early else 'nothing'}")
        for key in keys:
            connection.request("EVAL", RELEASE.format(0), "1", key, "token")
        shown("one script, on every shard")
        for number in range(MANY):
            for key in keys[:: len(keys) // 16]:
                connection.request("EVAL", RELEASE.format(number), "1", key, "token")
        shown(f"{MANY} scripts")
        assert all(map(has_lua, shards)), "nothing of Lua is found where scripts have run"
    return int(early)


if __name__ == "__main__":
    sys.exit(main())
