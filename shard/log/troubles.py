"""What an error of the file system means to who has to mend it: the file, what is wrong with it, and what helps.

For messages of those who read and write a data directory, at a start and in tools.
"""

from __future__ import annotations

import errno
import os
import re
from typing import Final

from .files import Files

__all__ = ["FULL_ERRORS", "missing", "unusable", "without_hint"]

FULL_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""There is no room: nothing is wrong with what is there, and it ends when somebody makes some."""

_HELP: Final = {
    errno.ENOSPC: "Make room there (`df -h {directory}`); what is in it is not changed",
    errno.EDQUOT: "The quota is used up; what is in it is not changed",
    errno.EROFS: "The file system is mounted read-only, as it is after errors of the disk: see the kernel's log",
    errno.EIO: "The disk reports errors: see the kernel's log, and copy the directory elsewhere before anything else",
    errno.ENOTDIR: "Move it away, or choose another --dir",
    errno.EMFILE: "Allow more open files (`ulimit -n`, LimitNOFILE)",
}

_HINT: Final = re.compile(r"(?<=\.) `kache check-aof [^`]*`[^.]*\.|; `kache check-aof [^`]*`[^.]*(?=\.)")


def without_hint(said: str) -> str:
    """What is told of damage, without what kache check-aof would say: for itself."""
    return _HINT.sub("", said)


def unusable(files: Files, directory: str, error: OSError) -> str:
    """Why a data directory cannot be used, in a sentence or two without the last full stop."""
    where = error.filename if isinstance(error.filename, str) else directory
    said = f"{directory} cannot be used: {'' if where == directory else f'{where}: '}{error.strerror}"
    if error.errno in (errno.EACCES, errno.EPERM):
        owner, user = files.owner(where), files.user()
        if owner and owner != user:
            return f"{said}. It belongs to {owner}, and this runs as {user}: `chown -R {user} {directory}`"
        return f"{said}. This runs as {user}"
    help_ = _HELP.get(error.errno or 0, "")
    return f"{said}. {help_.format(directory=directory)}" if help_ else said


def missing(files: Files, path: str, error: OSError) -> str:
    """Why a file that the manifest names cannot be read, and what then."""
    directory = os.path.dirname(path)
    if error.errno in (errno.EACCES, errno.EPERM):
        owner, user = files.owner(path), files.user()
        help_ = f"`chown {user} {path}`" if owner and owner != user else f"`chmod u+r {path}`"
        return f"{path} cannot be read: {error.strerror}. It belongs to {owner}, and this runs as {user}: {help_}."
    if isinstance(error, FileNotFoundError):
        return (
            f"{path} is missing, and the manifest names it. Bring it back from a backup; `kache check-aof {directory}` "
            "says what could be kept without it."
        )
    return f"{path} cannot be read: {error.strerror}. `kache check-aof {directory}` says what else is there."
