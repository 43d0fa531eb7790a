"""The libraries of functions and the loaded scripts of a cluster, as the supervisor keeps them: the same in every shard.

    FUNCTION LOAD at a router ─► one change after the other ─► every shard takes it in ─► it is on disk ─► OK
                                                                 │ one cannot: all go back to what was before

OK means that every shard goes by it, and so does one that is started later, whoever asked and by which router. Libraries are
kept in the data directory where there is one, as a payload of FUNCTION DUMP; scripts live as long as the cluster. The
supervisor runs no Lua: whether a text is a library, the shards say. Scripts that EVAL brings are the shards' own.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from kache.cluster import messages
from kache.cluster.acknowledgements import Acknowledgements
from kache.cluster.children import Child
from kache.cluster.messages import Library
from kache.libraries import MOST_BYTES, decode, encode, name_of

__all__ = ["Programs"]

SECONDS: Final = 4.0
"""How long shards may take, and for each library, which may run for half a second while it is loaded, so much more:"""
LIBRARY_SECONDS: Final = 0.5
BACK_SECONDS: Final = 1.0
"""How long it is waited for that they have gone back to what was before: one that does not answer has it next."""
MOST_SCRIPT_BYTES: Final = 64 * 1024 * 1024
"""Of the texts of all loaded scripts together."""

_log = logging.getLogger("kache")

Answer = Callable[[str], None]
"""Is told "" or the error for the client."""


class Programs:
    """`send` sends a child a message; `keep` has the libraries outlive the cluster, and raises OSError where it cannot."""

    def __init__(
        self,
        children: Sequence[Child],
        acknowledgements: Acknowledgements,
        send: Callable[[Child, messages.Down], None],
        keep: Callable[[bytes], None],
    ) -> None:
        self._children = children
        self._acknowledgements = acknowledgements
        self._send = send
        self._keep = keep
        self._libraries: dict[str, Library] = {}
        self._told: dict[str, Library] = {}
        """What shards go by while a change is under way."""
        self._scripts: dict[bytes, bytes] = {}
        self._script_bytes = 0
        self._serial = 0
        self._waiting: deque[tuple[Callable[[Answer], None], Answer]] = deque()
        self._busy = False

    # What there is ---------------------------------------------------------------------------------------
    def start(self, payload: bytes) -> None:
        """The libraries that were kept, if any: whoever has read them has seen that they are whole."""
        codes = decode(payload) if payload else []
        self._libraries = {(name := name_of(code)): Library(name, code, self._next()) for code in codes}
        self._told = self._libraries

    @property
    def libraries(self) -> list[Library]:
        """Those that a shard begins with."""
        return list(self._told.values())

    @property
    def scripts(self) -> list[bytes]:
        """The texts that a shard begins with."""
        return list(self._scripts.values())

    # Changes ---------------------------------------------------------------------------------------------
    def change(self, asked: messages.FunctionChange, answer: Answer) -> None:
        """FUNCTION LOAD, DELETE, FLUSH, RESTORE: all of it or nothing."""
        self._ask(functools.partial(self._change, asked), answer)

    def script(self, text: bytes | None, answer: Answer) -> None:
        """SCRIPT LOAD, or SCRIPT FLUSH without a text."""
        self._ask(self._flush_scripts if text is None else functools.partial(self._load_script, text), answer)

    def _ask(self, work: Callable[[Answer], None], answer: Answer) -> None:
        self._waiting.append((work, answer))
        self._go_on()

    def _go_on(self) -> None:
        while self._waiting and not self._busy:
            work, answer = self._waiting.popleft()
            self._busy = True
            work(functools.partial(self._end, answer))

    def _end(self, answer: Answer, error: str) -> None:
        self._busy = False
        answer(error)
        self._go_on()

    # Libraries -------------------------------------------------------------------------------------------
    def _next(self) -> int:
        self._serial += 1
        return self._serial

    def _change(self, asked: messages.FunctionChange, answer: Answer) -> None:
        wanted = {} if asked.what == "anew" else dict(self._libraries)
        if asked.what == "delete" and wanted.pop(asked.name, None) is None:
            answer("ERR Library not found")
            return
        for each in asked.libraries:
            if each.name in wanted and asked.what in ("load", "append"):
                name = f"'{each.name}'" if asked.what == "load" else each.name
                answer(f"ERR Library {name} already exists")
                return
            # A library that is loaded again begins anew, even if its text is the same.
            wanted[each.name] = Library(each.name, each.code, self._next())
        if sum(len(each.code) for each in wanted.values()) > MOST_BYTES:
            answer(f"ERR all libraries together may have {MOST_BYTES} bytes")
            return
        if wanted == self._libraries:
            answer("")
            return
        self._told = wanted
        self._tell(
            lambda number: messages.LibrariesAre(number, self.libraries, bool(asked.libraries)),
            functools.partial(self._told_all, answer),
            SECONDS + LIBRARY_SECONDS * len(asked.libraries),
        )

    def _told_all(self, answer: Answer, error: str) -> None:
        if not error:
            try:
                self._keep(encode(each.code for each in self._told.values()) if self._told else b"")
            except OSError as refused:
                error = f"ERR the libraries cannot be kept on disk: {refused.strerror}; nothing was changed"
        if not error:
            self._libraries = self._told
            answer("")
            return
        self._told = self._libraries
        self._tell(lambda number: messages.LibrariesAre(number, self.libraries), lambda _: answer(error), BACK_SECONDS)

    # Scripts ---------------------------------------------------------------------------------------------
    def _load_script(self, text: bytes, answer: Answer) -> None:
        sha = hashlib.sha1(text, usedforsecurity=False).digest()
        if sha in self._scripts:
            answer("")
            return
        if self._script_bytes + len(text) > MOST_SCRIPT_BYTES:
            answer(f"ERR all loaded scripts together may have {MOST_SCRIPT_BYTES} bytes; see SCRIPT FLUSH")
            return
        # One that is started meanwhile knows it, too.
        self._scripts[sha] = text
        self._script_bytes += len(text)

        def told(error: str) -> None:
            if error:
                del self._scripts[sha]
                self._script_bytes -= len(text)
            answer(error)

        self._tell(lambda number: messages.ScriptsAre(number, [text]), told)

    def _flush_scripts(self, answer: Answer) -> None:
        self._scripts.clear()
        self._script_bytes = 0
        self._tell(lambda number: messages.ScriptsAre(number, [], True), answer)

    # Telling ---------------------------------------------------------------------------------------------
    def _tell(self, message: Callable[[int], messages.Down], answer: Answer, seconds: float = SECONDS) -> None:
        """`answer` is told "" once every shard goes by it, else why one does not."""
        number = self._acknowledgements.next_id()
        told = {
            child.name: child for child in self._children if child.role == "shard" and child.conversation is not None
        }
        lives = {name: child.restarts for name, child in told.items()}
        errors: list[str] = []

        def done(_: str) -> None:
            ended = [
                name for name, child in told.items() if child.conversation is None or child.restarts != lives[name]
            ]
            if errors:
                answer(errors[0])
            elif ended:
                # It may have been this that ended it.
                answer(f"TRYAGAIN {ended[0]} ended meanwhile; nothing was changed")
            else:
                answer("")

        def late(names: set[str]) -> None:
            _log.warning("%s did not take in a change of functions or scripts in time", ", ".join(sorted(names)))
            answer(f"TRYAGAIN {min(names)} did not answer in time; nothing was changed")

        for child in told.values():
            self._send(child, message(number))
        self._acknowledgements.begin(number, told, time.monotonic(), done, seconds=seconds, late=late, errors=errors)
