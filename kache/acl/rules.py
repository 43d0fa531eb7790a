"""The rules of ACL SETUSER: applied to a user, and a user described as rules.

Words, order of the checks and texts of the errors are those of Redis 7.0; how the rules of commands are kept is that of
7.2: in the order in which they were given, a later one replacing what it makes void, so that what is written to a file
means the same to a version that knows more commands. Pure.

    on off nopass resetpass reset >password <password #hash !hash sanitize-payload skip-sanitize-payload
    +command -command +command|subcommand -command|subcommand +command|first-argument +@category -@category
    allcommands nocommands ~pattern %R~pattern %W~pattern %RW~pattern allkeys resetkeys &pattern allchannels resetchannels
    (rules of a selector) clearselectors

Beyond those of Redis, what a user may take (sizes as settings have them; 0: as much as it likes):

    limit:clients=100 limit:commands=20000 limit:input=50mb limit:memory=64mb resetlimits
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from kache.config.kinds import exact_size, parse_size
from kache.errors import KacheError

from .catalogue import CATALOGUE, Catalogue
from .record import DEFAULT, METRICS, READ, WRITE, Limits, Selector, UserRecord

__all__ = [
    "MOST_PATTERNS", "RuleError", "allowed", "apply", "channel_patterns", "check_name", "command_rules", "describe", "hashed",
    "key_patterns", "limit_rules", "with_password", "words_of",
]  # fmt: skip

MOST_PATTERNS: Final = 1024
"""Patterns of keys and of channels that one user may have: each costs every command that none before it fits."""
LONGEST_PATTERN: Final = 1024
LONGEST_NAME: Final = 128
"""Bytes of a user's name: it appears in CLIENT LIST and in every entry of ACL LOG."""

SYNTAX: Final = "Syntax error"
UNKNOWN: Final = "Unknown command or category name in ACL"
AFTER_ALL_KEYS: Final = (
    "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any effect. Try 'resetkeys' "
    "to start with an empty list of patterns"
)
AFTER_ALL_CHANNELS: Final = (
    "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any effect. Try "
    "'resetchannels' to start with an empty list of channels"
)
NO_SUCH_PASSWORD: Final = "The password you are trying to remove from the user does not exist"
BAD_HASH: Final = "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
FIRST_OF_SUBCOMMAND: Final = "Allowing first-arg of a subcommand is not supported"
NO_DATABASES: Final = "Rights on databases are not supported"
TOO_MANY: Final = f"A user has at most {MOST_PATTERNS} patterns"
TOO_LONG: Final = f"A pattern has at most {LONGEST_PATTERN} bytes"

NO_LIMIT: Final = (
    "A limit is one of limit:clients=, limit:commands=, limit:input= and limit:memory=, with a number or a size"
)
MOST_OF_A_LIMIT: Final = 10**12

_INNER_PASSWORD: Final = re.compile(rb"([ (][><])[^ ]*")
"""Where none may be, but where somebody has put one: in a selector."""
_SPACE: Final = re.compile(rb"[\s\0]")
_HASH: Final = re.compile(rb"[0-9a-f]{64}")
_LIMIT: Final = re.compile(rb"limit:([a-z]+)=(.+)", re.DOTALL)
_KEYS: Final = re.compile(rb"%(R|W|RW|WR)~(.*)|~(.*)", re.IGNORECASE | re.DOTALL)


class RuleError(KacheError):
    """A rule that cannot be applied: `rule` as it was given, a password left out, and why (`reason`)."""

    def __init__(self, rule: bytes, reason: str) -> None:
        shown = rule[:1] + b"***" if rule[:1] in (b">", b"<") else _INNER_PASSWORD.sub(rb"\1***", rule[:128])
        self.rule, self.reason = shown.decode("utf-8", "replace"), reason
        super().__init__(f"Error in ACL SETUSER modifier '{self.rule}': {reason}")


class UnmatchedError(KacheError):
    """A selector without its closing parenthesis."""


def check_name(name: bytes) -> str:
    """Why this can be no user's name, or ""."""
    if not name:
        return "A user's name can't be empty"
    if _SPACE.search(name):
        return "Usernames can't contain spaces or null characters"
    if name == METRICS:
        return "That user is the cluster's own"
    return f"A user's name has at most {LONGEST_NAME} bytes" if len(name) > LONGEST_NAME else ""


def hashed(password: bytes) -> str:
    """A password as it is kept and compared."""
    return hashlib.sha256(password).hexdigest()


def words_of(arguments: Sequence[bytes]) -> list[bytes]:
    """The rules, each selector's as one word, however it was divided; raises UnmatchedError."""
    found: list[bytes] = []
    open_at = -1
    for word in arguments:
        if open_at >= 0:
            found[-1] += b" " + word
        else:
            found.append(word)
            if word.startswith(b"("):
                open_at = len(found) - 1
        if open_at >= 0 and word.endswith(b")"):
            open_at = -1
    if open_at >= 0:
        begin = found[open_at].partition(b" ")[0][:128].decode("utf-8", "replace")
        raise UnmatchedError(f"Unmatched parenthesis in acl selector starting at '{begin}'.")
    return found


# Applying -------------------------------------------------------------------------------------------------------


class _SelectorDraft:
    """A selector that rules are being applied to."""

    def __init__(self, start: Selector, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.commands = list(start.commands)
        self.all_keys, self.all_channels = start.all_keys, start.all_channels
        self.keys = {pattern: rights for rights, pattern in start.keys}
        self.channels = dict.fromkeys(start.channels)

    def done(self) -> Selector:
        keys = tuple((rights, pattern) for pattern, rights in self.keys.items())
        return Selector(tuple(self.commands), self.all_keys, keys, self.all_channels, tuple(self.channels))

    def apply(self, rule: bytes) -> None:
        word = rule.lower()
        if word in (b"allkeys", b"~*"):
            self.all_keys, self.keys = True, {}
        elif word == b"resetkeys":
            self.all_keys, self.keys = False, {}
        elif word in (b"allchannels", b"&*"):
            self.all_channels, self.channels = True, {}
        elif word == b"resetchannels":
            self.all_channels, self.channels = False, {}
        elif word in (b"allcommands", b"+@all"):
            self.commands = [b"+@all"]
        elif word in (b"nocommands", b"-@all"):
            self.commands = [b"-@all"]
        elif rule[:1] in (b"~", b"%"):
            self._add_keys(rule)
        elif rule[:1] == b"&":
            self._add_channels(rule)
        elif rule[:1] in (b"+", b"-") and len(rule) > 1:
            self._change_commands(rule)
        else:
            raise RuleError(rule, NO_DATABASES if word.startswith((b"db=", b"alldbs", b"resetdbs")) else SYNTAX)

    def _add_keys(self, rule: bytes) -> None:
        if self.all_keys:
            raise RuleError(rule, AFTER_ALL_KEYS)
        match = _KEYS.fullmatch(rule)
        if match is None:
            raise RuleError(rule, SYNTAX)
        named = (match[1] or b"RW").upper()
        pattern = match[3] if match[1] is None else match[2]
        _check_pattern(rule, pattern, len(self.keys) + len(self.channels))
        rights = (READ if b"R" in named else 0) | (WRITE if b"W" in named else 0)
        self.keys[pattern] = self.keys.get(pattern, 0) | rights

    def _add_channels(self, rule: bytes) -> None:
        if self.all_channels:
            raise RuleError(rule, AFTER_ALL_CHANNELS)
        _check_pattern(rule, rule[1:], len(self.keys) + len(self.channels))
        self.channels[rule[1:]] = None

    def _change_commands(self, rule: bytes) -> None:
        sign, name = rule[:1], rule[1:].lower()
        if name.startswith(b"@"):
            if self.catalogue.of_category(name[1:]) is None:
                raise RuleError(rule, UNKNOWN)
            self._keep(sign, name)
            return
        if self.catalogue.of_name(name) is not None:
            self._keep(sign, name)
            return
        command, bar, first = name.rpartition(b"|")
        if not bar or sign == b"-" or self.catalogue.of_name(command) is None:
            raise RuleError(rule, UNKNOWN)
        if b"|" in command:
            raise RuleError(rule, FIRST_OF_SUBCOMMAND)
        if not first or _SPACE.search(first):
            raise RuleError(rule, SYNTAX)
        if command in self.catalogue.containers:
            raise RuleError(rule, UNKNOWN)
        self._keep(sign, name)

    def _keep(self, sign: bytes, name: bytes) -> None:
        """A rule makes void what was said of the same before, a whole command also what was said of its parts."""
        parts = name + b"|"
        kept = [rule for rule in self.commands[1:] if rule[1:] != name and not rule[1:].startswith(parts)]
        self.commands = [self.commands[0], *kept, sign + name]


def _check_pattern(rule: bytes, pattern: bytes, there: int) -> None:
    if _SPACE.search(pattern):
        raise RuleError(rule, SYNTAX)
    if len(pattern) > LONGEST_PATTERN:
        raise RuleError(rule[:1] + b"...", TOO_LONG)
    if there >= MOST_PATTERNS:
        raise RuleError(rule, TOO_MANY)


class _Draft:
    """A user that rules are being applied to."""

    def __init__(self, start: UserRecord, catalogue: Catalogue) -> None:
        self.start = start
        self.catalogue = catalogue
        self.enabled, self.nopass, self.skip_sanitize = start.enabled, start.nopass, start.skip_sanitize
        self.passwords = dict.fromkeys(start.passwords)
        self.root = _SelectorDraft(start.root, catalogue)
        self.selectors = list(start.selectors)
        self.limits = start.limits

    def done(self) -> UserRecord:
        if sum(len(s.keys) + len(s.channels) for s in [self.root.done(), *self.selectors]) > MOST_PATTERNS:
            raise RuleError(b"~...", TOO_MANY)
        return msgspec.structs.replace(
            self.start,
            enabled=self.enabled,
            nopass=self.nopass,
            skip_sanitize=self.skip_sanitize,
            passwords=tuple(self.passwords),
            root=self.root.done(),
            selectors=tuple(self.selectors),
            limits=self.limits,
        )

    def apply(self, rule: bytes) -> None:
        word = rule.lower()
        if not rule:
            return
        if rule[:1] == b"(" and rule[-1:] == b")":
            self._add_selector(rule)
        elif word == b"clearselectors":
            self.selectors = []
        elif word in (b"on", b"off"):
            self.enabled = word == b"on"
        elif word in (b"sanitize-payload", b"skip-sanitize-payload"):
            self.skip_sanitize = word == b"skip-sanitize-payload"
        elif word == b"nopass":
            self.nopass, self.passwords = True, {}
        elif word == b"resetpass":
            self.nopass, self.passwords = False, {}
        elif word == b"reset":
            self._reset()
        elif word.startswith(b"limit:"):
            self._limit(rule, word)
        elif word == b"resetlimits":
            self.limits = Limits()
        elif rule[:1] in (b">", b"#", b"<", b"!"):
            self._change_passwords(rule)
        else:
            self.root.apply(rule)

    def _add_selector(self, rule: bytes) -> None:
        if len(self.selectors) >= MOST_PATTERNS:
            raise RuleError(rule, TOO_MANY)
        draft = _SelectorDraft(Selector(), self.catalogue)
        for word in rule[1:-1].split():
            if word.endswith(b")"):
                raise RuleError(rule, SYNTAX)  # described, it would end the selector
            try:
                draft.apply(word)
            except RuleError as error:
                raise RuleError(rule, error.reason) from None
        self.selectors.append(draft.done())

    def _change_passwords(self, rule: bytes) -> None:
        if rule[:1] in (b">", b"<"):
            entry = hashed(rule[1:])
        elif _HASH.fullmatch(rule[1:]):
            entry = rule[1:].decode()
        else:
            raise RuleError(rule, BAD_HASH)
        if rule[:1] in (b">", b"#"):
            self.passwords[entry] = None
            self.nopass = False
        elif entry in self.passwords:
            del self.passwords[entry]
        else:
            raise RuleError(rule, NO_SUCH_PASSWORD)

    def _limit(self, rule: bytes, word: bytes) -> None:
        match = _LIMIT.fullmatch(word)
        name = match[1].decode() if match is not None else ""
        if match is None or name not in Limits.__struct_fields__:
            raise RuleError(rule, NO_LIMIT)
        try:
            most = parse_size(match[2].decode()) if name in _SIZES else int(match[2].decode())
        except ValueError:  # UnicodeDecodeError is one
            raise RuleError(rule, NO_LIMIT) from None
        if not 0 <= most <= MOST_OF_A_LIMIT:
            raise RuleError(rule, NO_LIMIT)
        self.limits = msgspec.structs.replace(self.limits, **{name: most})

    def _reset(self) -> None:
        self.limits = Limits()
        self.enabled = self.nopass = self.skip_sanitize = False
        self.passwords, self.selectors = {}, []
        self.root = _SelectorDraft(Selector(all_channels=self.start.name == DEFAULT), self.catalogue)


def apply(user: UserRecord, rules: Iterable[bytes], catalogue: Catalogue = CATALOGUE) -> UserRecord:
    """`user` with all the rules applied, or RuleError and nothing is."""
    draft = _Draft(user, catalogue)
    for rule in rules:
        draft.apply(rule)
    return draft.done()


def with_password(user: UserRecord, password: str) -> UserRecord:
    """The user with this password alone; with "" any is right. What the setting `requirepass` does to the default user."""
    if not password:
        return msgspec.structs.replace(user, nopass=True, passwords=())
    return msgspec.structs.replace(user, nopass=False, passwords=(hashed(password.encode()),))


# What it comes to -----------------------------------------------------------------------------------------------


def allowed(selector: Selector, catalogue: Catalogue = CATALOGUE) -> tuple[frozenset[int], dict[int, list[bytes]]]:
    """The rows that may be run, and of others the first arguments (lower case) with which they may."""
    rows: set[int] = set(catalogue.everything) if selector.commands[0] == b"+@all" else set()
    firsts: dict[int, list[bytes]] = {}
    for rule in selector.commands[1:]:
        name = rule[1:]
        found = catalogue.of_category(name[1:]) if name.startswith(b"@") else catalogue.of_name(name)
        if found is None:
            command, _, first = name.rpartition(b"|")
            for row in catalogue.of_name(command) or ():
                firsts.setdefault(row, []).append(first)
            continue
        for row in found:
            firsts.pop(row, None)
        rows = rows | found if rule[:1] == b"+" else rows - found
    return frozenset(rows), {row: words for row, words in firsts.items() if row not in rows}


# Describing -----------------------------------------------------------------------------------------------------


def command_rules(selector: Selector) -> bytes:
    """``+@all -@dangerous``"""
    return b" ".join(selector.commands)


def key_patterns(selector: Selector) -> bytes:
    """``~a* %R~b*``, or ``~*``"""
    if selector.all_keys:
        return b"~*"
    return b" ".join(_key_rule(rights, pattern) for rights, pattern in selector.keys)


def _key_rule(rights: int, pattern: bytes) -> bytes:
    if rights == READ | WRITE:
        # "~*" is another rule, behind which no pattern may follow.
        return (b"%RW~" if pattern == b"*" else b"~") + pattern
    return (b"%R~" if rights == READ else b"%W~") + pattern


def channel_patterns(selector: Selector) -> bytes:
    """``&a* &b*``, or ``&*``"""
    return b"&*" if selector.all_channels else b" ".join(b"&" + pattern for pattern in selector.channels)


_SIZES: Final = ("input", "memory")


def limit_rules(limits: Limits) -> Iterator[bytes]:
    """``limit:clients=100``, one for each limit there is."""
    for name, most in msgspec.structs.asdict(limits).items():
        if most:
            yield b"limit:%b=%b" % (name.encode(), (exact_size(most) if name in _SIZES else str(most)).encode())


def describe(user: UserRecord) -> bytes:
    """The rules that make this user of a new one, as ACL LIST has them behind its name."""
    return b" ".join(part for part in _described(user) if part)


def _described(user: UserRecord) -> Iterator[bytes]:
    yield b"on" if user.enabled else b"off"
    yield b"nopass" if user.nopass else b""
    yield b"skip-sanitize-payload" if user.skip_sanitize else b""
    yield from (b"#" + password.encode() for password in user.passwords)
    yield from limit_rules(user.limits)
    yield _described_selector(user.root)
    yield from (b"(" + _described_selector(selector) + b")" for selector in user.selectors)


def _described_selector(selector: Selector) -> bytes:
    channels = channel_patterns(selector)
    parts = (
        key_patterns(selector),
        b"" if selector.all_channels else b"resetchannels",
        channels,
        command_rules(selector),
    )
    return b" ".join(part for part in parts if part)
