"""What a server answers that has no replicas, no modules, no files on disk and one user: ROLE, WAITAOF, LASTSAVE, ACL WHOAMI.

Consoles, exporters and client libraries ask these when they connect or now and then, and take an unknown command for a
broken server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kache.errors import SYNTAX, CommandError
from kache.replies import Reply

from ..registry import local
from .arguments import integer
from .info import gather_routers

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__: list[str] = []

NO_FILES = "ERR Kache keeps data in memory only: there is nothing to save it to"


@local("role")
def role(router: Router, session: Session) -> Reply:
    """Master, at offset 0, without replicas."""
    return [b"master", 0, []]


@local("waitaof")
def waitaof(router: Router, session: Session, local_files: bytes, replicas: bytes, timeout: bytes) -> Reply:
    """[append-only files here, replicas with one] that have it."""
    wanted = integer(local_files, "ERR value is out of range, value must between 0 and 1")
    if wanted not in (0, 1):
        raise CommandError("ERR value is out of range, value must between 0 and 1")
    if integer(replicas, "ERR value is out of range, must be positive") < 0:
        raise CommandError("ERR value is out of range, must be positive")
    _timeout(timeout)
    if wanted:
        raise CommandError("ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.")
    return [0, 0]


def _timeout(raw: bytes) -> int:
    timeout = integer(raw, "ERR timeout is not an integer or out of range")
    if timeout < 0:
        raise CommandError("ERR timeout is negative")
    return timeout


@local("lastsave")
async def lastsave(router: Router, session: Session) -> Reply:
    """A real server that never saved answers its start."""
    return (await gather_routers(router)).started_ms // 1000


@local("save")
def save(router: Router, session: Session) -> Reply:
    """Refused: an OK would be believed."""
    raise CommandError(NO_FILES)


@local("bgsave")
def bgsave(router: Router, session: Session, *options: bytes) -> Reply:
    """Refused as well."""
    if len(options) > 1 or (options and options[0].upper() != b"SCHEDULE"):
        raise CommandError(SYNTAX)
    raise CommandError(NO_FILES)


@local("bgrewriteaof")
def bgrewriteaof(router: Router, session: Session) -> Reply:
    """Refused as well."""
    raise CommandError("ERR Kache keeps data in memory only: there is no append-only file to rewrite")


@local("module|list")
def module_list(router: Router, session: Session) -> Reply:
    """No modules."""
    return []


@local("acl|whoami")
def acl_whoami(router: Router, session: Session) -> Reply:
    """The only user."""
    return session.user.encode()
