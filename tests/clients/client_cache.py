"""redis-py's client-side cache, built on CLIENT TRACKING over RESP3. Run: python client_cache.py PORT."""

from __future__ import annotations

import sys
import time

import redis
from redis.cache import CacheConfig


def main() -> None:
    port = int(sys.argv[1])
    cached = redis.Redis(port=port, protocol=3, cache_config=CacheConfig(max_size=1000), decode_responses=True)
    other = redis.Redis(port=port, decode_responses=True)
    for number in range(40):
        other.set(f"key:{number}", number)
    for number in range(40):
        assert cached.get(f"key:{number}") == str(number)
    cache = cached.get_cache()
    assert cache is not None and cache.size == 40
    for number in range(40):
        assert cached.get(f"key:{number}") == str(number)
    for number in range(40):
        other.set(f"key:{number}", -number)
        limit = time.monotonic() + 60
        while cached.get(f"key:{number}") != str(-number):
            assert time.monotonic() < limit, f"key:{number} is stale"
    other.flushall()
    limit = time.monotonic() + 60
    while any(cached.get(f"key:{number}") is not None for number in range(40)):
        assert time.monotonic() < limit, "stale after FLUSHALL"
    print(f"redis-py {redis.__version__} client-side cache: fine")


main()
