"""Memory that several processes of a cluster have mapped: made by the supervisor, given to children as a descriptor.

No page has a name in any directory, so that nothing that happens to files can part those who share it: a child that is
started later maps the same one. The supervisor itself maps none; it reads and writes by the descriptor.
"""

from __future__ import annotations

import errno
import mmap
import os

__all__ = ["create", "mapped"]


def create(directory: str, size: int) -> int:
    """A page of `size` zero bytes, whose file lay in `directory` for a moment; raises OSError that names it."""
    path = os.path.join(directory, "page")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    try:
        # Written, not only made long: a full disk must show here, not as a signal to whoever touches the page.
        if os.pwrite(fd, bytes(size), 0) != size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        os.close(fd)
        raise OSError(error.errno, error.strerror, directory) from None
    return fd


def mapped(fd: int) -> mmap.mmap:
    """The page, to be read and written in place; takes over the descriptor. Raises OSError."""
    try:
        return mmap.mmap(fd, 0)
    finally:
        os.close(fd)
