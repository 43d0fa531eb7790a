"""The libraries of functions of one shard, and a function that runs.

Libraries come from the supervisor (kache.cluster.programs), which has told all shards the same: `take` makes them those of
this shard, all of them or nothing. They have an interpreter of their own, beside that of scripts, made with the first
library, so that what scripts leave behind, and SCRIPT FLUSH, does not touch what a library remembers between calls. Where
functions have filled it, it is made anew, and libraries are executed again when they are called.

A function runs as a script does (scripts.py): one command of its client, through `Program`; it may be killed, may want keys
of other shards, may have keys lent to it (lent.py). The plain case of one that has run before is compiled (evaluate.pyx).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kache.acl.record import NOBODY
from kache.errors import CommandError
from kache.libraries import LibraryError, is_name
from kache.replies import Reply
from kache.wire.codec import decode_reply

from ..engine.engine import KeyElsewhere, Program, Raw
from .scripts import FLAGS, KILLED, RETURNED_CALL, SERVER_VERSION, Described, Run, Scripts, notice

if TYPE_CHECKING:
    from ..engine.engine import Context, Executor
    from .evaluate import Evaluator
    from .library_interpreter import LibraryInterpreter

__all__ = ["LOAD_SECONDS", "Function", "Functions"]

LOAD_SECONDS: Final = 0.5
"""How long a library may run while it is loaded."""
AGAIN_SECONDS: Final = 10.0
"""The same for one that was loaded before: it is known to come to an end."""
NOT_FOUND: Final = "ERR Function not found"
WRITES: Final = "ERR Can not execute a script with write flag using *_ro command."
NO_ROOM: Final = "OOM command not allowed when used memory > 'maxmemory'."
_OF_CALL: Final = b"@user_function"
FAILED: Final = 3


Wanted = tuple[str, bytes, int]
"""A library: its name, its text, the number by which its version is known."""


class Function(NamedTuple):
    """A function of a library, as it was registered."""

    name: bytes
    library: str
    description: bytes | None
    flags: tuple[str, ...]


class Library:
    """A library and its functions, by their names in lower case."""

    def __init__(self, name: str, code: bytes, serial: int) -> None:
        self.name = name
        self.code = code
        self.key = b"%d" % serial
        """Its name in the interpreter: two versions of it are there while one takes the other's place."""
        self.functions: dict[bytes, Function] = {}

    @property
    def text(self) -> bytes:
        """What is executed; the first line is empty, so that lines keep their numbers."""
        return b"\n" + self.code.partition(b"\n")[2]


class Functions:
    """The libraries of one shard; `scripts` has what a function needs beside them: the page, the rights, the memory."""

    def __init__(self, shard: Executor, scripts: Scripts) -> None:
        self.shard = shard
        self.scripts = scripts
        self.libraries: dict[str, Library] = {}
        self.by_name: dict[bytes, Function] = {}
        self._interpreter: LibraryInterpreter | None = None
        self._evaluator: Evaluator | None = None
        self._executed: set[bytes] = set()

    # Libraries ------------------------------------------------------------------------------------------
    def take(self, wanted: Iterable[Wanted], seconds: float = LOAD_SECONDS) -> None:
        """These are the libraries from here on. Raises LibraryError; then they are those of before."""
        before = set(self._executed)
        try:
            after = {each[0]: self._made(*each, seconds) for each in wanted}
            by_name: dict[bytes, Function] = {}
            for library in after.values():
                for key, function in library.functions.items():
                    if by_name.setdefault(key, function) is not function:
                        raise LibraryError(f"Function {function.name.decode()} already exists")
        except LibraryError:
            self._drop(self._executed - before)
            raise
        self.libraries, self.by_name = after, by_name
        if self._evaluator is not None:
            self._evaluator.forget()
        if after:
            self._drop(self._executed - {library.key for library in after.values()})
        else:
            self._renew()
        self.scripts.page.count(self.shard.index, len(after), len(by_name))

    def take_what_loads(self, wanted: Iterable[Wanted]) -> list[str]:
        """The same for a shard that is started: what does not load is left out. What is wrong with that."""
        faults = []
        found: list[Wanted] = []
        for each in wanted:
            try:
                self.take([*found, each], AGAIN_SECONDS)
                found.append(each)
            except LibraryError as error:
                faults.append(f"{each[0]}: {error}")
        return faults

    def _made(self, name: str, code: bytes, serial: int, seconds: float) -> Library:
        library = Library(name, code, serial)
        known = self.libraries.get(name)
        if known is not None and known.key == library.key:
            return known
        self._execute(library, seconds)
        return library

    def _execute(self, library: Library, seconds: float) -> None:
        """Has the interpreter know the library, and the library its functions. Raises LibraryError."""
        from .evaluate import Evaluator
        from .library_interpreter import LibraryInterpreter

        if self._interpreter is None:
            self._interpreter = LibraryInterpreter(self.scripts.memory_limit, SERVER_VERSION)
            self._evaluator = self.shard.function_runner = Evaluator(self, calls=True)
        loading = _Loading(library.name, time.monotonic() + seconds)
        fault = self._interpreter.load(loading, library.key, library.text)
        if loading.is_late:
            raise LibraryError("Error registering functions: ERR FUNCTION LOAD timeout")
        if fault is not None:
            text = fault.decode("utf-8", "surrogateescape").replace("near <eof>", "near '<eof>'")
            compiles = text.startswith("ERR Error compiling function")
            raise LibraryError(text[4:] if compiles else f"Error registering functions: {text}")
        self._executed.add(library.key)
        if not loading.functions:
            raise LibraryError("No functions registered")
        library.functions = loading.functions

    def _drop(self, keys: set[bytes]) -> None:
        for key in keys:
            self._executed.discard(key)
            if self._interpreter is not None and not self._interpreter.drop(key):
                self._renew()
                return

    def _renew(self) -> None:
        """Libraries are executed again when they are called."""
        if self._interpreter is not None:
            self._interpreter.close()
        if self._evaluator is not None:
            self._evaluator.forget()
        self._interpreter = self._evaluator = self.shard.function_runner = None
        self._executed.clear()

    def set_memory_limit(self, limit: int) -> None:
        """Bytes that functions may use, from here on."""
        if self._interpreter is not None and limit != self._interpreter.limit:
            self._interpreter.set_limit(limit)

    @property
    def memory(self) -> int:
        """Bytes in use by the interpreter."""
        return 0 if self._interpreter is None else self._interpreter.used

    @property
    def text_bytes(self) -> int:
        """Bytes of the texts of all libraries."""
        return sum(len(library.code) for library in self.libraries.values())

    # Running ------------------------------------------------------------------------------------------
    def answer(
        self, ctx: Context, name: bytes, keys: tuple[bytes, ...], args: tuple[bytes, ...], read_only: bool
    ) -> Reply:
        """The reply to a client's FCALL, or what its router is to do (see mux/scripts.pxi)."""
        alone = self.shard.owned is None
        tells = not alone and ctx.may_wait
        try:
            program = self.program(ctx, name, read_only=read_only, publishes=alone or tells)
            reply = self.run_program(ctx, program, name, keys, args, b"FCALL_RO" if read_only else b"FCALL")
            self._prepare(name)
        except KeyElsewhere as elsewhere:
            if not tells:
                raise
            return notice(b"again", [b"%d" % ctx.user_number, *elsewhere.keys])
        return self.scripts.told(reply, program, ctx)

    def _prepare(self, name: bytes) -> None:
        """It has run: from here on it runs without a handler, where it is called by the name that it was registered by."""
        function = self.find(name)
        library = self.libraries[function.library]
        if self._interpreter is not None and self._evaluator is not None and library.key in self._executed:
            made = self._interpreter.function_of_library(library.key, function.name)
            self._evaluator.prepare(function.name, function, made)

    @property
    def check(self) -> Callable[[int, Any, tuple[bytes, ...]], None] | None:
        """What is asked before each command of a function."""
        return self.scripts.check

    def run_of(self, program: Program, described: Described) -> Run:
        """What answers the functions that run as `program`."""
        return Run(self.scripts, program, described)

    def conclude(
        self, ctx: Context, run: Run, outcome: tuple[int, Any], name: bytes, function: Function, tells: bool
    ) -> Reply:
        """`answer` for a function that has run beside it, with more to say than what it returned."""
        self._hide(run)
        try:
            reply = self._ended(run, *outcome, ctx.dialect, function)
        except KeyElsewhere as wanted:
            if not tells:
                raise
            return notice(b"again", [b"%d" % ctx.user_number, *wanted.keys])
        return self.scripts.told(reply, run.program, ctx)

    def find(self, name: bytes) -> Function:
        """The function of that name, however it is spelled; CommandError for none."""
        function = self.by_name.get(name.lower())
        if function is None:
            raise CommandError(NOT_FOUND)
        return function

    def program(
        self,
        ctx: Context,
        name: bytes,
        *,
        read_only: bool = False,
        lent: set[bytes] | None = None,
        publishes: bool = True,
    ) -> Program:
        """What a function will run as. CommandError when there is none, or it may not be called so."""
        if ctx.user_number == NOBODY:
            raise CommandError("NOPERM it is not known which user runs the function")
        flags = self.find(name).flags
        writes = "no-writes" not in flags
        if read_only and writes:
            raise CommandError(WRITES)
        return Program(
            ctx,
            read_only=not writes,
            allows_oom="allow-oom" in flags,
            check=self.scripts.check,
            lent=lent,
            publishes=publishes,
        )

    def run_program(
        self,
        ctx: Context,
        program: Program,
        name: bytes,
        keys: tuple[bytes, ...],
        args: tuple[bytes, ...],
        command: bytes = b"FCALL",
    ) -> Reply:
        """The reply of the function, which FUNCTION STATS tells by that command. CommandError; KeyElsewhere, when nothing was done yet."""
        function = self.find(name)
        library = self.libraries[function.library]
        if library.key not in self._executed:
            try:
                self._execute(library, AGAIN_SECONDS)
            except LibraryError as error:
                raise CommandError(f"ERR {error}") from None
        interpreter = self._interpreter
        assert interpreter is not None
        dialect = ctx.dialect
        words = (command, name, b"%d" % len(keys), *keys, *args)
        run = Run(self.scripts, program, lambda: (function.name, words))
        before, self.scripts.running = self.scripts.running, run
        try:
            with program:
                if program.short_of_room:
                    raise CommandError(NO_ROOM)
                found = interpreter.call(run, library.key, function.name, 2 if dialect == 2 else 3, keys, args)
        finally:
            self.scripts.running = before
            self._hide(run)
        return self._ended(run, *found, dialect, function)

    def _hide(self, run: Run) -> None:
        """It runs no longer."""
        if run.is_shown:
            self.scripts.page.clear(self.shard.index)

    def _ended(self, run: Run, kind: int, value: Any, dialect: int, function: Function) -> Reply:
        """The reply of a function that has run. CommandError; KeyElsewhere."""
        interpreter = self._interpreter
        assert interpreter is not None
        library = self.libraries[function.library]
        if kind == FAILED:
            text, source, _ = value
            if not source and (run.killed or b"not enough memory" not in text):
                first, last = interpreter.lines_of(library.key, function.name)
                value = text, _OF_CALL, _line_of_call(library.text, first, last)
        elsewhere = interpreter.elsewhere_of(run)
        if interpreter.is_full:
            self._renew()
        if elsewhere is not None:
            raise elsewhere
        return self._reply(run, kind, value, dialect, function)

    def _reply(self, run: Run, kind: int, value: Any, dialect: int, function: Function) -> Reply:
        if kind == 0:
            return None
        if kind == 1:
            return value
        if kind == 2:
            return Raw(value) if dialect >= 2 else decode_reply(value)[0]
        raise CommandError(_failure(value, function, run.killed))


class _Loading:
    """A library while it is loaded: what the interpreter asks."""

    def __init__(self, library: str, until: float) -> None:
        self.library = library
        self.until = until
        self.is_late = False
        self.functions: dict[bytes, Function] = {}

    program = None

    def call(self, words: tuple[bytes, ...]) -> Reply:
        """No library executes commands."""
        raise CommandError("ERR no commands while a library is loaded")

    def tick(self) -> bool:
        """Whether it has taken too long."""
        self.is_late = self.is_late or time.monotonic() >= self.until
        return self.is_late

    def set_resp(self, version: int) -> None:
        """No reply comes."""

    def may(self, words: tuple[bytes, ...]) -> bool | None:
        """Nobody loads it on behalf of a user."""
        return None

    def register(self, name: bytes, description: bytes | None, flags: tuple[str, ...]) -> str:
        """redis.register_function: why it may not, or ""."""
        if not is_name(name):
            return (
                "ERR Library names can only contain letters, numbers, or underscores(_) and must be at least one "
                "character long"
            )
        if name.lower() in self.functions:
            return "ERR Function already exists in the library"
        if not FLAGS.issuperset(flags):
            return "ERR unknown flag given"
        self.functions[name.lower()] = Function(name, self.library, description, flags)
        return ""


def _line_of_call(text: bytes, first: int, last: int) -> int:
    """Where a function is left by `return redis.call(…)`, which leaves no trace of the line that it was on."""
    lines = text.split(b"\n")
    found = [at for at, line in enumerate(lines, 1) if RETURNED_CALL.search(line)]
    within = [at for at in found if first <= at <= last]
    return (within or found or [first])[-1]


def _failure(failure: Any, function: Function, killed: bool) -> str:
    """The text of an error as a real server words it."""
    text, source, line = failure
    shown = (KILLED if killed else text).decode("utf-8", "surrogateescape")
    where = f" script: {function.name.decode()}"
    if not source:
        return shown + where
    return f"{shown}{where}, on {source.decode('utf-8', 'backslashreplace')}:{line}."
