"""The command line: ``kache cluster …``, ``kache stats``, and every data command (``kache get key``).

`main` holds the tree of commands and loads each part when it is used, so that starting one costs no other's imports.
Errors are one sentence on standard error. Exit status: 0 done, 1 answered with an error or failed, 2 wrong usage or
setting, 3 no cluster there, 4 no such key (nil).

main, group         the tree of commands, loaded lazily; how a group shows and refuses
cluster, stats      start, stop and look at a cluster; its figures
top, top_view       a screen that follows a cluster: its keys and its moments; what it draws
hot                 which keys are used most, and which take most
advise              which policy and how much memory the traffic needs
data                every data command
shell               a prompt for them: lines, what is typed; conversation, the connection as the user knows it
modules             commands in Python of a running cluster
backend             a Redis Cluster, looked at before Kache stands in front of it
files               what lies on disk, looked at without a cluster
bench               load on a cluster
listen              messages and commands as they come: subscribe, monitor
connection, show    one connection of the command line; how replies are shown
exits               exit statuses and expected failures
"""
