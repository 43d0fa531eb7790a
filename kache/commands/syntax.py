"""The argument line of a row as the tree that COMMAND DOCS answers and redis-cli turns into hints.

Notation: lower-case words are arguments, others are typed as they are; ``[…]`` is optional, ``<…>`` groups,
``|`` separates alternatives, and ``x [x …]`` (or ``…`` at the end of brackets) means that x may repeat::

    key [NX | XX] [LIMIT offset count] member [member ...]
"""

from __future__ import annotations

import re
from typing import Any, Final

__all__ = ["Argument", "parse"]

Argument = dict[str, Any]
"""name, type, and where they apply: display_text, token, flags (a list), arguments (a list of these)."""

_TOKENS: Final = re.compile(r"\.\.\.|[\[\]<>|]|[^\s\[\]<>|]+")

# fmt: off
_TYPES: Final = {
    name: kind
    for kind, names in {
        "key": "key key1 key2 newkey source destination destkey storekey storedistkey",
        "pattern": "pattern by-pattern get-pattern",
        "integer": "seconds milliseconds start stop end index offset limit count numkeys numfields num-vertices cursor "
                   "db destination-db index1 index2 bit value-bits rank len min-match-len num-matches protover "
                   "client-id maxage frequency ttl version decrement shard",
        "double": "score longitude latitude radius width height weight min-score max-score",
        "unix-time": "unix-seconds unix-milliseconds",
    }.items()
    for name in names.split()
}
# fmt: on


def parse(syntax: str) -> list[Argument]:
    """The arguments of an argument line, in order. Raises ValueError for unbalanced or empty brackets."""
    parser = _Parser(_TOKENS.findall(syntax))
    branches = parser.branches("")
    return branches[0] if len(branches) == 1 else [_one_of(branches)]


class _Parser:
    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0

    def branches(self, closer: str) -> list[list[Argument]]:
        """Everything up to `closer`, as the alternatives that ``|`` separates."""
        found: list[list[Argument]] = [[]]
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            self._at += 1
            if token == closer:
                return found
            if token in ("]", ">"):
                raise ValueError(f"unexpected {token!r}")
            if token == "|":
                found.append([])
            elif token == "...":
                found[-1].append({"type": "..."})
            elif token == "<":
                found[-1].append(_one_of(self.branches(">")))
            elif token == "[":
                self._optional(found[-1])
            else:
                found[-1].append(_word(token))
        if closer:
            raise ValueError(f"missing {closer!r}")
        return found

    def _optional(self, before: list[Argument]) -> None:
        """Adds what stands in brackets to `before`, or marks the end of `before` as repeatable."""
        branches = self.branches("]")
        last = branches[-1]
        repeats = bool(last) and last[-1]["type"] == "..."
        if repeats:
            last.pop()
            if len(branches) == 1 and last and before[-len(last) :] == last:
                before[-len(last) :] = [_with_flag(_block(last), "multiple")]
                return
        argument = _with_flag(_one_of(branches), "optional")
        before.append(_with_flag(argument, "multiple") if repeats else argument)


def _word(text: str) -> Argument:
    if text.lower() == text:
        return {"name": text, "type": _TYPES.get(text, "string"), "display_text": text}
    name = text.lower()
    return {"name": name, "type": "pure-token", "display_text": name, "token": text}


def _one_of(branches: list[list[Argument]]) -> Argument:
    """Alternatives as one argument; a single alternative is a block or the argument itself."""
    choices = [_block(branch) for branch in branches]
    if len(choices) == 1:
        return choices[0]
    return {"name": "-or-".join(choice["name"] for choice in choices[:2]), "type": "oneof", "arguments": choices}


def _block(branch: list[Argument]) -> Argument:
    """A sequence as one argument; a typed word in front of it becomes its token."""
    if not branch:
        raise ValueError("nothing between brackets")
    first, rest = branch[0], branch[1:]
    if not rest:
        return first
    if first["type"] != "pure-token":
        return {"name": first["name"], "type": "block", "arguments": branch}
    if len(rest) > 1 or "token" in rest[0]:
        return {"name": first["name"], "type": "block", "token": first["token"], "arguments": rest}
    return {**rest[0], "token": first["token"]}


def _with_flag(argument: Argument, flag: str) -> Argument:
    flags = [*argument.get("flags", []), flag]
    if flag == "multiple" and "token" in argument and argument["type"] != "pure-token":
        flags.append("multiple_token")
    return {**argument, "flags": flags}
