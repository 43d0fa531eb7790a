#!/usr/bin/env python3
"""Kache and its peers side by side: `python bench/run.py` writes bench/report/README.md, plots and raw data.

Rounds are interleaved: every contender runs a row once before any runs it again, so that a slow moment
of the machine hits all alike. What is reported is the median over the rounds, and the spread.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

if missing := [name for name in ("matplotlib", "psutil", "kache") if find_spec(name) is None]:
    raise SystemExit(f"{', '.join(missing)} not found: pip install -e '.[report]' has what this program needs")

import psutil
from contenders import CONTENDERS, Contender, tied, versions_of
from generators import Row, command_line, generator_of
from keyspace import bytes_per_key
from measure import Sample, answers, run_row
from pinning import Cores, pin
from profiles import MBUF_SIZES, PROFILES, Part, Profile
from programs import Missing, usable_cores
from report import medians, write_report

BYTES_EXPECTED_PER_KEY = 160  # a generous guess, to know beforehand what does not fit


@dataclass
class Bench:
    """One run of the command: what it was asked for, and what it has found so far."""

    args: argparse.Namespace
    options: dict[str, dict[str, str]]
    cores: Cores | None = None  # of a pinned run
    generators_each: int = 1
    samples: list[Sample] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    ready: dict[str, dict[int, float]] = field(default_factory=dict)
    commands: dict[str, list[str]] = field(default_factory=dict)
    generators: dict[str, None] = field(default_factory=dict)
    memory: dict[str, dict[int, float]] = field(default_factory=dict)
    mbuf: dict[int, float] = field(default_factory=dict)

    def leave_out(self, what: str, why: str) -> None:
        """Loudly, and in the report."""
        self.left_out[what] = why
        print(f"LEFT OUT: {what}: {why}", file=sys.stderr, flush=True)

    def chosen(self, names: list[str]) -> list[str]:
        """Of the contenders of a part those that the command line allows."""
        wanted = self.args.contenders
        return names if wanted is None else [name for name in names if name in wanted]

    @contextlib.contextmanager
    def running(self, names: list[str], shards: int, options: dict[str, dict[str, str]]) -> Iterator[list[Contender]]:
        """Starts what is installed, says what is left out, and stops it all."""
        with contextlib.ExitStack() as stack:
            found: list[Contender] = []
            for name in names:
                contender = CONTENDERS[name](shards, options.get(name))
                stack.callback(contender.stop)
                try:
                    contender.start()
                except (Missing, RuntimeError, OSError) as error:
                    self.leave_out(name, str(error))
                    continue
                contender.generators = self.generators_each
                if self.cores is not None:
                    pin(contender, self.cores)
                found.append(contender)
                self.ready.setdefault(name, {})[shards] = contender.ready_seconds
                self.commands.setdefault(name, contender.commands)
            yield found

    def rows(
        self, part: str, rows: list[Row], contenders: list[Contender], rounds: int, seconds: float, filled: bool = False
    ) -> None:
        """The rows one after the other, each with its line of progress."""
        rounds, seconds = self.args.rounds or rounds, self.args.seconds or seconds
        for position, row in enumerate(rows, 1):
            able = [contender for contender in contenders if answers(contender, row)]
            if not able:
                continue
            for contender in able:
                words = command_line(contender, row, "REQUESTS", "PORT")
                words[0] = generator_of(contender, row).split()[0]
                self.generators[shlex.join([word if len(word) < 100 else f"{len(word)} x x" for word in words])] = None
            print(f"[{part} {position}/{len(rows)}] {row.title}, {able[0].shards} shards", file=sys.stderr, flush=True)
            found = run_row(part, row, able, rounds, seconds, self.left_out, filled)
            self.samples += found
            line = "  ".join(f"{name} {value / 1000:.0f}k" for name, value in medians(found).items())
            print(f"    {line}", file=sys.stderr, flush=True)

    def part(self, part: Part) -> None:
        """A part of the profile, for each number of shards."""
        names = self.args.contenders or part.contenders if part.name == "rows" else self.chosen(part.contenders)
        for shards in part.shards or self.args.shards:
            with self.running(names, shards, self.options) as contenders:
                self.rows(part.name, part.rows, contenders, part.rounds, part.seconds)

    def keyspaces(self, profile: Profile) -> None:
        """Bytes per key for each size, and the rows on what was filled."""
        kept = self.chosen(profile.key_rows or [])
        for size in self.args.keys if self.args.keys is not None else profile.sizes:
            needed, free = size * BYTES_EXPECTED_PER_KEY * (len(kept) + 1), psutil.virtual_memory().available
            if needed > free:
                self.leave_out(f"{size:,} keys", f"needs about {needed >> 20:,} MiB, {free >> 20:,} MiB are free")
                continue
            # What only says how much memory it takes makes room for the next; what runs rows stays.
            names = self.chosen(profile.memory)
            for name in [name for name in names if name not in kept]:
                with self.running([name], self.args.shards[-1], self.roomy(size)) as contenders:
                    self.weigh(contenders, size)
            with self.running(
                [name for name in names if name in kept], self.args.shards[-1], self.options
            ) as contenders:
                self.weigh(contenders, size)
                rows = [Row(command, 16, keys=size) for command in ("SET", "GET")]
                self.rows("keys", rows, contenders, profile.key_rounds, profile.key_seconds, filled=True)

    def roomy(self, size: int) -> dict[str, dict[str, str]]:
        """The options, with so much memory for memcached that it evicts nothing."""
        return self.options | {"memcached": {"megabytes": str(max(1024, size * 2 * BYTES_EXPECTED_PER_KEY >> 20))}}

    def weigh(self, contenders: list[Contender], size: int) -> None:
        """Bytes per key of each; a contender that does not take the keys drops out of the list."""
        for contender in list(contenders):
            try:
                self.memory.setdefault(contender.name, {})[size] = bytes_per_key(contender, size)
            except (RuntimeError, OSError) as error:
                self.leave_out(f"{contender.name}, {size:,} keys", str(error))
                contenders.remove(contender)

    def tune(self) -> None:
        """Which mbuf size suits twemproxy best, unless the command line says one."""
        if "mbuf" in self.options.get("twemproxy", {}) or not self.chosen(["twemproxy"]):
            return
        row, rates = Row("SET", 64), dict[int, list[float]]()
        with contextlib.ExitStack() as stack:
            proxies: dict[int, Contender] = {}
            for size in MBUF_SIZES:
                started = stack.enter_context(
                    self.running(["twemproxy"], self.args.shards[-1], {"twemproxy": {"mbuf": str(size)}})
                )
                for contender in started:
                    proxies[size] = contender
            for _ in range(self.args.rounds or 3):
                for size, proxy in proxies.items():
                    found = run_row("mbuf", row, [proxy], 1, self.args.seconds or 0.4, self.left_out)
                    rates.setdefault(size, []).extend(sample.requests_per_second for sample in found)
        self.mbuf = {size: median(found) for size, found in rates.items() if found}
        self.commands.pop("twemproxy", None)
        if self.mbuf:
            best = max(self.mbuf, key=lambda size: self.mbuf[size])
            for name in ("twemproxy", "twemproxy-quiet"):
                self.options.setdefault(name, {})["mbuf"] = str(best)
            print(f"twemproxy's mbuf: {best}, of {self.mbuf}", file=sys.stderr, flush=True)

    def facts(self, names: list[str], seconds: float) -> dict[str, Any]:
        """All that is not a sample."""
        return {
            "command": f"python bench/run.py {shlex.join(sys.argv[1:])}".strip(),
            "took_seconds": round(seconds),
            "machine": machine(),
            "cores": usable_cores(),
            "generators_each": self.generators_each,
            "pinned": None
            if self.cores is None
            else {"servers": self.cores.servers, "generators": self.cores.generators},
            "versions": versions_of(names),
            "left_out": self.left_out,
            "ready_seconds": self.ready,
            "commands": self.commands,
            "generators": list(self.generators),
            "memory": self.memory,
            "mbuf": self.mbuf,
        }


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    model = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else ""
    return {
        "processor": model,
        "cores": str(usable_cores()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def options_of(words: list[str]) -> dict[str, dict[str, str]]:
    """`--option kache:routers=2` as {"kache": {"routers": "2"}}."""
    options: dict[str, dict[str, str]] = {}
    for word in words:
        name, _, rest = word.partition(":")
        key, equals, value = rest.partition("=")
        if name not in CONTENDERS or not equals:
            raise SystemExit(
                f"bench: --option {word!r} is not CONTENDER:NAME=VALUE with one of {', '.join(CONTENDERS)}"
            )
        options.setdefault(name, {})[key] = value
    return options


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--profile", choices=PROFILES, default="full", help="which rows and contenders [full]")
    parser.add_argument("--rounds", type=int, help="interleaved rounds per row; the median counts [the profile's]")
    parser.add_argument("--seconds", type=float, help="length of one run [the profile's, by row]")
    parser.add_argument(
        "--shards", type=int, nargs="+", default=[4], help="processes behind each front; several: the rows for each [4]"
    )
    parser.add_argument(
        "--contenders",
        nargs="+",
        choices=list(CONTENDERS),
        help="instead of the profile's; its other parts take theirs of them",
    )
    parser.add_argument(
        "--option", action="append", default=[], metavar="CONTENDER:NAME=VALUE", help="e.g. twemproxy:mbuf=512"
    )
    parser.add_argument("--pin", action="store_true", help="every process on a core of its own [in profile cores]")
    parser.add_argument(
        "--generators", type=int, help="redis-benchmarks that share the connections [1; cores: one per four cores]"
    )
    parser.add_argument("--keys", type=int, nargs="*", help="keyspace sizes [the profile's]")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "report", help="where the report goes")
    return parser.parse_args()


def main() -> None:
    """The one command."""
    args = arguments()
    tied.orderly()
    profile = PROFILES[args.profile]
    several = args.generators or (max(1, usable_cores() // 4) if profile.pin else 1)
    cores = Cores.divide(several) if profile.pin or args.pin else None
    bench = Bench(args, options_of(args.option), cores, several)
    began = time.monotonic()
    if profile.tune:
        bench.tune()
    for part in profile.parts:
        bench.part(part)
    bench.keyspaces(profile)
    names = args.contenders or list(dict.fromkeys(name for part in profile.parts for name in part.contenders))
    facts = bench.facts(names, time.monotonic() - began)
    args.out.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(sample.to_dict()) for sample in bench.samples)
    (args.out / "raw.json").write_text(f'{{"facts": {json.dumps(facts, indent=1)},\n"samples": [\n{lines}\n]}}\n')
    write_report(args.out, facts, bench.samples)
    print(args.out / "README.md")


if __name__ == "__main__":
    main()
