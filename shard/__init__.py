"""A shard: one part of the keyspace and the commands on it.

main        the process: settings, signals, background work
shard       one shard put together: engine, commands, services
engine/     compiled: the data, its one execution point, the links to the routers
commands/   the commands in Python, a function each
service/    what runs beside them: cleanup thread, statistics, slow log
"""
