"""What COMMAND and its subcommands answer, as reply values, and the lines of the HELP subcommands.

Everything is derived from the rows, in the shape in which a real server answers. Pure; the router calls it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from kache.errors import CommandError
from kache.replies import Reply, SetReply

from . import BINARY, BY_KEY, CONTAINERS, NO_MODULES, TABLE, Row, keys_of, keys_with_flags, lookup
from .extract import count_is_usable
from .row import FLAGS_NOT_TOLD, GROUPS, KeySpec
from .syntax import Argument, parse

__all__ = [
    "arity_error",
    "categories",
    "command_keys",
    "command_keys_with_flags",
    "docs",
    "help_lines",
    "info",
    "listed",
    "tips",
]

_CATEGORY_OF_FLAG: Final = {
    "readonly": ("read",),
    "write": ("write",),
    "admin": ("admin", "dangerous"),
    "blocking": ("blocking",),
    "pubsub": ("pubsub",),
}
_RESPONSE_POLICY: Final = {"sum": "agg_sum", "all_ok": "all_succeeded"}


def listed(dialect: int, modules: Mapping[str, Row] = NO_MODULES) -> list[Row]:
    """The rows a client of that dialect sees, without subcommands, in the order of the table; containers and those of
    modules last."""
    hidden = "resp" if dialect == BINARY else "binary"
    rows = [row for row in TABLE if row.words == 1 and row.group != "internal" and row.dialect != hidden]
    replaced = {row.name for row in rows if row.dialect == "binary"}
    own = [row for row in rows if row.dialect == "binary" or row.name not in replaced]
    return [*own, *CONTAINERS.values(), *modules.values()]


def subcommands(row: Row, dialect: int) -> list[Row]:
    """The rows of its subcommands that a client of that dialect sees."""
    rows = (lookup(name.encode(), dialect) for name in row.subcommands)
    return [each for each in rows if each is not None]


def categories(row: Row) -> list[str]:
    """The ACL categories of a command, with their "@"."""
    named = [word for word in row.categories if word[0] != "-"]
    if not row.is_container:
        named += [GROUPS[row.group].lstrip("@")] if GROUPS[row.group] else []
    for flag, words in _CATEGORY_OF_FLAG.items():
        named += words if flag in row.flags else ()
    named.append("fast" if "fast" in row.flags else "slow")
    removed = {word[1:] for word in row.categories if word[0] == "-"}
    if row.group == "scripting":
        removed.add(
            "read"
        )  # a script that reads only is no reading command: who may read may not therefore run scripts
    return [f"@{word}" for word in dict.fromkeys(named) if word not in removed]


def tips(row: Row) -> list[bytes]:
    """Hints for clients that talk to several servers, from route and merge."""
    if row.route == "split":
        found = ["request_policy:multi_shard"]
    elif row.route in ("all", "weighted"):
        found = ["request_policy:all_shards"]
    elif row.route == "cursor":
        found = ["request_policy:special", "response_policy:special"]
    else:
        found = []
    if row.merge in _RESPONSE_POLICY:
        found.append(f"response_policy:{_RESPONSE_POLICY[row.merge]}")
    return [tip.encode() for tip in found]


def info(row: Row, dialect: int) -> Reply:
    """One element of COMMAND INFO: ten fields."""
    return [
        row.name.encode(),
        row.arity,
        SetReply(sorted(row.flags - FLAGS_NOT_TOLD)),
        *row.legacy_range,
        SetReply(categories(row)),
        SetReply(tips(row)),
        SetReply(_spec(spec) for spec in row.keys),
        [info(each, dialect) for each in subcommands(row, dialect)],
    ]


def _spec(spec: KeySpec) -> Reply:
    """One key spec, as COMMAND INFO words it: where to begin, then how to go on."""
    begin: dict[bytes, Reply]
    find: dict[bytes, Reply]
    if spec.kind == "unknown":
        begin, find = {b"type": b"unknown", b"spec": {}}, {b"type": b"unknown", b"spec": {}}
    else:
        begin = {b"type": b"index", b"spec": {b"index": spec.first}}
        find = {b"type": b"range", b"spec": {b"lastkey": 0, b"keystep": spec.step, b"limit": 0}}
    if spec.kind == "range":
        # From the end as it is, else counted from the first key.
        find[b"spec"][b"lastkey"] = spec.last if spec.last < 0 else spec.last - spec.first
    elif spec.kind == "count":
        find = {b"type": b"keynum", b"spec": {b"keynumidx": 0, b"firstkey": 1, b"keystep": spec.step}}
    elif spec.kind == "half":
        begin = {b"type": b"keyword", b"spec": {b"keyword": spec.keyword.encode(), b"startfrom": spec.first}}
        find = {b"type": b"range", b"spec": {b"lastkey": -1, b"keystep": 1, b"limit": 2}}
    elif spec.kind == "keyword":
        begin = {b"type": b"keyword", b"spec": {b"keyword": spec.keyword.encode(), b"startfrom": spec.first}}
    return {b"flags": SetReply(spec.flags), b"begin_search": begin, b"find_keys": find}


def docs(row: Row, dialect: int) -> Reply:
    """The documentation of one command, without its name: summary, since, group, complexity, arguments."""
    found: dict[bytes, Reply] = {
        b"summary": row.summary.encode(),
        b"since": row.since.encode(),
        b"group": row.group.encode(),
        b"complexity": row.complexity.encode(),
    }
    if row.syntax:
        found[b"arguments"] = [_documented(argument) for argument in parse(row.syntax)]
    if row.subcommands:
        found[b"subcommands"] = {each.name.encode(): docs(each, dialect) for each in subcommands(row, dialect)}
    return found


def _documented(argument: Argument) -> Reply:
    found: dict[bytes, Reply] = {}
    for name, value in argument.items():
        if name == "flags":
            found[b"flags"] = SetReply(value)
        elif name == "arguments":
            found[b"arguments"] = [_documented(each) for each in value]
        else:
            found[name.encode()] = value.encode()
    return found


def arity_error(row: Row) -> CommandError:
    """What a command with too few or too many arguments is answered."""
    return CommandError(f"ERR wrong number of arguments for '{row.name}' command")


def command_keys(words: Sequence[bytes], dialect: int, modules: Mapping[str, Row] = NO_MODULES) -> list[bytes]:
    """COMMAND GETKEYS: the keys of a complete command. Raises CommandError as a real server words it."""
    return keys_of(*_complete(words, dialect, modules))


def command_keys_with_flags(
    words: Sequence[bytes], dialect: int, modules: Mapping[str, Row] = NO_MODULES
) -> list[tuple[bytes, tuple[str, ...]]]:
    """COMMAND GETKEYSANDFLAGS: the same with the flags of each key; those that depend on the arguments do."""
    row, args = _complete(words, dialect, modules)
    found = keys_with_flags(row, args)
    narrowed = _narrowed(row.name, [word.upper() for word in args])
    return [(key, narrowed) for key, _ in found] if narrowed else found


def _narrowed(name: str, args: Sequence[bytes]) -> tuple[str, ...]:
    """The flags of a key that depends on the arguments behind it; empty where they do not."""
    if name == "set":
        return ("RW", "access", "update") if b"GET" in args[2:] else ("OW", "update")
    if name == "bitfield":
        return ("RW", "access", "update") if {b"SET", b"INCRBY"} & set(args[1:]) else ("RO", "access")
    return ()


def _complete(words: Sequence[bytes], dialect: int, modules: Mapping[str, Row]) -> tuple[Row, Sequence[bytes]]:
    """The row and the arguments of a complete command that has keys."""
    row = lookup(words[0], dialect, modules)
    if row is not None and row.subcommands and len(words) > 1:
        row = lookup(words[0] + b"|" + words[1], dialect)
    if row is None:
        raise CommandError("ERR Invalid command specified")
    if not row.keys:
        raise CommandError("ERR The command has no key arguments")
    if not row.arity_fits(len(words)):
        raise CommandError("ERR Invalid number of arguments specified for command")
    args = words[row.words :]
    if not count_is_usable(row, args):
        raise CommandError("ERR Invalid arguments specified for command")
    return row, args


def help_lines(container: str) -> list[str]:
    """The reply of ``<container> HELP``: simple strings, a usage line, then every subcommand with its summary."""
    found = CONTAINERS.get(container) or BY_KEY[container]
    lines = [f"{container.upper()} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"]
    return lines + list(_helped(BY_KEY[name] for name in found.subcommands))


def _helped(rows: Iterable[Row]) -> Iterable[str]:
    for row in rows:
        yield f"{row.name.partition('|')[2].upper()} {row.syntax}".rstrip()
        yield f"    {row.summary}"
