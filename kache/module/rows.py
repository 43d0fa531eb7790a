"""What a module declares as rows of the command table. Whatever is wrong with it is said in one sentence."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Final

import msgspec

from kache.commands import BINARY, CONTAINERS, Row, lookup
from kache.commands.row import check_row, row
from kache.commands.syntax import parse

from .declare import Declaration
from .source import ModuleError

__all__ = ["Shape", "known_row", "row_of", "rows_of", "shape_of"]

FLAGS: Final = frozenset(("write", "readonly", "denyoom", "fast", "admin", "loading", "skip_slowlog"))
"""What a module may say of its commands."""

_CATEGORIES: Final = frozenset((
    "keyspace", "read", "write", "set", "sortedset", "list", "hash", "string", "bitmap", "hyperloglog", "geo", "stream",
    "pubsub", "admin", "fast", "slow", "blocking", "dangerous", "connection", "transaction", "scripting",
))  # fmt: skip
_NAME: Final = re.compile(r"[a-z][a-z0-9_.:-]{0,63}")
_KEYS: Final = re.compile(r"(?P<first>[1-9]\d?)\.\.(?P<last>-[1-9]|[1-9]\d?)|#(?P<count>[1-9]\d?)")
_VERSION: Final = re.compile(r"\d+(\.\d+){0,2}")
_RESP: Final = 2


class Shape(msgspec.Struct, frozen=True):
    """How many arguments a function takes behind the context; `most` is None where it takes any number."""

    names: tuple[str, ...]
    fewest: int
    most: int | None
    rest: str = ""


def shape_of(declared: Declaration) -> Shape:
    """Raises ModuleError for a function that a command cannot be."""
    function = declared.function
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise _wrong(declared, "a command is a plain function: it has answered when it returns")
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        raise _wrong(declared, "its function must take the context first, then the arguments")
    names, fewest, rest = [], 0, ""
    for parameter in parameters[1:]:
        if parameter.kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD):
            raise _wrong(declared, f"arguments of a command have a place, and '{parameter.name}' only has a name")
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            rest = parameter.name
        else:
            names.append(parameter.name)
            fewest += parameter.default is inspect.Parameter.empty
    return Shape(tuple(names), fewest, None if rest else len(names), rest)


def row_of(declared: Declaration) -> Row:
    """Raises ModuleError, naming the command, for what cannot be one."""
    name = declared.name
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ModuleError(
            f"'{name}' cannot be the name of a command: it begins with a letter and goes on with lower-case letters, "
            "digits, '_', '.', ':' or '-'"
        )
    if name in CONTAINERS or lookup(name.encode(), _RESP) is not None or lookup(name.encode(), BINARY) is not None:
        raise _wrong(declared, "a command of that name is built in")
    shape = shape_of(declared)
    flags = _flags(declared)
    keys, reached = _keys(declared, "RW access update" if "write" in flags else "RO access", shape)
    fewest = max(shape.fewest, reached)
    exact = shape.most == shape.fewest
    if declared.cross_shard and declared.keys in (1, "1"):
        raise _wrong(declared, "cross_shard is for a command that has several keys")
    function = inspect.getdoc(declared.function) or ""
    try:
        made = row(
            name,
            declared.syntax or _syntax(declared, shape),
            fewest + 1 if exact else -fewest - 1,
            " ".join(sorted(flags)),
            keys,
            declared.since,
            declared.complexity,
            declared.summary or function.partition("\n")[0] or "A command of a module.",
            route="move" if declared.cross_shard else "",
            cluster="one_slot" if declared.cross_shard else "native",
            acl=declared.categories,
        )
        made = msgspec.structs.replace(made, group="module")
        parse(made.syntax)
        check_row(made)
    except ValueError as error:
        raise _wrong(declared, str(error).rpartition(f"{name}: ")[2]) from None
    if not _VERSION.fullmatch(declared.since):
        raise _wrong(declared, f"since is a version such as 1.0.0, not '{declared.since}'")
    unknown = [word for word in made.categories if word.removeprefix("-") not in _CATEGORIES]
    if unknown:
        raise _wrong(declared, f"there is no category '{unknown[0]}'")
    return made


def rows_of(declarations: Iterable[Declaration]) -> dict[str, tuple[Row, Declaration]]:
    """The rows of all commands of a module, by name. Raises ModuleError."""
    found: dict[str, tuple[Row, Declaration]] = {}
    for declared in declarations:
        made = row_of(declared)
        if made.name in found:
            raise _wrong(declared, "it is declared twice")
        found[made.name] = (made, declared)
    return found


def known_row(packed: bytes, number: int) -> Row:
    """A row that was tried, with the number that its command has in this cluster."""
    return msgspec.structs.replace(msgspec.msgpack.decode(packed, type=Row), id=number)


def _wrong(declared: Declaration, what: str) -> ModuleError:
    return ModuleError(f"the command {declared.name}: {what}")


def _flags(declared: Declaration) -> frozenset[str]:
    flags = frozenset(declared.flags.split())
    unknown = sorted(flags - FLAGS)
    if unknown:
        raise _wrong(declared, f"there is no flag '{unknown[0]}' for it; there are {', '.join(sorted(FLAGS))}")
    if len(flags & {"write", "readonly"}) != 1:
        raise _wrong(declared, "its flags say either write or readonly")
    return flags


def _keys(declared: Declaration, access: str, shape: Shape) -> tuple[str, int]:
    """The key spec in the notation of rows, and how many arguments its keys reach to."""
    given = declared.keys
    if isinstance(given, bool) or not isinstance(given, int | str):
        raise _wrong(declared, f"keys is a number or a range, not {given!r}")
    if given in (0, "0"):
        raise _wrong(declared, "it needs a key, which says where it is executed")
    text = f"1..{given}" if isinstance(given, int) else given
    match = _KEYS.fullmatch(text)
    if match is None or (match["first"] and 0 < int(match["last"]) < int(match["first"])):
        raise _wrong(declared, f"keys is a number of arguments, a range such as 1..-1, or #1, not {given!r}")
    reached = int(match["count"] or max(int(match["first"]), int(match["last"])))
    if reached > shape.fewest and not shape.rest:
        raise _wrong(
            declared,
            f"its keys reach to argument {reached}, and its function may be called with {shape.fewest} of them",
        )
    return f"{access} #{match['count']}" if match["count"] else f"{access} @{text}", reached


def _syntax(declared: Declaration, shape: Shape) -> str:
    """The argument line, from the names of the function's arguments: ``key limit [window] [more ...]``."""
    words = [name.lower().replace("_", "-") for name in shape.names]
    line = words[: shape.fewest] + [f"[{word}]" for word in words[shape.fewest :]]
    if shape.rest:
        line.append(f"[{shape.rest.lower().replace('_', '-')} ...]")
    return " ".join(line)
