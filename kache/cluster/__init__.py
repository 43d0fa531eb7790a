"""What starts and keeps a cluster: the supervisor, its children, and what they say to one another.

supervisor                      the plain process above all others
children, child                 one child over all its lives; how a process becomes one
messages, control               what goes over the control channels, and the channels
changes, spread,                changes of the configuration: what is tried, stored, taken back; how children are told;
acknowledgements                who has yet to answer
certificates, tls_reload        the TLS certificate: what is wrong with it, and how another one is taken in
ending, last_saves              the routers first, then the shards, once everything is on disk
questions                       what one router asks the others
users                           who they are and what they may do: the one truth, and OK once every child goes by it
modules                         commands in Python: tried, numbered, the same in all shards
programs                        libraries of functions and loaded scripts: the same in all shards
simulation                      a test's clock and faults
health                          signs of life: who counts as unresponsive
links                           when a shard counts as up: not before its routers are connected to it
resources, run_dir, listeners   the port, the locked run directory and what heals it, the listening sockets
durability                      the data directory
writing                         one file, by a thread, since a disk may hang
transactions, resolution        what of transactions counts after a crash; who decides it once, and remembers it
dumps                           whose turn it is to dump
pages                           memory that several processes share, and in it, of all routers:
client_counts, numbers, pauses, monitors, tallies, running  their clients, the entries of the slow log, CLIENT PAUSE, MONITOR;
rounds                          whether all shards save, or rewrite their logs, one after the other;
board                           what every shard has begun, and its sign of life;
claims                          which of several shards serves a waiting client;
budget                          what every shard uses of the one limit of memory
admins, status, detach          the command line's side: its conversations, its answers, the background
announcement, service_manager   what is logged at the start; what systemd is told
processes, logs, progress       what the system is asked about processes; log lines, few of a kind; bars on a terminal
"""
