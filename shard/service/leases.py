"""Key leases: what keeps a value whole while the router moves it between two shards in several steps.

    router            source shard                  destination shard
      │  _lease_take ───►  key: token, deadline        ◄─── _lease_take
      │  _read_part  ───►  a part of the value
      │  _build token …                 ───────────────────►  is added to the value under construction
      │         … until the last part, extending the leases
      │  _lease_run token _build_put …  ───────────────────►  the value is there
      │  _lease_run token del …  ───►  the value is here no longer
      │  _lease_commit ──►  released                    ◄─── _lease_commit

While a key is leased, writes to it by anybody else answer TRYAGAIN: they were not executed. Who only reads it takes
it shared with others who do. A lease ends by commit, by
abort, at its deadline, or when its database is emptied or exchanged, so that a router that died leaves nothing locked.
Values under construction belong to a lease and go with it.
Leases live in memory only: after a restart `_lease_run` answers TRYAGAIN, because the token is not known any more.

Owns the leases of one shard. The execution point asks `Leases.check` before each write while `Leases.held` is not
empty; the internal commands are in commands/leases.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kache.errors import CommandError

if TYPE_CHECKING:
    from ..engine.engine import Building

__all__ = ["LEASED", "LOST", "Lease", "Leases"]

LEASED = "TRYAGAIN the key is leased by a move between shards, try again"
LOST = "TRYAGAIN the lease has expired or is unknown here"


Place = tuple[int, bytes]
"""A database and a key in it."""


@dataclass(slots=True, eq=False)
class Lease:
    """One move's hold on keys of this shard: (database, key) pairs until `deadline` (unix ms)."""

    token: bytes
    deadline: int
    keys: set[Place] = field(default_factory=set)
    shared: set[Place] = field(default_factory=set)
    """Those of them that others may lease, too."""
    buildings: dict[bytes, Building] = field(default_factory=dict)
    """Values under construction, by the key that each may get."""


class Leases:
    """The leases of one shard. `held` says which keys are leased; it is empty nearly always."""

    def __init__(self) -> None:
        self.held: dict[Place, list[Lease]] = {}
        self._by_token: dict[bytes, Lease] = {}
        self._acting = b""

    @contextmanager
    def acting_for(self, token: bytes) -> Iterator[None]:
        """What is executed meanwhile is the holder's own: its leases do not stop it."""
        self._acting = token
        try:
            yield
        finally:
            self._acting = b""

    def check(self, database: int, keys: Iterable[bytes], now_ms: int) -> None:
        """CommandError TRYAGAIN when any of the keys is leased; forgets leases past their deadline."""
        for key in keys:
            for lease in self.held.get((database, key), [])[:]:
                if lease.token == self._acting:
                    continue
                if lease.deadline > now_ms:
                    raise CommandError(LEASED)
                self._drop(lease)

    def take(
        self, token: bytes, deadline: int, database: int, keys: Iterable[bytes], now_ms: int, *, shared: bool = False
    ) -> None:
        """Leases all the keys or none; the same token again adds keys and extends. TRYAGAIN when one is taken.

        A shared lease goes with others that are shared.
        """
        self.end_lapsed(now_ms)
        wanted = {(database, key) for key in keys}
        for place in wanted:
            for holder in self.held.get(place, ()):
                if holder.token != token and not (shared and place in holder.shared):
                    raise CommandError(LEASED)
        lease = self._by_token.setdefault(token, Lease(token, deadline))
        lease.deadline = deadline
        for place in wanted - lease.keys:
            self.held.setdefault(place, []).append(lease)
            if shared:
                lease.shared.add(place)
        if not shared:
            lease.shared -= wanted
        lease.keys |= wanted

    def extend(self, token: bytes, deadline: int, now_ms: int) -> None:
        """A later deadline for a lease that still holds; TRYAGAIN for any other."""
        self.of(token, now_ms).deadline = deadline

    def of(self, token: bytes, now_ms: int) -> Lease:
        """The unexpired lease of this token; TRYAGAIN when there is none."""
        lease = self._by_token.get(token)
        if lease is None or lease.deadline <= now_ms:
            raise CommandError(LOST)
        return lease

    def end_lapsed(self, now_ms: int) -> None:
        """Ends every lease past its deadline: to be called now and then, for what is under construction takes memory."""
        for lapsed in [lease for lease in self._by_token.values() if lease.deadline <= now_ms]:
            self._drop(lapsed)

    def holds(self, token: bytes, now_ms: int) -> bool:
        """Whether this token has an unexpired lease here."""
        lease = self._by_token.get(token)
        return lease is not None and lease.deadline > now_ms

    def release(self, token: bytes, now_ms: int) -> int:
        """Ends a lease; how many keys it still held, 0 when its deadline had passed or it is unknown."""
        lease = self._by_token.get(token)
        if lease is None:
            return 0
        self._drop(lease)
        return len(lease.keys) if lease.deadline > now_ms else 0

    def forget(self, *databases: int) -> None:
        """Ends every lease in these databases: they were emptied or exchanged, and no step of a move may follow."""
        for lease in list(self._by_token.values()):
            if any(database in databases for database, _key in lease.keys):
                self._drop(lease)

    def _drop(self, lease: Lease) -> None:
        self._by_token.pop(lease.token, None)
        for building in lease.buildings.values():
            building.drop()
        lease.buildings.clear()
        for place in lease.keys:
            holders = self.held[place]
            holders.remove(lease)
            if not holders:
                del self.held[place]

    def verify(self) -> None:
        """Asserts that the two indexes agree."""
        for token, lease in self._by_token.items():
            assert lease.token == token
            assert lease.shared <= lease.keys
            assert all(lease in self.held[place] for place in lease.keys)
        for place, holders in self.held.items():
            assert len(holders) == 1 or all(place in lease.shared for lease in holders)
        assert sum(map(len, self.held.values())) == sum(len(lease.keys) for lease in self._by_token.values())
