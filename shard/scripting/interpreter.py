"""One Lua interpreter, and what it may do to the process around it: nothing.

lupa's Lua 5.2 (lua.pyx), dressed as 5.1 by sandbox.lua, which says what scripts see. Here is what of it is Python: the
libraries, the scripts and functions that are compiled, and what scripts ask that is no command.

Who runs a script is the `Runner` of the moment: it answers the script's calls. Nothing here knows the data.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import logging
import os
import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from .lua import Lua, LuaError, Reference

if TYPE_CHECKING:
    from ..engine.engine import Program

__all__ = ["ENCODED", "FAILED", "NOTHING", "TEXT", "Failure", "Interpreter", "OutOfMemory", "Runner"]

log = logging.getLogger("kache.shard")

NOTHING: Final = 0
TEXT: Final = 1
ENCODED: Final = 2
FAILED: Final = 3
"""Kinds of results: nothing, a byte string, a whole reply in the protocol asked for, an error."""

LIBRARIES: Final = ("bit", "struct", "cjson", "cmsgpack")

_OUT_OF_MEMORY: Final = b"not enough memory"


class OutOfMemory(Exception):
    """There is no room in the interpreter for what should be put into it."""


class Failure(NamedTuple):
    """What a script ended with."""

    text: bytes
    source: bytes = b""
    line: int = 0


class Runner(Protocol):
    """Answers what a running script asks."""

    @property
    def program(self) -> Program | None:
        """What executes its commands; None: `call` does."""

    def call(self, words: tuple[bytes, ...]) -> Any:
        """The reply of a command, as a Python value; CommandError."""

    def tick(self) -> bool:
        """Whether the script is to end now."""

    def set_resp(self, version: int) -> None:
        """The shapes of replies from here on."""

    def may(self, words: tuple[bytes, ...]) -> bool | None:
        """Whether the user may execute this; None when it is no command."""

    def register(self, name: bytes, description: bytes | None, flags: tuple[str, ...]) -> str:
        """A library registers a function; why it may not, or ""."""


class Interpreter:
    """An interpreter with the libraries of a real server, in which scripts may use `limit` bytes."""

    def __init__(self, limit: int, version: str) -> None:
        self.lua = lua = Lua()
        numbers = [int(part) for part in version.split(".")]
        native = (Lua.CALL, Lua.PCALL, Lua.IS_STOPPED, Lua.STOP, Lua.STARVE, Lua.LOOK, Lua.SET_RESP)
        functions = lua.execute(
            _source("sandbox.lua"),
            *[lua.native(number) for number in native],
            _sha1,
            _log,
            self._may,
            self._register,
            self._struct,
            int.from_bytes(os.urandom(4), "little"),
            version.encode(),
            numbers[0] << 16 | numbers[1] << 8 | numbers[2],
        )
        parts = [functions[name] for name in (b"tools", b"add", b"protected", b"on_struct", b"null", b"on_begin")]
        for name in LIBRARIES:
            lua.execute(_source(f"libraries/{name}.lua"), *parts)
        lua.take(functions[b"names"], functions[b"begin"], functions[b"fault_of"])
        self._compiled, self._compiled_library = functions[b"compiled"], functions[b"compiled_library"]
        self._begin_library, self._end_library = functions[b"begin_library"], functions[b"end_library"]
        self._lines_of = functions[b"lines_of"]
        self._scripts: dict[bytes, Reference] = {}
        self._libraries: dict[bytes, dict[bytes, Reference]] = {}
        self._registered: list[bytes] = []
        lua.collect()
        self.limit = 0
        self.set_limit(limit)

    def set_limit(self, limit: int) -> None:
        """Bytes that scripts and what they make may take, beside what the interpreter takes itself."""
        self.lua.set_limit(limit)
        self.limit = limit

    def close(self) -> None:
        """Gives its memory back; nothing runs in it any more."""
        self._scripts.clear()
        self._libraries.clear()
        self.lua.close()

    # Room ---------------------------------------------------------------------------------------------
    def has_room(self, size: int) -> bool:
        """Whether `size` bytes may be put into it; what is garbage goes, if need be."""
        if self.lua.used + size > self.limit:
            self.lua.collect()
        return self.lua.used + size <= self.limit

    @property
    def is_full(self) -> bool:
        """Whether more than half of it is in use by what is no garbage, while nothing runs."""
        if self.lua.used < self.limit // 2:
            return False
        self.lua.collect()
        return self.lua.used > self.limit // 2

    # Scripts ------------------------------------------------------------------------------------------
    def remember(self, sha: bytes, text: bytes, name: bytes = b"@user_script") -> bytes | None:
        """Compiles a script and keeps it under its name; what is wrong with it, or None. Raises OutOfMemory."""
        found = self._compile(self._compiled, text, name)
        if isinstance(found, bytes):
            return found
        self._scripts[sha] = found
        return None

    def _compile(self, function: Reference, *words: bytes) -> Reference | bytes:
        try:
            found = function(*words)
        except LuaError:
            raise OutOfMemory from None
        if isinstance(found, Reference):
            return found
        fault: bytes = found[1]
        if fault == _OUT_OF_MEMORY:
            raise OutOfMemory
        return fault

    def forget(self, sha: bytes) -> None:
        """A script is kept no longer."""
        self._scripts.pop(sha, None)

    def function_of(self, sha: bytes) -> Reference:
        """A script that is kept."""
        return self._scripts[sha]

    def run(
        self, runner: Runner, sha: bytes, resp: int, keys: tuple[bytes, ...], args: tuple[bytes, ...]
    ) -> tuple[int, Any]:
        """(kind, its bytes), or (FAILED, a Failure). `resp`: 2 or 3, for ENCODED."""
        return self._run(runner, self._scripts[sha], resp, keys, args, passed=False)

    def _run(
        self,
        runner: Runner,
        function: Reference,
        resp: int,
        keys: tuple[bytes, ...],
        args: tuple[bytes, ...],
        *,
        passed: bool,
    ) -> tuple[int, Any]:
        lua = self.lua
        before, lua.runner, lua.program = (lua.runner, lua.program), runner, runner.program
        try:
            kind, value = lua.run_words(function, keys, args, resp, passed=passed)
        finally:
            lua.runner, lua.program = before
        return (kind, Failure(*value)) if kind == FAILED else (kind, value)

    # Libraries of functions ---------------------------------------------------------------------------
    def load_library(self, runner: Runner, name: bytes, text: bytes) -> Failure | None:
        """Runs the text of a library, which registers its functions; why it cannot be, or None. Raises OutOfMemory."""
        body = self._compile(self._compiled_library, text)
        if isinstance(body, bytes):
            return Failure(b"ERR Error compiling function: " + body)
        self._registered = []
        self._begin_library()
        try:
            kind, value = self._run(runner, body, 2, (), (), passed=True)
        finally:
            found = self._end_library()
        if kind == FAILED:
            assert isinstance(value, Failure)
            return value
        self._libraries[name] = {each: found[each] for each in self._registered}
        return None

    def call_function(
        self,
        runner: Runner,
        library: bytes,
        name: bytes,
        resp: int,
        keys: tuple[bytes, ...],
        args: tuple[bytes, ...],
    ) -> tuple[int, Any]:
        """`run` for a function of a library, which gets keys and arguments as two tables."""
        return self._run(runner, self.function_of_library(library, name), resp, keys, args, passed=True)

    def function_of_library(self, library: bytes, name: bytes) -> Reference:
        """A function of a library that is kept."""
        return self._libraries[library][name]

    def lines_of_function(self, library: bytes, name: bytes) -> tuple[int, int]:
        """The first and the last line of a function."""
        first, last = self._lines_of(self.function_of_library(library, name))
        return int(first), int(last)

    def drop_library(self, name: bytes) -> None:
        """A library is kept no longer."""
        self._libraries.pop(name, None)

    # Callbacks ----------------------------------------------------------------------------------------
    def _may(self, lengths: bytes, joined: bytes) -> bool | None:
        runner: Runner | None = self.lua.runner
        assert runner is not None
        return runner.may(_split(lengths, joined))

    def _struct(self, what: bytes, form: bytes, value: Any) -> Any:
        """Floating point as bytes, and back."""
        if what == b"unpack":
            return struct.unpack(form.decode(), value)[0]
        if what == b"bits":
            return int.from_bytes(struct.pack(">d", value)[4:], "big")
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
        runner: Runner | None = self.lua.runner
        assert runner is not None
        words = tuple(flags.decode("latin-1").split())
        refused = runner.register(name, description if described else None, words)
        if not refused:
            self._registered.append(name)
        return refused.encode() or None


def _source(name: str) -> bytes:
    return (importlib.resources.files(__package__) / name).read_bytes()


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
