"""Django's built-in Redis cache backend. Run: python django_cache.py PORT; KACHE_LOGIN ("user:password@") says as whom.

`set_many` sends MULTI: around MSET and, with a timeout, an EXPIRE per key.
"""

from __future__ import annotations

import os
import sys

import django
from django.conf import settings


def main() -> None:
    location = f"redis://{os.environ.get('KACHE_LOGIN', '')}127.0.0.1:{sys.argv[1]}"
    settings.configure(
        CACHES={"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": location}}
    )
    from django.core.cache import cache

    cache.clear()
    assert cache.get("missing") is None
    cache.set("greeting", {"hello": ["world", 1]}, timeout=60)
    assert cache.get("greeting") == {"hello": ["world", 1]}
    assert cache.add("greeting", "other") is False
    assert cache.add("fresh", "value", timeout=60) is True
    cache.set("n", 1)
    assert cache.incr("n") == 2 and cache.decr("n") == 1
    for i in range(20):
        cache.set(f"k{i}", i, timeout=None)
    assert cache.get_many([f"k{i}" for i in range(20)] + ["none"]) == {f"k{i}": i for i in range(20)}
    assert cache.has_key("k1") and "k1" in cache
    assert cache.touch("greeting", 10) is True
    assert cache.get_or_set("made", lambda: 7, timeout=60) == 7
    cache.delete_many([f"k{i}" for i in range(20)])
    assert cache.get("k1") is None
    assert cache.delete("greeting") is True and cache.delete("greeting") is False
    cache.set("gone", 1, timeout=0)
    assert cache.get("gone") is None
    many = {f"many{i}": [i] for i in range(50)}
    assert cache.set_many(many, timeout=60) == [] and cache.set_many(many, timeout=None) == []
    assert cache.get_many(many) == many
    cache.clear()
    assert cache.get("fresh") is None
    print(f"Django {django.get_version()} cache: fine")


main()
