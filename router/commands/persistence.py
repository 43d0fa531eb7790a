"""What is kept on disk, as clients ask for it: SAVE, BGSAVE, BGREWRITEAOF, LASTSAVE, WAITAOF, SHUTDOWN, DEBUG RELOAD.

The shards keep it; the supervisor has them dump one after the other. A Kache that was started without files keeps them from
the first of these on, in `dir`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from typing import TYPE_CHECKING

from kache.cluster.control import ControlError
from kache.cluster.messages import Ack, Request, RestartShard, Save, Shutdown
from kache.errors import SYNTAX, CommandError
from kache.replies import OK, Reply

from ..registry import local
from .arguments import integer
from .statistics import gather, gather_routers

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__: list[str] = []

log = logging.getLogger("kache.router")

POLL_SECONDS = 0.02
"""Between two looks at what is durable, for WAITAOF."""
UNSAVED = "ERR Errors trying to SHUTDOWN. Check logs."


async def _ask(router: Router, request: Request) -> bool:
    """Have the supervisor do it, maybe later, which it says; CommandError says why it does not."""
    try:
        done = await router.control.request(request)
    except ControlError as error:
        text = str(error)
        raise CommandError(text if text.startswith("ERR ") else f"ERR {text}") from None
    return isinstance(done, Ack) and bool(done.count)


@local("save")
async def save(router: Router, session: Session) -> Reply:
    """OK once every shard has saved what it holds."""
    await _ask(router, Save(0, "save"))
    return OK


@local("bgsave")
async def bgsave(router: Router, session: Session, *options: bytes) -> Reply:
    """Begins, is put behind what is under way, or is given up."""
    option = options[0].upper() if options else b""
    if len(options) > 1 or option not in (b"", b"SCHEDULE", b"CANCEL"):
        raise CommandError(SYNTAX)
    if option == b"CANCEL":
        waited = await _ask(router, Save(0, "cancel"))
        return "Scheduled background saving cancelled" if waited else "Background saving cancelled"
    waits = await _ask(router, Save(0, "schedule" if option else "bgsave"))
    return "Background saving scheduled" if waits else "Background saving started"


@local("bgrewriteaof")
async def bgrewriteaof(router: Router, session: Session) -> Reply:
    """The same dump: it becomes the base of the log where there is one."""
    waits = await _ask(router, Save(0, "bgrewriteaof"))
    return f"Background append only file rewriting {'scheduled' if waits else 'started'}"


@local("lastsave")
async def lastsave(router: Router, session: Session) -> Reply:
    """When the shard that saved longest ago has; the start of the cluster where nothing was saved."""
    shards, _ = await gather(router)
    saved = [shard.kept["last_save_ms"] for shard in shards if "last_save_ms" in shard.kept]
    return (min(saved) if saved else (await gather_routers(router)).started_ms) // 1000


@local("waitaof")
async def waitaof(router: Router, session: Session, local_files: bytes, replicas: bytes, timeout: bytes) -> Reply:
    """[whether the log of every shard is durable up to here, replicas with one]; waits until it is, at most `timeout` ms."""
    wanted = integer(local_files, "ERR value is out of range, value must between 0 and 1")
    if wanted not in (0, 1):
        raise CommandError("ERR value is out of range, value must between 0 and 1")
    if integer(replicas, "ERR value is out of range, must be positive") < 0:
        raise CommandError("ERR value is out of range, must be positive")
    milliseconds = integer(timeout, "ERR timeout is not an integer or out of range")
    if milliseconds < 0:
        raise CommandError("ERR timeout is negative")
    if not wanted:
        return [0, 0]
    if not router.config.appendonly:
        raise CommandError("ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.")
    return [int(await _durable(router, milliseconds / 1000 or float("inf"))), 0]


async def _durable(router: Router, seconds: float) -> bool:
    """Whether within so many seconds everything is durable that the logs have now."""
    until = time.monotonic() + seconds
    wanted: dict[int, int] | None = None
    while True:
        shards, silent = await gather(router)
        if wanted is None and not silent:
            wanted = {shard.index: shard.kept.get("sequence", 0) for shard in shards}
        durable = {shard.index: shard.kept.get("durable", 0) for shard in shards}
        if wanted is not None and not silent and all(durable[each] >= wanted[each] for each in wanted):
            return True
        if time.monotonic() + POLL_SECONDS > until:
            return False
        await asyncio.sleep(POLL_SECONDS)


@local("shutdown")
async def shutdown(router: Router, session: Session, *options: bytes) -> Reply:
    """Answers what is in flight, saves if that is wanted, and ends the whole cluster."""
    words = {option.upper() for option in options}
    if not words <= {b"NOSAVE", b"SAVE", b"NOW", b"FORCE", b"ABORT"} or words >= {b"NOSAVE", b"SAVE"}:
        raise CommandError(SYNTAX)
    if b"ABORT" in words:
        if len(words) > 1:
            raise CommandError(SYNTAX)
        raise CommandError("ERR No shutdown in progress.")
    wish = True if b"SAVE" in words else False if b"NOSAVE" in words else None
    force = b"FORCE" in words or wish is False
    try:
        # One that cannot be saved goes on serving: its data is nowhere else.
        refusal = b"" if session.binary or session.certificate is not None else f"-{UNSAVED}\r\n".encode()
        await router.control.request(Shutdown(0, wish, b"NOW" in words, force, refusal), session.fd)
    except ControlError as error:
        log.warning("SHUTDOWN of %s is refused: %s", session.address, error)
        raise CommandError(UNSAVED) from None
    # Success has no reply: clients take the end of the connection for it, which the supervisor holds open until everything
    # is on disk.
    session.kill("SHUTDOWN")
    return None


@local("debug|reload")
async def debug_reload(router: Router, session: Session, *options: bytes) -> Reply:
    """Saves, and starts every shard again from what was saved."""
    if not {option.upper() for option in options} <= {b"NOSAVE", b"NOFLUSH", b"MERGE"}:
        raise CommandError(SYNTAX)
    _allowed(router, session)
    if not any(option.upper() == b"NOSAVE" for option in options):
        await save(router, session)
    return await _load_again(router)


@local("debug|loadaof")
async def debug_loadaof(router: Router, session: Session) -> Reply:
    """Starts every shard again from its base and log."""
    _allowed(router, session)
    return await _load_again(router)


def _allowed(router: Router, session: Session) -> None:
    allowed = router.config.enable_debug_command
    if allowed == "no" or (allowed == "local" and not _is_on_this_machine(session.address)):
        raise CommandError(
            'ERR DEBUG command not allowed. If the enable-debug-command option is set to "local", you can run it from a '
            'local connection, with "yes" from anywhere: see `kache cluster settings`.'
        )


def _is_on_this_machine(address: str) -> bool:
    """Whether a client's address is a loopback one, or the path of a Unix socket."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.startswith("/")


async def _load_again(router: Router) -> Reply:
    for shard in range(router.shard_count):
        await _ask(router, RestartShard(0, shard))
    while any(link.state != "up" for link in router.links):
        await asyncio.sleep(POLL_SECONDS)
    return OK
