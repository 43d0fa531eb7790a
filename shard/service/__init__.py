"""What runs beside the commands of a shard.

cleanup      the thread that takes apart what is too large to be freed at once
statistics   what a shard says of itself
slowlog      commands that took long
keeping      what is kept on disk, over the life of the shard
loading      what is on disk, at the start
blocking     clients that wait for a key to hold something
modules      commands in Python: their versions, their handlers
calls        what such a command can do
watchdog     and for how long
"""
