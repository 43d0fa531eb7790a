"""Commands of your own, in Python, executed inside the shard that owns their keys: see docs/python-commands.md.

    from kache.module import Context, command

    @command("ratelimit", keys=1, flags="write fast")
    def ratelimit(ctx: Context, key: bytes, limit: bytes) -> int:
        \"\"\"Says whether a caller is within its limit for this second.\"\"\"
        used = ctx.call("INCR", key)
        if used == 1:
            ctx.call("PEXPIRE", key, 1000)
        return used <= int(limit)

A file of such functions is a module of a cluster: ``kache module load app.py``, or the setting `modules`. What authors
import is here. The rest is for the cluster, in the order in which a file passes it:

declare     what the decorator notes of a function, and what a command is given
source      a file's text executed, and the commands that it declares
rows        what is declared as rows of the command table, or what is wrong with it
probe       a process of its own that tries a file, so that nothing else has to import what may not be loaded
"""

from .declare import Caller, Context, command

__all__ = ["Caller", "Context", "command"]
