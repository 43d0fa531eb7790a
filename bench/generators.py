"""Who puts the load on a contender, and what came of it in one form.

redis-benchmark for everything that RESP servers share: everybody has it and nobody here wrote it. `kache bench` for
what it cannot do: a Zipf distribution, a mix, the binary protocol. `load_memcached.c` for memcached, whose protocol
neither speaks. Figures of different generators stand side by side for orientation; a ratio of them says little.

A cluster gets one redis-benchmark per node, on keys with a hash tag of that node; a pinned run several, each on a core of
its own. Its own `--cluster` and `--threads` use threads, and with threads it looks only every 250 ms whether it is done:
short runs would all seem to last as long.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from statistics import mean

from contenders import Contender, Memcached, tied
from programs import program

from kache.errors import KacheError
from kache.load.generator import run
from kache.load.spec import LoadSpec

__all__ = ["KACHE_BENCH", "REDIS_BENCHMARK", "Figures", "Row", "command_line", "generate", "generator_of"]

RUN_LIMIT_SECONDS = 120

REDIS_BENCHMARK: dict[str, list[str]] = {
    "GET": ["GET", "key:TAG__rand_int__"],
    "SET": ["SET", "key:TAG__rand_int__", "VALUE"],
    "INCR": ["INCR", "counter:TAG__rand_int__"],
    "MGET10": ["MGET", *["key:TAG__rand_int__"] * 10],
    "MSET10": ["MSET", *["key:TAG__rand_int__", "VALUE"] * 10],
    "ZADD": ["ZADD", "zset:TAG0", "__rand_int__", "member:__rand_int__"],
    "ZRANGE": ["ZRANGE", "zset:TAG0", "0", "9"],
    "HSET": ["HSET", "hash:TAG0", "field:__rand_int__", "VALUE"],
    "LPUSH": ["LPUSH", "list:TAG__rand_int__", "VALUE"],
}
"""What redis-benchmark is told for each command; VALUE becomes a value of the row's size, TAG the hash tag of a node,
or nothing without a cluster. There `-t get` and `-t set` say the same as GET and SET do here."""

KACHE_BENCH: dict[str, list[str]] = {
    "MIX": ["--commands", "mix", "--reads", "0.9", "--distribution", "zipf:0.99"],
    "ORIGINAL": ["--commands", "original", "--protocol", "binary"],
}
"""What `kache bench` is told for its rows."""

LABELS = {
    "MIX": "90 % GET, 10 % SET, Zipf 0.99",
    "ORIGINAL": "SET, GET, DEL, EXPIRE, ZADD, ZQUERY over the binary protocol",
}


@dataclass(frozen=True)
class Row:
    """One line of the report: a command under a load."""

    command: str
    pipeline: int = 1
    connections: int = 50
    value_bytes: int = 32
    keys: int = 100_000

    @property
    def title(self) -> str:
        """For people: `SET, pipeline 16, 50 connections, 32 B`."""
        size = f"{self.value_bytes} B" if self.value_bytes < 1024 else f"{self.value_bytes // 1024} KiB"
        keys = "" if self.keys == Row.keys else f", {self.keys:,} keys"
        name = LABELS.get(self.command, self.command)
        connections = "1 connection" if self.connections == 1 else f"{self.connections} connections"
        return f"{name}, pipeline {self.pipeline}, {connections}, {size}{keys}"


@dataclass(frozen=True)
class Figures:
    """What a generator saw in one run."""

    requests: int
    requests_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


def generator_of(contender: Contender, row: Row) -> str:
    """The name of the program that drives a row."""
    if contender.protocol == "memcached":
        return "load_memcached"
    return "kache bench" if row.command in KACHE_BENCH else "redis-benchmark"


def command_line(
    contender: Contender, row: Row, requests: int | str, port: int | str, node: int = 0, share: int = 0
) -> list[str]:
    """The words that start the generator of a row, as anybody could type them; of one node, and of its `share`th one."""
    nodes = len(contender.ports())
    parts = nodes * shares(contender, row)
    part = node * shares(contender, row) + share
    connections = row.connections // parts + (part < row.connections % parts)
    load = ["-c", str(connections), "-P", str(row.pipeline), "-n", str(requests), "-r", str(row.keys // nodes),
            "-d", str(row.value_bytes)]  # fmt: skip
    if isinstance(contender, Memcached):
        return [str(contender.generator), *load, str(port), row.command.lower()]
    if row.command in KACHE_BENCH:
        return ["kache", "bench", "-p", str(port), *load, "--warmup", "0", *KACHE_BENCH[row.command]]
    words = [program("redis-benchmark"), "-p", str(port), *load, "--precision", "3"]
    if nodes == 1 and row.command in ("GET", "SET"):
        return [*words, "-t", row.command.lower()]
    tag = f"{{{tag_of(contender, node)}}}" if contender.cluster else ""
    value = "x" * row.value_bytes
    return words + [value if word == "VALUE" else word.replace("TAG", tag) for word in REDIS_BENCHMARK[row.command]]


def shares(contender: Contender, row: Row) -> int:
    """How many redis-benchmarks a node gets: no more than it has connections."""
    return min(contender.generators, max(1, row.connections // len(contender.ports())))


def tag_of(contender: Contender, node: int) -> int:
    """A hash tag whose slot is at a node."""
    return next(tag for tag in count() if contender.node_of(b"%d" % tag) == node)


def generate(contender: Contender, row: Row, requests: int, preload: bool = False) -> Figures:
    """One run. Raises `RuntimeError` where it gave no figures or wrong replies; `preload` is for `kache bench` alone."""
    if row.command in KACHE_BENCH:
        return kache_bench(contender, row, requests, preload)
    several = shares(contender, row)
    each = -(-requests // (len(contender.ports()) * several))
    commands = [
        command_line(contender, row, each, port, node, share)
        for node, port in enumerate(contender.ports())
        for share in range(several)
    ]
    read = read_load_memcached if isinstance(contender, Memcached) else read_redis_benchmark
    return together([read_or_raise(*done, read, each) for done in run_together(commands, contender.load_cores)])


def run_together(commands: list[list[str]], cores: tuple[int, ...]) -> list[tuple[list[str], int, str, str]]:
    """Each command with its exit status, stdout and stderr; all run at the same time, none longer than the limit."""
    started = [tied.started(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for words in commands]
    try:
        for number, process in enumerate(started if cores else []):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(process.pid, {cores[number % len(cores)]})
        ended = [process.communicate(timeout=RUN_LIMIT_SECONDS) for process in started]
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{' '.join(commands[0][:14])} …: not done after {RUN_LIMIT_SECONDS} s") from None
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
                process.communicate()
    return [
        (words, process.returncode, out, err)
        for words, process, (out, err) in zip(commands, started, ended, strict=True)
    ]


def read_or_raise(
    words: list[str], status: int, out: str, err: str, read: Callable[[str, int], Figures | None], requests: int
) -> Figures:
    figures = read(out, requests) if not status else None
    if figures is None:
        raise RuntimeError(f"{' '.join(words[:14])} …: {(err.strip() or out.strip())[:500]}")
    return figures


def together(parts: list[Figures]) -> Figures:
    """Generators that ran side by side as one: done when the last was; a percentile is the mean of theirs."""
    requests = sum(part.requests for part in parts)
    longest = max(part.requests / part.requests_per_second for part in parts)
    p50, p95, p99, p999 = (
        mean(getattr(part, figure) for part in parts) for figure in ("p50_ms", "p95_ms", "p99_ms", "p999_ms")
    )
    return Figures(requests, requests / longest, p50, p95, p99, p999, max(part.max_ms for part in parts))


def read_redis_benchmark(text: str, requests: int) -> Figures | None:
    """The summary and, for p99.9, the percentile distribution: the first listed at or above 99.9."""
    rate = re.search(r"throughput summary: ([\d.]+) requests", text)
    summary = re.search(r"avg +min +p50 +p95 +p99 +max\s+((?:[\d.]+\s+){6})", text)
    listed = text.partition("Latency by percentile distribution")[2].partition("Cumulative distribution")[0]
    percentiles = re.findall(r"([\d.]+)% <= ([\d.]+) milliseconds", listed)
    p999 = next((float(value) for percent, value in percentiles if float(percent) >= 99.9), None)
    if rate is None or summary is None or p999 is None:
        return None
    _, _, p50, p95, p99, highest = (float(word) for word in summary[1].split())
    return Figures(requests, float(rate[1]), p50, p95, p99, p999, highest)


def read_load_memcached(text: str, requests: int) -> Figures | None:
    """Its one line."""
    found = {name: float(value) for name, value in re.findall(r"(\w+)=([\d.]+)", text)}
    if "rps" not in found:
        return None
    return Figures(requests, *(found[name] for name in ("rps", "p50", "p95", "p99", "p999", "max")))


def kache_bench(contender: Contender, row: Row, requests: int, preload: bool) -> Figures:
    """`kache bench`, in this process: the same code as the command."""
    told = dict(zip(KACHE_BENCH[row.command][::2], KACHE_BENCH[row.command][1::2], strict=True))
    spec = LoadSpec(
        port=contender.port,
        protocol="binary" if told.get("--protocol") == "binary" else "resp",
        commands=told["--commands"],
        reads=float(told.get("--reads", "0.9")),
        distribution=told.get("--distribution", "uniform"),
        connections=row.connections,
        pipeline=row.pipeline,
        value_size=row.value_bytes,
        keys=row.keys,
        requests=requests,
        preload=preload,
        warmup=0.0,
    )
    try:
        result = run(spec)
    except KacheError as error:
        raise RuntimeError(f"kache bench: {error}") from None
    if result.errors or result.unexpected or result.mismatches or result.lost or result.unanswered:
        raise RuntimeError(f"kache bench: {'; '.join(result.notes)}")
    seen = result.latency
    return Figures(result.requests, result.throughput, seen.p50, seen.p95, seen.p99, seen.p999, seen.max)
