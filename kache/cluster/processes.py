"""What the operating system must be asked about processes: cores, titles, descriptors, and dying with the parent.

Small functions without state, used by the supervisor before a fork and by a child right after it.
"""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
import resource
import signal
import sys
from collections.abc import Collection
from pathlib import Path

import setproctitle

__all__ = [
    "close_all_but",
    "die_with_parent",
    "forbid_core_dumps",
    "give_back_empty_pages",
    "let_go_of_files",
    "listener_of_port",
    "raise_descriptor_limit",
    "reset_signals",
    "schedule_as_batch",
    "set_title",
    "trim_memory",
    "untouched_files",
]

_LINUX = sys.platform.startswith("linux")
_PR_SET_PDEATHSIG = 1
# Looked up before any fork: loading a library in a child costs milliseconds of its start.
_libc = ctypes.CDLL(None, use_errno=True) if _LINUX else None
_prctl = _libc.prctl if _libc is not None else None


def schedule_as_batch() -> None:
    """Let this process wait for its turn when it wakes up, instead of interrupting who runs; only on Linux.

    Router, shards and their clients hand work to each other. Whoever is woken by a message would interrupt its sender
    after the first one; when it waits its turn it finds many, and all of them switch less often (see bench/README.md).
    """
    if hasattr(os, "SCHED_BATCH"):
        try:
            # Whoever chose another policy for us (chrt, a service manager) meant it.
            if os.sched_getscheduler(0) == os.SCHED_OTHER:
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        except OSError:
            pass  # some sandboxes forbid it, and nothing depends on it


def trim_memory() -> None:
    """Give the pages of malloc's holes back to the system, where the C library can (glibc)."""
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


def give_back_empty_pages(owner: object) -> None:
    """Give those pages inside an object back to the system that hold nothing but zeros, until they are written to (Linux).

    A uvloop loop has 250 KB for reading from its streams, zeroed when it is made, and nothing here reads from one. Only for
    objects that no other thread uses yet.
    """
    if _libc is None:
        return
    nothing = bytes(mmap.PAGESIZE)
    page = -(-id(owner) // mmap.PAGESIZE) * mmap.PAGESIZE
    end = id(owner) + type(owner).__basicsize__
    while page + mmap.PAGESIZE <= end:
        if ctypes.string_at(page, mmap.PAGESIZE) == nothing:
            _libc.madvise(ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), mmap.MADV_DONTNEED)
        page += mmap.PAGESIZE


def let_go_of_files() -> None:
    """Let go of the pages of files that this process has mapped and never changed, libraries for the most part (Linux).

    What is used again comes back by itself, from the system's cache of files. For a process that has loaded far more than it
    runs: the supervisor, which imports everything for its children.
    """
    if _libc is None:
        return
    for start, end in untouched_files():
        _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


def untouched_files(smaps: str = "/proc/self/smaps") -> list[tuple[int, int]]:
    """The mappings of files that cannot be written to, and of which no page was ever changed: (first byte, end)."""
    found = []
    start = end = 0
    try:
        with open(smaps, "rb") as mappings:
            for line in mappings:  # never all of them at once: that alone would take a megabyte
                words = line.split()
                if not words[0].endswith(b":"):
                    start, end = (int(number, 16) for number in words[0].split(b"-"))
                    if words[1] not in (b"r-xp", b"r--p") or len(words) < 6 or not words[5].startswith(b"/"):
                        end = 0
                elif words[0] == b"Anonymous:" and words[1] != b"0":
                    end = 0
                elif words[0] == b"Swap:" and end and words[1] == b"0":  # what was changed may lie there
                    found.append((start, end))
    except OSError:
        return []
    return found


def set_title(title: str) -> None:
    """Name this process in ps and top."""
    setproctitle.setproctitle(title)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent goes (Linux); leave at once if it is gone already.

    SIGKILL, since even a stopped process must go; nothing is lost by it that the parent's death has not lost.
    """
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def forbid_core_dumps() -> None:
    """Let no crash of this process or its children write their memory to disk: it is the data, and the password."""
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    except (OSError, ValueError) as error:
        logging.getLogger("kache").warning("core dumps cannot be forbidden: %s", error)


def reset_signals() -> None:
    """Default handlers and an empty mask: a child inherits both, and a blocked SIGTERM would leave it deaf.

    SIGINT stays ignored: Ctrl-C reaches the whole process group, and the supervisor must end the cluster in order.
    """
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def close_all_but(keep: Collection[int]) -> None:
    """Close every descriptor of this process that is not in `keep`."""
    try:
        names = os.listdir("/proc/self/fd" if _LINUX else "/dev/fd")
        descriptors = [int(name) for name in names]
    except OSError:
        descriptors = list(range(resource.getrlimit(resource.RLIMIT_NOFILE)[0]))
    for fd in descriptors:
        if fd not in keep:
            try:
                os.close(fd)
            except OSError:
                pass


def raise_descriptor_limit(wanted: int) -> int:
    """Let this process and its children open `wanted` files, as far as the hard limit allows; returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    except (OSError, ValueError):
        target = soft
    if target < wanted:
        logging.getLogger("kache").warning("only %d open files are allowed, %d were wanted", target, wanted)
    return target


def listener_of_port(port: int) -> str | None:
    """``name (pid n)`` of the process listening on a TCP port, where that can be told (Linux, own processes)."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if words[3] == "0A" and int(words[1].rsplit(":", 1)[1], 16) == port:
                inodes.add(f"socket:[{words[9]}]")
    if not inodes:
        return None
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(link) in inodes for link in (folder / "fd").iterdir()):
                return f"{(folder / 'comm').read_text().strip()} (pid {folder.name})"
        except OSError:
            continue
    return None
