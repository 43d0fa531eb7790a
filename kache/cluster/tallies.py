"""What routers count together for their limits: two pages (kache.cluster.pages) that all of them have mapped.

    addresses   connections of each address: `maxclients-per-address`
    users       of each user with limits: connections, and what was spent in this tenth of a second

Cells and numbers are described in kache/wire/tallies.pyx. The supervisor clears those of a router that has ended.
"""

from __future__ import annotations

import os
from typing import Final

from kache.cluster import pages

__all__ = ["ADDRESS_WORDS", "USER_WORDS", "clear", "create"]

ADDRESS_WORDS: Final = 2
"""Key, connections."""
USER_WORDS: Final = 8
"""Key, and the numbers of router/mux/quotas.pxi."""
_BYTES: Final = {"addresses": 16384 * 8 * ADDRESS_WORDS, "users": 1024 * 8 * USER_WORDS}
"""Of each router: cells for as many addresses as it has clients, and for more users with limits than anybody has."""


def create(directory: str, routers: int) -> dict[str, int]:
    """Both pages by name, all zero. Raises OSError."""
    made: dict[str, int] = {}
    try:
        for name, each in _BYTES.items():
            made[name] = pages.create(directory, each * routers)
    except OSError:
        for fd in made.values():
            os.close(fd)
        raise
    return made


def clear(found: dict[str, int], router: int) -> None:
    """A router that has ended counts nothing. Raises OSError."""
    for name, fd in found.items():
        os.pwrite(fd, bytes(_BYTES[name]), _BYTES[name] * router)
