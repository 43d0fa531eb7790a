"""Bytes: both protocols, the descriptors they travel on, and the conversation between router and shard.

codec       buffers, slots, requests and replies in every dialect, as functions over bytes
doubles     floating-point numbers as the real server prints them
clock       the cluster's one time base
board       where shards show routers what they have begun, and that they live
claims      which one of several shards serves a client that waits on all of them
tallies     what routers count together for their limits
area        memory that a router and a shard share for large values
tls         TLS over bytes: Python's ssl, driven from compiled code
reactor     descriptors under an event loop: reads, batched writes; each is an endpoint (endpoint.pxi,
            sealed.pxi with TLS)
link        the numbers and the messages of the link between a router and a shard
"""
