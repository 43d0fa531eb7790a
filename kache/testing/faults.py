"""``cluster.fault``: faults on demand.

Each lasts until `clear`, the end of the ``with`` block it was made for, or the end of the test that the plugin's
fixtures serve.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import TracebackType
from typing import Any

from kache.testing.director import Director

__all__ = ["DISK_FULL", "Fault", "Faults"]

DISK_FULL = "MISCONF Errors writing to the AOF file: No space left on device"
"""What writes are answered by a server whose disk is full, as Redis says it."""


class Fault:
    """A fault that has begun; as a context manager it is over at the end of the block."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end

    def end(self) -> None:
        """The fault is over; calling it again changes nothing."""
        end, self._end = self._end, lambda: None
        end()

    def __enter__(self) -> Fault:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


class Faults:
    """What can go wrong in a cluster, made to go wrong."""

    def __init__(self, director: Director, shards: int) -> None:
        self._director = director
        self._shards = shards

    def kill(self, shard: int | None = None, *, router: int | None = None, restart: bool = True) -> Fault:
        """One process dies without warning (SIGKILL). What a shard held is gone; a router's clients are cut off.

        With ``restart``, as in life, another takes its place at once: this returns when it serves. Without, it stays
        away: commands on its keys answer CLUSTERDOWN, until the fault ends.
        """
        name = self._process(shard, router)
        before = self._director.child(name)
        if not restart:
            self._keep_down(name)
            return Fault(lambda: self._bring_back(name))
        if before.pid:
            os.kill(before.pid, signal.SIGKILL)

        def serves() -> bool:
            now = self._director.child(name)
            return now.restarts > before.restarts and now.state == "up"

        self._director.wait_until(serves, f"{name} serves again")
        self._director.confirm()
        return Fault(lambda: None)

    def stop(self, shard: int | None = None, *, router: int | None = None) -> Fault:
        """One process stops where it is (SIGSTOP) and goes on when the fault ends: what waits for it waits till then,
        or until its time is up (`request_timeout_ms`)."""
        name = self._process(shard, router)
        self._director.child(name)
        stopped = self._director.stage.stopped
        self._director.change(stopped=(*stopped, *(() if name in stopped else (name,))))
        return Fault(lambda: self._go_on(name))

    def slow(self, shard: int | None = None, *, ms: int) -> Fault:
        """Replies of a shard (None: of all) leave it ``ms`` milliseconds late, in their order; none are lost."""
        if isinstance(ms, bool) or not isinstance(ms, int):
            raise TypeError(f"ms must be a whole number of milliseconds, not {ms!r}")
        if not 0 < ms <= 3_600_000:
            raise ValueError(f"ms must be above 0 and at most 3600000, an hour, not {ms}")
        return self._set("delay_ms", shard, ms)

    def refuse_writes(self, shard: int | None = None, *, error: str = DISK_FULL) -> Fault:
        """A shard (None: all) executes no writes and answers with this error; reads work. Its first word is its code:
        "OOM command not allowed when used memory > 'maxmemory'." is full memory."""
        if not error or "\r" in error or "\n" in error:
            raise ValueError(f"an error is one line, its first word the code, not {error!r}")
        return self._set("write_refusals", shard, error)

    def clear(self) -> None:
        """All faults are over; returns when every process serves."""
        self._director.change(delay_ms={}, write_refusals={}, stopped=(), down=())
        self._director.wait_until(self._all_up, "every process serves")
        self._director.confirm()

    @property
    def active(self) -> bool:
        """Whether there is any."""
        stage = self._director.stage
        return bool(stage.delay_ms or stage.write_refusals or stage.stopped or stage.down)

    def _process(self, shard: int | None, router: int | None) -> str:
        if (shard is None) == (router is None):
            raise TypeError("say which process: shard=INDEX or router=INDEX, the first is 0")
        return f"shard {_index(shard)}" if shard is not None else f"router {_index(router)}"

    def _names(self, shard: int | None) -> list[str]:
        if shard is None:
            return [f"shard {index}" for index in range(self._shards)]
        name = f"shard {_index(shard)}"
        self._director.child(name)
        return [name]

    def _set(self, part: str, shard: int | None, value: Any) -> Fault:
        names = self._names(shard)
        before: dict[str, Any] = getattr(self._director.stage, part)
        self._director.change(**{part: before | dict.fromkeys(names, value)})

        def end() -> None:
            now: dict[str, Any] = getattr(self._director.stage, part)
            self._director.change(**{part: {name: now[name] for name in now if name not in names}})

        return Fault(end)

    def _keep_down(self, name: str) -> None:
        down = self._director.stage.down
        self._director.change(down=(*down, *(() if name in down else (name,))))
        self._director.wait_until(lambda: self._director.child(name).state == "down", f"the end of {name}")
        self._director.confirm()

    def _bring_back(self, name: str) -> None:
        self._director.change(down=tuple(each for each in self._director.stage.down if each != name))
        self._director.wait_until(lambda: self._director.child(name).state == "up", f"{name} serves again")
        self._director.confirm()

    def _go_on(self, name: str) -> None:
        self._director.change(stopped=tuple(each for each in self._director.stage.stopped if each != name))

    def _all_up(self) -> bool:
        return all(child.state == "up" for child in self._director.status().children)


def _index(index: int | None) -> int:
    if isinstance(index, bool) or not isinstance(index, int):
        raise TypeError(f"a process is named by its index, the first is 0, not by {index!r}")
    return index
