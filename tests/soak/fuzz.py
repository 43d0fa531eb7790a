"""Fuzzing of both codecs, the link, the log's reader and the rules of users, for as long as you like.

    python tests/soak/fuzz.py [--seconds 600] [--seed 1] [--keep FOLDER] [TARGET …]

With atheris (`pip install atheris`), inputs are chosen by what of the Python code they reach; each target gets its part of the
time in a process of its own, and its inputs stay in FOLDER/TARGET for the next time. Without it they are mutations of what is
right, from a seeded generator; so are those of `link`, which runs an event loop. The compiled modules are not instrumented
for coverage: run it on tests/soak/sanitized.py's build to see reads beyond a buffer. Ends with 1 for a defect, with its input.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "unit" / "shard"))

from fuzz_targets import TARGETS, mutated

LONGEST = 65536
NOT_GUIDED = ("link",)


logging.disable(logging.CRITICAL)  # what closes a link is told there


def by_mutation(name: str, seconds: float, seed: int) -> str:
    """What is wrong, or ""."""
    target, dice = TARGETS[name], random.Random(f"{seed}:{name}")
    until = time.monotonic() + seconds
    tried = 0
    while time.monotonic() < until:
        data = mutated(dice, target.seeds(dice))[:LONGEST]
        try:
            target.run(data)
        except Exception as error:
            return f"{name}: {type(error).__name__}: {error} with {data!r}"
        tried += 1
    print(f"{name}: {tried} mutations, no defect", flush=True)
    return "" if tried else f"{name}: nothing was tried"


def by_coverage(name: str, seconds: float, seed: int, corpus: Path) -> str:
    """The same with atheris, in a process of its own: it never returns."""
    corpus.mkdir(parents=True, exist_ok=True)
    dice = random.Random(seed)
    for number in range(50):
        (corpus / f"seed-{number}").write_bytes(TARGETS[name].seeds(dice)[:LONGEST])
    words = [sys.executable, __file__, "--guided", name, str(corpus), f"-max_total_time={round(seconds)}", f"-seed={seed}",
             f"-max_len={LONGEST}", f"-artifact_prefix={corpus}/defect-", "-print_final_stats=1"]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=seconds + 300)
    stats = [
        line for line in done.stderr.splitlines() if line.startswith(("stat::number_of_executed", "stat::new_units"))
    ]
    print(f"{name}: {'; '.join(stats) or 'ended early'}", flush=True)
    return "" if done.returncode == 0 else f"{name}: {done.stdout[-2000:]}{done.stderr[-4000:]}"


def guided(name: str, words: list[str]) -> None:
    """What `by_coverage` starts."""
    import atheris

    atheris.instrument_all()
    target = TARGETS[name].run
    atheris.Setup([sys.argv[0], *words], lambda data: target(bytes(data)))
    atheris.Fuzz()


def main() -> int:
    """See the module."""
    if sys.argv[1:2] == ["--guided"]:
        guided(sys.argv[2], sys.argv[3:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="all in all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], metavar="TARGET")
    chosen = parser.parse_args()
    names = chosen.targets or list(TARGETS)
    has_atheris = importlib.util.find_spec("atheris") is not None
    wrong = []
    with tempfile.TemporaryDirectory(prefix="kache-fuzz-") as temporary:
        for name in names:
            part = chosen.seconds / len(names)
            if has_atheris and name not in NOT_GUIDED:
                found = by_coverage(name, part, chosen.seed, (chosen.keep or Path(temporary)) / name)
            else:
                found = by_mutation(name, part, chosen.seed)
            wrong += [found] if found else []
    for text in wrong:
        print(f"BROKEN: {text}", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
