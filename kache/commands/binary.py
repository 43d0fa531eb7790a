"""Commands that the binary protocol gives another meaning or another reply than RESP does, under the same names."""

from __future__ import annotations

from .row import in_group, row

__all__ = ["ROWS"]

# fmt: off
ROWS = in_group("generic",
    row("del", "key [key ...]",
        -2, "write", "RM delete @1..-1", "1.0.0", "O(1) for each key; large values are taken apart in the background",
        "Deletes keys and says how many there were.",
        route="split", merge="sum", dialect="binary", differs="Deleting nothing answers 0 with the status RES_NX.",
        cluster="split"),
    row("expire", "key milliseconds [NX | XX | GT | LT]", -3, "write fast", "RW update", "1.0.0", "O(1)",
        "Sets the time to live of a key in milliseconds.",
        dialect="binary",
        differs="Milliseconds, not seconds; the answer is nil, or RES_NX without the key. With an option it is "
        "RESP's.", cluster="differs: Sent as PEXPIRE."),
    row("persist", "key", 2, "write fast", "RW update", "2.2.0", "O(1)",
        "Removes the time to live of a key.",
        dialect="binary", differs="Answers nil, also when there was no time to live, or RES_NX without the key.",
        cluster="differs: Sent as PERSIST, and as EXISTS where that finds no time to live."),
)
ROWS += in_group("sorted-set",
    row("zadd", "key [NX | XX] [GT | LT] [CH] [INCR] score member [score member ...]",
        -4, "write denyoom fast", "RW update", "1.2.0", "O(log N) for each member",
        "Adds a member, or changes the score of one that is there.",
        dialect="binary", differs="Answers nil; with options, or with more than one member, as in RESP.",
        cluster="differs: Sent as it is; the answer is put into the form of the binary protocol."),
    row("zrem", "key member [member ...]", -3, "write fast", "RW delete", "1.2.0", "O(M*log(N)), M members removed",
        "Removes members from a sorted set.",
        dialect="binary", differs="A single name that is not there answers nil with the status RES_NX.",
        cluster="differs: Sent as it is; the answer is put into the form of the binary protocol."),
)
# fmt: on
