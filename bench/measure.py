"""One measurement: a load on a contender, its throughput and latencies, and the CPU time it cost.

The generator's own cost is part of every figure on a machine with few cores; ratios between contenders of one run
mean much, absolute figures little. CPU time is that of the contender's processes alone, all of them together.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import Any

from contenders import Contender
from generators import KACHE_BENCH, Figures, Row, generate, generator_of

__all__ = ["Sample", "answers", "run_row"]


@dataclass(frozen=True)
class Sample(Figures):
    """What one run of one row on one contender gave; `shards` as asked for, also where a contender decides itself."""

    part: str
    contender: str
    shards: int
    row: Row
    round: int
    generator: str
    cpu_us_per_request: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the raw data file."""
        return asdict(self)


def answers(contender: Contender, row: Row) -> bool:
    """Whether a contender can run a row at all: the limit only counts SETs, only Kache speaks the binary protocol."""
    if contender.name.startswith("limit"):
        return row.command == "SET"
    if contender.protocol == "memcached":
        return row.command in ("GET", "SET")
    if row.command == "ORIGINAL":
        return contender.name.startswith("kache")
    if contender.cluster:
        return row.command not in KACHE_BENCH and row.connections >= contender.shards
    return True


def preload(contender: Contender, row: Row) -> None:
    """Fills what a reading row asks for, unless it is there; `kache bench` does that itself."""
    stored = (row.value_bytes, row.keys)
    if row.command in ("GET", "MGET10") and contender.filled != stored:
        small = row.value_bytes <= 1024
        fill = Row("SET", 32 if small else 1, 50, row.value_bytes, row.keys)
        generate(contender, fill, min(row.keys * 4, 400_000) if small else row.keys * 3)
        contender.filled = stored
    elif row.command in ("SET", "MSET10") and contender.filled != stored:
        contender.filled = None
    elif row.command == "ZRANGE":
        generate(contender, Row("ZADD", 32, 50, row.value_bytes, row.keys), 20_000)


def calibrate(contender: Contender, row: Row, seconds: float) -> int:
    """How many requests fill about `seconds`; the run that finds out is the warm-up."""
    probe = max(2000, 200 * row.pipeline, 20 * row.connections)
    if row.value_bytes > 4096:
        probe = max(500, 10 * row.connections)
    rate = generate(contender, row, probe, preload=row.command in KACHE_BENCH).requests_per_second
    rate = generate(contender, row, max(probe, int(rate * min(0.3, seconds / 3)))).requests_per_second
    return max(probe, int(rate * seconds))


def run_row(
    part: str, row: Row, contenders: list[Contender], rounds: int, seconds: float, left_out: dict[str, str],
    filled: bool = False,
) -> list[Sample]:  # fmt: skip
    """All rounds of one row, interleaved; a contender that fails is left out of the rest of it, loudly."""
    able = [contender for contender in contenders if answers(contender, row)]
    requests: dict[str, int] = {}
    samples: list[Sample] = []

    def failed(contender: Contender, error: RuntimeError) -> None:
        left_out[f"{contender.name}, {row.title}, {contender.shards} shards"] = str(error)
        print(f"LEFT OUT of {row.title}: {contender.name}: {error}", file=sys.stderr, flush=True)
        requests.pop(contender.name, None)

    for contender in able:
        try:
            with contender.turn():
                if not filled:
                    preload(contender, row)
                requests[contender.name] = calibrate(contender, row, seconds)
        except RuntimeError as error:
            failed(contender, error)
    for number in range(rounds):
        # The order turns from round to round, so that nobody always runs behind the same neighbour.
        turn = number % max(1, len(able))
        for contender in able[turn:] + able[:turn]:
            if contender.name not in requests:
                continue
            before = contender.cpu_seconds()
            try:
                with contender.turn():
                    figures = generate(contender, row, requests[contender.name])
            except RuntimeError as error:
                failed(contender, error)
                continue
            used = contender.cpu_seconds() - before
            samples.append(sample(part, contender, row, number, figures, used))
    return samples


def sample(part: str, contender: Contender, row: Row, number: int, figures: Figures, cpu_seconds: float) -> Sample:
    """One run of a row: who ran, what its generator saw, and what it cost."""
    return Sample(
        part=part,
        contender=contender.name,
        shards=contender.shards,
        row=row,
        round=number,
        generator=generator_of(contender, row),
        cpu_us_per_request=cpu_seconds / figures.requests * 1e6,
        **asdict(figures),
    )
