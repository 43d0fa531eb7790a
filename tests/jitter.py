"""Random pauses of the processes of every cluster that tests start, to find tests that rely on what nobody promised.

    KACHE_TEST_JITTER=7 pytest tests/e2e/test_routers.py        # 7 seeds what is stopped, when, and for how long

What one process of a cluster tells another is then often heard late, in another order than on a machine with nothing else to
do: that another router knows of a subscription, that a shard which is up is connected to, that a counter has been added up.

Two things do that. `jitter_shim.c`, preloaded into what tests start, lets a process rest around the calls by which it tells
others something: what it has said to one is not yet said to another. And a process of its own beside every pytest worker looks for
supervisors below that worker, stops one of the processes of each for a moment (SIGSTOP), lets it go on, and waits a moment.
It is told of processes that a test stops by itself, and leaves those alone. Processes are addressed by descriptors, so that no
number that was given to another can be meant. When its input ends, or it is asked to end, what it has stopped goes on first.
"""

from __future__ import annotations

import atexit
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from preloaded import built

PAUSES = (0.001, 0.060)
"""Seconds for which a process stands still: at least and at most."""
GAPS = (0.005, 0.050)
"""Seconds until the next of the same cluster."""
LOOK_SECONDS = 0.02
"""How often it is looked for clusters."""
SUPERVISOR_SHARE = 0.15
"""How often it is the supervisor that is stopped."""
VARIABLE = "KACHE_TEST_JITTER"


def begin() -> None:
    """Pause the clusters of this process from here on, if the variable has a seed. For the start of a worker."""
    # Not for the clusters: to them it is no setting.
    seed = os.environ.pop(VARIABLE, "")
    if not seed:
        return
    folder = Path(tempfile.mkdtemp(prefix="kache-jitter-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    library = built(Path(__file__).with_name("jitter_shim.c"), folder)
    os.environ |= {"LD_PRELOAD": str(library), "TEST_JITTER_SEED": seed}
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    helper = subprocess.Popen(
        [sys.executable, "-E", __file__, str(os.getpid()), f"{seed}{worker}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert helper.stdin is not None and helper.stdout is not None
    words, answers, lock = helper.stdin, helper.stdout, threading.Lock()
    kill, here = os.kill, os.getpid()

    def announced_kill(pid: int, number: int) -> None:
        """A test stops a process itself: it belongs to the test until that lets it go on."""
        if os.getpid() == here and number in (signal.SIGSTOP, signal.SIGCONT):
            with lock:
                words.write(b"%s %d\n" % (b"keep" if number == signal.SIGSTOP else b"free", pid))
                words.flush()
                answers.readline()
        kill(pid, number)

    os.kill = announced_kill


class Cluster:
    """The processes of one cluster, of which at most one stands still at a time."""

    def __init__(self, supervisor: int, born: str, random: random.Random) -> None:
        self.supervisor = supervisor
        self.born = born
        self.random = random
        self.due = 0.0
        self.stopped: tuple[int, int] | None = None  # pid, descriptor

    def go_on(self, kept: set[int]) -> None:
        """What stands still does not any longer, but for what has become its test's."""
        if self.stopped is not None:
            pid, descriptor = self.stopped
            self.stopped = None
            if pid not in kept:
                send(descriptor, signal.SIGCONT)
            os.close(descriptor)

    def turn(self, kept: set[int]) -> None:
        """The next pause begins, or the present one ends."""
        if self.stopped is not None:
            self.go_on(kept)
            self.due = time.monotonic() + self.random.uniform(*GAPS)
            return
        self.due = time.monotonic() + self.random.uniform(*PAUSES)
        children = sorted(children_of(self.supervisor))
        pid = self.random.choice(children or [self.supervisor])
        if self.random.random() < SUPERVISOR_SHARE:
            pid = self.supervisor
        if pid not in kept:
            self.stop(pid)

    def stop(self, pid: int) -> None:
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return
        # Behind the descriptor the number cannot change its meaning any more: so it is looked now whether it is the one meant.
        state, parent, born = stat(pid)
        mine = born == self.born if pid == self.supervisor else parent == self.supervisor
        if mine and state in "RSD" and stat(self.supervisor)[2] == self.born and send(descriptor, signal.SIGSTOP):
            self.stopped = pid, descriptor
        else:
            os.close(descriptor)


def send(descriptor: int, number: int) -> bool:
    try:
        signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    return True


def stat(pid: int) -> tuple[str, int, str]:
    """State, parent and moment of birth of a process; ("", 0, "") of none."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", 0, ""
    return words[0], int(words[1]), words[19]


def children_of(pid: int) -> Iterator[int]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return
    for thread in threads:
        try:
            yield from map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
        except OSError:
            pass


def supervisors(pid: int) -> Iterator[int]:
    """Those below a process."""
    for child in children_of(pid):
        try:
            title = Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:
            continue
        if title.startswith(b"kache: supervisor"):
            yield child
        elif not title.startswith(b"kache: "):
            yield from supervisors(child)


class Helper:
    def __init__(self, worker: int, seed: str) -> None:
        self.worker = worker
        self.random = random.Random(seed)
        self.clusters: dict[tuple[int, str], Cluster] = {}
        self.kept: set[int] = set()
        self.unread = b""

    def look(self) -> None:
        """Which clusters there are."""
        found = {(pid, stat(pid)[2]) for pid in supervisors(self.worker)}
        for gone in self.clusters.keys() - found:
            self.clusters.pop(gone).go_on(self.kept)
        for key in sorted(found - self.clusters.keys()):
            self.clusters[key] = Cluster(*key, random.Random(self.random.random()))

    def run(self) -> None:
        looked = 0.0
        try:
            while True:
                now = time.monotonic()
                if now >= looked + LOOK_SECONDS:
                    self.look()
                    looked = now
                for cluster in self.clusters.values():
                    if now >= cluster.due:
                        cluster.turn(self.kept)
                until = min([looked + LOOK_SECONDS, *(cluster.due for cluster in self.clusters.values())])
                if select.select([0], [], [], max(until - time.monotonic(), 0))[0] and not self.read():
                    return
        finally:
            for cluster in self.clusters.values():
                cluster.go_on(self.kept)

    def read(self) -> bool:
        """What tests do themselves: "keep" or "free" with a number."""
        data = os.read(0, 4096)
        *lines, self.unread = (self.unread + data).split(b"\n")
        for line in lines:
            word, _, pid = line.partition(b" ")
            (self.kept.add if word == b"keep" else self.kept.discard)(int(pid))
            os.write(1, b"\n")
        return bool(data)


def main() -> None:
    def leave(*_: Any) -> None:
        raise SystemExit

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Helper(int(sys.argv[1]), sys.argv[2]).run()


if __name__ == "__main__":
    main()
