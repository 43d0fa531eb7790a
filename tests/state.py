"""Everything a shard holds, as plain values that can be compared."""

from __future__ import annotations

from kache.shard.engine.engine import Keyspace, Store
from kache.shard.engine.stream import Stream


def state(store: Store) -> dict[tuple[int, bytes], tuple[object, ...]]:
    """(database, key) -> (type, deadline, value); what is past its deadline is not there."""
    found: dict[tuple[int, bytes], tuple[object, ...]] = {}
    for db, _, _, _ in store.counts():
        keys = Keyspace(store, db)
        for key in sorted(keys.keys()):
            kind = keys.type_of(key) or ""
            value = _value(keys, key, kind)
            if value is not None:
                found[db, key] = (kind, keys.deadline_of(key), value)
    return found


def stream_state(stream: Stream) -> object:
    """Entries, what the stream says of itself, and its groups."""
    groups = {
        name: (
            group.last,
            group.read,
            sorted((each.name, each.seen, each.active) for each in group.consumers.values()),
            sorted((number, each.consumer, each.delivered, each.count) for number, each in group.pending.items()),
        )
        for name, group in (stream.groups or {}).items()
    }
    told = stream.last_id, stream.added, stream.max_deleted_id
    return stream.range(0, 2**128 - 1), told, groups


def _value(keys: Keyspace, key: bytes, kind: str) -> object:
    if kind == "string":
        return keys.string_get(key), keys.string_is_raw(key)
    if kind == "list":
        values = keys.list_get(key)
        return None if values is None else list(values)
    if kind == "zset":
        scores = keys.zset_get(key)
        return None if scores is None else scores.items()
    if kind == "stream":
        stream = keys.stream_get(key)
        return None if stream is None else stream_state(stream)
    table = keys.hash_get(key) if kind == "hash" else keys.set_get(key)
    if table is None:
        return None
    return sorted((field, value, table.deadline_of(field)) for field, value in table.items())
