"""CLUSTER: one node that owns all slots, at the address that the client has connected to.

Clients made for a Redis Cluster (RedisCluster, ioredis' and go-redis' cluster clients, Lettuce, ``redis-cli -c``) ask for
the slots, find one node, and send everything there; they are never redirected. How many shards stand behind the address
is not their business. INFO goes on saying ``cluster_enabled:0``: those clients do not look at it, while others that
do (StackExchange.Redis) would switch to a cluster's rules and refuse SELECT and commands over several slots.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from kache.errors import CommandError
from kache.replies import OK, Reply, Verbatim
from kache.slots import SLOT_COUNT, slot_of_key

from ..registry import local
from ..scatter.cursor import SLOT_SHIFT
from .arguments import integer, text

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__: list[str] = []

LAST = SLOT_COUNT - 1
EVERYWHERE = ("", "*", "0.0.0.0", "::")
"""What may stand in `bind` and is no address to connect to."""


def node_id(router: Router, what: str = "node") -> str:
    """Forty hexadecimal digits, the same from every router of this start of the cluster."""
    return hashlib.sha1(f"kache {what} {router.boot_id:016x}".encode()).hexdigest()


def address(router: Router, session: Session) -> tuple[str, int]:
    """Where clients like this one reach the cluster; never an empty host, which some take for an address."""
    host, _, port = session.local_address.rpartition(":")
    if not host or host.startswith("/"):
        # By the Unix socket, or gone: the port that others use.
        host, port = router.address[0], str(router.address[1])
        host = "127.0.0.1" if host in EVERYWHERE else host
    config = router.config
    return config.cluster_announce_ip or host.strip("[]"), config.cluster_announce_port or int(port)


@local("cluster|slots")
def cluster_slots(router: Router, session: Session) -> Reply:
    """[[first slot, last slot, [host, port, id, {}]]]"""
    host, port = address(router, session)
    return [[0, LAST, [host.encode(), port, node_id(router).encode(), {}]]]


@local("cluster|shards")
def cluster_shards(router: Router, session: Session) -> Reply:
    """The same as maps, with the node's role and health."""
    host, port = address(router, session)
    node = {
        b"id": node_id(router).encode(),
        b"port": port,
        b"ip": host.encode(),
        b"endpoint": host.encode(),
        b"role": b"master",
        b"replication-offset": 0,
        b"health": b"online",
    }
    return [{b"slots": [0, LAST], b"nodes": [node], b"id": node_id(router, "shard").encode()}]


@local("cluster|nodes")
def cluster_nodes(router: Router, session: Session) -> Reply:
    """A line for the one node; its bus, which nobody asks, has port 0."""
    host, port = address(router, session)
    return Verbatim(f"{node_id(router)} {host}:{port}@0 myself,master - 0 0 1 connected 0-{LAST}\n".encode())


@local("cluster|info")
def cluster_info(router: Router, session: Session) -> Reply:
    """The state that clients wait for (``cluster_state:ok``)."""
    fields = {
        "cluster_state": "ok",
        "cluster_slots_assigned": SLOT_COUNT,
        "cluster_slots_ok": SLOT_COUNT,
        "cluster_slots_pfail": 0,
        "cluster_slots_fail": 0,
        "cluster_known_nodes": 1,
        "cluster_size": 1,
        "cluster_current_epoch": 1,
        "cluster_my_epoch": 1,
        "cluster_stats_messages_sent": 0,
        "cluster_stats_messages_received": 0,
        "total_cluster_links_buffer_limit_exceeded": 0,
    }
    return Verbatim("".join(f"{name}:{value}\r\n" for name, value in fields.items()).encode())


@local("cluster|myid")
def cluster_myid(router: Router, session: Session) -> Reply:
    """The node's id."""
    return node_id(router).encode()


@local("cluster|myshardid")
def cluster_myshardid(router: Router, session: Session) -> Reply:
    """The id of the node with its replicas."""
    return node_id(router, "shard").encode()


@local("cluster|keyslot")
def cluster_keyslot(router: Router, session: Session, key: bytes) -> Reply:
    """The slot of a key, as in every Redis Cluster."""
    return slot_of_key(key)


@local("cluster|countkeysinslot")
async def cluster_countkeysinslot(router: Router, session: Session, slot: bytes) -> Reply:
    """How many keys the selected database has in a slot."""
    number = integer(slot)
    if not 0 <= number <= LAST:
        raise CommandError("ERR Invalid slot")
    return await router.call(router.shard_of_slot(number), "_slot_size", [b"%d" % number], session.db, session)


@local("cluster|getkeysinslot")
async def cluster_getkeysinslot(router: Router, session: Session, slot: bytes, count: bytes) -> Reply:
    """Up to `count` of them."""
    number, most = integer(slot), integer(count)
    if not 0 <= number <= LAST or most < 0:
        raise CommandError("ERR Invalid slot or number of keys")
    found: list[bytes] = []
    place = b"%d" % (number << SLOT_SHIFT)
    shard = router.shard_of_slot(number)
    while len(found) < most:
        words = [place, b"%d" % number, b"COUNT", b"%d" % (most - len(found))]
        place, keys, _ = await router.call(shard, "_scan", words, session.db, session)
        found += keys
        if place == b"0":
            break
    return found[:most]


@local("cluster|links")
def cluster_links(router: Router, session: Session) -> Reply:
    """Connections to other nodes."""
    return []


def _known(router: Router, node: bytes) -> None:
    if text(node) != node_id(router):
        raise CommandError(f"ERR Unknown node {text(node)}")


@local("cluster|replicas")
def cluster_replicas(router: Router, session: Session, node: bytes) -> Reply:
    """Lines like those of CLUSTER NODES."""
    _known(router, node)
    return []


@local("cluster|slaves")
def cluster_slaves(router: Router, session: Session, node: bytes) -> Reply:
    """The old name."""
    return cluster_replicas(router, session, node)


@local("cluster|count-failure-reports")
def cluster_count_failure_reports(router: Router, session: Session, node: bytes) -> Reply:
    """How many nodes say that this one has failed."""
    _known(router, node)
    return 0


@local("asking")
def asking(router: Router, session: Session) -> Reply:
    """What is said before a command that was redirected."""
    return OK


@local("readonly")
def readonly(router: Router, session: Session) -> Reply:
    """What is said to a replica that shall answer."""
    return OK


@local("readwrite")
def readwrite(router: Router, session: Session) -> Reply:
    """Takes it back."""
    return OK
