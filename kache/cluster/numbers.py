"""Numbers that rise over all routers of a cluster: a small file in the run directory that each of them counts up.

The entries of the slow log have them. Only what is slow takes one, so a lock of the file is cheap enough.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator

__all__ = ["create", "shared"]

_log = logging.getLogger("kache")

_NAME = "numbers"
_EACH = 8


def create(directory: str) -> None:
    """A new file; the first number is 0. Raises OSError."""
    with open(os.open(os.path.join(directory, _NAME), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(bytes(_EACH))


def shared(directory: str) -> Iterator[int]:
    """The next numbers of all who count in that directory. Without the file they are this process's own."""
    try:
        fd = os.open(os.path.join(directory, _NAME), os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        _log.warning("the numbers of slow commands are those of one router: %s", error)
        return _own()
    return _counted(fd)


def _own() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


def _counted(fd: int) -> Iterator[int]:
    while True:
        fcntl.lockf(fd, fcntl.LOCK_EX)
        try:
            number = int.from_bytes(os.pread(fd, _EACH, 0), "little")
            os.pwrite(fd, (number + 1).to_bytes(_EACH, "little"), 0)
        finally:
            fcntl.lockf(fd, fcntl.LOCK_UN)
        yield number
