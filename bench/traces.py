"""Request traces for the measurements of eviction: each a list of key numbers, the same for the same seed.

They are the shapes in which traffic of caches differs: how skewed it is, how much is asked for once only, scans, drift, a
change of phase, a loop larger than the cache. Two have sizes, log-normal as those of objects in a web cache are.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable

__all__ = ["SIZED", "TRACES", "sizes_of"]

KEYS = 400_000
SEED = 20
"""Another one makes other traces of the same shape."""


def _zipf(exponent: float, length: int, rng: random.Random, keys: int = KEYS, scattered: bool = True) -> list[int]:
    """Ranks by Zipf's law, scattered over the keys."""
    weights = list(itertools.accumulate(1 / rank**exponent for rank in range(1, keys + 1)))
    names = list(range(keys))
    if scattered:
        rng.shuffle(names)
    return rng.choices(names, cum_weights=weights, k=length)


def zipf_09(length: int) -> list[int]:
    """Zipf 0.9: the usual cache."""
    return _zipf(0.9, length, random.Random(SEED))


def zipf_07(length: int) -> list[int]:
    """Zipf 0.7: little skew."""
    return _zipf(0.7, length, random.Random(SEED))


def once(length: int) -> list[int]:
    """Zipf 0.9, 30 % of the requests for keys that are asked for once."""
    rng = random.Random(SEED)
    fresh = itertools.count(KEYS)
    return [next(fresh) if rng.random() < 0.3 else key for key in _zipf(0.9, length, rng)]


def scans(length: int) -> list[int]:
    """Zipf 0.9, with scans of 80,000 keys: one begins every 320,000 requests, beside the others' traffic."""
    rng = random.Random(SEED)
    out: list[int] = []
    popular = iter(_zipf(0.9, length, rng))
    start = KEYS
    while len(out) < length:
        out += itertools.islice(popular, min(160_000, length - len(out)))
        for key in range(start, start + 80_000):
            out += (key, next(popular, 0))
        start += 80_000
    return out[:length]


def drift(length: int) -> list[int]:
    """Zipf 1.0 whose popularity drifts: every ten requests the ranks move on by one key."""
    rng = random.Random(SEED)
    return [
        (rank + at // 10) % KEYS for at, rank in enumerate(_zipf(1.0, length, rng, scattered=False))
    ]  # fmt: skip


def phases(length: int) -> list[int]:
    """Zipf 0.9; half-way other keys become the popular ones."""
    rng = random.Random(SEED)
    return _zipf(0.9, length // 2, rng) + _zipf(0.9, length - length // 2, rng)


def loop(length: int) -> list[int]:
    """Half of the requests go round a loop of 60,000 keys, half are Zipf 0.9."""
    rng = random.Random(SEED)
    return [
        KEYS + at // 2 % 60_000 if at % 2 else key for at, key in enumerate(_zipf(0.9, length, rng))
    ]  # fmt: skip


def recency(length: int) -> list[int]:
    """What was asked for lately is asked for again: three quarters of the requests repeat one of the last 100,000."""
    rng = random.Random(SEED)
    fresh = itertools.count()
    out: list[int] = []
    for _ in range(length):
        back = int(rng.random() ** 2 * 100_000) + 1
        out.append(out[-back] if back <= len(out) and rng.random() < 0.75 else next(fresh))
    return out


def turns(length: int) -> list[int]:
    """Half of the requests as in `loop`, then traffic like that of `recency`: the best policy becomes the worst."""
    first = loop(length // 2)
    beyond = max(first) + 1
    return first + [beyond + key for key in recency(length - length // 2)]


TRACES: dict[str, Callable[[int], list[int]]] = {
    "zipf 0.9": zipf_09, "zipf 0.7": zipf_07, "once": once, "scans": scans, "drift": drift, "phases": phases,
    "loop": loop, "recency": recency, "turns": turns,
}  # fmt: skip

SIZED = {"zipf 0.9, sizes": zipf_09, "scans, sizes": scans}
"""The same with values whose sizes are log-normal: median 150 bytes, mean 300."""


def sizes_of(count: int) -> list[int]:
    """The size of the value of every key."""
    rng = random.Random(SEED + 1)
    return [min(20_000, max(16, int(150 * math.exp(rng.gauss(0, 1.18))))) for _ in range(count)]
