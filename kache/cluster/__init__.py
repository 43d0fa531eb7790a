"""What starts and keeps a cluster: the supervisor, its children, and what they say to one another.

supervisor                      the plain process above all others
children, child                 one child over all its lives; how a process becomes one
messages, control               what goes over the control channels, and the channels
acknowledgements, changes       changes on their way to the children: who has yet to answer, what is tried and stored
questions                       what one router asks the others
health                          signs of life: who counts as unresponsive
resources, run_dir, listeners   the port, the locked run directory and what heals it, the listening sockets
pages                           memory that several processes share, and in it, of all routers:
client_counts, numbers          their clients, the entries of the slow log;
board                           what every shard has begun, and its sign of life;
claims                          which of several shards serves a waiting client
admins, status, detach          the command line's side: its conversations, its answers, the background
processes, logs                 what the system is asked about processes; log lines, few of a kind
"""
