"""How long SCRIPT KILL and FUNCTION KILL take: every loop form that tests/security knows, over a real cluster.

    python tests/soak/script_kill.py [--rounds 5] [--shards 1]

The time from sending the KILL that was answered OK to the error of what it ended, at their clients. Exit status 1 when one
took more than 100 ms, or said anything else than that it was killed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "security")]

from cluster import Cluster, Connection  # noqa: E402  # it lies beside this folder
from test_script_escapes import LOOPS  # noqa: E402

BAR_MS = 100.0
GIVEN_UP_S = 30.0


def library(loops: list[str]) -> str:
    """The same as functions."""
    functions = (
        f"redis.register_function{{function_name='loop{number}', flags={{'no-writes'}}, callback=function()\n{text}\nend}}"
        for number, text in enumerate(loops)
    )
    return "#!lua name=loops\n" + "\n".join(functions)


def took(running: Connection, other: Connection, words: tuple[object, ...], kind: str) -> float:
    """Milliseconds."""
    running.send(words)
    until = time.monotonic() + GIVEN_UP_S
    while True:
        began = time.perf_counter()
        said = other.request(kind, "KILL")
        if said == "OK":
            break
        if time.monotonic() > until or not str(said).startswith(("NOTBUSY", "BUSY")):
            raise SystemExit(f"{words}: {kind} KILL said {said}")
    answer = str(running.read())
    passed = (time.perf_counter() - began) * 1000
    if not answer.startswith("ERR Script killed by user with SCRIPT KILL... script: "):
        raise SystemExit(f"{words}: {answer}")
    return passed


def cases() -> Iterator[tuple[tuple[object, ...], str, str]]:
    """A command that does not end, what kills it, its text."""
    for number, text in enumerate(LOOPS):
        yield ("EVAL", text, 1, "k"), "SCRIPT", text
        yield ("FCALL", f"loop{number}", 1, "k"), "FUNCTION", text


def main() -> int:
    """A line for each form."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shards", type=int, default=1)
    asked = parser.parse_args()
    worst = 0.0
    with Cluster(shards=asked.shards) as cluster, cluster.connect() as running, cluster.connect() as other:
        assert running.request("FUNCTION", "LOAD", library(LOOPS)) == b"loops"
        for words, kind, text in cases():
            found = [took(running, other, words, kind) for _ in range(asked.rounds)]
            worst = max(worst, *found)
            mark = "ok    " if max(found) <= BAR_MS else "MISSED"
            print(
                f"{mark} {kind.lower():8} {statistics.median(found):7.1f} ms, worst {max(found):7.1f}   {text[:80]}",
                flush=True,
            )
    print(f"worst of {2 * len(LOOPS)} forms: {worst:.1f} ms (bar {BAR_MS:.0f})")
    return 1 if worst > BAR_MS else 0


if __name__ == "__main__":
    sys.exit(main())
