"""The interpreter of a shard's libraries: what functions.py needs of an interpreter, and nothing else of it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .interpreter import ELEMENT, FAILED, MOST_PASSED, Failure, Interpreter, Runner

if TYPE_CHECKING:
    from ..engine.engine import KeyElsewhere
    from .scripts import Run

__all__ = ["LibraryInterpreter"]

_NO_MEMORY = b"ERR not enough memory"


class LibraryInterpreter(Interpreter):
    """An interpreter that is asked for functions of libraries rather than for scripts."""

    @property
    def used(self) -> int:
        """Bytes that it takes."""
        return int(self.lua.get_memory_used())

    def elsewhere_of(self, run: Run) -> KeyElsewhere | None:
        """Why a function was ended to be run again; None: it was not."""
        return run.elsewhere

    def load(self, runner: Runner, name: bytes, text: bytes) -> bytes | None:
        """Executes a library; what is wrong with it, or None. `runner.register` is asked for each function."""
        # A parser takes several times what it reads.
        if not self.has_room(8 * len(text)):
            return _NO_MEMORY
        kind, value = self._guarded(runner, self._functions[b"load_library"], name, text)
        if kind != FAILED:
            return None
        self._functions[b"end_loading"]()
        return value.text if isinstance(value, Failure) else bytes(value)

    def drop(self, name: bytes) -> bool:
        """It is not there any more; False where even that finds no room."""
        if not self.has_room(0):
            return False
        self._functions[b"drop_library"](name)
        return True

    def lines_of(self, library: bytes, name: bytes) -> tuple[int, int]:
        """The first and the last line of a function."""
        if not self.has_room(0):
            return 1, 1
        first, last = self._functions[b"lines_of"](library, name)
        return int(first), int(last)

    def call(
        self, runner: Runner, library: bytes, name: bytes, resp: int, keys: tuple[bytes, ...], args: tuple[bytes, ...]
    ) -> tuple[int, Any]:
        """As `run`, for a function of a library."""
        words = keys + args
        if not self.has_room(sum(map(len, words)) + ELEMENT * len(words)):
            return FAILED, Failure(_NO_MEMORY)
        if len(words) <= MOST_PASSED:
            return self._guarded(runner, self._functions[b"call_function"], library, name, resp, len(keys), *words)
        listed = self.lua.table_from(words)
        return self._guarded(runner, self._functions[b"call_function_listed"], library, name, resp, len(keys), listed)
