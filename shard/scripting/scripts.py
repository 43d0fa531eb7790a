"""The scripts that one shard knows, and the one that runs.

A script is known by the SHA1 digest of its text: from SCRIPT LOAD until SCRIPT FLUSH, or from EVAL for as long as it is
among the `MOST_EVALUATED` that were used last. The interpreter is made with the first script, and made anew when what
scripts have left in it does not go away.

A script is one command of its client; what it does goes by `Program`. It ends early when somebody kills it, when it wants a
key of another shard before it has changed anything (then `run_program` raises KeyElsewhere), or when its memory is used up.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kache.acl.record import NOBODY
from kache.cluster.running import Running
from kache.errors import CommandError
from kache.replies import Reply
from kache.wire.codec import decode_reply, encode_reply

from ..engine.engine import KeyElsewhere, Program, Raw

if TYPE_CHECKING:
    from ..engine.engine import Context, Executor
    from .evaluate import Evaluator
    from .interpreter import Interpreter

__all__ = [
    "FLAGS",
    "KILLED",
    "NO_SCRIPT",
    "RETURNED_CALL",
    "SERVER_VERSION",
    "Described",
    "Run",
    "Script",
    "Scripts",
    "encoded",
    "notice",
    "sha_of",
]

NO_SCRIPT: Final = "NOSCRIPT No matching script. Please use EVAL."
KILLED: Final = b"ERR Script killed by user with SCRIPT KILL..."
"""As redis-server 7.0.15 words it, for functions, too."""
OUT_OF_MEMORY: Final = "OOM the script needs more memory than lua-memory-limit allows"
MOST_EVALUATED: Final = 500
"""Scripts that nobody has loaded: those whose texts are made for each call would otherwise fill the shard."""
FLAGS: Final = frozenset({"no-writes", "allow-oom", "allow-stale", "no-cluster", "allow-cross-slot-keys"})
SERVER_VERSION: Final = "7.4.2"
"""What scripts read as redis.REDIS_VERSION: the version whose commands there are."""
INTERNAL: Final = 1
BINARY: Final = 0
RESP3: Final = 3

Described = Callable[[], tuple[bytes, Sequence[bytes]]]
"""(its name, the words of its command) of a function that runs."""

RETURNED_CALL: Final = re.compile(rb"return\s+(?:redis|server)\s*\.\s*p?call\b")


class Script(NamedTuple):
    """A script as it came, and what its first line says of it."""

    text: bytes
    flags: frozenset[str]


def sha_of(text: bytes) -> bytes:
    """The name of a script."""
    return hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()


def flags_of(text: bytes) -> frozenset[str]:
    """What ``#!lua flags=…`` says. CommandError for what it must not say."""
    if not text.startswith(b"#!"):
        return frozenset({"compatible"})
    line = text.partition(b"\n")[0].rstrip(b"\r")
    engine, *options = line.split()
    if engine != b"#!lua":
        raise CommandError(f"ERR Unexpected engine in script shebang: {engine.decode('utf-8', 'backslashreplace')}")
    found: set[str] = set()
    for option in options:
        name, _, value = option.decode("utf-8", "backslashreplace").partition("=")
        if name != "flags":
            raise CommandError(f"ERR Unknown lua shebang option: {option.decode('utf-8', 'backslashreplace')}")
        found.update(value.split(",") if value else ())
    unknown = sorted(found - FLAGS)
    if unknown:
        raise CommandError(f"ERR Unexpected flag in script shebang: {unknown[0]}")
    return frozenset(found)


class Scripts:
    """The scripts of one shard."""

    def __init__(self, shard: Executor) -> None:
        self.shard = shard
        self.loaded: dict[bytes, Script] = {}
        self.evaluated: OrderedDict[bytes, Script] = OrderedDict()
        self.memory_limit = 64 << 20
        self.page = Running()
        """Where routers see that a script runs, and have it killed."""
        self.check: Callable[[int, Any, tuple[bytes, ...]], None] | None = None
        """What is asked before each command of a script (the user's number, the command's row, its arguments)."""
        self.running: Run | None = None
        self._interpreter: Interpreter | None = None
        self._evaluator: Evaluator | None = None
        self._compiled: set[bytes] = set()

    # Knowing ------------------------------------------------------------------------------------------
    def find(self, sha: bytes) -> Script | None:
        """The script of that name."""
        found = self.loaded.get(sha)
        if found is None:
            found = self.evaluated.get(sha)
            if found is not None:
                self.evaluated.move_to_end(sha)
        return found

    def load(self, text: bytes) -> bytes:
        """SCRIPT LOAD: the name of the script. CommandError when it cannot be compiled."""
        sha = sha_of(text)
        if sha not in self.loaded:
            known = self.evaluated.pop(sha, None)
            if self._evaluator is not None:
                self._evaluator.forget(sha)
            self.loaded[sha] = known or self._new(sha, text)
        return sha

    def evaluate(self, text: bytes) -> bytes:
        """EVAL: the name of the script, which is known from here on. CommandError when it cannot be compiled."""
        sha = sha_of(text)
        if self.find(sha) is None:
            self.evaluated[sha] = self._new(sha, text)
            if len(self.evaluated) > MOST_EVALUATED:
                self._forget(self.evaluated.popitem(last=False)[0])
        return sha

    def _new(self, sha: bytes, text: bytes) -> Script:
        script = Script(text, flags_of(text))
        self._compile(sha, script)
        return script

    def _forget(self, sha: bytes) -> None:
        self._compiled.discard(sha)
        if self._evaluator is not None:
            self._evaluator.forget(sha)
        if self._interpreter is not None:
            self._interpreter.forget(sha)

    def begin_with(self, texts: Iterable[bytes]) -> None:
        """What was loaded before this shard was started: compiled when it is run first."""
        for text in texts:
            self.loaded[sha_of(text)] = Script(text, flags_of(text))

    def flush(self) -> None:
        """SCRIPT FLUSH."""
        self.loaded.clear()
        self.evaluated.clear()
        self._renew()

    # The interpreter ----------------------------------------------------------------------------------
    @property
    def interpreter(self) -> Interpreter:
        """Made when it is needed first."""
        if self._interpreter is None:
            from .evaluate import Evaluator
            from .interpreter import Interpreter

            self._interpreter = Interpreter(self.memory_limit, SERVER_VERSION)
            self._evaluator = Evaluator(self, touch=self.evaluated.move_to_end)
            self.shard.script_runner = self._evaluator
        return self._interpreter

    def set_memory_limit(self, limit: int) -> None:
        """Bytes that scripts may use, from here on."""
        if limit != self.memory_limit:
            self.memory_limit = limit
            if self._interpreter is not None:
                self._interpreter.set_limit(limit)

    @property
    def memory(self) -> int:
        """Bytes in use by the interpreter."""
        return 0 if self._interpreter is None else self._interpreter.lua.base + self._interpreter.lua.used

    def __len__(self) -> int:
        return len(self.loaded) + len(self.evaluated)

    @property
    def text_bytes(self) -> int:
        """Bytes of the texts of all scripts that are known."""
        return sum(len(known.text) for known in (*self.loaded.values(), *self.evaluated.values()))

    def _renew(self) -> None:
        """The next script finds an empty interpreter."""
        if self.running is None and self._interpreter is not None:
            self._interpreter.close()
            self._interpreter = self._evaluator = self.shard.script_runner = None
            self._compiled.clear()

    def _compile(self, sha: bytes, script: Script) -> None:
        from .interpreter import OutOfMemory

        if sha in self._compiled:
            return
        text = script.text
        if text.startswith(b"#!"):
            text = b"\n" + text.partition(b"\n")[2]
        try:
            fault = self.interpreter.remember(sha, text)
        except OutOfMemory:
            raise CommandError(OUT_OF_MEMORY) from None
        if fault is not None:
            raise CommandError(
                f"ERR Error compiling script (new function): {fault.decode('utf-8', 'backslashreplace')}"
            )
        self._compiled.add(sha)

    # Running ------------------------------------------------------------------------------------------
    def answer(
        self, ctx: Context, sha: bytes, keys: tuple[bytes, ...], args: tuple[bytes, ...], read_only: bool
    ) -> Reply:
        """The reply to a client's EVAL, or what its router is to do (see mux/scripts.pxi)."""
        alone = self.shard.owned is None
        tells = not alone and ctx.may_wait
        try:
            program = self.program(ctx, sha, read_only=read_only, publishes=alone or tells)
            reply = self.run_program(ctx, program, sha, keys, args)
            self._prepare(sha)
        except KeyElsewhere as elsewhere:
            if not tells:
                raise
            return notice(b"again", [b"%d" % ctx.user_number, *elsewhere.keys])
        return self.told(reply, program, ctx)

    def told(self, reply: Reply, program: Program, ctx: Context) -> Reply:
        """With what the router is to publish."""
        if not program.published:
            return reply
        return notice(b"publish", program.published, encoded(reply, ctx.dialect))

    def _prepare(self, sha: bytes) -> None:
        """It has run: from here on it runs without a handler."""
        script = self.find(sha)
        if script is not None and self._evaluator is not None and sha in self._compiled:
            function = self.interpreter.function_of(sha)
            self._evaluator.prepare(sha, script, function, evaluated=sha not in self.loaded)

    def program(
        self,
        ctx: Context,
        sha: bytes,
        *,
        read_only: bool = False,
        lent: set[bytes] | None = None,
        publishes: bool = True,
    ) -> Program:
        """What a script that is known will run as. CommandError when it is not, or nobody is said to run it."""
        if ctx.user_number == NOBODY:
            raise CommandError("NOPERM it is not known which user runs the script")
        script = self.find(sha)
        if script is None:
            raise CommandError(NO_SCRIPT)
        self._compile(sha, script)
        return Program(
            ctx,
            read_only=read_only or "no-writes" in script.flags,
            allows_oom="allow-oom" in script.flags,
            check=self.check,
            lent=lent,
            publishes=publishes,
        )

    def run_program(
        self, ctx: Context, program: Program, sha: bytes, keys: tuple[bytes, ...], args: tuple[bytes, ...]
    ) -> Reply:
        """The reply of the script `sha`. CommandError; KeyElsewhere, when nothing was done yet."""
        script = self.find(sha)
        assert script is not None
        dialect = ctx.dialect
        run = Run(self, program)
        before, self.running = self.running, run
        try:
            with program:
                kind, value = self.interpreter.run(run, sha, 2 if dialect == 2 else 3, keys, args)
        finally:
            self.running = before
        elsewhere = self.interpreter.lua.elsewhere
        self._look_after(run)
        return self._reply(run, elsewhere, kind, value, dialect, sha, script)

    def _look_after(self, run: Run) -> None:
        """A script has ended."""
        if run.is_shown:
            self.page.clear(self.shard.index)
        if self.interpreter.is_full:
            self._renew()

    def run_of(self, program: Program, described: Described) -> Run:
        """What answers the scripts that run as `program`; routers are not told which."""
        return Run(self, program)

    def conclude(
        self, ctx: Context, run: Run, outcome: tuple[int, Any], sha: bytes, script: Script, tells: bool
    ) -> Reply:
        """`answer` for a script that has run beside it, with more to say than what it returned."""
        kind, value = outcome
        elsewhere = self.interpreter.lua.elsewhere
        self._look_after(run)
        try:
            reply = self._reply(run, elsewhere, kind, value, ctx.dialect, sha, script)
        except KeyElsewhere as wanted:
            if not tells:
                raise
            return notice(b"again", [b"%d" % ctx.user_number, *wanted.keys])
        return self.told(reply, run.program, ctx)

    def _reply(
        self,
        run: Run,
        elsewhere: KeyElsewhere | None,
        kind: int,
        value: Any,
        dialect: int,
        sha: bytes,
        script: Script,
    ) -> Reply:
        if elsewhere is not None:
            raise elsewhere
        if kind == 0:
            return None
        if kind == 1:
            return value
        if kind == 2:
            return Raw(value) if dialect >= 2 else decode_reply(value)[0]
        text, source, line = value
        raise CommandError(_failure((KILLED if run.killed else text, source, line), sha, script))


class Run:
    """One script, or a function that is `described`, while it runs: what the interpreter asks."""

    def __init__(self, scripts: Scripts, program: Program, described: Described | None = None) -> None:
        self.scripts = scripts
        self.program = program
        self.described = described
        self.killed = self.is_shown = False

    def call(self, words: tuple[bytes, ...]) -> Reply:
        """A command of the script; see `Runner`."""
        return self.program.call(*words)

    def tick(self) -> bool:
        """Whether it is to end. It has been running for a while: routers may know."""
        if self.killed:
            return True
        page, shard = self.scripts.page, self.scripts.shard.index
        if not self.is_shown:
            self.is_shown = True
            page.show(shard, self.described and self.described(), self.program.wrote)
            self.program.before_writing = self.show_written
        if not self.program.wrote and page.is_killed(shard):
            self.killed = True
        return self.killed

    def show_written(self) -> None:
        """It is about to write for the first time, and routers know that it runs: CommandError if one has said that it is
        killed. One that says so from here on sees that it was too late."""
        page, shard = self.scripts.page, self.scripts.shard.index
        page.show_written(shard)
        if self.killed or page.is_killed(shard):
            self.killed = True
            page.show_written(shard, False)
            raise CommandError(KILLED.decode())

    def set_resp(self, version: int) -> None:
        """redis.setresp."""
        self.program.resp = version

    def may(self, words: tuple[bytes, ...]) -> bool | None:
        """redis.acl_check_cmd."""
        row = self.program.row_of(*words)
        if row is None:
            return None
        if self.scripts.check is not None:
            try:
                self.scripts.check(self.program.context.user_number, row, words[row.words :])
            except CommandError:
                return False
        return True

    def register(self, name: bytes, description: bytes | None, flags: tuple[str, ...]) -> str:
        """No script registers functions."""
        return "ERR redis.register_function can only be called on FUNCTION LOAD command"


def notice(*words: Any) -> Raw:
    """What a router is to do instead of passing a reply on (mux/scripts.pxi)."""
    return Raw(bytes(4) + encode_reply(list(words), INTERNAL))


def encoded(reply: Reply, dialect: int) -> bytes:
    """A reply as its client gets it."""
    return reply.data if type(reply) is Raw else encode_reply(reply, dialect)


def _failure(failure: Any, sha: bytes, script: Script) -> str:
    """The text of an error as a real server words it."""
    text, source, line = failure
    shown = text.decode("utf-8", "surrogateescape")
    if not source and b"not enough memory" not in text:
        # `return redis.call(…)` leaves no trace of the line that it was on.
        source, line = b"@user_script", _line_of_call(script.text)
    if not source:
        return f"{shown} script: {sha.decode()}"
    return f"{shown} script: {sha.decode()}, on {source.decode('utf-8', 'backslashreplace')}:{line}."


def _line_of_call(text: bytes) -> int:
    found = list(RETURNED_CALL.finditer(text))
    return text.count(b"\n", 0, found[-1].start()) + 1 if found else 1
