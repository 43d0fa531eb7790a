"""A Redis or Valkey Cluster behind the routers instead of shards: what the command line, the supervisor and the routers
share about it.

address         ``redis-cluster://host:port,…``
tls             who is trusted where they are reached by TLS
topology        the slots of its masters, from what a node says of them
inspection      what all masters say of themselves, for `kache cluster check`
conversation    one blocking connection to a node: whether it answers, for starting and for `kache cluster check`

The data path is the router's (`kache.router.cluster`).
"""
