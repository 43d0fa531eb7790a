"""The supervisor's part of what is kept on disk: whose the directory is, and what of it each shard is told.

A cluster that keeps nothing (appendonly no, save empty) and finds no data leaves `dir` alone. Else it locks `dir`, and has
from it the id of the cluster, the seed of its hashes, the map of its slots, and its libraries of functions: they outlive a restart.

What the directory holds is known to `kache.shard.log`, which is found by name as the children are: nothing in `kache` imports
`kache.shard`. File calls are made there alone.
"""

from __future__ import annotations

import importlib
import logging
import os
import secrets
import time
from typing import Any

from kache.cluster.messages import DataPlace
from kache.cluster.progress import Bar
from kache.cluster.resolution import Unfinished
from kache.config.settings import Config
from kache.errors import KacheError
from kache.slots import SlotRange, contiguous

__all__ = ["DataDirectory"]

_log = logging.getLogger("kache")


class DataDirectory:
    """The directory of one cluster, opened or not; raises KacheError, in one sentence, when it cannot be had.

    `hash_seed` and `slots` are what the cluster goes by, whether anything is kept or not.
    """

    def __init__(self, config: Config) -> None:
        self.path = os.path.abspath(config.dir)
        self.shards = config.shards
        self.hash_seed = secrets.token_bytes(16)
        self.slots: list[SlotRange] = contiguous(config.shards) if config.shards else []
        self._cluster = secrets.token_bytes(16)
        self.functions = b""
        """The libraries of functions, as FUNCTION DUMP gives them; nothing where there are none."""
        self.unfinished: Unfinished | None = None
        """What a start before this one has decided about transactions, and not every shard has taken in."""
        self._epoch = 1
        self._lock: Any = None
        self._directory: Any = importlib.import_module("kache.shard.log.directory")
        self._repartition: Any = importlib.import_module("kache.shard.log.repartition")
        self._why: Any = importlib.import_module("kache.shard.log.troubles").unusable
        self._always = config.appendfsync == "always"
        self._strict = not config.aof_load_truncated
        self._files: Any = importlib.import_module("kache.shard.log.files").Files()

    def start(self, config: Config) -> None:
        """Open it if the cluster keeps something, or has."""
        # A folder of that name is somebody else's: `dir` is by default where the cluster was started.
        if config.appendonly or config.save or self._files.is_file(f"{self.path}/{self._directory.CLUSTER}"):
            self.open()
            if not config.appendonly and not config.save:
                _log.warning(
                    "%s has data, which is loaded; what is changed from now on is not kept (appendonly no, no save points)",
                    self.path,
                )

    @property
    def is_open(self) -> bool:
        """Whether it is ours, and shards keep their files there."""
        return self._lock is not None

    def open(self) -> None:
        """Lock the directory and take in what it says, or make it that of this cluster."""
        if self.is_open:
            return
        root = self._directory.enclosing(self._files, self.path)
        if root:
            raise KacheError(f"{self.path} lies inside of the data directory {root}: --dir {root} is what is meant.")
        try:
            self._directory.make(self._files, self.path)
            self._lock = self._directory.Lock(self._files, self.path)
        except OSError as error:
            raise KacheError(f"The data directory {self._why(self._files, self.path, error)}.") from None
        try:
            self._take_in()
        except OSError as error:
            self.close()
            raise KacheError(f"The data directory {self._why(self._files, self.path, error)}.") from None
        except KacheError:
            self.close()
            raise

    def _take_in(self) -> None:
        found = self._directory.read_cluster(self._files, self.path)
        if found is None:
            # What a first start has left that did not come to its end.
            self._repartition.clean(self._files, self.path, 0)
            self._write()
            self.keep_functions(self.functions)
            return
        self._cluster, self.hash_seed, self._epoch = found.cluster, found.hash_seed, found.epoch
        self.functions = self._directory.read_functions(self._files, self.path)
        if found.shards == self.shards:
            self.slots = list(found.slots)
            self._repartition.clean(self._files, self.path, found.epoch)
            self.unfinished = self._directory.read_unfinished(self._files, self.path, found.epoch)
        else:
            self._divide(found)

    def _divide(self, found: Any) -> None:
        """What the shards of before hold is divided over those of now."""
        new = self._directory.ClusterFile(
            found.cluster, found.hash_seed, found.epoch + 1, self.shards, tuple(self.slots)
        )
        _log.info("%s has the data of %d shards: it is divided over %d", self.path, found.shards, self.shards)
        began = time.monotonic()
        bar = Bar(f"dividing {found.shards} shards over {self.shards}")
        try:
            self._repartition.divide(self._files, self.path, found, new, self._always, self._strict, bar.show)
        finally:
            bar.end()
        self._epoch = new.epoch
        _log.info("divided in %.1f s", time.monotonic() - began)

    def _write(self) -> None:
        cluster = self._directory.ClusterFile(
            self._cluster, self.hash_seed, self._epoch, self.shards, tuple(self.slots)
        )
        self._directory.begin(self._files, self.path, cluster)
        _log.info("data is kept in %s", self.path)

    def _place(self, shard: int) -> str:
        place: str = self._directory.shard_directory(self.path, self._epoch, shard)
        return place

    @property
    def _functions_file(self) -> str:
        return f"{self.path}/{self._directory.FUNCTIONS}"

    def keep_functions(self, payload: bytes) -> None:
        """These are the libraries of functions from here on, in the next life of the cluster, too. Raises OSError."""
        # Nothing is written for who has never had any.
        if self.is_open and (payload or self._files.is_file(self._functions_file)):
            self._files.replace(self._functions_file, payload)
        self.functions = payload

    def keep_unfinished(self, unfinished: Unfinished | None) -> None:
        """Remember a decision about transactions beyond the end of the cluster, None: none. Raises OSError."""
        self._directory.write_unfinished(self._files, self.path, self._epoch, unfinished)

    def of_shard(self, shard: int) -> DataPlace | None:
        """What a shard is told of it; None while it is not open."""
        slots = tuple((first, last) for first, last, owner in self.slots if owner == shard)
        needed = (f"{self.path}/{self._directory.CLUSTER}",)
        return DataPlace(self._place(shard), self._cluster, slots, needed) if self.is_open else None

    def close(self) -> None:
        """Give it back."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def abandon(self) -> None:
        """In a forked child: the lock is the supervisor's."""
        self._lock = None
