"""Key leases: what keeps a value whole while the router moves it between two shards in several steps.

    router            source shard                  destination shard
      │  _lease_take ───►  key: token, deadline        ◄─── _lease_take
      │  _read       ───►  the value, with its TTL
      │  _lease_run token _put …        ───────────────────►  the value is there
      │  _lease_run token del …  ───►  the value is here no longer
      │  _lease_commit ──►  released                    ◄─── _lease_commit

While a key is leased, writes to it by anybody else answer TRYAGAIN: they were not executed. A lease ends by commit, by
abort, at its deadline, or when its database is emptied or exchanged, so that a router that died leaves nothing locked.
Leases live in memory only: after a restart `_lease_run` answers TRYAGAIN, because the token is not known any more.

Owns the leases of one shard. The execution point asks `Leases.check` before each write while `Leases.held` is not
empty; the internal commands are in commands/leases.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from kache.errors import CommandError

__all__ = ["LEASED", "LOST", "Lease", "Leases"]

LEASED = "TRYAGAIN the key is leased by a move between shards, try again"
LOST = "TRYAGAIN the lease has expired or is unknown here"


@dataclass(slots=True)
class Lease:
    """One move's hold on keys of this shard: (database, key) pairs until `deadline` (unix ms)."""

    token: bytes
    deadline: int
    keys: set[tuple[int, bytes]] = field(default_factory=set)


class Leases:
    """The leases of one shard. `held` says which keys are leased; it is empty nearly always."""

    def __init__(self) -> None:
        self.held: dict[tuple[int, bytes], Lease] = {}
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
            lease = self.held.get((database, key))
            if lease is None or lease.token == self._acting:
                continue
            if lease.deadline > now_ms:
                raise CommandError(LEASED)
            self._drop(lease)

    def take(self, token: bytes, deadline: int, database: int, keys: Iterable[bytes], now_ms: int) -> None:
        """Leases all the keys or none; the same token again adds keys and extends. TRYAGAIN when one is taken."""
        for lapsed in [lease for lease in self._by_token.values() if lease.deadline <= now_ms]:
            self._drop(lapsed)
        wanted = {(database, key) for key in keys}
        for place in wanted:
            holder = self.held.get(place)
            if holder is not None and holder.token != token:
                raise CommandError(LEASED)
        lease = self._by_token.setdefault(token, Lease(token, deadline))
        lease.deadline = deadline
        lease.keys |= wanted
        self.held.update(dict.fromkeys(wanted, lease))

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
        for place in lease.keys:
            if self.held.get(place) is lease:
                del self.held[place]

    def verify(self) -> None:
        """Asserts that the two indexes agree."""
        for token, lease in self._by_token.items():
            assert lease.token == token
            assert all(self.held[place] is lease for place in lease.keys)
        assert len(self.held) == sum(len(lease.keys) for lease in self._by_token.values())
