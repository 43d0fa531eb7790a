"""A user as it is kept and as it travels between processes: plain, canonical, comparable."""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = [
    "DEFAULT",
    "FIRST_NUMBER",
    "METRICS",
    "NOBODY",
    "READ",
    "UNRESTRICTED",
    "WRITE",
    "Limits",
    "Selector",
    "UserRecord",
    "default_user",
    "metrics_user",
]

READ: Final = 1
WRITE: Final = 2
"""Rights of a key pattern, as bits."""

NOBODY: Final = 0
UNRESTRICTED: Final = 1
FIRST_NUMBER: Final = 2
"""Numbers of users are u32 and never used twice in the life of a cluster. The first two stand for no user at all, and for
any that may do everything."""

DEFAULT: Final = b"default"
"""The user of connections that have not named one; it always exists."""

METRICS: Final = b"(metrics)"
"""The user of the metrics process: the cluster's own, in no list, whatever `default` and the others are. It proves who it is by
what the supervisor gave to it and to the routers alone."""


class Selector(msgspec.Struct, frozen=True, array_like=True):
    """A set of rights that must suffice for a whole command."""

    commands: tuple[bytes, ...] = (b"-@all",)
    """``+@all`` or ``-@all``, then what differs from it, in the order in which it counts."""
    all_keys: bool = False
    keys: tuple[tuple[int, bytes], ...] = ()
    """Rights (`READ` and `WRITE`) and the glob of the keys they hold for."""
    all_channels: bool = False
    channels: tuple[bytes, ...] = ()
    """Globs of channels."""


class Limits(msgspec.Struct, frozen=True, array_like=True):
    """What a user may take, over all routers together; 0: as much as it likes."""

    clients: int = 0
    commands: int = 0
    """A second."""
    input: int = 0
    """Bytes of requests a second."""
    memory: int = 0
    """Bytes of `maxmemory-clients`."""


class UserRecord(msgspec.Struct, frozen=True, array_like=True):
    """One user. Selectors are tried in turn, the root first, and never added together."""

    name: bytes
    number: int = NOBODY
    enabled: bool = False
    nopass: bool = False
    """Any password is right."""
    skip_sanitize: bool = False
    """Shown and kept, without effect: RESTORE always checks what it is given."""
    passwords: tuple[str, ...] = ()
    """SHA-256 in lower-case hexadecimal."""
    root: Selector = Selector()
    selectors: tuple[Selector, ...] = ()
    limits: Limits = Limits()


def default_user() -> UserRecord:
    """The user `default` of a cluster that knows nothing of users: it may do everything, without a password."""
    everything = Selector((b"+@all",), True, (), True, ())
    return UserRecord(DEFAULT, FIRST_NUMBER, True, True, False, (), everything)


def metrics_user() -> UserRecord:
    """The user `METRICS`: figures, a sign of life, and which passwords the visitors of its console must have; no key."""
    return UserRecord(METRICS, NOBODY, True, root=Selector((b"-@all", b"+stats", b"+ping", b"+acl|getuser")))
