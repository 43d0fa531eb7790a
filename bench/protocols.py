#!/usr/bin/env python3
"""Both of Kache's protocols against twemproxy, under `kache bench`: `python bench/protocols.py`

Pipeline of 64 over 50 connections, 32-byte values, 100,000 keys, interleaved rounds, medians. The generator of
`bench/run.py` speaks RESP only and is itself the limit at such rates; this one costs less per request and is the same
for all contenders.
"""

from __future__ import annotations

import argparse
from statistics import median

from contenders import CONTENDERS

from kache.load.generator import run
from kache.load.spec import LoadSpec


def throughput(port: int, command: str, protocol: str, seconds: float) -> float:
    """Requests per second of one run; a wrong reply ends the comparison."""
    spec = LoadSpec(
        port=port, protocol=protocol, commands=command, connections=50, pipeline=64, value_size=32, keys=100_000,
        warmup=0.3, seconds=seconds,
    )  # fmt: skip
    result = run(spec)
    if result.errors or result.unexpected:
        raise SystemExit(f"{command} over {protocol}: {result.errors} errors, {result.unexpected} wrong replies")
    return result.throughput


def main() -> None:
    """One line per command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.2)
    parser.add_argument("--shards", type=int, default=4)
    args = parser.parse_args()
    kache, peer = CONTENDERS["kache"](args.shards), CONTENDERS["twemproxy"](args.shards)
    try:
        kache.start()
        peer.start()
        for command in ("set", "get"):
            figures: dict[str, list[float]] = {}
            for _ in range(args.rounds):
                for name, port, protocol in (
                    ("Kache, binary", kache.port, "binary"),
                    ("Kache, RESP", kache.port, "resp"),
                    ("twemproxy", peer.port, "resp"),
                ):
                    figures.setdefault(name, []).append(throughput(port, command, protocol, args.seconds))
            base = median(figures["twemproxy"])
            line = ", ".join(
                f"{name} {median(v) / 1000:.0f}k ({median(v) / base:.2f} x)" for name, v in figures.items()
            )
            print(f"{command.upper()}: {line}", flush=True)
    finally:
        kache.stop()
        peer.stop()


if __name__ == "__main__":
    main()
