"""In front of a Redis Cluster: what the compiled path (`mux/remote.pxi`) asks Python.

gate        what keeps the order of a slot's commands while its owner is not certain
director    the map of slots, connections, failures: the world that gates stand in
blocking    commands that wait for their keys
exclusive   connections that are one client's own
watching    WATCH
subscriber  channels and patterns that clients listen to
scan        SCAN
sets        SINTER, SUNION and SDIFF over several slots
commands    commands that concern all nodes, or that a cluster does not have
"""
