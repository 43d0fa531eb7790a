#!/usr/bin/env python3
"""What keeping costs: `python bench/durability.py [--part bytes rates loading dump others restart] [--rounds 3] [--seconds 2]`

Kache and a valkey-server with the same settings, on the same disk, in turns; every figure is a ratio of medians of one run.

    bytes     what 1000 SETs add to the log, against the append only file
    rates     SETs per second with a log, against the same server without one, and with always against each other
    loading   how long a million keys take, from a base and from a log, against the same from an RDB base and an AOF
    dump      a million keys under full load: the longest slice, throughput and p99 while it runs
    others    p99 of reads of a shard while another one syncs every write, against the same without a log
    restart   a killed shard with 100,000 keys: how long until it serves; four with a million each, against one

Each line says the bar that it is held to. A machine that others use gives ratios, and only these.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import multiprocessing
import re
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from contenders import Contender, Kache, Valkey
from generators import Figures, Row, generate
from measure import calibrate
from wire import Connection, command

from kache.slots import contiguous, owners, slot_of_key

MILLION = 1_000_000


class KacheKept(Kache):
    """Kache with its settings as options."""


class ValkeyKept(Valkey):
    """A valkey-server, the same settings in its own words."""

    def launch(self) -> None:
        self.extra = tuple(word for name, value in self.options.items() for word in (f"--{name}", value))
        super().launch()


def kept(kind: type[Contender], policy: str, shards: int = 1, **more: str) -> Contender:
    """One that logs by this policy; "none": without a log."""
    options = {"appendonly": "no"} if policy == "none" else {"appendonly": "yes", "appendfsync": policy}
    return kind(shards, {**options, **{name.replace("_", "-"): value for name, value in more.items()}})


@contextlib.contextmanager
def running(contenders: dict[str, Contender]) -> Iterator[dict[str, Contender]]:
    """All of them, started; stopped at the end."""
    try:
        for contender in contenders.values():
            contender.start()
        yield contenders
    finally:
        for contender in contenders.values():
            contender.stop()


def say(what: str, figure: float, bar: str, met: bool) -> None:
    """One line of the result."""
    print(f"{what:<78} {figure:8.3f}   {bar:<22} {'met' if met else 'MISSED'}", flush=True)


def log_bytes(contender: Contender) -> int:
    """What is written of its log, not what is reserved for more."""
    with Connection(contender.port) as connection:
        found = re.search(rb"aof_current_size:(\d+)", connection.text("INFO", "persistence"))
    assert found is not None
    return int(found[1])


# Bytes ------------------------------------------------------------------------------------------------
def bytes_of_sets(rounds: int, seconds: float) -> None:
    """50 clients, P=16: log and append only file grow by so much for a SET of 16 and 32 bytes, and with a time to live."""
    count = 200_000
    both = {"kache": kept(KacheKept, "everysec"), "valkey": kept(ValkeyKept, "everysec")}
    with running(both):
        grown = {}
        for name, contender in both.items():
            before = log_bytes(contender)
            generate(contender, Row("SET", 16), count)
            time.sleep(1.2)
            grown[name] = (log_bytes(contender) - before) / count
            before = log_bytes(contender)
            requests = [command("SET", b"key:%012d" % n, "v" * 32, "PX", 5_000_000) for n in range(20_000)]
            with Connection(contender.port) as connection:
                for at in range(0, len(requests), 800):
                    connection.pipeline(requests[at : at + 800])
            time.sleep(1.2)
            grown[f"{name} px"] = (log_bytes(contender) - before) / len(requests)
    print(f"bytes in the log: { ({name: round(value, 1) for name, value in grown.items()}) }")
    for suffix, bar in (("", 0.75), (" px", 0.6)):
        ratio = grown[f"kache{suffix}"] / grown[f"valkey{suffix}"]
        say(f"log bytes per SET{suffix.upper()}, 50 clients P=16, × valkey", ratio, f"≤ {bar}", ratio <= bar)


# Rates ------------------------------------------------------------------------------------------------
def medians(contenders: dict[str, Contender], row: Row, rounds: int, seconds: float) -> dict[str, Figures]:
    """The run of median throughput of each, in turns."""
    requests = {name: calibrate(contender, row, seconds) for name, contender in contenders.items()}
    runs: dict[str, list[Figures]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            runs[name].append(generate(contender, row, requests[name]))
    middle = {
        name: sorted(figures, key=lambda each: each.requests_per_second)[len(figures) // 2]
        for name, figures in runs.items()
    }
    rates = ", ".join(f"{name} {figures.requests_per_second:,.0f}/s" for name, figures in middle.items())
    print(f"{row.title}: {rates}", flush=True)
    return middle


def rates(rounds: int, seconds: float) -> None:
    """The price of each policy."""
    kinds = {"kache": KacheKept, "valkey": ValkeyKept}
    for shards in (1, 4):
        all_of_them = {
            f"{name} {policy}": kept(kind, policy, shards)
            for name, kind in kinds.items() for policy in ("none", "everysec", "always")
        }  # fmt: skip
        with running(all_of_them):
            for pipeline in (1, 16):
                rates_of(all_of_them, Row("SET", pipeline), shards, rounds, seconds)
            if shards == 1:
                row = Row("SET", 1, 1)
                some = {name: each for name, each in all_of_them.items() if name.endswith("always")}
                found = medians(some, row, rounds, seconds)
                ratio = found["kache always"].requests_per_second / found["valkey always"].requests_per_second
                say("always, 1 client, × valkey always", ratio, "≥ 0.65", ratio >= 0.65)


def rates_of(contenders: dict[str, Contender], row: Row, shards: int, rounds: int, seconds: float) -> None:
    """The bars of one row."""
    rate = {name: each.requests_per_second for name, each in medians(contenders, row, rounds, seconds).items()}
    what = f"{shards} shard{'s' if shards > 1 else ''}, P={row.pipeline}"
    own = rate["kache everysec"] / rate["kache none"]
    lost = 1 - rate["valkey everysec"] / rate["valkey none"]
    say(f"everysec, {what}, × without (valkey loses {lost:.2f})", own, "≥ 0.93", own >= 0.93)
    share, theirs = (rate[f"{name} always"] / rate[f"{name} none"] for name in ("kache", "valkey"))
    say(f"always, {what}, (× without) / (valkey's × without)", share / theirs, "≥ 1.0", share >= theirs)
    if row.pipeline == 1 and shards == 1:
        ratio = rate["kache always"] / rate["valkey always"]
        say(f"always, {what}, × valkey always", ratio, "≥ 0.9", ratio >= 0.9)


# Loading ----------------------------------------------------------------------------------------------
def fill(contender: Contender, keys: int, times: int = 1) -> None:
    """SETs of distinct keys of 16 bytes with values of 32, each so many times."""
    with Connection(contender.port) as connection:
        for turn in range(times):
            value = b"%032d" % turn
            connection.fill((command("SET", b"key:%012d" % n, value) for n in range(keys)), keys, 5)


def restart_seconds(contender: Contender, keys: int) -> float:
    """From the start of its processes until it has all keys."""
    for process in reversed(contender.processes):
        process.terminate()
    for process in contender.processes:
        process.wait(60)
    contender.processes.clear()
    began = time.perf_counter()
    contender.launch()
    while time.perf_counter() - began < 120:
        with contextlib.suppress(OSError, Exception), Connection(contender.port, 5) as connection:
            if connection.call("DBSIZE") == keys:
                return time.perf_counter() - began
        time.sleep(0.01)
    raise SystemExit(f"{contender.name} does not come back with its keys:\n{contender.log_tail()}")


def written_anew(contender: Contender) -> None:
    """BGREWRITEAOF, waited for."""
    with Connection(contender.port) as connection:
        connection.call("BGREWRITEAOF")
        while True:
            time.sleep(0.1)
            info = connection.call("INFO", "persistence")
            assert isinstance(info, bytes | str)
            text = info.decode() if isinstance(info, bytes) else info
            if "aof_rewrite_in_progress:0" in text and "aof_rewrite_scheduled:0" in text:
                return


def loading(rounds: int, seconds: float) -> None:
    """A restart with a million keys; the start of an empty one is taken off."""
    for what, times, bar in (("base of 1M keys", 1, 1.0), ("log of 3M SETs", 3, 0.7)):
        more = {"auto_aof_rewrite_percentage": "0"}
        both = {"kache": kept(KacheKept, "everysec", 1, **more), "valkey": kept(ValkeyKept, "everysec", 1, **more)}
        with running(both):
            took: dict[str, float] = {}
            for name, contender in both.items():
                empty = min(restart_seconds(contender, 0) for _ in range(2))
                fill(contender, MILLION, times)
                if times == 1:
                    written_anew(contender)
                found = [restart_seconds(contender, MILLION) for _ in range(rounds)]
                took[name] = statistics.median(found) - empty
        print(f"loading, {what}: { ({name: round(value, 2) for name, value in took.items()}) } s")
        ratio = took["kache"] / took["valkey"]
        say(f"loading a {what}, one shard, × valkey", ratio, f"≤ {bar}", ratio <= bar)


# Dumps ------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def dumping(contender: Contender) -> Iterator[None]:
    """One dump behind the other meanwhile."""
    over = threading.Event()

    def dump_after_dump() -> None:
        while not over.is_set():
            written_anew(contender)

    dumper = threading.Thread(target=dump_after_dump)
    dumper.start()
    time.sleep(0.1)
    try:
        yield
    finally:
        over.set()
        dumper.join()


def dump(rounds: int, seconds: float) -> None:
    """Dumps of a million keys while 50 clients write at P=16, in turns with the same without."""
    contender = kept(KacheKept, "everysec", 1, auto_aof_rewrite_percentage="0")
    with running({"kache": contender}):
        fill(contender, MILLION)
        row = Row("SET", 16, 50, 32, MILLION)
        requests = calibrate(contender, row, 3 * seconds)
        rate, p99, grown = [], [], 0.0
        for _ in range(rounds):
            before = generate(contender, row, requests)
            memory = contender.memory_bytes()
            with dumping(contender):
                during = generate(contender, row, requests)
                grown = max(grown, (contender.memory_bytes() - memory) / 2**20)
            rate.append(during.requests_per_second / before.requests_per_second)
            p99.append(during.p99_ms / before.p99_ms)
            print(f"{before.requests_per_second:,.0f}/s, p99 {before.p99_ms:.1f} ms; while it dumps "
                  f"{during.requests_per_second:,.0f}/s, p99 {during.p99_ms:.1f} ms", flush=True)  # fmt: skip
        said = r"dumped \d+ keys in (\d+) slices, the longest of (\d+) us of processor time, (\d+) us by the clock"
        dumps = [tuple(map(int, each)) for each in re.findall(said, contender.whole_log())]
    print(f"slices, us of the longest, by the clock (others' turns on the core included): {dumps}")
    longest = max(cpu for _, cpu, _ in dumps) / 1000
    say("dump of 1M keys under load, longest slice, ms of processor time", longest, "≤ 1.0", longest <= 1)
    ratio = statistics.median(rate)
    say("dump of 1M keys under load, throughput × without", ratio, "≥ 0.8", ratio >= 0.8)
    ratio = statistics.median(p99)
    say("dump of 1M keys under load, p99 × without", ratio, "≤ 1.5", ratio <= 1.5)
    say("dump of 1M keys under load, memory, MiB", grown, "≤ 32", grown <= 32)


# Other shards, and those that come back -----------------------------------------------------------------
def keys_of(shards: int, count: int) -> list[list[str]]:
    """So many keys of each shard of a new cluster."""
    owner = owners(contiguous(shards), shards)
    found: list[list[str]] = [[] for _ in range(shards)]
    for number in itertools.count():
        if all(len(keys) == count for keys in found):
            return found
        keys = found[owner[slot_of_key(b"key:%d" % number)]]
        if len(keys) < count:
            keys.append(f"key:{number}")
    raise AssertionError


def write_on(port: int, key: str, rate: int, over: Event) -> None:
    """SETs of one key, so many a second; a process of its own, so that it takes no time from who measures."""
    with Connection(port) as connection:
        began, sent = time.perf_counter(), 0
        while not over.is_set():
            while sent < (time.perf_counter() - began) * rate:
                connection.call("SET", key, "v" * 32)
                sent += 1
            time.sleep(0.0005)


def read_p99(port: int, key: str, seconds: float) -> float:
    """Milliseconds: of one GET after the other."""
    times = []
    with Connection(port) as connection:
        until = time.perf_counter() + seconds
        while (began := time.perf_counter()) < until:
            connection.call("GET", key)
            times.append(time.perf_counter() - began)
    return 1000 * statistics.quantiles(times, n=100)[98]


def others(rounds: int, seconds: float) -> None:
    """2,000 SETs a second on one shard of two, GETs on the other."""
    both = {policy: kept(KacheKept, policy, 2) for policy in ("none", "always")}
    [writing], [reading] = keys_of(2, 1)
    found: dict[str, list[float]] = {policy: [] for policy in both}
    with running(both):
        for _ in range(rounds):
            for policy, contender in both.items():
                over = multiprocessing.Event()
                writer = multiprocessing.Process(target=write_on, args=(contender.port, writing, 2000, over))
                writer.start()
                found[policy].append(read_p99(contender.port, reading, seconds))
                over.set()
                writer.join()
    middle = {policy: statistics.median(times) for policy, times in found.items()}
    print(f"p99 of GETs beside: { ({policy: round(value, 3) for policy, value in middle.items()}) } ms")
    ratio = middle["always"] / middle["none"]
    say("p99 of GETs while another shard syncs, × without a log", ratio, "≤ 1.3", ratio <= 1.3)


def back_seconds(contender: Contender, key: str) -> float:
    """From the kill of the shard that has the key until it serves it again."""
    shard = next(each for each in contender.members() if "shard" in " ".join(each.cmdline()))
    shard.kill()
    began = time.perf_counter()
    shard.wait(10)
    with Connection(contender.port) as connection:
        while isinstance(connection.pipeline([command("GET", key)])[0], Exception):
            if time.perf_counter() - began > 60:
                raise SystemExit(f"the shard does not come back:\n{contender.log_tail()}")
            time.sleep(0.002)
    return time.perf_counter() - began


def restart(rounds: int, seconds: float) -> None:
    """Kills, with the back-off of a first one; and starts of everything."""
    contender = kept(KacheKept, "everysec", 1)
    with running({"kache": contender}):
        fill(contender, 100_000)
        times = []
        for _ in range(max(rounds, 5)):
            times.append(back_seconds(contender, "key:000000000001"))
            time.sleep(1)
    print(f"a killed shard of 100,000 keys: {[round(each, 2) for each in times]} s")
    say("a killed shard of 100,000 keys serves again after, s, the longest", max(times), "< 0.7", max(times) < 0.7)
    took = {}
    for shards in (1, 4):
        contender = kept(KacheKept, "everysec", shards, auto_aof_rewrite_percentage="0")
        with running({"kache": contender}):
            empty = min(restart_seconds(contender, 0) for _ in range(2))
            fill(contender, shards * MILLION)
            took[shards] = (
                statistics.median(restart_seconds(contender, shards * MILLION) for _ in range(rounds)) - empty
            )
    print(f"loading logs of a million SETs each: { ({shards: round(value, 2) for shards, value in took.items()}) } s")
    ratio = took[4] / (4 * took[1])
    say("four shards load a million keys each, × four times one", ratio, "≤ 0.6", ratio <= 0.6)


PARTS = {
    "bytes": bytes_of_sets, "rates": rates, "loading": loading, "dump": dump, "others": others, "restart": restart,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    for part in options.part:
        print(f"\n{part}: {(PARTS[part].__doc__ or '').strip()}")
        PARTS[part](options.rounds, options.seconds)


if __name__ == "__main__":
    main()
