"""What a server answers that has no replicas and no modules: ROLE, MODULE LIST.

Consoles, exporters and client libraries ask these when they connect or now and then, and take an unknown command for a
broken server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kache.replies import Reply

from ..registry import local

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__: list[str] = []


@local("role")
def role(router: Router, session: Session) -> Reply:
    """Master, at offset 0, without replicas."""
    return [b"master", 0, []]


@local("module|list")
def module_list(router: Router, session: Session) -> Reply:
    """No modules."""
    return []
