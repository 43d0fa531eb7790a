"""What a cluster occupies on the machine: its port, its locked run directory, its sockets, the death pipe.

Taken once by the supervisor before it starts anything, given back when everything has ended. A supervisor that is
killed gives nothing back: the lock and the listeners end with the processes, and the next cluster on the port clears
the directory. What is removed from the directory by others is made again by `heal`; descriptors need no healing.
"""

from __future__ import annotations

import functools
import logging
import os
import shutil
import socket
from collections.abc import Callable, Mapping

from kache.cluster import (
    board,
    budget,
    claims,
    client_counts,
    listeners,
    monitors,
    numbers,
    pauses,
    rounds,
    run_dir,
    running,
    tallies,
)
from kache.config.settings import Config
from kache.errors import KacheError

__all__ = ["METRICS_SOCKET", "Resources"]

PATIENCE_SECONDS = 3.0
"""How long to wait for a port whose last cluster was killed: its children need a moment to go."""
METRICS_SOCKET = "clients.sock"
"""In the run directory: how the metrics process asks a cluster whose ports all speak TLS."""
BACKLOG = 64
"""Of the metrics port: few ask there."""


_log = logging.getLogger("kache")


class Resources:
    """Everything is open once this is made; raises KacheError, in one sentence, when something cannot be had."""

    def __init__(self, config: Config, environ: Mapping[str, str]) -> None:
        self._base = base = run_dir.base_directory(environ)
        run_dir.make_private(base)
        named = config.port or config.tls_port
        lock = run_dir.PortLock(base, named) if named else None
        try:
            patience = PATIENCE_SECONDS if lock is not None and lock.abandoned else 0.0
            self.tls_listeners: list[int] = []
            self.client_listeners: list[int] = []
            self.port = 0
            if config.tls_port:
                self.tls_listeners, _ = listeners.bind_tcp(config.bind, config.tls_port, config.tcp_backlog, patience)
            if config.port or not config.tls_port:
                self.client_listeners, self.port = listeners.bind_tcp(
                    config.bind, config.port, config.tcp_backlog, patience
                )
            self.name = self.port or config.tls_port
            """The port that the run directory and the admin socket are named by."""
            self._lock = lock or run_dir.PortLock(base, self.name)
        except (KacheError, OSError):
            for fd in (*self.tls_listeners, *self.client_listeners):
                os.close(fd)
            if lock is not None:
                lock.release()
            raise
        self.run_dir = os.path.join(base, str(self.name))
        self.shard_paths = [os.path.join(self.run_dir, f"shard-{index}.sock") for index in range(config.shards)]
        self.shard_listeners: list[int] = []
        self.metrics_listeners: list[int] = []
        self._client_socket: listeners.ClientSocket | None = None
        self._admin_path = run_dir.control_path(base, self.name)
        self._made: dict[str, tuple[int, int] | None] = {}
        """Which file each socket is, by its path."""
        shutil.rmtree(self.run_dir, ignore_errors=True)
        try:
            if config.unixsocket:
                path = os.path.abspath(os.path.join(config.dir, config.unixsocket))
                self._client_socket = listeners.ClientSocket(
                    path,
                    config.unixsocketperm,
                    config.tcp_backlog,
                    PATIENCE_SECONDS if self._lock.abandoned else 0.0,
                    config.unixsocketgroup,
                )
                self.client_listeners.append(self._client_socket.fd)
            if config.metrics_port:
                wait = PATIENCE_SECONDS if self._lock.abandoned else 0.0
                self.metrics_listeners, _ = listeners.bind_tcp(config.metrics_bind, config.metrics_port, BACKLOG, wait)
            run_dir.make_private(self.run_dir)
            for path in self.shard_paths:
                self.shard_listeners.append(self._bind(path))
            if config.metrics_port and not self.port:
                # The metrics process is a client like any other, but for its certificate.
                self.client_listeners.append(listeners.bind_unix(os.path.join(self.run_dir, METRICS_SOCKET)))
            self.client_counts = client_counts.create(self.run_dir, max(1, config.routers))
            self.numbers = numbers.create(self.run_dir)
            self.pauses = pauses.create(self.run_dir)
            self.monitors = monitors.create(self.run_dir)
            self.rounds = rounds.create(self.run_dir)
            self.tallies = tallies.create(self.run_dir, max(1, config.routers))
            self.running = running.create(self.run_dir, max(1, config.shards))
            self.board = board.create(self.run_dir, max(1, config.shards), max(1, config.routers))
            self.claims = claims.create(self.run_dir, max(1, config.routers))
            self.budget = budget.create(self.run_dir, max(1, config.shards))
            self._wakers = budget.wakers(config.shards)
            self.admin = socket.socket(fileno=self._bind(self._admin_path))
            self.death_reader, self._death_writer = os.pipe()
            """Children hold the read end; nobody writes. It ends when the supervisor does."""
        except (KacheError, OSError) as error:
            for fd in (*self.client_listeners, *self.tls_listeners, *self.shard_listeners, *self.metrics_listeners):
                os.close(fd)
            if self._client_socket is not None:
                self._client_socket.remove()
            shutil.rmtree(self.run_dir, ignore_errors=True)
            self._lock.release()
            if isinstance(error, OSError):
                raise run_dir.RunDirError(f"{self.run_dir} cannot be used: {error.strerror}.") from None
            raise

    def listeners(self, role: str, index: int) -> list[int]:
        """The listening sockets of a child."""
        if role == "shard":
            return [self.shard_listeners[index]]
        return self.metrics_listeners if role == "metrics" else self.client_listeners

    def pages(self, role: str) -> dict[str, int]:
        """What a child shares with others, by name."""
        if role == "metrics":
            return {}
        shared = {"board": self.board, "claims": self.claims, "running": self.running}
        if role == "router":
            return shared | {
                "clients": self.client_counts,
                "numbers": self.numbers,
                "pauses": self.pauses,
                "monitors": self.monitors,
                "rounds": self.rounds,
                **self.tallies,
            }
        # Their names in the order of the shards.
        wakers = {f"waker{shard:06}": fd for shard, fd in enumerate(self._wakers)}
        return shared | {"budget": self.budget, **wakers}

    def _bind(self, path: str) -> int:
        fd = listeners.bind_unix(path)
        self._made[path] = _identity(path)
        return fd

    def heal(self, on_shard: Callable[[int], None], on_admin: Callable[[socket.socket], None]) -> list[str]:
        """Make again what is missing in the directory; what cannot be is told in sentences, and tried the next time.

        `on_shard` is told whose listener is another one now. `on_admin` gets the admin socket that replaces `admin`.
        """
        troubles: dict[str, None] = {}
        if not self._lock.is_there():
            self._make(self._lock.path, self._lock_again, troubles)
        for index, path in enumerate(self.shard_paths):
            if self._is_lost(path):
                self._make(path, functools.partial(self._listen_again, index, on_shard), troubles)
        if self._is_lost(self._admin_path):
            self._make(self._admin_path, functools.partial(self._admit_again, on_admin), troubles)
        return list(troubles)

    def _is_lost(self, path: str) -> bool:
        return self._made.get(path) is None or self._made[path] != _identity(path)

    def _make(self, path: str, again: Callable[[], None], troubles: dict[str, None]) -> None:
        try:
            run_dir.make_private(self._base)
            again()
            _log.warning("%s was lost and is there again", path)
        except KacheError as error:
            troubles[str(error)] = None
        except OSError as error:
            troubles[f"{path} is lost, and cannot be made again: {error.strerror}."] = None

    def _lock_again(self) -> None:
        before, self._lock = self._lock, run_dir.PortLock(self._base, self.name)
        os.close(before.fd)

    def _listen_again(self, index: int, on_shard: Callable[[int], None]) -> None:
        run_dir.make_private(self.run_dir)
        before = self.shard_listeners[index]
        self.shard_listeners[index] = self._bind(self.shard_paths[index])
        os.close(before)
        on_shard(index)

    def _admit_again(self, on_admin: Callable[[socket.socket], None]) -> None:
        run_dir.make_private(self.run_dir)
        self.admin = socket.socket(fileno=self._bind(self._admin_path))
        on_admin(self.admin)

    def leave(self) -> None:
        """Give everything back; every child must have ended."""
        pages = (
            self.client_counts,
            self.numbers,
            self.pauses,
            self.monitors,
            self.rounds,
            *self.tallies.values(),
            self.running,
            self.board,
            self.claims,
            self.budget,
            *self._wakers,
        )
        mine = (*pages, self.death_reader, self._death_writer)
        ports = (*self.client_listeners, *self.tls_listeners, *self.metrics_listeners)
        for fd in (*ports, *self.shard_listeners, *mine):
            os.close(fd)
        self.admin.close()
        if self._client_socket is not None:
            self._client_socket.remove()
        shutil.rmtree(self.run_dir, ignore_errors=True)  # after that, since it needs descriptors, too
        self._lock.release()


def _identity(path: str) -> tuple[int, int] | None:
    """Which file lies at `path`; None when there is none that could be looked at."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
