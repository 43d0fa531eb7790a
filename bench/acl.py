"""What the check of rights costs. Prints figures; bars in brackets.

    python bench/acl.py [--rounds 7] [--requests 400000] [--pipelines 16 64] [--users prefix patterns]

SET and GET of redis-benchmark against one cluster of two shards and one router, interleaved round by round:

    before      the installation of the interpreter in KACHE_BEFORE, if there is one, with its default user
    default     this one, with its default user [no measurable change against before]
    prefix      a user with one pattern of keys, a prefix [at most 1 % slower than default at pipeline 16]
    patterns    a user with eight prefixes, of which the last one fits

Each figure is the median over the rounds of what a round has beside `default` of the same round: the rate, and the
processor time of the router for a command, which says more on a machine that the load shares with the cluster.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import tied

PROCESS_CLOCK = 2  # CPUCLOCK_SCHED of Linux: clock_getcpuclockid(3) puts it beside the complement of the pid
KEYS = 100_000
EIGHT = [*(f"~other{number}:*" for number in range(7)), "~key:*"]
USERS = {"prefix": ["~key:*"], "patterns": EIGHT}
Rates = dict[tuple[str, str, int], list[tuple[float, float]]]


class Cluster:
    """One cluster of an installation, tied to this process."""

    def __init__(self, python: str) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = int(sock.getsockname()[1])
        self._folder = tempfile.TemporaryDirectory(prefix="kache-bench-")
        reader, self._tie = os.pipe()
        self._process = tied.started(
            [
                python, "-m", "kache", "cluster", "start", "--shards=2", "--routers=1", f"--port={self.port}",
                f"--exit-with-fd={reader}", f"--dir={self._folder.name}",
            ],
            by=signal.SIGTERM, cwd=self._folder.name, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, pass_fds=(reader,),
            env={**os.environ, "KACHE_RUN_DIR": str(Path(self._folder.name) / "run")},
        )  # fmt: skip
        os.close(reader)
        assert self._process.stdout is not None
        self._process.stdout.readline()
        self.router = self._find_router()

    def _find_router(self) -> int:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for pid in map(int, children):
            if b"router" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        raise SystemExit("the cluster has no router")

    def used(self) -> float:
        """Processor seconds of the router so far, by the clock of its process: /proc counts in hundredths of a second."""
        return time.clock_gettime(~self.router << 3 | PROCESS_CLOCK)

    def command(self, *words: str) -> None:
        """One command; an error ends the program."""
        frame = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w.encode()), w.encode()) for w in words)
        with socket.create_connection(("127.0.0.1", self.port), 30) as sock:
            sock.sendall(frame)
            answer = sock.recv(4096)
        if not answer.startswith(b"+"):
            raise SystemExit(f"{words[0]}: {answer!r}")

    def stop(self) -> None:
        os.close(self._tie)
        self._process.wait(30)
        self._folder.cleanup()


def measured(cluster: Cluster, user: str, command: str, pipeline: int, requests: int) -> tuple[float, float]:
    """(requests a second, processor microseconds of the router for each)"""
    login = ["--user", user, "-a", "secret"] if user else []
    used, began = cluster.used(), time.perf_counter()
    subprocess.run(
        ["redis-benchmark", "-p", str(cluster.port), *login, "-t", command, "-P", str(pipeline), "-n", str(requests),
         "-c", "50", "-r", str(KEYS), "-d", "32", "-q"],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return requests / (time.perf_counter() - began), 1e6 * (cluster.used() - used) / requests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=400_000, help="for each figure, at pipeline 16; thrice at 64")
    parser.add_argument("--pipelines", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--users", nargs="+", choices=USERS, default=list(USERS), help="beside the default user")
    options = parser.parse_args()
    now = Cluster(sys.executable)
    before = Cluster(os.environ["KACHE_BEFORE"]) if os.environ.get("KACHE_BEFORE") else None
    for name in options.users:
        now.command("ACL", "SETUSER", name, "on", ">secret", "+@all", *USERS[name])
    contenders: list[tuple[str, Cluster, str]] = [("default", now, "")]
    contenders += [("before", before, "")] if before else []
    contenders += [(name, now, name) for name in options.users]
    for pipeline in options.pipelines:
        requests = options.requests * (3 if pipeline >= 64 else 1)
        found: Rates = {}
        for number in range(options.rounds):
            # The order turns, so that nobody is always measured behind the same one.
            for name, cluster, user in contenders[number % len(contenders) :] + contenders[: number % len(contenders)]:
                for command in ("set", "get"):
                    figures = measured(cluster, user, command, pipeline, requests)
                    found.setdefault((name, command, pipeline), []).append(figures)
        show(found, [name for name, _, _ in contenders], pipeline)
    now.stop()
    if before:
        before.stop()


def show(found: Rates, names: list[str], pipeline: int) -> None:
    """A line for each contender and command."""
    print(f"pipeline {pipeline}: rate, router's processor time for a command; beside `default` of the same rounds")
    for command in ("set", "get"):
        usual = found["default", command, pipeline]
        for name in names:
            mine = found[name, command, pipeline]
            rate = statistics.median(rate for rate, _ in mine)
            cost = statistics.median(cost for _, cost in mine)
            rates = statistics.median(a / b for (a, _), (b, _) in zip(mine, usual, strict=True))
            costs = statistics.median(a / b for (_, a), (_, b) in zip(mine, usual, strict=True))
            print(
                f"  {command} {name:9} {rate / 1000:8.0f} k/s {cost:7.3f} us   rate x {rates:.3f}, time x {costs:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
