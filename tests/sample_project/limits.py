"""A command of this project, in Python."""

from kache.module import Context, command


@command("shop.take", flags="write denyoom fast")
def take(ctx: Context, key: bytes, limit: bytes) -> bool:
    """Says whether a caller has had no more than so many in this minute."""
    used = ctx.incr(key)
    if used == 1:
        ctx.pexpire(key, 60_000)
    return used <= int(limit)
