"""One Lua interpreter, and what it may do to the process around it: nothing.

lupa's Lua 5.2, dressed as 5.1 by sandbox.lua, which says what scripts see. Here is what keeps the process whole:

**Memory.** The interpreter may use `limit` bytes; Lua itself then raises "not enough memory" inside of the script. What Python
pushes is not protected by Lua, and would end the process: therefore nothing is pushed, no call made and no callback answered
unless `HEADROOM` is left behind it (`_has_room`); else the script ends with the same error.

**Time.** Every 100,000 instructions, and in every coroutine, Lua asks `_tick`; once that says so every instruction raises, so
that no pcall goes on.

**Objects.** Callbacks get strings and numbers, and answer them; none of them raises, and no script ever sees one.

Who runs a script is the `Runner` of the moment: it answers the script's calls. Nothing here knows the data.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import logging
import os
import struct
from typing import Any, Final, NamedTuple, Protocol

from lupa import lua52

__all__ = ["ENCODED", "FAILED", "HEADROOM", "NOTHING", "TEXT", "Failure", "Interpreter", "OutOfMemory", "Runner"]

log = logging.getLogger("kache.shard")

NOTHING: Final = 0
TEXT: Final = 1
ENCODED: Final = 2
FAILED: Final = 3
"""Kinds of results: nothing, a byte string, a whole reply in the protocol asked for, an error."""

HEADROOM: Final = 256 * 1024
"""Bytes that are free when Python puts something into the interpreter: more than lupa's own bookkeeping takes, and the
growth of a stack for the most arguments that are passed one by one."""
MOST_PASSED: Final = 200
"""Arguments passed one by one; more of them go as a list."""
ELEMENT: Final = 96
"""Bytes that an element of a table takes at most, while it grows."""
LIBRARIES: Final = ("bit", "struct", "cjson", "cmsgpack")

_OUT_OF_MEMORY: Final = "not enough memory"


class OutOfMemory(Exception):
    """There is no room in the interpreter for what should be put into it."""


class Failure(NamedTuple):
    """What a script ended with."""

    text: bytes
    source: bytes = b""
    line: int = 0


class Runner(Protocol):
    """Answers what a running script asks."""

    def call(self, words: tuple[bytes, ...]) -> tuple[int, Any]:
        """(0, a value) · (1, a status) · (2, an error) · (4, None): the script ends here."""

    def tick(self) -> bool:
        """Whether the script is to end now."""

    def set_resp(self, version: int) -> None:
        """The shapes of replies from here on."""

    def may(self, words: tuple[bytes, ...]) -> bool | None:
        """Whether the user may execute this; None when it is no command."""

    def register(self, name: bytes, description: bytes | None, flags: tuple[str, ...]) -> str:
        """A library registers a function; why it may not, or ""."""


class Interpreter:
    """An interpreter with the libraries of a real server, at most `limit` bytes large."""

    def __init__(self, limit: int, version: str) -> None:
        self.runner: Runner | None = None
        self.lua = lua52.LuaRuntime(
            encoding=None,
            unpack_returned_tuples=True,
            register_builtins=False,
            register_eval=False,
            attribute_filter=_no_attributes,
            max_memory=0,
        )
        numbers = [int(part) for part in version.split(".")]
        self._functions = self.lua.execute(
            _source("sandbox.lua"),
            self._call,
            self._call_many,
            self._tick,
            _sha1,
            _log,
            self._set_resp,
            self._may,
            self._register,
            self._struct,
            int.from_bytes(os.urandom(4), "little"),
            version.encode(),
            numbers[0] << 16 | numbers[1] << 8 | numbers[2],
        )
        self._run, self._run_listed = self._functions[b"run"], self._functions[b"run_listed"]
        self._remember, self._forget = self._functions[b"remember"], self._functions[b"forget"]
        self._watch = self._functions[b"watch"]
        parts = [self._functions[name] for name in (b"tools", b"add", b"protected", b"on_struct", b"null", b"on_begin")]
        for name in LIBRARIES:
            self.lua.execute(_source(f"libraries/{name}.lua"), *parts)
        self.limit = 0
        self.set_limit(limit)

    def set_limit(self, limit: int) -> None:
        """Bytes that scripts and what they make may take, beside what the interpreter takes itself."""
        self.lua.set_max_memory(limit + 2 * HEADROOM)
        self.limit = limit

    # Room ---------------------------------------------------------------------------------------------
    def has_room(self, size: int) -> bool:
        """Whether `size` bytes may be put into it; what is garbage goes, if need be."""
        most = self.limit + HEADROOM
        if self.lua.get_memory_used() + size <= most:
            return True
        self.lua.gccollect()
        # With nothing to spare the next call would have it collect again.
        return bool(self.lua.get_memory_used() + size <= most - self.limit // 32)

    def _require_room(self, size: int) -> None:
        if not self.has_room(size):
            raise OutOfMemory

    @property
    def is_full(self) -> bool:
        """Whether more than half of it is in use by what is no garbage, while nothing runs."""
        if self.lua.get_memory_used() < self.limit // 2:
            return False
        self.lua.gccollect()
        return bool(self.lua.get_memory_used() > self.limit // 2)

    # Scripts ------------------------------------------------------------------------------------------
    def remember(self, sha: bytes, text: bytes, name: bytes = b"@user_script") -> bytes | None:
        """Compiles a script and keeps it under its name; what is wrong with it, or None. Raises OutOfMemory."""
        # A parser takes several times what it reads.
        self._require_room(8 * len(text))
        try:
            fault: bytes | None = self._remember(sha, text, name)
        except lua52.LuaError:
            raise OutOfMemory from None
        if fault == b"not enough memory":
            raise OutOfMemory
        return fault

    def forget(self, sha: bytes | None = None) -> None:
        """A script, or every one of them, is kept no longer."""
        self._forget(sha)

    def run(
        self, runner: Runner, sha: bytes, resp: int, keys: tuple[bytes, ...], args: tuple[bytes, ...]
    ) -> tuple[int, Any]:
        """(kind, its bytes), or (FAILED, a Failure). `resp`: 2 or 3, for ENCODED."""
        words = keys + args
        size = sum(map(len, words)) + ELEMENT * len(words)
        if not self.has_room(size):
            return FAILED, Failure(b"ERR " + _OUT_OF_MEMORY.encode())
        if len(words) <= MOST_PASSED:
            return self._guarded(runner, self._run, sha, resp, len(keys), *words)
        return self._guarded(runner, self._run_listed, sha, resp, len(keys), self.lua.table_from(words))

    def _guarded(self, runner: Runner, function: Any, *args: Any) -> tuple[int, Any]:
        before, self.runner = self.runner, runner
        try:
            found = function(*args)
        except lua52.LuaError as error:
            # Only what ends a script from outside, or memory, comes as far as this.
            found = FAILED, b"ERR " + (str(error) or _OUT_OF_MEMORY).encode("latin-1", "replace")
        finally:
            self.runner = before
        if type(found) is int:
            return found, None
        kind = found[0]
        if kind != FAILED:
            return kind, found[1]
        self._watch()
        source, line = found[2:4] if len(found) > 3 else (b"", 0)
        return FAILED, Failure(found[1] or b"ERR", source or b"", line or 0)

    # Callbacks ----------------------------------------------------------------------------------------
    def _call(self, *args: Any) -> tuple[int, Any]:
        try:
            words = tuple([arg if type(arg) is bytes else b"%b" % (b"%.17g" % arg) for arg in args])
            return self._answer(words)
        except BaseException:
            log.exception("internal error in a call of a script")
            return 2, b"ERR internal error"

    def _call_many(self, lengths: bytes, joined: bytes) -> tuple[int, Any]:
        try:
            return self._answer(_split(lengths, joined))
        except BaseException:
            log.exception("internal error in a call of a script")
            return 2, b"ERR internal error"

    def _answer(self, words: tuple[bytes, ...]) -> tuple[int, Any]:
        assert self.runner is not None
        state, value = self.runner.call(words)
        kind = type(value)
        if kind is bytes:
            if self.lua.get_memory_used() + len(value) <= self.limit or self.has_room(len(value)):
                return state, value
            return 3, None
        if kind is int or kind is bool or value is None:
            return state, value
        if not self.has_room(_size_of(value)):
            return 3, None
        return state, self.lua.table_from(value, recursive=True)

    def _tick(self, stopped: bool) -> bool:
        try:
            return self.runner is not None and (stopped or self.runner.tick())
        except BaseException:
            log.exception("internal error while a script was looked at")
            return True

    def _set_resp(self, version: Any) -> None:
        assert self.runner is not None
        self.runner.set_resp(int(version))

    def _may(self, lengths: bytes, joined: bytes) -> bool | None:
        try:
            assert self.runner is not None
            return self.runner.may(_split(lengths, joined))
        except BaseException:
            log.exception("internal error in a question of a script")
            return None

    def _struct(self, what: bytes, form: bytes, value: Any) -> Any:
        """Floating point as bytes, and back."""
        if what == b"unpack":
            return struct.unpack(form.decode(), value)[0]
        if what == b"bits":
            return int.from_bytes(struct.pack(">d", value)[4:], "big")
        if not self.has_room(ELEMENT + 200):
            return None
        if what == b"format":
            # %x and its like of a negative number, which Lua 5.2 refuses.
            return form % (int(value) & 0xFFFFFFFFFFFFFFFF)
        try:
            if what == b"pack":
                return struct.pack(form.decode(), value)
            single = struct.pack(">f", value)
            if struct.unpack(">f", single)[0] == value:
                return b"\xca" + single
        except OverflowError:
            if what == b"pack":
                return struct.pack(form.decode(), float("inf") if value > 0 else float("-inf"))
        return b"\xcb" + struct.pack(">d", value)

    def _register(self, name: bytes, description: bytes, described: bool, flags: bytes) -> bytes | None:
        try:
            assert self.runner is not None
            words = tuple(flags.decode("latin-1").split())
            return self.runner.register(name, description if described else None, words).encode() or None
        except BaseException:
            log.exception("internal error while a function was registered")
            return b"ERR internal error"


def _source(name: str) -> bytes:
    return (importlib.resources.files(__package__) / name).read_bytes()


def _no_attributes(_obj: object, name: object, _setting: bool) -> str:
    raise AttributeError(name)


def _sha1(text: bytes) -> bytes:
    return hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()


def _log(level: float, text: bytes) -> None:
    number = (logging.DEBUG, logging.DEBUG, logging.INFO, logging.WARNING)[int(level)]
    log.log(number, "a script says: %s", text.decode("utf-8", "backslashreplace"))


def _split(lengths: bytes, joined: bytes) -> tuple[bytes, ...]:
    words = []
    at = 0
    for length in lengths.split(b","):
        words.append(joined[at : at + int(length)])
        at += int(length)
    return tuple(words)


def _size_of(value: Any) -> int:
    """What a nested value takes in the interpreter, at most."""
    if isinstance(value, dict):
        return sum(_size_of(key) + _size_of(each) for key, each in value.items()) + ELEMENT
    if isinstance(value, list):
        return sum(map(_size_of, value)) + ELEMENT
    return ELEMENT + (len(value) if type(value) is bytes else 0)
