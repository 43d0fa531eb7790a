"""Whose files they are: what keeps those of another shard, or of another cluster, from being loaded.

Every header names the cluster, the shard, and how many there are; a division (repartition.py) writes all of them anew. So a
file that says another has been brought there by somebody, most often with its manifest: a copy, or a part of a backup.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec

from .directory import CLUSTER, ClusterFile, read_cluster, shard_directory
from .files import Files
from .format import HEADER_SIZE, LogError, read_header
from .manifest import Manifest
from .recovery import Recovery

__all__ = ["Owner", "check_files", "check_keys", "owner_in", "owner_of"]


class Owner(msgspec.Struct, frozen=True):
    """One shard of one cluster (an id of 16 bytes), and the slots that are its own: pairs (first, last), none where they are
    not known."""

    cluster: bytes
    shard: int
    shards: int
    slots: tuple[tuple[int, int], ...] = ()


def owner_in(cluster: ClusterFile, shard: int) -> Owner:
    """A shard as the file `cluster` has it."""
    slots = tuple((first, last) for first, last, owner in cluster.slots if owner == shard)
    return Owner(cluster.cluster, shard, cluster.shards, slots)


def owner_of(files: Files, path: str) -> Owner | None:
    """Whose the directory of a shard is by where it lies; None where it does not lie in that of a cluster."""
    path = os.path.abspath(path)
    above = os.path.dirname(os.path.dirname(path))
    cluster = read_cluster(files, above) if files.is_file(f"{above}/{CLUSTER}") else None
    for shard in range(cluster.shards) if cluster is not None else ():
        if cluster is not None and shard_directory(above, cluster.epoch, shard) == path:
            return owner_in(cluster, shard)
    return None


def check_files(files: Files, directory: str, manifest: Manifest, owner: Owner) -> None:
    """LogError for the first file that is not the owner's. What cannot be read is for who loads it to refuse."""
    for each in manifest.files():
        path = f"{directory}/{each.name}"
        try:
            fd = files.open(path)
            try:
                header = read_header(files.read(fd, HEADER_SIZE, 0), path)
            finally:
                files.close(fd)
        except (OSError, LogError):
            continue
        theirs = f"shard {header.shard} of {header.shards}"
        if header.cluster != owner.cluster:
            theirs += f" of the cluster {header.cluster.hex()}, and this is the cluster {owner.cluster.hex()}"
        elif (header.shard, header.shards) != (owner.shard, owner.shards):
            theirs += f", and this is the directory of shard {owner.shard} of {owner.shards}"
        else:
            continue
        raise LogError(f"{path} belongs to {theirs}. Bring {directory} back from a backup of its own.", directory)


def check_keys(recovery: Recovery, slots: Sequence[tuple[int, int]]) -> str:
    """What is to be said of keys that were loaded and lie in no slot of these; "" where there are none."""
    keys, db, key = recovery.outside(slots)
    if not keys:
        return ""
    name = key[:100].decode("utf-8", "backslashreplace")
    what = "1 key that belongs" if keys == 1 else f"{keys:,} keys that belong"
    return f"{recovery.directory} has {what} to other shards, where no client finds {'it' if keys == 1 else 'them'} ('{name}' in database {db})"
