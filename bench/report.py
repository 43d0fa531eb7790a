"""The report of a run: Markdown around the tables of `tables.py` and the plots of `plots.py`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import tables
from measure import Sample
from plots import bar_charts, lines
from tables import medians

__all__ = ["medians", "write_report"]

HOW = """Rounds are interleaved, after a warm-up; figures are medians over the rounds, `±` is half the range between the
slowest and the fastest round. The generator shares the cores with the servers; every contender runs without persistence.
CPU is the time of all processes of a contender together, the generator's not counted: µs per request, which is the same
as seconds per million requests."""

GENERATORS = """Three generators, because none speaks to all:

- **redis-benchmark**: every row but those below. Its p99.9 is the first percentile at or above 99.9 that it lists. A cluster
  gets one for each node, with its part of the connections and keys that lie there: clients that know the topology, so that no
  request is forwarded and no MGET split. Its throughput counts until the last is done, a percentile is the mean over the nodes.
  (`--cluster` runs too, but ends its runs at multiples of 250 ms.)
- **`kache bench`**: the mixes. `90 % GET, 10 % SET, Zipf 0.99` draws keys by Zipf's law with exponent 0.99 from 100,000 that were
  all stored before. The original Kache's own mix, over its binary protocol, which only Kache speaks: SET, GET, DEL, EXPIRE, ZADD
  and ZQUERY in equal parts, in random order, keys uniform, sorted sets of 100 members, ZQUERY of up to 10 elements; PERSIST,
  ZSCORE and ZREM, which the original's demo knows too, are not in it.
- **`load_memcached.c`**: all rows of memcached, which speaks another protocol and has one `get` per key here. Against the
  other contenders of a row these figures are an orientation, not a ratio.

twemproxy runs as it comes, but for its mbuf size. At its default level of logging it asks the kernel for the peer's address
with every request (getpeername), for a line that a release build never writes; `twemproxy-quiet` is one level below (`-v 4`)
and about a third to a half faster. The bars are against twemproxy as it comes.

Who cannot run a row is not in it: the limit only counts SETs; a cluster needs a connection for each node, and `kache bench`
does not know its topology."""


def sections(facts: dict[str, Any], samples: list[Sample], out: Path) -> list[str]:
    """Everything that was measured; a heading only where there is something below it."""
    parts: list[str] = []

    def add(title: str, *bodies: str) -> None:
        found = [body for body in bodies if body]
        if found:
            parts.extend([title, *found])

    rows = [sample for sample in samples if sample.part == "rows"]
    for shards in sorted({sample.shards for sample in rows}):
        chosen = tables.grouped([sample for sample in rows if sample.shards == shards])
        parts.append(f"## {shards} shards (or servers behind the proxy)")
        for name, what in (
            ("kache-default", f"as `kache cluster start` starts it: one shard per usable core, here {facts['cores']}"),
            ("kache", f"with {shards} shards"),
        ):
            add(f"### The bars: {name}", *tables.bars(chosen, name, what))
        last = shards == max(sample.shards for sample in rows)
        parts.extend(bar_charts(out, chosen) if last else [])
        add("### CPU per request", tables.cpu(chosen))
        add("### Latency with few connections", tables.latency(chosen))
        add("### Every row", tables.throughput(chosen))
    if len({sample.shards for sample in rows}) > 1:
        add("## As shards go", lines(out / "rows-shards.svg", rows, "shards", "shards (servers behind the proxy)"))
    sweep = [sample for sample in samples if sample.part == "sweep"]
    if sweep:
        add(
            "## As shards go",
            f"{facts['cores']} usable cores; numbers of shards above that are marked with `*`. Kache / twemproxy.",
            tables.sweep(sweep, facts["ready_seconds"], facts["cores"]),
            lines(out / "shards.svg", sweep, "shards", "shards (servers behind the proxy)"),
        )
    keys = [sample for sample in samples if sample.part == "keys"]
    memory = tables.memory(facts["memory"])
    if keys or memory:
        add(
            "## As keys go",
            memory and f"Keys of 16, values of 32 bytes; growth of summed PSS. {tables.BYTES_PER_KEY_TEXT}",
            memory,
            tables.throughput(tables.grouped(keys)) if keys else "",
            lines(out / "keys.svg", keys, "keys", "keys") if keys else "",
        )
    return parts


def write_report(out: Path, facts: dict[str, Any], samples: list[Sample]) -> None:
    """Writes README.md and the plots into `out`."""
    parts = ["# Kache and its peers"]
    took = f"{facts['took_seconds'] / 60:.0f} min"
    parts.append(f"Made by `{facts['command']}` in {took}; raw data in raw.json beside this page.")
    parts.append("\n".join(f"- {name}: {value}" for name, value in facts["machine"].items()))
    parts.append("\n".join(f"- {name}: {line}" for name, line in facts["versions"].items()))
    if facts["left_out"]:
        left_out = [f"- {what}: {why.strip().splitlines()[0][:300]}" for what, why in facts["left_out"].items()]
        parts += ["**Left out:**", "\n".join(left_out)]
    parts += [HOW, GENERATORS]
    if facts["generators_each"] > 1:
        parts.append(f"The connections of a row are divided over **{facts['generators_each']} redis-benchmarks**.")
    if facts["pinned"]:
        servers, generators = (", ".join(map(str, facts["pinned"][side])) for side in ("servers", "generators"))
        parts.append(
            f"**Pinned**: each process of a server has one of the cores {servers} (fronts first, then in turn), each generator "
            f"one of {generators}."
        )
    if facts["mbuf"]:
        best = max(facts["mbuf"], key=facts["mbuf"].get)
        tried = ", ".join(f"{size}: {rate / 1000:.0f}" for size, rate in facts["mbuf"].items())
        parts.append(
            f"twemproxy runs with the mbuf size that suits it best, **{best}**, of those tried before "
            f"(thousand SETs per second, pipeline 64: {tried})."
        )
    parts += sections(facts, samples, out)
    parts += ["## Time to ready", tables.ready(facts["ready_seconds"])]
    servers = [f"{name}: {command}" for name, commands in facts["commands"].items() for command in commands]
    parts += ["## Commands", "Servers:", "```\n" + "\n".join(servers) + "\n```"]
    counted = sorted({f"{sample.round + 1}" for sample in samples}, key=int)
    generators = [re.sub(r"'(\d+) x x'", r"\1 bytes", line) for line in facts["generators"]]
    rounds = f"Generators, {counted[-1] if counted else 0} rounds, REQUESTS and the seconds they took as in raw.json:"
    parts += [rounds, "```\n" + "\n".join(generators) + "\n```"]
    (out / "README.md").write_text("\n\n".join(part for part in parts if part) + "\n")
