"""The router: clients on one side, shards on the other, replies in order.

main        the process: settings, signals, the order of starting and stopping
mux/        compiled: clients, links and the order of replies
commands/   what the router answers by itself
cluster/    in front of a Redis Cluster
scatter/    commands over several shards: how they are divided, merged, led
registry    which function answers, merges or leads which command
accounts    logging in, guesses, ACL LOG
tls         the certificate of its TLS port
peers       questions to all routers of the cluster
slowlog     the commands of its clients that took long
"""
