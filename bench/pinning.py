"""Which cores servers and generators have in a pinned run: every process its own, as far as there are enough.

The last cores are the generators', the others the servers'. A front (router, proxy) takes its core before what is
behind it; a server of one process with several threads has all of the servers' cores; the supervisor, which sleeps, too.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import psutil
from contenders import Contender

__all__ = ["Cores", "pin"]

FRONTS = ("router", "nutcracker")


@dataclass(frozen=True)
class Cores:
    """The numbers of the cores that this run may use."""

    servers: tuple[int, ...]
    generators: tuple[int, ...]

    @staticmethod
    def divide(generators: int) -> Cores:
        """One core for each generator, as long as the servers keep one. Raises `SystemExit` where nobody can pin."""
        if not hasattr(os, "sched_setaffinity"):
            raise SystemExit("bench: --pin needs Linux")
        usable = sorted(os.sched_getaffinity(0))
        taken = min(generators, max(1, len(usable) - 1))
        return Cores(tuple(usable[:-taken] or usable), tuple(usable[-taken:]))


def pin(contender: Contender, cores: Cores) -> None:
    """Gives the processes of a started contender their cores."""
    contender.load_cores = cores.generators
    busy = sorted(contender.busy(), key=lambda process: not is_front(process))
    for process in contender.members():
        mine = {cores.servers[busy.index(process) % len(cores.servers)]} if process in busy else set(cores.servers)
        if len(busy) == 1:
            mine = set(cores.servers)
        for task in Path(f"/proc/{process.pid}/task").iterdir():
            with contextlib.suppress(OSError):
                os.sched_setaffinity(int(task.name), mine)


def is_front(process: psutil.Process) -> bool:
    """Whether all requests pass through this process."""
    return any(word in " ".join(process.cmdline()[:2]) for word in FRONTS)
