"""Rows of a cluster's protocol, for clients that expect one: the router answers as one node that owns all slots."""

from __future__ import annotations

from .row import in_group, row

__all__ = ["ROWS"]

# fmt: off
ROWS = in_group("cluster",
    row("asking", "", 1, "fast", "", "3.0.0", "O(1)",
        "Says that a redirection is being followed.", route="local",
        differs="OK without effect: nothing is ever redirected.", acl="connection", cluster="local"),
    row("cluster|count-failure-reports", "node-id", 3, "admin stale", "", "3.0.0", "O(1)",
        "Returns how often other nodes have reported a node: 0, since there are none.", route="local", cluster="local"),
    row("cluster|countkeysinslot", "slot", 3, "stale", "", "3.0.0", "O(1)",
        "Returns how many keys of the database are in a slot.", route="local",
        cluster="differs: Asks the node that owns the slot."),
    row("cluster|getkeysinslot", "slot count", 4, "stale", "", "3.0.0", "O(N) keys returned",
        "Returns keys of the database that are in a slot.", route="local",
        cluster="differs: Asks the node that owns the slot."),
    row("cluster|help", "", 2, "loading stale", "", "5.0.0", "O(1)",
        "Lists the subcommands of CLUSTER.", route="local", cluster="local"),
    row("cluster|info", "", 2, "loading stale", "", "3.0.0", "O(1)",
        "Describes the state of the cluster that clients see.", route="local", cluster="local"),
    row("cluster|keyslot", "key", 3, "stale", "", "3.0.0", "O(N) bytes",
        "Returns the slot of a key.", route="local", cluster="local"),
    row("cluster|links", "", 2, "stale", "", "7.0.0", "O(1)",
        "Lists the connections to other nodes: there are none.", route="local", cluster="local"),
    row("cluster|myid", "", 2, "loading stale", "", "3.0.0", "O(1)",
        "Returns the id of the node.", route="local",
        differs="The same from every router; a new one for every start of the cluster.", cluster="local"),
    row("cluster|myshardid", "", 2, "loading stale", "", "7.2.0", "O(1)",
        "Returns the id of the group of replicas that the node belongs to.", route="local", cluster="local"),
    row("cluster|nodes", "", 2, "loading stale", "", "3.0.0", "O(1)",
        "Describes the nodes that clients see, one in a line.", route="local",
        differs="One node that owns all slots, at the address that the client connected to or at cluster-announce-ip "
        "and cluster-announce-port.", cluster="local"),
    row("cluster|replicas", "node-id", 3, "admin stale", "", "5.0.0", "O(1)",
        "Lists the replicas of a node: there are none.", route="local", cluster="local"),
    row("cluster|shards", "", 2, "loading stale", "", "7.0.0", "O(1)",
        "Maps slots to groups of replicas.", route="local", differs="As CLUSTER NODES.", cluster="local"),
    row("cluster|slaves", "node-id", 3, "admin stale", "", "3.0.0", "O(1)",
        "The old name of CLUSTER REPLICAS.", route="local", cluster="local"),
    row("cluster|slots", "", 2, "loading stale", "", "3.0.0", "O(1)",
        "Maps slots to nodes.", route="local", differs="As CLUSTER NODES.", cluster="local"),
    row("readonly", "", 1, "loading stale fast", "", "3.0.0", "O(1)",
        "Allows this connection to read from a replica.", route="local", differs="OK without effect.",
        acl="connection", cluster="local"),
    row("readwrite", "", 1, "loading stale fast", "", "3.0.0", "O(1)",
        "Takes READONLY back.", route="local", differs="OK without effect.", acl="connection", cluster="local"),
)
# fmt: on
