"""SORT and SORT_RO on one shard.

Owns: the options and the order. Promises: patterns of BY and GET look only at this shard's keys; elements are
compared bytewise (as the real server does in the C locale); STORE replaces its destination in one step.
Called only by the shard's execution point, through the registry.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kache.errors import SYNTAX, WRONG_TYPE, CommandError
from kache.replies import Reply

from .arguments import integer, parse_float
from .registry import command

if TYPE_CHECKING:
    from ..engine.engine import Context, Keyspace

__all__ = ["SortOptions", "sort_options"]

_EXACT_DIGITS = 15
"""Characters of a whole number that every double holds exactly."""
_FEW = 16
"""The first sixteenth of the elements is found faster by a heap than by sorting all."""
_BAD_SCORE = "ERR One or more scores can't be converted into double"


@dataclass(slots=True)
class SortOptions:
    """What was asked for; `by` None: by the element itself; a `by` without a star: not at all."""

    by: bytes | None = None
    gets: list[bytes] = field(default_factory=list)
    offset: int = 0
    count: int = -1
    descending: bool = False
    alpha: bool = False
    store: bytes | None = None

    @property
    def unsorted(self) -> bool:
        """Whether the collection's own order is wanted."""
        return self.by is not None and b"*" not in self.by


def sort_options(args: tuple[bytes, ...], *, readonly: bool) -> SortOptions:
    """Everything after the key; CommandError for what is not understood."""
    options = SortOptions()
    position = 0
    while position < len(args):
        word = args[position].upper()
        left = len(args) - position - 1
        if word in (b"ASC", b"DESC"):
            options.descending = word == b"DESC"
        elif word == b"ALPHA":
            options.alpha = True
        elif word == b"LIMIT" and left >= 2:
            options.offset, options.count = integer(args[position + 1]), integer(args[position + 2])
            position += 2
        elif word == b"STORE" and left >= 1 and not readonly:
            options.store = args[position + 1]
            position += 1
        elif word == b"BY" and left >= 1:
            options.by = args[position + 1]
            position += 1
        elif word == b"GET" and left >= 1:
            options.gets.append(args[position + 1])
            position += 1
        else:
            raise CommandError(SYNTAX)
        position += 1
    return options


def _elements(ks: Keyspace, key: bytes) -> list[bytes]:
    """The elements in the collection's own order; WRONGTYPE for strings and hashes."""
    kind = ks.type_of(key)
    if kind == "list":
        return list(ks.list_get(key) or ())
    if kind == "set":
        members = ks.set_get(key)
        return [] if members is None else members.fields()
    if kind == "zset":
        scores = ks.zset_get(key)
        return [] if scores is None else [member for member, _ in scores.items()]
    if kind is None:
        return []
    raise CommandError(WRONG_TYPE)


def _lookup(ks: Keyspace, pattern: bytes, element: bytes) -> bytes | None:
    """What `pattern` means for an element: itself (#), a string, or a hash's field (key->field)."""
    if pattern == b"#":
        return element
    head, star, tail = pattern.partition(b"*")
    if not star:
        return None
    rest, arrow, name = tail.partition(b"->")
    if arrow and name:
        key = head + element + rest
        table = ks.hash_get(key) if ks.type_of(key) == "hash" else None
        return None if table is None else table.get(name)
    key = head + element + tail
    return ks.string_get(key) if ks.type_of(key) == "string" else None


def _score(text: bytes | None) -> float:
    """A weight as a number; a missing one counts as zero."""
    if text is None:
        return 0.0
    value = parse_float(text)
    if value is None:
        raise CommandError(_BAD_SCORE)
    return value


def _scores(weights: Sequence[bytes | None]) -> list[float]:
    """All weights as numbers; whole ones, which most are, without Python code for each."""
    given = [weight for weight in weights if weight is not None]
    short = len(given) == len(weights) and max(map(len, given), default=0) <= _EXACT_DIGITS
    if short and not b"".join(given).translate(None, b"0123456789-"):
        try:
            return list(map(float, given))
        except ValueError:
            pass  # a minus sign in the wrong place: said below
    return [_score(weight) for weight in weights]


def _sorted(ks: Keyspace, elements: list[bytes], options: SortOptions) -> list[bytes]:
    """The elements in the order asked for, as many from its beginning as will be looked at; equal numbers are ordered
    by their bytes."""
    end = max(options.offset, 0) + options.count
    few = options.count >= 0 and end * _FEW <= len(elements)
    first = heapq.nlargest if options.descending else heapq.nsmallest
    if options.by is None:
        if options.alpha:
            return first(end, elements) if few else sorted(elements, reverse=options.descending)
        pairs = zip(_scores(elements), elements, strict=True)
        chosen = first(end, pairs) if few else sorted(pairs, reverse=options.descending)
        return [element for _score, element in chosen]
    weights = [_lookup(ks, options.by, element) for element in elements]
    keys: list[Any]
    if options.alpha:
        keys = [(weight is not None, weight or b"") for weight in weights]
    else:
        keys = list(zip(_scores(weights), elements, strict=True))
    if few:
        order = first(end, range(len(elements)), key=keys.__getitem__)
    else:
        order = sorted(range(len(elements)), key=keys.__getitem__, reverse=options.descending)
    return [elements[index] for index in order]


def _limited(elements: list[bytes], options: SortOptions) -> list[bytes]:
    start = max(options.offset, 0)
    return elements[start:] if options.count < 0 else elements[start : start + options.count]


def _result(ks: Keyspace, key: bytes, options: SortOptions) -> list[bytes | None]:
    """The reply's elements: sorted, cut, and replaced by what GET names."""
    elements = _elements(ks, key)
    if options.unsorted and options.store is not None and ks.type_of(key) == "set":
        # A stored result must not depend on the order in which a set happens to be kept.
        options.by, options.alpha = None, True
    if not options.unsorted:
        elements = _sorted(ks, elements, options)
    elif options.descending:
        elements.reverse()
    chosen = _limited(elements, options)
    if not options.gets:
        return list(chosen)
    return [_lookup(ks, pattern, element) for element in chosen for pattern in options.gets]


@command("sort")
def sort(ctx: Context, key: bytes, *args: bytes) -> Reply:
    options = sort_options(args, readonly=False)
    result = _result(ctx.keys, key, options)
    if options.store is None:
        return result
    ctx.keys.list_replace(options.store, [value or b"" for value in result])
    return len(result)


@command("sort_ro")
def sort_ro(ctx: Context, key: bytes, *args: bytes) -> Reply:
    return _result(ctx.keys, key, sort_options(args, readonly=True))
