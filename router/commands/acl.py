"""ACL: users are changed through the supervisor, which owns them; what is asked is answered from this router's copy.

OK to SETUSER, DELUSER and LOAD means that every process of the cluster goes by the change, and that nothing is executed
by the rights of before any more.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from kache.acl.catalogue import CATALOGUE, CATEGORIES
from kache.acl.file import lines_of
from kache.acl.log import Refusal, merged
from kache.acl.record import DEFAULT, Selector
from kache.acl.rules import (
    UnmatchedError,
    channel_patterns,
    check_name,
    command_rules,
    key_patterns,
    limit_rules,
    words_of,
)
from kache.cluster.control import ControlError
from kache.cluster.messages import Ack, AclChange, AclFile
from kache.errors import CommandError
from kache.replies import OK, Reply

from ..peers import answers, ask
from ..registry import local
from .arguments import integer, text

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__: list[str] = []

BITS: Final = 256
MOST_BITS: Final = 4096
SHOWN: Final = 10
"""Entries of ACL LOG without a number."""
NO_FILE: Final = (
    "ERR This Redis instance is not configured to use an ACL file. You may want to specify users via the ACL SETUSER command "
    "and then issue a CONFIG REWRITE (assuming you have a Redis configuration file set) in order to store users in the Redis "
    "configuration."
)
NOT_ALLOWED: Final = {
    "command": "run the '{}' command",
    "key": "access the '{}' key",
    "channel": "access the '{}' channel",
}


# What is known here -----------------------------------------------------------------------------------------------
@local("acl|whoami")
def acl_whoami(router: Router, session: Session) -> Reply:
    """The name of the session's user."""
    return session.rights.name


@local("acl|users")
def acl_users(router: Router, session: Session) -> Reply:
    """All names, sorted."""
    return sorted(router.users.by_name)


@local("acl|list")
def acl_list(router: Router, session: Session) -> Reply:
    """All users as lines of a file, sorted by name."""
    return list(lines_of({name: user.record for name, user in router.users.by_name.items()}))


@local("acl|getuser")
def acl_getuser(router: Router, session: Session, name: bytes) -> Reply:
    """A map of what the user is and may do; null if there is none."""
    user = router.users.by_name.get(name)
    if user is None:
        return None
    record = user.record
    flags = [b"on" if record.enabled else b"off"]
    flags += [b"nopass"] if record.nopass else []
    flags += [b"skip-sanitize-payload"] if record.skip_sanitize else []
    return {
        b"flags": flags,
        b"passwords": [password.encode() for password in record.passwords],
        **_described(record.root),
        b"selectors": [_described(selector) for selector in record.selectors],
        **({b"limits": b" ".join(limits)} if (limits := list(limit_rules(record.limits))) else {}),
    }


def _described(selector: Selector) -> dict[bytes, Reply]:
    return {
        b"commands": command_rules(selector),
        b"keys": key_patterns(selector),
        b"channels": channel_patterns(selector),
    }


@local("acl|cat")
def acl_cat(router: Router, session: Session, *category: bytes) -> Reply:
    """The categories, or the names of the commands of one."""
    if len(category) > 1:
        raise CommandError("ERR wrong number of arguments for 'acl|cat' command")
    if not category:
        return list(CATEGORIES)
    names = CATALOGUE.names_in(category[0])
    if names is None:
        raise CommandError(f"ERR Unknown category '{text(category[0][:128])}'")
    return list(names)


@local("acl|genpass")
def acl_genpass(router: Router, session: Session, *bits: bytes) -> Reply:
    """Random hexadecimal digits, enough for so many bits."""
    if len(bits) > 1:
        raise CommandError("ERR wrong number of arguments for 'acl|genpass' command")
    number = integer(bits[0]) if bits else BITS
    if not 0 < number <= MOST_BITS:
        raise CommandError(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to 4096"
        )
    digits = (number + 3) // 4
    return secrets.token_hex((digits + 1) // 2)[:digits].encode()


@local("acl|dryrun")
def acl_dryrun(router: Router, session: Session, name: bytes, *words: bytes) -> Reply:
    """OK, or what the user may not do."""
    user = router.users.by_name.get(name)
    if user is None:
        raise CommandError(f"ERR User '{text(name[:128])}' not found")
    found = router.denial(user, list(words))
    if found is None:
        return OK
    what, word = found
    return f"This user has no permissions to {NOT_ALLOWED[what].format(text(word[:128]))}".encode()


# Changes ------------------------------------------------------------------------------------------------------------
@local("acl|setuser")
async def acl_setuser(router: Router, session: Session, name: bytes, *rules: bytes) -> Reply:
    """Makes or changes a user; all rules or none."""
    wrong = check_name(name)
    if wrong:
        raise CommandError(f"ERR {wrong}")
    try:
        words = words_of(rules)
    except UnmatchedError as error:
        raise CommandError(f"ERR {error}") from None
    await _ask(router, AclChange(0, session.rights.name, [(name, words)], []))
    return OK


@local("acl|deluser")
async def acl_deluser(router: Router, session: Session, *names: bytes) -> Reply:
    """How many users there were of these names, and are not any longer."""
    if DEFAULT in names:
        raise CommandError("ERR The 'default' user cannot be removed")
    return await _ask(router, AclChange(0, session.rights.name, [], list(names)))


@local("acl|load")
async def acl_load(router: Router, session: Session) -> Reply:
    """The users as they are in their file, all or nothing."""
    return await _ask_file(router, "load")


@local("acl|save")
async def acl_save(router: Router, session: Session) -> Reply:
    """The file as the users are."""
    return await _ask_file(router, "save")


async def _ask_file(router: Router, what: str) -> Reply:
    if not router.config.aclfile:
        raise CommandError(NO_FILE)
    await _ask(router, AclFile(0, what))
    return OK


async def _ask(router: Router, message: AclChange | AclFile) -> int:
    try:
        answer = await router.control.request(message)
    except ControlError as error:
        raise CommandError(f"ERR {error}") from None
    assert isinstance(answer, Ack)
    return answer.count


# ACL LOG --------------------------------------------------------------------------------------------------------------
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Refusal])


@local("acl|log")
async def acl_log(router: Router, session: Session, *args: bytes) -> Reply:
    """The newest refusals of all routers, 10 or as many as asked for; RESET forgets them."""
    if len(args) > 1:
        raise CommandError("ERR wrong number of arguments for 'acl|log' command")
    if args and args[0].lower() == b"reset":
        router.accounts.log.clear()
        await ask(router, "acllog-reset")
        return OK
    count = integer(args[0]) if args else SHOWN
    if count < 0:
        raise CommandError("ERR value is out of range, must be positive")
    others = [_decoder.decode(packed) for packed in (await ask(router, "acllog")).values()]
    entries = merged([router.accounts.log.entries(), *others])
    return [_entry(router, entry) for entry in entries[: min(count, router.config.acllog_max_len)]]


def _entry(router: Router, entry: Refusal) -> Reply:
    return {
        b"count": entry.count,
        b"reason": entry.reason.encode(),
        b"context": entry.context.encode(),
        b"object": entry.object,
        b"username": entry.username,
        b"age-seconds": max(router.clock.data_now() - entry.updated_ms, 0) / 1000,
        b"client-info": entry.client,
        b"entry-id": entry.number,
        b"timestamp-created": entry.created_ms,
        b"timestamp-last-updated": entry.updated_ms,
    }


@answers("acllog")
def _log_here(router: Router, _words: Sequence[bytes]) -> bytes:
    return _encoder.encode(router.accounts.log.entries())


@answers("acllog-reset")
def _forget_here(router: Router, _words: Sequence[bytes]) -> bytes:
    router.accounts.log.clear()
    return b""
