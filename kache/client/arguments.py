"""The arguments of the typed methods, as far as more than one place makes them, and what cannot be meant.

Pure. A call that the server could only refuse, such as a deletion of no keys, is refused here, with a `ValueError` that
names the method: nothing is sent.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from kache.client.codec import Argument, flatten

__all__ = [
    "Time", "hash_arguments", "in_milliseconds", "score_arguments", "set_arguments", "several", "some", "waited",
]  # fmt: skip

Time = float | timedelta
"""A duration: a number in the unit that its name says, or a timedelta."""

_MILLISECOND = timedelta(milliseconds=1)
C = TypeVar("C", bound=Collection[Any])


def in_milliseconds(time: Time, unit: int) -> int:
    """Whole milliseconds of a duration, which is a timedelta or a number of `unit` milliseconds."""
    return round(time / _MILLISECOND if isinstance(time, timedelta) else time * unit)


def some(method: str, what: str, given: C) -> C:
    """What was given, if it is not nothing."""
    if not given:
        raise ValueError(f"{method} needs at least one {what}")
    return given


def several(method: str, what: str, given: Sequence[Any]) -> Sequence[Any]:
    """What was given, one by one or as one list, if it is not nothing."""
    if (
        len(given) == 1
        and isinstance(given[0], Iterable)
        and not isinstance(given[0], str | bytes | bytearray | memoryview)
    ):
        given = list(given[0])
    return some(method, what, given)


def set_arguments(
    key: Argument, value: Argument, ex: Time | None, px: int | timedelta | None, nx: bool, xx: bool, keep_ttl: bool
) -> list[Argument]:
    """SET's arguments; ``ex`` in seconds is sent in milliseconds, so that fractions count."""
    arguments: list[Argument] = ["set", key, value]
    if ex is not None and px is not None:
        raise ValueError("a TTL is given as ex or as px, not as both")
    if ex is not None:
        arguments += ["px", in_milliseconds(ex, 1000)]
    if px is not None:
        arguments += ["px", in_milliseconds(px, 1)]
    arguments += [word for word, wanted in (("nx", nx), ("xx", xx), ("keepttl", keep_ttl)) if wanted]
    return arguments


def hash_arguments(
    key: Argument,
    fields: Mapping[Any, Argument] | Argument | None,
    value: Argument | None,
    mapping: Mapping[Any, Argument] | None,
) -> list[Argument]:
    """HSET's arguments: a mapping, a field and its value, or both."""
    pairs: list[Argument] = []
    if isinstance(fields, Mapping):
        if value is not None:
            raise TypeError("hset takes a field and its value, or a mapping of fields to values, not both")
        pairs += flatten(fields)
    elif (fields is None) != (value is None):
        raise TypeError("hset takes a field and its value, or a mapping of fields to values")
    elif fields is not None and value is not None:
        pairs += [fields, value]
    pairs += flatten(mapping or {})
    return ["hset", key, *some("hset", "field", pairs)]


def score_arguments(key: Argument, scores: Mapping[Any, float], options: Mapping[str, bool]) -> list[Argument]:
    """ZADD's arguments for the form that answers with a number."""
    words = [word for word, wanted in options.items() if wanted]
    pairs: list[Argument] = [item for member, score in scores.items() for item in (float(score), member)]
    if len(some("zadd", "member", pairs)) == 2 and not words:
        # One pair without options is the original's ZADD, which answers OK; repeated, it is Redis's, which counts.
        pairs *= 2
    return ["zadd", key, *words, *pairs]


def waited(seconds: float) -> float:
    """A timeout of a command that waits; raises ValueError for what is none."""
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"timeout is a number of seconds, 0 for ever, not {seconds!r}")
    return seconds
