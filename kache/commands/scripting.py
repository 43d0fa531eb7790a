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
    row("fcall", "function numkeys [key [key ...]] [arg [arg ...]]", -3,
        "noscript skip_monitor may_replicate no_mandatory_keys stale", "RW access update #2", "7.0.0",
        "that of the function", "Runs a function of a library.", route="script", cluster=_CLUSTER),
    row("fcall_ro", "function numkeys [key [key ...]] [arg [arg ...]]", -3,
        "noscript skip_monitor readonly no_mandatory_keys stale", "RO access #2", "7.0.0",
        "that of the function", "Runs a function of a library that says that it changes nothing.", route="script",
        cluster=_CLUSTER),
    row("function|delete", "library-name", 3, "noscript write", "", "7.0.0", "O(N) functions of the library",
        "Removes a library.", route="local", cluster="local"),
    row("function|dump", "", 2, "noscript", "", "7.0.0", "O(N) functions",
        "Returns all libraries as one payload, which a Redis or Valkey server can restore.", route="local", cluster="local"),
    row("function|flush", "[ASYNC | SYNC]", -2, "noscript write", "", "7.0.0", "O(N) functions",
        "Removes all libraries.", route="local", cluster="local"),
    row("function|help", "", 2, "loading stale", "", "7.0.0", "O(1)",
        "Lists the subcommands of FUNCTION.", route="local", cluster="local"),
    row("function|kill", "", 2, "noscript allow_busy", "", "7.0.0", "O(S) shards",
        "Ends the functions that run now and have not written anything.", route="local",
        differs="A function ends within 100 ms, whatever loop it is in.", cluster="local"),
    row("function|list", "[LIBRARYNAME library-name-pattern] [WITHCODE]", -2, "noscript", "", "7.0.0", "O(N) functions",
        "Returns the libraries and their functions.", route="local", cluster="local"),
    row("function|load", "[REPLACE] function-code", -3, "noscript write denyoom", "", "7.0.0", "O(N) bytes of the library",
        "Has every shard know a library of functions, which outlives the cluster where data is kept.", route="local",
        cluster="local"),
    row("function|restore", "serialized-value [FLUSH | APPEND | REPLACE]", -3, "noscript write denyoom", "", "7.0.0",
        "O(N) functions", "Restores all libraries of a payload, also of one that a Redis or Valkey server gave.",
        route="local", cluster="local"),
    row("function|stats", "", 2, "noscript allow_busy", "", "7.0.0", "O(S) shards",
        "Returns the function that runs, and how many there are.", route="local",
        differs="Of several that run on different shards it tells the one that has been running for the longest time.",
        cluster="local"),
    row("script|exists", "sha1 [sha1 ...]", -3, "noscript stale", "", "2.6.0", "O(N*S) scripts and shards",
        "Tells which scripts every shard knows.", route="local", cluster="local"),
    row("script|flush", "[ASYNC | SYNC]", -2, "noscript stale", "", "2.6.0", "O(N) scripts",
        "Forgets all scripts.", route="local", cluster="local"),
    row("script|help", "", 2, "loading stale", "", "5.0.0", "O(1)",
        "Lists the subcommands of SCRIPT.", route="local", cluster="local"),
    row("script|kill", "", 2, "noscript allow_busy", "", "2.6.0", "O(S) shards",
        "Ends the scripts that run now and have not written anything.", route="local",
        differs="A script ends within 100 ms, whatever loop it is in.", cluster="local"),
    row("script|load", "script", 3, "noscript stale", "", "2.6.0", "O(N) bytes of the script",
        "Has every shard know a script; its SHA1 digest.", route="local", cluster="local"),
    row("script|show", "sha1", 3, "noscript stale", "", "8.0.0", "O(1)",
        "Returns the text of a script.", route="local", cluster="local"),
)
# fmt: on
