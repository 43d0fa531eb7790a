#!/usr/bin/env python3
"""The disk stops for ten seconds: `python tests/soak/frozen_disk.py [--policy always everysec] [--seconds 10]`

Two shards with a log, writers on keys of their own and readers on keys of other slots. Syncs hang for a while, and writes to files
beside them, as on a disk that is away (a library that is preloaded, `disk_shim.c`): until `log-stall-ms` writes wait, then they are
refused with MISCONF, and reads go on; when the disk is back, so are writes. Then everything is killed: what was acknowledged is
there. With `--whole` every write to a file hangs at once, as on a file system that is frozen for a snapshot.

Prints a line for each policy; exit status 1 when a bar is broken: p99 of reads once writes are refused 50 ms and none refused,
MISCONF while it lasts, OK within 2 s of its end, acknowledged and lost 0. `everysec --whole` misses the first: a shard writes by
itself between two syncs, and stands as long as that write does.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from cluster import Cluster, Connection, kill_everything, until
from preloaded import Preloaded

from kache.errors import CommandError
from kache.slots import slot_of_key

SHARDS = 2
STALL_MS = 1000
READ_P99_MS = 50.0
BACK_SECONDS = 2.0
WRITERS = 8
WRITTEN = [f"written:{number}" for number in range(WRITERS)]
SLOTS = {slot_of_key(key.encode()) for key in WRITTEN}
READ = [key for key in (f"read:{number}" for number in range(1000)) if slot_of_key(key.encode()) not in SLOTS]


class Writer(threading.Thread):
    """Counts keys of its own up, one write after the other; remembers what was acknowledged, and what was said when."""

    def __init__(self, number: int, connection: Connection, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.number, self.connection, self.over = number, connection, over
        self.acknowledged = 0
        self.said: list[tuple[float, str]] = []

    def run(self) -> None:
        value = 0
        while not self.over.is_set():
            value += 1
            reply = self.connection.request("RPUSH", WRITTEN[self.number], value)
            answer = reply.code if isinstance(reply, CommandError) else "OK"
            self.acknowledged += answer == "OK"
            self.said.append((time.monotonic(), answer))
            if answer != "OK":
                time.sleep(0.01)


class Reader(threading.Thread):
    """Reads keys that nobody writes, over all shards."""

    def __init__(self, connection: Connection, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.connection, self.over = connection, over
        self.took: list[tuple[float, float]] = []
        self.refused: list[tuple[float, str]] = []

    def run(self) -> None:
        number = 0
        while not self.over.is_set():
            number += 1
            begun = time.monotonic()
            reply = self.connection.request("GET", READ[number % len(READ)])
            if isinstance(reply, CommandError):
                self.refused.append((begun, str(reply)))
            self.took.append((begun, time.monotonic() - begun))
            time.sleep(0.001)


def percentile(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0


def trial(policy: str, seconds: float, whole: bool, disk: Preloaded) -> bool:
    """One stop of the disk; whether every bar is kept."""
    over = threading.Event()
    with (
        Cluster(
            SHARDS,
            environment=disk.environment(),
            appendonly="yes",
            appendfsync=policy,
            log_stall_ms=STALL_MS,
            request_timeout_ms=30_000,
        ) as cluster,
        contextlib.ExitStack() as connections,
    ):
        control = connections.enter_context(cluster.connect())
        control.request("MSET", *(word for key in READ for word in (key, "x" * 100)))
        writers = [Writer(number, connections.enter_context(cluster.connect()), over) for number in range(WRITERS)]
        readers = [Reader(connections.enter_context(cluster.connect()), over) for _ in range(4)]
        for thread in (*writers, *readers):
            thread.start()
        time.sleep(1.0)
        stopped = time.monotonic()
        disk.set(b"\2" if whole else b"\1")
        time.sleep(seconds)
        disk.set(b"\0")
        back = time.monotonic()
        until(
            lambda: all(writer.said[-1][0] > back and writer.said[-1][1] == "OK" for writer in writers),
            "writes are back",
        )
        time.sleep(0.5)
        over.set()
        for thread in (*writers, *readers):
            thread.join(60)
        answers = [said for writer in writers for said in writer.said]
        refused = [at for at, answer in answers if answer == "MISCONF"]
        # When the disk counts as stalled routers lose their links for some milliseconds, with what was in flight on them.
        other = {answer for _, answer in answers} - {"OK", "MISCONF", "UNCERTAIN", "CLUSTERDOWN"}
        first = [min(at for at, answer in writer.said if at > back and answer == "OK") - back for writer in writers]
        since = min(refused, default=back) + 0.2
        took = [(begun, seconds * 1000) for reader in readers for begun, seconds in reader.took]
        stalled = [ms for begun, ms in took if since < begun < back]
        before = [ms for begun, ms in took if begun < stopped]
        refused_reads = [text for reader in readers for begun, text in reader.refused if since < begun < back]
        kill_everything(cluster)
        cluster.start()
        with cluster.connect() as again:
            until(lambda: again.request("DBSIZE") > 0, "it serves")
            there = [again.request("LRANGE", WRITTEN[writer.number], 0, -1) for writer in writers]
        lost = sum(max(0, writer.acknowledged - len(values)) for writer, values in zip(writers, there, strict=True))
        good = bool(
            percentile(stalled, 0.99) < READ_P99_MS
            and not refused_reads
            and stalled
            and refused
            and not other
            and max(first) < BACK_SECONDS
            and lost == 0
        )
        print(
            f"{policy:9} reads p99 {percentile(before, 0.99):.1f} ms before, {percentile(stalled, 0.99):.1f} while stalled "
            f"({len(stalled)} reads, worst {max(stalled, default=0):.1f}, refused {len(refused_reads)}); writes: {len(refused)} "
            f"MISCONF, {sorted(other) or 'nothing else'}, OK {max(first):.2f} s behind its end; acknowledged "
            f"{sum(writer.acknowledged for writer in writers)}, lost {lost}{'' if good else '   MISSED'}",
            flush=True,
        )
        return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", nargs="+", choices=("always", "everysec"), default=["always", "everysec"])
    parser.add_argument("--seconds", type=float, default=10.0, help="for which the disk stops")
    parser.add_argument("--whole", action="store_true", help="every write hangs, not only beside a sync")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kache-disk-") as folder:
        disk = Preloaded(Path(__file__).with_name("disk_shim.c"), Path(folder), "KACHE_TEST_DISK", b"\0")
        kept = [trial(policy, options.seconds, options.whole, disk) for policy in options.policy]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
