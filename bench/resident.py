"""Where the memory of an idle cluster is: of each process what is its own and what is common, by kind of mapping.

    sudo python bench/resident.py [--shards 4] [--seconds 3]

Children are forked from the supervisor and share its pages until one of them writes to them, if only to a count of references.
For each process: its PSS, what only it has, and what it shares, in KiB; what it has alone is told apart into pages that were
the supervisor's (copied), and others (new). For that one must see numbers of page frames, which only root may; else the last
two columns are empty.
"""

from __future__ import annotations

import argparse
import collections
import os
import re
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "soak"))

from cluster import Cluster
from idle import processes

PAGE = os.sysconf("SC_PAGE_SIZE")
PRESENT = 1 << 63
FRAME = (1 << 55) - 1
FIELDS = ("Pss", "Private_Dirty", "Private_Clean", "Shared_Dirty", "Shared_Clean")


class Mapping:
    """One line of smaps, and what follows it, KiB."""

    def __init__(self, start: int, end: int, rights: str, path: str) -> None:
        self.start, self.end, self.rights, self.path = start, end, rights, path
        self.sizes: dict[str, int] = {}

    @property
    def kind(self) -> str:
        if not self.path.startswith("/"):
            return self.path or "anonymous"
        library = ".so" in self.path
        part = "written" if "w" in self.rights else "code" if "x" in self.rights else "constants"
        return f"{'libraries' if library else 'files'}, {part}"


def mappings(pid: int) -> Iterator[Mapping]:
    found = None
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        head = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \d+ *(.*)", line)
        if head:
            if found is not None:
                yield found
            found = Mapping(int(head[1], 16), int(head[2], 16), head[3], head[4])
        elif found is not None and line.endswith(" kB"):
            name, size = line.split(":")
            found.sizes[name] = int(size.split()[0])
    if found is not None:
        yield found


def frames(pid: int) -> dict[int, int]:
    """The page frame of every page that may be written to and is this process's, by its address; 0: only root may know."""
    found = {}
    with open(f"/proc/{pid}/pagemap", "rb", 0) as pages:
        for each in mappings(pid):
            if "w" not in each.rights or "s" in each.rights:
                continue
            pages.seek(each.start // PAGE * 8)
            data = pages.read((each.end - each.start) // PAGE * 8)
            for number, (word,) in enumerate(struct.iter_unpack("Q", data)):
                if word & PRESENT:
                    found[each.start + number * PAGE] = word & FRAME
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3.0, help="How long it rests first.")
    chosen = parser.parse_args()
    kinds: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    with Cluster(chosen.shards) as cluster:
        pids = processes(cluster)
        time.sleep(chosen.seconds)
        parents = frames(pids["supervisor"])
        visible = any(parents.values())
        print(f"{'KiB':16}" + "".join(f"{field:>15}" for field in FIELDS) + f"{'copied':>10}{'new':>10}")
        total: collections.Counter[str] = collections.Counter()
        for name, pid in pids.items():
            sizes: collections.Counter[str] = collections.Counter()
            for each in mappings(pid):
                sizes.update({field: each.sizes.get(field, 0) for field in FIELDS})
                kinds[each.kind].update({field: each.sizes.get(field, 0) for field in FIELDS})
            total.update(sizes)
            line = f"{name:16}" + "".join(f"{sizes[field]:15}" for field in FIELDS)
            if visible and name != "supervisor":
                mine = frames(pid)
                copied = sum(at in parents and frame != parents[at] for at, frame in mine.items())
                new = sum(at not in parents for at in mine)
                line += f"{copied * PAGE // 1024:10}{new * PAGE // 1024:10}"
            print(line)
        print(f"{'all':16}" + "".join(f"{total[field]:15}" for field in FIELDS))
        print()
        for kind, sizes in sorted(kinds.items(), key=lambda item: -item[1]["Pss"])[:12]:
            print(f"{kind:24}" + "".join(f"{sizes[field]:15}" for field in FIELDS))


if __name__ == "__main__":
    main()
