"""Users in a file (`aclfile`) or in the configuration: lines ``user NAME rules…``.

All or nothing: whatever is wrong is an error that names the line, and nothing of the file counts. The file is written in
one step (a temporary file beside it, fsync, rename) and belongs to its owner alone, since it holds hashes of passwords.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping

from kache.errors import KacheError

from .record import DEFAULT, UserRecord, default_user
from .rules import RuleError, UnmatchedError, apply, check_name, describe, words_of

__all__ = ["AclFileError", "lines_of", "load", "parse", "save", "users_of"]


class AclFileError(KacheError):
    """What is wrong with a file of users, and where."""


def users_of(rules: Iterable[tuple[str, bytes, bytes]]) -> dict[bytes, UserRecord]:
    """The users of (where, name, rules): by name, `default` among them in any case. Raises AclFileError with the place."""
    found: dict[bytes, UserRecord] = {}
    for where, name, text in rules:
        wrong = check_name(name)
        if not wrong and name in found:
            wrong = f"Duplicate user '{name.decode('utf-8', 'replace')}' found"
        try:
            if not wrong:
                found[name] = apply(UserRecord(name), words_of(text.split()))
        except (RuleError, UnmatchedError) as error:
            wrong = str(error)
        if wrong:
            raise AclFileError(f"{where}: {wrong}")
    if DEFAULT not in found:
        found[DEFAULT] = default_user()
    return found


def parse(data: bytes, path: str) -> dict[bytes, UserRecord]:
    """The users of a file's content; blank lines and lines that begin with "#" mean nothing."""
    rules = []
    for number, line in enumerate(data.split(b"\n"), 1):
        words = line.split(None, 2)
        if not words or words[0].startswith(b"#"):
            continue
        if words[0] != b"user" or len(words) < 2:
            raise AclFileError(f"{path}:{number}: a line has to begin with 'user' and a name")
        rules.append((f"{path}:{number}", words[1], words[2] if len(words) == 3 else b""))
    return users_of(rules)


def load(path: str) -> dict[bytes, UserRecord]:
    """The users of the file; raises AclFileError. A file that others can read is refused."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_IMODE(mode) & 0o077:
                raise AclFileError(
                    f"{path} can be read or changed by others ({stat.S_IMODE(mode):04o}), and it holds hashes of passwords: "
                    "chmod 600 it"
                )
            return parse(file.read(), path)
    except OSError as error:
        raise AclFileError(f"the file of users {path} cannot be read: {error.strerror}") from None


def lines_of(users: Mapping[bytes, UserRecord]) -> list[bytes]:
    """``user NAME rules…`` of each, sorted by name."""
    return [b"user " + name + b" " + describe(users[name]) for name in sorted(users)]


def save(path: str, users: Mapping[bytes, UserRecord]) -> None:
    """Put the users where `path` is, in one step; raises AclFileError and leaves the old file as it was."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        try:
            with open(fd, "wb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(b"\n".join(lines_of(users)) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise AclFileError(f"the file of users {path} cannot be written: {error.strerror}") from None
