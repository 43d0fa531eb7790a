"""The commands of other servers, and what Kache has none of: docs/not-implemented.md.

`KNOWN` are the names that Redis 7.0 and Valkey 9 answer to COMMAND DOCS, by group; a test asks both. What of them is missing
follows from the table; here is why, and what serves instead. ``python -m kache.commands.elsewhere > docs/not-implemented.md``
writes the page anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from . import TABLE

__all__ = ["KNOWN", "markdown", "missing"]

_NAMES: Final = {
    "bitmap": ("bitcount bitfield bitfield_ro bitop bitpos getbit setbit"),
    "cluster": (
        "asking clusterscan cluster|addslots cluster|addslotsrange cluster|bumpepoch cluster|cancelslotmigrations "
        "cluster|count-failure-reports cluster|countkeysinslot cluster|delslots cluster|delslotsrange "
        "cluster|failover cluster|flushslot cluster|flushslots cluster|forget cluster|getkeysinslot "
        "cluster|getslotmigrations cluster|info cluster|keyslot cluster|links cluster|meet cluster|migrateslots "
        "cluster|myid cluster|myshardid cluster|nodes cluster|replicas cluster|replicate cluster|reset "
        "cluster|saveconfig cluster|set-config-epoch cluster|setslot cluster|shards cluster|slaves "
        "cluster|slot-stats cluster|slots cluster|syncslots readonly readwrite"
    ),
    "connection": (
        "auth client|caching client|capa client|getname client|getredir client|id client|import-source "
        "client|info client|kill client|list client|no-evict client|no-touch client|pause client|reply "
        "client|setinfo client|setname client|tracking client|trackinginfo client|unblock client|unpause echo "
        "hello ping quit reset select"
    ),
    "generic": (
        "copy del dump exists expire expireat expiretime keys migrate move object|encoding object|freq "
        "object|idletime object|refcount persist pexpire pexpireat pexpiretime pttl randomkey rename renamenx "
        "restore scan sort sort_ro touch ttl type unlink wait waitaof"
    ),
    "geo": (
        "geoadd geodist geohash geopos georadius georadius_ro georadiusbymember georadiusbymember_ro geosearch "
        "geosearchstore"
    ),
    "hash": (
        "hdel hexists hexpire hexpireat hexpiretime hget hgetall hgetdel hgetex hincrby hincrbyfloat hkeys hlen "
        "hmget hmset hpersist hpexpire hpexpireat hpexpiretime hpttl hrandfield hscan hset hsetex hsetnx hstrlen "
        "httl hvals"
    ),
    "hyperloglog": ("pfadd pfcount pfdebug pfmerge pfselftest"),
    "list": (
        "blmove blmpop blpop brpop brpoplpush lindex linsert llen lmove lmpop lpop lpos lpush lpushx lrange lrem "
        "lset ltrim rpop rpoplpush rpush rpushx"
    ),
    "pubsub": (
        "psubscribe publish pubsub|channels pubsub|numpat pubsub|numsub pubsub|shardchannels pubsub|shardnumsub "
        "punsubscribe spublish ssubscribe subscribe sunsubscribe unsubscribe"
    ),
    "scripting": (
        "eval eval_ro evalsha evalsha_ro fcall fcall_ro function|delete function|dump function|flush "
        "function|kill function|list function|load function|restore function|stats script|debug script|exists "
        "script|flush script|kill script|load script|show"
    ),
    "server": (
        "acl|cat acl|deluser acl|dryrun acl|genpass acl|getuser acl|list acl|load acl|log acl|save acl|setuser "
        "acl|users acl|whoami bgrewriteaof bgsave commandlog|get commandlog|len commandlog|reset command|count "
        "command|docs command|getkeys command|getkeysandflags command|info command|list config|get "
        "config|resetstat config|rewrite config|set dbsize debug failover flushall flushdb info lastsave "
        "latency|doctor latency|graph latency|histogram latency|history latency|latest latency|reset lolwut "
        "memory|doctor memory|malloc-stats memory|purge memory|stats memory|usage module|list module|load "
        "module|loadex module|unload monitor psync replconf replicaof restore-asking role save shutdown slaveof "
        "slowlog|get slowlog|len slowlog|reset swapdb sync time"
    ),
    "set": (
        "sadd scard sdiff sdiffstore sinter sintercard sinterstore sismember smembers smismember smove spop "
        "srandmember srem sscan sunion sunionstore"
    ),
    "sorted-set": (
        "bzmpop bzpopmax bzpopmin zadd zcard zcount zdiff zdiffstore zincrby zinter zintercard zinterstore "
        "zlexcount zmpop zmscore zpopmax zpopmin zrandmember zrange zrangebylex zrangebyscore zrangestore zrank "
        "zrem zremrangebylex zremrangebyrank zremrangebyscore zrevrange zrevrangebylex zrevrangebyscore zrevrank "
        "zscan zscore zunion zunionstore"
    ),
    "stream": (
        "xack xadd xautoclaim xclaim xdel xgroup|create xgroup|createconsumer xgroup|delconsumer xgroup|destroy "
        "xgroup|setid xinfo|consumers xinfo|groups xinfo|stream xlen xpending xrange xread xreadgroup xrevrange "
        "xsetid xtrim"
    ),
    "string": (
        "append decr decrby delifeq get getdel getex getrange getset incr incrby incrbyfloat lcs mget mset msetex "
        "msetnx psetex set setex setnx setrange strlen substr"
    ),
    "transactions": ("discard exec multi unwatch watch"),
}

KNOWN: Final = {group: tuple(names.split()) for group, names in _NAMES.items()}
"""Every command of Redis 7.0 and Valkey 9; subcommands as ``config|get``, their HELP left out."""

_OF_GROUPS: Final = {
    "cluster": "Slots are moved, and nodes joined, only between servers; Kache is one node to its clients.",
    "connection": "Kache has no such part.",
    "generic": "DUMP and RESTORE copy keys between clusters of one version of Kache.",
    "scripting": "There is no debugger; redis.log writes to the log (docs/scripts.md).",
    "server": "Kache has no such part.",
}
"""Why, where nothing more exact is said of a command."""

_OF_COMMANDS: Final = {
    "client|capa": "Nothing is redirected.",
    "client|import-source": "Nothing is imported from another server.",
    "clusterscan": "SCAN covers all shards.",
    "commandlog": "SLOWLOG has the slow ones.",
    "debug": "Internal to a Redis server.",
    "failover": "There are no replicas.",
    "memory|malloc-stats": "Internal to a Redis server; INFO memory and `kache stats` have the figures.",
    "memory|purge": "Freed pages go back by themselves.",
    "module": "Modules of Redis (JSON, search, time series, Bloom filters) cannot be loaded; those in Python are, by `kache module` (python-commands.md).",
    "pfdebug": "Internal to a Redis server.",
    "pfselftest": "Internal to a Redis server.",
    "psync": "There are no replicas.",
    "replconf": "There are no replicas.",
    "replicaof": "There are no replicas.",
    "restore-asking": "Internal to a Redis Cluster.",
    "slaveof": "There are no replicas.",
    "sync": "There are no replicas.",
}
"""By command, or by the first word of several."""

_HEAD: Final = """\
# What is not implemented

The commands of Redis 7.0 and Valkey 9 that Kache does not have, generated from the command table by
`python -m kache.commands.elsewhere > docs/not-implemented.md`. They are answered with `ERR unknown command`, and the connection
stays. What exists is in `docs/commands.md`, with what differs.

"""


def missing() -> dict[str, list[str]]:
    """By group, the commands of others that the table does not have."""
    ours = {row.name for row in TABLE}
    found = {group: [name for name in names if name not in ours] for group, names in KNOWN.items()}
    return {group: names for group, names in found.items() if names}


def _why(group: str, name: str) -> str:
    return _OF_COMMANDS.get(name) or _OF_COMMANDS.get(name.partition("|")[0]) or _OF_GROUPS[group]


def _rows() -> Iterator[tuple[str, str, str]]:
    """(group, commands, why): those of one reason together."""
    for group, names in missing().items():
        reasons: dict[str, list[str]] = {}
        for name in names:
            reasons.setdefault(_why(group, name), []).append(f"`{name.replace('|', ' ').upper()}`")
        for why, shown in reasons.items():
            yield group, " ".join(shown), why


def markdown() -> str:
    """docs/not-implemented.md, ending in a newline."""
    total = sum(map(len, KNOWN.values()))
    absent = sum(map(len, missing().values()))
    counts = f"Of {total} commands and subcommands {total - absent} are here, {absent} are not.\n\n"
    rows = "".join(f"| {group} | {names} | {why} |\n" for group, names, why in _rows())
    return f"{_HEAD}{counts}| group | commands | why, and what instead |\n|---|---|---|\n{rows}"


if __name__ == "__main__":
    print(markdown(), end="")
