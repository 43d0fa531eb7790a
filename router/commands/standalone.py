"""What a server answers that has no replicas, no modules and one user: ROLE, WAIT, MODULE LIST, ACL WHOAMI.

Consoles, exporters and client libraries ask these when they connect or now and then, and take an unknown command for a
broken server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kache.errors import CommandError
from kache.replies import Reply

from ..registry import local
from .arguments import integer

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__: list[str] = []


@local("role")
def role(router: Router, session: Session) -> Reply:
    """Master, at offset 0, without replicas."""
    return [b"master", 0, []]


@local("wait")
def wait(router: Router, session: Session, replicas: bytes, timeout: bytes) -> Reply:
    """How many replicas have acknowledged: none will, so nobody is kept waiting."""
    integer(replicas)
    _timeout(timeout)
    return 0


def _timeout(raw: bytes) -> int:
    timeout = integer(raw, "ERR timeout is not an integer or out of range")
    if timeout < 0:
        raise CommandError("ERR timeout is negative")
    return timeout


@local("module|list")
def module_list(router: Router, session: Session) -> Reply:
    """No modules."""
    return []


@local("acl|whoami")
def acl_whoami(router: Router, session: Session) -> Reply:
    """The only user."""
    return session.user.encode()
