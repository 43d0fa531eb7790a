"""Rows of lists."""

from __future__ import annotations

from .row import in_group, row

__all__ = ["ROWS"]

# fmt: off
ROWS = in_group("list",
    row("lget", "key", 2, "readonly", "RO access", "0.1.0", "O(N), N elements of the list",
        "Returns all elements of a list.", differs="Not in Redis: LRANGE key 0 -1 under a name of its own.",
        cluster="differs: Sent as LRANGE key 0 -1."),
    row("lindex", "key index", 3, "readonly", "RO access", "1.0.0", "O(log N), N elements of the list",
        "Returns the element at an index; negative ones count from the end.", cluster="native"),
    row("linsert", "key <BEFORE | AFTER> pivot element",
        5, "write denyoom", "RW insert", "2.2.0", "O(N), N elements up to the pivot",
        "Inserts an element before or after the first one that equals the pivot.", cluster="native"),
    row("llen", "key", 2, "readonly fast", "RO", "1.0.0", "O(1)",
        "Returns how many elements a list has.", cluster="native"),
    row("lmove", "source destination <LEFT | RIGHT> <LEFT | RIGHT>",
        5, "write denyoom", "RW access delete;RW insert @2", "6.2.0", "O(1)",
        "Takes an element from one end of a list and puts it on an end of another (or the same).", route="move",
        cluster="one_slot"),
    row("lmpop", "numkeys key [key ...] <LEFT | RIGHT> [COUNT count]",
        -4, "write", "RW access delete #1", "7.0.0", "O(K+M), K keys, M elements popped",
        "Pops elements from the first list that is not empty.", route="move", cluster="one_slot"),
    row("lpop", "key [count]", -2, "write fast", "RW access delete", "1.0.0", "O(N) elements popped",
        "Pops elements from the head of a list.", cluster="native"),
    row("lpos", "key element [RANK rank] [COUNT num-matches] [MAXLEN len]",
        -3, "readonly", "RO access", "6.0.6", "O(N), N elements compared",
        "Finds the indexes of elements that equal a value.", cluster="native"),
    row("lpush", "key element [element ...]", -3, "write denyoom fast", "RW insert", "1.0.0", "O(N) elements pushed",
        "Puts elements on the head of a list, one after the other.", cluster="native"),
    row("lpushx", "key element [element ...]", -3, "write denyoom fast", "RW insert", "2.2.0", "O(N) elements pushed",
        "Puts elements on the head of a list if it exists.", cluster="native"),
    row("lrange", "key start stop", 4, "readonly", "RO access", "1.0.0", "O(log N + M), M elements returned",
        "Returns the elements between two indexes, both included.", cluster="native"),
    row("lrem", "key count element", 4, "write", "RW delete", "1.0.0", "O(N), N elements of the list",
        "Removes elements that equal a value: all, or so many from the head or the tail.", cluster="native"),
    row("lset", "key index element", 4, "write denyoom", "RW update", "1.0.0", "O(log N), N elements of the list",
        "Replaces the element at an index.", cluster="native"),
    row("ltrim", "key start stop",
        4, "write", "RW delete", "1.0.0", "O(M), M elements removed; large parts are taken apart in the background",
        "Keeps only the elements between two indexes, both included.", cluster="native"),
    row("rpop", "key [count]", -2, "write fast", "RW access delete", "1.0.0", "O(N) elements popped",
        "Pops elements from the tail of a list.", cluster="native"),
    row("rpoplpush", "source destination", 3, "write denyoom", "RW access delete;RW insert @2", "1.2.0", "O(1)",
        "Takes the last element of a list and puts it on the head of another; LMOVE does more.", route="move",
        cluster="one_slot"),
    row("rpush", "key element [element ...]", -3, "write denyoom fast", "RW insert", "1.0.0", "O(N) elements pushed",
        "Puts elements on the tail of a list, one after the other.", cluster="native"),
    row("rpushx", "key element [element ...]", -3, "write denyoom fast", "RW insert", "2.2.0", "O(N) elements pushed",
        "Puts elements on the tail of a list if it exists.", cluster="native"),
)
# fmt: on
