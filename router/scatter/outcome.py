"""What a client may conclude when part of a split command failed (a pure function).

A write answers a not-executed error only if no part of it was executed; otherwise UNCERTAIN, naming what was done.
"""

from __future__ import annotations

from collections.abc import Sequence

from kache.errors import CommandError
from kache.replies import Reply

__all__ = ["failure_of"]

_MAYBE_EXECUTED = frozenset({"TIMEOUT", "UNCERTAIN"})


def failure_of(write: bool, shards: Sequence[int], replies: Sequence[Reply]) -> CommandError | None:
    """The one error that stands for a split command's `replies`, or None when all parts succeeded.

    `shards[i]` answered `replies[i]`; `write` says whether the command changes data.
    """
    failed = [(shard, reply) for shard, reply in zip(shards, replies, strict=True) if isinstance(reply, CommandError)]
    if not failed:
        return None
    first = failed[0][1]
    done = [shard for shard, reply in zip(shards, replies, strict=True) if not isinstance(reply, CommandError)]
    unknown = [shard for shard, error in failed if error.code in _MAYBE_EXECUTED]
    if not write or not (done or unknown):
        return first
    told = [f"done on {_name(done)}"] if done else []
    told += [f"shard {shard}: {error.message}" for shard, error in failed]
    return CommandError("UNCERTAIN the command spans several shards: " + "; ".join(told))


def _name(shards: Sequence[int]) -> str:
    word = "shard" if len(shards) == 1 else "shards"
    return f"{word} {', '.join(map(str, shards))}"
