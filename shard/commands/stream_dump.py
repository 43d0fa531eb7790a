"""The body of a stream in DUMP's payload, and back.

    entries   [ms, seq, [field, value, …], …]
    meta      [last ms, seq, entries added, greatest deleted ms, seq]
    groups    [[name, last ms, seq, entries read, consumers, pending], …]
              consumers [[name, seen, active], …]   pending [[ms, seq, consumer, delivered, times], …]

A payload may have been made by anybody: `is_stream_body` says whether all of it has this shape and could be a stream.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from ..engine.consumer_groups import Group
from ..engine.stream import Stream
from .arguments import INT64_MAX, INT64_MIN
from .stream_ids import HIGHEST, LOWEST

if TYPE_CHECKING:
    from ..engine.engine import Keyspace

__all__ = ["is_stream_body", "put_stream", "stream_body"]

_WORD_MAX: Final = 2**64 - 1


def _split(number: int) -> tuple[int, int]:
    return number >> 64, number & _WORD_MAX


# Writing -----------------------------------------------------------------------------------------
def stream_body(ks: Keyspace, key: bytes) -> list[Any]:
    """[entries, meta, groups] of the stream, which is there."""
    stream = ks.stream_get(key)
    assert stream is not None
    ids: list[int] = []
    entries: list[Any] = []
    found = stream.range(LOWEST, HIGHEST, ids=ids)
    for number, (_, fields) in zip(ids, found, strict=True):
        entries += [*_split(number), fields]
    meta = [*_split(stream.last_id), stream.added, *_split(stream.max_deleted_id)]
    groups = [
        [
            name,
            *_split(group.last),
            group.read,
            [[each.name, each.seen, each.active] for each in group.consumers.values()],
            [
                [*_split(number), each.consumer, each.delivered, each.count]
                for number, each in ((number, group.pending[number]) for number in group.order.from_id(LOWEST))
            ],
        ]
        for name, group in (stream.groups or {}).items()
    ]
    return [entries, meta, groups]


# Reading -----------------------------------------------------------------------------------------
def _is_word(value: object) -> bool:
    return type(value) is int and 0 <= value <= _WORD_MAX


def _is_time(value: object) -> bool:
    return type(value) is int and INT64_MIN <= value <= INT64_MAX


def _joined(ms: int, seq: int) -> int:
    return ms << 64 | seq


def _are_fields(fields: object) -> bool:
    whole = isinstance(fields, list) and bool(fields) and len(fields) % 2 == 0
    return whole and all(type(each) is bytes for each in fields)  # type: ignore[attr-defined]  # it is a list


def is_stream_body(entries: list[Any], meta: list[Any], groups: list[Any]) -> bool:
    """Whether this could be a stream."""
    if len(entries) % 3 or len(meta) != 5 or not all(map(_is_word, meta)):
        return False
    words, fields = [*entries[::3], *entries[1::3]], entries[2::3]
    if not all(map(_is_word, words)) or not all(map(_are_fields, fields)):
        return False
    ids = list(map(_joined, entries[::3], entries[1::3]))
    in_order = all(before < after for before, after in pairwise(ids))
    if not in_order or (ids and (ids[0] == 0 or ids[-1] > _joined(*meta[:2]))) or meta[2] < len(ids):
        return False
    names = [group[0] if isinstance(group, list) and group else None for group in groups]
    return all(map(_is_group, groups)) and len(set(names)) == len(names)


def _is_group(group: object) -> bool:
    match group:
        case [bytes(), ms, seq, int() as read, list() as consumers, list() as pending]:
            known = {name for name, *_ in filter(_is_consumer, consumers)}
            return (
                _is_word(ms)
                and _is_word(seq)
                and -1 <= read <= INT64_MAX
                and len(known) == len(consumers)
                and all(_is_pending(each) and each[2] in known for each in pending)
            )
    return False


def _is_consumer(consumer: object) -> bool:
    match consumer:
        case [bytes(), seen, active]:
            return _is_time(seen) and _is_time(active)
    return False


def _is_pending(pending: object) -> bool:
    match pending:
        case [ms, seq, bytes(), delivered, times]:
            return _is_word(ms) and _is_word(seq) and _is_time(delivered) and _is_word(times)
    return False


def put_stream(ks: Keyspace, key: bytes, deadline: int, entries: list[Any], meta: list[Any], groups: list[Any]) -> None:
    """The key becomes the stream that a body, which `is_stream_body` has seen, describes."""
    stream = Stream()
    for ms, seq, fields in zip(entries[::3], entries[1::3], entries[2::3], strict=True):
        stream.put(_joined(ms, seq), fields)
    stream.set_meta(_joined(*meta[:2]), meta[2], _joined(*meta[3:]))
    for name, ms, seq, read, consumers, pending in groups:
        group = Group(name, _joined(ms, seq), read, 0)
        for consumer, seen, active in consumers:
            group.consumer_put(consumer, seen, active)
        for ms_of, seq_of, consumer, delivered, times in pending:
            group.pending_put([_joined(ms_of, seq_of)], consumer, delivered, times)
        stream.add_group(name, group)
    ks.stream_replace(key, stream, deadline)
