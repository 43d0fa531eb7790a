"""What starts and keeps a cluster: the supervisor, its children, and what they say to one another.

supervisor                      the plain process above all others
children, child                 one child over all its lives; how a process becomes one
messages, control               what goes over the control channels, and the channels
acknowledgements                changes on their way to the children: who has yet to answer
resources, run_dir, listeners   the port, the locked run directory, the listening sockets
client_counts                   the clients of every router, mapped by all of them
board                           what every shard has begun, and its sign of life, mapped by all children
admins, status, detach          the command line's side: its conversations, its answers, the background
processes, logs                 what the system is asked about processes; log lines
"""
