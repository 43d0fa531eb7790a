"""One shard put together: the compiled engine, the commands in Python, and what stands beside them."""

from __future__ import annotations

from kache.commands import TABLE

from .commands import registry
from .engine.engine import Budget, Executor
from .scripting.functions import Functions
from .scripting.scripts import Scripts
from .service.blocking import Blocking
from .service.modules import Modules
from .service.slowlog import SlowLog
from .service.statistics import Gauges

__all__ = ["Shard"]


class Shard(Executor):
    """All commands over an empty store.

    `maxmemory` in bytes, of all shards (0: no limit); `hash_seed` of 16 bytes; `cleanup` takes what is large (None: everything is freed
    on the spot); `index` among the shards; `now_ms` in unix ms, None for the wall clock; `budget`, what the shards share (None: alone).
    """

    def __init__(
        self,
        *,
        maxmemory: int = 0,
        policy: str = "noeviction",
        hash_seed: bytes = bytes(16),
        cleanup: object | None = None,
        index: int = 0,
        now_ms: int | None = None,
        budget: Budget | None = None,
    ) -> None:
        super().__init__(
            registry.load(),
            TABLE,
            slowlog=SlowLog(),
            maxmemory=maxmemory,
            policy=policy,
            hash_seed=hash_seed,
            cleanup=cleanup,
            index=index,
            now_ms=now_ms,
            budget=budget,
        )
        self.gauges = Gauges()
        self.inner = registry.INNER
        self.scripts = Scripts(self)
        self.functions = Functions(self, self.scripts)
        self.wait_with(Blocking(self))
        self.modules = Modules(self)

    def take_up(self, *, hash_seed: bytes, cleanup: object | None, index: int, now_ms: int, budget: Budget) -> None:
        """One that was put together before it was known whose it would be, in the process that this one was forked from: now it is
        this process's, with chance of its own."""
        super().take_up(hash_seed=hash_seed, cleanup=cleanup, index=index, now_ms=now_ms, budget=budget)
        self.modules.draw_anew()
