#!/usr/bin/env python3
"""What is acknowledged is kept, while everything is killed: `python tests/soak/durability.py --seconds 600 --policy everysec`.

Clients write unique values of every type and remember what was answered; others move tokens between lists and sets of
different shards, alone and inside EXEC. Meanwhile dumps follow one another, shards are killed at random, and now and then all
processes at once; the cluster is started again on the same directory. In the middle the disk is full for some seconds: a
tmpfs, where this user may mount one (`--disk`, megabytes), which a ballast fills. At the end everything is read: a process's
death loses nothing that was acknowledged, under any policy, and nothing is there twice. Of a move that was answered UNCERTAIN
the token may be in both places, never in none. One more client moves money between accounts of different shards, in MULTI.

With `--starts` everything is killed, always in the middle of something, and then single shards and now and then everything
again while the cluster starts, before it is used. Then nothing is ever half: no token is in two places, and the sum of all
accounts is what was paid in.

Prints a table; exit status 1 when a bar is broken: acknowledged and lost 0, there twice 0, there though refused 0, tokens lost
0 and twice without UNCERTAIN 0, money wrong without UNCERTAIN 0, tracebacks 0, back within 2 s of room, and at least a dump, a
kill of a shard and one of everything for every 60 seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from cluster import Cluster, Connection, until

from kache.errors import CommandError, KacheError

NOT_EXECUTED = {"CLUSTERDOWN", "TRYAGAIN", "LOADING", "MISCONF", "OOM"}


class Writer(threading.Thread):
    """A client with keys of its own. Of every value it knows: acknowledged, refused, or open."""

    def __init__(self, number: int, soak: Soak) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.soak = soak
        self.draw = random.Random(number)
        self.outcome: dict[str, dict[str, str]] = {kind: {} for kind in ("list", "set", "zset", "hash", "string")}
        self.counted = Counter[str]()
        self.value = 0

    def key(self, kind: str, part: int) -> str:
        return f"{kind}:{self.number}:{part}"

    def run(self) -> None:
        while not self.soak.over.is_set():
            try:
                with self.soak.connect() as connection:
                    while not self.soak.over.is_set():
                        self.write(connection)
            except (OSError, ConnectionError):
                time.sleep(0.05)

    def write(self, connection: Connection) -> None:
        """One pipeline of values that were never sent before."""
        batch = []
        for _ in range(self.draw.choice((1, 10, 60))):
            self.value = value = self.value + 1
            kind = self.draw.choice(tuple(self.outcome))
            name = f"{value}:{self.draw.randbytes(self.draw.choice((0, 5, 200))).hex()}"
            key = self.key(kind, value % 5)
            words = {
                "list": ("rpush", key, name), "set": ("sadd", key, name), "zset": ("zadd", key, value, name),
                "hash": ("hset", key, name, value), "string": ("set", f"{key}:{value}", name),
            }  # fmt: skip
            batch.append((kind, f"{value % 5}/{name}", words[kind]))
            self.outcome[kind][f"{value % 5}/{name}"] = "open"
        connection.send(*(words for _, _, words in batch))
        for kind, name, _ in batch:
            reply = connection.read()
            if not isinstance(reply, CommandError):
                self.outcome[kind][name] = "acknowledged"
            elif reply.code in NOT_EXECUTED:
                self.outcome[kind][name] = "refused"
            self.counted[reply.code if isinstance(reply, CommandError) else "OK"] += 1

    def found(self, connection: Connection, kind: str) -> list[str]:
        """What is there now of a kind, as often as it is."""
        found = []
        for part in range(5):
            key = self.key(kind, part)
            if kind == "string":
                names = [name for name in self.outcome[kind] if name.startswith(f"{part}/")]
                for at in range(0, len(names), 500):
                    some = names[at : at + 500]
                    connection.send(*(("get", f"{key}:{name.split('/')[1].split(':')[0]}") for name in some))
                    found += [f"{part}/{each.decode()}" for each in connection.read_many(len(some)) if each is not None]
                continue
            words = {
                "list": ("lrange", key, 0, -1), "set": ("smembers", key), "zset": ("zrange", key, 0, -1),
                "hash": ("hkeys", key),
            }  # fmt: skip
            found += [f"{part}/{each.decode()}" for each in connection.request(*words[kind])]
        return found


class Mover(threading.Thread):
    """A client whose tokens are always somewhere: in a list or a set of one of several shards."""

    TOKENS = 20
    PLACES = 6

    def __init__(self, number: int, soak: Soak) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.soak = soak
        self.draw = random.Random(1000 + number)
        self.uncertain = 0
        """Moves after which a token may be in two places."""
        self.moves = 0

    def key(self, kind: str, place: int) -> str:
        return f"{kind}:{self.number}:of:{place}"

    def fill(self, connection: Connection) -> None:
        for kind, command in (("tokens", "rpush"), ("members", "sadd")):
            assert connection.request(command, self.key(kind, 0), *range(self.TOKENS)) == self.TOKENS

    def run(self) -> None:
        while not self.soak.over.is_set():
            try:
                with self.soak.connect() as connection:
                    while not self.soak.over.is_set():
                        self.move(connection)
            except (OSError, ConnectionError):
                self.uncertain += 1  # of the one that was under way nothing is known
                time.sleep(0.05)

    def move(self, connection: Connection) -> None:
        """One token goes somewhere else."""
        here, there = self.draw.sample(range(self.PLACES), 2)
        lmove = ("lmove", self.key("tokens", here), self.key("tokens", there), "left", "right")
        smove = ("smove", self.key("members", here), self.key("members", there), self.draw.randrange(self.TOKENS))
        if self.draw.random() < 0.3:
            connection.send(("multi",), lmove, smove, ("exec",))
            reply = connection.read_many(4)[-1]
        else:
            reply = connection.request(*self.draw.choice((lmove, smove)))
        self.moves += not isinstance(reply, CommandError)
        self.uncertain += isinstance(reply, CommandError) and reply.code in ("UNCERTAIN", "TIMEOUT")

    def found(self, connection: Connection) -> tuple[int, int]:
        """(tokens that are nowhere, tokens beyond one of each)."""
        lost = twice = 0
        for kind, words in (("tokens", (0, -1)), ("members", ())):
            command = "lrange" if kind == "tokens" else "smembers"
            replies = [connection.request(command, self.key(kind, place), *words) for place in range(self.PLACES)]
            there = Counter(int(each) for reply in replies for each in reply)
            lost += self.TOKENS - len(there)
            twice += sum(there.values()) - len(there)
        return lost, twice


class Payer(threading.Thread):
    """A client that moves money between accounts. `unsure`: so much may have left one and not reached the other."""

    ACCOUNTS = 8
    PAID_IN = 1000

    def __init__(self, soak: Soak) -> None:
        super().__init__(daemon=True)
        self.soak = soak
        self.draw = random.Random(77)
        self.unsure = self.transfers = 0

    def fill(self, connection: Connection) -> None:
        words = [word for each in range(self.ACCOUNTS) for word in (f"account:{each}", self.PAID_IN)]
        assert connection.request("mset", *words) == "OK"

    def run(self) -> None:
        amount = 0
        while not self.soak.over.is_set():
            try:
                with self.soak.connect() as connection:
                    while not self.soak.over.is_set():
                        amount = self.draw.randint(1, 9)
                        self.pay(connection, amount)
            except (OSError, ConnectionError):
                self.unsure += amount
                time.sleep(0.05)

    def pay(self, connection: Connection, amount: int) -> None:
        here, there = self.draw.sample(range(self.ACCOUNTS), 2)
        pair = ("decrby", f"account:{here}", amount), ("incrby", f"account:{there}", amount)
        connection.send(("multi",), *pair, ("exec",))
        reply = connection.read_many(4)[-1]
        self.transfers += not isinstance(reply, CommandError)
        if isinstance(reply, CommandError) and reply.code in ("UNCERTAIN", "TIMEOUT"):
            self.unsure += amount

    def off(self, connection: Connection) -> int:
        """By how much all accounts together are not what was paid in."""
        found = connection.request("mget", *(f"account:{each}" for each in range(self.ACCOUNTS)))
        return abs(sum(map(int, found)) - self.ACCOUNTS * self.PAID_IN)


class SmallDisk:
    """A tmpfs of so many MiB over a directory; nothing where it cannot be mounted. `fill` leaves no room in it."""

    def __init__(self, directory: Path, megabytes: int) -> None:
        self.directory = directory
        self.ballast = directory / "ballast"
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "kache-soak", str(directory)]
        self.mounted = bool(megabytes) and subprocess.run(command, check=False).returncode == 0

    def fill(self) -> None:
        """To be called again and again: a dump that ends gives room back."""
        with contextlib.suppress(OSError), self.ballast.open("ab") as file:
            room = os.statvfs(self.directory)
            os.posix_fallocate(file.fileno(), file.tell(), room.f_bavail * room.f_frsize)

    def free(self) -> None:
        self.ballast.unlink()

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.directory)], check=True)


class Soak:
    """The cluster, its clients and its killer."""

    def __init__(self, options: argparse.Namespace, directory: Path) -> None:
        self.options = options
        self.directory = directory
        self.over = threading.Event()
        self.serving = threading.Event()
        self.happened = Counter[str]()
        self.draw = random.Random(options.seed)
        self.logs = ""
        self.port = 0
        self.back_ms = 0
        self.disk = SmallDisk(directory, options.disk)
        self.cluster = self.started()
        self.serving.set()

    def started(self) -> Cluster:
        cluster = Cluster(
            self.options.shards, routers=1, port=self.port, dir=self.directory, appendonly="yes",
            appendfsync=self.options.policy,
        )  # fmt: skip
        until(lambda: self.try_to_start(cluster), "a start", 60)
        self.port = cluster.port
        return cluster

    def try_to_start(self, cluster: Cluster) -> bool:
        with contextlib.suppress(AssertionError):
            cluster.start()
            return True
        return False

    def connect(self) -> Connection:
        while not self.serving.wait(1):
            if self.over.is_set():
                raise ConnectionError("it is over")
        return Connection(self.port, 30)

    def start_and_kill(self) -> None:
        """A start in which shards are killed at random, and sometimes everything, before anybody uses it."""
        for _ in range(self.draw.randint(1, 3)):
            killer = threading.Thread(target=self.kill_shards, args=(self.draw.randint(0, 6),), daemon=True)
            self.cluster = Cluster(
                self.options.shards, routers=1, port=self.port, dir=self.directory, appendonly="yes",
                appendfsync=self.options.policy,
            )  # fmt: skip
            killer.start()
            until(lambda: self.try_to_start(self.cluster), "a start", 60)
            if self.draw.random() < 0.5:
                self.end_everything()  # often before all are up
                killer.join()
                continue
            killer.join()
            break
        else:
            self.cluster = self.started()
        until(self.all_up, "all shards", 60)

    def all_up(self) -> bool:
        return all(child["state"] == "up" for child in self.cluster.status()["children"])

    def kill_shards(self, most: int) -> None:
        """So many of them, each as soon as it is there or a moment later."""
        draw = random.Random(most + self.happened["everything killed"])
        for _ in range(most):
            time.sleep(draw.choice((0, 0.02, 0.1, 0.4)) * draw.random())
            with contextlib.suppress(AssertionError, OSError, KacheError):
                self.cluster.kill(self.cluster.pid_of("shard", draw.randrange(self.options.shards)))
                self.happened["shards killed"] += 1

    def dump(self) -> None:
        """A dump after the other."""
        while not self.over.is_set():
            with contextlib.suppress(OSError, ConnectionError), self.connect() as connection:
                while not self.over.is_set():
                    reply = connection.request("BGREWRITEAOF")
                    self.happened["dumps begun"] += not isinstance(reply, CommandError)
                    time.sleep(0.2)
            time.sleep(0.05)

    def kill_something(self) -> None:
        if self.options.starts:
            self.serving.clear()
            self.end_everything()
            self.start_and_kill()
            self.serving.set()
            return
        if self.draw.random() < 0.75:
            self.happened["shards killed"] += 1
            with contextlib.suppress(ProcessLookupError):
                self.cluster.kill(self.cluster.pid_of("shard", self.draw.randrange(self.options.shards)))
            return
        self.end_everything()
        self.cluster = self.started()

    def end_everything(self) -> None:
        self.happened["everything killed"] += 1
        for pid in [self.cluster.process.pid, *(child["pid"] for child in self.cluster.status()["children"])]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.cluster.process.wait()
        self.logs += self.cluster.log()
        self.cluster._clean()

    def be_full(self) -> None:
        """The disk has no room for five seconds: writes are refused, reads are not; then it has."""
        with self.connect() as connection:
            # A shard may have reserved some room before: until that is used up it goes on.
            until(lambda: self.disk.fill() or self.is_refused(connection), "a refusal", 60)
            for _ in range(50):
                self.disk.fill()
                time.sleep(0.1)
            self.happened["reads while full"] += not isinstance(connection.request("get", "probe:0"), CommandError)
            self.disk.free()
            began = time.monotonic()
            until(lambda: not self.is_refused(connection), "the way back", 30)
        self.happened["disk full"] += 1
        self.back_ms = round(1000 * (time.monotonic() - began))

    def is_refused(self, connection: Connection) -> bool:
        """Whether a shard refuses to write."""
        replies = [connection.request("set", f"probe:{number}", "x") for number in range(20)]
        return any(isinstance(reply, CommandError) and reply.code == "MISCONF" for reply in replies)

    def run(self) -> tuple[list[Writer], list[Mover], Payer]:
        writers = [Writer(number, self) for number in range(self.options.clients)]
        movers = [Mover(number, self) for number in range(2)]
        payer = Payer(self)
        with self.connect() as connection:
            payer.fill(connection)
            for mover in movers:
                mover.fill(connection)
        dumper = threading.Thread(target=self.dump, daemon=True)
        threads = [*writers, *movers, payer, dumper]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        while time.monotonic() < began + self.options.seconds:
            time.sleep(self.draw.uniform(1, 4))
            if (
                self.disk.mounted
                and not self.happened["disk full"]
                and (time.monotonic() > began + self.options.seconds / 3)
            ):
                self.be_full()
            self.kill_something()
        self.over.set()
        for thread in threads:
            thread.join(60)
        return writers, movers, payer

    def verdict(self, writers: list[Writer], movers: list[Mover], payer: Payer) -> dict[str, int]:
        until(self.all_up, "all up", 60)
        counts = Counter[str]()
        with self.connect() as connection:
            for writer in writers:
                for kind, outcomes in writer.outcome.items():
                    found = Counter(writer.found(connection, kind))
                    for name, outcome in outcomes.items():
                        counts[outcome] += 1
                        counts["acknowledged and lost"] += outcome == "acknowledged" and not found[name]
                        counts["there though refused"] += outcome == "refused" and found[name] > 0
                        counts["there twice"] += found[name] > 1
                    counts["never sent"] += len(set(found) - set(outcomes))
            for mover in movers:
                lost, twice = mover.found(connection)
                counts["moves"] += mover.moves
                counts["tokens lost"] += lost
                counts["moves uncertain"] += mover.uncertain
                counts["tokens in two places"] += twice
                counts["twice without cause"] += twice if self.options.starts else max(twice - 2 * mover.uncertain, 0)
            counts["transfers"] = payer.transfers
            counts["money off"] = payer.off(connection)
            counts["money off without cause"] = max(counts["money off"] - payer.unsure * (not self.options.starts), 0)
        counts["tracebacks"] = (self.logs + self.cluster.log()).count("Traceback")
        return dict(counts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--policy", choices=("always", "everysec", "no"), default="everysec")
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--disk", type=int, default=4096, help="MiB of the tmpfs; 0: the temporary directory itself")
    parser.add_argument(
        "--starts", action="store_true", help="kill shards while the cluster starts, not while it serves"
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kache-soak-") as directory:
        soak = Soak(options, Path(directory))
        try:
            writers, movers, payer = soak.run()
            counts = {**soak.happened, **soak.verdict(writers, movers, payer), "ms back from full": soak.back_ms}
        finally:
            soak.over.set()
            soak.cluster.__exit__(None)
            soak.disk.close()
    for name, count in counts.items():
        print(f"{name:<24} {count:>9,}")
    print("replies:", dict(sum((writer.counted for writer in writers), Counter())))
    bad = ("acknowledged and lost", "there though refused", "there twice", "never sent", "tracebacks", "tokens lost",
           "twice without cause", "money off without cause")  # fmt: skip
    fewest = min(counts.get(what, 0) for what in ("dumps begun", "shards killed", "everything killed"))
    enough = fewest >= options.seconds // 60 and (not soak.disk.mounted or counts.get("disk full") == 1)
    return int(any(counts.get(name) for name in bad) or not enough or soak.back_ms > 2000)


if __name__ == "__main__":
    sys.exit(main())
