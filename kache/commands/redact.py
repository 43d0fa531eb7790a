"""What of a command nobody may see: MONITOR, the slow log and the shell's history show commands through here alone.

Which words those are is said by the table (`Row.secret`). Whoever mistypes the name of a setting or of a command's option
must not find a password in a log, so what might be one is left out, too. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import Final

from kache.config.changing import is_known, is_secret

from . import TABLE
from .row import Secret

__all__ = ["REDACTED", "has_secret", "redacted"]

REDACTED: Final = b"(redacted)"

_OF_OTHERS: Final[dict[bytes, tuple[Secret, ...]]] = {
    b"migrate": (Secret("keyword", 6, "AUTH", 1), Secret("keyword", 6, "AUTH2", 2))
}
"""What Kache does not have, but whoever types into its shell may try all the same."""

_OF_TABLE: Final[dict[bytes, tuple[Secret, ...]]] = {row.name.encode(): (row.secret,) for row in TABLE if row.secret}
_SECRETS: Final = MappingProxyType(_OF_TABLE | _OF_OTHERS)
_FIRST_WORDS: Final = frozenset(name.partition(b"|")[0] for name in _SECRETS)


def redacted(words: Sequence[bytes]) -> Sequence[bytes]:
    """The words of a command, its name first, with what is secret replaced; `words` themselves when nothing is."""
    hidden = set(_hidden(words))
    return [REDACTED if at in hidden else word for at, word in enumerate(words)] if hidden else words


def has_secret(words: Sequence[bytes]) -> bool:
    """Whether something of the command is secret."""
    return next(_hidden(words), None) is not None


def _hidden(words: Sequence[bytes]) -> Iterator[int]:
    """The places of what is secret."""
    first = words[0].lower() if words else b""
    if first not in _FIRST_WORDS:
        return
    secrets = _SECRETS.get(first) or _SECRETS.get(first + b"|" + words[1].lower() if len(words) > 1 else b"", ())
    for secret in secrets:
        yield from _hidden_by(secret, words)


def _hidden_by(secret: Secret, words: Sequence[bytes]) -> Iterator[int]:
    count = len(words)
    if secret.kind == "rest":
        yield from range(secret.first, count)
    elif secret.kind == "keyword":
        for at in range(secret.first, count):
            if words[at].upper() == secret.keyword.encode():
                yield from range(at + 1, min(at + 1 + secret.count, count))
    elif secret.kind == "settings":
        for at in range(secret.first, count - 1):
            name = words[at].decode("utf-8", "replace")
            # Where something is missing, the names stand in the places of values.
            if is_secret(name) and ((at - secret.first) % 2 == 0 or is_known(name)):
                yield at + 1
    else:
        yield from (secret.first + at for at in _hidden(words[secret.first :]))
