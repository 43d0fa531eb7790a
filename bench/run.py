#!/usr/bin/env python3
"""Kache and its peers side by side: `python bench/run.py` writes bench/report/README.md, plots and raw data.

Rounds are interleaved: every contender runs a row once before any runs it again, so that a slow moment
of the machine hits all alike. What is reported is the median over the rounds, and the spread.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from contenders import CONTENDERS, Contender, Missing, versions_of
from measure import Row, Sample, calibrate, measure, preload
from memory import keyspace_figures
from report import write_report

BAR_CONTENDERS = ["kache", "twemproxy", "valkey"]
FULL_CONTENDERS = ["kache", "twemproxy", "valkey", "valkey-io", "redis", "limit", "limit-one"]

BAR_ROWS = [Row(command, pipeline) for pipeline in (1, 16, 64) for command in ("SET", "GET")]
LATENCY_ROWS = [Row(command, 1, connections) for connections in (1, 4) for command in ("SET", "GET")]
COMMAND_ROWS = [
    Row(command, pipeline)
    for command in ("INCR", "MGET10", "MSET10", "ZADD", "ZRANGE", "HSET", "LPUSH")
    for pipeline in (1, 16)
]
SIZE_ROWS = [
    Row(command, 1, 50, size, 10_000 if size > 1024 else 100_000)
    for size in (1024, 65536)
    for command in ("SET", "GET")
]
WIDE_ROWS = [Row(command, pipeline, 500) for pipeline in (1, 16) for command in ("SET", "GET")]

PROFILES: dict[str, tuple[list[str], list[Row]]] = {
    "bars": (BAR_CONTENDERS, BAR_ROWS + LATENCY_ROWS),
    "full": (FULL_CONTENDERS, BAR_ROWS + LATENCY_ROWS + COMMAND_ROWS + SIZE_ROWS + WIDE_ROWS),
    "quick": (BAR_CONTENDERS, BAR_ROWS),
}


def start(names: list[str], shards: int, options: dict[str, dict[str, str]]) -> tuple[list[Contender], dict[str, str]]:
    """Starts what is installed; says loudly what is left out."""
    running: list[Contender] = []
    left_out: dict[str, str] = {}
    for name in names:
        contender = CONTENDERS[name](shards, options.get(name))
        try:
            contender.start()
        except (Missing, RuntimeError) as error:
            left_out[name] = str(error)
            print(f"LEFT OUT: {name}: {error}", file=sys.stderr)
            continue
        running.append(contender)
    return running, left_out


def answers(contender: Contender, row: Row) -> bool:
    """Whether a contender can run a row at all: the limit only counts SETs."""
    return not contender.name.startswith("limit") or row.command == "SET"


def run_row(row: Row, contenders: list[Contender], rounds: int, seconds: float) -> list[Sample]:
    """All rounds of one row, interleaved."""
    able = [contender for contender in contenders if answers(contender, row)]
    requests: dict[str, int] = {}
    samples: list[Sample] = []
    for contender in able:
        try:
            preload(contender, row)
            requests[contender.name] = calibrate(contender, row, seconds)
        except RuntimeError as error:
            print(f"LEFT OUT of {row.title}: {contender.name}: {error}", file=sys.stderr)
    for number in range(rounds):
        # The order turns from round to round, so that nobody always runs behind the same neighbour.
        turn = number % max(1, len(able))
        for contender in able[turn:] + able[:turn]:
            if contender.name in requests:
                samples.append(measure(contender, row, number, requests[contender.name]))
    return samples


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    model = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else ""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": model,
        "cores": str(usable),
        "kernel": f"{platform.system()} {platform.release()}",
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
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n", 1)[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--profile", choices=PROFILES, default="full", help="which rows and contenders")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds per row; the median counts")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one run")
    parser.add_argument(
        "--shards", type=int, nargs="+", default=[4], help="processes behind each front; several: the rows for each"
    )
    parser.add_argument("--contenders", nargs="+", choices=list(CONTENDERS), help="instead of the profile's")
    parser.add_argument(
        "--option", action="append", default=[], metavar="CONTENDER:NAME=VALUE", help="e.g. twemproxy:mbuf=512"
    )
    parser.add_argument(
        "--keys", type=int, nargs="*", default=[10_000, 1_000_000], help="keyspace sizes for bytes per key"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "report", help="where the report goes")
    return parser.parse_args()


def main() -> None:
    """The one command."""
    args = arguments()
    names, rows = PROFILES[args.profile]
    names = args.contenders or names
    options = options_of(args.option)
    samples: list[Sample] = []
    left_out: dict[str, str] = {}
    ready: dict[str, float] = {}
    commands: dict[str, list[str]] = {}
    for shards in args.shards:
        contenders, missing = start(names, shards, options)
        left_out |= missing
        try:
            for contender in contenders:
                ready[contender.name] = contender.ready_seconds
                commands[contender.name] = contender.commands
            for position, row in enumerate(rows, 1):
                print(f"[{position}/{len(rows)}] {row.title}, {shards} shards", file=sys.stderr, flush=True)
                found = run_row(row, contenders, args.rounds, args.seconds)
                samples += found
                print(summary(found), file=sys.stderr, flush=True)
        finally:
            for contender in contenders:
                contender.stop()
    memory = keyspace_figures(
        [name for name in names if not name.startswith("limit")], args.shards[-1], args.keys, options
    )
    facts = {
        "command": f"python bench/run.py {shlex.join(sys.argv[1:])}".strip(),
        "machine": machine(),
        "versions": versions_of(names),
        "left_out": left_out,
        "ready_seconds": ready,
        "commands": commands,
        "memory": memory,
        "rounds": args.rounds,
        "seconds": args.seconds,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    raw = {"facts": facts, "samples": [sample.to_dict() for sample in samples]}
    (args.out / "raw.json").write_text(json.dumps(raw, indent=1) + "\n")
    write_report(args.out, facts, samples)
    print(args.out / "README.md")


def summary(samples: list[Sample]) -> str:
    """One line while it runs: median requests per second of each contender."""
    from report import medians

    return "    " + "  ".join(f"{name} {value / 1000:.0f}k" for name, value in medians(samples).items())


if __name__ == "__main__":
    main()
