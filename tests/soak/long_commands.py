"""Long commands over two shards: their time beside one Valkey's, and what clients beside them wait.

    python tests/soak/long_commands.py                     # everything, about two minutes
    python tests/soak/long_commands.py --members 300000 --parts ratio

Prints each figure with its bar and ends with status 1 when one is missed:

    ratio       algebra, RENAME and COPY of 300,000 members: at most 2 × one valkey-server's time, in the same run, turn by turn
    bystander   the same with a million, while others read 200 keys a second of each shard: none waits above 20 ms
    large       RENAME of 512 MiB over shards ends OK, SORT … LIMIT 0 1 of a million is answered

Other load on the machine shows in the bystander's figures; "without" is what they are while nothing else is asked.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "oracle")]

from cluster import Cluster, Connection  # noqa: E402 - the folders of the tests are no package
from servers import valkey  # noqa: E402

RATIO_BAR = 2.0
STALL_BAR_MS = 20.0
ROUNDS = 3
BATCH = 5000
READS_A_SECOND = 200


class Keys:
    """Names that lie on two shards, for both servers the same."""

    def __init__(self, cluster: Cluster) -> None:
        here, there = cluster.keys_by_shard(8)
        self.set, self.zset, self.hash, self.list, self.read, self.spare, self.result, self.text = here
        self.other_set, self.other_zset, self.other_hash, self.other_list, self.other_read = there[:5]
        self.moved, self.other_result = there[5:7]


def fill(connection: Connection, command: str, key: str, numbers: range, form: str) -> None:
    """`form`: what one element is: a member, a scored one, a field."""
    batches = 0
    for start in range(0, len(numbers), BATCH):
        words: list[Any] = []
        for number in numbers[start : start + BATCH]:
            if form == "scored":
                words += [number * 7919 % 100_003, f"member:{number}"]
            elif form == "field":
                words += [f"field:{number}", f"value:{number}"]
            else:
                words.append(f"member:{number}")
        connection.send((command, key, *words))
        batches += 1
    for _ in range(batches):
        assert not isinstance(connection.read(), Exception)


def fill_all(connection: Connection, keys: Keys, members: int) -> None:
    first, second = range(members), range(members // 2, members + members // 2)
    fill(connection, "sadd", keys.set, first, "member")
    fill(connection, "sadd", keys.other_set, second, "member")
    fill(connection, "zadd", keys.zset, first, "scored")
    fill(connection, "zadd", keys.other_zset, second, "scored")
    fill(connection, "hset", keys.hash, first, "field")


def commands(keys: Keys) -> list[tuple[Any, ...]]:
    sets, zsets = (keys.set, keys.other_set), (2, keys.zset, keys.other_zset)
    return [
        ("sunionstore", keys.result, *sets),
        ("sinterstore", keys.result, *sets),
        ("sdiffstore", keys.result, *sets),
        ("sintercard", 2, *sets),
        ("sintercard", 2, *sets, "limit", 10),
        ("sunion", *sets),
        ("sinter", *sets),
        ("sdiff", *sets),
        ("zunionstore", keys.result, *zsets),
        ("zinterstore", keys.result, *zsets, "weights", 1, 2),
        ("zdiffstore", keys.result, *zsets),
        ("zintercard", *zsets),
        ("zunion", *zsets),
        ("zinter", *zsets),
        ("copy", keys.hash, keys.other_hash, "replace"),
        ("rename", keys.other_hash, keys.spare),
    ]


def timed(connection: Connection, command: tuple[Any, ...]) -> tuple[float, Any]:
    started = time.monotonic()
    reply = connection.request(*command)
    return time.monotonic() - started, reply


def summary(reply: Any) -> Any:
    """What must be equal: a size instead of many elements, which have no order."""
    return len(reply) if isinstance(reply, list | set | tuple) else reply


class Report:
    """Lines for people, and whether every bar was kept."""

    def __init__(self) -> None:
        self.missed: list[str] = []

    def line(self, what: str, figure: float, bar: float, note: str) -> None:
        kept = figure <= bar
        if not kept:
            self.missed.append(what)
        print(f"{'ok    ' if kept else 'MISSED'} {what:44} {figure:8.2f}  bar {bar:g}  {note}", flush=True)


def ratio(report: Report, members: int) -> None:
    with Cluster(2) as cluster, cluster.connect() as ours, valkey() as port, Connection(port, 60) as theirs:
        keys = Keys(cluster)
        for connection in (ours, theirs):
            fill_all(connection, keys, members)
        copied = 0.0
        for command in commands(keys):
            times: list[list[float]] = [[], []]
            for _ in range(ROUNDS):
                replies = []
                for connection, spent in zip((ours, theirs), times, strict=True):
                    took, reply = timed(connection, command)
                    spent.append(took)
                    replies.append(summary(reply))
                assert replies[0] == replies[1], (command, replies)
                if command[0] == "rename":
                    for connection in (ours, theirs):
                        connection.request("copy", keys.hash, keys.other_hash)
            mine, other = map(statistics.median, times)
            # Below a millisecond there is nothing to compare but round trips between processes.
            figure = mine / max(other, 0.001)
            bar = RATIO_BAR if other > 0.005 else 10 * RATIO_BAR
            if command[0] == "copy":
                copied = other
            if command[0] == "rename":
                # One server only changes a name: the time of a copy is what there is to compare with.
                figure, bar = mine / copied, RATIO_BAR
            report.line(f"{command[0]} of {members}", figure, bar, f"{mine:.3f} s, Valkey {other:.3f} s")


class Bystander(threading.Thread):
    """Reads one key at fixed times; `worst` is the longest that a reply came after the time for its request."""

    def __init__(self, port: int, key: str) -> None:
        super().__init__(daemon=True)
        self.connection = Connection(port, 60)
        self.key = key
        self.waits: list[float] = []
        self.going = True

    def run(self) -> None:
        due = time.monotonic()
        while self.going:
            time.sleep(max(0.0, due - time.monotonic()))
            self.connection.request("get", self.key)
            now = time.monotonic()
            self.waits.append((now - due) * 1000)
            due = max(due + 1 / READS_A_SECOND, now - 1)

    def take(self) -> list[float]:
        waits, self.waits = self.waits, []
        return waits

    def stop(self) -> None:
        self.going = False
        self.join(60)
        self.connection.socket.close()


def watched(bystanders: list[Bystander], work: Any) -> tuple[float, Any, float]:
    """(seconds of the work, what it returns, the longest wait of a bystander in ms)."""
    for bystander in bystanders:
        bystander.take()
    started = time.monotonic()
    result = work()
    spent = time.monotonic() - started
    time.sleep(0.1)  # what was due meanwhile is answered
    return spent, result, max(max(bystander.take(), default=0.0) for bystander in bystanders)


def drained(connection: Connection, command: tuple[Any, ...]) -> bytes:
    """The first byte of the reply, which is read and not looked at: taking a million members apart would keep the
    interpreter from the bystanders here."""
    mark = b"$4\r\n\x00end\r\n"
    connection.send(command, ("echo", b"\x00end"))
    first, tail = b"", b""
    while not tail.endswith(mark):
        data = connection.socket.recv(1 << 20)
        assert data, "the connection was closed"
        first = first or data[:1]
        tail = (tail + data)[-len(mark) :]
    return first


def longest_stall(connection: Connection) -> float:
    """The longest piece of work of a shard, and what it waited for its interpreter, since the last reset (ms)."""
    found = re.findall(rb"longest_stall_usec=(\d+)", connection.request("info", "shards"))
    assert found
    return max(map(int, found)) / 1000


def bystander(report: Report, members: int) -> None:
    with Cluster(2) as cluster, cluster.connect() as connection:
        keys = Keys(cluster)
        fill_all(connection, keys, members)
        watchers = [Bystander(cluster.port, key) for key in (keys.read, keys.other_read)]
        for each in watchers:
            each.start()
        quiet = [watched(watchers, lambda: time.sleep(1))[2] for _ in range(ROUNDS)]
        print(f"       without: {', '.join(f'{wait:.1f}' for wait in quiet)} ms")
        for command in commands(keys):
            runs = []
            for _ in range(ROUNDS):
                connection.request("config", "resetstat")
                spent, reply, worst = watched(watchers, lambda command=command: drained(connection, command))
                assert reply != b"-", command
                runs.append((worst, longest_stall(connection), spent))
                if command[0] == "rename":
                    connection.request("rename", keys.spare, keys.other_hash)
            # What the command itself does to others it does every time; other load on the machine does not.
            worst, stall, spent = (min(figures) for figures in zip(*runs, strict=True))
            note = f"longest stall inside a shard {stall:.1f} ms, {spent:.2f} s"
            report.line(f"longest wait beside {command[0]}, ms", worst, STALL_BAR_MS, note)
        for each in watchers:
            each.stop()


def large(report: Report, members: int) -> None:
    with Cluster(2) as cluster, cluster.connect() as connection:
        keys = Keys(cluster)
        size = 512 << 20
        assert connection.request("setrange", keys.text, size - 1, "x") == size
        watchers = [Bystander(cluster.port, key) for key in (keys.read, keys.other_read)]
        for each in watchers:
            each.start()
        spent, reply, worst = watched(watchers, lambda: connection.request("rename", keys.text, keys.moved))
        assert reply == "OK", reply
        assert connection.request("strlen", keys.moved) == size
        assert connection.request("exists", keys.text) == 0
        report.line("longest wait beside rename of 512 MiB, ms", worst, STALL_BAR_MS, f"OK after {spent:.2f} s")
        fill(connection, "rpush", keys.list, range(members), "member")
        for each in watchers:
            each.stop()
        spent, reply = timed(connection, ("sort", keys.list, "alpha", "limit", 0, 1))
        assert reply == [b"member:0"], reply
        report.line(f"sort limit 0 1 of {members}, s", spent, 2.0, "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=0, help="instead of 300,000 and a million")
    parser.add_argument("--parts", nargs="*", default=["ratio", "bystander", "large"])
    options = parser.parse_args()
    report = Report()
    if "ratio" in options.parts:
        ratio(report, options.members or 300_000)
    if "bystander" in options.parts:
        bystander(report, options.members or 1_000_000)
    if "large" in options.parts:
        large(report, options.members or 1_000_000)
    if report.missed:
        raise SystemExit(f"missed: {', '.join(report.missed)}")


if __name__ == "__main__":
    main()
