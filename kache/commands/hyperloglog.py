"""Rows of HyperLogLogs: strings that estimate how many different elements they have seen."""

from __future__ import annotations

from .row import in_group, row

__all__ = ["ROWS"]

# fmt: off
ROWS = in_group("hyperloglog",
    row("pfadd", "key [element [element ...]]", -2, "write denyoom fast", "RW insert", "2.8.9", "O(N) elements",
        "Shows elements to a HyperLogLog and says whether its estimate may have changed.", cluster="native"),
    row("pfcount", "key [key ...]",
        -2, "readonly may_replicate", "RW access @1..-1", "2.8.9", "O(1) for one key, O(N) with a large constant for N keys",
        "Estimates how many different elements one or several HyperLogLogs have seen together.", route="move",
        cluster="one_slot"),
    row("pfmerge", "destkey [sourcekey [sourcekey ...]]",
        -2, "write denyoom", "RW access insert;RO access @2..-1", "2.8.9", "O(N) keys, with a large constant",
        "Merges HyperLogLogs into one.", route="move", cluster="one_slot"),
)
# fmt: on
