"""Who the clients of a router are: passwords, guesses, and what was refused to them.

A password is compared with every hash of its user, without an early end, and a name that does not exist costs the same. A
right password is never delayed nor refused; a wrong one is answered late once its address has guessed often, so that one
misconfigured client of a host does not lock the others out.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kache.acl.log import AclLog
from kache.acl.record import DEFAULT, METRICS
from kache.errors import CommandError
from kache.replies import Reply

if TYPE_CHECKING:
    from kache.acl.rights import User

    from .mux.multiplexer import Router, Session

__all__ = ["WRONG_PASSWORD", "Accounts", "origin"]

log = logging.getLogger("kache.router")

WRONG_PASSWORD: Final = "WRONGPASS invalid username-password pair or user is disabled."

TOO_MANY_CLIENTS: Final = "ERR max number of clients of this user reached"

FREE_GUESSES: Final = 9
"""Wrong passwords of an address within `GUESS_SECONDS` that are answered at once."""
GUESS_SECONDS: Final = 60.0
LATE_SECONDS: Final = 1.0
MOST_HELD: Final = 64
"""Answers that wait; whoever guesses beyond that is closed without one."""
MOST_ADDRESSES: Final = 1024
NO_HASHES: Final = ("0" * 64,)
ROUTER_BITS: Final = 48


class Accounts:
    """Of one router."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self.own_password = b""
        """Of the user `METRICS`, as the supervisor has made it; b"" where there is nobody who has it."""
        self.log = AclLog(router.index << ROUTER_BITS)
        self.denied = dict.fromkeys(("auth", "command", "key", "channel", "tls-cert"), 0)
        """How often something was refused, by reason."""
        self._guesses: OrderedDict[str, deque[float]] = OrderedDict()
        self._held = 0
        self._told = -GUESS_SECONDS
        self._untold = 0

    # Logging in -----------------------------------------------------------------------------------------
    def enter(self, session: Session, user: User) -> None:
        """The session acts in the name of this user, who has proved who it is; CommandError when it has too many clients."""
        if not self._router.may_join(session, user):
            raise CommandError(TOO_MANY_CLIENTS)
        session.log_in(user)

    def check(self, name: bytes, password: bytes) -> User | None:
        """The user, if it is enabled and this is a password of it."""
        user = self._router.users.by_name.get(name)
        given = hashlib.sha256(password).hexdigest()
        right = False
        if name == METRICS:
            known_one = hashlib.sha256(self.own_password).hexdigest()
            return self._router.users.metrics if self.own_password and hmac.compare_digest(given, known_one) else None
        for known in (user.record.passwords if user is not None else ()) or NO_HASHES:
            right |= hmac.compare_digest(given, known)
        if user is None or not user.enabled:
            return None
        return user if right or user.nopass else None

    def log_in(self, session: Session, name: bytes) -> bool:
        """The session acts in the name of this user from its next command on, if there is such a user and it is enabled:
        for whoever has proved who it is by other means than a password."""
        user = self._router.users.by_name.get(name)
        if user is None or not user.enabled:
            return False
        if not self._router.may_join(session, user):
            session.kill("its user has too many clients")
            return True
        session.log_in(user)
        return True

    def reject(self, session: Session, name: bytes, command: bytes) -> Coroutine[Any, Any, Reply]:
        """A wrong password: raises the refusal, or returns a coroutine that does so later. Too many of them end the
        connection."""
        self.refused(session, "auth", "toplevel" if session.queued < 0 else "multi", command, name)
        session.auth_failures += 1
        last = session.auth_failures >= self._router.config.auth_max_failures
        if self._guessed(session.address):
            self._tell(session.address)
            if self._held >= MOST_HELD:
                session.kill("it guesses passwords")
                raise CommandError(WRONG_PASSWORD)
            return self._answer_late(session, last)
        if last:
            session.finish()
        raise CommandError(WRONG_PASSWORD)

    async def _answer_late(self, session: Session, last: bool) -> Reply:
        self._held += 1
        try:
            await asyncio.sleep(LATE_SECONDS)
        finally:
            self._held -= 1
        if last:
            session.finish()
        raise CommandError(WRONG_PASSWORD)

    def _guessed(self, address: str) -> bool:
        """Notes a wrong password; whether there were too many from where it came."""
        now = time.monotonic()
        times = self._guesses.setdefault(origin(address), deque(maxlen=FREE_GUESSES + 1))
        self._guesses.move_to_end(origin(address))
        if len(self._guesses) > MOST_ADDRESSES:
            self._guesses.popitem(last=False)
        times.append(now)
        return len(times) > FREE_GUESSES and now - times[0] <= GUESS_SECONDS

    def _tell(self, address: str) -> None:
        """One line a minute, whoever guesses."""
        self._untold += 1
        if time.monotonic() - self._told >= GUESS_SECONDS:
            log.warning(
                "wrong passwords from %s and perhaps others (%d of late): answers are late", address, self._untold
            )
            self._told, self._untold = time.monotonic(), 0

    def user_after(self, user: User, command: str, args: Sequence[bytes]) -> User:
        """Whose name counts behind a queued AUTH or HELLO."""
        credentials: tuple[bytes, bytes] | None = None
        if command == "auth" and 1 <= len(args) <= 2:
            credentials = (args[0] if len(args) == 2 else DEFAULT, args[-1])
        elif command == "hello":
            for at, word in enumerate(args[1:-2], 1):
                if word.upper() == b"AUTH":
                    credentials = (args[at + 1], args[at + 2])
        return user if credentials is None else self.check(*credentials) or user

    def report(self, session: Session | None, packed: bytes) -> None:
        """A script of this session (None: it is gone) did in a shard what its user may not."""
        try:
            reason, word, user = _denials.decode(packed)
            if session is not None:
                self.refused(session, reason, "lua", word, user)
            else:
                self.denied[reason] += 1
                self.log.note(self._router.clock.data_now(), reason, "lua", word, user, bytes)
        except (msgspec.MsgspecError, KeyError):
            log.exception("a shard reports a refusal in another way")

    def counters(self) -> dict[str, int]:
        """How often something was refused, as a router tells it of itself."""
        return {f"denied_{reason.replace('-', '_')}": count for reason, count in self.denied.items()}

    def reset_counters(self) -> None:
        """They start again from zero."""
        self.denied = dict.fromkeys(self.denied, 0)

    # What was refused -------------------------------------------------------------------------------------
    def refused(self, session: Session, reason: str, context: str, what: bytes, name: bytes | None = None) -> None:
        """For ACL LOG and the counters; `name`: as whom somebody tried to log in."""
        from .commands.clients import describe  # which imports this module by way of the others

        def client() -> bytes:
            return describe(self._router, session).encode("utf-8", "replace")

        self.denied[reason] += 1
        username = session.rights.name if name is None else name
        self.log.note(self._router.clock.data_now(), reason, context, what, username, client)


_denials: Final = msgspec.msgpack.Decoder(tuple[str, bytes, bytes])


def origin(address: str) -> str:
    """Whose guesses and connections count together: a host, of IPv6 its network of 64 bits."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return host  # a Unix socket
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else host
