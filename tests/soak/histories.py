"""Whether what clients see of transactions over shards can have happened one after the other, through kills of shards.

    python tests/soak/histories.py [--seconds 60] [--rounds 5] [--shards 4] [--routers 2] [--seed 1] [--no-kills] [--keep FOLDER]

Eight clients use five keys on all shards, under `appendfsync always`: GET, SET and INCR alone, or two to four of them in one
MULTI. Meanwhile a shard is killed every second or so, and comes back with what its log has. Every call and every answer is
kept with its time, and tests/history.py looks for an order in which all of it can have happened. What was answered UNCERTAIN,
or not at all, may have happened or not, on each shard by itself.

Fails when there is no such order, when the search gives up, or when too little was done. Each round is a cluster of its own.
"""

from __future__ import annotations

import argparse
import pickle
import random
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from cluster import Cluster, Connection, until
from history import Operation, Outcome, Verdict, judge

from kache.errors import CommandError

CLIENTS = 8
KEYS = 5
UNDONE = frozenset({"TRYAGAIN", "CLUSTERDOWN", "LOADING", "EXECABORT", "MISCONF"})
"""Errors that say that nothing was executed."""
UNKNOWN = frozenset({"UNCERTAIN", "TIMEOUT"})

FAR = 1_000_000
"""Between two values that are set: more than there are increments, so that a value tells which SET it comes from."""

Commands = tuple[tuple[Any, ...], ...]


class Recorder:
    """The clients of one cluster, and what they saw."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster = cluster
        own = cluster.keys_by_shard(2)
        self.shard_of = {key: shard for shard, keys in enumerate(own) for key in keys}
        self.keys = [keys[0] for keys in own][:KEYS] + [keys[1] for keys in own][: max(KEYS - len(own), 0)]
        self.seed = seed
        self.stop = threading.Event()
        self.operations: list[Operation] = []
        self.wrong: list[str] = []
        self.refused = self.over_shards = 0

    def work(self, client: int) -> None:
        """One client, connected again whenever it is closed."""
        chance = random.Random(self.seed * 100 + client)
        number = 0
        while not self.stop.is_set():
            try:
                with Connection(self.cluster.port, 20) as connection:
                    while not self.stop.is_set():
                        number += 1
                        self.execute(connection, client, self.draw(chance, (client * 1_000_000 + number) * FAR))
            except OSError:
                time.sleep(0.01)

    def draw(self, chance: random.Random, value: int) -> Commands:
        keys = chance.sample(self.keys, chance.choice([1, 1, 2, 3, 4]))
        return tuple(chance.choice([("get", key), ("set", key, value), ("incr", key)]) for key in keys)

    def execute(self, connection: Connection, client: int, commands: Commands) -> None:
        whole = [*commands] if len(commands) == 1 else [("multi",), *commands, ("exec",)]
        called = time.monotonic()
        try:
            connection.send(*whole)
            reply = connection.read_many(len(whole))[-1]
        except OSError:
            self.keep_unknown(client, called, commands)
            raise
        answered = time.monotonic()
        if isinstance(reply, CommandError):
            if reply.code in UNKNOWN:
                self.keep_unknown(client, called, commands)
            elif reply.code in UNDONE:
                self.refused += 1
                time.sleep(0.01)
            else:
                self.wrong.append(reply.message)
            return
        replies = [reply] if len(commands) == 1 else reply
        errors = [each.message for each in replies if isinstance(each, CommandError)]
        if errors:
            self.wrong += errors
            return
        values = tuple(
            None if name == "set" or each is None else int(each)
            for (name, *_), each in zip(commands, replies, strict=True)
        )
        self.over_shards += len({self.shard_of[command[1]] for command in commands}) > 1
        self.operations.append(Operation(client, called, answered, commands, values))

    def keep_unknown(self, client: int, called: float, commands: Commands) -> None:
        shares: dict[int, list[tuple[Any, ...]]] = {}
        for command in commands:
            if command[0] != "get":
                shares.setdefault(self.shard_of[command[1]], []).append(command)
        for share in shares.values():
            self.operations.append(Operation(client, called, float("inf"), tuple(share), None))


def run(seconds: float, shards: int, routers: int, seed: int, kills: bool) -> tuple[Recorder, int, Verdict]:
    """(what clients saw, shards killed, whether it can have happened) of one cluster."""
    chance = random.Random(seed)
    killed = 0
    with (
        tempfile.TemporaryDirectory() as directory,
        Cluster(shards, routers=routers, dir=directory, appendonly="yes", appendfsync="always",
                request_timeout_ms=3000, transaction_hold_ms=1000) as cluster,
    ):  # fmt: skip
        recorder = Recorder(cluster, seed)
        threads = [threading.Thread(target=recorder.work, args=(client,)) for client in range(CLIENTS)]
        for thread in threads:
            thread.start()
        ends = time.monotonic() + seconds
        while time.monotonic() < ends and not recorder.wrong:
            recorder.stop.wait(min(chance.uniform(0.5, 1.0), max(ends - time.monotonic(), 0)))
            if kills and time.monotonic() < ends:
                shard = chance.randrange(shards)
                cluster.kill(cluster.pid_of("shard", shard))
                killed += 1
                until(lambda shard=shard: cluster.child("shard", shard)["state"] == "up", "the shard")
        recorder.stop.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), "a client still waits"
        with cluster.connect() as connection:
            recorder.execute(connection, CLIENTS, tuple(("get", key) for key in recorder.keys))
    return recorder, killed, judge(recorder.operations)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--routers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-kills", action="store_true")
    parser.add_argument("--keep", metavar="FOLDER", help="where to leave the history of each round, pickled")
    options = parser.parse_args()
    failed = 0
    for round_ in range(options.rounds):
        recorder, killed, verdict = run(
            options.seconds, options.shards, options.routers, options.seed + round_, not options.no_kills
        )
        wrong = "\n".join(recorder.wrong[:3])
        unknown = sum(each.replies is None for each in recorder.operations)
        print(
            f"round {round_}: {len(recorder.operations)} operations, {recorder.over_shards} over shards, {unknown} without "
            f"an outcome, {recorder.refused} refused, {killed} kills: {wrong or verdict}",
            flush=True,
        )
        if options.keep:
            Path(options.keep, f"round-{round_}.pickle").write_bytes(pickle.dumps(recorder.operations))
        failed += bool(wrong) or verdict.outcome is not Outcome.EXPLAINED or recorder.over_shards < 5 * options.seconds
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
