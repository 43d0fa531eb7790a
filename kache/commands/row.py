"""One row of the command table: its type, its compact notation, and the checks every row passes at import.

Owns `Row` and `KeySpec`. The row files (strings.py, keys.py, …) call `row`; everybody else reads rows through
`kache.commands`. Pure data: nothing here knows how a command is executed.

Notation of keys, in the words of COMMAND INFO: access (RO read, RW change, OW overwrite, RM remove) and effects
(access: the value is returned or copied, update, insert, delete), then the place of the key, counted with the
command as word 0::

    "RO access"            the first argument                   GET
    "RO access @1..-1"     from the first to the last           MGET
    "OW update @1..-1/2"   every second of them                 MSET
    "RO access #1"         as many as argument 1 says, after it ZUNION
    "OW update STORE>6"    after a keyword, from argument 6 on  GEORADIUS
    "OW update STORE?2"    the same, but clients are told that  SORT
                           the place cannot be computed
    "RO access ?"          not in the arguments at all          SORT BY
    "RO access STREAMS/1"  the first half of what follows a     XREAD
                           keyword, from argument 1 on

Notation of what nobody may see (`Row.secret`), the place counted in the same way::

    "1"                    every argument from there on         AUTH
    "AUTH>2/2"             so many behind a keyword, which is   HELLO
                           looked for from argument 2 on
    "settings 2"           of pairs of a setting and its value  CONFIG SET
                           the values that are secret
    "command 3"            of a whole command what is secret    ACL DRYRUN
                           of that
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

__all__ = [
    "CLUSTER", "FLAGS_NOT_TOLD", "GROUPS", "KNOWN_FLAGS", "MERGES", "POLLED", "ROUTES", "KeySpec", "Row", "Secret", "check_row",
    "in_group", "row",
]  # fmt: skip

ROUTES: Final = {
    "key": "answered by the shard that owns the key",
    "split": "each shard is asked for its own keys, the parts are merged",
    "move": "on one shard if the keys meet there, otherwise in several steps led by the router; a transaction if it writes",
    "all": "every shard is asked, the parts are merged",
    "cursor": "one shard after the other, the place kept in the cursor",
    "weighted": "one shard, chosen at random in proportion to its keys",
    "script": "run by the shard that owns the declared keys; those of other shards are locked and lent to it",
    "channel": "by way of the shard that owns the slot of the channel",
    "local": "answered by the router",
    "none": "a container: only its subcommands run",
}
"""Where a command is executed; the keys are the values of `Row.route`."""

MERGES: Final = {
    "first": "the reply of the one shard asked",
    "sum": "integers added up",
    "all_ok": "OK when every part is OK",
    "in_order": "elements put back into the order of the request",
    "concat": "arrays joined",
}
"""How partial replies become one; the keys are the values of `Row.merge` and functions of the router."""

CLUSTER: Final = {
    "native": "sent as it is to the node that owns the slot of the key",
    "split": "divided by slot over the nodes, the parts merged",
    "all": "every master is asked, the parts are merged",
    "local": "answered by the router",
    "one_slot": "all keys must have the same slot, or CROSSSLOT is the answer",
    "differs": "",
    "refused": "refused",
}
"""What a command does where the router stands in front of a Redis or Valkey Cluster; the keys are the values of
`Row.cluster`. The last two are told by `Row.cluster_text`."""

POLLED: Final = (
    "differs: Keys of one slot are waited for there. Keys of several are tried in their order again and again, at first every "
    "10 ms, later every 100: of clients that wait so nobody is first."
)
"""`Row.cluster` of what waits for keys, and takes from one of them: two nodes could give an element each."""

# fmt: off
KNOWN_FLAGS: Final = frozenset((
    "readonly", "write", "denyoom", "fast", "admin", "noscript", "loading", "stale", "no_auth", "no_multi",
    "no_async_loading", "allow_busy", "skip_monitor", "skip_slowlog", "movablekeys", "blocking", "pubsub",
    "no_mandatory_keys", "may_replicate", "internal",
))
# fmt: on

FLAGS_NOT_TOLD: Final = frozenset(("may_replicate",))
"""Flags that a real server has, too, but keeps to itself in COMMAND INFO."""

GROUPS: Final = {
    "string": "@string",
    "bitmap": "@bitmap",
    "generic": "@keyspace",
    "hash": "@hash",
    "list": "@list",
    "set": "@set",
    "sorted-set": "@sortedset",
    "geo": "@geo",
    "hyperloglog": "@hyperloglog",
    "stream": "@stream",
    "transactions": "@transaction",
    "scripting": "@scripting",
    "pubsub": "",
    "connection": "@connection",
    "cluster": "",
    "server": "",
    "module": "",
    "internal": "",
}
"""Groups as COMMAND DOCS names them, and the ACL category that membership implies (@pubsub comes with the flag)."""

_ROUTES_BY_KEYS: Final = ("key", "split", "move", "script")
_DIALECTS: Final = ("any", "binary", "resp")
_ACCESS: Final = frozenset(("RO", "RW", "OW", "RM"))
_EFFECTS: Final = frozenset(("access", "update", "insert", "delete", "variable_flags"))
_PLACE: Final = re.compile(
    r"@(?P<first>\d+)(?:\.\.(?P<last>-?\d+)(?:/(?P<step>\d+))?)?"
    r"|#(?P<count>\d+)(?:/(?P<stride>\d+))?"
    r"|(?P<keyword>[A-Z]*)(?P<sign>[>?/])(?P<start>\d*)"
)
_HIDDEN: Final = re.compile(
    r"(?:(?P<kind>settings|command) )?(?P<first>\d+)|(?P<keyword>[A-Z]+)>(?P<start>\d+)/(?P<count>\d+)"
)


class Secret(msgspec.Struct, frozen=True):
    """Which words of a command nobody may see (kache.commands.redact), counted as in `KeySpec`.

    `kind` is ``rest``, ``keyword``, ``settings`` or ``command``; `keyword` and the `count` of words behind it are for the
    second alone.
    """

    kind: str
    first: int
    keyword: str = ""
    count: int = 0


class KeySpec(msgspec.Struct, frozen=True):
    """Where keys are found in a command, and what happens to them.

    Indexes count the words of the whole command, its name being 0 (a subcommand's name 1). `last` may be
    negative: -1 is the last argument. For ``count``, `first` is the place of the number and the keys follow it;
    for ``keyword`` and ``unknown``, `first` is where the search for `keyword` starts; for ``half``, too, and the keys are
    the first half of what follows it.
    """

    kind: str
    flags: tuple[str, ...]
    first: int = 1
    last: int = 1
    step: int = 1
    keyword: str = ""

    @property
    def access(self) -> str:
        """``RO``, ``RW``, ``OW`` or ``RM``."""
        return self.flags[0]


class Row(msgspec.Struct, frozen=True):
    """One command. `name` is lower case, a subcommand's ``container|sub``; `id` is its place in the table.

    `arity` is Redis's: the number of words, name included, negative for "at least".
    """

    name: str
    syntax: str
    arity: int
    flags: frozenset[str]
    keys: tuple[KeySpec, ...]
    since: str
    complexity: str
    summary: str
    route: str
    """A key of `ROUTES`."""
    merge: str
    """A key of `MERGES`."""
    dialect: str
    """"any", or "binary" or "resp" for a row that exists in one protocol only."""
    difference: str
    """How it differs from Redis; empty if it does not."""
    categories: tuple[str, ...]
    """ACL categories, without "@", beyond those of group and flags (``-`` takes one away)."""
    cluster: str
    """A key of `CLUSTER`."""
    cluster_text: str
    """What differs there, or why it is refused; empty for the other kinds."""
    group: str = ""
    id: int = -1
    subcommands: tuple[str, ...] = ()
    secret: Secret | None = None
    """What MONITOR, the slow log, a shell's history and every log leave out of it."""

    @property
    def key(self) -> str:
        """The name under which handlers register: `name`, or ``binary|name`` for a variant of the binary dialect."""
        return f"binary|{self.name}" if self.dialect == "binary" else self.name

    @property
    def words(self) -> int:
        """How many words the name takes: 2 for a subcommand, else 1."""
        return 2 if "|" in self.name else 1

    @property
    def is_container(self) -> bool:
        """True for ``CONFIG`` and the like, which do nothing without a subcommand."""
        return self.route == "none"

    @property
    def is_write(self) -> bool:
        return "write" in self.flags

    @property
    def on_shard(self) -> bool:
        """True if shards execute it under its own name (then it needs a handler there)."""
        return self.route in ("key", "split", "move", "all", "script", "channel")

    @property
    def legacy_range(self) -> tuple[int, int, int]:
        """(first, last, step) of the keys as old clients expect them; zeros when they cannot be told that way."""
        first = last = step = 0
        for spec in self.keys:
            if spec.kind != "range" or (first and spec.first != last + 1):
                break
            first = first or spec.first
            last, step = spec.last, spec.step
        return first, last, step

    def arity_fits(self, words: int) -> bool:
        """Whether a command of `words` words (name and subcommand included) has an acceptable length."""
        return words == self.arity if self.arity >= 0 else words >= -self.arity


def row(
    name: str,
    syntax: str,
    arity: int,
    flags: str,
    keys: str,
    since: str,
    complexity: str,
    summary: str,
    *,
    cluster: str = "",
    route: str = "",
    merge: str = "first",
    differs: str = "",
    dialect: str = "any",
    acl: str = "",
    secret: str = "",
) -> Row:
    """A row from its compact notation: `flags` are words, `keys` specs joined by ``;``.

    `acl` names categories that do not follow from group and flags; with ``-`` in front one that would, but must not.
    `cluster` is a key of `CLUSTER`, for the last two of them with their text: ``"refused: why"``. `secret` says what of it
    nobody may see.
    Without `route` a command with keys goes to the shard of its key, and one without must say where it goes.
    """
    specs = tuple(_parse_spec(text) for text in keys.split(";")) if keys else ()
    words = frozenset(flags.split())
    if any(spec.kind != "range" for spec in specs):
        words |= {"movablekeys"}
    return Row(
        name=name,
        syntax=syntax,
        arity=arity,
        flags=words,
        keys=specs,
        since=since,
        complexity=complexity,
        summary=summary,
        route=route or ("key" if specs else ""),
        merge=merge,
        dialect=dialect,
        difference=differs,
        categories=tuple(acl.split()),
        cluster=cluster.partition(": ")[0],
        cluster_text=cluster.partition(": ")[2],
        secret=_parse_secret(secret) if secret else None,
    )


def in_group(group: str, *rows: Row) -> tuple[Row, ...]:
    """`rows`, each a member of `group`."""
    return tuple(msgspec.structs.replace(each, group=group) for each in rows)


def check_row(each: Row) -> None:
    """Raise ValueError, naming the command, if the row contradicts itself."""
    wrong = _contradiction(each)
    if wrong:
        raise ValueError(f"command table: {each.key}: {wrong}")


def _contradiction(each: Row) -> str:
    """What is wrong with the row, or an empty string."""
    first, last, step = each.legacy_range
    needed = max((spec.first for spec in each.keys if spec.kind in ("range", "count")), default=0) + 1
    checks = (
        (each.name != each.name.lower() or not each.name, "its name is not lower case"),
        (each.route not in ROUTES, f"unknown route {each.route!r}"),
        (each.merge not in MERGES, f"unknown merge {each.merge!r}"),
        (each.group not in GROUPS, f"unknown group {each.group!r}"),
        (each.dialect not in _DIALECTS, f"unknown dialect {each.dialect!r}"),
        (bool(each.flags - KNOWN_FLAGS), f"unknown flags {sorted(each.flags - KNOWN_FLAGS)}"),
        (abs(each.arity) < each.words, "its arity is shorter than its name"),
        (abs(each.arity) < needed and not _optional_keys(each), "its arity does not reach its keys"),
        (not each.complexity or not each.summary, "it has no complexity or no summary"),
        ({"readonly", "write"} <= each.flags, "it is both readonly and write"),
        (each.route in _ROUTES_BY_KEYS and not each.keys, f"route {each.route!r} without keys"),
        (each.route not in ("split", "all") and each.merge != "first", f"route {each.route!r} merges nothing"),
        (each.route == "split" and (first, last) != (1, -1), "a split command takes keys from first to last"),
        (each.route == "split" and each.merge == "first", "a split command needs a merge"),
        (
            step > 1 and each.route not in ("split", "move"),
            "a command of this route has no values between keys",
        ),
        (each.route == "script" and "noscript" not in each.flags, "a script that another script may run"),
        ({"write", "may_replicate"} <= each.flags, "a write is always replicated"),
        (("pubsub" in each.flags) > (each.group == "pubsub"), "flag pubsub outside its group"),
        (each.route == "channel" and "pubsub" not in each.flags, "route 'channel' without the flag pubsub"),
        (each.secret is not None and each.secret.first < each.words, "a secret within its name"),
        (each.secret is not None and each.on_shard, "a secret that shards would see"),
    )
    return next((text for wrong, text in checks if wrong), "") or _cluster_contradiction(each)


_ROUTES_OF_CLUSTER: Final = {
    "native": ("key", "script", "channel"),
    "split": ("split", "move"),
    "all": ("all", "weighted"),
    "local": ("local", "none"),
    "one_slot": ("split", "move", "script"),
}
"""What a command may do in front of a cluster, by where it is executed here: several keys are never simply native."""


def _cluster_contradiction(each: Row) -> str:
    told = each.cluster in ("differs", "refused")
    checks = (
        (each.cluster not in CLUSTER, "it does not say what happens in front of a Redis Cluster"),
        (told and not each.cluster_text.endswith("."), f"cluster {each.cluster!r} without a sentence"),
        (not told and bool(each.cluster_text), f"cluster {each.cluster!r} with a sentence"),
        (
            not told and each.route not in _ROUTES_OF_CLUSTER.get(each.cluster, ()),
            f"cluster {each.cluster!r} cannot be",
        ),
        ("internal" in each.flags and each.cluster != "refused", "no cluster knows an internal command"),
    )
    return next((text for wrong, text in checks if wrong), "")


def _optional_keys(each: Row) -> bool:
    # PFMERGE destination [source …]: the second spec may be empty.
    return each.arity < 0 and len(each.keys) > 1 and abs(each.arity) > each.keys[0].first


def _parse_spec(text: str) -> KeySpec:
    words = text.split()
    place = words.pop() if words and _PLACE.fullmatch(words[-1]) else "@1"
    if not words or words[0] not in _ACCESS or set(words[1:]) - _EFFECTS:
        raise ValueError(f"command table: bad key spec {text!r}")
    flags = tuple(words)
    match = _PLACE.fullmatch(place)
    assert match is not None
    if match["first"]:
        first = int(match["first"])
        return KeySpec("range", flags, first, int(match["last"] or first), int(match["step"] or 1))
    if match["count"]:
        return KeySpec("count", flags, int(match["count"]), step=int(match["stride"] or 1))
    kind = {">": "keyword", "/": "half", "?": "unknown"}[match["sign"]]
    return KeySpec(kind, flags, int(match["start"] or 0), keyword=match["keyword"])


def _parse_secret(text: str) -> Secret:
    match = _HIDDEN.fullmatch(text)
    if match is None:
        raise ValueError(f"command table: bad secret {text!r}")
    if match["keyword"]:
        return Secret("keyword", int(match["start"]), match["keyword"], int(match["count"]))
    return Secret(match["kind"] or "rest", int(match["first"]))
