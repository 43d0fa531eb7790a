#!/usr/bin/env python3
"""How long `pip install .` takes from a clean clone into a new environment: `python bench/installation.py [--times 3]`

Wall time and processor time; a compiler cache (CC, CFLAGS) is left out. Exit status 1 when the median is above the bar: 45 s
of wall time on two cores.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

BAR_SECONDS = 45.0
HERE = Path(__file__).parent.parent
LEFT_OUT = ("CC", "CFLAGS", "PYTHONPATH")


def install(directory: Path) -> tuple[float, float]:
    """Seconds, and seconds of processors, of one installation of the last commit."""
    clone, environment = directory / "clone", directory / "environment"
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{HERE}", str(clone)], check=True)
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    variables = {name: value for name, value in os.environ.items() if name not in LEFT_OUT}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([str(environment / "bin" / "pip"), "install", "-q", str(clone)], check=True, env=variables)
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--times", type=int, default=3)
    walls = []
    for _ in range(parser.parse_args().times):
        with tempfile.TemporaryDirectory(prefix="kache-installation-") as directory:
            wall, cpu = install(Path(directory))
        walls.append(wall)
        print(f"{wall:.1f} s, {cpu:.1f} s of processors", flush=True)
    print(f"median {median(walls):.1f} s (bar {BAR_SECONDS:.0f})")
    return 0 if median(walls) <= BAR_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
