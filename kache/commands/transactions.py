"""Rows of transactions; the router queues and executes them."""

from __future__ import annotations

from .row import in_group, row

__all__ = ["ROWS"]

# fmt: off
ROWS = in_group("transactions",
    row("discard", "", 1, "noscript loading stale fast allow_busy", "", "2.0.0", "O(N) queued commands",
        "Drops what was queued since MULTI, and ends every WATCH.", route="local", cluster="local"),
    row("exec", "", 1, "noscript loading stale skip_slowlog", "", "1.2.0", "that of the queued commands",
        "Executes what was queued since MULTI, at once and alone.",
        route="local",
        differs="The keys may live on any shards: nobody sees a part of it. If a shard is lost in the middle the reply is "
        "UNCERTAIN, naming the shards that have executed theirs. That memory is full is told here, not when a command is "
        "queued.",
        cluster="differs: All keys must have one slot, or CROSSSLOT is the answer."),
    row("multi", "", 1, "noscript loading stale no_multi fast allow_busy", "", "1.2.0", "O(1)",
        "Queues the commands that follow, until EXEC or DISCARD.", route="local", cluster="local"),
    row("unwatch", "", 1, "noscript loading stale fast allow_busy", "", "2.2.0", "O(1)",
        "Ends every WATCH of this connection.", route="local", cluster="local"),
    row("watch", "key [key ...]", -2, "noscript loading stale no_multi fast allow_busy", "RO @1..-1", "2.2.0", "O(N) keys",
        "Makes the next EXEC answer null, and execute nothing, if one of the keys has changed by then.",
        route="local", cluster="differs: All keys must have one slot, or CROSSSLOT is the answer."),
)
# fmt: on
