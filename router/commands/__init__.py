"""Commands that the router answers by itself.

connection      PING, AUTH, HELLO, SELECT and their like: about the connection that asks
clients         CLIENT: who is connected, over all routers
config          CONFIG: settings, through the supervisor
info            INFO and STATS: what all processes say of themselves, put together
introspection   COMMAND, MEMORY and the HELP texts
slowlog         SLOWLOG over the cluster, and SHUTDOWN
arguments       what they share in reading arguments
"""
