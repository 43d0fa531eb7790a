"""Where the metrics process has its figures from: a client of the cluster, as a user that the cluster keeps for it.

Owns the connections, and the moments of the last minutes. Whoever asks while a question is under way gets its answer: many
scrapers cost the cluster one. That user (kache.acl.record.METRICS) sees figures and no key, whatever becomes of `default` and
the others; who visits the console acts as a user of the cluster, with the rights of that one.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import msgspec

from kache import figures
from kache.acl.record import DEFAULT, METRICS
from kache.client import AsyncClient
from kache.config.settings import Config
from kache.errors import CommandError, KacheError
from kache.intervals import Interval, between
from kache.stats import Snapshot

__all__ = ["SAMPLE_SECONDS", "Source", "SourceError", "Visitor", "client_host"]

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

    def __init__(self, config: Config, port: int, password: str, unixsocket: str | None = None) -> None:
        self._bind = config.bind
        self._port = port
        self._unixsocket = unixsocket
        self._client = self._as(METRICS.decode(), password)
        self._asking: asyncio.Task[Snapshot] | None = None
        self._last: Snapshot | None = None
        self.interval: Interval | None = None
        """Between the last two samples."""
        self.history: deque[dict[str, Any]] = deque(maxlen=SAMPLES)

    def _as(self, user: str, password: str, db: int = 0) -> AsyncClient[bytes]:
        """A client in the name of this user."""
        return AsyncClient(
            client_host(self._bind), self._port or 1, unixsocket=self._unixsocket, username=user, password=password, db=db,
            timeout=TIMEOUT_SECONDS, connect_timeout=TIMEOUT_SECONDS, max_connections=CONNECTIONS,
        )  # fmt: skip

    async def visitor(self, name: str, password: str) -> Visitor | None:
        """Who comes with this name and password: the user of the name, `default` where there is none of it; None when the
        password is wrong or the user is off. Raises SourceError."""
        try:
            found = await self._client.execute("acl", "getuser", name) if name else None
            if not found:
                name = DEFAULT.decode()
                found = await self._client.execute("acl", "getuser", name)
        except (KacheError, OSError, TimeoutError) as error:
            raise SourceError(f"The cluster does not say who may look: {error}.") from None
        told = found if isinstance(found, dict) else dict(zip(found[::2], found[1::2], strict=True))
        flags = told[b"flags"]
        given = hashlib.sha256(password.encode()).hexdigest()
        right = b"nopass" in flags
        for known in told[b"passwords"]:
            right |= hmac.compare_digest(given, known.decode())
        if b"on" not in flags or not right:
            return None
        return Visitor(lambda db: self._as(name, password, db), b"nopass" in flags)

    async def snapshot(self) -> Snapshot:
        """The figures of this moment."""
        if self._asking is None:
            self._asking = asyncio.ensure_future(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> Snapshot:
        try:
            return _decoder.decode(await self._client.execute("stats", "snapshot"))
        except CommandError as error:
            raise SourceError(f"The cluster refuses to tell its figures: {error.message}.") from None
        except (KacheError, OSError, TimeoutError, msgspec.MsgspecError) as error:
            raise SourceError(f"The cluster does not tell its figures: {error}.") from None
        finally:
            self._asking = None

    async def ping(self) -> None:
        """Raises SourceError unless the cluster answers."""
        try:
            await self._client.execute("ping")
        except CommandError as error:
            # All shards run scripts: what is to be done is SCRIPT KILL, not another start.
            if error.code != "BUSY":
                raise SourceError(f"The cluster does not answer: {error}.") from None
        except (KacheError, OSError, TimeoutError) as error:
            raise SourceError(f"The cluster does not answer: {error}.") from None

    async def unready(self) -> str:
        """What READY says, empty for OK. Raises SourceError where it says neither."""
        try:
            await self._client.execute("ready")
        except CommandError as error:
            if error.code == "NOTREADY":
                return error.message.removeprefix("NOTREADY ")
            raise SourceError(f"The cluster does not say whether it is ready: {error}.") from None
        except (KacheError, OSError, TimeoutError) as error:
            raise SourceError(f"The cluster does not answer: {error}.") from None
        return ""

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


class Visitor:
    """Somebody who looks at the console: `client` executes in the name of that user, until the block ends."""

    def __init__(self, connect: Callable[[int], AsyncClient[bytes]], is_anybody: bool) -> None:
        self._connect = connect
        self._clients: dict[int, AsyncClient[bytes]] = {}
        self.is_anybody = is_anybody
        """Whether any password is right for this user: then it proves nothing."""

    def client(self, db: int) -> AsyncClient[bytes]:
        """The client for a numbered database."""
        if db not in self._clients:
            self._clients[db] = self._connect(db)
        return self._clients[db]

    async def __aenter__(self) -> Visitor:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients.values():
            await client.close()


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
