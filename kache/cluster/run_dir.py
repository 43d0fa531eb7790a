"""Where a cluster keeps its sockets, and the lock that lets only one cluster have a port.

A cluster on port P owns the directory ``<base>/P`` (mode 0700 from its first instant) and holds an flock on
``<base>/P.lock``, whose text names the holder. The base is ``KACHE_RUN_DIR``, or ``$XDG_RUNTIME_DIR/kache``, or
``/tmp/kache-<uid>``. The supervisor makes these; the command line only looks.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping

from kache.errors import KacheError

__all__ = ["PortLock", "RunDirError", "base_directory", "control_path", "find_control", "make_private", "sweep"]

SUN_PATH_MAX = 100
"""Longest path bound: 104 bytes with the final NUL on macOS, 108 on Linux, and room for a shard's number."""


SWEEP_SECONDS = 2.0
"""How long a process that has closed its pipe may take to give up its lock."""


class RunDirError(KacheError):
    """The directory or the lock cannot be had; the message is one sentence."""


def _bases(environ: Mapping[str, str]) -> Iterator[str]:
    if environ.get("KACHE_RUN_DIR"):
        yield os.path.abspath(environ["KACHE_RUN_DIR"])
        return
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime and os.path.isdir(runtime) and _fits(os.path.join(runtime, "kache")):
        yield os.path.join(runtime, "kache")
    yield f"/tmp/kache-{os.getuid()}"


def _fits(base: str) -> bool:
    return len(os.fsencode(base)) + len("/65535/shard-255.sock") <= SUN_PATH_MAX


def base_directory(environ: Mapping[str, str]) -> str:
    """The directory under which this user's clusters live; raises RunDirError when its path is too long to bind."""
    base = next(_bases(environ))
    if not _fits(base):
        raise RunDirError(f"The run directory {base} is too long a path for a Unix socket.")
    return base


def control_path(base: str, port: int) -> str:
    """Path of the admin socket of the cluster on `port`."""
    return os.path.join(base, str(port), "control.sock")


def find_control(environ: Mapping[str, str], port: int) -> str | None:
    """The admin socket of a cluster on `port` under any base a supervisor of this user may have chosen."""
    return next((path for base in _bases(environ) if os.path.exists(path := control_path(base, port))), None)


def make_private(path: str) -> None:
    """Make `path` a directory of this user alone, or check that it is one; raises RunDirError."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise RunDirError(f"The directory {path} cannot be made: {error.strerror}.") from None
    found = os.lstat(path)
    # Under /tmp anybody could have put something there first: a link, or a directory of theirs.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise RunDirError(f"{path} is not a directory of yours; remove it or set KACHE_RUN_DIR.")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise RunDirError(f"The directory {path} is open to others; make it private with chmod 700.")


class PortLock:
    """The exclusive right to a port, until `release` or the death of this process."""

    def __init__(self, base: str, port: int) -> None:
        self.path = os.path.join(base, f"{port}.lock")
        while True:
            try:
                self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise RunDirError(f"The lock {self.path} cannot be made: {error.strerror}.") from None
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = os.pread(self.fd, 200, 0).decode("utf-8", "replace").strip()
                os.close(self.fd)
                raise RunDirError(f"Port {port} already has a cluster: {holder or 'one that is starting'}.") from None
            # The holder before us may have removed the file between our open and our lock.
            try:
                if os.path.samestat(os.stat(self.path), os.fstat(self.fd)):
                    break
            except FileNotFoundError:
                pass
            os.close(self.fd)
        self.abandoned = os.fstat(self.fd).st_size > 0
        """Whether the last holder died without releasing: its children may still be on their way out."""
        os.ftruncate(self.fd, 0)
        try:
            os.pwrite(self.fd, f"pid {os.getpid()}\n".encode(), 0)
        except OSError as error:
            self.release()
            raise RunDirError(f"The lock {self.path} cannot be written: {error.strerror}.") from None

    def is_there(self) -> bool:
        """Whether its file is still where others look for it."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self.fd))
        except OSError:
            return False

    def release(self) -> None:
        """Give the port up."""
        if self.is_there():
            os.unlink(self.path)
        os.close(self.fd)


def sweep(base: str, port: int, pid: int) -> None:
    """Remove what the supervisor `pid` has left of `port`, waiting a moment for its end; another's stays."""
    directory = os.path.join(base, str(port))
    until = time.monotonic() + SWEEP_SECONDS
    while os.path.exists(directory) or os.path.exists(f"{directory}.lock"):
        try:
            with open(f"{directory}.lock", encoding="utf-8", errors="replace") as file:
                if file.read().strip() not in ("", f"pid {pid}"):
                    return
        except FileNotFoundError:
            pass
        except OSError:
            return
        try:
            lock = PortLock(base, port)
        except RunDirError:
            if time.monotonic() > until:
                return
            time.sleep(0.02)
        else:
            shutil.rmtree(directory, ignore_errors=True)
            lock.release()
            return
