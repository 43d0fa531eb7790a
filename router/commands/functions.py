"""FUNCTION: libraries are changed through the supervisor, which owns them; what is asked is answered from a shard's copy.

OK to LOAD, DELETE, FLUSH and RESTORE means that every shard goes by the change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from kache.cluster.messages import FunctionChange, Library
from kache.errors import CommandError
from kache.glob import compile_glob
from kache.libraries import MOST_BYTES, LibraryError, decode, encode, name_of
from kache.replies import OK, Reply, SetReply

from ..registry import local
from .arguments import text
from .scripting import ask_supervisor, end_running, refuse_while_busy

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__: list[str] = []

ENGINE = b"LUA"
POLICIES = {b"APPEND": "append", b"REPLACE": "overwrite", b"FLUSH": "anew"}


class _Listed(NamedTuple):
    """A library as a shard tells it."""

    name: bytes
    code: bytes | None
    functions: list[list[Any]]


# Changes ------------------------------------------------------------------------------------------------------------
@local("function|load")
async def load(router: Router, session: Session, *words: bytes) -> Reply:
    """The name of the library."""
    *options, code = words
    for option in options:
        if option.upper() != b"REPLACE":
            raise CommandError(f"ERR Unknown option given: {text(option)}")
    name = _named(code)
    await _change(router, FunctionChange(0, "replace" if options else "load", [Library(name, code)]))
    return name.encode()


@local("function|delete")
async def delete(router: Router, session: Session, name: bytes) -> Reply:
    """OK once no shard has the library."""
    await _change(router, FunctionChange(0, "delete", name=name.decode("utf-8", "replace")))
    return OK


@local("function|flush")
async def flush(router: Router, session: Session, *options: bytes) -> Reply:
    """OK once no shard has any."""
    if len(options) > 1:
        raise _wrong("FLUSH")
    if options and options[0].upper() not in (b"SYNC", b"ASYNC"):
        raise CommandError("ERR FUNCTION FLUSH only supports SYNC|ASYNC option")
    await _change(router, FunctionChange(0, "anew"))
    return OK


@local("function|restore")
async def restore(router: Router, session: Session, payload: bytes, *policy: bytes) -> Reply:
    """OK once every shard has the libraries of the payload."""
    if len(policy) > 1:
        raise _wrong("RESTORE")
    what = POLICIES.get(policy[0].upper() if policy else b"APPEND")
    if what is None:
        raise CommandError("ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.")
    if len(payload) > MOST_BYTES:
        raise CommandError(f"ERR all libraries together may have {MOST_BYTES} bytes")
    try:
        codes = decode(payload)
    except LibraryError as error:
        raise CommandError(f"ERR {error}") from None
    libraries = {_named(code): code for code in codes}
    await _change(router, FunctionChange(0, what, [Library(name, code) for name, code in libraries.items()]))
    return OK


async def _change(router: Router, change: FunctionChange) -> None:
    refuse_while_busy(router)
    await ask_supervisor(router, change)


def _named(code: bytes) -> str:
    if len(code) > MOST_BYTES:
        raise CommandError(f"ERR all libraries together may have {MOST_BYTES} bytes")
    try:
        return name_of(code)
    except LibraryError as error:
        raise CommandError(f"ERR {error}") from None


def _wrong(subcommand: str) -> CommandError:
    return CommandError(f"ERR unknown subcommand or wrong number of arguments for '{subcommand}'. Try FUNCTION HELP.")


# What there is ------------------------------------------------------------------------------------------------------
async def _libraries(router: Router, session: Session, codes: bool) -> list[_Listed]:
    """As any shard that is up tells them."""
    refuse_while_busy(router)
    up = [link.index for link in router.links if link.state == "up"]
    shard = up[0] if up else 0
    found = await router.call(shard, "_functions", [b"codes"] if codes else [], session=session)
    return [_Listed(*each) for each in found]


@local("function|list")
async def list_(router: Router, session: Session, *options: bytes) -> Reply:
    """A map of each library, its functions as maps."""
    wanted: Callable[[bytes], bool] | None = None
    codes = False
    words = list(options)
    while words:
        word = words.pop(0)
        if word.upper() == b"WITHCODE" and not codes:
            codes = True
        elif word.upper() == b"LIBRARYNAME" and wanted is None:
            if not words:
                raise CommandError("ERR library name argument was not given")
            wanted = compile_glob(words.pop(0).lower())
        else:
            raise CommandError(f"ERR Unknown argument {text(word)}")
    return [
        _described(library)
        for library in await _libraries(router, session, codes)
        if wanted is None or wanted(library.name.lower())
    ]


def _described(library: _Listed) -> Reply:
    functions = [
        {b"name": name, b"description": description, b"flags": SetReply([flag.decode() for flag in flags])}
        for name, description, flags in library.functions
    ]
    found: dict[bytes, Reply] = {b"library_name": library.name, b"engine": ENGINE, b"functions": functions}
    if library.code is not None:
        found[b"library_code"] = library.code
    return found


@local("function|dump")
async def dump(router: Router, session: Session) -> Reply:
    """All libraries as one payload."""
    libraries = await _libraries(router, session, True)
    return encode(library.code for library in libraries if library.code is not None)


@local("function|stats")
def stats(router: Router, session: Session) -> Reply:
    """What runs, and how many there are."""
    page = router.running
    threshold = router.config.busy_reply_threshold
    running: Reply = None
    longest = -1
    counts = (0, 0)
    for shard in range(router.shard_count):
        counts = max(counts, page.counts(shard))
        ran, what = page.runs_for(shard), page.described(shard)
        if what is not None and ran > longest:
            longest = ran
            running = {b"name": what[0], b"command": what[1], b"duration_ms": ran}
        elif ran >= threshold > 0 and not page.is_function(shard) and router.shard_count == 1:
            refuse_while_busy(router)
    libraries, functions = counts
    engine = {b"libraries_count": libraries, b"functions_count": functions}
    return {b"running_script": running, b"engines": {ENGINE: engine}}


@local("function|kill")
def kill(router: Router, session: Session) -> Reply:
    """OK when a function was running that has not written."""
    return end_running(router, functions=True)
