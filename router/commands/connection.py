"""Connection commands, answered in the router: PING, ECHO, AUTH, HELLO, SELECT, RESET, QUIT, TIME.

They change only the session that asks. Who it is, `kache.router.accounts` decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kache.acl.record import DEFAULT
from kache.errors import SYNTAX, CommandError
from kache.replies import OK, Reply

from ..registry import REPLY_ON, local
from .arguments import integer, valid_name
from .standalone import modules_of

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__ = ["SERVER_NAME", "SERVER_VERSION"]

SERVER_NAME = "redis"
SERVER_VERSION = "7.4.2"
"""What clients are told: the newest Redis release all of whose commands on the types here exist, deadlines of hash fields
among them. Client libraries refuse by it what the server could do (coredis HEXPIRE below 7.4, redis-py its `cache_config`);
a higher one would promise types that are not here."""

DATABASES = 16


@local("ping")
def ping(router: Router, session: Session, *args: bytes) -> Reply:
    """PONG, or the message."""
    if len(args) > 1:
        raise CommandError("ERR wrong number of arguments for 'ping' command")
    if session.subscriptions and session.dialect == 2:
        # Told apart from messages by its first word.
        return [b"pong", args[0] if args else b""]
    return args[0] if args else "PONG"


@local("echo")
def echo(router: Router, session: Session, message: bytes) -> Reply:
    """The message."""
    return message


@local("select")
def select(router: Router, session: Session, index: bytes) -> Reply:
    """The session's database from the next command on."""
    number = integer(index)
    if not -(2**31) <= number < 2**31:
        raise CommandError("ERR value is out of range, value must between -2147483648 and 2147483647")
    if not 0 <= number < DATABASES:
        raise CommandError("ERR DB index is out of range")
    session.db = number
    return OK


@local("auth")
def auth(router: Router, session: Session, *args: bytes) -> Reply:
    """AUTH password, for the user `default`, or AUTH username password."""
    if len(args) > 2:
        raise CommandError(SYNTAX)
    if len(args) == 1 and router.users.default.nopass:
        raise CommandError(
            "ERR AUTH <password> called without any password configured for the default user. "
            "Are you sure your configuration is correct?"
        )
    name, password = (DEFAULT, args[0]) if len(args) == 1 else (args[0], args[1])
    user = router.accounts.check(name, password)
    if user is None:
        return router.accounts.reject(session, name, b"AUTH")
    router.accounts.enter(session, user)
    return OK


@local("hello")
def hello(router: Router, session: Session, *args: bytes) -> Reply:
    """HELLO [2|3 [AUTH user password] [SETNAME name]]: protocol version and a description of the server."""
    version = 0
    if args:
        version = integer(args[0], "ERR Protocol version is not an integer or out of range")
        if version not in (2, 3):
            raise CommandError("NOPROTO unsupported protocol version")
    name: bytes | None = None
    credentials: tuple[bytes, bytes] | None = None
    rest = list(args[1:])
    while rest:
        word = rest.pop(0)
        if word.upper() == b"AUTH" and len(rest) >= 2:
            credentials = rest.pop(0), rest.pop(0)
        elif word.upper() == b"SETNAME" and rest:
            name = valid_name(rest.pop(0), "Client names")
        else:
            raise CommandError(f"ERR Syntax error in HELLO option '{word.decode('utf-8', 'replace')}'")
    # Only now is the command known to be whole: an error leaves the session as it was.
    if credentials is not None:
        user = router.accounts.check(*credentials)
        if user is None:
            return router.accounts.reject(session, credentials[0], b"HELLO")
        router.accounts.enter(session, user)
    if not session.authenticated:
        raise CommandError(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH "
            "<user> <pass> option can be used to authenticate the client and select the RESP protocol version at "
            "the same time"
        )
    if name is not None:
        session.name = name
    if version:
        session.dialect = version
    return {
        b"server": SERVER_NAME.encode(),
        b"version": SERVER_VERSION.encode(),
        b"proto": session.dialect,
        b"id": session.id,
        b"mode": b"standalone",
        b"role": b"master",
        b"modules": modules_of(router),
    }


@local("reset")
def reset(router: Router, session: Session) -> Reply:
    """The session as it was when it connected."""
    session.drop_queue()
    session.unsubscribe_all()
    session.end_tracking()
    session.db = 0
    session.dialect = 2
    session.name = b""
    session.no_touch = False
    session.no_evict = False
    session.reply_mode = REPLY_ON
    session.log_out()
    return "RESET"


@local("quit")
def quit_(router: Router, session: Session, *args: bytes) -> Reply:
    """OK, then the connection closes; replies before it are delivered, arguments ignored."""
    session.finish()
    return OK


@local("time")
def time(router: Router, session: Session) -> Reply:
    """Unix seconds and the microseconds within; the cluster's own clock has milliseconds."""
    seconds, milliseconds = divmod(router.clock.data_now(), 1000)
    return [b"%d" % seconds, b"%d" % (milliseconds * 1000)]


LOLWUT = """\
      .---.   .---.   .---.   .---.
      | 0 |   | 1 |   | 2 |   | 3 |
      '-+-'   '-+-'   '-+-'   '-+-'
        '---.---'-------'---.---'
            |     kache     |
            '-------+-------'
                    |
                  you

One door, a room for every core.
"""


@local("lolwut")
def lolwut(router: Router, session: Session, *args: bytes) -> Reply:
    """A small drawing of the house."""
    from kache import __version__
    from kache.replies import Verbatim

    return Verbatim(f"{LOLWUT}\nKache ver. {__version__}\n".encode())
