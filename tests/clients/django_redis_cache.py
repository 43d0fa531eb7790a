"""django-redis: set_many, delete_pattern, and the rest of its cache. Run: python django_redis_cache.py PORT."""

from __future__ import annotations

import sys

import django
from django.conf import settings


def main() -> None:
    settings.configure(
        CACHES={
            "default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": f"redis://127.0.0.1:{sys.argv[1]}/0"}
        }
    )
    from django.core.cache import cache

    cache.clear()
    many = {f"many:{number}": [number] for number in range(100)}
    cache.set_many(many, timeout=60)
    assert cache.get_many(many) == many
    cache.set("other", 1)
    assert cache.delete_pattern("many:*") == 100
    assert cache.get_many(many) == {} and cache.get("other") == 1
    assert sorted(cache.keys("*")) == ["other"] and cache.ttl("other") == 300
    assert cache.incr("other") == 2 and cache.add("other", 5) is False
    cache.clear()
    print(f"django-redis on Django {django.get_version()}: fine")


main()
