"""One measurement: a load on a contender, its throughput and latencies, and the CPU time it cost.

The generator of the rows with a bar is redis-benchmark, which everybody has and nobody here wrote. Its
own cost is part of every figure on a machine with few cores; ratios between contenders of one run mean
much, absolute figures little.
"""

from __future__ import annotations

import csv
import io
import subprocess
from dataclasses import asdict, dataclass, field
from typing import Any

from contenders import Contender, program

__all__ = ["COMMANDS", "Row", "Sample", "calibrate", "measure", "preload"]

RUN_LIMIT_SECONDS = 300

COMMANDS: dict[str, list[str]] = {
    "GET": ["-t", "get"],
    "SET": ["-t", "set"],
    "INCR": ["INCR", "counter:__rand_int__"],
    "MGET10": ["MGET", *["key:__rand_int__"] * 10],
    "MSET10": ["MSET", *["key:__rand_int__", "VALUE"] * 10],
    "ZADD": ["ZADD", "zset:0", "__rand_int__", "member:__rand_int__"],
    "ZRANGE": ["ZRANGE", "zset:0", "0", "9"],
    "HSET": ["HSET", "hash:0", "field:__rand_int__", "VALUE"],
    "LPUSH": ["LPUSH", "list:__rand_int__", "VALUE"],
}
"""What redis-benchmark is told for each command; VALUE becomes a value of the row's size."""


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
        return f"{self.command}, pipeline {self.pipeline}, {self.connections} connections, {size}"


@dataclass
class Sample:
    """What one run of one row on one contender gave."""

    contender: str
    row: Row
    round: int
    requests_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    cpu_us_per_request: float
    requests: int
    shards: int = 0
    extra: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the raw data file."""
        return asdict(self)


def benchmark_command(row: Row, port: int, requests: int, cluster: bool = False) -> list[str]:
    """The redis-benchmark command line of a row."""
    words = [
        program("redis-benchmark"), "-p", str(port), "-c", str(row.connections), "-P", str(row.pipeline),
        "-n", str(requests), "-r", str(row.keys), "-d", str(row.value_bytes), "--csv", "--precision", "3",
    ]  # fmt: skip
    if cluster:
        words.append("--cluster")
    value = "x" * row.value_bytes
    return words + [value if word == "VALUE" else word for word in COMMANDS[row.command]]


def run_benchmark(command: list[str]) -> dict[str, float]:
    """Runs redis-benchmark and reads the last line of its CSV."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_SECONDS, check=False)
    lines = list(csv.DictReader(io.StringIO(done.stdout)))
    if done.returncode or not lines or not lines[-1].get("rps"):
        raise RuntimeError(f"{' '.join(command[:12])} …: {(done.stderr or done.stdout).strip()[:500]}")
    return {name: float(text) for name, text in lines[-1].items() if name != "test"}


def preload(contender: Contender, row: Row) -> None:
    """Fills the keys that a reading row asks for."""
    if contender.name.startswith("limit") or contender.protocol != "resp":
        return
    needed = {"GET": "SET", "MGET10": "SET", "ZRANGE": "ZADD"}.get(row.command)
    if needed:
        fill = Row(needed, 32 if row.value_bytes <= 1024 else 1, 50, row.value_bytes, row.keys)
        count = min(row.keys * 4, 400_000) if row.value_bytes <= 1024 else row.keys * 3
        run_benchmark(benchmark_command(fill, contender.port, count, contender.name.endswith("cluster")))


def calibrate(contender: Contender, row: Row, seconds: float) -> int:
    """How many requests fill about `seconds`; the run that finds out is the warm-up."""
    probe = max(2000, 500 * row.pipeline, 20 * row.connections)
    if row.value_bytes > 4096:
        probe = max(500, 10 * row.connections)
    cluster = contender.name.endswith("cluster")
    rate = run_benchmark(benchmark_command(row, contender.port, probe, cluster))["rps"]
    rate = run_benchmark(benchmark_command(row, contender.port, max(probe, int(rate * seconds / 4)), cluster))["rps"]
    return max(probe, int(rate * seconds))


def measure(contender: Contender, row: Row, round_number: int, requests: int) -> Sample:
    """One run."""
    command = benchmark_command(row, contender.port, requests, contender.name.endswith("cluster"))
    before = contender.cpu_seconds()
    figures = run_benchmark(command)
    used = contender.cpu_seconds() - before
    return Sample(
        contender=contender.name,
        row=row,
        round=round_number,
        requests_per_second=figures["rps"],
        p50_ms=figures["p50_latency_ms"],
        p95_ms=figures["p95_latency_ms"],
        p99_ms=figures["p99_latency_ms"],
        max_ms=figures["max_latency_ms"],
        cpu_us_per_request=used / requests * 1e6,
        requests=requests,
        shards=contender.shards,
    )
