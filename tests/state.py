"""Everything a shard holds, as plain values that can be compared."""

from __future__ import annotations

from kache.shard.engine.engine import Keyspace, Store


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


def _value(keys: Keyspace, key: bytes, kind: str) -> object:
    if kind == "string":
        return keys.string_get(key), keys.string_is_raw(key)
    if kind == "list":
        values = keys.list_get(key)
        return None if values is None else list(values)
    if kind == "zset":
        scores = keys.zset_get(key)
        return None if scores is None else scores.items()
    table = keys.hash_get(key) if kind == "hash" else keys.set_get(key)
    if table is None:
        return None
    return sorted((field, value, table.deadline_of(field)) for field, value in table.items())
