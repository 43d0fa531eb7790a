"""What a cluster occupies on the machine: its port, its locked run directory, its sockets, the death pipe.

Taken once by the supervisor before it starts anything, given back when everything has ended. A supervisor that is
killed gives nothing back: the lock and the listeners end with the processes, and the next cluster on the port clears
the directory.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping

from kache.cluster import board, client_counts, listeners, run_dir
from kache.config.settings import Config
from kache.errors import KacheError

__all__ = ["Resources"]

PATIENCE_SECONDS = 3.0
"""How long to wait for a port whose last cluster was killed: its children need a moment to go."""


class Resources:
    """Everything is open once this is made; raises KacheError, in one sentence, when something cannot be had."""

    def __init__(self, config: Config, environ: Mapping[str, str]) -> None:
        base = run_dir.base_directory(environ)
        run_dir.make_private(base)
        lock = run_dir.PortLock(base, config.port) if config.port else None
        try:
            patience = PATIENCE_SECONDS if lock is not None and lock.abandoned else 0.0
            self.client_listeners, self.port = listeners.bind_tcp(
                config.bind, config.port, config.tcp_backlog, patience
            )
            self._lock = lock or run_dir.PortLock(base, self.port)
        except (KacheError, OSError):
            if lock is not None:
                lock.release()
            raise
        self.run_dir = os.path.join(base, str(self.port))
        self.shard_paths = [os.path.join(self.run_dir, f"shard-{index}.sock") for index in range(config.shards)]
        self.shard_listeners: list[int] = []
        shutil.rmtree(self.run_dir, ignore_errors=True)
        try:
            run_dir.make_private(self.run_dir)
            for path in self.shard_paths:
                self.shard_listeners.append(listeners.bind_unix(path))
            client_counts.create(self.run_dir, max(1, config.routers))
            board.create(self.run_dir, config.shards, max(1, config.routers))
            self.admin = socket.socket(fileno=listeners.bind_unix(run_dir.control_path(base, self.port)))
            self.death_reader, self._death_writer = os.pipe()
            """Children hold the read end; nobody writes. It ends when the supervisor does."""
        except (KacheError, OSError):
            for fd in (*self.client_listeners, *self.shard_listeners):
                os.close(fd)
            shutil.rmtree(self.run_dir, ignore_errors=True)
            self._lock.release()
            raise

    def leave(self) -> None:
        """Give everything back; every child must have ended."""
        for fd in (*self.client_listeners, *self.shard_listeners, self.death_reader, self._death_writer):
            os.close(fd)
        self.admin.close()
        shutil.rmtree(self.run_dir, ignore_errors=True)  # after that, since it needs descriptors, too
        self._lock.release()
