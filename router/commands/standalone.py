"""What a server answers that has no replicas: ROLE; and MODULE LIST.

Consoles, exporters and client libraries ask these when they connect or now and then, and take an unknown command for a
broken server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kache.replies import Reply

from ..registry import local

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__ = ["modules_of"]


@local("role")
def role(router: Router, session: Session) -> Reply:
    """Master, at offset 0, without replicas."""
    return [b"master", 0, []]


@local("module|list")
def module_list(router: Router, session: Session) -> Reply:
    """The modules in Python; one of Redis is never there."""
    return modules_of(router)


def modules_of(router: Router) -> list[Reply]:
    """Each module as a real server describes its own. Where a file lies is nothing for clients."""
    return [{b"name": name.encode(), b"ver": 1, b"path": b"", b"args": []} for name in router.modules]
