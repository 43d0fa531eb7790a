"""What looking at a cluster costs it: a scrape, a snapshot, the sketch of hot keys. Prints figures; bars in brackets.

    python bench/observing.py [--part scrape] [--part sketch] [--part rates] [--seconds 5]

`scrape`: the processor time that a STATS takes from the router and from each shard, with 200,000 keys and all commands of the
usual kinds executed, over many of them [5 ms of any loop].
`sketch`: what the sketch of hot keys takes for a look, Zipf 0.99 over a million keys, and so a second at most [2 % of a core]; of
the first ten keys how many it finds at the pace of a shard that executes 300,000 commands a second [0.9].
`rates`: SET and GET with pipelines of 64, with everything that looks (metrics port scraped every second, `kache top`'s
questions) and with nothing; interleaved, the median of the rounds' ratios [within 3 %]. Rates of a shared machine vary by more
than the bar, so what decides is printed beside them: processor time of routers and shards per command, all that they do for
whoever looks included [at most 1.03 times].
"""

from __future__ import annotations

import argparse
import bisect
import itertools
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import tied

ROUNDS = 5
LOOKS = 16_000
"""A second, from which the sketch looks at fewer commands (LOOKS_PER_SECOND)."""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Cluster:
    """One cluster of two shards, tied to this process."""

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="kache-bench-")
        reader, self._tie = os.pipe()
        self._process = tied.started(
            [
                sys.executable, "-m", "kache", "cluster", "start", "--shards=2", "--routers=1", f"--port={self.port}",
                f"--exit-with-fd={reader}", f"--dir={self._folder.name}", *options,
            ],
            by=signal.SIGTERM, cwd=self._folder.name, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, pass_fds=(reader,),
            env={**os.environ, "KACHE_RUN_DIR": str(Path(self._folder.name) / "run")},
        )  # fmt: skip
        os.close(reader)
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def children(self) -> dict[str, int]:
        """{name: pid} of what runs."""
        found = {}
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                title = path.read_bytes().split(b"\0")[0].decode(errors="replace")
            except OSError:
                continue
            if title.startswith("kache: ") and title.endswith(f":{self.port}"):
                found[title.removeprefix("kache: ").rsplit(" ", 1)[0]] = int(path.parent.name)
        return found

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._tie)
        self._process.wait(30)
        self._folder.cleanup()


def cpu_seconds(pid: int) -> float:
    """Processor time of a process, to the nanosecond."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def scrape() -> None:
    """The processor time of a snapshot."""
    from kache import Client

    with Cluster() as cluster, Client(port=cluster.port) as cache:
        with cache.pipeline() as pipeline:
            for number in range(200_000):
                pipeline.set(f"key:{number}", "x" * 32)
            pipeline.execute()
        for number in range(50):
            cache.get("key:1"), cache.hset("h", {"f": number}), cache.lpush("l", number), cache.sadd("s", number)
            (
                cache.zadd("z", number, "m"),
                cache.incr("n"),
                cache.expire("n", 100),
                cache.mget("key:1", "key:2"),
                cache.ttl("n"),
            )
            cache.hgetall("h"), cache.lrange("l"), cache.smembers("s"), cache.exists("n"), cache.dbsize()
        pids = cluster.children()
        before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        began, times = time.monotonic(), 300
        for _ in range(times):
            cache.execute("stats", "snapshot")
        print(
            f"a snapshot, {(time.monotonic() - began) / times * 1000:.2f} ms from asking to its reply; processor time each:"
        )
        for name, pid in sorted(pids.items()):
            print(f"  {name}: {(cpu_seconds(pid) - before[name]) / times * 1000:.3f} ms [5]")


def sketch() -> None:
    """What a look takes, and recall."""
    from kache.shard.engine.sketch import HotKeys

    weights = list(itertools.accumulate(1 / rank**0.99 for rank in range(1, 1_000_001)))
    draw = random.Random(1).random
    stream = [b"key:%d" % bisect.bisect(weights, draw() * weights[-1]) for _ in range(1_500_000)]
    found, took = [], []
    for turn in range(ROUNDS):
        keys = HotKeys()
        for second in range(5):
            keys.feed(stream[second * 300_000 : (second + 1) * 300_000])
            keys.pace(1000.0 + second)
        found.append(len({key for _, key, _, _ in keys.top(10)} & {b"key:%d" % rank for rank in range(10)}))
        every = HotKeys()
        part = stream[turn * LOOKS : (turn + 1) * LOOKS]
        began = time.process_time_ns()
        every.feed(part)  # up to so many it looks at each
        took.append((time.process_time_ns() - began) / LOOKS)
    each = statistics.median(took)
    print(f"a look takes {each:.0f} ns, {LOOKS} a second at most: {each * LOOKS / 1e7:.2f} % of a core [2];")
    print(f"  at 300,000 commands a second it looks at one in {keys.gap}, and finds {found} of the first 10 [9]")


def rates(seconds: float) -> None:
    """Throughput with everybody looking, and with nobody."""
    metrics = free_port()
    found: dict[str, dict[str, list[float]]] = {"nobody looks": {}, "everybody looks": {}}
    costs: dict[str, dict[str, list[float]]] = {name: {} for name in found}
    for turn in range(2 * ROUNDS):
        looked = turn % 2 == 1
        with Cluster(*((f"--metrics-port={metrics}",) if looked else ())) as cluster:
            over = threading.Event()
            watchers = [threading.Thread(target=_look, args=(cluster.port, metrics, over))] if looked else []
            for watcher in watchers:
                watcher.start()
            for command in ("set", "get"):
                name = "everybody looks" if looked else "nobody looks"
                rate, cost = _rate(cluster, command, seconds)
                found[name].setdefault(command, []).append(rate)
                costs[name].setdefault(command, []).append(cost)
            over.set()
            for watcher in watchers:
                watcher.join()
        print(
            "everybody looks" if looked else "nobody looks",
            *(
                f"{each} {kept[-1]:,.0f}/s"
                for each, kept in found["everybody looks" if looked else "nobody looks"].items()
            ),
            flush=True,
        )
    for command in ("set", "get"):
        without, looked_at = (found[name][command] for name in found)
        ratio = statistics.median(one / other for one, other in zip(looked_at, without, strict=True))
        print(
            f"{command}, pipelines of 64: {statistics.median(without):,.0f}/s and {statistics.median(looked_at):,.0f}/s "
            f"looked at: {ratio:.3f} x [0.97]", flush=True,
        )  # fmt: skip
        alone, beside = (statistics.median(costs[name][command]) for name in costs)
        print(
            f"  processor time {alone:.0f} ns a command, {beside:.0f} looked at: {beside / alone:.3f} x [1.03]",
            flush=True,
        )


def _rate(cluster: Cluster, command: str, seconds: float) -> tuple[float, float]:
    """Commands a second, and the nanoseconds of routers and shards that each took."""
    port, count = cluster.port, int(seconds * 800_000)
    pids = [pid for name, pid in cluster.children().items() if name.startswith(("router", "shard"))]
    before = sum(map(cpu_seconds, pids))
    done = subprocess.run(
        ["redis-benchmark", "-p", str(port), "-c", "20", "-P", "64", "-n", str(count), "-r", "100000", "-d", "32", "-t", command, "--csv"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rate = float(done.stdout.splitlines()[-1].split(",")[1].strip('"'))
    return rate, (sum(map(cpu_seconds, pids)) - before) / count * 1e9


def _look(port: int, metrics: int, over: threading.Event) -> None:
    from kache import Client

    with Client(port=port) as cache:
        while not over.wait(1.0):
            urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=10).read()
            for words in (("stats", "snapshot"), ("hotkeys",), ("bigkeys",), ("slowlog", "get"), ("client", "list")):
                cache.execute(*words)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=("scrape", "sketch", "rates"))
    parser.add_argument("--seconds", type=float, default=4.0)
    chosen = parser.parse_args()
    if "scrape" in (chosen.part or ("scrape",)):
        scrape()
    if "sketch" in (chosen.part or ("sketch",)):
        sketch()
    if "rates" in (chosen.part or ("rates",)):
        rates(chosen.seconds)


if __name__ == "__main__":
    main()
