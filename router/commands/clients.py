"""CLIENT and its subcommands: who is connected to the cluster, and what they may set for themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kache.errors import SYNTAX, CommandError
from kache.replies import OK, Reply, Verbatim
from kache.wire import link as wire_link

from ..peers import alone, answers, ask, router_of
from ..registry import REPLY_OFF, REPLY_ON, REPLY_SKIP, REPLY_SKIP_AGAIN, local
from .arguments import integer, text, valid_name

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

TYPES = ("normal", "master", "replica", "slave", "pubsub")


@local("client|id")
def client_id(router: Router, session: Session) -> Reply:
    """The connection's number, unique in the cluster for the life of its router."""
    return session.id


@local("client|setname")
def client_setname(router: Router, session: Session, name: bytes) -> Reply:
    """A name for CLIENT LIST."""
    session.name = valid_name(name, "Client names")
    return OK


@local("client|getname")
def client_getname(router: Router, session: Session) -> Reply:
    """The name, or null."""
    return session.name or None


@local("client|setinfo")
def client_setinfo(router: Router, session: Session, option: bytes, value: bytes) -> Reply:
    """LIB-NAME and LIB-VER, as client libraries announce themselves."""
    lowered = option.lower()
    if lowered not in (b"lib-name", b"lib-ver"):
        raise CommandError(f"ERR Unrecognized option '{text(option)}'")
    valid_name(value, text(option))
    if lowered == b"lib-name":
        session.lib_name = value
    else:
        session.lib_ver = value
    return OK


@local("client|info")
def client_info(router: Router, session: Session) -> Reply:
    """One line about this connection."""
    return Verbatim(describe(router, session, "client|info").encode() + b"\n")


@local("client|list")
def client_list(router: Router, session: Session, *args: bytes) -> Reply:
    """One line for each connection: [TYPE type] [ID id …] and the other filters of CLIENT KILL."""
    chosen = _matching(router, session, args, skip_me=False)
    if alone(router):
        return Verbatim(_lines(router, session, chosen))
    return _list_of_all(router, session, args)


async def _list_of_all(router: Router, session: Session, args: tuple[bytes, ...]) -> Reply:
    lines = await ask(router, "clients", *args)
    lines[router.index] = _lines(router, session, _matching(router, session, args, skip_me=False))
    return Verbatim(b"".join(lines[index] for index in sorted(lines)))


@answers("clients")
def _list_for_another(router: Router, args: Sequence[bytes]) -> bytes:
    return _lines(router, None, _matching(router, None, args, skip_me=False))


def _lines(router: Router, session: Session | None, chosen: list[Session]) -> bytes:
    lines = [describe(router, one, "client|list" if one is session else None) for one in chosen]
    return "".join(line + "\n" for line in lines).encode()


def describe(router: Router, session: Session, command: str | None = None) -> str:
    """A line of CLIENT LIST, with Redis's field names."""
    now = router.now_ms
    flags = (
        "O" * session.monitors_all
        + "P" * (session.subscriptions > 0)
        + _tracking_flags(session)
        + "b" * (session.blocker is not None)
        + "x" * (session.queued >= 0)
    )
    flags = flags + "e" * session.no_evict + "T" * session.no_touch or "N"
    fields = {
        "id": session.id,
        "addr": session.address,
        "laddr": session.local_address,
        "fd": session.fd,
        "name": text(session.name),
        "age": (now - session.connected_ms) // 1000,
        "idle": (now - session.last_ms) // 1000,
        "flags": flags,
        "db": session.db,
        "sub": session.listening_to(wire_link.CHANNEL),
        "psub": session.listening_to(wire_link.PATTERN),
        "ssub": session.listening_to(wire_link.SHARD_CHANNEL),
        "multi": session.queued,
        "watch": session.watching,
        "qbuf": session.unparsed_bytes,
        "qbuf-free": 0,
        "argv-mem": 0,
        "multi-mem": session.queued_bytes,
        "rbs": 0,
        "rbp": 0,
        "obl": session.unsent_bytes,
        "oll": 0,
        "omem": session.held_bytes + session.unsent_bytes,
        "tot-mem": session.unparsed_bytes + session.queued_bytes + session.held_bytes + session.unsent_bytes,
        "events": "r",
        "cmd": command or session.last_command or "NULL",
        "user": session.user,
        "redir": -1 if session.tracks is None else session.tracks.redirect,
        "resp": session.dialect or 0,
        "lib-name": text(session.lib_name),
        "lib-ver": text(session.lib_ver),
        "tot-net-in": session.bytes_in,
        "tot-net-out": session.bytes_out,
        "tot-cmds": session.commands,
        "router": router.index,
    }
    return " ".join(f"{name}={value}" for name, value in fields.items())


def _tracking_flags(session: Session) -> str:
    tracks = session.tracks
    if tracks is None:
        return ""
    return "t" + "R" * tracks.broken + "B" * (tracks.modes & 1)


@local("client|kill")
def client_kill(router: Router, session: Session, *args: bytes) -> Reply:
    """CLIENT KILL addr:port, or filters (ID… ADDR LADDR TYPE USER MAXAGE SKIPME), which answer how many were closed."""
    if len(args) == 1:
        found = _kill(session, _matching(router, session, (b"addr", *args), skip_me=False)[:1])
        return _one_killed(found) if found or alone(router) else _kill_elsewhere(router, *args)
    chosen = _matching(router, session, args, skip_me=True)
    return _kill(session, chosen) if alone(router) else _kill_everywhere(router, session, args)


def _kill(session: Session | None, victims: list[Session]) -> int:
    for one in victims:
        if one is session:
            one.finish()
        else:
            one.kill("CLIENT KILL")
    return len(victims)


def _one_killed(found: int) -> Reply:
    if not found:
        raise CommandError("ERR No such client")
    return OK


async def _kill_elsewhere(router: Router, address: bytes) -> Reply:
    return _one_killed(sum(map(int, (await ask(router, "kill", b"addr", address)).values())))


async def _kill_everywhere(router: Router, session: Session, args: tuple[bytes, ...]) -> Reply:
    elsewhere = await ask(router, "kill", *args)
    return sum(map(int, elsewhere.values())) + _kill(session, _matching(router, session, args, skip_me=True))


@answers("kill")
def _kill_for_another(router: Router, args: Sequence[bytes]) -> bytes:
    return b"%d" % _kill(None, _matching(router, None, args, skip_me=False))


def _matching(router: Router, session: Session | None, args: Sequence[bytes], *, skip_me: bool) -> list[Session]:
    """The sessions that pass every filter of CLIENT LIST or CLIENT KILL; raises for a wrong one.

    Of another router's question `session` is None: whoever asks is not here, so there is nobody to skip.
    """
    chosen = router.sessions()
    at = 0
    while at < len(args):
        name = args[at].lower()
        if at + 1 == len(args):
            raise CommandError(SYNTAX)
        value = args[at + 1]
        at += 2
        if name == b"id":
            ids = {_client_id(value)}
            while at < len(args) and _is_number(args[at]):
                ids.add(_client_id(args[at]))
                at += 1
            chosen = [one for one in chosen if one.id in ids]
        elif name == b"skipme":
            if value.lower() not in (b"yes", b"no"):
                raise CommandError(SYNTAX)
            skip_me = value.lower() == b"yes"
        else:
            chosen = _filtered(router, chosen, name, value)
    return [one for one in chosen if one is not session] if skip_me and session is not None else chosen


def _is_number(raw: bytes) -> bool:
    return raw.removeprefix(b"-").isdigit()


def _client_id(raw: bytes) -> int:
    number = integer(raw, SYNTAX)
    if number < 1:
        raise CommandError("ERR client-id should be greater than 0")
    return number


def _filtered(router: Router, sessions: list[Session], name: bytes, value: bytes) -> list[Session]:
    if name == b"addr":
        return [one for one in sessions if one.address.encode() == value]
    if name == b"laddr":
        return [one for one in sessions if one.local_address.encode() == value]
    if name == b"user":
        if value not in router.users.by_name:
            raise CommandError(f"ERR No such user '{text(value)}'")
        return [one for one in sessions if one.authenticated and one.rights.name == value]
    if name == b"type":
        if text(value).lower() not in TYPES:
            raise CommandError(f"ERR Unknown client type '{text(value)}'")
        if value.lower() == b"pubsub":
            return [one for one in sessions if one.subscriptions]
        return [one for one in sessions if not one.subscriptions] if value.lower() == b"normal" else []
    if name == b"maxage":
        age = integer(value, "ERR maxage is not an integer or out of range")
        if age < 1:
            raise CommandError("ERR maxage should be greater than 0")
        return [one for one in sessions if (router.now_ms - one.connected_ms) // 1000 >= age]
    raise CommandError(SYNTAX)


@local("client|no-evict")
def client_no_evict(router: Router, session: Session, mode: bytes) -> Reply:
    """ON keeps this connection when clients' memory is short."""
    session.no_evict = _on_off(mode)
    return OK


@local("client|no-touch")
def client_no_touch(router: Router, session: Session, mode: bytes) -> Reply:
    """ON: this connection's commands do not count as use of a key."""
    session.no_touch = _on_off(mode)
    return OK


def _on_off(mode: bytes) -> bool:
    if mode.lower() not in (b"on", b"off"):
        raise CommandError(SYNTAX)
    return mode.lower() == b"on"


PAUSE_ENDS_MS = 10 * 365 * 86_400_000
"""A longer pause ends then: the timers must be able to count it."""


@local("client|pause")
async def client_pause(router: Router, session: Session, timeout: bytes, *mode: bytes) -> Reply:
    """Clients of every router wait for some milliseconds: all of them, or with WRITE those that write."""
    milliseconds = integer(timeout, "ERR timeout is not an integer or out of range")
    if milliseconds < 0:
        raise CommandError("ERR timeout is negative")
    if len(mode) > 1:
        raise CommandError("ERR wrong number of arguments for 'client|pause' command")
    if mode and mode[0].lower() not in (b"write", b"all"):
        raise CommandError("ERR CLIENT PAUSE mode must be WRITE or ALL")
    until = router.clock.now() + min(milliseconds, PAUSE_ENDS_MS)
    words = [b"write" if mode and mode[0].lower() == b"write" else b"all", b"%d" % until]
    await ask(router, "pause", *words)
    _pause_for_another(router, words)
    return OK


@answers("pause")
def _pause_for_another(router: Router, words: Sequence[bytes]) -> bytes:
    router.pause_clients(words[0] == b"write", int(words[1]))
    return b""


@local("client|unpause")
async def client_unpause(router: Router, session: Session) -> Reply:
    """The end of it."""
    await ask(router, "unpause")
    router.resume_clients()
    return OK


@answers("unpause")
def _unpause_for_another(router: Router, _words: Sequence[bytes]) -> bytes:
    router.resume_clients()
    return b""


@local("client|unblock")
def client_unblock(router: Router, session: Session, number: bytes, *reason: bytes) -> Reply:
    """1 if that connection was waiting in a command, 0 if not. It is answered as if its time were over, or with an error."""
    if len(reason) > 1:
        raise CommandError("ERR wrong number of arguments for 'client|unblock' command")
    if reason and reason[0].lower() not in (b"timeout", b"error"):
        raise CommandError("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")
    wanted = integer(number)
    error = bool(reason) and reason[0].lower() == b"error"
    if alone(router) or router_of(wanted) == router.index:
        return _unblock(router, wanted, error)
    return _unblock_elsewhere(router, wanted, error)


def _unblock(router: Router, number: int, error: bool) -> int:
    session = router.session_by_id(number)
    if session is None or session.blocker is None:
        return 0
    session.blocker.unblock(error)
    return 1


async def _unblock_elsewhere(router: Router, number: int, error: bool) -> Reply:
    return sum(map(int, (await ask(router, "unblock", b"%d" % number, b"%d" % error)).values()))


@answers("unblock")
def _unblock_for_another(router: Router, words: Sequence[bytes]) -> bytes:
    return b"%d" % _unblock(router, int(words[0]), words[1] == b"1")


@local("client|reply")
def client_reply(router: Router, session: Session, mode: bytes) -> Reply:
    """ON, OFF, or SKIP for the next command."""
    modes = {b"on": REPLY_ON, b"off": REPLY_OFF, b"skip": REPLY_SKIP}
    if mode.lower() not in modes:
        raise CommandError(SYNTAX)
    wanted = modes[mode.lower()]
    if wanted != REPLY_SKIP or session.reply_mode == REPLY_ON:
        session.reply_mode = wanted
    elif session.reply_mode == REPLY_SKIP:
        session.reply_mode = REPLY_SKIP_AGAIN
    # SKIP changes nothing while replies are off.
    return OK
