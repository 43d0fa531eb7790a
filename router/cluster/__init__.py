"""In front of a Redis Cluster: what the compiled path (`mux/remote.pxi`) asks Python.

gate        what keeps the order of a slot's commands while its owner is not certain
director    the map of slots, connections, failures: the world that gates stand in
blocking    commands that wait for their keys
exclusive   connections that are one client's own
watching    WATCH
splitting   replies to what is divided inside a transaction
subscriber  channels and patterns that clients listen to
asking      questions to every master
readers     replicas that reads go to
waiting     WAIT and WAITAOF
monitoring  what clients do, for who watches at other routers
scan        SCAN
scripts     SCRIPT and FUNCTION
binary      what the binary protocol means otherwise
zquery      ZQUERY
dialects    HELLO and RESET
sets        SINTER, SUNION and SDIFF over several slots
commands    commands that concern all nodes, or that a cluster does not have
"""
