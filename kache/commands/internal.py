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
    _internal("_read_part", "key cursor bytes elements", 5, "readonly", "RO access",
        "[where the next part begins or 0, a part of the key's value]; null without it."),
    _internal("_put", "key image event", 4, "write denyoom", "OW update",
        "Stores a value that was read in one part in place of whatever the key holds."),
    _internal("_remove", "key event", 3, "write", "RM delete",
        "Removes a key whose value has gone elsewhere."),
    _internal("_build", "key part", 3, "write denyoom", "OW update",
        "Adds a part to a value under construction, which belongs to the lock of the transaction."),
    _internal("_build_put", "key event", 3, "write denyoom", "OW update",
        "What is under construction for the key becomes its value; its number of elements."),
    _internal("_take", "numkeys key [key ...] command [argument ...]", -4, "write", "RW access delete #1",
        "One attempt of a command that waits, at some of its keys; its other arguments follow its name."),
    _internal("_first", "numkeys key [key ...] type", -4, "readonly", "RO #1",
        "[place of the first of some keys that exists, whether it is of that type]; null without any."),
    _internal("_wait", "numkeys key [key ...] cell claim command [argument ...]", -6, "write", "RW access delete #1",
        "Waits for one of some keys on behalf of a client that waits on other shards, too; one of them may serve it."),
    _internal("_read_ids", "numkeys key [key ...] command argument [argument ...]", -6, "readonly", "RO access #1",
        "The IDs of an XREAD or XREADGROUP for some of its keys as they are now, after all of it is checked."),
    _internal("_read_wait", "numkeys key [key ...] cell claim command argument [argument ...]",
        -8, "write", "RO access #1",
        "Waits for entries on behalf of a client that waits on other shards, too; one of them may serve it."),
    _internal("_await", "key", 2, "write", "RW access delete",
        "Waits for a list whose first element is to be moved to another shard: a number, for _settle."),
    _internal("_since", "nanoseconds", 2, "", "",
        "The next command of this session waits since then (CLOCK_MONOTONIC), on a shard that has been away."),
    _internal("_settle", "key number again", 4, "write", "RW access delete",
        "The move behind a number of _await is done, or found nothing and waits on in its place."),
    _internal("_sizes", "key [key ...]", -2, "readonly", "RO @1..-1",
        "[type, number of elements] of each key."),
    _internal("_pick", "key scored aggregate weight cursor elements bytes counting [filter drop weight ...]",
        -9, "readonly", "RO access",
        "[where to go on or 0, members found, the part of them]: members of a set that other sets have, or have not."),
    _internal("_keep", "part scored aggregate counting [filter drop weight ...]", -5, "readonly", "",
        "[members found, the part of them]: what this shard's sets let through of members picked elsewhere."),
    _internal("_gather", "destination scored aggregate expected part", 6, "write denyoom", "OW update",
        "Adds members to a set under construction; scores of one member are combined."),
    _internal("_gather_key",
        "destination scored aggregate expected key weight cursor elements [filter drop weight ...]",
        -9, "write denyoom", "OW update",
        "Adds members of a key of this shard to a set under construction: [where to go on or 0, members found]."),
    _internal("_spell", "name scored cursor elements dialect scores", 7, "readonly", "RO",
        "[where to go on or 0, number of members, some of them in a client's dialect] of a set under construction."),
    _internal("_with", "count [key image ...] command [argument ...]", -3, "", "",
        "Executes a command with copies of other shards' keys beside its own, for the length of that command."),
    _internal("_lock", "transaction until mode slots [shards]", -5, "", "",
        "Keeps others out of slots, or of all; whether it does, or why not, and at once or when it is its turn. "
        "Shards: those that write a share of it to their logs."),
    _internal("_commit", "transaction shards", 3, "", "",
        "All steps of a transaction are done, on all of these shards: what it has changed counts after a crash."),
    _internal("_unlock", "transaction", 2, "", "",
        "Ends a transaction without its share: 1 if it held anything."),
    _internal("_watch", "key [key ...]", -2, "", "RO @1..-1",
        "The session watches keys of the database."),
    _internal("_unwatch", "", 1, "", "",
        "The session watches nothing any more."),
    _internal("_big", "count", 2, "readonly", "",
        "The largest keys of one shard, as msgpack: [[database, key, type, elements, bytes], ...]."),
    _internal("_hot", "count", 2, "readonly loading stale", "",
        "The most used keys of one shard, as msgpack: [all counted, seconds, [[database, key, its size, count], ...]]."),
    _internal("_script_run", "user command count [key image ...] script numkeys [key [key ...]] [arg [arg ...]]", -5, "", "",
        "Runs a script with keys of other shards beside its own: [again, keys], or [done, its reply or failed, its error, "
        "[[key, image], ...] of those that it has changed, what it publishes elsewhere]."),
    _internal("_script_exists", "[sha1 ...]", -1, "readonly loading stale", "",
        "Which of some scripts the shard knows, as 0 or 1."),
    _internal("_functions", "[codes]", -1, "readonly loading stale", "",
        "[name, its code if asked for, [name, description, flags] of each function] of each library."),
    _internal("_script_show", "sha1", 2, "readonly loading stale", "",
        "The text of a script; null without it."),
    _internal("_subscribe", "kind [name sessions ...]", -2, "loading stale", "",
        "So many of a router's clients listen to these channels or patterns now."),
    _internal("_track", "session redirect flags [prefix ...]", -4, "loading stale", "",
        "A session is told when what it reads changes, or what has a prefix; or another one is told for it."),
    _internal("_untrack", "session", 2, "loading stale", "",
        "It is not any longer."),
    _internal("_broken", "session", 2, "loading stale", "",
        "The session that others have their news sent to is gone."),
    _internal("_monitored", "line", 2, "loading stale", "",
        "A line for those who watch all commands."),
    _internal("_listened", "kind [pattern]", -2, "readonly loading stale", "",
        "The channels or patterns that somebody listens to."),
    _internal("_listeners", "kind [name ...]", -2, "readonly loading stale", "",
        "How many clients listen to each of some channels."),
    _internal("_stats", "", -1, "readonly loading stale", "",
        "The statistics of one shard."),
    _internal("_advice", "", 1, "readonly loading stale", "",
        "What the miniature simulations of one shard say."),
    _internal("_reset_stats", "", 1, "loading stale", "",
        "Sets the counters of one shard back to zero."),
)
# fmt: on
