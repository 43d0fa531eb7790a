"""CLIENT TRACKING and what belongs to it: who is told when what it has read changes. Telling is compiled (mux/tracking.pxi)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from kache.errors import SYNTAX, CommandError
from kache.replies import OK, Reply, SetReply

from ..peers import alone, answers, ask, router_of
from ..registry import local
from .arguments import integer, text

if TYPE_CHECKING:
    import asyncio

    from ..mux.multiplexer import Router, Session

__all__ = ["tell_elsewhere"]

BCAST: Final = 1
NOLOOP: Final = 2
OPTIN: Final = 4
OPTOUT: Final = 8
MODES: Final = {b"bcast": BCAST, b"noloop": NOLOOP, b"optin": OPTIN, b"optout": OPTOUT}

OTHER_BCAST: Final = (
    "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with "
    "a different mode."
)
OTHER_OPTS: Final = (
    "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling it with "
    "a different mode."
)


@local("client|tracking")
async def client_tracking(router: Router, session: Session, *args: bytes) -> Reply:
    """ON with its modes, or OFF."""
    redirect, modes, prefixes = await _options(router, session, args[1:])
    switch = args[0].lower()
    if switch == b"on":
        prefixes = _check(session, redirect, modes, prefixes)
        await session.track(redirect, modes, prefixes)
    elif switch == b"off":
        session.end_tracking()
    else:
        raise CommandError(SYNTAX)
    return OK


async def _options(router: Router, session: Session, words: Sequence[bytes]) -> tuple[int, int, tuple[bytes, ...]]:
    redirect, modes, at = 0, 0, 0
    prefixes: list[bytes] = []
    while at < len(words):
        word = words[at].lower()
        more = at + 1 < len(words)
        if word == b"redirect" and more:
            if redirect:
                raise CommandError("ERR A client can only redirect to a single other client")
            redirect = integer(words[at + 1])
            if not await _exists(router, redirect):
                raise CommandError("ERR The client ID you want redirect to does not exist")
            at += 1
        elif word == b"prefix" and more:
            prefixes.append(words[at + 1])
            at += 1
        elif word in MODES:
            modes |= MODES[word]
        else:
            raise CommandError(SYNTAX)
        at += 1
    return redirect, modes, tuple(prefixes)


async def _exists(router: Router, number: int) -> bool:
    if router.session_by_id(number) is not None:
        return True
    if number < 0 or alone(router) or router_of(number) == router.index:
        return False
    return any(word == b"1" for word in (await ask(router, "client", b"%d" % number)).values())


@answers("client")
def _exists_here(router: Router, words: Sequence[bytes]) -> bytes:
    return b"%d" % (router.session_by_id(int(words[0])) is not None)


def _check(session: Session, redirect: int, modes: int, prefixes: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Whether the modes go together, and with those that hold; all prefixes from here on."""
    before = session.tracks
    if prefixes and not modes & BCAST:
        raise CommandError("ERR PREFIX option requires BCAST mode to be enabled")
    if before is not None and bool(before.modes & BCAST) != bool(modes & BCAST):
        raise CommandError(OTHER_BCAST)
    if modes & BCAST and modes & (OPTIN | OPTOUT):
        raise CommandError("ERR OPTIN and OPTOUT are not compatible with BCAST")
    if modes & OPTIN and modes & OPTOUT:
        raise CommandError("ERR You can't specify both OPTIN mode and OPTOUT mode")
    if before is not None and ((modes & OPTIN and before.modes & OPTOUT) or (modes & OPTOUT and before.modes & OPTIN)):
        raise CommandError(OTHER_OPTS)
    if not modes & BCAST:
        return ()
    if not all(session.rights.may_read_under(prefix) for prefix in prefixes or (b"",)):
        # What it is told are names of keys.
        raise CommandError("NOPERM this user has no permissions to access one of the keys used as arguments")
    kept = () if before is None else before.prefixes
    _check_overlap(kept, prefixes)
    return (*kept, *(prefix for prefix in prefixes if prefix not in kept))


def _check_overlap(kept: Sequence[bytes], prefixes: Sequence[bytes]) -> None:
    """Raises CommandError if a key could have two prefixes of one client."""
    for at, prefix in enumerate(prefixes):
        for other in kept:
            if prefix.startswith(other) or other.startswith(prefix):
                raise CommandError(
                    f"ERR Prefix '{text(prefix)}' overlaps with an existing prefix '{text(other)}'. "
                    "Prefixes for a single client must not overlap."
                )
        for other in prefixes[at + 1 :]:
            if prefix.startswith(other) or other.startswith(prefix):
                raise CommandError(
                    f"ERR Prefix '{text(prefix)}' overlaps with another provided prefix '{text(other)}'. "
                    "Prefixes for a single client must not overlap."
                )


@local("client|caching")
def client_caching(router: Router, session: Session, mode: bytes) -> Reply:
    """Of what the next command reads."""
    tracks = session.tracks
    if tracks is None or not tracks.modes & (OPTIN | OPTOUT):
        raise CommandError(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled"
        )
    wanted = mode.lower()
    if wanted not in (b"yes", b"no"):
        raise CommandError(SYNTAX)
    if wanted == b"yes" and not tracks.modes & OPTIN:
        raise CommandError("ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.")
    if wanted == b"no" and not tracks.modes & OPTOUT:
        raise CommandError("ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.")
    session.say_caching(wanted == b"yes")
    return OK


@local("client|trackinginfo")
def client_trackinginfo(router: Router, session: Session) -> Reply:
    """Modes, whom its news goes to, prefixes."""
    tracks = session.tracks
    if tracks is None:
        return {b"flags": SetReply([b"off"]), b"redirect": -1, b"prefixes": []}
    flags = [b"on"]
    flags += [name for name in (b"bcast", b"optin", b"optout") if tracks.modes & MODES[name]]
    if tracks.caching >= 0:
        flags.append(b"caching-yes" if tracks.caching else b"caching-no")
    if tracks.modes & NOLOOP:
        flags.append(b"noloop")
    if tracks.broken:
        flags.append(b"broken_redirect")
    return {b"flags": SetReply(flags), b"redirect": tracks.redirect, b"prefixes": sorted(tracks.prefixes)}


@local("client|getredir")
def client_getredir(router: Router, session: Session) -> Reply:
    """The connection that is told for this one; 0: itself, -1: it does not track."""
    return -1 if session.tracks is None else session.tracks.redirect


_telling: set[asyncio.Task[dict[int, bytes]]] = set()


def tell_elsewhere(router: Router, number: int) -> None:
    """A client of another router, to which one here has its news sent, is told that everything may have changed."""
    task = router.loop.create_task(ask(router, "all-changed", b"%d" % number))
    _telling.add(task)
    task.add_done_callback(_told)


def _told(task: asyncio.Task[dict[int, bytes]]) -> None:
    _telling.discard(task)
    if not task.cancelled():
        task.exception()  # without its router the client is gone, too


@answers("all-changed")
def _all_changed(router: Router, words: Sequence[bytes]) -> bytes:
    router.tell_all_changed(int(words[0]))
    return b""
