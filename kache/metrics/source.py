"""Where the metrics process has its figures from: one client of the cluster, as any other program could be.

Owns the connections, and the moments of the last minutes. Whoever asks while a question is under way gets its answer: many
scrapers cost the cluster one.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec

from kache import figures
from kache.client import AsyncClient
from kache.config.settings import Config
from kache.errors import CommandError, KacheError
from kache.intervals import Interval, between
from kache.stats import Snapshot

__all__ = ["SAMPLE_SECONDS", "Source", "SourceError", "client_host"]

TIMEOUT_SECONDS = 5.0
CONNECTIONS = 8
SAMPLE_SECONDS = 5.0
SAMPLES = 120
"""Ten minutes, for the console's charts."""

_decoder = msgspec.msgpack.Decoder(Snapshot)


class SourceError(KacheError):
    """The cluster did not answer; the message says why, in one sentence."""


def client_host(bind: Sequence[str]) -> str:
    """The address to reach the cluster at from its own machine."""
    for host in bind:
        if host in ("*", ""):
            return "127.0.0.1"
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            continue
        if address.is_unspecified:
            return "127.0.0.1" if address.version == 4 else "::1"
    return bind[0]


class Source:
    """`snapshot` raises SourceError; `client` is for whatever else is asked. `sample` runs as long as the process."""

    def __init__(self, config: Config, port: int, unixsocket: str | None = None) -> None:
        self._port = port
        self._unixsocket = unixsocket
        self._asking: asyncio.Task[Snapshot] | None = None
        self._last: Snapshot | None = None
        self.interval: Interval | None = None
        """Between the last two samples."""
        self.history: deque[dict[str, Any]] = deque(maxlen=SAMPLES)
        self.apply(config)

    def apply(self, config: Config) -> None:
        """Connect with the password of this configuration from now on."""
        self._config = config
        self._clients: dict[int, AsyncClient[bytes]] = {}

    def client(self, db: int) -> AsyncClient[bytes]:
        """The client for a numbered database."""
        if db not in self._clients:
            self._clients[db] = AsyncClient(
                client_host(self._config.bind), self._port or 1, unixsocket=self._unixsocket, password=self._config.requirepass or None, db=db,
                timeout=TIMEOUT_SECONDS, connect_timeout=TIMEOUT_SECONDS, max_connections=CONNECTIONS,
            )  # fmt: skip
        return self._clients[db]

    async def snapshot(self) -> Snapshot:
        """The figures of this moment."""
        if self._asking is None:
            self._asking = asyncio.ensure_future(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> Snapshot:
        try:
            return _decoder.decode(await self.client(0).execute("stats", "snapshot"))
        except CommandError as error:
            raise SourceError(f"The cluster refuses to tell its figures: {error.message}.") from None
        except (KacheError, OSError, TimeoutError, msgspec.MsgspecError) as error:
            raise SourceError(f"The cluster does not tell its figures: {error}.") from None
        finally:
            self._asking = None

    async def ping(self) -> None:
        """Raises SourceError unless the cluster answers."""
        try:
            await self.client(0).execute("ping")
        except CommandError as error:
            # All shards run scripts: what is to be done is SCRIPT KILL, not another start.
            if error.code != "BUSY":
                raise SourceError(f"The cluster does not answer: {error}.") from None
        except (KacheError, OSError, TimeoutError) as error:
            raise SourceError(f"The cluster does not answer: {error}.") from None

    async def sample(self) -> None:
        """Remembers a moment every SAMPLE_SECONDS, for ever."""
        while True:
            try:
                self.remember(await self.snapshot())
            except SourceError:
                self._last = self.interval = None  # a gap
            await asyncio.sleep(SAMPLE_SECONDS)

    def remember(self, moment: Snapshot) -> None:
        """One more moment of the history."""
        if self._last is not None and moment.at_ms > self._last.at_ms:
            self.interval = between(self._last, moment)
            self.history.append(_point(moment, self.interval))
        self._last = moment


def _point(moment: Snapshot, interval: Interval) -> dict[str, Any]:
    """What the charts show of one moment."""
    whole = figures.whole(moment)
    named = (
        "client_ops_per_second",
        "clients",
        "used_memory",
        "total_memory",
        "keys",
        "in_flight",
        "input_kbps",
        "output_kbps",
        "evicted",
    )
    return {
        "at_ms": moment.at_ms,
        **{name: whole[name] for name in named},
        "hit_percent": interval.hit_percent(),
        "p50_us": interval.percentile_us(50),
        "p99_us": interval.percentile_us(99),
        "loads": {index: shard.load for index, shard in interval.shards.items()},
        "router_loads": interval.routers,
        "ops": {shard.index: shard.ops_per_second for shard in moment.shards},
    }
