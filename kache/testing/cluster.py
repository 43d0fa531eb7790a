"""`LocalCluster`: a cluster of the test that made it, on a free port, gone with it.

Owns the process of the supervisor. It is started through the command line like any other, with a descriptor of ours
inherited (``--exit-with-fd``): when this process ends, in whatever way, the cluster ends. It leaves no file behind: what it
logs goes to a file without a name, the run directory is the supervisor's to remove, and so is the data directory when this
process cannot do it any more.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import count as numbers
from types import TracebackType
from typing import IO, Any, Literal, overload
from weakref import WeakSet

from kache.client.blocking import Client
from kache.slots import owners, slot_of_key
from kache.testing.director import ClusterFailed, Director
from kache.testing.faults import Fault, Faults

__all__ = ["LocalCluster"]

START_SECONDS = 30.0
"""How long a start may take on a machine that is busy with other tests."""
STOP_SECONDS = 10.0


class LocalCluster:
    """A running cluster on 127.0.0.1. Settings are those of `kache cluster start`, with underscores.

    ::

        with LocalCluster(shards=4, maxmemory="64mb") as cluster:
            redis.Redis(port=cluster.port)               # or redis.from_url(cluster.url)
            cluster.client()                             # a kache.Client

    ``modules`` are files of commands in Python, relative to the current directory. ``shards`` is 2 unless said otherwise,
    so that keys lie on different ones. ``dir`` is a temporary directory that ends with the cluster, unless a test names
    one of its own: then the next cluster there finds what this one has kept (``appendonly=True``, ``save="900 1"``). Raises `ClusterFailed` when it does not start, with what it said.
    """

    host = "127.0.0.1"

    def __init__(self, shards: int = 2, *, routers: int = 1, **settings: Any) -> None:
        self.shards = shards
        self.routers = routers
        self.port = 0
        self._settings: dict[str, Any] = {
            "shards": shards,
            "routers": routers,
            "port": 0,
            "logformat": "text",
        } | settings
        self._environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("KACHE_") or name == "KACHE_RUN_DIR"
        }
        self._directory = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._clients: WeakSet[Client[Any]] = WeakSet()

    # Its life -----------------------------------------------------------------------------------------------------

    def start(self) -> LocalCluster:
        """Start it; returns when it serves."""
        if self._process is None:
            self.launch()
        elif self.port:
            raise ClusterFailed("this cluster was started already")
        try:
            self.port = self._wait_until_ready()
            self._director = Director(self.port, self._environ)
            self._config = self._director.status().config
        except BaseException:
            self.close()
            raise
        self.fault = Faults(self._director, self.shards)
        return self

    def launch(self) -> None:
        """Begin to start it; `start` waits for the rest, a third of a second later or less."""
        reader, self._tie = os.pipe()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # for as long as the cluster runs
        if "dir" not in self._settings:
            self._directory = tempfile.mkdtemp(prefix="kache-test-")
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "kache", "cluster", "start", *self._options(reader)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._log,
                pass_fds=(reader,),
                env=self._environ,
            )
        except BaseException:
            self._remove_directory()
            raise
        finally:
            os.close(reader)

    def _options(self, reader: int) -> list[str]:
        given = [
            (name, each)
            for name, value in self._settings.items()
            for each in (value if isinstance(value, list | tuple) else [value])
        ]
        ours = ["--for-tests", f"--exit-with-fd={reader}"]
        if self._directory:
            ours += [f"--dir={self._directory}", "--remove-dir"]
        if "modules" in self._settings:
            # It runs in a directory of its own.
            given = [(name, os.path.abspath(value) if name == "modules" else value) for name, value in given]
        return [*ours, *(f"--{name.replace('_', '-')}={_text(value)}" for name, value in given)]

    def _wait_until_ready(self) -> int:
        assert self._process is not None and self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], START_SECONDS)[0]:
            raise ClusterFailed(f"the cluster was not ready within {START_SECONDS:g} s:\n{self.log()}")
        line = self._process.stdout.readline().decode()
        if " ready on " not in line:
            self._process.wait(STOP_SECONDS)
            raise ClusterFailed(self.log().strip() or f"the cluster ended with {self._process.returncode}")
        return int(line.split(" ready on ")[1].split(": ")[0].rsplit(":", 1)[1])

    def close(self) -> None:
        """End it; returns when all its processes are gone. Closing it again changes nothing."""
        process, self._process = self._process, None
        if process is None:
            return
        for client in list(self._clients):
            client.close()
        if hasattr(self, "_director"):
            self._director.close()
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(self._tie)
        assert process.stdout is not None
        process.stdout.close()
        if self._log is not None:
            self._log.close()
        self._remove_directory()

    def _remove_directory(self) -> None:
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> LocalCluster:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Talking to it ------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """``redis://127.0.0.1:PORT/0``, for any client of Redis."""
        return f"redis://{self.host}:{self.port}/0"

    @overload
    def client(self, *, decode: Literal[False] = ..., db: int = ...) -> Client[bytes]: ...
    @overload
    def client(self, *, decode: Literal[True], db: int = ...) -> Client[str]: ...
    def client(self, *, decode: bool = False, db: int = 0) -> Client[Any]:
        """A new `kache.Client`, closed with the cluster."""
        password = self._settings.get("requirepass")
        # The overloads want a literal; ours above have said which it is.
        client: Client[Any] = Client(self.host, self.port, decode=decode, db=db, password=password)  # type: ignore[call-overload]
        self._clients.add(client)
        return client

    def log(self) -> str:
        """What its processes have logged so far; nothing once it is closed."""
        if self._log is None or self._log.closed:
            return ""
        return os.pread(self._log.fileno(), 1 << 20, 0).decode("utf-8", "replace")

    def keys_on(self, shard: int, count: int = 1) -> list[str]:
        """`count` names of keys that this shard owns: ``key:7``, ``key:12``, …"""
        if not 0 <= shard < self.shards:
            raise ValueError(f"there is no shard {shard}: the cluster has {self.shards}, the first is 0")
        owner = owners(self._director.status().slots, self.shards)
        names: Iterator[str] = (f"key:{n}" for n in numbers() if owner[slot_of_key(b"key:%d" % n)] == shard)
        return [next(names) for _ in range(count)]

    def reset(self) -> None:
        """No data, no faults, settings and clock as they were: ready for the next test. Connections stay."""
        if self.fault.active:
            self.fault.clear()
        now = self._director.status().config
        changed = {name: text for name, text in self._config.items() if now[name] != text}
        if changed:
            self._director.configure(changed)
        with Client(self.host, self.port, password=self._settings.get("requirepass")) as client:
            client.flushall()
        if self._director.stage.ahead_ms or self._director.stage.stands_at_ms:
            self._director.change(ahead_ms=0, stands_at_ms=0)

    # Its clock ----------------------------------------------------------------------------------------------------

    def time(self) -> float:
        """The time that its keys live by, in unix seconds."""
        stage = self._director.stage
        return (stage.stands_at_ms or time.time_ns() // 1_000_000 + stage.ahead_ms) / 1000

    def advance(self, by: timedelta | None = None, **units: float) -> None:
        """Time passes: ``advance(hours=1)``, or a timedelta. What expires by then is gone when this returns.

        Units are those of `datetime.timedelta`. Time does not go back.
        """
        if by is not None and units:
            raise TypeError("say how far either as a timedelta or in units, not both")
        passed = by if by is not None else timedelta(**units)
        ms = round(passed / timedelta(milliseconds=1))
        if ms <= 0:
            raise ValueError(f"time passes forwards, by a millisecond or more, not by {passed!r}")
        stage = self._director.stage
        if stage.stands_at_ms:
            self._director.change(stands_at_ms=stage.stands_at_ms + ms)
        else:
            self._director.change(ahead_ms=stage.ahead_ms + ms)

    def freeze(self) -> Fault:
        """Time stands still, but for `advance`: no key expires because the test is slow. Until `resume`, or the end of
        the ``with`` block."""
        if not self._director.stage.stands_at_ms:
            self._director.change(stands_at_ms=round(self.time() * 1000))
        return Fault(self.resume)

    def resume(self) -> None:
        """Time runs again, from where it stood."""
        stands_at = self._director.stage.stands_at_ms
        if stands_at:
            self._director.change(stands_at_ms=0, ahead_ms=stands_at - time.time_ns() // 1_000_000)


def _text(value: object) -> str:
    """A setting's value as an option takes it."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
