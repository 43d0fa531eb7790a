"""A shard: one part of the keyspace and the commands on it.

main        the process: settings, signals, background work
shard       one shard put together: engine, commands, services
engine/     compiled: the data, its one execution point, the links to the routers
commands/   the commands in Python, a function each
scripting/  Lua: the interpreter, what scripts see, the scripts that are known
log/        compiled: what is kept on disk, its log and its base, and the way back from them
service/    what runs beside them: cleanup thread, keeping and loading, waiting clients, statistics, slow log
"""
