"""What others wait while somebody asks for all of a collection of a million elements, and whether the shard stalls.

    python tests/soak/large_collections.py [--elements 1000000] [--seconds 5] [--only hgetall lrange] [--pipeline 1]

One shard, so that everybody meets; one router. Of each form somebody asks again and again, so many times at once (--pipeline),
and reads all of it, while somebody else asks for small values of the same shard at a fixed rate. Prints, for each form, how often
it was read and how long that took, what the others waited beside it and alone, and the shard's longest stall; every reply is
looked at for its length. Ends with 1 when a stall is above 20 ms or a reply is wrong.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from cluster import Cluster, Connection

EVERY_SECONDS = 0.002
STALL_BAR_MS = 20.0
TOGETHER = 10_000

FORMS: dict[str, tuple[tuple[str, ...], int]] = {
    "hgetall": (("HGETALL", "hash"), 2),
    "hvals": (("HVALS", "hash"), 1),
    "smembers": (("SMEMBERS", "set"), 1),
    "lrange": (("LRANGE", "list", "0", "-1"), 1),
    "zrange": (("ZRANGE", "zset", "0", "-1"), 1),
    "withscores": (("ZRANGE", "zset", "0", "-1", "WITHSCORES"), 2),
    "byscore": (("ZRANGEBYSCORE", "zset", "-inf", "+inf"), 1),
}
"""The words of each, and how many elements its reply has for one of the collection."""


def fill(connection: Connection, elements: int) -> None:
    for start in range(0, elements, TOGETHER):
        numbers = range(start, min(start + TOGETHER, elements))
        connection.request("HSET", "hash", *(word for n in numbers for word in (f"field:{n}", f"value of {n}")))
        connection.request("SADD", "set", *(f"member:{n}" for n in numbers))
        connection.request("RPUSH", "list", *(f"element {n}" for n in numbers))
        connection.request(
            "ZADD", "zset", *(word for n in numbers for word in (str(n * 7919 % elements), f"member:{n}"))
        )
    connection.request("SET", "small", "value")


def read_whole(connection: Connection, words: tuple[str, ...], elements: int, times: int) -> bool:
    """Asks for it so many times and reads its bytes, without making values of them; whether all together have as many elements as
    they should."""
    connection.send(*[words] * times)
    head = b""
    while b"\r\n" not in head:
        head += connection.socket.recv(1 << 20)
    count, _, rest = head.partition(b"\r\n")
    expected = times * (2 * elements + 1) - 1
    lines, last = rest.count(b"\n"), rest[-1:]
    while lines < expected:
        data = connection.socket.recv(1 << 20)
        if not data:
            return False
        lines += data.count(b"\n")
        last = data[-1:]
    return count == b"*%d" % elements and lines == expected and last == b"\n"


class Reader(threading.Thread):
    """Asks again and again; how long each took, and how many were wrong."""

    def __init__(self, cluster: Cluster, words: tuple[str, ...], elements: int, times: int) -> None:
        super().__init__(daemon=True)  # it keeps nobody who wants to end this
        self.connection = cluster.connect()
        self.words, self.elements, self.times = words, elements, times
        self.took: list[float] = []
        self.wrong = 0
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            began = time.perf_counter()
            self.wrong += not read_whole(self.connection, self.words, self.elements, self.times)
            self.took.append(time.perf_counter() - began)
        self.connection.close()


def waits(connection: Connection, seconds: float) -> list[float]:
    """What each of many small requests waited, from when it was due, in milliseconds, the shortest first; those that are not
    due any more when the time is over are not sent."""
    found = []
    due = time.perf_counter()
    end = due + seconds
    while time.perf_counter() < end:
        time.sleep(max(0.0, due - time.perf_counter()))
        assert connection.request("GET", "small") == b"value"
        found.append((time.perf_counter() - due) * 1000)
        due += EVERY_SECONDS
    return sorted(found)


def p99(found: list[float]) -> float:
    return found[int(len(found) * 0.99)]


def stall_ms(connection: Connection) -> float:
    row = connection.request("STATS")[0]
    found = row if isinstance(row, dict) else dict(zip(row[::2], row[1::2], strict=True))
    return int(found[b"longest_stall_us"]) / 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--elements", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--pipeline", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=[*FORMS], default=[*FORMS])
    chosen = parser.parse_args()
    missed = 0
    with Cluster(1) as cluster, cluster.connect() as connection:
        fill(connection, chosen.elements)
        alone = waits(connection, chosen.seconds)
        for name in chosen.only:
            words, each = FORMS[name]
            connection.request("CONFIG", "RESETSTAT")
            reader = Reader(cluster, words, each * chosen.elements, chosen.pipeline)
            reader.start()
            beside = waits(connection, chosen.seconds)
            reader.over.set()
            reader.join()
            stall = stall_ms(connection)
            bad = stall > STALL_BAR_MS or reader.wrong > 0
            missed += bad
            print(
                f"{name:10} read {len(reader.took)} times, {min(reader.took) * 1000:.0f} to {max(reader.took) * 1000:.0f} ms; "
                f"others' p99 {p99(alone):.2f} ms alone, {p99(beside):.2f} beside, worst {beside[-1]:.0f}; stall {stall:.1f} ms"
                + (f"; WRONG {reader.wrong}" if reader.wrong else "")
                + ("  MISSED" if bad else ""),
                flush=True,
            )
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
