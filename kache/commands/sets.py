"""Rows of sets."""

from __future__ import annotations

from .row import in_group, row

__all__ = ["ROWS"]

# fmt: off
ROWS = in_group("set",
    row("sadd", "key member [member ...]", -3, "write denyoom fast", "RW insert", "1.0.0", "O(N) members",
        "Adds members to a set and says how many are new.", cluster="native"),
    row("scard", "key", 2, "readonly fast", "RO", "1.0.0", "O(1)",
        "Returns how many members a set has.", cluster="native"),
    row("sdiff", "key [key ...]", -2, "readonly", "RO access @1..-1", "1.0.0", "O(N), N members of all sets together",
        "Returns the members of the first set that are in none of the others.", route="move", cluster="split"),
    row("sdiffstore", "destination key [key ...]",
        -3, "write denyoom", "OW update;RO access @2..-1", "1.0.0", "O(N), N members of all sets together",
        "Stores the members of the first set that are in none of the others.", route="move", cluster="one_slot"),
    row("sinter", "key [key ...]",
        -2, "readonly", "RO access @1..-1", "1.0.0", "O(N*K), N members of the smallest of K sets",
        "Returns the members that all sets have.", route="move", cluster="split"),
    row("sintercard", "numkeys key [key ...] [LIMIT limit]",
        -3, "readonly", "RO access #1", "7.0.0", "O(N*K), N members of the smallest of K sets",
        "Counts the members that all sets have, up to a limit.", route="move", cluster="one_slot"),
    row("sinterstore", "destination key [key ...]",
        -3, "write denyoom", "OW update;RO access @2..-1", "1.0.0", "O(N*K), N members of the smallest of K sets",
        "Stores the members that all sets have.", route="move", cluster="one_slot"),
    row("sismember", "key member", 3, "readonly fast", "RO", "1.0.0", "O(1)",
        "Says whether a set has a member.", cluster="native"),
    row("smembers", "key", 2, "readonly", "RO access", "1.0.0", "O(N), N members of the set",
        "Returns every member of a set.", cluster="native"),
    row("smismember", "key member [member ...]", -3, "readonly fast", "RO access", "6.2.0", "O(N) members asked for",
        "Says for each of several members whether a set has it.", cluster="native"),
    row("smove", "source destination member", 4, "write fast", "RW access delete;RW insert @2", "1.0.0", "O(1)",
        "Takes a member from one set and adds it to another.", route="move", cluster="one_slot"),
    row("spop", "key [count]", -2, "write fast", "RW access delete", "1.0.0", "O(N) members popped",
        "Removes members chosen at random and returns them.", cluster="native"),
    row("srandmember", "key [count]", -2, "readonly", "RO access", "1.0.0", "O(N) members returned",
        "Returns members chosen at random.", cluster="native"),
    row("srem", "key member [member ...]", -3, "write fast", "RW delete", "1.0.0", "O(N) members",
        "Removes members from a set.", cluster="native"),
    row("sscan", "key cursor [MATCH pattern] [COUNT count]",
        -3, "readonly", "RO access", "2.8.0", "O(1) for each call, O(N) for a complete iteration over N members",
        "Goes through the members of a set step by step.",
        cluster="differs: The cursor is the node's own: after a failover, or when the slot has moved, begin "
        "anew."),
    row("sunion", "key [key ...]", -2, "readonly", "RO access @1..-1", "1.0.0", "O(N), N members of all sets together",
        "Returns the members that any of the sets has.", route="move", cluster="split"),
    row("sunionstore", "destination key [key ...]",
        -3, "write denyoom", "OW update;RO access @2..-1", "1.0.0", "O(N), N members of all sets together",
        "Stores the members that any of the sets has.", route="move", cluster="one_slot"),
)
# fmt: on
