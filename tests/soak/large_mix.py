"""Pipelines of small and large SET, GET, MGET and ECHO from many clients, some of which go away in the middle; every reply is compared.

    python tests/soak/large_mix.py [seconds] [clients] [seed]

Prints what was compared and how much the processes have grown; ends with 1 when a reply was wrong or out of order, or a
connection was closed that had done nothing wrong.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from cluster import Cluster, Connection, encode

MIB = 1 << 20
NOISE = random.Random(0).randbytes(8 * MIB)
SIZES = (0, 10, 1000, 65_536, 300_000, MIB - 10, MIB, MIB + 1, 3 * MIB)


class Client(threading.Thread):
    """One client at a time: it owns its keys, so it knows every reply."""

    def __init__(self, cluster: Cluster, number: int, seed: int, until: float) -> None:
        super().__init__()
        self.cluster = cluster
        self.dice = random.Random(f"{seed}:{number}")
        self.keys = [f"{number}:{i}" for i in range(6)]
        self.values: dict[str, bytes | None] = dict.fromkeys(self.keys)
        self.until = until
        self.compared = self.compared_bytes = self.left = 0
        self.wrong: list[str] = []

    def value(self) -> bytes:
        size = self.dice.choice(SIZES)
        at = self.dice.randrange(len(NOISE) - size)
        return NOISE[at : at + size]

    def commands(self) -> tuple[list[tuple[Any, ...]], list[Any]]:
        """A pipeline and the replies that it must have."""
        asked: list[tuple[Any, ...]] = []
        expected: list[Any] = []
        for _ in range(self.dice.randint(1, 12)):
            key = self.dice.choice(self.keys)
            match self.dice.randint(0, 4):
                case 0:
                    self.values[key] = self.value()
                    asked.append(("SET", key, self.values[key], "EX", 1000))
                    expected.append("OK")
                case 1 | 2:
                    asked.append(("GET", key))
                    expected.append(self.values[key])
                case 3:
                    some = self.dice.sample(self.keys, 3)
                    asked.append(("MGET", *some))
                    expected.append([self.values[one] for one in some])
                case _:
                    value = self.value()
                    asked.append(("ECHO", value))
                    expected.append(value)
        return asked, expected

    def run(self) -> None:
        try:
            while time.monotonic() < self.until and not self.wrong:
                with self.cluster.connect() as connection:
                    self.talk(connection)
        except Exception as error:
            self.wrong.append(repr(error))

    def talk(self, connection: Connection) -> None:
        for _ in range(self.dice.randint(1, 20)):
            if self.dice.random() < 0.1:
                self.leave(connection)
                return
            asked, expected = self.commands()
            sender = threading.Thread(target=connection.send, args=asked)
            sender.start()
            if self.dice.random() < 0.3:
                time.sleep(0.05)
            for command, wanted in zip(asked, expected, strict=True):
                reply = connection.read()
                if reply != wanted:
                    self.wrong.append(f"{command[:2]!r:.60}: {reply!r:.60} instead of {wanted!r:.60}")
                    return
                self.compared += 1
                self.compared_bytes += len(wanted) if isinstance(wanted, bytes) else 0
            sender.join()

    def leave(self, connection: Connection) -> None:
        """Goes away in the middle of a request that changes nothing, or before the replies."""
        self.left += 1
        data = b"".join(encode(("GET", key)) for key in self.keys) + encode(("SET", f"left:{self.keys[0]}", NOISE))
        connection.socket.sendall(data[: self.dice.randrange(1, len(data))])


def resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def main(seconds: int = 60, clients: int = 16, seed: int = 1) -> int:
    """Whether anything was wrong."""
    with Cluster(3, routers=2) as cluster:
        processes = [(role, cluster.pid_of(role, i)) for role, n in (("router", 2), ("shard", 3)) for i in range(n)]
        before = [resident_kib(pid) for _, pid in processes]
        until = time.monotonic() + seconds
        threads = [Client(cluster, number, seed, until) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        cluster.request("FLUSHALL")
        time.sleep(3)
        wrong = [line for thread in threads for line in thread.wrong]
        grown = ", ".join(
            f"{role} {resident_kib(pid) - was:+} KiB" for (role, pid), was in zip(processes, before, strict=True)
        )
        print(
            f"{sum(thread.compared for thread in threads)} replies compared, "
            f"{sum(thread.compared_bytes for thread in threads) >> 20} MiB; {sum(thread.left for thread in threads)} clients "
            f"went in the middle; {len(wrong)} wrong; {grown}"
        )
        print(*wrong[:5], sep="\n")
        trouble = "Traceback" in cluster.log() or "closing" in cluster.log()
        if trouble:
            print(cluster.log()[-3000:])
    return int(bool(wrong) or trouble)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
