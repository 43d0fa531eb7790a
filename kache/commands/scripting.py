"""Rows of scripts; a shard runs them (shard/scripting), the router leads those whose keys live on several."""

from __future__ import annotations

from .row import in_group, row

__all__ = ["ROWS"]

_WHERE = (
    "The keys may live on any shards: those of others are locked and lent to the shard that runs it. A key that is not "
    "declared, of another shard, makes it run again with that key, unless it has changed something by then. Commands about "
    "all keys (KEYS, SCAN, DBSIZE, FLUSHALL) are refused inside it when there are several shards."
)
_CLUSTER = "one_slot"

# fmt: off
ROWS = in_group("scripting",
    row("eval", "script numkeys [key [key ...]] [arg [arg ...]]", -3,
        "noscript skip_monitor may_replicate no_mandatory_keys stale", "RW access update #2", "2.6.0",
        "that of the script", "Runs a script in Lua.", route="script", differs=_WHERE, cluster=_CLUSTER),
    row("eval_ro", "script numkeys [key [key ...]] [arg [arg ...]]", -3,
        "noscript skip_monitor readonly no_mandatory_keys stale", "RO access #2", "7.0.0",
        "that of the script", "Runs a script in Lua that changes nothing.", route="script", cluster=_CLUSTER),
    row("evalsha", "sha1 numkeys [key [key ...]] [arg [arg ...]]", -3,
        "noscript skip_monitor may_replicate no_mandatory_keys stale", "RW access update #2", "2.6.0",
        "that of the script", "Runs a script in Lua by the SHA1 digest of its text.", route="script",
        differs="A script that EVAL brought is known to the shard that ran it alone; SCRIPT LOAD makes all know it.",
        cluster=_CLUSTER),
    row("evalsha_ro", "sha1 numkeys [key [key ...]] [arg [arg ...]]", -3,
        "noscript skip_monitor readonly no_mandatory_keys stale", "RO access #2", "7.0.0",
        "that of the script", "Runs a script in Lua that changes nothing by the SHA1 digest of its text.",
        route="script", cluster=_CLUSTER),
    row("script|exists", "sha1 [sha1 ...]", -3, "noscript", "", "2.6.0", "O(N*S) scripts and shards",
        "Tells which scripts every shard knows.", route="local", cluster="local"),
    row("script|flush", "[ASYNC | SYNC]", -2, "noscript", "", "2.6.0", "O(N) scripts",
        "Forgets all scripts.", route="local", cluster="local"),
    row("script|help", "", 2, "loading stale", "", "5.0.0", "O(1)",
        "Lists the subcommands of SCRIPT.", route="local", cluster="local"),
    row("script|kill", "", 2, "noscript allow_busy", "", "2.6.0", "O(S) shards",
        "Ends the scripts that run now and have not written anything.", route="local",
        differs="A script ends within 100 ms, whatever loop it is in.", cluster="local"),
    row("script|load", "script", 3, "noscript stale", "", "2.6.0", "O(N) bytes of the script",
        "Has every shard know a script; its SHA1 digest.", route="local", cluster="local"),
    row("script|show", "sha1", 3, "noscript", "", "8.0.0", "O(1)",
        "Returns the text of a script.", route="local", cluster="local"),
)
# fmt: on
