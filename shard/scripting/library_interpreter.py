"""The interpreter of a shard's libraries: what functions.py needs of an interpreter, and nothing else of it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .interpreter import Interpreter, OutOfMemory, Runner
from .lua import LuaError

if TYPE_CHECKING:
    from ..engine.engine import KeyElsewhere
    from .scripts import Run

__all__ = ["LibraryInterpreter"]

_NO_MEMORY = b"ERR not enough memory"


class LibraryInterpreter(Interpreter):
    """An interpreter that is asked for functions of libraries rather than for scripts."""

    @property
    def used(self) -> int:
        """Bytes that the libraries take."""
        return max(self.lua.used, 0)

    def elsewhere_of(self, run: Run) -> KeyElsewhere | None:
        """Why the function that was `run` last was ended to be run again; None: it was not."""
        found: KeyElsewhere | None = self.lua.elsewhere
        return found

    def load(self, runner: Runner, name: bytes, text: bytes) -> bytes | None:
        """Executes a library; what is wrong with it, or None. `runner.register` is asked for each function."""
        try:
            failure = self.load_library(runner, name, text)
        except OutOfMemory:
            return _NO_MEMORY
        return None if failure is None else failure.text

    def drop(self, name: bytes) -> bool:
        """It is not there any more."""
        self.drop_library(name)
        return True

    def lines_of(self, library: bytes, name: bytes) -> tuple[int, int]:
        """The first and the last line of a function."""
        try:
            return self.lines_of_function(library, name)
        except LuaError:
            # There was no memory to say so.
            return 1, 1

    def call(
        self, runner: Runner, library: bytes, name: bytes, resp: int, keys: tuple[bytes, ...], args: tuple[bytes, ...]
    ) -> tuple[int, Any]:
        """As `run`, for a function of a library."""
        return self.call_function(runner, library, name, resp, keys, args)
