"""Commands between the router and the shards; no client can reach them. Their names start with "_".

The router sends them with `router.call`; keys in their specs are those whose slot decides the shard.
"""

from __future__ import annotations

from .row import Row, in_group, row

__all__ = ["ROWS"]


def _internal(name: str, syntax: str, arity: int, flags: str, keys: str, summary: str) -> Row:
    # Routed by the router's own code, whatever the keys: "all" only says that a shard executes it.
    return row(
        name, syntax, arity, f"internal {flags}", keys, "0.1.0", "as its work", summary,
        cluster="refused: Between routers and shards of Kache only.", route="key" if keys else "all",
    )  # fmt: skip


# fmt: off
ROWS = in_group("internal",
    _internal("_scan", "cursor last-slot [MATCH pattern] [COUNT count] [TYPE type]", -3, "readonly", "",
        "One step over the slots of one shard up to one of them: [next cursor, keys, what is left of COUNT]."),
    _internal("_slot_size", "slot", 2, "readonly", "",
        "How many keys of the database are in a slot."),
    _internal("_random_key", "", 1, "readonly", "",
        "A key of one shard, every one equally likely; null when it has none."),
    _internal("_read", "key", 2, "readonly", "RO access",
        "[type, deadline in unix ms or 0, payload] of a key; null without it."),
    _internal("_put", "key deadline payload", 4, "write denyoom", "OW update",
        "Stores what _read returned in place of whatever the key holds."),
    _internal("_with", "count [key deadline payload ...] command [argument ...]", -3, "", "",
        "Executes a command with copies of other shards' keys beside its own, for the length of that command."),
    _internal("_lease_take", "token deadline key [key ...]", -4, "write", "RW @3..-1",
        "Leases keys to a move: writes by others answer TRYAGAIN until commit, abort or the deadline."),
    _internal("_lease_run", "token command [argument ...]", -3, "write", "",
        "Executes a command past the lease of this token."),
    _internal("_lease_commit", "token", 2, "write", "",
        "Ends a lease after its move; the number of keys released."),
    _internal("_lease_abort", "token", 2, "write", "",
        "Ends a lease without its move; the number of keys released."),
    _internal("_stats", "", -1, "readonly loading stale", "",
        "The statistics of one shard."),
    _internal("_reset_stats", "", 1, "loading stale", "",
        "Sets the counters of one shard back to zero."),
)
# fmt: on
