"""Commands that the router answers by itself.

connection      PING, AUTH, HELLO, SELECT and their like: about the connection that asks
acl             ACL: users, through the supervisor; ACL LOG over all routers
clients         CLIENT: who is connected, over all routers
cluster         CLUSTER: one node that owns all slots
config          CONFIG: settings, through the supervisor
functions       FUNCTION: libraries, through the supervisor
hotkeys         HOTKEYS and BIGKEYS
info            INFO: the figures of statistics in Redis's words
introspection   COMMAND, MEMORY and the HELP texts
latency         LATENCY: how long commands took
persistence     SAVE and its like, SHUTDOWN: what is kept on disk, through the supervisor
readiness       READY: whether every shard executes commands
scripting       SCRIPT: the scripts that all shards know
slowlog         SLOWLOG over the cluster
statistics      what all processes say of themselves, put together: one moment of the cluster; STATS
pubsub          SUBSCRIBE and its like, PUBSUB
tracking        CLIENT TRACKING, and who is told of what has changed
transactions    MULTI, DISCARD, WATCH
standalone      ROLE, MODULE: what a server without replicas answers
arguments       what they share in reading arguments
"""
