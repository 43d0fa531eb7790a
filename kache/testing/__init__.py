"""A real cluster for tests, with a clock that tests move and faults that they stage.

    from kache.testing import LocalCluster

    with LocalCluster(shards=4) as cluster:
        cache = cluster.client()
        cache.set("session", "ada", ex=3600)
        cluster.advance(hours=1)                       # expired, and no second has passed
        with cluster.fault.slow(shard=2, ms=50):       # or .kill, .stop, .refuse_writes
            …

    cluster     `LocalCluster`: starts and ends one, tied to this process so that it cannot outlive it
    director    the conversation with its supervisor: the stage, see `kache.cluster.simulation`
    faults      `cluster.fault`
    plugin      the fixtures `kache_cluster` and `kache` of pytest, which finds it by itself

The clock is that of the data: deadlines of keys and fields, idle times of keys and clients, TIME. The time within which requests
are answered is the real one. None of this can be reached through the port: it goes over the private admin socket, and
only to a cluster that was started for it.
"""

from __future__ import annotations

from kache.testing.cluster import LocalCluster
from kache.testing.director import ClusterFailed
from kache.testing.faults import Faults

__all__ = ["ClusterFailed", "Faults", "LocalCluster"]
