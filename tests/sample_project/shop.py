"""What is tested here: prices that are looked up once an hour, and a shop that goes on when its cache does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis

HOUR = 3600


class Prices:
    """Prices out of a cache, or out of a slow table."""

    def __init__(self, cache: redis.Redis, look_up: Callable[[str], int]) -> None:
        self._cache: Any = cache
        self._look_up = look_up
        self.missed = 0

    def of(self, article: str) -> int:
        """The price in cents, at most an hour old."""
        try:
            found = self._cache.get(f"price:{article}")
        except redis.RedisError:
            found = None
        if found is not None:
            return int(found)
        self.missed += 1
        price = self._look_up(article)
        try:
            self._cache.set(f"price:{article}", price, ex=HOUR)
        except redis.RedisError:
            pass  # a shop that sells is worth more than a cache that works
        return price
