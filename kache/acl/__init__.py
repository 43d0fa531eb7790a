"""Users and their rights (ACL), as Redis 7 spells them.

record      a user as it travels between processes and is kept
catalogue   which commands a name, a subcommand or a category stands for
rules       the rules of ACL SETUSER: applied to a user, and a user as rules
file        the users in a file, or in the configuration
log         what was refused (ACL LOG)
rights      compiled: the rights of one user, and the checks of a command, a key, a channel
inner       the check of a command inside of a script

The supervisor owns the users (`kache.cluster.users`); routers and shards have copies, compiled from the same records by
the same code. Everything here is without I/O but `file`.
"""
