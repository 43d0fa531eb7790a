"""Does an installed Kache work at all? Starts a cluster, talks to it, stops it; needs nothing but Kache itself.

`make wheel` and cibuildwheel run it on every wheel: `python tests/smoke.py`, with the Python that has the wheel.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import kache
from kache import Client


def run(*arguments: str) -> str:
    """What the command line answers."""
    done = subprocess.run([sys.executable, "-m", "kache", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"kache {' '.join(arguments)} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


def expect(found: object, wanted: object) -> None:
    if found != wanted:
        raise SystemExit(f"expected {wanted!r}, got {found!r}")


def main() -> None:
    """One cluster of two shards, from its start to its end."""
    expect(run("--version"), f"kache, version {kache.__version__}")
    with tempfile.TemporaryDirectory() as directory:
        ready = run("cluster", "start", "--shards", "2", "--port", "0", "--dir", directory, "--detach")
        port = ready.split(" ready on ")[1].split(": ")[0].rpartition(":")[2]
        try:
            expect(run("set", "--port", port, "greeting", "hello"), "OK")
            expect(run("get", "--port", port, "greeting"), "hello")
            with Client(port=int(port)) as cache:
                expect(cache.get("greeting"), b"hello")
            expect("total" in run("stats", "--port", port), True)
        finally:
            run("cluster", "stop", "--port", port)
    print(f"Kache {kache.__version__} in {Path(str(kache.__file__)).parent} works.")


if __name__ == "__main__":
    main()
