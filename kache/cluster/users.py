"""The users of the cluster: the supervisor's record of them, and its changes on their way to every process.

    ask ─► applied to the record ─► all shards follow ─► all routers follow, and nothing is under way by the old rights ─► OK

Changes are carried out one after the other, in the order in which they come. Shards come first, so that what runs inside
them never has rights that its router knows to be gone. Whoever does not follow within `FOLLOW_SECONDS` is killed and
starts again with the users of today: a process that was stopped must not wake up with old rights.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from kache.acl.file import AclFileError, load, save, users_of
from kache.acl.record import DEFAULT, FIRST_NUMBER, UserRecord, default_user
from kache.acl.rules import RuleError, apply, describe, with_password
from kache.cluster import messages
from kache.cluster.acknowledgements import Acknowledgements
from kache.cluster.children import Child
from kache.config.rules import exposed_hosts
from kache.config.settings import Config, ConfigError
from kache.errors import KacheError

__all__ = ["FOLLOW_SECONDS", "UserRecords", "Users"]

FOLLOW_SECONDS: Final = 5.0
START_SECONDS: Final = 30.0
"""The same for a child that is still starting."""
MOST_BYTES: Final = 8 * 1024 * 1024
"""Of all users as they travel: half of what one message may have."""
SHORT_PASSWORD: Final = 16

Answer = Callable[[str, int], None]
UserRecords = dict[bytes, UserRecord]

_log = logging.getLogger("kache")


class TooLargeError(KacheError):
    """All users together are larger than a process is told at once."""


class Users:
    """`send` sends a child a message."""

    def __init__(
        self,
        children: Sequence[Child],
        acknowledgements: Acknowledgements,
        send: Callable[[Child, messages.Down], None],
    ) -> None:
        self._children = children
        self._acknowledgements = acknowledgements
        self._send = send
        self.records: UserRecords = {DEFAULT: default_user()}
        self.epoch = 1
        self._last_number = FIRST_NUMBER
        self._path = ""
        self._waiting: deque[Callable[[], None]] = deque()
        self._changing = False
        self._sizes: dict[bytes, tuple[UserRecord, int]] = {}
        """By name: a record that was measured, and how large it travels."""

    def start(self, config: Config) -> None:
        """The users that the cluster starts with; raises KacheError with what is wrong, and where."""
        self._path = config.aclfile
        if self._path:
            found = load(self._path)
        else:
            lines = [(f"[users] {name}", name.encode(), rules.encode()) for name, rules in config.users.items()]
            found = users_of(lines)
        if config.requirepass:
            found[DEFAULT] = with_password(found[DEFAULT], config.requirepass)
        default = found[DEFAULT]
        exposed = exposed_hosts(config)
        if config.protected_mode and exposed and default.enabled and default.nopass:
            raise ConfigError(
                f"Listening on {', '.join(exposed)} with a user default who needs no password is refused, since whoever reaches "
                "the port owns the data: give it one, or the rule off, or say protected-mode no.",
                "protected-mode",
            )
        self.records = self._numbered(found)
        self._check_size(self.records)

    # Changes --------------------------------------------------------------------------------------------
    def change(self, asked: messages.AclChange, answer: Answer) -> None:
        """SETUSER and DELUSER; `answer` gets "" or what went wrong, and how many users were deleted."""
        self._ask(lambda: self._apply(asked, answer))

    def require(self, config: Config, answer: Answer) -> None:
        """`requirepass` has been changed: the default user has this password, and no other."""
        self._ask(lambda: self._require(config.requirepass, answer))

    def load(self, answer: Answer) -> None:
        """The users of the file, all or nothing."""
        self._ask(lambda: self._load(answer))

    def save(self, answer: Answer) -> None:
        """The file as the users are."""
        self._ask(lambda: self._save(answer))

    def as_settings(self, config: Config) -> dict[str, str]:
        """``[users]`` of the configuration: rules by name, those of the default user only where `requirepass` does not say
        all of it. Raises KacheError for a name that TOML cannot have."""
        found = {}
        usual = with_password(default_user(), config.requirepass)
        for name in sorted(self.records):
            try:
                rules = describe(self.records[name]).decode()
                if name != DEFAULT or self.records[name] != usual:
                    found[name.decode()] = rules
            except UnicodeDecodeError:
                raise KacheError(f"the user {name!r} or a rule of it is not UTF-8: use an aclfile") from None
        return found

    # One after the other ----------------------------------------------------------------------------------
    def _ask(self, work: Callable[[], None]) -> None:
        self._waiting.append(work)
        self._go_on()

    def _go_on(self) -> None:
        while self._waiting and not self._changing:
            self._waiting.popleft()()

    def _apply(self, asked: messages.AclChange, answer: Answer) -> None:
        after = dict(self.records)
        try:
            for name, rules in asked.changes:
                after[name] = apply(after.get(name) or UserRecord(name), rules)
            self._check_size(after)
        except (RuleError, TooLargeError) as error:
            answer(str(error), 0)
            return
        gone = [
            name for name in dict.fromkeys(asked.deletions) if name != DEFAULT and after.pop(name, None) is not None
        ]
        for name, rules in asked.changes:
            _log.info("user %r was changed by %r", name, asked.actor)
            if any(rule.startswith(b">") and len(rule) <= SHORT_PASSWORD for rule in rules):
                _log.warning("user %r got a password of less than %d bytes: see ACL GENPASS", name, SHORT_PASSWORD)
        for name in gone:
            _log.info("user %r was deleted by %r", name, asked.actor)
        self._spread(after, answer, len(gone))

    def _require(self, password: str, answer: Answer) -> None:
        after = dict(self.records)
        after[DEFAULT] = with_password(after[DEFAULT], password)
        self._spread(after, answer, 0)

    def _load(self, answer: Answer) -> None:
        try:
            found = load(self._path)
            self._check_size(found)
        except (AclFileError, TooLargeError) as error:
            answer(str(error), 0)
            return
        _log.info("the users were read again from %s", self._path)
        self._spread(found, answer, 0)

    def _save(self, answer: Answer) -> None:
        try:
            save(self._path, self.records)
        except AclFileError as error:
            answer(str(error), 0)
            return
        answer("", 0)

    def _numbered(self, users: Mapping[bytes, UserRecord]) -> UserRecords:
        """Each with the number that it had, or one that nobody ever had."""
        found: UserRecords = {}
        for name, record in users.items():
            before = self.records.get(name)
            if before is not None:
                number = before.number
            else:
                self._last_number += 1
                number = self._last_number
            # The same object where it is the same: with a thousand users a change is about one of them.
            found[name] = record if record.number == number else msgspec.structs.replace(record, number=number)
        return found

    def _check_size(self, users: Mapping[bytes, UserRecord]) -> None:
        total, measured = 0, dict[bytes, tuple[UserRecord, int]]()
        for name, record in users.items():
            known = self._sizes.get(name)
            measured[name] = known if known is not None and known[0] is record else (record, _size(record))
            total += measured[name][1]
        self._sizes = measured
        if total > MOST_BYTES:
            raise TooLargeError(f"all users together may have {MOST_BYTES // 1024 // 1024} MiB of rules")

    # On their way -------------------------------------------------------------------------------------------
    def _spread(self, after: Mapping[bytes, UserRecord], answer: Answer, count: int) -> None:
        before, self.records = self.records, self._numbered(after)
        changed = [
            record
            for name, record in self.records.items()
            if record is not before.get(name) and record != before.get(name)
        ]
        removed = [name for name in before if name not in self.records]
        if not changed and not removed:
            answer("", count)
            return
        self.epoch += 1
        self._changing = True
        epoch, killed = self.epoch, list[str]()

        def routers(late: Iterable[str]) -> None:
            self._kill(late, killed)
            self._tell("router", epoch, changed, removed, over)

        def over(late: Iterable[str]) -> None:
            self._kill(late, killed)
            self._changing = False
            told = ", ".join(killed)
            answer(
                f"the users were changed; {told} did not follow in time and is started again" if killed else "", count
            )
            self._go_on()

        self._tell("shard", epoch, changed, removed, routers)

    def _tell(
        self,
        role: messages.Role,
        epoch: int,
        changed: list[UserRecord],
        removed: list[bytes],
        then: Callable[[Iterable[str]], None],
    ) -> None:
        number = self._acknowledgements.next_id()
        asked = [child for child in self._children if child.role == role and child.conversation is not None]
        for child in asked:
            self._send(child, messages.UsersChanged(number, epoch, changed, removed))
        seconds = START_SECONDS if any(child.state == "starting" for child in asked) else FOLLOW_SECONDS
        self._acknowledgements.begin(
            number, [child.name for child in asked], time.monotonic(), lambda _: then(()), seconds=seconds, late=then
        )

    def _kill(self, late: Iterable[str], killed: list[str]) -> None:
        for child in self._children:
            if child.name in set(late) and child.pid:
                child.last_words = "it did not follow a change of users in time"
                os.kill(child.pid, signal.SIGKILL)
                killed.append(child.name)


def _size(record: UserRecord) -> int:
    return len(describe(record)) + len(record.name) + 64
